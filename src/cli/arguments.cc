// Declares the shared flags, and finds what they name: engines, models, prompts, limits.
#include "cli/arguments.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <set>
#include <span>

#include "base/file.h"
#include "base/processors.h"
#include "base/program.h"
#include "base/sha256.h"
#include "base/suggest.h"
#include "base/system_error.h"
#include "chat/prompt_template.h"
#include "cli/output.h"
#include "cli/variables.h"
#include "drive/participant.h"
#include "report/escape.h"
#include "setup/setup.h"
#include "tokenizer/unicode_classes.h"
#include "tokenizer/utf8.h"

namespace pb::cli {
namespace {

constexpr uint64_t kMaxPromptBytes = 64ull << 20;

// Of the process: empty until it is read, which is done once.
std::optional<std::string>& StdinText() {
  static std::optional<std::string> text;
  return text;
}

Result<std::string> ReadStdin() {
  if (StdinText()) return *StdinText();
  std::string text;
  char bytes[16384];
  for (;;) {
    const ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return MakeError(Code::kIo, "stdin: cannot be read: {}", ErrnoText(errno));
    if (n == 0) break;
    text.append(bytes, static_cast<size_t>(n));
    if (text.size() > kMaxPromptBytes)
      return MakeError(Code::kUsage, "stdin: more than the {} bytes that a prompt may have", kMaxPromptBytes);
  }
  StdinText() = text;
  return text;
}

Result<std::string> ReadInput(const std::string& path) {
  return path == "-" ? ReadStdin() : ReadFile(path, kMaxPromptBytes);
}

std::string InputName(const std::string& path) { return path == "-" ? "stdin" : path; }

// Bytes that are no UTF-8 are a matter of the tokenisers, which must agree on them; code points
// that do not exist are of none.
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

std::filesystem::path BundledModels() {
  return ExecutableDir().parent_path() / "share" / "paritybit" / "models";
}

std::filesystem::path PluginFolder() { return ExecutableDir().parent_path() / "lib" / "paritybit"; }

// Which there are, and how one that is not comes here.
Error NoSuchEngine(const std::string& name) {
  std::vector<std::string> bundled, known;
  for (const std::filesystem::path& plugin : BundledPlugins()) bundled.push_back(plugin.stem().string());
  const std::vector<std::string> references = setup::KnownReferences();
  known = bundled;
  known.insert(known.end(), references.begin(), references.end());
  return MakeError(Code::kUsage,
                   "no engine named \"{}\" is known{}\n"
                   "       they are:        {}\n"
                   "       by set-up:       {} ({} setup-cpp-auto)\n"
                   "       any other:       the path of its plugin, as ./libmine.so (docs/plugin_abi.md)",
                   name, DidYouMean(name, known), fmt::join(bundled, ", "), fmt::join(references, ", "),
                   ProgramName());
}

// A variable names another build than the one that is set up, and set-up alone reads it.
void TellOfOtherLocation(const setup::Reference& reference) {
  const std::vector<setup::Location> locations = LocationVariables();
  if (locations.empty() || reference.name != setup::KnownReferences().front()) return;
  const setup::Location& named = locations.front();
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::weakly_canonical(named.path, error);
  if (!error && (folder == reference.root || folder == reference.library_dir)) return;
  static bool told = false;
  if (std::exchange(told, true)) return;
  PrintError(
      fmt::format("note: {}={} is not what is set up, which is {} of {}; to take it: {} setup-cpp-auto\n",
                  named.variable, report::Escape(named.path.string()), reference.name,
                  report::Escape(reference.root.string()), ProgramName()));
}

}  // namespace

std::string KeepPromptText(std::string_view text) {
  std::error_code error;
  constexpr size_t kDigits = 16;
  const std::string digest = Sha256Hex(std::as_bytes(std::span(text.data(), text.size())));
  const std::filesystem::path path =
      std::filesystem::absolute(CacheDir() / "prompts" / (digest.substr(0, kDigits) + ".txt"), error);
  if (!error) std::filesystem::create_directories(path.parent_path(), error);
  return !error && WriteFileAtomic(path, text).ok() ? path.string() : std::string();
}

std::string StdinCopy() {
  static const std::string copy = StdinText() ? KeepPromptText(*StdinText()) : "";
  return copy.empty() ? "-" : copy;
}

void AddModelArguments(Flags& flags, ModelArguments& args) {
  flags
      .Option("-m,--model", args.model,
              "model file (GGUF), or the name of a model that is set up (smollm2) or comes with paritybit "
              "(tiny-bitnet-relu2); else $CROSSVAL_GGUF")
      .Group("Model");
  flags
      .Option("--hf-config", args.hf_config,
              "config.json of the model, or none; else the one beside the model file, if any")
      .Group("Model");
}

Result<run::Choice> ChooseModel(const ModelArguments& args) {
  run::Choice choice{"model", args.model, "flag --model"};
  if (choice.value.empty()) {
    const std::optional<run::Choice> variable = FirstVariable("model", kModelVariables);
    // Where download-model puts what it fetches by default, as the documented system looks there.
    constexpr const char* kFetched = "models/microsoft-bitnet-b1.58-2B-4T-gguf/ggml-model-i2_s.gguf";
    std::error_code ignored;
    if (variable)
      choice = *variable;
    else if (std::filesystem::is_regular_file(kFetched, ignored))
      choice = {"model", kFetched, "default"};
    else
      return MakeError(
          Code::kUsage,
          "no model: name one with --model or in CROSSVAL_GGUF; `paritybit download-model` fetches "
          "{}, which needs no name",
          kFetched);
  }
  PB_ASSIGN(choice.value, FindModelFile(choice.value));
  return choice;
}

Result<std::string> FindModelFile(const std::string& name) {
  std::error_code ignored;
  if (name.empty() || std::filesystem::exists(name, ignored)) return name;
  if (const std::filesystem::path bundled = BundledModels() / name / (name + "-tq2_0.gguf");
      std::filesystem::path(name).filename() == name && std::filesystem::exists(bundled, ignored))
    return bundled.string();
  std::vector<std::string> known = setup::KnownModels();
  if (std::find(known.begin(), known.end(), name) != known.end()) {
    PB_ASSIGN(std::filesystem::path path, setup::FindModel(name));
    return path.string();
  }
  for (const std::string& bundled : BundledModelNames()) known.push_back(bundled);
  return MakeError(Code::kNotFound, "{}: no such model file{}", name, DidYouMean(name, known));
}

void AddEngineArguments(Flags& flags, EngineArguments& args) {
  flags.Option("-c,--candidate", args.candidate, "engine under test: NAME|PATH[,key=value...]")
      .ShowDefault()
      .Group("Engines");
  flags
      .Option("-r,--reference", args.reference,
              "engine to agree with: NAME|PATH[,key=value...] (default llama.cpp)")
      .Group("Engines");
  flags.Option("--set-reference", args.set_reference, "a setting of the reference: key=value")
      .OneValue()
      .Group("Engines");
  AddSettingArguments(flags, args);
}

void AddSettingArguments(Flags& flags, EngineArguments& args) {
  flags
      .Option("--set", args.set,
              "a setting of the candidate: key=value (ffn.activation act.quant kv.type ...)")
      .OneValue()
      .Group("Engines");
  flags.Option("-t,--threads", args.threads, "threads of each engine (default 1)")
      .Range(1, 1024)
      .Group("Engines");
  flags
      .Option("--timeout", args.timeout_seconds,
              "seconds an engine may go without progress; else $CROSSVAL_TIMEOUT_SECS, else 180")
      .Positive()
      .Group("Engines");
  flags.Option("--memory", args.memory_mib, "MiB of address space each engine may have (default: no limit)")
      .Positive()
      .Group("Engines");
}

void AddPrecisionArguments(Flags& flags, PrecisionArguments& args) {
  flags.Switch("--strict-precision", args.strict, "a product that one engine rounds differently has diverged")
      .Group("Limits");
  flags
      .Option("--accept-precision", args.accepted,
              "products of this weight type may be rounded so: TYPE=SCHEME, as TQ2_0=none")
      .OneValue()
      .Group("Limits");
}

Result<compare::PrecisionPolicy> PolicyOf(const PrecisionArguments& args) {
  compare::PrecisionPolicy policy;
  policy.strict = args.strict;
  for (const std::string& text : args.accepted) {
    PB_ASSIGN(auto pair, drive::ParseSetting(text, "--accept-precision"));
    // The language of act.quant knows the names.
    auto parsed = ActQuant::Parse(fmt::format("ggml+{}:{}", pair.first, pair.second));
    if (!parsed.ok() || parsed->exceptions.size() != 1)
      return MakeError(
          Code::kUsage,
          "--accept-precision {}: a weight type and a scheme are expected, as TQ2_0=none; schemes "
          "are none f16 bf16 f16_sums q8_0 q8_1 q8_k bitnet",
          text);
    policy.accepted.emplace_back(parsed->exceptions[0].weight, parsed->exceptions[0].scheme);
  }
  if (policy.strict && !policy.accepted.empty())
    return MakeError(Code::kUsage,
                     "--strict-precision accepts no difference, --accept-precision one: say which");
  return policy;
}

Result<host::Settings> ParseSettings(const std::vector<std::string>& texts, std::string_view flag) {
  host::Settings settings;
  for (const std::string& text : texts) {
    PB_ASSIGN(auto setting, drive::ParseSetting(text, flag));
    drive::PutSetting(settings, std::move(setting.first), std::move(setting.second));
  }
  return settings;
}

std::vector<std::filesystem::path> BundledPlugins() {
  std::vector<std::filesystem::path> plugins;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(PluginFolder(), ignored))
    if (entry.path().extension() == ".so") plugins.push_back(entry.path());
  std::sort(plugins.begin(), plugins.end());
  return plugins;
}

