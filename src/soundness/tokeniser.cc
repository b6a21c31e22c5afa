// The tokeniser: its keys, its tables, the vocabulary against the embedding's rows, and another
// tokeniser file that it should be equal to.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json_text.h"
#include "base/text.h"
#include "soundness/parts.h"
#include "tokenizer/gguf_keys.h"

namespace pb::soundness {
namespace {

constexpr uint64_t kMaxTokenizerBytes = 256ull << 20;
constexpr const char* kModelKey = "tokenizer.ggml.model";

void CheckRows(Context& context, size_t n_tokens) {
  const GgufTensor* embedding = context.subject.FindTensor("token_embd.weight");
  for (const GgufTensor* t : {embedding, context.subject.FindTensor("output.weight")}) {
    if (!t || t->shape.size() != 2 || t->shape[1] == n_tokens) continue;
    context.findings.Add(
        "vocabulary-rows", t->name,
        fmt::format("it has {} rows, tokenizer.ggml.tokens has {} tokens", t->shape[1], n_tokens));
  }
}

// GPT-2's printable characters of the 256 bytes, or SentencePiece's <0x0A>.
std::string NameOfByte(int byte, bool sentence_piece) {
  if (sentence_piece) return fmt::format("<0x{:02X}>", byte);
  const auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  int code_point = byte;
  if (!printable(byte)) {
    code_point = 256;
    for (int b = 0; b < byte; ++b) code_point += !printable(b);
  }
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xC0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3F))};
}

void CheckBytes(Context& context, const TokenizerData& data) {
  if (data.model == "bert" || data.model == "t5") return;  // have a token for what is unknown
  const std::set<std::string_view> tokens(data.tokens.begin(), data.tokens.end());
  int missing = 0, first = -1;
  for (int byte = 0; byte < 256; ++byte) {
    if (tokens.count(NameOfByte(byte, data.model != "gpt2"))) continue;
    if (missing++ == 0) first = byte;
  }
  if (missing > 0)
    context.findings.Add("bytes-missing", "tokenizer.ggml.tokens",
                         fmt::format("{} of 256 bytes have no token, the first is 0x{:02x}", missing, first));
}

// Tokens by id, and where the tables stand.
struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<std::string> merges;  // "a b"
};

Result<Vocabulary> FromGguf(const std::filesystem::path& path) {
  PB_ASSIGN(const GgufFile file, GgufFile::Open(path));
  auto data = ReadTokenizerData(file);
  if (!data.ok()) return std::move(data).error().In(path.string());
  return Vocabulary{std::move(data->tokens), std::move(data->merges)};
}

Status Put(const nlohmann::json& id, const std::string& token, Vocabulary* vocabulary) {
  constexpr uint64_t kMaxTokens = 1 << 24;
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= kMaxTokens)
    return MakeError(Code::kMalformed, "the id of token \"{:.60}\" is no number below {}", token, kMaxTokens);
  const auto at = id.get<size_t>();
  if (vocabulary->tokens.size() <= at) vocabulary->tokens.resize(at + 1);
  vocabulary->tokens[at] = token;
  return {};
}

Status ReadMerges(const nlohmann::json& merges, Vocabulary* vocabulary) {
  for (const auto& merge : merges) {
    if (merge.is_string())
      vocabulary->merges.push_back(merge.get<std::string>());
    else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
      vocabulary->merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    else
      return MakeError(Code::kMalformed, "model.merges[{}] is no pair", vocabulary->merges.size());
  }
  return {};
}

// A tokenizer.json of Hugging Face's library.
Result<Vocabulary> FromJson(const std::filesystem::path& path) {
  const auto read = [&]() -> Result<Vocabulary> {
    PB_ASSIGN(const std::string text, ReadFile(path, kMaxTokenizerBytes));
    PB_ASSIGN(const nlohmann::json json, ParseJson(text));
    const auto model = json.find("model");
    if (!json.is_object() || model == json.end() || !model->is_object() || !model->contains("vocab"))
      return MakeError(Code::kMalformed, "there is no model.vocab in it");
    Vocabulary vocabulary;
    const auto& table = (*model)["vocab"];
    if (table.is_object()) {
      for (const auto& [token, id] : table.items()) PB_TRY(Put(id, token, &vocabulary));
    } else {
      return MakeError(Code::kUnsupported, "model.vocab is no object (Unigram is not read)");
    }
    if (const auto added = json.find("added_tokens"); added != json.end() && added->is_array())
      for (const auto& token : *added)
        if (token.is_object() && token.contains("id") && token.contains("content") &&
            token["content"].is_string())
          PB_TRY(Put(token["id"], token["content"].get<std::string>(), &vocabulary));
    if (const auto merges = model->find("merges"); merges != model->end() && merges->is_array())
      PB_TRY(ReadMerges(*merges, &vocabulary));
    return vocabulary;
  };
  auto vocabulary = read();
  if (!vocabulary.ok() && vocabulary.error().code == Code::kMalformed)
    return std::move(vocabulary).error().In(path.string());
  return vocabulary;
}

