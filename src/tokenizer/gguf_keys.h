// TokenizerData from the metadata of a GGUF file. Keys begin with tokenizer.ggml. where nothing else
// is said.
//
//   key                               field                 when missing
//   model                             model                 an error
//   pre                               pre                   empty: "default", and Create reports it
//   tokens                            tokens                an error
//   token_type                        token_types           all tokens are normal
//   merges (gpt2, gemma4)             merges                an error
//   scores (llama, t5)                scores                all 0
//   bos_token_id                      bos                   gpt2: 11 ("glm4": none); llama: 1; bert: 101
//   eos_token_id                      eos                   gpt2: 11; llama: 2; t5: 1
//   unknown_token_id                  unknown               llama: 0; bert: 100; t5: 2
//   seperator_token_id                separator             bert: 102
//   eot_token_id eom_token_id         eot eom               found by text
//   fim_X_token_id, X one of pre suf  fim                   found by text (older files: prefix_token_id,
//     mid pad rep sep                                         suffix_token_id, middle_token_id)
//   add_bos_token                     add_bos               llama: yes; gpt2: as the row of pre says
//   add_eos_token                     add_eos               t5: yes
//   add_space_prefix                  add_space_prefix      llama: yes; t5: no
//   remove_extra_whitespaces          remove_extra_spaces   no
//   precompiled_charsmap              chars_map             none
//   normalizer.lowercase              lowercase             yes
//   normalizer.strip_accents          strip_accents         as lowercase
//   tokenizer.chat_template           chat_template         none
//   general.name                      name                  empty
//   general.architecture              architecture          empty
//
// These are the keys and defaults of llama.cpp v0.5.0 (an id of 11 for a missing key included). One difference: an id beyond the vocabulary is an error here, where that engine
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
  int32_t bos = -1, eos = -1;
  bool add_bos = false, add_eos = false, add_space = true;
  int32_t unknown = -1, separator = -1;
};
TokenizerDefaults DefaultsOf(std::string_view model, std::string_view pre, size_t n_tokens);
// kUnsupported: another kind of tokeniser, whose tables have other keys.
Status CheckTokenizerModel(std::string_view model);
// kUnsupported: a pre-tokeniser of byte-level BPE that is not offered.
Status CheckPreTokenizer(std::string_view pre);

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

template <typename File>
Status CharsMapBytes(const File& file, std::string* out) {
  const auto* value = file.Find("tokenizer.ggml.precompiled_charsmap");
  if (value == nullptr) return {};
  auto take = [&](const auto& numbers) {
    for (auto number : numbers) out->push_back(static_cast<char>(number));
  };
  if (const auto* bytes = std::get_if<std::vector<uint64_t>>(&value->value)) {
    take(*bytes);
  } else if (const auto* signed_bytes = std::get_if<std::vector<int64_t>>(&value->value)) {
    take(*signed_bytes);
  } else {
    return MakeError(Code::kMalformed,
                     "tokenizer.ggml.precompiled_charsmap (byte {}) is not an array of bytes", value->offset);
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
  const bool merges = data.model == "gpt2" || data.model == "gemma4";
  for (auto [key, out] :
       {std::pair("tokenizer.ggml.tokens", &data.tokens), std::pair("tokenizer.ggml.merges", &data.merges)}) {
    if (out == &data.merges && !merges) continue;
    const auto* strings = file.Strings(key);
    if (strings == nullptr) return MakeError(Code::kMalformed, "{} is missing or no array of strings", key);
    *out = *strings;
  }
  PB_TRY(gguf_keys::TokenTypes(file, &data.token_types));
  if (!merges) PB_TRY(gguf_keys::Scores(file, &data.scores));
  const size_t n = data.tokens.size();
  TokenizerDefaults defaults = DefaultsOf(data.model, data.pre, n);
  data.bos = defaults.bos, data.eos = defaults.eos;
  data.unknown = defaults.unknown, data.separator = defaults.separator;
  data.add_bos = defaults.add_bos, data.add_eos = defaults.add_eos;
  data.add_space_prefix = defaults.add_space;
  if (!merges) PB_TRY(Optional(file.Bool("tokenizer.ggml.add_space_prefix"), &data.add_space_prefix));
  PB_TRY(Optional(file.Bool("tokenizer.ggml.remove_extra_whitespaces"), &data.remove_extra_spaces));
  PB_TRY(Optional(file.Bool("tokenizer.ggml.normalizer.lowercase"), &data.lowercase));
  data.strip_accents = data.lowercase;
  PB_TRY(Optional(file.Bool("tokenizer.ggml.normalizer.strip_accents"), &data.strip_accents));
  PB_TRY(gguf_keys::CharsMapBytes(file, &data.chars_map));
  PB_TRY(OptionalId(file, "tokenizer.ggml.bos_token_id", n, &data.bos));
  PB_TRY(OptionalId(file, "tokenizer.ggml.eos_token_id", n, &data.eos));
  PB_TRY(OptionalId(file, "tokenizer.ggml.unknown_token_id", n, &data.unknown));
  PB_TRY(OptionalId(file, "tokenizer.ggml.seperator_token_id", n, &data.separator));
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
  // Another type of it is not the tokeniser's fault.
  if (auto architecture = file.String("general.architecture"); architecture.ok())
    data.architecture = std::move(architecture).value();
  return data;
}

// Whether a file's tokeniser is offered, as far as its names say.
template <typename File>
Status CheckTokenizerKnown(const File& file) {
  std::string model, pre;
  PB_TRY(gguf_keys::Optional(file.String("tokenizer.ggml.model"), &model));
  PB_TRY(gguf_keys::Optional(file.String("tokenizer.ggml.pre"), &pre));
  PB_TRY(CheckTokenizerModel(model));
  return model == "gpt2" ? CheckPreTokenizer(pre) : Status();
}

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_GGUF_KEYS_H_
