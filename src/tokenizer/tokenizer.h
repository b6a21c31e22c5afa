// Text to token ids and back, from what a GGUF file declares. Knows no file format: the caller
// hands over the tables (tokenizer/gguf_keys.h fills them from a GGUF file).
#ifndef PARITYBIT_TOKENIZER_TOKENIZER_H_
#define PARITYBIT_TOKENIZER_TOKENIZER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pb {

// tokenizer.ggml.* of a GGUF file. token_type as there: 1 normal, 2 unknown, 3 control, 4
// user-defined, 5 unused, 6 byte.
struct TokenizerData {
  // "gpt2": byte-level BPE; "gemma4": BPE over characters; "llama": SentencePiece's BPE over scores;
  // "t5": Unigram; "bert": WordPiece
  std::string model;
  // "llama-bpe" "smollm" ...; the pre-tokeniser; empty: "default", and a finding
  std::string pre;
  std::vector<std::string> tokens;
  std::vector<int32_t> token_types;  // empty: all normal
  std::vector<std::string> merges;   // "a b"; of byte-level BPE
  std::vector<float> scores;         // of each token; of SentencePiece and Unigram; empty: all 0
  // SentencePiece: text begins with a space, and what follows a special token. Unigram: so does text.
  bool add_space_prefix = true;
  bool remove_extra_spaces = false;  // Unigram: runs of spaces are one
  std::string chars_map;             // Unigram: SentencePiece's compiled normalisation; empty: none
  bool lowercase = true, strip_accents = true;  // WordPiece
  int32_t bos = -1, eos = -1;                   // -1: none
  bool add_bos = false, add_eos = false;
  std::string chat_template;  // Jinja; empty: none

  int32_t unknown = -1, separator = -1;
  int32_t eot = -1, eom = -1;  // end of turn, of message
  // Fill-in-the-middle: prefix, suffix, middle, pad, repository, separator. Those absent are found
  // by their text.
  std::array<int32_t, 6> fim = {-1, -1, -1, -1, -1, -1};
  // general.name: llama.cpp takes stripping of white space round special tokens from it (phi-3)
  std::string name;
  std::string architecture;  // general.architecture: likewise (nomic-bert-moe, jina-bert-v3)
};

struct TokenizeOptions {
  bool add_special = true;  // BOS/EOS as the data say
  bool parse_special =
      true;  // text of control tokens becomes those tokens (user-defined tokens always match)
};

// Immutable after construction; safe to share between threads. Tables from a file are untrusted:
// every id is checked.
class Tokenizer {
 public:
  // kUnsupported: a model or pre-tokeniser that is not offered, named. kMalformed: tables that
  // contradict themselves, with key and index.
  static Result<std::unique_ptr<const Tokenizer>> Create(TokenizerData data);
  virtual ~Tokenizer() = default;

  // Any bytes, valid UTF-8 or not; same ids as llama.cpp v0.5.0. What that engine throws on
  // (four-byte sequences beyond U+10FFFF, and 2 GiB of text) is an error with the byte offset.
  virtual Result<std::vector<int32_t>> Encode(std::string_view text,
                                              const TokenizeOptions& options) const = 0;
  // Bytes of the ids; ids outside the vocabulary are an error. Control tokens are written as their
  // text when `special`.
  virtual Result<std::string> Decode(std::span<const int32_t> ids, bool special) const = 0;
  virtual const TokenizerData& data() const = 0;
  // Generation stops after this token (EOS, end of turn, ... by id and by text, as llama.cpp
  // decides it).
  virtual bool IsEndOfGeneration(int32_t id) const = 0;
  // What the file leaves open or contradicts, and what was assumed, one sentence each; empty for a
  // sound file.
  virtual const std::vector<std::string>& findings() const = 0;
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_TOKENIZER_H_
