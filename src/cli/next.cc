// Spells what was asked for as command lines, and chooses those that go on from a verdict.
#include "cli/next.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "base/program.h"
#include "base/text.h"
#include "cli/refusal.h"
#include "cli/variables.h"
#include "repro/repro.h"
#include "run/doubts.h"

namespace pb::cli {
namespace {

using compare::ReasonCode;
using run::NextCommand;

// What of a comparison a command takes; the model, the candidate with its settings, the prompts and
// the decode steps are common to all.
enum Takes : unsigned {
  kReference = 1,  // and its settings
  kReferenceModel = 2,
  kPrecision = 4,
  kLimits = 8,
  kScope = 16,
};
constexpr unsigned kComparison = kReference | kReferenceModel | kPrecision | kLimits;

unsigned TakenBy(std::string_view command) {
  if (command.starts_with("crossval") || command == "full-crossval") return kComparison | kScope;
  if (command == "parity-both") return kComparison;
  if (command == "diagnose" || command == "repro") return kComparison;
  if (command == "audit") return kReferenceModel | kPrecision;
  if (command.ends_with("-parity")) return kReference | kReferenceModel;
  return 0;
}

class Words {
 public:
  explicit Words(std::string_view command) { words_.emplace_back(command); }
  void Add(const char* flag, const std::string& value) {
    if (!value.empty()) Put(flag, value);
  }
  void Add(const char* flag, const std::vector<std::string>& values) {
    for (const std::string& value : values) Put(flag, value);
  }
  // The shortest text that is read as the same number.
  template <typename Number>
  void Add(const char* flag, const std::optional<Number>& value) {
    if (value) Add(flag, fmt::format("{}", *value));
  }
  void Switch(const char* flag, bool given) {
    if (given) words_.emplace_back(flag);
  }
  std::vector<std::string> Take() { return std::move(words_); }

