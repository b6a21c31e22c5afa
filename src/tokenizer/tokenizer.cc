// Byte-level BPE behind the Tokenizer interface, and the checks of the tables it is made from.
#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <limits>

#include "tokenizer/bpe.h"
#include "tokenizer/gguf_keys.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/special_tokens.h"

namespace pb {
namespace {

constexpr size_t kMaxTokenBytes = 1 << 16;
// tokens, merges: sixty times the largest vocabulary in use
constexpr size_t kMaxEntries = 1 << 24;

Result<StringIds> CheckTokens(TokenizerData* data, std::vector<std::string>* findings) {
  if (data->tokens.empty()) return MakeError(Code::kMalformed, "tokenizer.ggml.tokens is empty");
  for (auto [key, n] : {std::pair("tokens", data->tokens.size()), std::pair("merges", data->merges.size())}) {
    if (n > kMaxEntries)
      return MakeError(Code::kMalformed, "tokenizer.ggml.{} has {} entries, more than {}", key, n,
                       kMaxEntries);
  }
  if (!data->token_types.empty() && data->token_types.size() < data->tokens.size()) {
    return MakeError(Code::kMalformed, "tokenizer.ggml.token_type has {} entries for {} tokens",
                     data->token_types.size(), data->tokens.size());
  }
  StringIds ids;
  for (size_t i = 0; i < data->tokens.size(); ++i) {
    std::string& token = data->tokens[i];
    if (token.size() > kMaxTokenBytes) {
      return MakeError(Code::kMalformed, "tokenizer.ggml.tokens[{}] has {} bytes, more than {}", i,
                       token.size(), kMaxTokenBytes);
    }
    if (size_t nul = token.find('\0'); nul != token.npos) {
      token.resize(nul);
      findings->push_back(
          fmt::format("tokenizer.ggml.tokens[{}] holds a zero byte; it ends there, as in llama.cpp", i));
    }
    if (token.empty()) {
      token = fmt::format("[EMPTY_{}]", i);
      findings->push_back(
          fmt::format("tokenizer.ggml.tokens[{}] is empty; it is called {}, as by llama.cpp", i, token));
    }
    auto [at, is_new] = ids.emplace(token, static_cast<int32_t>(i));
    if (!is_new) {
      return MakeError(Code::kMalformed, "tokenizer.ggml.tokens[{}] and [{}] are both \"{:.60}\"", at->second,
                       i, token);
    }
  }
  return ids;
}

Status CheckIds(const TokenizerData& data) {
  const auto n = static_cast<int64_t>(data.tokens.size());
  auto check = [&](const char* key, int32_t id) {
    if (id >= -1 && id < n) return Status();
    return Status(MakeError(Code::kMalformed,
                            "tokenizer.ggml.{}_token_id is {}, the vocabulary has {} tokens", key, id, n));
  };
  PB_TRY(check("bos", data.bos));
  PB_TRY(check("eos", data.eos));
  PB_TRY(check("eot", data.eot));
  PB_TRY(check("eom", data.eom));
  for (int32_t id : data.fim) PB_TRY(check("fim", id));
  if (data.add_bos && data.bos < 0)
    return MakeError(Code::kMalformed, "tokenizer.ggml.add_bos_token is true and there is no BOS");
  if (data.add_eos && data.eos < 0)
    return MakeError(Code::kMalformed, "tokenizer.ggml.add_eos_token is true and there is no EOS");
  return {};
}

class BpeTokenizer : public Tokenizer {
 public:
  BpeTokenizer(TokenizerData data, const StringIds& ids, PreTokenizer pre, bool ignore_merges,
               std::vector<std::string> findings)
      : data_(std::move(data)),
        findings_(std::move(findings)),
        pre_(std::move(pre)),
        special_(data_, ids),
        bpe_(data_.merges, ids, ignore_merges, &findings_) {}

  Result<std::vector<int32_t>> Encode(std::string_view text, const TokenizeOptions& options) const override;
  Result<std::string> Decode(std::span<const int32_t> ids, bool special) const override;
  const TokenizerData& data() const override { return data_; }
  bool IsEndOfGeneration(int32_t id) const override { return special_.IsEndOfGeneration(id); }
  const std::vector<std::string>& findings() const override { return findings_; }

 private:
  void AppendPiece(int32_t id, bool special, std::string* out) const;

