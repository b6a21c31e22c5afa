// Judges a receipt's positions, points and reasons anew (docs/numerics.md has the rules).
#include "receipt/rejudge.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>

#include "compare/noise_floor.h"
#include "compare/reasons.h"
#include "compare/verdict.h"
#include "receipt/fields.h"

namespace pb::receipt {
namespace {

using compare::Outcome;
using compare::ReasonCode;
using Json = nlohmann::json;

// Figures that were worked out from the same numbers in another order.
constexpr double kRounding = 1e-9;

bool Near(double a, double b) { return std::fabs(a - b) <= kRounding * std::max(std::fabs(a), std::fabs(b)); }

std::string Where(const Json& row) {
  return fmt::format("prompt {}, position {}", row["prompt"].get<int64_t>(), row["position"].get<int64_t>());
}

class Limits {
 public:
  explicit Limits(const Json& receipt) : limits_(receipt["limits"]), receipt_(receipt) {}

  // The limit of this name; of a mean over n positions the one that holds for so many.
  std::optional<double> Find(std::string_view name, int64_t n = 0) const {
    const Json& floor = receipt_["noise_floor"];
    const int64_t window = n > 0 && !floor.is_null() ? std::min(n, floor["n_positions"].get<int64_t>()) : n;
    for (const Json& limit : limits_) {
      if (limit["name"] != name) continue;
      const auto of = limit.value("window", int64_t{0});
      if (of == 0 || of == window) return Number(limit["value"]);
    }
    return std::nullopt;
  }

 private:
  const Json& limits_;
  const Json& receipt_;
};

// Of the codes that figures decide, those that these come to.
struct LogitsFindings {
  std::set<ReasonCode> codes;
  bool any_limit_by_noise_exceeded = false;
};

class LogitsAgain {
 public:
  explicit LogitsAgain(const Json& receipt) : receipt_(receipt), limits_(receipt) {}

  Judged Judge() {
    CheckLimits();
    for (const Json& row : receipt_["positions"]) CheckRow(row);
    CheckMeans();
    if (receipt_["positions"].empty()) Unjudged("there is no position, so nothing was compared");
    const int64_t n = static_cast<int64_t>(receipt_["positions"].size());
    const std::string limit = kl_worst_ ? fmt::format("limit {:.1e}", *kl_worst_) : std::string("no limit");
    judged_.saw = fmt::format("{} position{}, worst KL {:.1e} ({}), the same next token at {}", n,
                              n == 1 ? "" : "s", worst_kl_, limit, n - n_flips_);
    if (n_drifting_ > 0)
      judged_.saw += fmt::format(", {} beyond the noise, which is drift{}", n_drifting_,
                                 kl_worst_effect_ ? fmt::format(" up to {:.1e}", *kl_worst_effect_) : "");
    return std::move(judged_);
  }

  std::vector<std::string> LimitsAlone() {
    CheckLimits();
    return std::move(judged_.contradictions);
  }

  LogitsFindings Findings() {
    (void)Judge();
    return std::move(findings_);
  }

 private:
  template <typename... Args>
  void Contradict(fmt::format_string<Args...> format, const Args&... args) {
    judged_.contradictions.push_back(fmt::vformat(format, fmt::make_format_args(args...)));
  }
  void Unjudged(std::string text) { judged_.unjudged.push_back(std::move(text)); }
  void Beyond(std::string text) { judged_.beyond.push_back(std::move(text)); }

  bool IsByUser(std::string_view name) const {
    for (const Json& limit : receipt_["limits"])
      if (limit["name"] == name) return limit["by_user"];
    return false;
  }

  // Whether a limit of noise may be exceeded: the reason says drift (whether that is so is asked of the
  // verdict), and what two precisions make of the logits, where that is the reason, holds.
  bool IsDrift(ReasonCode code, double value, const std::optional<double>& effect) const {
    for (const Json& reason : receipt_["reasons"])
      if (reason["code"] == compare::ReasonName(code))
        return reason["outcome"] == "drift" && (!effect || value <= *effect);
    return false;
  }

