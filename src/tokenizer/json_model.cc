// BPE, Unigram and WordPiece as the `tokenizers` package defines them.
#include "tokenizer/json_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "tokenizer/merge_table.h"
#include "tokenizer/trie.h"
#include "tokenizer/unigram.h"
#include "tokenizer/utf8.h"

namespace pb {
namespace {

constexpr uint64_t kMaxId = (1 << 24) - 1;

Result<StringIds> ReadVocabulary(const JsonField& field) {
  if (field.none() || !field.value().is_object()) return field.Wrong("there is no object");
  StringIds ids;
  ids.reserve(field.value().size());
  for (const auto& item : field.value().items()) {
    const auto& id = item.value();
    if (!id.is_number_unsigned() || id.get<uint64_t>() > kMaxId)
      return field.Wrong(fmt::format("the id of \"{:.60}\" is no whole number up to {}", item.key(), kMaxId));
    ids.emplace(item.key(), static_cast<int32_t>(id.get<uint64_t>()));
  }
  return ids;
}

std::string ByteToken(char byte) { return fmt::format("<0x{:02X}>", static_cast<unsigned char>(byte)); }

// The ids of the bytes; false: not every byte has a token.
bool SpellBytes(const StringIds& vocabulary, std::string_view text, std::vector<int32_t>* ids) {
  const size_t before = ids->size();
  for (char byte : text) {
    const auto found = vocabulary.find(ByteToken(byte));
    if (found == vocabulary.end()) {
      ids->resize(before);
      return false;
    }
    ids->push_back(found->second);
  }
  return true;
}

// ---- BPE ----

class JsonBpe : public JsonModel {
 public:
  static Result<std::unique_ptr<const JsonModel>> Create(const JsonField& field);
  Status Append(std::string_view word, std::vector<int32_t>* ids) const override;

 private:
  Status ReadMerges(const JsonField& field);
  Status AddMerge(const JsonField& merge, uint32_t rank);
  Status CutIntoSymbols(std::string_view word, std::vector<int32_t>* symbols) const;

