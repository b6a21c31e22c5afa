// Byte-level BPE behind the Tokenizer interface, and the checks of the tables it is made from.
#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "tokenizer/bpe.h"
#include "tokenizer/gguf_keys.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/spm.h"

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

// What both kinds of tokenisers do with their tables and with special tokens.
class TableTokenizer : public Tokenizer {
 public:
  TableTokenizer(TokenizerData data, const StringIds& ids, std::vector<std::string> findings)
      : data_(std::move(data)), findings_(std::move(findings)), special_(data_, ids) {}

  Result<std::vector<int32_t>> Encode(std::string_view text, const TokenizeOptions& options) const override;
  Result<std::string> Decode(std::span<const int32_t> ids, bool special) const override;
  const TokenizerData& data() const override { return data_; }
  bool IsEndOfGeneration(int32_t id) const override { return special_.IsEndOfGeneration(id); }
  const std::vector<std::string>& findings() const override { return findings_; }

 protected:
  // Appends the ids of text between special tokens; `begins`: at the start, or right behind one.
  virtual Status AppendText(std::string_view text, bool begins, std::vector<int32_t>* ids) const = 0;
  // The bytes of a normal token.
  virtual std::string BytesOf(const std::string& token) const = 0;

  TokenizerData data_;
  std::vector<std::string> findings_;
  SpecialTokens special_;

 private:
  void AppendPiece(int32_t id, bool special, std::string* out) const;
};

class BpeTokenizer : public TableTokenizer {
 public:
  BpeTokenizer(TokenizerData data, const StringIds& ids, PreTokenizer pre, bool ignore_merges,
               std::vector<std::string> findings)
      : TableTokenizer(std::move(data), ids, std::move(findings)),
        pre_(std::move(pre)),
        bpe_(data_.merges, ids, ignore_merges, &findings_) {}

 private:
  Status AppendText(std::string_view text, bool begins, std::vector<int32_t>* ids) const override;
  std::string BytesOf(const std::string& token) const override {
    std::string bytes;
    return ReadByteText(token, &bytes) ? bytes : token;
  }

  PreTokenizer pre_;
  Bpe bpe_;
};

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581

std::string Replaced(std::string_view text, std::string_view what, std::string_view with) {
  std::string out;
  for (size_t at; (at = text.find(what)) != text.npos; text.remove_prefix(at + what.size()))
    out.append(text.substr(0, at)).append(with);
  return out.append(text);
}

class SpmTokenizer : public TableTokenizer {
 public:
  static Result<std::unique_ptr<const Tokenizer>> Create(TokenizerData data, StringIds ids,
                                                         std::vector<std::string> findings) {
    std::unique_ptr<SpmTokenizer> made(
        new SpmTokenizer(std::move(data), std::move(ids), std::move(findings)));
    PB_ASSIGN(made->spm_, Spm::Create(made->data_, made->ids_));
    return std::unique_ptr<const Tokenizer>(std::move(made));
  }

 private:
  SpmTokenizer(TokenizerData data, StringIds ids, std::vector<std::string> findings)
      : TableTokenizer(std::move(data), ids, std::move(findings)), ids_(std::move(ids)) {}

  Status AppendText(std::string_view text, bool begins, std::vector<int32_t>* ids) const override {
    std::string escaped = data_.add_space_prefix && begins ? std::string(kSpace) : "";
    escaped += Replaced(text, " ", kSpace);
    spm_->Append(escaped, ids);
    return {};
  }
  std::string BytesOf(const std::string& token) const override { return Replaced(token, kSpace, " "); }

  StringIds ids_;
  std::optional<Spm> spm_;  // once the tables stand where they stay
};

