// Flags, choices and next commands of the -parity commands.
#include "cli/parity_common.h"

#include <fmt/format.h>

#include <cstdlib>

#include "base/text.h"
#include "cli/next.h"
#include "cli/refusal.h"
#include "cli/tokenizer_file.h"
#include "cli/variables.h"
#include "run/doubts.h"

namespace pb::cli {

using compare::ReasonCode;
using run::NextCommand;

void AddPairArguments(Flags& flags, CrossvalArguments& args) {
  AddModelArguments(flags, args.model);
  flags
      .Option("--reference-model", args.reference_model,
              "another file for the reference than the candidate's")
      .Group("Model");
  AddTokenizerArgument(flags, args.model);
  AddEngineArguments(flags, args.engines);
}

Result<double> ChooseNumber(const std::optional<double>& flag, const char* flag_name, const char* variable,
                            double otherwise, std::vector<run::Choice>* choices) {
  const char* set = VariableValue(variable);
  run::Choice choice{flag_name + 2, "", "default"};
  double value = flag.value_or(otherwise);
  if (flag) {
    choice.origin = fmt::format("flag {}", flag_name);
  } else if (set) {
    char* end = nullptr;
    value = std::strtod(set, &end);
    if (*end != '\0') return MakeError(Code::kUsage, "{}: `{}` is no number", variable, set);
    choice.origin = fmt::format("variable {}", variable);
  }
  choice.value = fmt::format("{}", value);
  choices->push_back(std::move(choice));
  return value;
}

Result<int> ChooseWhole(const std::optional<int>& flag, const char* flag_name, const char* variable,
                        int otherwise, std::vector<run::Choice>* choices) {
  std::optional<double> value;
  if (flag) value = *flag;
  PB_ASSIGN(const double chosen, ChooseNumber(value, flag_name, variable, otherwise, choices));
  constexpr int kMost = 1 << 20;
  if (!(chosen >= 0 && chosen <= kMost) || chosen != static_cast<int>(chosen))
    return MakeError(Code::kUsage, "{}: `{}` is no whole number from 0 to {}", variable, chosen, kMost);
  return static_cast<int>(chosen);
}

std::string MoreWords(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + ShellQuote(word);
  return text;
}

std::vector<NextCommand> NextAfterParity(const CrossvalArguments& args, const std::string& command,
                                         const std::string& more, const run::Comparison& run,
                                         const std::optional<std::string>& prompt, int steps) {
  const compare::Verdict& verdict = run.verdict;
  const auto same = [&](const std::string& besides) {
    return CommandLine(args, command, more.empty() ? besides : more + " " + besides);
  };
  if (verdict.Has(ReasonCode::kNoReference))
    return {SetUpReference(), {Call("preflight"), "what is usable here"}};
  if (verdict.Has(ReasonCode::kUndeclared))
    return {{same("--set ffn.activation=relu2"), "if the model runs relu2"},
            {same("--set ffn.activation=silu"), "if the model runs silu"}};
  if (verdict.Has(ReasonCode::kUnsupported)) {
    Refusal refusal;
    refusal.command = command, refusal.args = args, refusal.more = more;
    refusal.reason = verdict.reasons[0].text;
    refusal.by_candidate = !run.candidate.error.empty(), refusal.by_reference = !run.reference.error.empty();
    return NextAfterRefusal(refusal);
  }
  std::vector<NextCommand> next;
  if (verdict.outcome == compare::Outcome::kIncomplete)
    for (const std::string& choice : run::WaysToDecide(run.doubts))
      next.push_back({same(choice), "decides what the files leave open"});
  if (!next.empty() || !prompt || compare::ExitCode(verdict.outcome) == kExitOk) return next;
  CrossvalArguments asked = args;
  asked.prompts = {};
  asked.prompts.prompts = {*prompt};
  asked.max_tokens = steps;
  return {{CommandLine(asked, "crossval"), "which op they part at, and whose fault it is"}};
}

}  // namespace pb::cli
