// Puts the parts of a tokenizer.json together: added tokens, normaliser, pre-tokeniser, model,
// post-processor, decoder.
#include "tokenizer/json_tokenizer.h"

#include <algorithm>
#include <set>

#include "base/file.h"
#include "base/json_text.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/json_decoder.h"
#include "tokenizer/json_model.h"
#include "tokenizer/json_normalizer.h"
#include "tokenizer/json_pre_tokenizer.h"
#include "tokenizer/utf8.h"

namespace pb {
namespace {

constexpr uint64_t kMaxFileBytes = 256ull << 20;
constexpr uint64_t kMaxId = (1 << 24) - 1;
constexpr size_t kMaxText = 256 << 20;

// What a post-processor puts round a text: ids, and -1 where the text stands.
struct Template {
  std::vector<int32_t> parts = {-1};

  Status Read(const JsonField& field, int depth);

 private:
  Status ReadTemplate(const JsonField& field);
};

Result<int32_t> IdOfPair(const JsonField& field) {
  if (field.none() || !field.value().is_array() || field.value().size() != 2)
    return field.Wrong("it is no token and its id");
  PB_ASSIGN(const uint64_t id, field.At(1).Number(kMaxId));
  return static_cast<int32_t>(id);
}

Status Template::ReadTemplate(const JsonField& field) {
  PB_ASSIGN(const auto pieces, field["single"].Items());
  const JsonField specials = field["special_tokens"];
  std::vector<int32_t> made;
  for (const JsonField& piece : pieces) {
    if (!piece["Sequence"].none()) {
      PB_ASSIGN(const std::string id, piece["Sequence"]["id"].Text());
      if (id != "A") return piece["Sequence"]["id"].Wrong("a single text has no sequence but A");
      made.push_back(-1);
      continue;
    }
    PB_ASSIGN(const std::string name, piece["SpecialToken"]["id"].Text());
    PB_ASSIGN(const auto ids, specials[name.c_str()]["ids"].Items());
    for (const JsonField& item : ids) {
      PB_ASSIGN(const uint64_t id, item.Number(kMaxId));
      made.push_back(static_cast<int32_t>(id));
    }
  }
  // Each stands round what was made before it.
  std::vector<int32_t> all;
  for (int32_t part : made) {
    if (part >= 0) {
      all.push_back(part);
    } else {
      all.insert(all.end(), parts.begin(), parts.end());
    }
  }
  parts = std::move(all);
  return {};
}

Status Template::Read(const JsonField& field, int depth) {
  if (field.none()) return {};
  PB_ASSIGN(const std::string type, field["type"].Text());
  if (type == "ByteLevel") return {};  // moves offsets, not ids
  if (type == "TemplateProcessing") return ReadTemplate(field);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    PB_ASSIGN(const int32_t first, IdOfPair(field["cls"]));
    PB_ASSIGN(const int32_t last, IdOfPair(field["sep"]));
    parts.insert(parts.begin(), first);
    parts.push_back(last);
    return {};
  }
  if (type == "Sequence") {
    if (depth >= 16) return field.Refuse("a sequence nested so deep");
    PB_ASSIGN(const auto items, field["processors"].Items());
    for (const JsonField& item : items) PB_TRY(Read(item, depth + 1));
    return {};
  }
  return field["type"].Refuse(fmt::format("the post-processor {:.64}", type));
}

class JsonTokenizer : public Tokenizer {
 public:
  JsonTokenizer(JsonNormalizer normalizer, JsonPreTokenizer pre, std::unique_ptr<const JsonModel> model,
                JsonDecoder decoder)
      : normalizer_(std::move(normalizer)),
        pre_(std::move(pre)),
        model_(std::move(model)),
        decoder_(std::move(decoder)) {}

  Status ReadRest(const JsonField& root);

  Result<std::vector<int32_t>> Encode(std::string_view text, const TokenizeOptions& options) const override;
  Result<std::string> Decode(std::span<const int32_t> ids, bool special) const override;
  const TokenizerData& data() const override { return data_; }
  bool IsEndOfGeneration(int32_t id) const override { return ends_.count(id) > 0; }
  const std::vector<std::string>& findings() const override { return findings_; }

 private:
  Status CheckIds();
  Status AppendRest(JsonText text, const TokenizeOptions& options, std::vector<int32_t>* ids) const;
  Status AppendWords(JsonText text, std::vector<int32_t>* ids) const;