  MergeTable merges_;
  std::string prefix_, suffix_;  // of what continues, of what ends a word
  std::optional<int32_t> unknown_;
  bool fuse_unknown_ = false, byte_fallback_ = false, ignore_merges_ = false;
};

Result<std::unique_ptr<const JsonModel>> JsonBpe::Create(const JsonField& field) {
  PB_TRY(field.Knows({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                      "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"}));
  const JsonField dropout = field["dropout"];
  if (!dropout.none() && !(dropout.value().is_number() && dropout.value().get<double>() == 0))
    return dropout.Refuse("dropout, which makes ids a matter of chance,");
  auto made = std::make_unique<JsonBpe>();
  PB_ASSIGN(made->ids_, ReadVocabulary(field["vocab"]));
  PB_ASSIGN(made->prefix_, field["continuing_subword_prefix"].TextOr(""));
  PB_ASSIGN(made->suffix_, field["end_of_word_suffix"].TextOr(""));
  PB_ASSIGN(made->fuse_unknown_, field["fuse_unk"].FlagOr(false));
  PB_ASSIGN(made->byte_fallback_, field["byte_fallback"].FlagOr(false));
  PB_ASSIGN(made->ignore_merges_, field["ignore_merges"].FlagOr(false));
  if (const JsonField unknown = field["unk_token"]; !unknown.none()) {
    PB_ASSIGN(const std::string text, unknown.Text());
    const auto found = made->ids_.find(text);
    if (found == made->ids_.end()) return unknown.Wrong("it is not in the vocabulary");
    made->unknown_ = found->second;
  }
  PB_TRY(made->ReadMerges(field["merges"]));
  return std::unique_ptr<const JsonModel>(std::move(made));
}

Status JsonBpe::ReadMerges(const JsonField& field) {
  PB_ASSIGN(const auto items, field.Items());
  merges_.Reserve(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    // Older files begin with a line of the version, as merges.txt does.
    const auto& value = items[i].value();
    if (value.is_string() && value.get_ref<const std::string&>().starts_with("#version")) continue;
    PB_TRY(AddMerge(items[i], static_cast<uint32_t>(i)));
  }
  return {};
}

Status JsonBpe::AddMerge(const JsonField& merge, uint32_t rank) {
  std::string left, right;
  if (merge.value().is_array() && merge.value().size() == 2) {
    PB_ASSIGN(left, merge.At(0).Text());
    PB_ASSIGN(right, merge.At(1).Text());
  } else {
    PB_ASSIGN(const std::string both, merge.Text());
    const size_t space = both.find(' ');
    if (space == both.npos || both.find(' ', space + 1) != both.npos)
      return merge.Wrong("it is no two texts with a space between");
    left = both.substr(0, space), right = both.substr(space + 1);
  }
  if (!prefix_.empty() && right.size() < prefix_.size()) return merge.Wrong("it does not continue a word");
  const std::string result = left + right.substr(prefix_.size());
  int32_t ids[3];
  const std::string* texts[3] = {&left, &right, &result};
  for (int k = 0; k < 3; ++k) {
    const auto found = ids_.find(*texts[k]);
    if (found == ids_.end())
      return merge.Wrong(fmt::format("\"{:.60}\" is not in the vocabulary", *texts[k]));
    ids[k] = found->second;
  }
  merges_.Insert(ids[0], ids[1], rank, ids[2]);
  return {};
}

Status JsonBpe::CutIntoSymbols(std::string_view word, std::vector<int32_t>* symbols) const {
  symbols->clear();
  bool unknown_waits = false;  // comes once what follows is known to be no part of it
  auto put_unknown = [&] {
    if (std::exchange(unknown_waits, false)) symbols->push_back(*unknown_);
  };
  std::string text;
  for (size_t at = 0; at < word.size();) {
    const size_t bytes = std::min(CharacterBytes(word[at]), word.size() - at);
    text.assign(at > 0 ? prefix_ : std::string()).append(word.substr(at, bytes));
    at += bytes;
    if (at == word.size()) text.append(suffix_);
    if (const auto found = ids_.find(text); found != ids_.end()) {
      put_unknown();
      symbols->push_back(found->second);
      continue;
    }
    // An unknown character that waits stays behind the bytes, as in the package.
    if (byte_fallback_ && SpellBytes(ids_, text, symbols)) continue;
    if (!unknown_) continue;
    if (!fuse_unknown_) put_unknown();
    unknown_waits = true;
  }
  put_unknown();
  return {};
}

Status JsonBpe::Append(std::string_view word, std::vector<int32_t>* ids) const {
  if (ignore_merges_) {
    if (const auto found = ids_.find(word); found != ids_.end()) {
      ids->push_back(found->second);
      return {};
    }
  }
  static thread_local MergeTable::Scratch scratch;
  PB_TRY(CutIntoSymbols(word, &scratch.symbol));
  if (scratch.symbol.empty()) return {};
  merges_.Merge(&scratch);
  const auto n = static_cast<int32_t>(scratch.symbol.size());
  for (int32_t i = 0; i < n; i = scratch.next[static_cast<size_t>(i)])
    ids->push_back(scratch.symbol[static_cast<size_t>(i)]);
  return {};
}

// ---- Unigram ----

class JsonUnigram : public JsonModel {
 public:
  static Result<std::unique_ptr<const JsonModel>> Create(const JsonField& field);
  Status Append(std::string_view word, std::vector<int32_t>* ids) const override;

 private:
  Status AppendPiece(std::string_view text, std::vector<int32_t>* ids) const;

  std::optional<Unigram> unigram_;
  std::optional<int32_t> unknown_;
  bool byte_fallback_ = false;
  std::string path_;
};

Result<std::unique_ptr<const JsonModel>> JsonUnigram::Create(const JsonField& field) {
  PB_TRY(field.Knows({"type", "unk_id", "vocab", "byte_fallback"}));
  auto made = std::make_unique<JsonUnigram>();
  made->path_ = field.path();
  PB_ASSIGN(made->byte_fallback_, field["byte_fallback"].FlagOr(false));
  PB_ASSIGN(const auto items, field["vocab"].Items());
  if (items.size() > kMaxId) return field["vocab"].Wrong("it has too many tokens");
  if (!field["unk_id"].none()) {
    if (items.empty()) return field["vocab"].Wrong("it is empty");
    PB_ASSIGN(const uint64_t id, field["unk_id"].Number(items.size() - 1));
    made->unknown_ = static_cast<int32_t>(id);
  }
  std::vector<std::pair<std::string, double>> pieces;
  double least = std::numeric_limits<double>::infinity();
  for (const JsonField& item : items) {
    const auto& pair = item.value();
    if (!pair.is_array() || pair.size() != 2 || !pair[1].is_number())
      return item.Wrong("it is no text and its score");
    PB_ASSIGN(std::string text, item.At(0).Text());
    if (text.size() > kMaxTrieTokenBytes)
      return item.Wrong(fmt::format("a token of {} bytes, more than {}", text.size(), kMaxTrieTokenBytes));
    const double score = pair[1].get<double>();
    least = std::min(least, score);
    pieces.emplace_back(std::move(text), score);
  }
  constexpr double kPenalty = 10;
  made->unigram_.emplace(made->unknown_.value_or(-1), least - kPenalty);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    made->ids_[pieces[i].first] = id;
    if (!pieces[i].first.empty()) made->unigram_->Add(pieces[i].first, id, pieces[i].second);
  }
  return std::unique_ptr<const JsonModel>(std::move(made));
}

Status JsonUnigram::AppendPiece(std::string_view text, std::vector<int32_t>* ids) const {
  if (const auto found = ids_.find(text); found != ids_.end()) {
    ids->push_back(found->second);
  } else if (!byte_fallback_ || !SpellBytes(ids_, text, ids)) {
    ids->push_back(*unknown_);
  }
  return {};
}

Status JsonUnigram::Append(std::string_view word, std::vector<int32_t>* ids) const {
  const std::vector<Unigram::Piece> pieces = unigram_->Best(word);
  for (size_t i = 0; i < pieces.size();) {
    const size_t begin = pieces[i].begin;
    size_t end = pieces[i].end;
    const int32_t id = pieces[i++].id;
    if (id < 0)
      return MakeError(Code::kUnsupported,
                       "{}.unk_id is missing, and the text has characters without a token", path_);
    const bool unknown = id == unknown_;
    while (unknown && i < pieces.size() && pieces[i].id == id) end = pieces[i++].end;
    PB_TRY(AppendPiece(word.substr(begin, end - begin), ids));
  }
  return {};
}

// ---- WordPiece ----

class JsonWordPiece : public JsonModel {
 public:
  static Result<std::unique_ptr<const JsonModel>> Create(const JsonField& field);
  Status Append(std::string_view word, std::vector<int32_t>* ids) const override;

