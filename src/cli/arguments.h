// Argument groups that commands share, and the turning of what was typed into what rooms below
// take.
#ifndef PARITYBIT_CLI_ARGUMENTS_H_
#define PARITYBIT_CLI_ARGUMENTS_H_

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/flags.h"
#include "compare/verdict.h"
#include "drive/engine_spec.h"
#include "run/record.h"
#include "run/request.h"

namespace pb::cli {

struct ModelArguments {
  std::string model, hf_config, tokenizer;
};
// --model (CROSSVAL_GGUF), --hf-config.
void AddModelArguments(Flags& flags, ModelArguments& args);
// The model's path with the origin of the choice; kUsage when neither flag nor variable names one.
Result<run::Choice> ChooseModel(const ModelArguments& args);

// A path of a file that is there, or that of the model that is set up by this name. kNotFound:
// neither. Of the empty name nothing.
Result<std::string> FindModelFile(const std::string& name);

struct EngineArguments {
  std::string candidate = "native", reference;
  std::vector<std::string> set, set_reference;
  std::optional<int> threads;
  std::optional<double> timeout_seconds;
  std::optional<uint64_t> memory_mib;
};
// --candidate --reference --set-reference, and the settings.
void AddEngineArguments(Flags& flags, EngineArguments& args);
// --set --threads --timeout --memory.
void AddSettingArguments(Flags& flags, EngineArguments& args);

struct PromptArguments {
  std::vector<std::string> prompts, prompt_files, prompt_lists;
  std::string framed = "raw", system;  // chat/prompt_template.h
  // no flag
  bool empty() const { return prompts.empty() && prompt_files.empty() && prompt_lists.empty(); }
};
// --prompt, --prompt-file, --prompts ("-" is stdin), --prompt-template, --system-prompt.
void AddPromptArguments(Flags& flags, PromptArguments& args);
// The same of a command that takes one prompt.
void AddOnePromptArguments(Flags& flags, PromptArguments& args);
// All prompts in the order prompt, prompt-file, prompts, each as the template frames it. kUsage when no flag was given; an empty
// list is no error here.
Result<std::vector<run::PromptSpec>> ReadPrompts(const PromptArguments& args);

// A copy of a prompt or of a list of prompts in the user's cache, named by its content; empty: it
// cannot be kept.
std::string KeepPromptText(std::string_view text);
// The copy of what was read from stdin; "-" where it was not read or cannot be kept.
std::string StdinCopy();

// Which differences of precision are accepted (docs/numerics.md, "Precision of products").
struct PrecisionArguments {
  bool strict = false;
  std::vector<std::string> accepted;  // TYPE=SCHEME
};
void AddPrecisionArguments(Flags& flags, PrecisionArguments& args);
Result<compare::PrecisionPolicy> PolicyOf(const PrecisionArguments& args);

// The engines that come with paritybit.
std::vector<std::filesystem::path> BundledPlugins();
// Of the small models that are installed with the program.
std::vector<std::string> BundledModelNames();
// Whether an engine is named by its file, and not by a name.
bool IsPluginFile(std::string_view engine);
// Finds the plugin: a path, a plugin that comes with paritybit, or a reference that is set up.
// `settings` are the user's own (flags), laid over those in `text` and those of the set-up.
// kUsage: no such engine is known. kNotFound: its plugin is not here.
Result<drive::EngineSpec> ResolveEngine(const std::string& text, const host::Settings& settings);
Result<host::Settings> ParseSettings(const std::vector<std::string>& texts, std::string_view flag);

// Limits of both engines, and who set them, appended to choices.
Result<host::Limits> ChooseLimits(const EngineArguments& args, std::vector<run::Choice>& choices);
// Threads of each engine where a flag or a variable names them.
std::optional<int> NamedThreads(const EngineArguments& args);
// The same, else one.
int ChooseThreads(const EngineArguments& args, std::vector<run::Choice>& choices);

// Says on stderr, before an engine starts, what to expect of more threads than there are
// processors: those of its own settings, else `threads`.
// kUsage: so many that it would not end (kMostThreadsEach for each processor).
inline constexpr int kMostThreadsEach = 4;
Status CheckThreads(const drive::EngineSpec& spec, const std::string& threads);

// The one prompt of a command that takes no more; kUsage, naming the command, where it is empty or
// not one.
Result<run::PromptSpec> ReadOnePrompt(const PromptArguments& args, std::string_view command);

// One engine and its model, for commands that run no other.
struct OneEngine {
  std::filesystem::path model;
  drive::EngineSpec spec;
  host::Limits limits;
  std::string threads;  // of its sessions, where the user's settings name none
};
// `engine` as the user typed it. Who set what is appended to choices.
Result<OneEngine> ChooseOneEngine(const ModelArguments& model, const EngineArguments& engines,
                                  const std::string& engine, std::vector<run::Choice>& choices);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_ARGUMENTS_H_
