// The tokenisers of GGUF files behind the Tokenizer interface, and the checks of the tables that they
// are made from.
#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "tokenizer/bpe.h"
#include "tokenizer/chars_map.h"
#include "tokenizer/gguf_keys.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/spm.h"
#include "tokenizer/unigram.h"
#include "tokenizer/utf8.h"
#include "tokenizer/wordpiece.h"

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
  PB_TRY(check("unknown", data.unknown));
  PB_TRY(check("seperator", data.separator));
  PB_TRY(check("eot", data.eot));
  PB_TRY(check("eom", data.eom));
  for (int32_t id : data.fim) PB_TRY(check("fim", id));
  if (data.add_bos && data.bos < 0)
    return MakeError(Code::kMalformed, "tokenizer.ggml.add_bos_token is true and there is no BOS");
  if (data.add_eos && data.eos < 0)
    return MakeError(Code::kMalformed, "tokenizer.ggml.add_eos_token is true and there is no EOS");
  return {};
}

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581

std::string Replaced(std::string_view text, std::string_view what, std::string_view with) {
  std::string out;
  for (size_t at; (at = text.find(what)) != text.npos; text.remove_prefix(at + what.size()))
    out.append(text.substr(0, at)).append(with);
  return out.append(text);
}

// What all kinds of tokenisers do with their tables and with special tokens.
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
  // What ends a text, where the caller wants it to; -1: nothing.
  virtual int32_t Last() const { return data_.add_eos ? data_.eos : -1; }
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
  BpeTokenizer(TokenizerData data, const StringIds& ids, PreTokenizer pre, const BpeOptions& options,
               std::vector<std::string> findings)
      : TableTokenizer(std::move(data), ids, std::move(findings)),
        pre_(std::move(pre)),
        escapes_spaces_(options.characters),
        bpe_(data_.merges, ids, options, &findings_) {}

 private:
  Status AppendText(std::string_view text, bool begins, std::vector<int32_t>* ids) const override;
  std::string BytesOf(const std::string& token) const override {
    if (escapes_spaces_) return Replaced(token, kSpace, " ");
    std::string bytes;
    return ReadByteText(token, &bytes) ? bytes : token;
  }

  PreTokenizer pre_;
  bool escapes_spaces_;
  Bpe bpe_;
};

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

// BERT's: BOS ([CLS]) and separator stand round a text, whatever the file says of BOS and EOS.
class WordPieceTokenizer : public TableTokenizer {
 public:
  WordPieceTokenizer(TokenizerData data, const StringIds& ids, std::vector<std::string> findings)
      : TableTokenizer(std::move(data), ids, std::move(findings)),
        pieces_(ids, data_.unknown, data_.lowercase, data_.strip_accents) {}

 private:
  Status AppendText(std::string_view text, bool, std::vector<int32_t>* ids) const override {
    PB_ASSIGN(const CleanText clean, CleanText::Read(text));
    pieces_.Append(clean, ids);
    return {};
  }
  std::string BytesOf(const std::string& token) const override { return Replaced(token, kSpace, " "); }
  int32_t Last() const override { return data_.separator; }

  WordPiece pieces_;
};

class UnigramTokenizer : public TableTokenizer {
 public:
  UnigramTokenizer(TokenizerData data, const StringIds& ids, std::vector<std::string> findings,
                   std::optional<CharsMap> chars_map);

 private:
  Status AppendText(std::string_view text, bool, std::vector<int32_t>* ids) const override;
  std::string BytesOf(const std::string& token) const override { return Replaced(token, kSpace, " "); }
  Result<std::string> Normalise(std::string_view text) const;
  Status AppendNormal(std::string_view* text, std::string* out) const;

  std::optional<CharsMap> chars_map_;
  Trie user_defined_;  // the heads of their texts are not normalised
  std::optional<Unigram> unigram_;
};

