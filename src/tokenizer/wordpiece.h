// WordPiece as llama.cpp reads BERT's vocabularies: words are written with U+2581 before them, and
// each is cut into the longest tokens.
#ifndef PARITYBIT_TOKENIZER_WORDPIECE_H_
#define PARITYBIT_TOKENIZER_WORDPIECE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/pretokenizer.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/trie.h"

namespace pb {

// The ideographs that BERT takes for words of their own; as in tokenizers, which leaves out
// U+2B820 to U+2B91F.
bool IsBertIdeograph(uint32_t c);

class WordPiece {
 public:
  WordPiece(const StringIds& ids, int32_t unknown, bool lowercase, bool strip_accents);

  // Words: white space, marks and ideographs cut; control characters and accents left out.
  std::vector<std::string> WordsOf(const CleanText& text) const;
  void Append(const CleanText& text, std::vector<int32_t>* out) const;

 private:
  Trie trie_;
  int32_t unknown_;
  bool lowercase_, strip_accents_;
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_WORDPIECE_H_
