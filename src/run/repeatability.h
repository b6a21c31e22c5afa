// Whether an engine computes the same twice, and where its results part if it does not.
#ifndef PARITYBIT_RUN_REPEATABILITY_H_
#define PARITYBIT_RUN_REPEATABILITY_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "drive/participant.h"

namespace pb::run {

// What differs between equal runs of one engine that show all their points.
struct Unrepeatable {
  int32_t stage = 0, layer = -1;           // of the first tensor that differs, in the engine's order
  int32_t position = 0;                    // of its first row that does
  int64_t n_values = 0, n_differ = 0;      // of that tensor
  double largest = 0;                      // change, over the RMS of the tensor
  int64_t n_tensors = 0, n_different = 0;  // of the run
  // "first in layer 3, attn_out at position 5: 12 of 4608 values, by up to 3.1e-05 of its RMS; ..."
  std::string Text() const;
};

// Runs the sequence watched, `n_runs` times, each in a session of its own. Nothing: all were equal, or
// the engine shows no points.
Result<std::optional<Unrepeatable>> FindUnrepeatable(drive::Participant& engine,
                                                     const host::Settings& session,
                                                     std::span<const int32_t> tokens, int32_t n_prefill,
                                                     int n_runs = 3);

}  // namespace pb::run

#endif  // PARITYBIT_RUN_REPEATABILITY_H_
