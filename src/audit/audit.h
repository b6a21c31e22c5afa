// One engine, and no second one: every op that it shows is judged by the arbiter, which computes it
// in fp64 from the engine's own tensors as the model declares it.
#ifndef PARITYBIT_AUDIT_AUDIT_H_
#define PARITYBIT_AUDIT_AUDIT_H_

#include <filesystem>
#include <string>
#include <vector>

#include "diagnose/diagnose.h"
#include "drive/engine_spec.h"
#include "run/record.h"
#include "run/request.h"

namespace pb::audit {

struct AuditRequest {
  drive::EngineSpec engine;
  drive::EngineSpec arbiter;         // can replay and vary: the oracle
  std::filesystem::path model;       // what the engine reads
  std::filesystem::path good_model;  // what declares the ops; empty: the same file
  std::vector<run::PromptSpec> prompts;
  // Tokens that are known already, of the one prompt: `n_prefill` of them at once, the others one
  // by one. Empty: the engine tokenises.
  std::vector<int32_t> tokens;
  int32_t n_prefill = 0;
  int32_t max_tokens = 0;  // greedy decode steps after each prompt
  compare::PrecisionPolicy precision;
  host::Limits limits;
  bool token_errors = false;  // also keep the errors of every token at every point
  std::vector<run::Choice> choices;
  drive::Progress progress;  // may be empty
};

// What is wrong at one place, and at which others the same variation explains the engine.
struct AuditFinding {
  diagnose::Diagnosis diagnosis;
  std::vector<diagnose::Place> also;
};

struct Audit {
  // candidate: the engine. reference: the arbiter, with what it understood of the file that
  // declares. points: each against the arbiter, index 0 the engine. No logits rows: the logits are
  // a point.
  run::Comparison run;
  std::vector<AuditFinding> findings;  // in order of execution; at most kMaxFindings
  std::vector<std::string>
      recomputed;  // stages that the engine does not show and the arbiter computed instead
};
inline constexpr size_t kMaxFindings = 4;

// Runs the engine over the prompts twice, unwatched and watched, and judges each tensor as it
// comes; keeps no tensor beyond its layer but keys and values. Whatever the engine does is part of
// the verdict. An Error is what ends the command before there is anything to judge, as of
// run::Crossval, and a failure of the arbiter.
Result<Audit> RunAudit(const AuditRequest& request);

}  // namespace pb::audit

#endif  // PARITYBIT_AUDIT_AUDIT_H_
