// What a comparison is asked to do.
#ifndef PARITYBIT_RUN_REQUEST_H_
#define PARITYBIT_RUN_REQUEST_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "compare/verdict.h"
#include "drive/engine_spec.h"
#include "drive/lock_step.h"
#include "drive/progress.h"
#include "drive/prompt_tokens.h"
#include "run/record.h"
#include "trace/record.h"

namespace pb::run {

struct PromptSpec {
  std::string text;
  std::string origin;  // "--prompt", "prompts.txt:3", "stdin"
};

// Traces to keep of the comparison's free run.
struct KeepRequest {
  std::filesystem::path folder;  // empty: none are kept
  trace::Level level = trace::Level::kFull;
};

// Whether what the reference computed over a prompt is kept and used again.
enum class Reuse {
  kNever,
  kAuto,    // where it is work enough and fits
  kAlways,  // whatever it takes
};

// How much of the reference's noise is measured.
enum class NoiseRuns {
  kAuto,   // of a large model no more than shows that all is within its limits
  kWhole,  // all of it
};

// Over how much of a prompt the candidate runs freely with its points watched.
enum class Watch {
  kAuto,   // over its first positions, where the reference's part is recorded and nothing is in doubt
  kWhole,  // over all of it
};

struct Request {
  drive::EngineSpec candidate, reference;
  // predicts what a difference of precision does to the logits
  std::optional<drive::EngineSpec> arbiter;
  std::string no_reference;               // why there is no reference to run; empty: there is
  std::filesystem::path model;            // the candidate's
  std::filesystem::path reference_model;  // empty: the same
  std::vector<PromptSpec> prompts;
  int32_t max_tokens = 0;  // decode steps after each prompt
  host::Limits limits;
  compare::UserLimits user;
  compare::Scope scope = compare::Scope::kLocal;  // logits-only: no tracepoints
  std::string calibration;                        // text whose tokens join the noise floor
  int32_t n_noise_runs = 8;                       // 0: no noise floor, so nothing can match
  NoiseRuns noise = NoiseRuns::kWhole;
  std::string noise_threads;  // noise::FloorRequest::threads
  Watch watch = Watch::kWhole;
  // also run the reference in its default configuration
  bool default_row = true;
  // what the caller decided and why; copied to the record
  std::vector<Choice> choices;
  drive::Progress progress;        // may be empty
  drive::TokenizeFn tokenize;      // reads the prompts in the engines' place; may be empty
  std::vector<std::string> notes;  // what is known before anything runs
  KeepRequest keep;
  Reuse reuse = Reuse::kNever;
  // Where an engine is not watched, run it over each prompt once more: whether it repeats is evidence.
  bool repeat = false;
  bool token_errors = false;    // also keep the errors of every token at every point
  drive::PairObserver observe;  // sees every pair of the lock-step, prompt by prompt; may be empty
};

}  // namespace pb::run

#endif  // PARITYBIT_RUN_REQUEST_H_
