// Byte pair merging of one word, over symbols that are strings of bytes.
#ifndef PARITYBIT_TOKENIZER_BPE_H_
#define PARITYBIT_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/merge_table.h"
#include "tokenizer/special_tokens.h"

namespace pb {

// Byte-level BPE writes each byte as a printable character (GPT-2's table): the bytes of such text,
// or false when it is not written so.
bool ReadByteText(std::string_view text, std::string* bytes);
// The other way.
std::string WriteByteText(std::string_view bytes);

struct BpeOptions {
  bool ignore_merges = false;  // a word that is a token is taken whole
  // Symbols are characters, and what is no token is spelt <0x41>; else they are bytes in GPT-2's
  // spelling.
  bool characters = false;
  bool whole_lines = false;  // line feeds that are a token are taken whole
};

// The merges and the vocabulary they lead to. Immutable; threads may share it. A merge joins
// strings, whether these are tokens or not, as in llama.cpp: a word can end in a string that is no
// token, which is then spelt in single bytes, or dropped where there is no token for a byte.
class Bpe {
 public:
  // `ids`: every token's text. Merges that can never apply are skipped and counted in a finding.
  Bpe(const std::vector<std::string>& merges, const StringIds& ids, const BpeOptions& options,
      std::vector<std::string>* findings);

  using Scratch = MergeTable::Scratch;
  // Appends the ids of a word (its bytes, fewer than 2^31 of them). O(n log n).
  void Append(std::string_view word, Scratch* scratch, std::vector<int32_t>* out) const;

 private:
  int32_t Intern(const std::string& text, StringIds* symbols);
  bool ReadPart(std::string_view text, std::string* bytes) const;
  bool IsWhole(std::string_view word) const;
  int32_t CutIntoSymbols(std::string_view word, Scratch* scratch) const;
  void AppendSymbol(int32_t symbol, std::string_view bytes, std::vector<int32_t>* out) const;
  void Spell(std::string_view bytes, std::vector<int32_t>* out) const;

  BpeOptions options_;
  StringIds words_;                       // bytes of a token to its id
  StringIds characters_;                  // symbols of one character, where they are no bytes
  std::vector<int32_t> token_of_symbol_;  // -1: no token
  MergeTable merges_;
  // The token that spells a byte: whose text is this one byte, or <0x41>.
  std::array<int32_t, 256> token_of_text_byte_;
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_BPE_H_
