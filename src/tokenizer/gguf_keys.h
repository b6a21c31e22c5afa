// TokenizerData from the metadata of a GGUF file.
//
// | key                                        | field       | when missing |
// |--------------------------------------------|-------------|---------------------------------------------------------------|
// | tokenizer.ggml.model                       | model       | an error | | tokenizer.ggml.pre | pre | empty:
// the pre-tokeniser is "default", and Create reports it   | | tokenizer.ggml.tokens
// | tokens      | an error                                                      | |
// tokenizer.ggml.token_type
// | token_types | all tokens are normal                                         | | tokenizer.ggml.merges |
// merges      | an error                                                      | |
// tokenizer.ggml.bos_token_id
// | bos         | 11 ("glm4" "chatglm-bpe": none); none beyond the vocabulary    | |
// tokenizer.ggml.eos_token_id                | eos         | 11; none beyond the vocabulary | |
// tokenizer.ggml.add_bos_token               | add_bos     | as the pre-tokeniser's row says: the
// LLaMA 3 row and tekken do | | tokenizer.ggml.add_eos_token               | add_eos     | no | |
// tokenizer.ggml.eot_token_id eom_token_id   | eot eom     | found by text | |
// tokenizer.ggml.fim_X_token_id, X one of    | fim         | found by text (older files:
// prefix_token_id, suffix_token_id,  | |   pre suf mid pad rep sep                  |             |
// middle_token_id, which come last) | | tokenizer.chat_template                    | chat_template
// | none | | general.name | name        | empty |
//
// These are the keys and defaults of llama.cpp v0.5.0 for byte-level BPE (an id of 11 for a missing
// key included). One difference: an id beyond the vocabulary is an error here, where that engine
// warns and takes the default.
#ifndef PARITYBIT_TOKENIZER_GGUF_KEYS_H_
#define PARITYBIT_TOKENIZER_GGUF_KEYS_H_

#include <cmath>
#include <string>
#include <utility>
#include <variant>

#include "tokenizer/tokenizer.h"

namespace pb {

struct TokenizerDefaults {
  int32_t bos, eos;
  bool add_bos;
};
TokenizerDefaults DefaultsOf(std::string_view model, std::string_view pre, size_t n_tokens);
// kUnsupported: another kind of tokeniser, whose tables have other keys.
Status CheckTokenizerModel(std::string_view model);

namespace gguf_keys {

// Puts the value of an optional key into `out`, which keeps what it has when the key is missing.
template <typename T>
Status Optional(Result<T> value, T* out) {
  if (value.ok()) {
    *out = std::move(value).value();
  } else if (value.error().code != Code::kNotFound) {
    return std::move(value).error();
  }
  return {};
}

template <typename File>
Status OptionalId(const File& file, const std::string& key, size_t n_tokens, int32_t* out) {
  auto id = file.Uint(key);
  if (!id.ok()) return id.error().code == Code::kNotFound ? Status() : Status(std::move(id).error());
  if (*id >= n_tokens) {
    return MakeError(Code::kMalformed, "{} is {}, beyond the vocabulary of {} tokens", key, *id, n_tokens);
  }
  *out = static_cast<int32_t>(*id);
  return {};
}

template <typename File>
Status TokenTypes(const File& file, std::vector<int32_t>* out) {
  const auto* value = file.Find("tokenizer.ggml.token_type");
  if (value == nullptr) return {};
  const auto* types = std::get_if<std::vector<int64_t>>(&value->value);
  if (types == nullptr) {
    return MakeError(Code::kMalformed,
                     "tokenizer.ggml.token_type (byte {}) is not an array of signed integers", value->offset);
  }
  for (int64_t type : *types) out->push_back(type >= 0 && type <= 6 ? static_cast<int32_t>(type) : 0);
  return {};
}

template <typename File>
Status Scores(const File& file, std::vector<float>* out) {
  const auto* value = file.Find("tokenizer.ggml.scores");
  if (value == nullptr) return {};
  const auto* scores = std::get_if<std::vector<double>>(&value->value);
  if (scores == nullptr)
    return MakeError(Code::kMalformed, "tokenizer.ggml.scores (byte {}) is not an array of numbers",
                     value->offset);
  for (double score : *scores) {
    if (!std::isfinite(score))
      return MakeError(Code::kMalformed,
                       "tokenizer.ggml.scores (byte {}): the score of token {} is no number", value->offset,
                       out->size());
    out->push_back(static_cast<float>(score));
  }
  return {};
}

}  // namespace gguf_keys

// File: formats' GgufFile (Find, Uint, Bool, String, Strings; a template so that this room needs no
// file format).
template <typename File>
Result<TokenizerData> ReadTokenizerData(const File& file) {
  using gguf_keys::Optional, gguf_keys::OptionalId;
  TokenizerData data;
  PB_ASSIGN(data.model, file.String("tokenizer.ggml.model"));
  PB_TRY(CheckTokenizerModel(data.model));
  PB_TRY(Optional(file.String("tokenizer.ggml.pre"), &data.pre));
  const bool merges = data.model == "gpt2";
  for (auto [key, out] :
       {std::pair("tokenizer.ggml.tokens", &data.tokens), std::pair("tokenizer.ggml.merges", &data.merges)}) {
    if (out == &data.merges && !merges) continue;
    const auto* strings = file.Strings(key);
    if (strings == nullptr) return MakeError(Code::kMalformed, "{} is missing or no array of strings", key);
    *out = *strings;
  }
  PB_TRY(gguf_keys::TokenTypes(file, &data.token_types));
  if (!merges) PB_TRY(gguf_keys::Scores(file, &data.scores));
  if (!merges) PB_TRY(Optional(file.Bool("tokenizer.ggml.add_space_prefix"), &data.add_space_prefix));
  const size_t n = data.tokens.size();
  TokenizerDefaults defaults = DefaultsOf(data.model, data.pre, n);
  data.bos = defaults.bos;
  data.eos = defaults.eos;
  data.add_bos = defaults.add_bos;
  PB_TRY(OptionalId(file, "tokenizer.ggml.bos_token_id", n, &data.bos));
  PB_TRY(OptionalId(file, "tokenizer.ggml.eos_token_id", n, &data.eos));
  PB_TRY(OptionalId(file, "tokenizer.ggml.eot_token_id", n, &data.eot));
  PB_TRY(OptionalId(file, "tokenizer.ggml.eom_token_id", n, &data.eom));
  constexpr std::pair<const char*, int> kFim[] = {{"fim_pre", 0}, {"fim_suf", 1}, {"fim_mid", 2},
                                                  {"fim_pad", 3}, {"fim_rep", 4}, {"fim_sep", 5},
                                                  {"prefix", 0},  {"suffix", 1},  {"middle", 2}};
  for (auto [name, i] : kFim)
    PB_TRY(OptionalId(file, fmt::format("tokenizer.ggml.{}_token_id", name), n, &data.fim[i]));
  PB_TRY(Optional(file.Bool("tokenizer.ggml.add_bos_token"), &data.add_bos));
  PB_TRY(Optional(file.Bool("tokenizer.ggml.add_eos_token"), &data.add_eos));
  PB_TRY(Optional(file.String("tokenizer.chat_template"), &data.chat_template));
  PB_TRY(Optional(file.String("general.name"), &data.name));
  return data;
}

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_GGUF_KEYS_H_