  // A limit of two precisions: the noise's, and a multiple of what the arbiter's logits differ by.
  void CheckEffect(const std::string& name, double value) {
    const Json& effect = receipt_["precision_effect"];
    if (effect.is_null()) return Contradict("the limit {} has no effect that it comes of", name);
    const struct {
      const char *limit, *effect;
      double noise, factor;
    } rows[] = {{"kl.mean.precision", "mean_kl", largest_mean_limit_, compare::kMeanFactor},
                {"kl.worst.precision", "worst_kl", kl_worst_.value_or(0), compare::kWorstFactor},
                {"gap.change.precision", "worst_gap", gap_.value_or(0), compare::kWorstFactor}};
    for (const auto& row : rows) {
      const double is = row.noise + row.factor * Number(effect[row.effect]).value_or(0);
      if (name == row.limit && !Near(value, is))
        Contradict("the limit {} is {:.6e}, and its effect makes {:.6e} of it", name, value, is);
    }
  }

  // What a limit of the noise's is of the floor that the receipt names.
  void CheckLimits() {
    kl_worst_ = limits_.Find("kl.worst"), gap_ = limits_.Find("gap.change");
    kl_worst_effect_ = limits_.Find("kl.worst.precision"), gap_effect_ = limits_.Find("gap.change.precision");
    kl_mean_effect_ = limits_.Find("kl.mean.precision");
    for (const Json& limit : receipt_["limits"])
      if (limit["name"] == "kl.prefill.mean" || limit["name"] == "kl.decode.mean")
        largest_mean_limit_ = std::max(largest_mean_limit_, Number(limit["value"]).value_or(0));
    const Json& floor = receipt_["noise_floor"];
    const bool fused = AttentionDiffers(receipt_);
    for (const Json& limit : receipt_["limits"]) {
      const std::string& name = limit["name"].get_ref<const std::string&>();
      if (limit["value"].is_null()) Contradict("the limit {} has no value", name);
      if (limit["by_user"].get<bool>() || limit["value"].is_null()) continue;
      const double value = limit["value"];
      if (name.ends_with(".precision")) {
        CheckEffect(name, value);
        continue;
      }
      if (floor.is_null()) {
        if (name != "gap.change" || value != 0)
          Contradict("the limit {} is measured, and there is no noise floor", name);
        continue;
      }
      const double widened = !fused                 ? 1
                             : name == "gap.change" ? std::sqrt(compare::kFusedAttentionKl)
                                                    : compare::kFusedAttentionKl;
      const double worst = Number(floor["worst_kl"]).value_or(0),
                   gap = Number(floor["worst_gap"]).value_or(0);
      if (name == "kl.worst" && !Near(value, compare::kWorstFactor * worst * widened))
        Contradict("the limit kl.worst is {:.6e}, and its noise floor makes {:.6e} of it", value,
                   compare::kWorstFactor * worst * widened);
      if (name == "gap.change" && !Near(value, compare::kWorstFactor * gap * widened))
        Contradict("the limit gap.change is {:.6e}, and its noise floor makes {:.6e} of it", value,
                   compare::kWorstFactor * gap * widened);
      if (name.ends_with(".mean") && value > compare::kMeanFactor * worst * widened * (1 + kRounding))
        Contradict("the limit {} is {:.6e}, and no mean of its noise floor is as large", name, value);
    }
  }

