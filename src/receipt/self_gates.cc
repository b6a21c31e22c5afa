// Holds receipts of noise and of self-checks against themselves.
#include "receipt/self_gates.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "receipt/check.h"
#include "receipt/fields.h"
#include "receipt/rejudge.h"

namespace pb::receipt {
namespace {

using compare::Outcome;
using compare::ReasonCode;
using Json = nlohmann::json;

bool HasReason(const Json& r, ReasonCode code) {
  return std::any_of(r["reasons"].begin(), r["reasons"].end(),
                     [&](const Json& reason) { return reason["code"] == compare::ReasonName(code); });
}

std::string AxisName(const Json& axis) {
  return axis["axis"].get<std::string>() + " " + axis["value"].get<std::string>();
}

bool WasRun(const Json& axis) { return axis["refused"].is_null(); }
bool IsRepeat(const Json& axis) { return axis["axis"] == "repeat"; }

// Figures of a variation bind each other.
void CheckAxis(const Json& axis, Check* check) {
  const std::string name = AxisName(axis);
  const int64_t n = axis["n_positions"];
  double sum = 0, worst = 0;
  for (const Json& kl : axis["kl"]) {
    const auto value = Number(kl);
    if (!value) return check->Fail(Outcome::kInvalid, "{}: logits are NaN or infinite", name);
    sum += *value, worst = std::max(worst, *value);
  }
  const auto near = [](const Json& told, double is) {
    const auto value = Number(told);
    return value && std::fabs(*value - is) <= 1e-9 * std::fabs(is);
  };
  if (!near(axis["worst_kl"], worst) || (n > 0 && !near(axis["mean_kl"], sum / static_cast<double>(n))))
    check->Fail(Outcome::kInvalid, "{}: the KL of its positions come to another mean or worst one", name);
  const bool equal = axis["equal_bits"];
  if (equal != (axis["n_equal"] == n) || equal != axis["first_difference"].is_null() || (equal && worst != 0))
    check->Fail(Outcome::kInvalid, "{}: is called {} in bits, and its figures say otherwise", name,
                equal ? "equal" : "different");
}

const Json& Cases(const Json& r) { return r["self_check"]["cases"]; }

bool Failed(const Json& c) { return c["error"] != ""; }
// Of defects: whether it is large enough to count. Of harmless changes: whether it changes anything.
bool Counts(const Json& c) { return !Failed(c) && c["not_counted"] == ""; }
bool IsAlarm(const Json& c) { return c["benign"].get<bool>() && !Failed(c) && c["detected"].get<bool>(); }

// What the cases come to, counted here.
struct Tally {
  int64_t n = 0, detected = 0, placed = 0, blamed = 0, both = 0, right = 0, wrong = 0;
  int64_t skipped = 0, failed = 0, harmless = 0, alarms = 0;
  std::set<std::string> names;
};

Tally Count(const Json& r) {
  Tally t;
  for (const Json& c : Cases(r)) {
    t.failed += Failed(c);
    if (c["benign"].get<bool>()) {
      t.alarms += IsAlarm(c);
      t.harmless += IsAlarm(c) || Counts(c);
      continue;
    }
    t.skipped += !Failed(c) && !Counts(c);
    if (!Counts(c)) continue;
    const Json& spot = c["row_or_head_right"];
    const bool placed = c["exact_op"].get<bool>() && (spot.is_null() || spot.get<bool>());
    ++t.n;
    t.detected += c["detected"].get<bool>(), t.placed += placed, t.blamed += c["blamed_right"].get<bool>();
    t.both += c["exact_op"].get<bool>() && c["blamed_right"].get<bool>();
    t.right += c["match"] == "right", t.wrong += c["match"] == "wrong";
    t.names.insert(c["defect"].get<std::string>());
  }
  return t;
}

// The goals of docs/numerics.md, "Self-check".
bool GoalsHold(const Json& r, const Tally& t) {
  const auto share = [&](int64_t n, double goal) {
    return static_cast<double>(n) >= goal * static_cast<double>(t.n);
  };
  if (r["self_check"]["generated"].get<bool>())
    return t.n > 0 && t.detected == t.n && share(t.both, 0.98) && share(t.right, 0.8) && t.wrong == 0 &&
           t.harmless > 0 && t.alarms == 0;
  const bool enough = !r["self_check"]["whole"].get<bool>() || (t.names.size() >= 60 && t.harmless >= 200);
  return t.n + t.harmless > 0 && t.detected == t.n && share(t.placed, 0.98) && share(t.blamed, 0.95) &&
         t.alarms == 0 && enough;
}

}  // namespace

bool IsNoise(const Json& receipt) { return receipt["command"] == "noise"; }
bool IsSelfCheck(const Json& receipt) { return receipt["command"] == "self-check"; }

Gate NoiseCoverage(const Json& r) {
  Check check("coverage");
  int64_t positions = r["n_calibration"], there = 0, n_run = 0, n_refused = 0;
  for (const Json& prompt : r["prompts"])
    positions += static_cast<int64_t>(prompt["tokens"].size() + prompt["decoded"].size());
  for (const Json& axis : r["axes"]) {
    n_refused += !WasRun(axis);
    if (!WasRun(axis)) continue;
    ++n_run;
    const auto n = static_cast<int64_t>(axis["kl"].size());
    there += n;
    if (n != axis["n_positions"] || n != positions)
      check.Fail(n < positions ? Outcome::kIncomplete : Outcome::kInvalid,
                 "{}: {} of {} positions were compared", AxisName(axis), n, positions);
  }
  const Json& c = r["coverage"];
  if (n_run == 0) check.Fail(Outcome::kIncomplete, "nothing was varied, so no positions were compared");
  if (c["compared"] != there || c["expected"] != there)
    check.Fail(Outcome::kInvalid, "{} positions are counted as compared, and the receipt shows {}",
               c["compared"].dump(), there);
  if (r["noise_floor"].is_null()) check.Fail(Outcome::kIncomplete, "there is no noise floor");
  return check.End(
      fmt::format("{} positions in each of {}{}", positions, Plural(n_run, "variation"),
                  n_refused > 0 ? fmt::format(", {} that the engine does not offer", n_refused) : ""));
}

Gate NoiseTokens(const Json& r) {
  Check check("tokens");
  int64_t n = 0;
  for (size_t i = 0; i < r["prompts"].size(); ++i) {
    const Json& p = r["prompts"][i];
    if (p["tokens"].empty()) check.Fail(Outcome::kIncomplete, "prompt {} has no tokens", i);
    if (p["decoded"].size() != p["steps_asked"].get<size_t>())
      check.Fail(Outcome::kIncomplete, "prompt {}: {} of {} decode steps were run", i, p["decoded"].size(),
                 p["steps_asked"].get<size_t>());
    n += static_cast<int64_t>(p["tokens"].size() + p["decoded"].size());
  }
  if (n + r["n_calibration"].get<int64_t>() == 0) check.Fail(Outcome::kIncomplete, "there is no token");
  return check.End(fmt::format("{} ids of prompts and {} of the calibration text, fed in every variation", n,
                               r["n_calibration"].get<int64_t>()));
}

Gate NoiseLogits(const Json& r) {
  Check check("logits");
  for (const std::string& text : JudgeLimitsAgain(r)) check.FailWith(Outcome::kInvalid, text);
  if (r["limits"].empty()) check.Fail(Outcome::kIncomplete, "no limit follows from it");
  double worst = 0;
  int64_t n_beyond = 0;
  for (const Json& axis : r["axes"]) {
    if (!WasRun(axis)) continue;
    CheckAxis(axis, &check);
    worst = std::max(worst, Number(axis["worst_kl"]).value_or(0));
    n_beyond += axis["inside_floor"] == false;
  }
  return check.End(fmt::format("the worst KL of a variation is {:.1e}; {} beyond the floor", worst,
                               Plural(n_beyond, "variation")));
}

Gate NoiseDeterminism(const Json& r) {
  Check check("determinism");
  int64_t n = 0;
  for (const Json& axis : r["axes"]) {
    if (!IsRepeat(axis) || !WasRun(axis)) continue;
    ++n;
    if (!axis["equal_bits"].get<bool>())
      check.Fail(Outcome::kDiverged, "{}: two equal runs have other bits", AxisName(axis));
  }
  if (n == 0) check.Fail(Outcome::kIncomplete, "the engine ran once, so nothing shows that it repeats");
  return check.End(fmt::format("{} gave the same bits", Plural(n, "equal run")));
}

std::vector<std::string> NoiseContradictions(const Json& r) {
  bool broken = false, varies = false, beyond = false;
  for (const Json& axis : r["axes"]) {
    if (!WasRun(axis) || axis["equal_bits"].get<bool>()) continue;
    broken = broken || axis["promised"].get<bool>();
    varies = varies || IsRepeat(axis);
    beyond = beyond || (!IsRepeat(axis) && axis["inside_floor"] == false && axis["why"] == "");
  }
  std::vector<std::string> problems;
  for (const auto& [is, code] :
       {std::pair(broken, ReasonCode::kPromiseBroken), std::pair(varies, ReasonCode::kNotRepeatable),
        std::pair(beyond, ReasonCode::kBeyondOwnFloor)})
    if (is != HasReason(r, code))
      problems.push_back(
          fmt::format("{} {} what the variations come to", compare::ReasonName(code),
                      is ? "is missing among the reasons, and is" : "stands among the reasons, and is not"));
  return problems;
}

Gate SelfCheckCoverage(const Json& r) {
  Check check("coverage");
  const Json& c = r["coverage"];
  std::set<std::string> keys;
  int64_t n_run = 0;
  for (const Json& one : Cases(r)) {
    const std::string key = one["case"];
    if (!keys.insert(key).second) check.Fail(Outcome::kInvalid, "{} stands there twice", key);
    n_run += !Failed(one);
    if (Failed(one)) check.Fail(Outcome::kIncomplete, "{}: {}", key, one["error"].get<std::string>());
  }
  if (n_run == 0) check.Fail(Outcome::kIncomplete, "no cases were run");
  if (c["expected"] != Cases(r).size() || c["compared"] != n_run)
    check.Fail(Outcome::kInvalid, "{} of {} cases are counted as run, and the receipt shows {} of {}",
               c["compared"].dump(), c["expected"].dump(), n_run, Cases(r).size());
  return check.End(
      fmt::format("{} of {} cases, {}", n_run, Cases(r).size(), r["self_check"]["what"].get<std::string>()));
}

Gate SelfCheckTokens(const Json& r) {
  Check check("tokens");
  size_t n = 0;
  for (const Json& model : r["models"]) {
    n += model["tokens"].size();
    if (model["tokens"].empty())
      check.Fail(Outcome::kIncomplete, "{}: the prompt has no tokens", model["path"].get<std::string>());
    if (model["sha256"] == "")
      check.Fail(Outcome::kIncomplete, "{}: its digest is missing", model["path"].get<std::string>());
  }
  if (r["models"].empty()) check.Fail(Outcome::kIncomplete, "there is no model");
  for (const Json& c : Cases(r))
    if (IsAlarm(c) && c["place"].get<std::string>().find("token ids") != std::string::npos)
      check.Fail(Outcome::kInvalid, "{}: the ids are not the same on both sides",
                 c["case"].get<std::string>());
  return check.End(fmt::format("{} ids of the prompt in {}", n,
                               Plural(static_cast<int64_t>(r["models"].size()), "model")));
}

Gate SelfCheckLogits(const Json& r) {
  Check check("logits");
  int64_t n = 0;
  for (const Json& c : Cases(r)) {
    if (IsAlarm(c))
      check.Fail(Outcome::kDiverged, "{}: a harmless change is {}", c["case"].get<std::string>(),
                 c["verdict"].get<std::string>());
    n += c["benign"].get<bool>() && Counts(c);
  }
  return check.End(
      n == 0 ? "no harmless change was to be judged by them"
             : fmt::format("{} within the limits of the noise floor", Plural(n, "harmless change")));
}

Gate SelfCheckDeterminism(const Json& r) {
  Check check("determinism");
  const Json& repeated = r["self_check"]["repeated"];
  for (const Json& again : repeated) {
    const auto first = std::find_if(Cases(r).begin(), Cases(r).end(),
                                    [&](const Json& c) { return c["case"] == again["case"]; });
    if (first == Cases(r).end() || *first != again)
      check.Fail(Outcome::kIncomplete, "{}: came to something else when it was run again",
                 again["case"].get<std::string>());
  }
  if (repeated.empty()) check.Fail(Outcome::kIncomplete, "no case was run twice");
  return check.End(fmt::format("{} came to the same when run again",
                               Plural(static_cast<int64_t>(repeated.size()), "case")));
}

std::vector<std::string> SelfCheckContradictions(const Json& r, std::string* saw) {
  const Tally t = Count(r);
  const bool generated = r["self_check"]["generated"];
  const bool ran = generated ? t.n + t.skipped > 0 && t.failed == 0 : !Cases(r).empty() && t.failed == 0;
  const bool hold = GoalsHold(r, t);
  const int64_t exit_code = hold && ran ? 0 : ran ? 1 : 3;
  *saw = fmt::format("{} defects: {} found, {} placed, {} blamed right; {}", t.n, t.detected, t.placed,
                     t.blamed, Plural(t.alarms, "false alarm"));
  std::vector<std::string> problems;
  if (r["exit_code"] != exit_code)
    problems.push_back(
        fmt::format("the exit code is {}, and the cases come to {}", r["exit_code"].dump(), exit_code));
  const char* verdict = exit_code == 0 ? "measured" : exit_code == 1 ? "diverged" : "incomplete";
  if (r["verdict"] != verdict)
    problems.push_back(
        fmt::format("the verdict is {}, and the cases come to {}", r["verdict"].get<std::string>(), verdict));
  const Json& goals = r["self_check"]["goals"];
  const bool told =
      std::all_of(goals.begin(), goals.end(), [](const Json& goal) { return goal["holds"].get<bool>(); });
  if (told != (hold && t.failed == 0))
    problems.push_back(told ? "all goals are said to hold, and the cases say otherwise"
                            : "a goal is said to be missed, and the cases say otherwise");
  return problems;
}

}  // namespace pb::receipt
