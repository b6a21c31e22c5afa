// Cuts text into the words inside which byte pairs are merged, by the rules that
// `tokenizer.ggml.pre` names.
#ifndef PARITYBIT_TOKENIZER_PRETOKENIZER_H_
#define PARITYBIT_TOKENIZER_PRETOKENIZER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/pattern.h"

namespace pb {

// A pass that is no expression: numbers in threes, counted from the last.
inline constexpr std::string_view kThreesFromTheRight = "<threes from the right>";

// One row of the table: rules shared by several names.
struct PreTokenizerRow {
  std::string_view names;  // separated by spaces
  // regular expressions, each applied inside the pieces of the last
  std::vector<std::string_view> passes;
  bool ignore_merges = false;  // a word that is a token is taken whole
  bool add_bos = false;        // when tokenizer.ggml.add_bos_token is missing
  bool default_bos =
      true;  // token 11 is BOS and EOS when their keys are missing (BPE's default); else EOS alone
  bool characters = false;   // tokens are text with U+2581 for spaces, not GPT-2's spelling of bytes
  bool whole_lines = false;  // line feeds that are a token are taken whole
};

// The row of a name ("" is "default"), nullptr when there is none.
const PreTokenizerRow* FindPreTokenizer(std::string_view name);
// All names, for error messages and docs.
std::string PreTokenizerNames();

// Text with every sequence that is not UTF-8 replaced by U+FFFD (one for each byte).
struct CleanText {
  std::string utf8;  // in the shortest form
  std::vector<uint32_t> points;

  // An error (kMalformed) names the byte of a sequence beyond U+10FFFF, counted from the start of
  // `text`.
  static Result<CleanText> Read(std::string_view text);
};

// Clean text, and where each word of it ends.
struct Words {
  std::string text;
  std::vector<size_t> ends;  // ascending; the last is text.size()
};

// The compiled row. Immutable; threads may share it.
class PreTokenizer {
 public:
  static Result<PreTokenizer> Compile(const PreTokenizerRow& row);
  Result<Words> Split(std::string_view text) const;

 private:
  std::vector<std::optional<Pattern>> passes_;  // nothing: kThreesFromTheRight
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_PRETOKENIZER_H_
