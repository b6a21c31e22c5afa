// paritybit tokenizer: LLaMA 3's tokenizer.json from a hub.
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json_text.h"
#include "cli/command.h"
#include "cli/download.h"
#include "cli/variables.h"

namespace pb::cli {
namespace {

struct TokenizerDownload {
  HubArguments hub;
  std::string into = "models", source = "mirror";
};

constexpr uint64_t kMaxTokenizerBytes = 256 << 20;
// LLaMA 3 has 128000 tokens and 256 special ones; some files leave reserved ones out.
constexpr size_t kLeastTokens = 128000, kMostTokens = 128256;

Status CheckTokenizer(const std::filesystem::path& path) {
  PB_ASSIGN(const std::string text, ReadFile(path, kMaxTokenizerBytes));
  auto json = ParseJson(text);
  Error error{Code::kMalformed, ""};
  if (!json.ok()) {
    error.message = json.error().message;
  } else if (const auto model = json->find("model");
             !json->is_object() || model == json->end() || !model->is_object() || !model->contains("vocab")) {
    error.message = "it has no model.vocab";
  } else {
    const auto added = json->find("added_tokens");
    const size_t n =
        (*model)["vocab"].size() + (added != json->end() && added->is_array() ? added->size() : 0);
    if (n >= kLeastTokens && n <= kMostTokens) return {};
    error.message = fmt::format("it has {} tokens, LLaMA 3 has {}", n, kMostTokens);
  }
  return std::move(error).In("what arrived is not LLaMA 3's tokenizer.json, and is not used");
}

int Tokenizer(const TokenizerDownload& args) {
  const bool official = args.source == "official";
  if (official && !VariableValue("HF_TOKEN"))
    return Fail(args.hub.output,
                MakeError(Code::kUsage,
                          "--source official needs HF_TOKEN, of an account that has accepted Meta's "
                          "terms; --source mirror does not"));
  const HubFile file{official ? "meta-llama/Meta-Llama-3-8B" : "baseten/Meta-Llama-3-tokenizer",
                     "tokenizer.json", std::filesystem::path(args.into) / "tokenizer.json"};
  return FetchFromHub(args.hub, {file}, CheckTokenizer, "");
}

}  // namespace

Action DeclareTokenizer(Flags& flags) {
  auto args = std::make_shared<TokenizerDownload>();
  flags.Option("--into", args->into, "folder").ShowDefault().Group("What");
  flags.Option("--source", args->source, "mirror: without a token; official: Meta's own")
      .OneOf({"mirror", "official"})
      .ShowDefault()
      .Group("What");
  AddHubArguments(flags, args->hub);
  return [args] { return Tokenizer(*args); };
}

}  // namespace pb::cli