 private:
  // What begins like a flag is no value of the one before it unless it is bound to it.
  void Put(const std::string& flag, const std::string& value) {
    if (value.starts_with('-') && value != "-")
      words_.push_back(flag + "=" + value);
    else
      words_.insert(words_.end(), {flag, value});
  }
  std::vector<std::string> words_;
};

// A flag beats the variable, which another shell may not have.
std::string NamedModel(const ModelArguments& model) {
  const std::optional<run::Choice> variable = FirstVariable("model", kModelVariables);
  return model.model.empty() && variable ? variable->value : model.model;
}

void AddPrompts(const PromptArguments& prompts, Words* words) {
  words->Add("--prompt", prompts.prompts);
  const auto copied = [](const std::string& file) { return file == "-" ? StdinCopy() : file; };
  for (const std::string& file : prompts.prompt_files) words->Add("--prompt-file", copied(file));
  for (const std::string& file : prompts.prompt_lists) words->Add("--prompts", copied(file));
  if (prompts.framed != PromptArguments().framed) words->Add("--prompt-template", prompts.framed);
  words->Add("--system-prompt", prompts.system);
}

void AddLimits(const compare::UserLimits& user, Words* words) {
  words->Add("--cos-tolerance", user.min_cosine);
  words->Add("--kl-mean", user.kl_mean);
  words->Add("--kl-worst", user.kl_worst);
  words->Add("--rel-l2", user.rel_l2);
  words->Add("--max-abs", user.max_abs);
  words->Add("--confidence", user.confidence);
}

// What can be said of the candidate without a reference.
NextCommand AuditOfCandidate(const CrossvalArguments& args) {
  CrossvalArguments alone = args;
  alone.reference_model.clear();
  return {CommandLine(alone, "audit"), "judges the candidate alone"};
}

// An engine that failed is asked again, alone; one that was ended for want of progress is given
// more time.
std::vector<NextCommand> NextAfterFailure(const CrossvalArguments& args, const std::string& command,
                                          const run::Comparison& comparison) {
  std::vector<NextCommand> next;
  const bool of_reference = comparison.candidate.error.empty();
  const std::string& error = (of_reference ? comparison.reference : comparison.candidate).error;
  const auto limit = std::find_if(comparison.choices.begin(), comparison.choices.end(),
                                  [](const run::Choice& choice) { return choice.key == "timeout_seconds"; });
  if (error.find("no progress for") != std::string::npos && limit != comparison.choices.end()) {
    CrossvalArguments longer = args;
    longer.engines.timeout_seconds = 10 * std::strtod(limit->value.c_str(), nullptr);
    next.push_back({CommandLine(longer, command), "the same with ten times the time"});
  }
  CrossvalArguments alone = args;
  alone.reference_model.clear();
  if (of_reference) {
    if (!args.reference_model.empty()) alone.model.model = args.reference_model;
    alone.engines.candidate = comparison.reference.spec, alone.engines.set = args.engines.set_reference;
  }
  next.push_back({CommandLine(alone, "audit"), "whether it fails alone, too"});
  return next;
}

std::vector<NextCommand> WithActivation(const CrossvalArguments& args, const std::string& command) {
  std::vector<NextCommand> next;
  for (const char* activation : {"relu2", "silu"})
    next.push_back({CommandLine(With(args, "--set", fmt::format("ffn.activation={}", activation)), command),
                    fmt::format("if the model runs {}", activation)});
  return next;
}

// Of the prompt where they part, where both traces of it were kept.
std::vector<NextCommand> DiffOfKeptTraces(const run::Comparison& comparison) {
  const auto& first = comparison.verdict.first_divergence;
  const size_t at = first ? static_cast<size_t>(first->prompt) : 0;
  if (at >= comparison.prompts.size()) return {};
  const auto& traces = comparison.prompts[at].traces;
  if (!traces[0] || !traces[1]) return {};
  return {
      {Call(std::vector<std::string>{"trace-diff", traces[0]->folder.string(), traces[1]->folder.string()}),
       "the kept traces, point by point"}};
}

// Whether the engines agree once the candidate runs the reference's activation.
std::vector<NextCommand> WithReferencesActivation(const CrossvalArguments& args, const std::string& command,
                                                  const run::Comparison& comparison) {
  const trace::Fact ours = comparison.candidate.model_facts().activation,
                    theirs = comparison.reference.model_facts().activation;
  if (ours.value.empty() || theirs.value.empty() || ours.value == theirs.value) return {};
  return {{CommandLine(With(args, "--set", "ffn.activation=" + theirs.value), command),
           "whether they agree on the reference's activation"}};
}

std::vector<NextCommand> NextAfterDivergence(const CrossvalArguments& args, const std::string& command,
                                             const diagnose::ExplainedRun& judged) {
  const run::Comparison& comparison = judged.comparison;
  std::vector<NextCommand> next;
  if (comparison.why_logits_only.empty())
    next.push_back({CommandLine(args, "diagnose"), "why they part, and whose fault it is"});
  if (judged.diagnosis && repro::HasRepro(*judged.diagnosis))
    next.push_back(ReproCommand(args, *judged.diagnosis, {}));
  auto append = [&next](std::vector<NextCommand> more) { next.insert(next.end(), more.begin(), more.end()); };
  append(DiffOfKeptTraces(comparison));
  append(WithReferencesActivation(args, command, comparison));
  if (command == "crossval") next.push_back(EveryPosition(args));
  return next;
}

}  // namespace

std::string Call(std::string_view words) { return fmt::format("{} {}", ProgramName(), words); }

std::string Call(std::span<const std::string> words) {
  std::string line = ProgramName();
  for (const std::string& word : words) line += " " + ShellQuote(word);
  return line;
}

std::vector<std::string> CommandWords(const CrossvalArguments& args, std::string_view command) {
  const unsigned taken = TakenBy(command);
  Words words(command);
  words.Add("--model", NamedModel(args.model));
  words.Add("--hf-config", args.model.hf_config);
  if (args.engines.candidate != "native")
    words.Add(taken & kReference ? "--candidate" : "--engine", args.engines.candidate);
  if (taken & kReference) words.Add("--reference", args.engines.reference);
  if (taken & kReferenceModel) words.Add("--reference-model", args.reference_model);
  const CrossvalArguments unsaid;
  if ((taken & kScope) && args.scope != unsaid.scope) words.Add("--scope", args.scope);
  if ((taken & kScope) && args.reuse != unsaid.reuse) words.Add("--reuse", args.reuse);
  if ((taken & kScope) && args.noise != unsaid.noise) words.Add("--noise", args.noise);
  if ((taken & kScope) && args.watch != unsaid.watch) words.Add("--watch", args.watch);
  words.Add("--set", args.engines.set);
  if (taken & kReference) words.Add("--set-reference", args.engines.set_reference);
  words.Add("--threads", NamedThreads(args.engines));
  words.Add("--timeout", args.engines.timeout_seconds);
  words.Add("--memory", args.engines.memory_mib);
  if (taken & kPrecision) {
    words.Switch("--strict-precision", args.precision.strict);
    words.Add("--accept-precision", args.precision.accepted);
  }
  if (taken & kLimits) AddLimits(args.user, &words);
  words.Add("--tokenizer", args.model.tokenizer);
  AddPrompts(args.prompts, &words);
  if (args.max_tokens > 0) words.Add("--max-tokens", std::to_string(args.max_tokens));
  return words.Take();
}

std::string CommandLine(const CrossvalArguments& args, std::string_view command, std::string_view more) {
  const std::string line = Call(CommandWords(args, command));
  return more.empty() ? line : fmt::format("{} {}", line, more);
}

CrossvalArguments With(CrossvalArguments args, std::string_view flag, const std::string& setting) {
  auto& settings = flag == "--set-reference" ? args.engines.set_reference : args.engines.set;
  const std::string key = setting.substr(0, setting.find('=') + 1);
  std::erase_if(settings, [&key](const std::string& given) { return given.starts_with(key); });
  settings.push_back(setting);
  return args;
}

std::vector<std::string> PlaceWords(const PlaceArguments& place) {
  if (place.stage.empty()) return {};
  std::vector<std::string> words{"--stage", place.stage};
  auto add = [&words](const char* flag, int value) {
    words.insert(words.end(), {flag, std::to_string(value)});
  };
  if (place.layer >= 0) add("--layer", place.layer);
  if (place.prompt_index > 0) add("--prompt-index", place.prompt_index);
  if (place.step > 0) add("--step", place.step);
  return words;
}

NextCommand ReproCommand(const CrossvalArguments& args, const diagnose::Diagnosis& diagnosis,
                         const PlaceArguments& place) {
  std::vector<std::string> words = CommandWords(args, "repro");
  for (std::string& word : PlaceWords(place)) words.push_back(std::move(word));
  const int32_t layer = diagnosis.place.layer;
  words.insert(words.end(),
               {"--out", fmt::format("repro-{}{}", layer < 0 ? "" : fmt::format("layer{}-", layer),
                                     pb_vocabulary[diagnosis.place.stage].name)});
  return {Call(words), "a bundle for a bug report"};
}

NextCommand SetUpReference() { return {Call("setup-cpp-auto"), "sets up the reference"}; }

NextCommand EveryPosition(const CrossvalArguments& args) {
  return {CommandLine(args, "crossval-per-token"), "every position"};
}

std::vector<NextCommand> NextCommands(const CrossvalArguments& args, const std::string& command,
                                      const diagnose::ExplainedRun& judged) {
  const run::Comparison& comparison = judged.comparison;
  const compare::Verdict& verdict = comparison.verdict;
  // A file that is not there is nothing to set up.
  if (verdict.Has(ReasonCode::kNoReference) && IsPluginFile(args.engines.reference))
    return {{Call("check-features"), "the engines that there are"}, AuditOfCandidate(args)};
  if (verdict.Has(ReasonCode::kNoReference))
    return {SetUpReference(), {Call("preflight"), "what is usable here"}, AuditOfCandidate(args)};
  if (verdict.Has(ReasonCode::kKvCacheOverflow))
    return {{CommandLine(With(With(args, "--set", "kv.type=f32"), "--set-reference", "kv.type=f32"), command),
             "the same with a cache that holds such values"}};
  if (verdict.outcome == compare::Outcome::kEngineFailed) return NextAfterFailure(args, command, comparison);
  if (verdict.Has(ReasonCode::kUndeclared)) return WithActivation(args, command);
  if (verdict.outcome == compare::Outcome::kIncomplete) {
    std::vector<NextCommand> deciding;
    for (const std::string& choice : run::WaysToDecide(comparison.doubts))
      deciding.push_back({CommandLine(args, command, choice), "decides what the files leave open"});
    if (!deciding.empty()) return deciding;
  }
  if (verdict.Has(ReasonCode::kTokensDiffer))
    return {{CommandLine(args, "diagnose"), "which tokens are right, by the model's own rules"}};
  if (verdict.Has(ReasonCode::kUnsupported)) {
    Refusal refusal;
    refusal.command = command, refusal.args = args, refusal.reason = verdict.reasons[0].text;
    refusal.by_candidate = !comparison.candidate.error.empty();
    refusal.by_reference = !comparison.reference.error.empty();
    return NextAfterRefusal(refusal);
  }
  if (!verdict.differing.empty()) return NextToEqualSettings(args, command, verdict);
  if (!diagnose::IsDivergence(verdict)) return {};
  return NextAfterDivergence(args, command, judged);
}

}  // namespace pb::cli