  TokenizerData data_;
  std::vector<std::string> findings_;
  PreTokenizer pre_;
  SpecialTokens special_;
  Bpe bpe_;
};

Result<std::vector<int32_t>> BpeTokenizer::Encode(std::string_view text,
                                                  const TokenizeOptions& options) const {
  // U+FFFD is three bytes long where the text had one.
  constexpr size_t kMaxText = std::numeric_limits<int32_t>::max() / 3;
  if (text.size() > kMaxText) {
    return MakeError(Code::kUnsupported, "the text has {} bytes; {} are the most that is tokenised at once",
                     text.size(), kMaxText);
  }
  std::vector<int32_t> ids;
  Bpe::Scratch scratch;
  if (options.add_special && data_.add_bos) ids.push_back(data_.bos);
  for (const Fragment& fragment : special_.Partition(text, options.parse_special)) {
    if (fragment.token >= 0) {
      ids.push_back(fragment.token);
      continue;
    }
    auto words = pre_.Split(fragment.text);
    if (!words.ok()) {
      return std::move(words).error().In(
          fmt::format("in the text from byte {}", fragment.text.data() - text.data()));
    }
    size_t begin = 0;
    for (size_t end : words->ends) {
      bpe_.Append(std::string_view(words->text).substr(begin, end - begin), &scratch, &ids);
      begin = end;
    }
  }
  if (options.add_special && data_.add_eos) ids.push_back(data_.eos);
  return ids;
}

Result<std::string> BpeTokenizer::Decode(std::span<const int32_t> ids, bool special) const {
  std::string out;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || static_cast<size_t>(ids[i]) >= data_.tokens.size()) {
      return MakeError(Code::kUsage, "token {} at position {} is not in the vocabulary of {} tokens", ids[i],
                       i, data_.tokens.size());
    }
    AppendPiece(ids[i], special, &out);
  }
  return out;
}

void BpeTokenizer::AppendPiece(int32_t id, bool special, std::string* out) const {
  const std::string& text = data_.tokens[id];
  uint8_t flags = special_.flags(id);
  if (flags & (kControl | kUnknown)) {
    if (special) *out += text;
  } else if (flags & kUserDefined) {
    *out += text;
  } else if (flags & kNormal) {
    std::string bytes;
    *out += ReadByteText(text, &bytes) ? bytes : text;
  } else if (flags & kByte) {  // <0x41>
    out->push_back(static_cast<char>(
        std::strtol(text.substr(std::min<size_t>(text.size(), 3), 2).c_str(), nullptr, 16)));
  }
}

}  // namespace

TokenizerDefaults DefaultsOf(std::string_view pre, size_t n_tokens) {
  int32_t usual = n_tokens > 11 ? 11 : -1;
  const PreTokenizerRow* row = FindPreTokenizer(pre);
  if (row == nullptr) return {usual, usual, false};
  return {row->default_bos ? usual : -1, usual, row->add_bos};
}

Status CheckTokenizerModel(std::string_view model) {
  if (model == "gpt2") return {};
  const char* kind = model == "llama"  ? " (SentencePiece)"
                     : model == "bert" ? " (WordPiece)"
                     : model == "t5"   ? " (Unigram)"
                                       : "";
  return MakeError(Code::kUnsupported,
                   "tokenizer.ggml.model {}{} is not supported (gpt2, byte-level BPE, is)",
                   model.substr(0, 64), kind);
}

Result<std::unique_ptr<const Tokenizer>> Tokenizer::Create(TokenizerData data) {
  PB_TRY(CheckTokenizerModel(data.model));
  const PreTokenizerRow* row = FindPreTokenizer(data.pre);
  if (row == nullptr) {
    return MakeError(Code::kUnsupported, "tokenizer.ggml.pre is \"{}\"; supported: {}", data.pre,
                     PreTokenizerNames());
  }
  std::vector<std::string> findings;
  if (data.pre.empty()) {
    findings.push_back(
        "tokenizer.ggml.pre is missing: words are cut as for \"default\", as llama.cpp does, which is hardly "
        "what the model was "
        "trained with");
  }
  PB_ASSIGN(StringIds ids, CheckTokens(&data, &findings));
  PB_TRY(CheckIds(data));
  PB_ASSIGN(PreTokenizer pre, PreTokenizer::Compile(*row));
  return std::unique_ptr<const Tokenizer>(std::make_unique<BpeTokenizer>(
      std::move(data), ids, std::move(pre), row->ignore_merges, std::move(findings)));
}

}  // namespace pb
