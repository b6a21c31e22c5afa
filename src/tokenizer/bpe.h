// Byte pair merging of one word, over symbols that are strings of bytes.
#ifndef PARITYBIT_TOKENIZER_BPE_H_
#define PARITYBIT_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/special_tokens.h"

namespace pb {

// Byte-level BPE writes each byte as a printable character (GPT-2's table): the bytes of such text,
// or false when it is not written so.
bool ReadByteText(std::string_view text, std::string* bytes);

// The merges and the vocabulary they lead to. Immutable; threads may share it. A merge joins
// strings, whether these are tokens or not, as in llama.cpp: a word can end in a string that is no
// token, which is then spelt in single bytes, or dropped where there is no token for a byte.
class Bpe {
 public:
  // `ids`: every token's text. Merges that can never apply are skipped and counted in a finding.
  Bpe(const std::vector<std::string>& merges, const StringIds& ids, bool ignore_merges,
      std::vector<std::string>* findings);

  // Working memory of Append, to be kept between words.
  struct Scratch {
    std::vector<int32_t> symbol, next, previous;
    std::vector<uint32_t> rank;   // of the pair that begins here
    std::vector<uint64_t> queue;  // rank << 32 | position: the smallest first
  };
  // Appends the ids of a word (its bytes, fewer than 2^31 of them). O(n log n).
  void Append(std::string_view word, Scratch* scratch, std::vector<int32_t>* out) const;

 private:
  struct Pair {
    uint64_t key = kNoPair;  // left symbol << 32 | right symbol
    uint32_t rank = 0;
    int32_t result = 0;
  };
  static constexpr uint64_t kNoPair = ~uint64_t{0};

  int32_t Intern(const std::string& text, StringIds* symbols);
  void Insert(const Pair& pair);
  const Pair* Find(int32_t left, int32_t right) const;
  void Spell(std::string_view bytes, std::vector<int32_t>* out) const;

  bool ignore_merges_;
  StringIds words_;                              // bytes of a token to its id
  std::vector<int32_t> token_of_symbol_;         // symbols below 256 are bytes; -1: no token
  std::vector<Pair> pairs_;                      // open addressing, a power of two long
  std::array<int32_t, 256> token_of_text_byte_;  // token whose text is this one byte
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_BPE_H_