UnigramTokenizer::UnigramTokenizer(TokenizerData data, const StringIds& ids,
                                   std::vector<std::string> findings, std::optional<CharsMap> chars_map)
    : TableTokenizer(std::move(data), ids, std::move(findings)), chars_map_(std::move(chars_map)) {
  constexpr float kPenalty = 10;
  auto score = [&](size_t id) { return data_.scores.empty() ? 0.0f : data_.scores[id]; };
  float least = std::numeric_limits<float>::max();
  for (size_t id = 0; id < data_.tokens.size(); ++id)
    if (special_.flags(static_cast<int32_t>(id)) & kNormal) least = std::min(least, score(id));
  unigram_.emplace(data_.unknown, least - kPenalty);
  for (size_t i = 0; i < data_.tokens.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const uint8_t flags = special_.flags(id);
    const bool unused = !data_.token_types.empty() && data_.token_types[i] == 5;
    if (flags & (kNormal | kUserDefined) || unused)
      unigram_->Add(data_.tokens[i], id, flags & kUserDefined ? 0.0 : score(i));
    if (flags & kUserDefined) user_defined_.Insert(data_.tokens[i], id);
  }
}

// Takes from the text what is written as one: part of a user-defined token's text, what the map of
// characters has, or a character.
Status UnigramTokenizer::AppendNormal(std::string_view* text, std::string* out) const {
  size_t bytes = user_defined_.Depth(*text);
  if (bytes == 0 && chars_map_) {
    PB_ASSIGN(const auto found, chars_map_->Longest(*text));
    if (found) {
      out->append(found->with);
      text->remove_prefix(found->bytes);
      return {};
    }
  }
  if (bytes == 0) bytes = ReadCodePoint(*text).bytes;
  out->append(bytes == 0 ? "\xEF\xBF\xBD" : text->substr(0, bytes));
  text->remove_prefix(std::max<size_t>(bytes, 1));
  return {};
}

Result<std::string> UnigramTokenizer::Normalise(std::string_view text) const {
  std::string out, normal;
  out.reserve(text.size() * 3);
  bool prepended = false, in_word = false;
  while (!text.empty()) {
    normal.clear();
    if (Status status = AppendNormal(&text, &normal); !status.ok())
      return std::move(status).error().In("tokenizer.ggml.precompiled_charsmap");
    for (char c : normal) {
      if (c == ' ') {
        in_word = false;
        if (!data_.remove_extra_spaces) out += kSpace;
        continue;
      }
      if (!in_word && ((data_.add_space_prefix && !prepended) || data_.remove_extra_spaces)) {
        out += kSpace;
        prepended = true;
      }
      in_word = true;
      out.push_back(c);
    }
  }
  return out;
}

Status UnigramTokenizer::AppendText(std::string_view text, bool, std::vector<int32_t>* ids) const {
  PB_ASSIGN(const std::string normal, Normalise(text));
  const size_t before = ids->size();
  for (const Unigram::Piece& piece : unigram_->Best(normal)) {
    const bool again = piece.id == data_.unknown && ids->size() > before && ids->back() == piece.id;
    if (!again) ids->push_back(piece.id);
  }
  return {};
}

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
  if (options.add_special && Last() >= 0) ids.push_back(Last());
  return ids;
}

Status BpeTokenizer::AppendText(std::string_view text, bool, std::vector<int32_t>* ids) const {
  PB_ASSIGN(const auto words, escapes_spaces_ ? pre_.Split(Replaced(text, " ", kSpace)) : pre_.Split(text));
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
  auto at = [&](int32_t id) { return static_cast<size_t>(id) < n_tokens ? id : -1; };
  if (model == "llama") return {.bos = at(1), .eos = at(2), .add_bos = true, .unknown = at(0)};
  if (model == "bert")
    return {.bos = at(101), .add_bos = true, .add_space = false, .unknown = at(100), .separator = at(102)};
  if (model == "t5") return {.eos = at(1), .add_eos = true, .add_space = false, .unknown = at(2)};
  if (model == "gemma4") return {.add_bos = true};
  const PreTokenizerRow* row = FindPreTokenizer(pre);
  if (row == nullptr) return {.bos = at(11), .eos = at(11)};
  return {.bos = row->default_bos ? at(11) : -1, .eos = at(11), .add_bos = row->add_bos};
}

Status CheckTokenizerModel(std::string_view model) {
  for (std::string_view known : {"gpt2", "llama", "gemma4", "bert", "t5"})
    if (model == known) return {};
  return MakeError(Code::kUnsupported,
                   "tokenizer.ggml.model {} is not supported (gpt2, byte-level BPE; llama, SentencePiece; "
                   "gemma4, BPE over characters; t5, Unigram; and bert, WordPiece, are)",
                   model.substr(0, 64));
}

Status CheckPreTokenizer(std::string_view pre) {
  if (FindPreTokenizer(pre) != nullptr) return {};
  return MakeError(Code::kUnsupported, "tokenizer.ggml.pre is \"{}\"; supported: {}", pre.substr(0, 64),
                   PreTokenizerNames());
}

