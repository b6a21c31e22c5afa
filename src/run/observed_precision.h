// What was observed of two engines' products, and what a verdict is told of it (docs/numerics.md,
// "Precision of products").
#ifndef PARITYBIT_RUN_OBSERVED_PRECISION_H_
#define PARITYBIT_RUN_OBSERVED_PRECISION_H_

#include <memory>
#include <string>
#include <vector>

#include "codes/precision.h"
#include "compare/verdict.h"
#include "drive/participant.h"
#include "run/record.h"

namespace pb::run {

// The matrices of a side's products where nothing here reads its model, by what the engine tells of it
// (Model::OpenProducts). Its session is open.
Result<std::shared_ptr<const Model>> OpenProducts(drive::Participant& side);

// Index 0: candidate, 1: reference.
struct ObservedPrecision {
  std::vector<codes::ClassPrecision> classes[2];  // empty: nothing was observed
  std::vector<codes::PrecisionDifference> differences;
};

// Whether both files say that they hold the same types of weights. Only then are two engines'
// classes of products the same ones.
bool SameWeightTypes(const drive::EngineRecord& candidate, const drive::EngineRecord& reference);

// Runs both engines over the first tokens of a prompt and watches their products, where ops are not
// compared. Sessions are other ones afterwards. An engine that cannot be watched is not observed.
ObservedPrecision ObserveBoth(drive::Participant* (&sides)[2], const host::Settings (&session)[2],
                              const std::shared_ptr<const Model>& model, const PromptRecord& prompt);

// The flag that makes one engine round as the other was seen to, "--set act.quant=none"; empty:
// neither offers that. Sessions are other ones afterwards.
std::string FindRemedy(drive::Participant* (&sides)[2], const host::Settings (&session)[2],
                       const ObservedPrecision& observed);

// Fills in evidence.precision and precision_is_observed.
void TellPrecision(const ObservedPrecision& observed, bool same_weights, const std::string& remedy,
                   compare::Evidence* evidence);

// Makes what was observed of an engine's products facts of it: act.products, and act.quant unless
// what it declares is all that counts (`strict`).
void NoteObserved(const std::vector<codes::ClassPrecision>& classes, bool strict,
                  drive::EngineRecord* record);

}  // namespace pb::run

#endif  // PARITYBIT_RUN_OBSERVED_PRECISION_H_
