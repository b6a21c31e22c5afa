// Tells a tokenizer.json from a GGUF file by its first bytes, and whose token ids a run has.
#include "cli/tokenizer_file.h"

#include <filesystem>
#include <fstream>

#include "cli/command.h"
#include "formats/gguf.h"
#include "tokenizer/gguf_keys.h"
#include "tokenizer/json_tokenizer.h"

namespace pb::cli {
namespace {

// The tables of a tokeniser compare equal value by value.
bool SameTokenizer(const GgufFile& a, const GgufFile& b) {
  auto covers = [](const GgufFile& x, const GgufFile& y) {
    for (const auto& [key, value] : x.metadata()) {
      if (!key.starts_with("tokenizer.")) continue;
      const GgufValue* other = y.Find(key);
      if (!other || other->value != value.value) return false;
    }
    return true;
  };
  return covers(a, b) && covers(b, a);
}

Status CheckTokenizer(const std::string& tokenizer, const std::string& model) {
  std::error_code ignored;
  if (std::filesystem::equivalent(tokenizer, model, ignored)) return {};
  auto apart = GgufFile::Open(tokenizer);
  if (!apart && apart.error().code == Code::kMalformed)
    return MakeError(Code::kUnsupported,
                     "--tokenizer {}: unsupported: neither a tokenizer.json nor a GGUF file with the model's "
                     "own tokeniser",
                     tokenizer);
  if (!apart) return std::move(apart).error();
  PB_ASSIGN(GgufFile own, GgufFile::Open(model));
  if (SameTokenizer(*apart, own)) return {};
  return MakeError(Code::kUnsupported, "--tokenizer {}: unsupported: its tokeniser is not the one in {}",
                   tokenizer, model);
}

bool LooksLikeJson(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char c = ' ';
  while (file.get(c) && (c == ' ' || (c >= '\t' && c <= '\r'))) {
  }
  return c == '{';
}

}  // namespace

void AddTokenizerArgument(Flags& flags, ModelArguments& args) {
  flags
      .Option("--tokenizer", args.tokenizer,
              "tokenizer.json that reads the text in the engines' place, or the model file itself")
      .Group("Model");
}

Result<std::vector<int32_t>> ReadText(const ChosenTokenizer& tokenizer, drive::Participant& engine,
                                      const std::string& text) {
  if (!tokenizer.file) return engine.Tokenize(text);
  PB_ASSIGN(std::vector<int32_t> ids, tokenizer.file->Encode(text, {}));
  const int64_t n_vocab = engine.record().model_facts().shape.n_vocab;
  for (int32_t id : ids)
    if (n_vocab > 0 && id >= n_vocab)
      return MakeError(Code::kUsage,
                       "--tokenizer: token {} is beyond the model's vocabulary of {}: it is another model's",
                       id, n_vocab);
  return ids;
}

Result<ChosenTokenizer> ChooseTokenizer(const ModelArguments& args, const std::string& model) {
  ChosenTokenizer chosen;
  if (!args.tokenizer.empty() && LooksLikeJson(args.tokenizer)) {
    auto loaded = LoadJsonTokenizer(args.tokenizer);
    if (!loaded.ok()) return std::move(loaded).error().In("--tokenizer");
    chosen.file = std::move(loaded).value();
    chosen.notes.push_back(
        fmt::format("token ids are those of {}, not of the engines' tokenisers", args.tokenizer));
    for (const std::string& finding : chosen.file->findings()) chosen.notes.push_back(finding);
    return chosen;
  }
  if (!args.tokenizer.empty()) PB_TRY(CheckTokenizer(args.tokenizer, model));
  const auto file = GgufFile::Open(model);
  if (!file.ok()) return chosen;  // which the engines will say
  const Status known = CheckTokenizerKnown(*file);
  if (!known.ok() && known.error().code == Code::kUnsupported)
    chosen.notes.push_back(
        fmt::format("token ids are the engines' own, and paritybit's tokeniser did not check them: {}",
                    known.error().message));
  return chosen;
}

}  // namespace pb::cli
