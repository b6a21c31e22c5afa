// Generation over any engine's logits: greedy or sampled, token by token.
#ifndef PARITYBIT_DRIVE_GENERATE_H_
#define PARITYBIT_DRIVE_GENERATE_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "drive/participant.h"
#include "drive/progress.h"
#include "drive/sampling.h"

namespace pb::drive {

struct GenerateRequest {
  std::vector<int32_t> tokens;
  int32_t max_tokens = 0;
  std::vector<int32_t> stop;  // ids that end the text; not handed over
  Sampling sampling;
  Progress progress;  // of the prompt's tokens; may be empty
};

struct GenerateSummary {
  int32_t n_prompt = 0, n_generated = 0;
  double prompt_seconds = 0, decode_seconds = 0;
  bool stopped = false;  // by a stop id
};

// Needs an open session of at least tokens + max_tokens positions. on_token gets each id as it is
// chosen.
Result<GenerateSummary> Generate(Participant& engine, const GenerateRequest& request,
                                 const std::function<Status(int32_t id)>& on_token);

// Length of the longest prefix of bytes that does not end inside a UTF-8 sequence; bytes that are
// no UTF-8 count as whole.
size_t CompleteUtf8(std::string_view bytes);

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_GENERATE_H_
