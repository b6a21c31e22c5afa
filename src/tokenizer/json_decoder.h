// The decoders of a tokenizer.json: from tokens back to text.
#ifndef PARITYBIT_TOKENIZER_JSON_DECODER_H_
#define PARITYBIT_TOKENIZER_JSON_DECODER_H_

#include <functional>
#include <string>
#include <vector>

#include "tokenizer/json_fields.h"

namespace pb {

class JsonDecoder {
 public:
  // A missing field: tokens are joined with spaces. kUnsupported: a decoder that is not offered.
  static Result<JsonDecoder> Create(const JsonField& field);
  // The text of tokens. Bytes that byte-level tokens spell are given as they are, where the package
  // puts U+FFFD for what is no UTF-8.
  Result<std::string> Decode(std::vector<std::string> tokens) const;

 private:
  using Step = std::function<Status(std::vector<std::string>*)>;
  Status Add(const JsonField& field, int depth);

  std::vector<Step> steps_;
  bool declared_ = false;
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_JSON_DECODER_H_