  void CheckRow(const Json& row) {
    const auto kl = Number(row["kl"]), max_abs = Number(row["max_abs"]), gap = Number(row["gap"]["change"]);
    const bool non_finite = row["n_non_finite"]["candidate"] != 0 || row["n_non_finite"]["reference"] != 0;
    if (non_finite || !row["finite"].get<bool>() || !kl || !gap) {
      Contradict("{}: logits are NaN or infinite", Where(row));
      findings_.codes.insert(ReasonCode::kNonFinite);
      if (row["finite"].get<bool>()) Contradict("{}: is called finite and is not", Where(row));
      return;
    }
    CheckAgainstItself(row, *kl, max_abs);
    worst_kl_ = std::max(worst_kl_, *kl);
    Group& group = groups_[{row["prompt"], row["phase"] == "decode"}];
    group.sum += *kl, group.n++;
    bool above = false;
    bool drifts = false;
    const auto check = [&](ReasonCode code, std::string_view name, const std::optional<double>& limit,
                           std::optional<double> value, bool lower_is_worse = false,
                           const std::optional<double>& effect = std::nullopt) {
      if (!limit || (value && (lower_is_worse ? *value >= *limit : *value <= *limit))) return;
      const bool drift = value && !IsByUser(name) && IsDrift(code, *value, effect);
      drifts = drifts || drift;
      if (!drift)
        Beyond(fmt::format("{}: {} is {}, limit {:.3e}", Where(row), name,
                           value ? fmt::format("{:.3e}", *value) : "not known", effect.value_or(*limit)));
      findings_.codes.insert(code);
      findings_.any_limit_by_noise_exceeded |= !IsByUser(name);
      above = true;
    };
    check(ReasonCode::kKlWorstAboveLimit, "kl.worst", kl_worst_, kl, false, kl_worst_effect_);
    check(ReasonCode::kCosineBelowLimit, "cosine.min", limits_.Find("cosine.min"), Number(row["cosine"]),
          true);
    check(ReasonCode::kRelL2AboveLimit, "rel_l2.worst", limits_.Find("rel_l2.worst"), Number(row["rel_l2"]));
    check(ReasonCode::kMaxAbsAboveLimit, "max_abs.worst", limits_.Find("max_abs.worst"), max_abs);
    if (row["top1"]["candidate"] != row["top1"]["reference"]) {
      ++n_flips_;
      check(ReasonCode::kTop1Flip, "gap.change", gap_, gap, false, gap_effect_);
      if (gap_ && *gap <= *gap_) findings_.codes.insert(ReasonCode::kNearTie);
    }
    n_drifting_ += drifts;
    if (kl_worst_ && above != row["above_limit"].get<bool>())
      Contradict("{}: {} beyond a limit, and the receipt says otherwise", Where(row),
                 above ? "is" : "is not");
  }

  // Figures of one row bind each other: what was written down by hand seldom keeps to it.
  void CheckAgainstItself(const Json& row, double kl, std::optional<double> max_abs) {
    // KL is a mean of changes of log p, none of which is larger than the largest.
    if (kl < 0 || (max_abs && kl > *max_abs * (1 + kRounding)))
      Contradict("{}: a KL of {:.3e} with no change of log p beyond {:.3e}", Where(row), kl,
                 max_abs.value_or(0));
    std::set<int64_t> best[2];
    for (int side : {0, 1}) {
      const char* name = side == 0 ? "candidate" : "reference";
      const Json& top = row["top_k"][name];
      for (const Json& entry : top) best[side].insert(entry["token"].get<int64_t>());
      if (!top.empty() && top[0]["token"] != row["top1"][name])
        Contradict("{}: the {}'s first choice is not the first of its best", Where(row), name);
    }
    int64_t n_shared = 0;
    for (const int64_t id : best[1]) n_shared += static_cast<int64_t>(best[0].count(id));
    if (!best[0].empty() && !best[1].empty() && n_shared != row["top_k_overlap"].get<int64_t>())
      Contradict("{}: {} of the best tokens are shared, and the receipt says {}", Where(row), n_shared,
                 row["top_k_overlap"].get<int64_t>());
  }

