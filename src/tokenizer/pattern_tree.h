// A regular expression as a tree: what its parser makes and its compiler takes.
#ifndef PARITYBIT_TOKENIZER_PATTERN_TREE_H_
#define PARITYBIT_TOKENIZER_PATTERN_TREE_H_

#include <memory>
#include <string_view>
#include <vector>

#include "tokenizer/pattern.h"

namespace pb {

// The expression as a tree.
struct PatternNode {
  enum Kind { kEmpty, kSet, kSequence, kEither, kRepeat, kAtomic, kLook, kAssert } kind = kEmpty;
  CharSet set;
  std::vector<std::unique_ptr<PatternNode>> children;
  uint32_t min = 0, max = 0;
  Pattern::Op::Greed greed = Pattern::Op::kGreedy;
  Pattern::Op::Kind assertion = Pattern::Op::kBegin;
  bool negated = false, behind = false;
};

Result<std::unique_ptr<PatternNode>> ParsePattern(std::string_view expression);
// Oniguruma's \w.
CharSet WordSet();

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_PATTERN_TREE_H_
