// One engine measured against itself: the noise floor by random rounding that crossval judges by,
// and the engine's natural axes beside it.
#ifndef PARITYBIT_RUN_SELF_NOISE_H_
#define PARITYBIT_RUN_SELF_NOISE_H_

#include <optional>
#include <string>
#include <vector>

#include "compare/noise_floor.h"
#include "noise/axes.h"
#include "run/record.h"
#include "run/request.h"

namespace pb::run {

struct SelfNoiseRequest {
  drive::EngineSpec engine;
  std::filesystem::path model;
  std::vector<PromptSpec> prompts;  // may be none: the calibration text alone is measured
  int32_t max_tokens = 0;           // greedy decode steps after each prompt
  host::Limits limits;
  std::string calibration;  // text; its first 400 tokens are measured in addition to the prompts
  std::vector<Choice> choices;
  drive::Progress progress;  // may be empty
};

struct SelfNoise {
  // reference: the engine; its floor; limits that a crossval of these prompts would judge by. The
  // verdict is on the engine's own promise of equal bits (promise.equal_bits);
  // first_divergence.prompt is kCalibration in the calibration text.
  Comparison run;
  std::optional<compare::NoiseFloor> floor;  // what run.floor sums up, with provenance
  std::vector<noise::AxisRow> axes;
  int64_t n_calibration = 0;  // tokens of the calibration text that the axes were run over
};

// Whatever the engine does is part of the verdict. An Error is what ends the command before there
// is anything to judge, as of Crossval.
Result<SelfNoise> MeasureSelfNoise(const SelfNoiseRequest& request);

}  // namespace pb::run

#endif  // PARITYBIT_RUN_SELF_NOISE_H_
