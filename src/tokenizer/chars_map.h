// SentencePiece's compiled normalisation: which texts are written as which, in a double array.
// Layout: a 32-bit length in bytes, a double array of 32-bit units (Darts-clone), then the
// replacements, each ended by a zero byte.
#ifndef PARITYBIT_TOKENIZER_CHARS_MAP_H_
#define PARITYBIT_TOKENIZER_CHARS_MAP_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pb {

class CharsMap {
 public:
  // kMalformed: lengths that contradict each other.
  static Result<CharsMap> Create(std::string_view bytes);

  struct Found {
    size_t bytes;  // of the text
    std::string_view with;
  };
  // The longest, or the shortest, head of `text` that is written otherwise. An index that leads out
  // of the array or the replacements is kMalformed.
  Result<std::optional<Found>> Longest(std::string_view text) const { return Walk(text, false); }
  Result<std::optional<Found>> Shortest(std::string_view text) const { return Walk(text, true); }

 private:
  Result<std::optional<Found>> Walk(std::string_view text, bool first) const;
  Result<uint32_t> Unit(uint32_t index) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_CHARS_MAP_H_
