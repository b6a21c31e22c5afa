// Goes through the text character by character, with the best way to each byte that a token ends at.
#include "tokenizer/unigram.h"

#include <algorithm>
#include <limits>

#include "tokenizer/utf8.h"

namespace pb {

std::vector<Unigram::Piece> Unigram::Best(std::string_view text) const {
  struct Way {
    double score = -std::numeric_limits<double>::max();
    size_t begin = 0;
    int32_t id = 0;
  };
  std::vector<Way> best(text.size() + 1);
  best[0].score = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t character = std::min(CharacterBytes(text[at]), text.size() - at);
    bool single = false;
    int32_t node = Trie::kRoot;
    auto offer = [&](size_t end, int32_t id, double score) {
      if (best[at].score + score > best[end].score) best[end] = {best[at].score + score, at, id};
    };
    for (size_t end = at; end < text.size();) {
      node = trie_.Child(node, static_cast<unsigned char>(text[end++]));
      if (node == Trie::kNone) break;
      const int32_t id = trie_.value(node);
      if (id == Trie::kNone) continue;
      single = single || end - at == character;
      offer(end, id, scores_[static_cast<size_t>(id)]);
    }
    if (!single) offer(at + character, unknown_, unknown_score_);
    at += character;
  }
  std::vector<Piece> pieces;
  for (size_t end = text.size(); end > 0; end = best[end].begin)
    pieces.push_back({best[end].id, best[end].begin, end});
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

}  // namespace pb