 private:
  Trie heads_, tails_;
  std::optional<int32_t> unknown_;
  uint64_t most_ = 100;  // characters of a word
  std::string path_;
};

Result<std::unique_ptr<const JsonModel>> JsonWordPiece::Create(const JsonField& field) {
  PB_TRY(
      field.Knows({"type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"}));
  auto made = std::make_unique<JsonWordPiece>();
  made->path_ = field.path();
  PB_ASSIGN(made->ids_, ReadVocabulary(field["vocab"]));
  PB_ASSIGN(const std::string prefix, field["continuing_subword_prefix"].TextOr("##"));
  PB_ASSIGN(const std::string unknown, field["unk_token"].TextOr("[UNK]"));
  if (!field["max_input_chars_per_word"].none()) {
    PB_ASSIGN(made->most_, field["max_input_chars_per_word"].Number(1 << 20));
  }
  if (const auto found = made->ids_.find(unknown); found != made->ids_.end()) made->unknown_ = found->second;
  for (const auto& [text, id] : made->ids_) {
    if (text.size() > kMaxTrieTokenBytes)
      return field["vocab"].Wrong(
          fmt::format("a token of {} bytes, more than {}", text.size(), kMaxTrieTokenBytes));
    if (!text.empty()) made->heads_.Insert(text, id);
    if (text.starts_with(prefix) && text.size() > prefix.size())
      made->tails_.Insert(std::string_view(text).substr(prefix.size()), id);
  }
  return std::unique_ptr<const JsonModel>(std::move(made));
}

Status JsonWordPiece::Append(std::string_view word, std::vector<int32_t>* ids) const {
  const size_t before = ids->size();
  const auto n = static_cast<uint64_t>(
      std::count_if(word.begin(), word.end(), [](char c) { return (c & 0xC0) != 0x80; }));
  bool whole = n <= most_;
  for (std::string_view rest = word; whole && !rest.empty();) {
    const Trie::Found found = (rest.size() == word.size() ? heads_ : tails_).Longest(rest);
    whole = found.value != Trie::kNone;
    if (whole) ids->push_back(found.value);
    rest.remove_prefix(found.bytes);
  }
  if (whole) return {};
  ids->resize(before);
  if (!unknown_)
    return MakeError(Code::kUnsupported,
                     "{}.unk_token is not in the vocabulary, and the text has a word without tokens", path_);
  ids->push_back(*unknown_);
  return {};
}

}  // namespace

Result<std::unique_ptr<const JsonModel>> JsonModel::Create(const JsonField& field) {
  if (field.none()) return field.Wrong("there is no model");
  std::string type;
  if (!field["type"].none()) {
    PB_ASSIGN(type, field["type"].Text());
  } else if (!field["merges"].none()) {
    type = "BPE";  // as older files leave out
  }
  if (type == "BPE") return JsonBpe::Create(field);
  if (type == "Unigram") return JsonUnigram::Create(field);
  if (type == "WordPiece") return JsonWordPiece::Create(field);
  return field["type"].Refuse(type.empty() ? "a model without its type"
                                           : fmt::format("the model {:.64}", type));
}

}  // namespace pb
