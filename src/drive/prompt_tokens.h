// The token ids of a text that two engines are to read.
#ifndef PARITYBIT_DRIVE_PROMPT_TOKENS_H_
#define PARITYBIT_DRIVE_PROMPT_TOKENS_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "drive/participant.h"

namespace pb::drive {

// Reads texts in the engines' place.
using TokenizeFn = std::function<Result<std::vector<int32_t>>(std::string_view)>;

struct PromptTokens {
  std::vector<int32_t> ids[2];
  std::string note;  // who took the other's ids, and why; empty: each has its own
};

// The ids that each gives, or those that `instead` gives where it is not empty. An engine that does not
// offer the file's tokeniser takes the other's. An error is one's own (Participant::ObstacleOf), or of
// `instead`, or names an id beyond an engine's vocabulary.
Result<PromptTokens> TokenizeForBoth(std::span<Participant, 2> sides, std::string_view text,
                                     const TokenizeFn& instead);

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_PROMPT_TOKENS_H_
