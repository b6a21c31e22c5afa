// Lays out the gates of a policy, a test case each.
#include "report/policy_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "report/escape.h"
#include "report/headline.h"
#include "report/json.h"
#include "report/junit.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using Json = nlohmann::ordered_json;

std::string Sentence(const PolicyCase& c) {
  if (const receipt::Gate* failure = c.failure()) return failure->name + ": " + failure->saw;
  return fmt::format("{}; {} checks passed", c.verdict, c.checks.size());
}

int64_t Failures(const PolicyReport& report) {
  return std::count_if(report.cases.begin(), report.cases.end(),
                       [](const PolicyCase& c) { return c.failure() != nullptr; });
}

}  // namespace

const receipt::Gate* PolicyCase::failure() const {
  static const receipt::Gate kNothing{"nothing", false, compare::Outcome::kInvalid, "nothing was checked"};
  if (checks.empty()) return &kNothing;
  const receipt::Gate* worst = nullptr;
  for (const receipt::Gate& check : checks)
    if (!check.passed && (!worst || check.outcome > worst->outcome)) worst = &check;
  return worst;
}

compare::Outcome PolicyReport::outcome() const {
  compare::Outcome worst = cases.empty() ? compare::Outcome::kInvalid : compare::Outcome::kMatch;
  for (const PolicyCase& c : cases)
    if (const receipt::Gate* failure = c.failure()) worst = std::max(worst, failure->outcome);
  return worst;
}

std::string RenderText(const PolicyReport& report, const TextOptions& options) {
  std::string out = LabelledLine("policy", Escape(report.path), options.width);
  for (const PolicyCase& c : report.cases) {
    out += LabelledLine("gate", fmt::format("{}  {}", c.failure() ? "FAILED" : "passed", Escape(c.name)),
                        options.width);
    out += LabelledLine("", Escape(c.what), options.width);
    out += LabelledLine("", Escape(Sentence(c)), options.width);
    if (!c.baseline.empty()) out += LabelledLine("", Escape(c.baseline), options.width);
  }
  const int64_t n = static_cast<int64_t>(report.cases.size()), failed = Failures(report);
  const Headline headline{failed == 0 ? fmt::format("every gate passed, {} of them", n)
                                      : fmt::format("{} of {} gates failed", failed, n),
                          "", false};
  return out + "\n" + HeadlineBlock(report.outcome(), headline, options);
}

std::string RenderJson(const PolicyReport& report) {
  Json out{{"schema", "paritybit.gate/0"},
           {"verdict", compare::OutcomeName(report.outcome())},
           {"scope", nullptr},
           {"exit_code", compare::ExitCode(report.outcome())},
           {"reasons", Json::array()}};
  for (const PolicyCase& c : report.cases)
    if (c.failure())
      out["reasons"].push_back({{"code", "gate-failed"}, {"text", c.name + ": " + Sentence(c)}});
  PutNext({}, &out);
  out["policy"] = report.path;
  out["gates"] = Json::array();
  for (const PolicyCase& c : report.cases) {
    Json checks = Json::array();
    for (const receipt::Gate& check : c.checks)
      checks.push_back({{"check", check.name}, {"passed", check.passed}, {"saw", check.saw}});
    out["gates"].push_back({{"name", c.name},
                            {"passed", c.failure() == nullptr},
                            {"what", c.what},
                            {"verdict", c.verdict.empty() ? Json(nullptr) : Json(c.verdict)},
                            {"receipt_sha256", c.digest.empty() ? Json(nullptr) : Json(c.digest)},
                            {"seconds", c.seconds},
                            {"sentence", Sentence(c)},
                            {"checks", checks},
                            {"baseline", c.baseline.empty() ? Json(nullptr) : Json(c.baseline)}});
  }
  return DumpJson(out, 2) + "\n";
}

std::string RenderJunit(const PolicyReport& report) {
  std::vector<JunitCase> cases;
  for (const PolicyCase& c : report.cases) {
    JunitCase junit{c.name, c.seconds, "", ""};
    if (c.failure()) junit.failure = Sentence(c);
    for (const receipt::Gate& check : c.checks)
      junit.details += fmt::format("{}: {}: {}\n", check.name, check.passed ? "passed" : "FAILED", check.saw);
    cases.push_back(std::move(junit));
  }
  return RenderJunit("paritybit gate " + report.path, cases);
}

}  // namespace pb::report
