// The added tokens of a tokenizer.json, and cutting text at them.
#ifndef PARITYBIT_TOKENIZER_ADDED_TOKENS_H_
#define PARITYBIT_TOKENIZER_ADDED_TOKENS_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/json_normalizer.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/trie.h"

namespace pb {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  std::string written;  // as the normaliser writes it, where the token is found in normalised text
  bool single_word = false, strips_left = false, strips_right = false, normalized = true, special = false;
};

class AddedTokens {
 public:
  // Ids are the model's, and those behind them for what it does not know. kMalformed: the file names
  // another id.
  static Result<AddedTokens> Create(const JsonField& field, const StringIds& vocabulary,
                                    const JsonNormalizer& normalizer);

  struct Piece {
    int32_t id;  // -1: text between tokens
    size_t begin, end;
  };
  // The longest token at the leftmost place, again and again. `normalized`: which of both kinds of
  // tokens. Without `parse_special` special ones are text.
  std::vector<Piece> Find(std::string_view text, bool normalized, bool parse_special) const;

  bool IsSpecial(int32_t id) const {
    const auto found = by_id_.find(id);
    return found != by_id_.end() && all_[found->second].special;
  }
  const std::vector<AddedToken>& all() const { return all_; }

 private:
  std::vector<AddedToken> all_;
  std::map<int32_t, size_t> by_id_;
  Trie tries_[2];  // not normalized, normalized; values index all_
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_ADDED_TOKENS_H_
