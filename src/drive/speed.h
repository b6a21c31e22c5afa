// How fast an engine evaluates a prompt and decodes, again and again; and how fast memory is read
// meanwhile.
#ifndef PARITYBIT_DRIVE_SPEED_H_
#define PARITYBIT_DRIVE_SPEED_H_

#include <cstdint>
#include <vector>

#include "drive/participant.h"
#include "drive/progress.h"

namespace pb::drive {

struct SpeedRequest {
  std::vector<int32_t> prompt;  // its tokens
  int32_t n_decode = 128;       // steps of one token each, greedy
  int32_t n_warmup = 10;        // the same before the first repeat, not measured; 0: none
  int32_t n_repeats = 5;
  Progress progress;  // may be empty
};

struct Speed {
  std::vector<double> prompt_seconds, decode_seconds;  // of each repeat: the whole prompt, all steps
  std::vector<std::vector<int32_t>> tokens;            // of each repeat: those that were chosen
};
// Needs an open session with room for the prompt and n_decode + 1 tokens. What ends a text for
// others does not end it here.
Result<Speed> MeasureSpeed(Participant& engine, const SpeedRequest& request);

struct ReadSpeed {
  uint64_t n_bytes = 0;             // read in each repeat
  std::vector<double> seconds;      // of each repeat
  double bytes_per_second() const;  // of the fastest; 0: nothing was measured
};
// Reads memory, larger than caches are, by so many threads at once.
ReadSpeed MeasureReadSpeed(int n_threads, uint64_t n_bytes = 512ull << 20, int n_repeats = 5);

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_SPEED_H_
