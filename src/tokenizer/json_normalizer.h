// The normalisers of a tokenizer.json: what is made of a text before it is cut.
#ifndef PARITYBIT_TOKENIZER_JSON_NORMALIZER_H_
#define PARITYBIT_TOKENIZER_JSON_NORMALIZER_H_

#include <functional>
#include <string>
#include <vector>

#include "tokenizer/json_fields.h"

namespace pb {

// A text under work. What cuts first words otherwise asks whether its first character is the input's.
struct JsonText {
  std::string text;  // UTF-8
  bool at_start = true;
};

class JsonNormalizer {
 public:
  // A missing field: nothing is changed. kUnsupported: a normaliser that is not offered, with its path.
  static Result<JsonNormalizer> Create(const JsonField& field);
  Status Apply(JsonText* text) const;
  bool empty() const { return steps_.empty(); }

 private:
  using Step = std::function<Status(JsonText*)>;
  Status Add(const JsonField& field, int depth);

  std::vector<Step> steps_;
};

// What of a text matches, and what lies between, in order and without gaps.
struct JsonMatch {
  size_t begin, end;
  bool matches;
};
// Finds the matches of a `pattern` field: {"String": ...} or {"Regex": ...}.
using JsonMatcher = std::function<Result<std::vector<JsonMatch>>(std::string_view)>;
Result<JsonMatcher> MakeJsonMatcher(const JsonField& field);
Result<JsonMatcher> MakeRegexMatcher(std::string_view expression, const JsonField& field);
// Single code points that a predicate takes.
JsonMatcher MakeCharacterMatcher(std::function<bool(uint32_t)> takes);

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_JSON_NORMALIZER_H_
