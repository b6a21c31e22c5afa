// Reads policies, and holds receipts against them and against baselines.
#include "receipt/policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/toml_table.h"
#include "receipt/fields.h"
#include "receipt/speeds.h"

namespace pb::receipt {
namespace {

using compare::Outcome;
using Json = nlohmann::json;

constexpr const char* kRuns[] = {"crossval", "crossval-per-token", "audit", "trace-diff", "benchmark",
                                 "noise",    "self-check"};

Result<GatePolicy> ReadGate(const Json& json, size_t index, std::optional<double> max_age_days) {
  std::string where = fmt::format("gate {}", index + 1);
  if (!json.is_object()) return MakeError(Code::kMalformed, "{}: is no table, as [[gate]]", where);
  GatePolicy gate;
  gate.max_age_days = max_age_days;
  if (json.contains("name") && json["name"].is_string())
    where += " (" + json["name"].get<std::string>() + ")";
  TomlTable table(json, where);
  std::string scope = "local";
  table.Text("name", &gate.name);
  table.Words("run", R"(["audit", "--model", "m.gguf"])", &gate.run);
  table.Text("receipt", &gate.receipt);
  table.Words("verdict", R"(["match", "drift"])", &gate.verdicts);
  table.Text("scope", &scope);
  table.Truth("user_limits", &gate.user_limits);
  table.Truth("as_recorded", &gate.as_recorded);
  table.Truth("baseline", &gate.baseline);
  table.Numbers("limits", &gate.limits);
  table.Number("max_age_days", &gate.max_age_days);
  PB_TRY(table.End());
  if (!IsFileName(gate.name))
    return MakeError(Code::kMalformed, "{}: needs a name of letters, digits, - _ and .", where);
  if (gate.run.empty() == gate.receipt.empty())
    return MakeError(Code::kMalformed, "{}: needs either run or receipt", where);
  if (!gate.run.empty() && std::find(std::begin(kRuns), std::end(kRuns), gate.run[0]) == std::end(kRuns))
    return MakeError(Code::kMalformed, "{}: run: `{}` writes no receipt; those that do: {}", where,
                     gate.run[0], fmt::join(kRuns, ", "));
  for (const std::string& word : gate.run)
    if (word == "--receipt" || word.starts_with("--receipt=") || word == "--format" ||
        word.starts_with("--format="))
      return MakeError(Code::kMalformed, "{}: run: {} is the gate's own", where, word);
  if (scope != "local" && scope != "logits-only")
    return MakeError(Code::kMalformed, "{}: scope is local or logits-only", where);
  gate.logits_only = scope == "logits-only";
  for (const std::string& verdict : gate.verdicts) {
    const auto outcome = compare::FindOutcome(verdict);
    if (verdict != "measured" && (!outcome || compare::ExitCode(*outcome) != 0))
      return MakeError(Code::kMalformed,
                       "{}: verdict: `{}` is no pass; those that are: match, near-tie, drift, measured",
                       where, verdict);
  }
  return gate;
}

Gate Passed(const char* name, std::string saw) { return {name, true, Outcome::kMatch, std::move(saw)}; }
Gate Failed(const char* name, Outcome outcome, std::string saw) {
  return {name, false, outcome, std::move(saw)};
}

// A limit below which values must not fall is looser where it is lower.
bool IsLooser(const std::string& name, double limit, double than) {
  constexpr double kRounding = 1e-9;
  return name == "cosine.min" ? limit < than - kRounding : limit > than * (1 + kRounding);
}

Gate CheckLimits(const Json& r, const GatePolicy& policy) {
  for (const Json& limit : r["limits"]) {
    const std::string& name = limit["name"].get_ref<const std::string&>();
    if (limit["by_user"].get<bool>() && name.starts_with("kl.") && !policy.user_limits)
      return Failed(
          "limits", Outcome::kIncomplete,
          fmt::format("{} was given by a user, not measured; user_limits = true would take it", name));
  }
  for (const auto& [name, most] : policy.limits) {
    const bool there =
        std::any_of(r["limits"].begin(), r["limits"].end(),
                    [&, &wanted = name](const Json& limit) { return limit["name"] == wanted; });
    if (!there)
      return Failed("limits", Outcome::kIncomplete, fmt::format("{} is not among the limits", name));
  }
  for (const Json& limit : r["limits"]) {
    const auto asked = policy.limits.find(limit["name"].get<std::string>());
    if (asked == policy.limits.end()) continue;
    const double value = Number(limit["value"]).value_or(1e308);
    if (IsLooser(asked->first, value, asked->second))
      return Failed(
          "limits", Outcome::kIncomplete,
          fmt::format("{} is {:.3e}, and the policy allows {:.3e}", asked->first, value, asked->second));
  }
  return Passed("limits",
                policy.limits.empty() ? "measured" : "measured, and no looser than the policy allows");
}

std::string JoinedVerdicts(const GatePolicy& policy) {
  return fmt::format("{}", fmt::join(policy.verdicts, ", "));
}

Gate CheckVerdict(const Json& r, const GatePolicy& policy) {
  const std::string verdict = r["verdict"];
  const auto outcome = compare::FindOutcome(verdict);
  if (std::find(policy.verdicts.begin(), policy.verdicts.end(), verdict) != policy.verdicts.end())
    return Passed("verdict", verdict);
  return Failed("verdict", outcome && compare::ExitCode(*outcome) != 0 ? *outcome : Outcome::kDiverged,
                fmt::format("{}, and the policy takes {}: {}", verdict, JoinedVerdicts(policy),
                            r["reasons"][0]["text"].get<std::string>()));
}

Gate CheckReference(const Json& r, bool require_cpp) {
  if (!require_cpp) return Passed("reference", "any");
  for (const Json& engine : r["engines"]) {
    const std::string name = FactOf(engine, "description", "name");
    if ((engine["role"] == "reference" || r["command"] == "noise") && name != "native" && name != "oracle" &&
        !name.empty())
      return Passed("reference", name);
  }
  return Failed("reference", Outcome::kIncomplete, "no C++ reference took part");
}

int Rank(const std::string& verdict) {
  return static_cast<int>(compare::FindOutcome(verdict).value_or(Outcome::kMatch));
}

Gate CompareSpeedGate(const Json& r, const Json& baseline) {
  const SpeedComparison speeds = CompareSpeeds(r, baseline, {});
  for (const SpeedChange& change : speeds.changes)
    if (change.regression) return Failed("baseline", Outcome::kDiverged, change.sentence);
  if (!speeds.why_not.empty()) return Failed("baseline", Outcome::kIncomplete, speeds.why_not);
  return Passed("baseline", "no slower than the spread of repeats explains");
}

}  // namespace

Result<Policy> ReadPolicy(const Json& toml) {
  Policy policy;
  std::optional<double> max_age_days;
  TomlTable table(toml, "the policy");
  table.Text("baselines", &policy.baselines);
  table.Number("max_age_days", &max_age_days);
  table.Skip("gate");
  PB_TRY(table.End());
  if (!toml.contains("gate") || !toml["gate"].is_array() || toml["gate"].empty())
    return MakeError(Code::kMalformed, "the policy has no [[gate]], so nothing would be checked");
  for (size_t i = 0; i < toml["gate"].size(); ++i) {
    PB_ASSIGN(GatePolicy gate, ReadGate(toml["gate"][i], i, max_age_days));
    for (const GatePolicy& other : policy.gates)
      if (other.name == gate.name)
        return MakeError(Code::kMalformed, "gate {}: there is another gate named {}", i + 1, gate.name);
    policy.gates.push_back(std::move(gate));
  }
  return policy;
}

std::vector<Gate> CheckPolicy(const Json& r, const GatePolicy& policy, bool require_cpp) {
  std::vector<Gate> gates = {CheckVerdict(r, policy)};
  if (r["command"] != "benchmark" && r["command"] != "noise") {
    const bool local = r["scope"] == "local" || r["command"] == "trace-diff";
    gates.push_back(local || policy.logits_only
                        ? Passed("scope", local ? "every op" : "the logits alone, which the policy takes")
                        : Failed("scope", Outcome::kIncomplete,
                                 "the logits alone were compared; scope = \"logits-only\" would take that"));
  }
  if (r["command"] != "benchmark") gates.push_back(CheckLimits(r, policy));
  if (require_cpp) gates.push_back(CheckReference(r, require_cpp));
  return gates;
}

std::vector<Gate> CheckBaseline(const Json& r, const Json& b) {
  const auto fail = [](Outcome outcome, std::string saw) {
    return std::vector<Gate>{Failed("baseline", outcome, std::move(saw))};
  };
  if (r["command"] != b["command"]) return fail(Outcome::kInvalid, "the baseline is of another command");
  if (r["model"]["sha256"] != b["model"]["sha256"])
    return fail(Outcome::kInvalid, "the baseline is of another model; --update-baseline makes a new one");
  if (r["command"] == "benchmark") return {CompareSpeedGate(r, b)};
  if (r.contains("prompts") && b.contains("prompts")) {
    bool same = r["prompts"].size() == b["prompts"].size();
    for (size_t i = 0; same && i < r["prompts"].size(); ++i)
      same = r["prompts"][i]["tokens"] == b["prompts"][i]["tokens"];
    if (!same)
      return fail(Outcome::kInvalid, "the baseline is of other prompts; --update-baseline makes a new one");
  }
  if (Rank(r["verdict"]) > Rank(b["verdict"]))
    return fail(Outcome::kDiverged,
                fmt::format("the verdict is {}, and was {}", r["verdict"].get<std::string>(),
                            b["verdict"].get<std::string>()));
  if (r["coverage"]["compared"] < b["coverage"]["compared"])
    return fail(Outcome::kIncomplete,
                fmt::format("{} {} were compared, and {} were", r["coverage"]["compared"].dump(),
                            r["coverage"]["unit"].get<std::string>(), b["coverage"]["compared"].dump()));
  for (const Json& was : b["limits"]) {
    const std::string& name = was["name"].get_ref<const std::string&>();
    for (const Json& is : r["limits"]) {
      if (is["name"] != name || is.value("window", 0) != was.value("window", 0)) continue;
      const auto now = Number(is["value"]), before = Number(was["value"]);
      if (now && before && IsLooser(name, *now, *before))
        return fail(Outcome::kIncomplete,
                    fmt::format("the limit {} is looser: {:.3e}, and was {:.3e}", name, *now, *before));
    }
    if (std::none_of(r["limits"].begin(), r["limits"].end(),
                     [&](const Json& is) { return is["name"] == name; }))
      return fail(Outcome::kIncomplete, fmt::format("the limit {} is gone", name));
  }
  return {Passed("baseline", fmt::format("as good as that of {}", b["created"].get<std::string>()))};
}

}  // namespace pb::receipt
