// The pre-tokenisers of a tokenizer.json: how a text is cut into words.
#ifndef PARITYBIT_TOKENIZER_JSON_PRE_TOKENIZER_H_
#define PARITYBIT_TOKENIZER_JSON_PRE_TOKENIZER_H_

#include <functional>
#include <string>
#include <vector>

#include "tokenizer/json_normalizer.h"

namespace pb {

class JsonPreTokenizer {
 public:
  // A missing field: nothing is cut. kUnsupported: a pre-tokeniser that is not offered, with its path.
  static Result<JsonPreTokenizer> Create(const JsonField& field);
  // Words, none of them empty.
  Result<std::vector<JsonText>> Cut(JsonText text) const;

 private:
  using Words = std::vector<JsonText>;
  using Step = std::function<Status(JsonText*, Words*)>;  // appends what is made of one word
  Status Add(const JsonField& field, int depth);
  Status AddSplit(const JsonField& field);
  Status AddByteLevel(const JsonField& field);
  Status AddMetaspace(const JsonField& field);

  std::vector<Step> steps_;
};

// When a Metaspace puts its character before a word: "always", "first", "never"; as it is written now
// or in older files.
Result<std::string> PrependScheme(const JsonField& metaspace);

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_JSON_PRE_TOKENIZER_H_
