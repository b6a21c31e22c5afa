// Text to token ids and back, from what a GGUF file declares. Knows no file format: the caller hands over the tables.
#ifndef PARITYBIT_TOKENIZER_TOKENIZER_H_
#define PARITYBIT_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pb {

// tokenizer.ggml.* of a GGUF file. token_type as there: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
struct TokenizerData {
  std::string model;  // "gpt2": byte-level BPE
  std::string pre;    // "llama-bpe" "smollm" ...; the pre-tokeniser
  std::vector<std::string> tokens;
  std::vector<int32_t> token_types;  // empty: all normal
  std::vector<std::string> merges;   // "a b"
  int32_t bos = -1, eos = -1;        // -1: none
  bool add_bos = false, add_eos = false;
  std::string chat_template;  // Jinja; empty: none
};

struct TokenizeOptions {
  bool add_special = true;     // BOS/EOS as the data say
  bool parse_special = true;   // text of control tokens becomes those tokens (user-defined tokens always match)
};

struct ChatMessage {
  std::string role, content;
};

// Immutable after construction; safe to share between threads. Tables from a file are untrusted: every id is checked.
class Tokenizer {
 public:
  static Result<std::unique_ptr<const Tokenizer>> Create(TokenizerData data);
  virtual ~Tokenizer() = default;

  // Any bytes, valid UTF-8 or not; same ids as llama.cpp v0.5.0.
  virtual Result<std::vector<int32_t>> Encode(std::string_view text, const TokenizeOptions& options) const = 0;
  // Bytes of the ids; ids outside the vocabulary are an error. Control tokens are written as their text when `special`.
  virtual Result<std::string> Decode(std::span<const int32_t> ids, bool special) const = 0;
  virtual const TokenizerData& data() const = 0;
};

// Renders a Jinja chat template (the subset that model files use; anything else is kUnsupported and named with its line).
// Variables: messages, add_generation_prompt, bos_token, eos_token.
Result<std::string> ApplyChatTemplate(std::string_view chat_template, std::span<const ChatMessage> messages,
                                      bool add_generation_prompt, std::string_view bos_text, std::string_view eos_text);

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_TOKENIZER_H_
