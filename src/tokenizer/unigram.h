// Unigram tokens: of all ways to write a text as tokens, the one whose scores sum to the most
// (Kudo 2018, "Subword Regularization", the best segmentation by Viterbi's algorithm).
#ifndef PARITYBIT_TOKENIZER_UNIGRAM_H_
#define PARITYBIT_TOKENIZER_UNIGRAM_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/trie.h"

namespace pb {

// A token of more bytes is refused: work grows with the longest.
inline constexpr size_t kMaxTrieTokenBytes = 2048;

class Unigram {
 public:
  struct Piece {
    int32_t id;  // unknown(): a character that no token begins with and ends at
    size_t begin, end;
  };

  // `unknown_score`: of such a character.
  Unigram(int32_t unknown, double unknown_score) : unknown_(unknown), unknown_score_(unknown_score) {}
  void Add(std::string_view token, int32_t id, double score) {
    trie_.Insert(token, id);
    if (scores_.size() <= static_cast<size_t>(id)) scores_.resize(static_cast<size_t>(id) + 1);
    scores_[static_cast<size_t>(id)] = score;
  }
  int32_t unknown() const { return unknown_; }

  // In the order of the text. O(bytes * longest token). Of equal sums the earlier found counts.
  std::vector<Piece> Best(std::string_view text) const;

 private:
  Trie trie_;
  std::vector<double> scores_;  // by id
  int32_t unknown_;
  double unknown_score_;
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_UNIGRAM_H_