  JsonNormalizer normalizer_;
  JsonPreTokenizer pre_;
  std::unique_ptr<const JsonModel> model_;
  JsonDecoder decoder_;
  AddedTokens added_;
  Template template_;
  TokenizerData data_;  // tokens and what is known of BOS and EOS; no engine reads more
  std::set<int32_t> ends_;
  std::vector<std::string> findings_;
};

Status JsonTokenizer::ReadRest(const JsonField& root) {
  PB_ASSIGN(added_, AddedTokens::Create(root["added_tokens"], model_->vocabulary(), normalizer_));
  PB_TRY(template_.Read(root["post_processor"], 0));
  for (const char* key : {"truncation", "padding"})
    if (!root[key].none())
      findings_.push_back(fmt::format("tokenizer.json asks for {}, which is not applied", key));
  data_.model = "tokenizer.json";
  auto put = [&](const std::string& text, int32_t id) {
    const auto at = static_cast<size_t>(id);
    if (data_.tokens.size() <= at) data_.tokens.resize(at + 1);
    data_.tokens[at] = text;
    if (LooksLikeEndOfGeneration(text)) ends_.insert(id);
  };
  // A table by id costs memory for what it lacks, too.
  constexpr size_t kMaxHoles = 1 << 20;
  const size_t most = model_->vocabulary().size() + added_.all().size() + kMaxHoles;
  for (const auto& [text, id] : model_->vocabulary()) {
    if (static_cast<size_t>(id) >= most)
      return MakeError(Code::kMalformed,
                       "model.vocab: the id {} of \"{:.60}\" leaves more than {} ids without a token", id,
                       text, kMaxHoles);
    put(text, id);
  }
  for (const AddedToken& token : added_.all()) put(token.written, token.id);
  return CheckIds();
}

// What a post-processor adds has to be a token.
Status JsonTokenizer::CheckIds() {
  for (int32_t id : template_.parts)
    if (id >= static_cast<int32_t>(data_.tokens.size()))
      return MakeError(Code::kMalformed, "post_processor: token {} is beyond the vocabulary of {} tokens", id,
                       data_.tokens.size());
  const auto text = std::find(template_.parts.begin(), template_.parts.end(), -1);
  if (text != template_.parts.end() && text != template_.parts.begin()) data_.bos = *(text - 1);
  data_.add_bos = data_.bos >= 0;
  return {};
}

Status JsonTokenizer::AppendWords(JsonText text, std::vector<int32_t>* ids) const {
  PB_ASSIGN(const std::vector<JsonText> words, pre_.Cut(std::move(text)));
  for (const JsonText& word : words)
    if (!word.text.empty()) PB_TRY(model_->Append(word.text, ids));
  return {};
}

// What lies between added tokens of the text as given.
Status JsonTokenizer::AppendRest(JsonText text, const TokenizeOptions& options,
                                 std::vector<int32_t>* ids) const {
  PB_TRY(normalizer_.Apply(&text));
  for (const AddedTokens::Piece& piece : added_.Find(text.text, true, options.parse_special)) {
    if (piece.id >= 0) {
      ids->push_back(piece.id);
      continue;
    }
    PB_TRY(AppendWords(
        {text.text.substr(piece.begin, piece.end - piece.begin), text.at_start && piece.begin == 0}, ids));
  }
  return {};
}

Result<std::vector<int32_t>> JsonTokenizer::Encode(std::string_view text,
                                                   const TokenizeOptions& options) const {
  if (text.size() > kMaxText)
    return MakeError(Code::kUnsupported, "the text has {} bytes; {} are the most that is tokenised at once",
                     text.size(), kMaxText);
  if (const size_t at = FirstInvalidUtf8(text); at < text.size())
    return MakeError(Code::kMalformed,
                     "byte {} of the text is no UTF-8, which tokenizer.json files read alone", at);
  std::vector<int32_t> ids;
  for (const AddedTokens::Piece& piece : added_.Find(text, false, options.parse_special)) {
    if (piece.id >= 0)
      ids.push_back(piece.id);
    else
      PB_TRY(AppendRest({std::string(text.substr(piece.begin, piece.end - piece.begin)), piece.begin == 0},
                        options, &ids));
  }
  std::vector<int32_t> out;
  for (int32_t part : template_.parts) {
    if (part < 0)
      out.insert(out.end(), ids.begin(), ids.end());
    else if (options.add_special)
      out.push_back(part);
  }
  return out;
}

Result<std::string> JsonTokenizer::Decode(std::span<const int32_t> ids, bool special) const {
  std::vector<std::string> tokens;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || static_cast<size_t>(ids[i]) >= data_.tokens.size())
      return MakeError(Code::kUsage, "token {} at position {} is not in the vocabulary of {} tokens", ids[i],
                       i, data_.tokens.size());
    if (!special && added_.IsSpecial(ids[i])) continue;
    tokens.push_back(data_.tokens[static_cast<size_t>(ids[i])]);
  }
  if (tokens.empty()) return std::string();
  return decoder_.Decode(std::move(tokens));
}

}  // namespace

Result<std::unique_ptr<const Tokenizer>> CreateJsonTokenizer(std::string_view text) {
  PB_ASSIGN(const nlohmann::json json, ParseJson(text));
  const JsonField root(&json, "");
  if (!json.is_object()) return MakeError(Code::kMalformed, "it is no object");
  if (const JsonField version = root["version"]; !version.none()) {
    PB_ASSIGN(const std::string known, version.Text());
    if (known != "1.0") return version.Refuse(fmt::format("version {:.32}", known));
  }
  PB_ASSIGN(JsonNormalizer normalizer, JsonNormalizer::Create(root["normalizer"]));
  PB_ASSIGN(JsonPreTokenizer pre, JsonPreTokenizer::Create(root["pre_tokenizer"]));
  PB_ASSIGN(auto model, JsonModel::Create(root["model"]));
  PB_ASSIGN(JsonDecoder decoder, JsonDecoder::Create(root["decoder"]));
  auto made = std::make_unique<JsonTokenizer>(std::move(normalizer), std::move(pre), std::move(model),
                                              std::move(decoder));
  PB_TRY(made->ReadRest(root));
  return std::unique_ptr<const Tokenizer>(std::move(made));
}

Result<std::unique_ptr<const Tokenizer>> LoadJsonTokenizer(const std::filesystem::path& path) {
  PB_ASSIGN(const std::string text, ReadFile(path, kMaxFileBytes));
  auto made = CreateJsonTokenizer(text);
  if (!made.ok()) return std::move(made).error().In(path.string());
  return made;
}

}  // namespace pb
