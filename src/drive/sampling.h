// Choosing a token from logits: greedy, or drawn from what a chain of filters leaves.
#ifndef PARITYBIT_DRIVE_SAMPLING_H_
#define PARITYBIT_DRIVE_SAMPLING_H_

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/random.h"

namespace pb::drive {

// Applied in this order, which is llama.cpp's; each filter's probabilities are those of the softmax
// over what the one before it left. A filter at the value of its default does nothing.
struct Sampling {
  // Penalties of tokens among the last `penalty_window` of prompt and text (0: none, -1: all): a
  // positive logit is divided by `repetition` and another multiplied (Keskar et al. 2019, CTRL, with
  // the sign heeded); then `frequency` is taken off for each time that the token is there, and
  // `presence` once.
  double repetition = 1, frequency = 0, presence = 0;
  int32_t penalty_window = 64;
  int32_t top_k = 0;  // the k likeliest; 0: all (Fan et al. 2018)
  // Locally typical: tokens in the order of |-log p - entropy| until they hold more than this
  // probability (Meister et al. 2022).
  double typical_p = 1;
  // Nucleus: the likeliest until they hold at least this probability (Holtzman et al. 2019).
  double top_p = 1;
  // Those of at least this share of the likeliest one's probability (Nguyen et al. 2024).
  double min_p = 0;
  double temperature = 0;  // of what is left; 0: the likeliest
  uint64_t seed = 0;
};

// Chooses ids from logits rows. The same settings, rows and history give the same ids on every machine.
class Sampler {
 public:
  explicit Sampler(const Sampling& sampling) : sampling_(sampling), random_(sampling.seed) {}

  // A token of the prompt, or one that was chosen.
  void Accept(int32_t token);
  // -1 when no logit is finite.
  int32_t Choose(std::span<const float> row);

  struct Candidate {
    double logit;
    int32_t id;
  };
  // What the penalties and filters leave of a row, before the temperature; the likeliest first where no
  // typical filter orders them otherwise. Of equals the lower id counts as likelier.
  std::vector<Candidate> Candidates(std::span<const float> row) const;

 private:
  Sampling sampling_;
  Random random_;
  std::vector<int32_t> history_;          // all tokens so far
  std::map<int32_t, int32_t> in_window_;  // how often each of the last ones is there
};

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_SAMPLING_H_
