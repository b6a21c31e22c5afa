// What kind of character a code point is, after Unicode 15.1 (the version llama.cpp v0.5.0
// carries), whatever the versions of the Unicode libraries on this machine.
#ifndef PARITYBIT_TOKENIZER_UNICODE_CLASSES_H_
#define PARITYBIT_TOKENIZER_UNICODE_CLASSES_H_

#include <cstdint>

namespace pb {

inline constexpr uint32_t kCodePointLimit = 0x110000;

// General categories L, N, P, S, M; White_Space; all others. The values stand for non-ASCII
// characters in the collapsed text that pre-tokenisers match (pretokenizer.cc).
enum class CharClass : unsigned char {
  kOther = 0x80,
  kLetter = 0x81,
  kNumber = 0x82,
  kPunctuation = 0x83,
  kSymbol = 0x84,
  kMark = 0x85,
  kSpace = 0x86,
};

CharClass ClassOf(uint32_t code_point);

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_UNICODE_CLASSES_H_