  void CheckMeans() {
    for (const auto& [key, group] : groups_) {
      const std::string name = key.second ? "kl.decode.mean" : "kl.prefill.mean";
      const auto limit = limits_.Find(name, group.n);
      const double mean = group.sum / static_cast<double>(group.n);
      if (!limit && kl_worst_) Unjudged(fmt::format("prompt {}: there is no limit {}", key.first, name));
      if (!limit || mean <= *limit) continue;
      if (IsByUser(name) || !IsDrift(ReasonCode::kKlMeanAboveLimit, mean, kl_mean_effect_))
        Beyond(fmt::format("prompt {}: the mean KL over {} positions is {:.3e}, limit {} {:.3e}", key.first,
                           group.n, mean, name, kl_mean_effect_.value_or(*limit)));
      findings_.codes.insert(ReasonCode::kKlMeanAboveLimit);
      findings_.any_limit_by_noise_exceeded |= !IsByUser(name);
    }
    if (!kl_worst_) Unjudged("there is no limit of the KL, so nothing was judged");
  }

  struct Group {
    double sum = 0;
    int64_t n = 0;
  };
  const Json& receipt_;
  Limits limits_;
  std::optional<double> kl_worst_, gap_;
  std::optional<double> kl_worst_effect_, gap_effect_, kl_mean_effect_;  // of two precisions
  double largest_mean_limit_ = 0;
  Judged judged_;
  LogitsFindings findings_;
  std::map<std::pair<int64_t, bool>, Group> groups_;  // prompt, whether decode
  double worst_kl_ = 0;
  int64_t n_flips_ = 0, n_drifting_ = 0;
};

std::string PointAt(const Json& p) {
  const int64_t layer = p["layer"];
  return layer < 0 ? p["stage"].get<std::string>()
                   : fmt::format("layer {}, {}", layer, p["stage"].get<std::string>());
}

struct OpsFindings {
  int64_t n_judged = 0, n_beyond = 0, n_non_finite = 0, n_by_codes = 0;
};

OpsFindings CheckPoints(const Json& receipt, Judged* judged) {
  OpsFindings found;
  double worst = 0;
  std::set<std::tuple<int64_t, int64_t, std::string, int64_t, int64_t>> seen;
  for (const Json& p : receipt["points"]) {
    if (!seen.emplace(p["prompt"], p["step"], p["stage"], p["layer"], p["first_position"]).second)
      judged->contradictions.push_back(PointAt(p) + " stands there twice");
    if (p["n_non_finite"]["candidate"] != 0 || p["n_non_finite"]["reference"] != 0) {
      ++found.n_non_finite;
      judged->contradictions.push_back(PointAt(p) + " holds NaN or infinite values");
      continue;
    }
    const auto bound = Number(p["bound"]), ratio = Number(p["bound_ratio"]);
    found.n_by_codes += p["explained_by_codes"].get<bool>();
    if (bound && *bound == 0) continue;  // not judged
    ++found.n_judged;
    const auto row = Number(p["worst_row"]["error"]), feature = Number(p["worst_feature"]["error"]);
    // No row or feature is further from its bound than the one whose bound this is.
    if (bound && ratio && row && feature &&
        *ratio * *bound > std::max(*row, *feature) * (1 + kRounding) + 1e-300)
      judged->contradictions.push_back(fmt::format(
          "{}: {:.3g} of a bound of {:.1e}, and no error is as large", PointAt(p), *ratio, *bound));
    if (ratio && *ratio <= 1) {
      worst = std::max(worst, *ratio);
      continue;
    }
    if (p["explained_by_codes"].get<bool>() || p["explained_by_precision"].get<bool>() ||
        p.value("explained_by_tie", false))
      continue;
    ++found.n_beyond;
    judged->beyond.push_back(
        fmt::format("{}: {} its bound", PointAt(p), ratio ? fmt::format("{:.3g} times", *ratio) : "beyond"));
  }
  judged->saw =
      fmt::format("{} ops on equal inputs, the worst at {:.2g} of its bound", found.n_judged, worst);
  return found;
}

class VerdictAgain {
 public:
  explicit VerdictAgain(const Json& receipt) : receipt_(receipt) {}

