// Do two tokenisers give the same ids for the same text, and the same text for the same ids? Over a
// battery, any text and random Unicode; a text that differs shrinks to the smallest that does.
#ifndef PARITYBIT_PARITY_TOKENIZER_PARITY_H_
#define PARITYBIT_PARITY_TOKENIZER_PARITY_H_

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "run/record.h"
#include "run/request.h"
#include "tokenizer/tokenizer.h"

namespace pb::parity {

// The candidate of this name is paritybit's own tokeniser, read from the model file: no engine runs.
inline constexpr std::string_view kOwnTokenizer = "paritybit";

struct TokenizerRequest {
  run::Request pair;  // engines and models
  bool own_candidate = true;
  // The candidate where own_candidate: a tokenizer.json, and its name; null: the model file's tokeniser
  // as paritybit reads it.
  std::shared_ptr<const Tokenizer> file;
  std::string file_name;
  std::vector<run::PromptSpec> texts;  // the battery, files, single texts
  int n_random = 500;                  // random texts besides
  uint64_t seed = 0;
};

// How a text is read: BOS and EOS as the model says, or none; the texts of control tokens as these,
// or as text.
struct ReadingMode {
  const char* name;
  uint32_t flags;  // PB_ADD_SPECIAL, PB_PARSE_SPECIAL
};
extern const std::array<ReadingMode, 4> kReadingModes;

// Where both part, of one text.
struct TokenDifference {
  enum class Kind { kIds, kRefused, kDecoded } kind = Kind::kIds;
  std::string text, origin;  // the smallest that differs; where it comes from
  std::string whole;         // the text that it was found in
  std::string mode;
  std::vector<int32_t> ids[2];         // candidate, reference
  std::vector<std::string> pieces[2];  // the bytes of each id
  std::string decoded[2];              // kDecoded
  std::string refusal[2];              // kRefused: what the one that refuses says
  size_t first = 0;                    // the first index at which the ids differ
  int n_tried = 0;                     // texts tried in search of a smaller one
};

struct TokenizerParity {
  run::Comparison run;  // engines and verdict
  int64_t n_texts = 0, n_random = 0, n_bytes = 0, n_ids = 0;
  int64_t n_refused = 0;  // texts that both refuse
  int64_t n_no_text = 0;  // texts that are no UTF-8, which a tokenizer.json does not read: left out
  int64_t n_differ = 0;   // texts
  // Texts that do not come back from their ids (read without special tokens), the same in both.
  int64_t n_not_restored = 0;
  std::string not_restored;                  // the first of them
  std::vector<TokenDifference> differences;  // the first few, shrunk
};

Result<TokenizerParity> CompareTokenizers(const TokenizerRequest& request);

}  // namespace pb::parity

#endif  // PARITYBIT_PARITY_TOKENIZER_PARITY_H_
