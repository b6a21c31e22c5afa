// What the parts of this room share of a case: its comparison, and what is read off it.
#ifndef PARITYBIT_SELFCHECK_CASES_H_
#define PARITYBIT_SELFCHECK_CASES_H_

#include <string>
#include <vector>

#include "run/request.h"
#include "selfcheck/self_check.h"

namespace pb::selfcheck {

// plan.cc
std::vector<std::string> Split(const std::string& text, char separator);
drive::EngineSpec With(drive::EngineSpec spec, const host::Settings& settings);
int32_t StageOf(std::string_view name);

// self_check.cc: the comparison of a case as a user would make it.
run::Request RequestOf(const SelfCheckRequest& request, const SelfCase& c);
// The point at which the defect is, of all passes the one furthest beyond its bound; nullptr: it
// was not compared.
const compare::PointRow* OwnPoint(const SelfCase& c, const run::Comparison& comparison);
// Fills exact, within_one and place.
void JudgePlace(const SelfCase& c, const run::Comparison& comparison, SelfResult* r);

// generated.cc: those that the generator draws, evenly over the models; a case of one.
Result<std::vector<SelfCase>> PlanGenerated(const SelfCheckRequest& request);
SelfResult RunGenerated(const SelfCheckRequest& request, const SelfCase& c);

}  // namespace pb::selfcheck

#endif  // PARITYBIT_SELFCHECK_CASES_H_