  std::vector<std::string> Check() {
    CheckReasons();
    const std::string& command = receipt_["command"].get_ref<const std::string&>();
    if (command.starts_with("crossval")) {
      if (IsComparable()) CheckLogits();
      if (receipt_["scope"] == "local") CheckOps();
      CheckPaths();
    }
    if (command == "audit") CheckOps();
    if (command == "trace-diff") CheckTraces();
    return std::move(problems_);
  }

 private:
  template <typename... Args>
  void Add(fmt::format_string<Args...> format, const Args&... args) {
    problems_.push_back(fmt::vformat(format, fmt::make_format_args(args...)));
  }
  bool Has(ReasonCode code) const { return told_.count(code) > 0; }
  void Expect(bool there, ReasonCode code) {
    if (there != Has(code))
      Add("{} {} what the figures come to", compare::ReasonName(code),
          there ? "is missing among the reasons, and is" : "stands among the reasons, and is not");
  }

  // The verdict is the worst reason's, each has the outcome that its code has.
  void CheckReasons() {
    Outcome worst = Outcome::kMatch;
    for (const Json& reason : receipt_["reasons"]) {
      const std::string& name = reason["code"].get_ref<const std::string&>();
      const auto code = compare::FindReason(name);
      const auto outcome = compare::FindOutcome(reason["outcome"].get<std::string>());
      if (!code || !outcome) {
        if (name != "measured") Add("the reason {} is not known", name);
        continue;
      }
      told_.emplace(*code, *outcome);
      worst = std::max(worst, *outcome);
      if (const auto fixed = compare::FixedOutcome(*code); fixed && *fixed != *outcome)
        Add("the reason {} is called {} and is {}", name, compare::OutcomeName(*outcome),
            compare::OutcomeName(*fixed));
    }
    if (receipt_["verdict"] == "measured") {
      const std::string& command = receipt_["command"].get_ref<const std::string&>();
      if (command != "benchmark" && command != "noise" && command != "self-check")
        Add("nothing but a measurement has the verdict measured");
      if (receipt_["exit_code"] != 0) Add("a measurement has the exit code 0");
      if (compare::ExitCode(worst) != 0)
        Add("the verdict is measured, and the worst of its reasons is {}", compare::OutcomeName(worst));
      return;
    }
    if (receipt_["verdict"] != compare::OutcomeName(worst))
      Add("the verdict is {}, and the worst of its reasons is {}", receipt_["verdict"].get<std::string>(),
          compare::OutcomeName(worst));
    if (receipt_["exit_code"] != compare::ExitCode(worst))
      Add("the exit code is {}, and {} has {}", receipt_["exit_code"].get<int64_t>(),
          compare::OutcomeName(worst), compare::ExitCode(worst));
  }

  // What other tokens, other settings and an undeclared model leave unjudged.
  bool IsComparable() const {
    return !Has(ReasonCode::kSettingsDiffer) && !Has(ReasonCode::kUndeclared) &&
           !Has(ReasonCode::kTokensDiffer) && !receipt_["positions"].empty();
  }

  bool IsCovered() const {
    const Json& c = receipt_["coverage"];
    return c["expected"] > 0 && c["compared"] == c["expected"] && c["missing"].empty();
  }

  void CheckLogits() {
    const LogitsFindings found = LogitsAgain(receipt_).Findings();
    const auto has = [&](ReasonCode code) { return found.codes.count(code) > 0; };
    for (const ReasonCode code :
         {ReasonCode::kKlWorstAboveLimit, ReasonCode::kKlMeanAboveLimit, ReasonCode::kTop1Flip,
          ReasonCode::kCosineBelowLimit, ReasonCode::kRelL2AboveLimit, ReasonCode::kMaxAbsAboveLimit,
          ReasonCode::kNearTie, ReasonCode::kNonFinite})
      Expect(has(code), code);
    // Beyond the noise is a divergence, unless every op was seen and is right, or products or the sums
    // of attention as one op round differently.
    if (!found.any_limit_by_noise_exceeded) return;
    const bool fused_sums = receipt_["scope"] == "local" && Has(ReasonCode::kFusedAttention) &&
                            !AttentionDiffers(receipt_) && !Has(ReasonCode::kLocalErrorAboveBound);
    const bool drifts =
        (receipt_["scope"] == "local" && IsCovered() && !Has(ReasonCode::kLocalErrorAboveBound) &&
         receipt_["coverage"]["unmapped"].empty() && receipt_["coverage"]["unobservable"].empty()) ||
        Has(ReasonCode::kPrecisionDiffers) || fused_sums;
    for (const ReasonCode code :
         {ReasonCode::kKlWorstAboveLimit, ReasonCode::kKlMeanAboveLimit, ReasonCode::kTop1Flip})
      if (auto told = told_.find(code); told != told_.end() && told->second == Outcome::kDrift && !drifts)
        Add("{} is called drift, which it is only where every op was seen and is right",
            compare::ReasonName(code));
  }

