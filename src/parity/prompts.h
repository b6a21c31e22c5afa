// Prompts made at random, from a seed, each with the smaller prompts that it shrinks to.
#ifndef PARITYBIT_PARITY_PROMPTS_H_
#define PARITYBIT_PARITY_PROMPTS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"

namespace pb::parity {

// Words, numbers, code, punctuation and scripts, from a few pieces to some dozens: the later a
// prompt, the longer it may be. The same seed and number of prompts give the same ones.
class RandomPrompts {
 public:
  RandomPrompts(uint64_t seed, int n);
  ~RandomPrompts();

  int size() const;
  // The prompt with this index; never empty.
  std::string At(int index) const;

  struct Smallest {
    std::string text;
    int n_tried = 0;
    bool is_minimal = true;  // false: tries ran out
  };
  // The smallest prompt that the index-th shrinks to and of which `fails` still is true. Of that one
  // itself it is taken to be. An error of `fails` ends it.
  Result<Smallest> Shrink(int index, int max_tries,
                          const std::function<Result<bool>(const std::string& text)>& fails) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pb::parity

#endif  // PARITYBIT_PARITY_PROMPTS_H_