Result<std::vector<int32_t>> TableTokenizer::Encode(std::string_view text,
                                                    const TokenizeOptions& options) const {
  // U+FFFD is three bytes long where the text had one.
  constexpr size_t kMaxText = std::numeric_limits<int32_t>::max() / 3;
  if (text.size() > kMaxText) {
    return MakeError(Code::kUnsupported, "the text has {} bytes; {} are the most that is tokenised at once",
                     text.size(), kMaxText);
  }
  std::vector<int32_t> ids;
  if (options.add_special && data_.add_bos) ids.push_back(data_.bos);
  bool begins = true;
  for (const Fragment& fragment : special_.Partition(text, options.parse_special)) {
    if (fragment.token >= 0) {
      ids.push_back(fragment.token);
    } else if (Status status = AppendText(fragment.text, begins, &ids); !status.ok()) {
      return std::move(status).error().In(
          fmt::format("in the text from byte {}", fragment.text.data() - text.data()));
    }
    begins = fragment.token >= 0;
  }
  if (options.add_special && data_.add_eos) ids.push_back(data_.eos);
  return ids;
}

Status BpeTokenizer::AppendText(std::string_view text, bool, std::vector<int32_t>* ids) const {
  PB_ASSIGN(const auto words, pre_.Split(text));
  Bpe::Scratch scratch;
  size_t begin = 0;
  for (size_t end : words.ends) {
    bpe_.Append(std::string_view(words.text).substr(begin, end - begin), &scratch, ids);
    begin = end;
  }
  return {};
}

Result<std::string> TableTokenizer::Decode(std::span<const int32_t> ids, bool special) const {
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

void TableTokenizer::AppendPiece(int32_t id, bool special, std::string* out) const {
  const std::string& text = data_.tokens[id];
  uint8_t flags = special_.flags(id);
  if (flags & (kControl | kUnknown)) {
    if (special) *out += text;
  } else if (flags & kUserDefined) {
    *out += text;
  } else if (flags & kNormal) {
    *out += BytesOf(text);
  } else if (flags & kByte) {  // <0x41>
    out->push_back(static_cast<char>(
        std::strtol(text.substr(std::min<size_t>(text.size(), 3), 2).c_str(), nullptr, 16)));
  }
}

}  // namespace

TokenizerDefaults DefaultsOf(std::string_view model, std::string_view pre, size_t n_tokens) {
  if (model == "llama") return {n_tokens > 1 ? 1 : -1, n_tokens > 2 ? 2 : -1, true};
  int32_t usual = n_tokens > 11 ? 11 : -1;
  const PreTokenizerRow* row = FindPreTokenizer(pre);
  if (row == nullptr) return {usual, usual, false};
  return {row->default_bos ? usual : -1, usual, row->add_bos};
}

Status CheckTokenizerModel(std::string_view model) {
  if (model == "gpt2" || model == "llama") return {};
  const char* kind = model == "bert" ? " (WordPiece)" : model == "t5" ? " (Unigram)" : "";
  return MakeError(Code::kUnsupported,
                   "tokenizer.ggml.model {}{} is not supported (gpt2, byte-level BPE, and llama, "
                   "SentencePiece, are)",
                   model.substr(0, 64), kind);
}

Result<std::unique_ptr<const Tokenizer>> Tokenizer::Create(TokenizerData data) {
  PB_TRY(CheckTokenizerModel(data.model));
  std::vector<std::string> findings;
  if (data.model == "llama") {
    PB_ASSIGN(StringIds ids, CheckTokens(&data, &findings));
    PB_TRY(CheckIds(data));
    if (!data.scores.empty() && data.scores.size() < data.tokens.size())
      return MakeError(Code::kMalformed, "tokenizer.ggml.scores has {} entries for {} tokens",
                       data.scores.size(), data.tokens.size());
    return SpmTokenizer::Create(std::move(data), std::move(ids), std::move(findings));
  }
  const PreTokenizerRow* row = FindPreTokenizer(data.pre);
  if (row == nullptr) {
    return MakeError(Code::kUnsupported, "tokenizer.ggml.pre is \"{}\"; supported: {}", data.pre,
                     PreTokenizerNames());
  }
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
