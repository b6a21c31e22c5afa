// Hypotheses that no single variation of the op expresses: its output transformed, with numbers
// fitted to what the engine gave; other tensors, and variations whose value is fitted.
#ifndef PARITYBIT_DIAGNOSE_TRANSFORMATIONS_H_
#define PARITYBIT_DIAGNOSE_TRANSFORMATIONS_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "diagnose/hypotheses.h"
#include "diagnose/wrong_part.h"

namespace pb::diagnose {

// What the output would be under a hypothesis; fields as in Trial.
struct Guess {
  std::string name, text, short_text;
  int n_fitted = 0;
  std::vector<float> output = {};
  std::vector<float> units = {};  // empty: those of what the op should give
  // The op under the hypothesis, on any rows. Empty: the output is the engine's own transformed, or
  // what it reads.
  std::function<Result<Expectation>(const Culprit&)> replay = {};
  Meaning meaning = {};     // unknown: that of the name (MeaningOf)
  bool tells_part = false;  // of the output, in its words
};

// The op under a variation "key=value", or whatever `guess.replay` is, on the subject's rows.
// nullopt: the arbiter refuses it.
std::optional<Guess> Varied(const Subject& subject, Guess guess);

// Each list holds guesses: whether one explains the output is the caller's to verify.
// A factor (named where it is one that engines forget or double), features that are zero or scaled,
// a constant vector, features in another order, one input handed on.
std::vector<Guess> OutputTransformations(const Subject& subject, const WrongPart& part);
// Of attention: cells of the cache that hold something else, and heads that read another's; positions
// that are hidden.
std::vector<Guess> CacheGuesses(const Subject& subject, const WrongPart& part);
std::vector<Guess> MaskGuesses(const Subject& subject, const WrongPart& part);
// Of attention as one op: such cells of keys, values or both, the scale of scores, sums that are not
// rescaled.
std::vector<Guess> FusedGuesses(const Subject& subject, const WrongPart& part);
// The product or norm with another tensor of its shape; a gated product with its sides exchanged.
std::vector<Guess> OtherTensors(const Subject& subject);
// Of a product: terms of its sums left out, taken several times or from elsewhere; stored sums.
std::vector<Guess> OtherTerms(const Subject& subject, const WrongPart& part);
// Of a product whose input's stored sums no engine tells: others than those of its codes, whatever they are.
std::vector<Guess> OtherSums(const Subject& subject, const WrongPart& part);
// Of a product: blocks of its weights read otherwise.
std::vector<Guess> OtherReadings(const Subject& subject, const WrongPart& part);
// The wrong values are others of the output: moved, of an earlier row, cut off at a magnitude, rounded
// down, added to.
std::vector<Guess> OtherValues(const Subject& subject, const WrongPart& part);
// A norm's eps, a rotation's base, one weight of a matrix. Dozens of replays.
std::vector<Guess> FittedVariations(const Subject& subject, const WrongPart& part);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_TRANSFORMATIONS_H_
