// Names the points that were exchanged, and lays out the trials of the search.
#include "report/injection_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

namespace pb::report {
namespace {

// "0-2 and 5".
std::string LayerList(const std::vector<int32_t>& layers) {
  std::vector<std::string> runs;
  for (size_t i = 0; i < layers.size();) {
    size_t end = i;
    while (end + 1 < layers.size() && layers[end + 1] == layers[end] + 1) end++;
    runs.push_back(end == i ? fmt::format("{}", layers[i]) : fmt::format("{}-{}", layers[i], layers[end]));
    i = end + 1;
  }
  if (runs.size() < 2) return runs.empty() ? "" : runs[0];
  const std::string last = runs.back();
  runs.pop_back();
  return fmt::format("{} and {}", fmt::join(runs, ", "), last);
}

nlohmann::ordered_json TrialJson(const inject::InjectionTrial& trial) {
  nlohmann::ordered_json points = nlohmann::ordered_json::array();
  for (const inject::InjectionPoint& p : trial.points)
    points.push_back({{"stage", pb_vocabulary[p.stage].name}, {"layer", p.layer}});
  auto number = [&](double v) { return trial.finite ? nlohmann::ordered_json(v) : nlohmann::ordered_json(); };
  return {{"points", points},
          {"positions", trial.n_positions},
          {"mean_kl", number(trial.mean_kl)},
          {"worst_kl", number(trial.worst_kl)},
          {"worst_position", trial.worst_position},
          {"top1_flips", trial.n_flips},
          {"finite", trial.finite},
          {"restores", trial.restores}};
}

nlohmann::ordered_json TrialsJson(const std::vector<inject::InjectionTrial>& trials) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const inject::InjectionTrial& trial : trials) all.push_back(TrialJson(trial));
  return all;
}

}  // namespace

std::string DescribePoints(const std::vector<inject::InjectionPoint>& points, int64_t n_layers) {
  std::map<int32_t, std::vector<int32_t>> layers_of;  // by stage
  for (const inject::InjectionPoint& p : points) layers_of[p.stage].push_back(p.layer);
  std::map<std::vector<int32_t>, std::vector<const char*>> stages_of;  // by layers
  for (auto& [stage, layers] : layers_of) {
    std::sort(layers.begin(), layers.end());
    stages_of[layers].push_back(pb_vocabulary[stage].name);
  }
  std::vector<std::string> parts;
  for (const auto& [layers, stages] : stages_of) {
    std::string part = fmt::format("{}", fmt::join(stages, " and "));
    if (layers.front() >= 0) {
      const bool all = static_cast<int64_t>(layers.size()) == n_layers && n_layers > 1;
      part += all ? fmt::format(" in all {} layers", n_layers)
                  : fmt::format(" in layer{} {}", layers.size() > 1 ? "s" : "", LayerList(layers));
    }
    parts.push_back(std::move(part));
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

std::string InjectionSentence(const inject::InjectionResult& r) {
  using Outcome = inject::InjectionResult::Outcome;
  const std::string what = r.kind == inject::InjectionKind::kOp ? "op" : "tensor";
  const std::string limit = r.limits.empty() ? "" : fmt::format(", limit {:.1e}", r.limits[0].value);
  switch (r.outcome) {
    case Outcome::kAgrees:
      return fmt::format(
          "the logits agree within noise as they are (mean KL {:.1e}{}), so exchanging {}s can tell nothing",
          r.before.mean_kl, limit, what);
    case Outcome::kNotRestorable:
      return fmt::format("no set of exchanged {}s restores the logits: with all of them mean KL is {:.1e}{}",
                         what, r.everything.mean_kl, limit);
    case Outcome::kFound:
    case Outcome::kGaveUp:
      break;
  }
  if (r.found.points.empty()) return fmt::format("the search gave up after {} trials", r.tried.size());
  std::string text = fmt::format(
      "replacing {} of the {} by the {}'s {} restores the logits to within noise (mean KL {:.1e} -> "
      "{:.1e}{})",
      DescribePoints(r.found.points, r.n_layers), r.recipient, r.donor,
      r.kind == inject::InjectionKind::kOp ? "own computation" : "tensor", r.before.mean_kl, r.found.mean_kl,
      limit);
  if (r.outcome == Outcome::kGaveUp)
    return text + fmt::format("; whether fewer would do is not known after {} trials", r.tried.size());
  if (r.without.empty()) return text + "; one point, so nothing smaller can";
  double least = INFINITY;
  for (const inject::InjectionTrial& trial : r.without)
    if (trial.finite) least = std::min(least, trial.mean_kl);
  return text + fmt::format("; leaving out any one of the {} does not (mean KL at least {:.1e})",
                            r.found.points.size(), least);
}

nlohmann::ordered_json InjectionJson(const inject::InjectionResult& r) {
  nlohmann::ordered_json limits = nlohmann::ordered_json::array();
  for (const compare::Limit& l : r.limits)
    limits.push_back({{"name", l.name},
                      {"value", l.value},
                      {"unit", l.unit},
                      {"origin", l.origin},
                      {"by_user", l.by_user}});
  nlohmann::ordered_json object = {
      {"outcome", inject::InjectionOutcomeName(r.outcome)},
      {"kind", inject::InjectionKindName(r.kind)},
      {"recipient", r.recipient},
      {"donor", r.donor},
      {"compared_with", r.other},
      {"sentence", InjectionSentence(r)},
      {"limits", limits},
      {"before", TrialJson(r.before)},
      {"everything", TrialJson(r.everything)},
      {"found", r.found.points.empty() ? nlohmann::ordered_json() : TrialJson(r.found)},
      {"one_minimal", r.outcome == inject::InjectionResult::Outcome::kFound},
      {"without_one", TrialsJson(r.without)},
      {"cuts", TrialsJson(r.cuts)},
      {"tried", TrialsJson(r.tried)},
      {"left_out", r.left_out}};
  return object;
}

}  // namespace pb::report
