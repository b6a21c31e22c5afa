// SentencePiece's BPE over scores: neighbours that make a token are joined, the best score first.
#ifndef PARITYBIT_TOKENIZER_SPM_H_
#define PARITYBIT_TOKENIZER_SPM_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/special_tokens.h"

namespace pb {

// Immutable; threads may share it. `data` and `ids` (every token's text) outlive this.
class Spm {
 public:
  // kMalformed: a byte that has no token, neither <0x41> nor as its own text, so that there is text
  // without ids.
  static Result<Spm> Create(const TokenizerData& data, const StringIds& ids);

  // Appends the ids of a text whose spaces are written U+2581. O(n log n), and as much memory as
  // there were joins.
  void Append(std::string_view text, std::vector<int32_t>* out) const;

 private:
  Spm(const TokenizerData& data, const StringIds& ids) : data_(&data), ids_(&ids) {}

  const TokenizerData* data_;
  const StringIds* ids_;
  std::array<int32_t, 256> token_of_byte_{};
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_SPM_H_