std::vector<std::string> BundledModelNames() {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(BundledModels(), ignored))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

bool IsPluginFile(std::string_view engine) {
  const std::string_view name = engine.substr(0, engine.find(','));
  return name.find('/') != name.npos || name.ends_with(".so");
}

Result<drive::EngineSpec> ResolveEngine(const std::string& text, const host::Settings& settings) {
  PB_ASSIGN(drive::EngineName engine, drive::ParseEngineName(text));
  drive::EngineSpec spec;
  spec.text = text;
  const std::filesystem::path bundled = PluginFolder() / (engine.name + ".so");
  std::error_code ignored;
  if (IsPluginFile(text)) {
    spec.plugin = std::filesystem::absolute(engine.name, ignored);
    if (!std::filesystem::is_regular_file(spec.plugin, ignored))
      return MakeError(Code::kNotFound, "{}: no such engine plugin (a shared library, docs/plugin_abi.md)",
                       engine.name);
  } else if (std::filesystem::is_regular_file(bundled, ignored)) {
    spec.plugin = bundled;
  } else {
    const auto references = setup::KnownReferences();
    if (std::find(references.begin(), references.end(), engine.name) == references.end())
      return NoSuchEngine(engine.name);
    PB_ASSIGN(setup::Reference reference, setup::FindReference(engine.name));
    spec.plugin = reference.plugin;
    spec.settings = reference.settings;
    TellOfOtherLocation(reference);
  }
  for (const auto& [key, value] : engine.settings) drive::PutSetting(spec.settings, key, value);
  for (const auto& [key, value] : settings) drive::PutSetting(spec.settings, key, value);
  return spec;
}

