// Which tokens are special, and cutting text at them, as llama.cpp v0.5.0 does both.
#ifndef PARITYBIT_TOKENIZER_SPECIAL_TOKENS_H_
#define PARITYBIT_TOKENIZER_SPECIAL_TOKENS_H_

#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace pb {

// Bits of what a token is. A token whose text looks like that of a control token is a control
// token, too.
enum TokenFlag : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 4,
  kUserDefined = 8,
  kByte = 16,
  kStripLeft = 32,   // white space before it belongs to it
  kStripRight = 64,  // white space after it belongs to it
};

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
};
using StringIds = std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>>;

// A piece of text between special tokens (token -1, not empty), or a special token.
struct Fragment {
  int32_t token;
  std::string_view text;
};

// Whether tokens of this text end a generation, whatever type a file gives them.
bool LooksLikeEndOfGeneration(std::string_view text);

class SpecialTokens {
 public:
  // `ids`: every token's text. `data` outlives this.
  SpecialTokens(const TokenizerData& data, const StringIds& ids);

  // Longer tokens first, then in the order of std::sort, whole text for each; control and unknown
  // ones only when `parse_special`.
  std::vector<Fragment> Partition(std::string_view text, bool parse_special) const;
  uint8_t flags(int32_t id) const { return flags_[id]; }
  bool IsEndOfGeneration(int32_t id) const { return end_of_generation_.count(id) != 0; }

 private:
  void FindByText(const TokenizerData& data, const StringIds& ids);
  void FixKnownFamilies(const StringIds& ids);
  void SetStripping(const TokenizerData& data, const StringIds& ids);
  std::vector<bool> Present(std::string_view text) const;

  const TokenizerData* data_;
  std::vector<uint8_t> flags_;  // by id
  std::set<int32_t> end_of_generation_;
  std::vector<int32_t> order_;      // special tokens as Partition takes them
  std::vector<int32_t> by_text_;    // indices into order_, in the order of their text
  std::array<bool, 256> starts_{};  // first bytes of special tokens
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_SPECIAL_TOKENS_H_
