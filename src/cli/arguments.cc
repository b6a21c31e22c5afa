#include "cli/arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <iterator>

#include "base/file.h"
#include "setup/setup.h"
#include "tokenizer/unicode_classes.h"
#include "tokenizer/utf8.h"

namespace pb::cli {
namespace {

constexpr uint64_t kMaxPromptBytes = 64ull << 20;

// nullptr when unset or empty.
const char* Variable(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? value : nullptr;
}

Result<std::string> ReadInput(const std::string& path) {
  if (path != "-") return ReadFile(path, kMaxPromptBytes);
  std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  if (std::cin.bad()) return MakeError(Code::kIo, "stdin: cannot be read");
  return text;
}

std::string InputName(const std::string& path) { return path == "-" ? "stdin" : path; }

// Bytes that are no UTF-8 are a matter of the tokenisers, which must agree on them; code points that do not exist are of none.
Status CheckText(const run::PromptSpec& prompt) {
  for (size_t at = 0; at < prompt.text.size();) {
    const CodePoint c = ReadCodePoint(std::string_view(prompt.text).substr(at));
    if (c.value >= kCodePointLimit)
      return MakeError(Code::kUsage,
                       "the prompt ({}), byte {}: a sequence for U+{:X}, beyond Unicode's last code point "
                       "(U+10FFFF), which no tokeniser takes",
                       prompt.origin, at, c.value);
    at += std::max<size_t>(c.bytes, 1);
  }
  return {};
}

}  // namespace

void AddModelArguments(CLI::App& app, ModelArguments& args) {
  app.add_option("-m,--model", args.model,
                 "model file (GGUF), or the name of a model that is set up (smollm2); else $CROSSVAL_GGUF")
      ->group("Model");
  app.add_option("--hf-config", args.hf_config,
                 "config.json of the model; else the one beside the model file, if any")
      ->group("Model");
}

Result<run::Choice> ChooseModel(const ModelArguments& args) {
  run::Choice choice{"model", args.model, "flag --model"};
  if (choice.value.empty()) {
    const char* variable = Variable("CROSSVAL_GGUF");
    if (!variable) return MakeError(Code::kUsage, "no model: name one with --model or in CROSSVAL_GGUF");
    choice = {"model", variable, "variable CROSSVAL_GGUF"};
  }
  std::error_code ignored;
  auto known = setup::KnownModels();
  if (std::filesystem::exists(choice.value, ignored) ||
      std::find(known.begin(), known.end(), choice.value) == known.end())
    return choice;
  PB_ASSIGN(std::filesystem::path path, setup::FindModel(choice.value));
  choice.value = path.string();
  return choice;
}

void AddEngineArguments(CLI::App& app, EngineArguments& args) {
  app.add_option("-c,--candidate", args.candidate, "engine under test: NAME|PATH[,key=value...]")
      ->capture_default_str()
      ->group("Engines");
  app.add_option("-r,--reference", args.reference,
                 "engine to agree with: NAME|PATH[,key=value...] (default llama.cpp)")
      ->group("Engines");
  app.add_option("--set-reference", args.set_reference, "a setting of the reference: key=value")
      ->allow_extra_args(false)
      ->group("Engines");
  AddSettingArguments(app, args);
}

void AddSettingArguments(CLI::App& app, EngineArguments& args) {
  app.add_option("--set", args.set,
                 "a setting of the candidate: key=value (ffn.activation act.quant kv.type ...)")
      ->allow_extra_args(false)
      ->group("Engines");
  app.add_option("-t,--threads", args.threads, "threads of each engine (default 1)")
      ->check(CLI::Range(1, 1024))
      ->group("Engines");
  app.add_option("--timeout", args.timeout_seconds,
                 "seconds an engine may go without progress; else $CROSSVAL_TIMEOUT_SECS, else 180")
      ->check(CLI::PositiveNumber)
      ->group("Engines");
  app.add_option("--memory", args.memory_mib, "MiB of address space each engine may have (default: no limit)")
      ->check(CLI::PositiveNumber)
      ->group("Engines");
}

void AddPrecisionArguments(CLI::App& app, PrecisionArguments& args) {
  app.add_flag("--strict-precision", args.strict,
               "a product that one engine rounds differently has diverged")
      ->group("Limits");
  app.add_option("--accept-precision", args.accepted,
                 "products of this weight type may be rounded so: TYPE=SCHEME, as TQ2_0=none")
      ->allow_extra_args(false)
      ->group("Limits");
}

Result<compare::PrecisionPolicy> PolicyOf(const PrecisionArguments& args) {
  compare::PrecisionPolicy policy;
  policy.strict = args.strict;
  for (const std::string& text : args.accepted) {
    PB_ASSIGN(auto pair, run::ParseSetting(text, "--accept-precision"));
    // The language of act.quant knows the names.
    auto parsed = ActQuant::Parse(fmt::format("ggml+{}:{}", pair.first, pair.second));
    if (!parsed.ok() || parsed->exceptions.size() != 1)
      return MakeError(Code::kUsage,
                       "--accept-precision {}: a weight type and a scheme are expected, as TQ2_0=none; schemes "
                       "are none f16 bf16 q8_0 q8_1 q8_k bitnet",
                       text);
    policy.accepted.emplace_back(parsed->exceptions[0].weight, parsed->exceptions[0].scheme);
  }
  if (policy.strict && !policy.accepted.empty())
    return MakeError(Code::kUsage, "--strict-precision accepts no difference, --accept-precision one: say which");
  return policy;
}

Result<host::Settings> ParseSettings(const std::vector<std::string>& texts, std::string_view flag) {
  host::Settings settings;
  for (const std::string& text : texts) {
    PB_ASSIGN(auto setting, run::ParseSetting(text, flag));
    run::PutSetting(settings, std::move(setting.first), std::move(setting.second));
  }
  return settings;
}

Result<run::EngineSpec> ResolveEngine(const std::string& text, const host::Settings& settings) {
  PB_ASSIGN(run::EngineName engine, run::ParseEngineName(text));
  run::EngineSpec spec;
  spec.text = text;
  std::filesystem::path bundled = ExecutableDir().parent_path() / "lib" / "paritybit" / (engine.name + ".so");
  std::error_code ignored;
  if (engine.name.find('/') != std::string::npos || engine.name.ends_with(".so")) {
    spec.plugin = std::filesystem::absolute(engine.name, ignored);
    if (!std::filesystem::is_regular_file(spec.plugin, ignored))
      return MakeError(Code::kNotFound, "{}: no such engine plugin", engine.name);
  } else if (std::filesystem::is_regular_file(bundled, ignored)) {
    spec.plugin = bundled;
  } else {
    PB_ASSIGN(setup::Reference reference, setup::FindReference(engine.name));
    spec.plugin = reference.plugin;
    spec.settings = reference.settings;
  }
  for (const auto& [key, value] : engine.settings) run::PutSetting(spec.settings, key, value);
  for (const auto& [key, value] : settings) run::PutSetting(spec.settings, key, value);
  return spec;
}

Result<host::Limits> ChooseLimits(const EngineArguments& args, std::vector<run::Choice>& choices) {
  host::Limits limits;
  run::Choice choice{"timeout_seconds", "", "default"};
  if (args.timeout_seconds) {
    limits.progress_seconds = *args.timeout_seconds;
    choice.origin = "flag --timeout";
  } else if (const char* variable = Variable("CROSSVAL_TIMEOUT_SECS")) {
    char* end = nullptr;
    limits.progress_seconds = std::strtod(variable, &end);
    if (*end != '\0' || !(limits.progress_seconds > 0))
      return MakeError(Code::kUsage, "CROSSVAL_TIMEOUT_SECS: `{}` is not a number of seconds", variable);
    choice.origin = "variable CROSSVAL_TIMEOUT_SECS";
  }
  choice.value = fmt::format("{}", limits.progress_seconds);
  choices.push_back(choice);
  if (args.memory_mib) {
    limits.memory_bytes = *args.memory_mib << 20;
    choices.push_back({"memory_mib", std::to_string(*args.memory_mib), "flag --memory"});
  }
  return limits;
}

int ChooseThreads(const EngineArguments& args, std::vector<run::Choice>& choices) {
  int threads = args.threads.value_or(1);
  const char* deterministic = Variable("BITNET_DETERMINISTIC");
  const char* origin = args.threads    ? "flag --threads"
                       : deterministic ? "variable BITNET_DETERMINISTIC"
                                       : "default";
  choices.push_back({"threads", std::to_string(threads), origin});
  return threads;
}

void AddPromptArguments(CLI::App& app, PromptArguments& args) {
  app.add_option("-p,--prompt", args.prompts, "a prompt; may be repeated")
      ->allow_extra_args(false)
      ->group("Prompts");
  app.add_option("--prompt-file", args.prompt_files,
                 "a file that is one prompt, line ends and all; - is stdin")
      ->allow_extra_args(false)
      ->group("Prompts");
  app.add_option("--prompts", args.prompt_lists, "a file with one prompt on each line; - is stdin")
      ->allow_extra_args(false)
      ->group("Prompts");
}

Result<std::vector<run::PromptSpec>> ReadPrompts(const PromptArguments& args) {
  if (args.empty())
    return MakeError(Code::kUsage, "no prompt: give one with --prompt, --prompt-file or --prompts");
  std::vector<run::PromptSpec> prompts;
  for (const std::string& text : args.prompts) prompts.push_back({text, "--prompt"});
  for (const std::string& path : args.prompt_files) {
    PB_ASSIGN(std::string text, ReadInput(path));
    prompts.push_back({std::move(text), InputName(path)});
  }
  for (const std::string& path : args.prompt_lists) {
    PB_ASSIGN(std::string text, ReadInput(path));
    int line = 0;
    for (size_t begin = 0; begin < text.size(); ++line) {
      size_t end = std::min(text.find('\n', begin), text.size());
      std::string prompt = text.substr(begin, end - begin);
      if (prompt.ends_with('\r')) prompt.pop_back();
      prompts.push_back({std::move(prompt), fmt::format("{}:{}", InputName(path), line + 1)});
      begin = end + 1;
    }
  }
  for (const run::PromptSpec& prompt : prompts) PB_TRY(CheckText(prompt));
  return prompts;
}

Result<std::string> ReadOnePrompt(const PromptArguments& args, std::string_view command) {
  PB_ASSIGN(auto prompts, ReadPrompts(args));
  if (prompts.size() != 1 || prompts[0].text.empty())
    return MakeError(Code::kUsage, "{} takes one prompt that is not empty; {} given", command,
                     prompts.size() == 1 ? "an empty one was" : fmt::format("{} were", prompts.size()));
  return std::move(prompts[0].text);
}

Result<OneEngine> ChooseOneEngine(const ModelArguments& model, const EngineArguments& engines,
                                  const std::string& engine, std::vector<run::Choice>& choices) {
  OneEngine one;
  PB_ASSIGN(run::Choice path, ChooseModel(model));
  one.model = path.value;
  choices.push_back(std::move(path));
  PB_ASSIGN(one.limits, ChooseLimits(engines, choices));
  PB_ASSIGN(host::Settings settings, ParseSettings(engines.set, "--set"));
  one.threads = std::to_string(ChooseThreads(engines, choices));
  if (!model.hf_config.empty()) run::PutSetting(settings, "hf.config", model.hf_config);
  PB_ASSIGN(one.spec, ResolveEngine(engine, settings));
  return one;
}

std::string ShellQuote(std::string_view text) {
  bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_-./=,:+@%").find(c) != std::string_view::npos;
  });
  if (plain) return std::string(text);
  std::string quoted = "'";
  for (char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace pb::cli