bool IsPadding(std::string_view token) {
  return token.starts_with("[PAD") || token.starts_with("<|reserved") || token.starts_with("<unused");
}

}  // namespace

Part ExamineTokenizer(Context& context) {
  const GgufFile& file = context.subject.main();
  if (const auto* tokens = file.Strings("tokenizer.ggml.tokens")) CheckRows(context, tokens->size());
  if (!file.Find(kModelKey)) {
    context.findings.Add("tokenizer-missing", kModelKey, "the key is missing");
    return {"tokeniser", "none", true};
  }
  auto data = ReadTokenizerData(file);
  const auto foreign = [](const Error& error) { return error.code == Code::kUnsupported; };
  if (!data.ok()) {
    context.findings.Add(foreign(data.error()) ? "tokenizer-foreign" : "tokenizer-broken", kModelKey,
                         data.error().message);
    return {"tokeniser", "its tables are not read", true};
  }
  Part part{"tokeniser",
            fmt::format("{}, {}; {} tokens, {} merges", data->model, data->pre.empty() ? "?" : data->pre,
                        data->tokens.size(), data->merges.size()),
            true};
  if (data->pre.empty() && data->model == "gpt2")
    context.findings.Add("tokenizer-pre-missing", "tokenizer.ggml.pre", "the key is missing");
  CheckBytes(context, *data);
  auto tokenizer = Tokenizer::Create(std::move(data).value());
  if (!tokenizer.ok())
    context.findings.Add(foreign(tokenizer.error()) ? "tokenizer-foreign" : "tokenizer-broken", kModelKey,
                         tokenizer.error().message);
  else
    for (const std::string& finding : (*tokenizer)->findings())
      if (finding.find("tokenizer.ggml.pre ") == std::string::npos)
        context.findings.Add("tokenizer-open", kModelKey, finding);
  return part;
}

Part CompareTokenizer(Context& context) {
  Part part{"tokeniser file", "not asked for (--tokenizer FILE)", false};
  if (!context.request.tokenizer) return part;
  const std::filesystem::path& path = *context.request.tokenizer;
  auto given = path.extension() == ".json" ? FromJson(path) : FromGguf(path);
  const auto* tokens = context.subject.main().Strings("tokenizer.ggml.tokens");
  const auto* merges = context.subject.main().Strings("tokenizer.ggml.merges");
  if (!given.ok()) {
    context.findings.Add("tokenizer-differs", path.string(), given.error().message,
                         "Give a tokenizer.json, or a GGUF file that has the tokeniser.");
    part.text = "cannot be read";
    return part;
  }
  part.done = true;
  part.text =
      fmt::format("{}: {} tokens, {} merges", path.string(), given->tokens.size(), given->merges.size());
  if (!tokens) return part;
  size_t n_other = 0, first = 0;
  const size_t n = std::max(tokens->size(), given->tokens.size());
  const auto at = [](const std::vector<std::string>& all, size_t i) { return i < all.size() ? all[i] : ""; };
  for (size_t i = 0; i < n; ++i) {
    const std::string here = at(*tokens, i), there = at(given->tokens, i);
    // Converters fill up what the vocabulary lacks against the embedding's rows.
    if (here == there || (there.empty() && IsPadding(here))) continue;
    if (n_other++ == 0) first = i;
  }
  if (n_other > 0)
    context.findings.Add(
        "tokenizer-differs", path.string(),
        fmt::format("{} of {} tokens differ, the first is {}: \"{:.60}\" here, \"{:.60}\" there", n_other, n,
                    first, at(*tokens, first), at(given->tokens, first)));
  if (merges && !given->merges.empty() && *merges != given->merges) {
    const size_t i = static_cast<size_t>(
        std::mismatch(merges->begin(), merges->end(), given->merges.begin(), given->merges.end()).first -
        merges->begin());
    context.findings.Add("tokenizer-differs", path.string(),
                         fmt::format("merges differ, the first at {}: \"{:.60}\" here, \"{:.60}\" there", i,
                                     at(*merges, i), at(given->merges, i)));
  }
  return part;
}

}  // namespace pb::soundness
