// What explains that two engines part, other than a mistake: settings that differ, products that
// they round by other schemes.
#ifndef PARITYBIT_PARITY_EXPLAINED_H_
#define PARITYBIT_PARITY_EXPLAINED_H_

#include <optional>

#include "run/request.h"

namespace pb::parity {

// Asks crossval, by the logits alone, over one prompt. The reason that keeps it from calling this a
// divergence, or makes it drift; none: nothing explains it.
Result<std::optional<compare::Reason>> WhatExplains(run::Request pair, const run::PromptSpec& prompt,
                                                    int32_t max_tokens);

}  // namespace pb::parity

#endif  // PARITYBIT_PARITY_EXPLAINED_H_
