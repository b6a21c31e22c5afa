// Puts every case of a self-check into a receipt, from which its goals can be counted again.
#include "report/self_check_receipt.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace pb::report {
namespace {

using Json = nlohmann::ordered_json;
using compare::Outcome;
using selfcheck::SelfResult;

Json CasesJson(const std::vector<SelfResult>& results) {
  Json out = Json::array();
  for (const SelfResult& r : results) {
    Json one = CaseJson(r);
    one["found_by"] = r.found_by, one["truth"] = r.truth, one["said"] = r.said, one["match"] = r.match;
    out.push_back(std::move(one));
  }
  return out;
}

Outcome OutcomeOf(int exit_code) {
  return exit_code == 0 ? Outcome::kMatch : exit_code == 1 ? Outcome::kDiverged : Outcome::kIncomplete;
}

Json Base(const std::vector<SelfResult>& results, int exit_code, const SelfCheckEvidence& evidence,
          const Context& context, const ReceiptHead& head) {
  Json out = ReceiptBase(context, head);
  out["verdict"] = exit_code == 0 ? "measured" : compare::OutcomeName(OutcomeOf(exit_code));
  out["scope"] = "local";
  out["exit_code"] = exit_code;
  out["engines"] = Json::array();
  for (const drive::EngineRecord& engine : evidence.engines)
    out["engines"].push_back(EngineForReceipt(engine));
  out["model"] = Json{{"name", ""}, {"sha256", ""}};
  out["models"] = Json::array();
  for (const SelfCheckEvidence::Model& model : evidence.models)
    out["models"].push_back(Json{{"path", model.path}, {"sha256", model.sha256}, {"tokens", model.tokens}});
  Json missing = Json::array();
  int64_t non_finite = 0;
  for (const SelfResult& r : results) {
    if (!r.error.empty()) missing.push_back(r.key);
    non_finite += !std::isfinite(r.bound_ratio);
  }
  out["coverage"] =
      Json{{"unit", "cases"},    {"expected", results.size()}, {"compared", results.size() - missing.size()},
           {"missing", missing}, {"unmapped", Json::array()},  {"unobservable", Json::array()}};
  out["limits"] = Json::array();
  out["choices"] = Json::array();
  out["non_finite_numbers"] = non_finite;
  out["self_check"] = Json{{"cases", CasesJson(results)}, {"repeated", CasesJson(evidence.repeated)}};
  return out;
}

// A reason for each goal that is missed; where all hold, that they do.
void PutGoals(const std::vector<selfcheck::Goal>& goals, int exit_code, Json* out) {
  const Outcome outcome = OutcomeOf(exit_code);
  (*out)["reasons"] = Json::array();
  (*out)["self_check"]["goals"] = Json::array();
  for (const selfcheck::Goal& goal : goals) {
    (*out)["self_check"]["goals"].push_back({{"text", goal.text}, {"holds", goal.holds}});
    if (!goal.holds)
      (*out)["reasons"].push_back({{"outcome", compare::OutcomeName(outcome)},
                                   {"code", compare::ReasonName(compare::ReasonCode::kGoalMissed)},
                                   {"text", goal.text}});
  }
  if (!(*out)["reasons"].empty()) return;
  const bool measured = outcome == Outcome::kMatch;
  (*out)["reasons"].push_back(
      {{"outcome", compare::OutcomeName(outcome)},
       {"code", measured ? "measured" : compare::ReasonName(compare::ReasonCode::kGoalMissed)},
       {"text", measured ? "all goals hold" : "cases could not be run"}});
}

}  // namespace

std::string RenderReceipt(const SelfCheckReport& report, const SelfCheckEvidence& evidence,
                          const Context& context, const ReceiptHead& head) {
  Json out = Base(report.results, report.exit_code, evidence, context, head);
  std::vector<selfcheck::Goal> goals;
  for (const std::string& broken : report.matrix.broken_goals) goals.push_back({broken, false});
  PutGoals(goals, report.exit_code, &out);
  out["self_check"]["what"] = report.what;
  out["self_check"]["generated"] = false, out["self_check"]["whole"] = report.whole;
  out["wall_seconds"] = report.wall_seconds;
  return SealReceipt(out);
}

std::string RenderReceipt(const GeneratedReport& report, const SelfCheckEvidence& evidence,
                          const Context& context, const ReceiptHead& head) {
  Json out = Base(report.results, report.exit_code, evidence, context, head);
  PutGoals(report.table.goals, report.exit_code, &out);
  out["self_check"]["what"] = report.what;
  out["self_check"]["generated"] = true, out["self_check"]["whole"] = false;
  out["wall_seconds"] = report.wall_seconds;
  return SealReceipt(out);
}

}  // namespace pb::report
