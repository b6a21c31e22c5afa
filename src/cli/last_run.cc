// The run that diverged last, kept so that `diagnose` and `repro` can be called without arguments.
#include "cli/last_run.h"

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/kept.h"
#include "base/text.h"

namespace pb::cli {
namespace {

using Json = nlohmann::json;
constexpr const char* kSchema = "paritybit.last-run/0";
constexpr size_t kMaxBytes = 16 << 20;

std::filesystem::path EntryPath() { return CacheDir() / "last-diverged.json"; }

std::string Absolute(const std::string& path) {
  std::error_code error;
  if (path.empty()) return path;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.string();
}

// An engine named by a path works from any folder.
std::string AbsoluteEngine(const std::string& spec) {
  const size_t comma = std::min(spec.find(','), spec.size());
  const std::string name = spec.substr(0, comma);
  return name.find('/') == std::string::npos ? spec : Absolute(name) + spec.substr(comma);
}

// Text; bytes that are no UTF-8, which JSON cannot hold, as a list of their numbers.
Json Kept(const std::string& text) {
  return EscapeInvalid(text) == text ? Json(text) : Json(std::vector<uint8_t>(text.begin(), text.end()));
}

Json Kept(const std::vector<std::string>& texts) {
  Json list = Json::array();
  for (const std::string& text : texts) list.push_back(Kept(text));
  return list;
}

void Restore(const Json& kept, std::string* text) {
  if (kept.is_string()) {
    kept.get_to(*text);
  } else {
    const auto bytes = kept.get<std::vector<uint8_t>>();
    text->assign(bytes.begin(), bytes.end());
  }
}

void Restore(const Json& kept, std::vector<std::string>* texts) {
  for (const Json& item : kept) Restore(item, &texts->emplace_back());
}

bool SaysWhat(const CrossvalArguments& args) {
  return !args.model.model.empty() || !args.prompts.empty() || !args.engines.reference.empty() ||
         !args.engines.set.empty() || args.engines.candidate != "native";
}

}  // namespace

void RememberRun(const CrossvalArguments& args, const run::Comparison& comparison) {
  std::vector<std::string> prompts;
  for (const run::PromptRecord& prompt : comparison.prompts) prompts.push_back(prompt.text);
  Json entry{{"schema", kSchema},
             {"model", Kept(Absolute(comparison.candidate.model_path.string()))},
             {"reference_model", Kept(Absolute(args.reference_model))},
             {"hf_config", Kept(Absolute(args.model.hf_config))},
             {"candidate", Kept(AbsoluteEngine(args.engines.candidate))},
             {"reference", Kept(AbsoluteEngine(args.engines.reference))},
             {"set", Kept(args.engines.set)},
             {"set_reference", Kept(args.engines.set_reference)},
             {"threads", args.engines.threads.value_or(0)},
             {"max_tokens", args.max_tokens},
             {"prompts", Kept(prompts)}};
  WriteCacheEntry(EntryPath(), entry);
}

Result<CrossvalArguments> LastRun() {
  auto kept = ReadSealed(EntryPath(), kMaxBytes);
  if (!kept.ok() && kept.error().code == Code::kNotFound) {
    return MakeError(
        Code::kNotFound,
        "no comparison has diverged here yet, so there is nothing to diagnose: say what to compare with "
        "--model, --reference and --prompt");
  }
  if (!kept.ok())
    return MakeError(kept.error().code, "{}; the next crossval that diverges writes it anew",
                     kept.error().message);
  try {
    const Json& entry = *kept;
    if (entry.at("schema") != kSchema)
      return MakeError(Code::kMalformed, "{}: another schema", EntryPath().string());
    CrossvalArguments args;
    Restore(entry.at("model"), &args.model.model);
    Restore(entry.at("hf_config"), &args.model.hf_config);
    Restore(entry.at("reference_model"), &args.reference_model);
    Restore(entry.at("candidate"), &args.engines.candidate);
    Restore(entry.at("reference"), &args.engines.reference);
    Restore(entry.at("set"), &args.engines.set);
    Restore(entry.at("set_reference"), &args.engines.set_reference);
    if (const int threads = entry.at("threads").get<int>(); threads > 0) args.engines.threads = threads;
    entry.at("max_tokens").get_to(args.max_tokens);
    Restore(entry.at("prompts"), &args.prompts.prompts);
    return args;
  } catch (const Json::exception& error) {
    return MakeError(Code::kMalformed, "{}: {}; the next crossval that diverges writes it anew",
                     EntryPath().string(), error.what());
  }
}

Status UseLastRunIfNoneIsSaid(CrossvalArguments* args, std::vector<std::string>* notes) {
  if (SaysWhat(*args)) return {};
  const OutputArguments output = args->output;
  PB_ASSIGN(*args, LastRun());
  args->output = output;
  notes->push_back("the last run that diverged: " + CommandLine(*args, "crossval", ""));
  return {};
}

}  // namespace pb::cli
