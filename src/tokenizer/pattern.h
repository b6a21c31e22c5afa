// Regular expressions over code points, as pre-tokenisers and tokenizer.json files write them:
// alternatives, groups, greedy, lazy and possessive repetition, character classes with categories,
// nesting and intersection, assertions and look-around. The Unicode tables are our own.
//
// Goals: the first match by preference, as backtracking engines find it; time bounded by a budget of
// steps, whatever the expression. Non-goals: captures, back references, recursion; what is not
// offered is refused by name with its byte in the expression.
#ifndef PARITYBIT_TOKENIZER_PATTERN_H_
#define PARITYBIT_TOKENIZER_PATTERN_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/unicode_classes.h"

namespace pb {

// A set of code points.
struct CharSet {
  struct Range {
    uint32_t first, last;
  };
  uint32_t categories = 0;  // bits of CategoryMask
  std::vector<Range> ranges;
  std::vector<CharSet> any_of;  // these belong to it, too
  std::vector<CharSet> all_of;  // and each of these has to hold
  bool negated = false;
  bool folded = false;              // a code point belongs to it that another case of it does
  std::array<uint64_t, 2> ascii{};  // what holds for the first 128; set once the rest is

  void Finish(const uint8_t* category_of);
  bool Has(uint32_t c, const uint8_t* category_of) const {
    return c < 128 ? (ascii[c >> 6] >> (c & 63) & 1) != 0 : Slow(c, category_of);
  }

 private:
  bool Slow(uint32_t c, const uint8_t* category_of) const;
  bool Listed(uint32_t c, const uint8_t* category_of) const;
};

// Steps that matching may take yet; shared by all matches in one text.
struct PatternBudget {
  explicit PatternBudget(size_t n_code_points)
      : left(1'000'000 + 400 * static_cast<int64_t>(n_code_points)) {}
  int64_t left;
};

// Immutable; threads may share it.
class Pattern {
 public:
  struct Match {
    size_t begin, end;
  };

  // kUnsupported names what is not offered, kMalformed what is wrong, both with the byte.
  static Result<Pattern> Compile(std::string_view expression, UnicodeVersion version);

  // The first match that begins at `from` or later, of those within the text. Nothing: there is
  // none. kUnsupported: the budget is spent.
  Result<std::optional<Match>> Find(std::span<const uint32_t> text, size_t from, PatternBudget* budget) const;

  // One instruction; public for the compiler in pattern.cc.
  struct Op {
    enum Kind : uint8_t {
      kSet,     // one code point of sets[a]
      kLoop,    // min to max code points of sets[a]
      kSplit,   // go on at a, or else at b
      kJump,    // to a
      kLook,    // what follows (or, `behind` code points back, precedes) matches from a on; then b
      kAtomic,  // the first way that matches from a on; then b
      kBegin,   // of the text
      kEnd,     // of the text
      kLineBegin,
      kLineEnd,
      kLastLine,  // the end, or before the line feed that ends it
      kWord,      // a word begins or ends here
      kAccept
    };
    enum Greed : uint8_t { kGreedy, kLazy, kPossessive };
    Kind kind;
    Greed greed = kGreedy;
    bool negated = false;
    int32_t behind = -1;  // -1: what follows
    int32_t a = 0, b = 0;
    uint32_t min = 0, max = 0;
  };

 private:
  friend class PatternCompiler;
  friend class PatternMatcher;

  std::vector<Op> ops_;
  std::vector<CharSet> sets_;
  int32_t word_set_ = -1;
  const uint8_t* category_of_ = nullptr;
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_PATTERN_H_