namespace {

Status CheckScores(const TokenizerData& data) {
  if (data.scores.empty() || data.scores.size() >= data.tokens.size()) return {};
  return MakeError(Code::kMalformed, "tokenizer.ggml.scores has {} entries for {} tokens", data.scores.size(),
                   data.tokens.size());
}

// Work over a trie grows with its longest text.
Status CheckTrieTokens(const TokenizerData& data) {
  for (size_t i = 0; i < data.tokens.size(); ++i)
    if (data.tokens[i].size() > kMaxTrieTokenBytes)
      return MakeError(Code::kMalformed, "tokenizer.ggml.tokens[{}] has {} bytes, more than {}", i,
                       data.tokens[i].size(), kMaxTrieTokenBytes);
  return {};
}

Result<std::unique_ptr<const Tokenizer>> CreateWordPiece(TokenizerData data, const StringIds& ids,
                                                         std::vector<std::string> findings) {
  PB_TRY(CheckTrieTokens(data));
  for (auto [key, id] : {std::pair("bos", data.bos), std::pair("seperator", data.separator),
                         std::pair("unknown", data.unknown)})
    if (id < 0)
      return MakeError(Code::kMalformed, "tokenizer.ggml.{}_token_id is missing, and WordPiece needs it",
                       key);
  data.add_bos = true;
  return std::unique_ptr<const Tokenizer>(
      std::make_unique<WordPieceTokenizer>(std::move(data), ids, std::move(findings)));
}

Result<std::unique_ptr<const Tokenizer>> CreateUnigram(TokenizerData data, const StringIds& ids,
                                                       std::vector<std::string> findings) {
  PB_TRY(CheckTrieTokens(data));
  PB_TRY(CheckScores(data));
  if (data.unknown < 0)
    return MakeError(Code::kMalformed, "tokenizer.ggml.unknown_token_id is missing, and Unigram needs it");
  std::optional<CharsMap> map;
  if (!data.chars_map.empty()) {
    auto read = CharsMap::Create(data.chars_map);
    if (!read.ok()) return std::move(read).error().In("tokenizer.ggml.precompiled_charsmap");
    map = std::move(read).value();
  }
  return std::unique_ptr<const Tokenizer>(
      std::make_unique<UnigramTokenizer>(std::move(data), ids, std::move(findings), std::move(map)));
}

Result<std::unique_ptr<const Tokenizer>> CreateBpe(TokenizerData data, const PreTokenizerRow& row,
                                                   const StringIds& ids, std::vector<std::string> findings) {
  if (row.whole_lines) data.add_bos = data.bos >= 0;  // llama.cpp always adds it
  PB_ASSIGN(PreTokenizer pre, PreTokenizer::Compile(row));
  return std::unique_ptr<const Tokenizer>(std::make_unique<BpeTokenizer>(
      std::move(data), ids, std::move(pre), BpeOptions{row.ignore_merges, row.characters, row.whole_lines},
      std::move(findings)));
}

}  // namespace

Result<std::unique_ptr<const Tokenizer>> Tokenizer::Create(TokenizerData data) {
  PB_TRY(CheckTokenizerModel(data.model));
  std::vector<std::string> findings;
  const bool bpe = data.model == "gpt2" || data.model == "gemma4";
  if (data.model == "gemma4") data.pre = "gemma4";
  const PreTokenizerRow* row = bpe ? FindPreTokenizer(data.pre) : nullptr;
  if (bpe) PB_TRY(CheckPreTokenizer(data.pre));
  if (bpe && data.pre.empty()) {
    findings.push_back(
        "tokenizer.ggml.pre is missing: words are cut as for \"default\", as llama.cpp does, which is hardly "
        "what the model was "
        "trained with");
  }
  PB_ASSIGN(StringIds ids, CheckTokens(&data, &findings));
  PB_TRY(CheckIds(data));
  if (bpe) return CreateBpe(std::move(data), *row, ids, std::move(findings));
  if (data.model == "bert") return CreateWordPiece(std::move(data), ids, std::move(findings));
  if (data.model == "t5") return CreateUnigram(std::move(data), ids, std::move(findings));
  PB_TRY(CheckScores(data));
  return SpmTokenizer::Create(std::move(data), std::move(ids), std::move(findings));
}

}  // namespace pb