  void CheckOps() {
    Judged ignored;
    const OpsFindings found = CheckPoints(receipt_, &ignored);
    const bool comparable =
        receipt_["command"] == "audit" || (IsComparable() && !Has(ReasonCode::kOverwriteIgnored));
    Expect(comparable && found.n_beyond > 0, ReasonCode::kLocalErrorAboveBound);
    if (found.n_non_finite > 0 && !Has(ReasonCode::kNonFinitePoint) && !Has(ReasonCode::kKvCacheOverflow))
      Expect(true, ReasonCode::kNonFinitePoint);
    if (found.n_non_finite == 0) Expect(false, ReasonCode::kNonFinitePoint);
    Expect(comparable && found.n_by_codes > 0, ReasonCode::kExplainedByCodes);
    Expect(comparable && found.n_beyond == 0 && found.n_non_finite == 0 && IsCovered(),
           ReasonCode::kOpsWithinBounds);
    if (!IsCovered() && told_.size() == 1 && Has(ReasonCode::kOpsWithinBounds))
      Expect(true, ReasonCode::kPointsMissing);
  }

  // What a comparison beside this one finds is its verdict; and a path that nothing went through is not
  // taken.
  void CheckPaths() {
    const Json& paths = receipt_["paths"];
    for (const Json& run : paths["runs"]) {
      const auto outcome =
          run["verdict"].is_null() ? std::nullopt : compare::FindOutcome(run["verdict"].get<std::string>());
      if (outcome > Outcome::kIncomplete && receipt_["exit_code"] == 0)
        Add("the code path '{}' is {}, and the verdict is a pass", run["name"].get<std::string>(),
            compare::OutcomeName(*outcome));
    }
    const Json& prompts = receipt_["prompts"];
    const bool decodes = std::any_of(prompts.begin(), prompts.end(),
                                     [](const Json& prompt) { return !prompt["decoded"].empty(); });
    const bool left =
        std::find(paths["not_taken"].begin(), paths["not_taken"].end(), "decode") != paths["not_taken"].end();
    if (paths["runs"].empty() && decodes == left && !receipt_["positions"].empty())
      Add("the code path 'decode' is {} those not taken, and {}", left ? "among" : "not among",
          decodes ? "there are decode steps" : "there is no decode step");
  }

  void CheckTraces() {
    bool above = false;
    for (const Json& p : receipt_["points"]) above = above || p["own_error"]["state"] == "above";
    if (above) Expect(true, ReasonCode::kOwnErrorAboveBound);
  }

  const Json& receipt_;
  std::map<ReasonCode, Outcome> told_;
  std::vector<std::string> problems_;
};

}  // namespace

Judged JudgeLogitsAgain(const Json& receipt) { return LogitsAgain(receipt).Judge(); }

std::vector<std::string> JudgeLimitsAgain(const Json& receipt) { return LogitsAgain(receipt).LimitsAlone(); }

Judged JudgeOpsAgain(const Json& receipt) {
  Judged judged;
  CheckPoints(receipt, &judged);
  return judged;
}

std::vector<std::string> VerdictContradictions(const Json& receipt) { return VerdictAgain(receipt).Check(); }

}  // namespace pb::receipt
