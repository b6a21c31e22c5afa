// Cuts text into the words inside which byte pairs are merged, by the rules that
// `tokenizer.ggml.pre` names.
#ifndef PARITYBIT_TOKENIZER_PRETOKENIZER_H_
#define PARITYBIT_TOKENIZER_PRETOKENIZER_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pb {

// One row of the table: rules shared by several names.
struct PreTokenizerRow {
  std::string_view names;  // separated by spaces
  // regular expressions over collapsed text, each applied inside the pieces of the last
  std::vector<std::string_view> passes;
  bool ignore_merges = false;  // a word that is a token is taken whole
  bool add_bos = false;        // when tokenizer.ggml.add_bos_token is missing
  bool default_bos =
      true;  // token 11 is BOS and EOS when their keys are missing (BPE's default); else EOS alone
};

// The row of a name ("" is "default"), nullptr when there is none.
const PreTokenizerRow* FindPreTokenizer(std::string_view name);
// All names, for error messages and docs.
std::string PreTokenizerNames();

// Words: text with every sequence that is not UTF-8 replaced by U+FFFD (one for each byte), and
// where each word ends.
struct Words {
  std::string text;
  std::vector<size_t> ends;  // ascending; the last is text.size()
};

// The compiled row. Immutable; threads may share it.
class PreTokenizer {
 public:
  static Result<PreTokenizer> Compile(const PreTokenizerRow& row);
  // An error (kMalformed) names the byte of a sequence beyond U+10FFFF, counted from the start of
  // `text`.
  Result<Words> Split(std::string_view text) const;

 private:
  struct Pattern;
  std::vector<std::shared_ptr<const Pattern>> passes_;
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_PRETOKENIZER_H_
