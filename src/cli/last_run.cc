#include "cli/last_run.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"

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

bool SaysWhat(const CrossvalArguments& args) {
  return !args.model.model.empty() || !args.prompts.empty() || !args.engines.reference.empty() ||
         !args.engines.set.empty() || args.engines.candidate != "native";
}

}  // namespace

void RememberRun(const CrossvalArguments& args, const run::Comparison& comparison) {
  Json prompts = Json::array();
  for (const run::PromptRecord& prompt : comparison.prompts) prompts.push_back(prompt.text);
  Json entry{{"schema", kSchema},
             {"model", Absolute(comparison.candidate.model_path.string())},
             {"reference_model", Absolute(args.reference_model)},
             {"hf_config", Absolute(args.model.hf_config)},
             {"candidate", AbsoluteEngine(args.engines.candidate)},
             {"reference", AbsoluteEngine(args.engines.reference)},
             {"set", args.engines.set},
             {"set_reference", args.engines.set_reference},
             {"strict_precision", args.precision.strict},
             {"accept_precision", args.precision.accepted},
             {"threads", args.engines.threads.value_or(0)},
             {"max_tokens", args.max_tokens},
             {"prompts", prompts}};
  std::error_code ignored;
  std::filesystem::create_directories(CacheDir(), ignored);
  (void)WriteFileAtomic(EntryPath(), entry.dump(1, ' ', false, Json::error_handler_t::replace)).ok();
}

Result<CrossvalArguments> LastRun() {
  auto text = ReadFile(EntryPath(), kMaxBytes);
  if (!text) {
    return MakeError(
        Code::kNotFound,
        "no comparison has diverged here yet, so there is nothing to diagnose: say what to compare with "
        "--model, --reference and --prompt");
  }
  try {
    const Json entry = Json::parse(*text);
    if (entry.at("schema") != kSchema)
      return MakeError(Code::kMalformed, "{}: another schema", EntryPath().string());
    CrossvalArguments args;
    entry.at("model").get_to(args.model.model);
    entry.at("hf_config").get_to(args.model.hf_config);
    entry.at("reference_model").get_to(args.reference_model);
    entry.at("candidate").get_to(args.engines.candidate);
    entry.at("reference").get_to(args.engines.reference);
    entry.at("set").get_to(args.engines.set);
    entry.at("set_reference").get_to(args.engines.set_reference);
    entry.at("strict_precision").get_to(args.precision.strict);
    entry.at("accept_precision").get_to(args.precision.accepted);
    if (const int threads = entry.at("threads").get<int>(); threads > 0) args.engines.threads = threads;
    entry.at("max_tokens").get_to(args.max_tokens);
    entry.at("prompts").get_to(args.prompts.prompts);
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
