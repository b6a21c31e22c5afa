// How well an engine predicts a text.
#ifndef PARITYBIT_DRIVE_PERPLEXITY_H_
#define PARITYBIT_DRIVE_PERPLEXITY_H_

#include <cstdint>
#include <span>

#include "drive/participant.h"
#include "drive/progress.h"

namespace pb::drive {

// Over the tokens that were predicted: every token of a window but its first, from those before it
// in the window.
struct Perplexity {
  double nll = 0;  // mean of -log p, nats
  int64_t n_predicted = 0, n_windows = 0;
  double value() const;  // exp(nll)
};

// -log p of one token, from a row of logits, nats; NaN where the row is not finite or has no such
// token.
double NegativeLogProbability(std::span<const float> row, int32_t token);

// Consecutive windows of `window` tokens (the last may be shorter), each evaluated from an empty
// session in one pass; needs an open session of that many positions. kUsage: fewer than two tokens.
// kEngine: rows missing, or a logit that is not finite.
Result<Perplexity> MeasurePerplexity(Participant& engine, std::span<const int32_t> tokens, int32_t window,
                                     const Progress& progress);

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_PERPLEXITY_H_
