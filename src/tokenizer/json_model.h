// The models of a tokenizer.json: the ids of one word.
#ifndef PARITYBIT_TOKENIZER_JSON_MODEL_H_
#define PARITYBIT_TOKENIZER_JSON_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/json_fields.h"
#include "tokenizer/special_tokens.h"

namespace pb {

// Immutable; threads may share it.
class JsonModel {
 public:
  // kUnsupported: a model or setting that is not offered, with its path.
  static Result<std::unique_ptr<const JsonModel>> Create(const JsonField& field);
  virtual ~JsonModel() = default;

  // Appends the ids of a word that is not empty.
  virtual Status Append(std::string_view word, std::vector<int32_t>* ids) const = 0;

  const StringIds& vocabulary() const { return ids_; }

 protected:
  StringIds ids_;
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_JSON_MODEL_H_