Result<host::Limits> ChooseLimits(const EngineArguments& args, std::vector<run::Choice>& choices) {
  host::Limits limits;
  run::Choice choice{"timeout_seconds", "", "default"};
  if (args.timeout_seconds) {
    limits.progress_seconds = *args.timeout_seconds;
    choice.origin = "flag --timeout";
  } else if (const char* variable = VariableValue("CROSSVAL_TIMEOUT_SECS")) {
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

std::optional<int> NamedThreads(const EngineArguments& args) {
  if (args.threads) return args.threads;
  const std::optional<run::Choice> variable = ThreadsVariable();
  return variable ? std::optional(std::atoi(variable->value.c_str())) : std::nullopt;
}

int ChooseThreads(const EngineArguments& args, std::vector<run::Choice>& choices) {
  const std::optional<run::Choice> variable = ThreadsVariable();
  const int threads = NamedThreads(args).value_or(1);
  choices.push_back({"threads", std::to_string(threads),
                     args.threads ? "flag --threads"
                     : variable   ? variable->origin
                                  : "default"});
  return threads;
}

Status CheckThreads(const drive::EngineSpec& spec, const std::string& threads) {
  const std::string* own = drive::FindSetting(spec.settings, "threads");
  const int64_t n = std::strtoll((own ? *own : threads).c_str(), nullptr, 10);
  const std::string text = drive::TooManyThreads(n, ProcessorCount());
  if (text.empty()) return {};
  if (n > kMostThreadsEach * ProcessorCount()) return MakeError(Code::kUsage, "{}: {}", spec.text, text);
  static std::set<std::string> told;  // two engines of one name are told of once
  const std::string note = fmt::format("note: {}: {}\n", report::Escape(spec.text), text);
  if (told.insert(note).second) PrintError(note);
  return {};
}

namespace {

void AddFramingArguments(Flags& flags, PromptArguments& args) {
  const auto names = chat::PromptTemplateNames();
  flags
      .Option("--prompt-template,--template", args.framed,
              "how prompts are framed before they are tokenised (auto: not at all)")
      .OneOf({names.begin(), names.end()})
      .ShowDefault()
      .Group("Prompts");
  flags.Option("--system-prompt,--system", args.system, "what the template says before the prompt")
      .Group("Prompts");
}

}  // namespace

void AddPromptArguments(Flags& flags, PromptArguments& args) {
  flags.Option("-p,--prompt", args.prompts, "a prompt; may be repeated").OneValue().Group("Prompts");
  flags.Option("--prompt-file", args.prompt_files, "a file that is one prompt, line ends and all; - is stdin")
      .OneValue()
      .Group("Prompts");
  flags.Option("--prompts", args.prompt_lists, "a file with one prompt on each line; - is stdin")
      .OneValue()
      .Group("Prompts");
  AddFramingArguments(flags, args);
}

Result<std::vector<run::PromptSpec>> ReadPrompts(const PromptArguments& args) {
  if (args.empty())
    return MakeError(Code::kUsage, "no prompt: give one with --prompt, --prompt-file or --prompts");
  if (!args.system.empty() && (args.framed == "raw" || args.framed == "auto"))
    return MakeError(
        Code::kUsage,
        "--system-prompt: a raw prompt has none; say --prompt-template besides, or --chat in infer");
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
  for (run::PromptSpec& prompt : prompts) {
    if (!prompt.text.empty()) prompt.text = chat::FramePrompt(args.framed, args.system, prompt.text);
    PB_TRY(CheckText(prompt));
  }
  return prompts;
}

void AddOnePromptArguments(Flags& flags, PromptArguments& args) {
  flags.Option("-p,--prompt", args.prompts, "the prompt").OneValue().Group("Prompts");
  flags.Option("--prompt-file", args.prompt_files, "a file that is the prompt, line ends and all; - is stdin")
      .OneValue()
      .Group("Prompts");
  flags.Option("--prompts", args.prompt_lists, "a file with one line, which is the prompt; - is stdin")
      .OneValue()
      .Group("Prompts");
  AddFramingArguments(flags, args);
}

Result<run::PromptSpec> ReadOnePrompt(const PromptArguments& args, std::string_view command) {
  PB_ASSIGN(auto prompts, ReadPrompts(args));
  if (prompts.size() != 1)
    return MakeError(Code::kUsage, "{} takes one prompt, and {} were given: run it once for each", command,
                     prompts.size());
  if (prompts[0].text.empty()) return MakeError(Code::kUsage, "the prompt ({}) is empty", prompts[0].origin);
  return std::move(prompts[0]);
}

Result<OneEngine> ChooseOneEngine(const ModelArguments& model, const EngineArguments& engines,
                                  const std::string& engine, std::vector<run::Choice>& choices) {
  OneEngine one;
  PB_ASSIGN(run::Choice path, ChooseModel(model));
  one.model = path.value;
  choices.push_back(std::move(path));
  PB_ASSIGN(one.limits, ChooseLimits(engines, choices));
  PB_ASSIGN(host::Settings settings, ParseSettings(engines.set, "--set"));
  for (const auto& [key, value] : settings) choices.push_back({key, value, "flag --set"});
  one.threads = std::to_string(ChooseThreads(engines, choices));
  if (!model.hf_config.empty()) drive::PutSetting(settings, "hf.config", model.hf_config);
  PB_ASSIGN(one.spec, ResolveEngine(engine, settings));
  PB_TRY(CheckThreads(one.spec, one.threads));
  return one;
}

}  // namespace pb::cli
