// paritybit greedy-parity: do two engines choose the same tokens?
#include "parity/greedy_parity.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "cli/command.h"
#include "cli/parity_common.h"
#include "cli/progress.h"
#include "cli/variables.h"
#include "report/greedy_report.h"

namespace pb::cli {
namespace {

struct GreedyArguments {
  CrossvalArguments pair;
  int examples = 40, max_tokens = 32, max_shrinks = 200;
  std::optional<uint64_t> seed;
  bool fresh = false;
};

Result<parity::GreedyRequest> MakeGreedyRequest(const GreedyArguments& args) {
  parity::GreedyRequest request;
  std::vector<run::PromptSpec> prompts;
  if (!args.pair.prompts.empty()) {
    PB_ASSIGN(prompts, ReadPrompts(args.pair.prompts));
    if (prompts.empty())
      return MakeError(Code::kUsage, "the list of prompts is empty; give none for random ones");
  }
  PB_ASSIGN(request.pair, MakePairRequest(args.pair));
  request.pair.prompts = std::move(prompts);
  if (auto arbiter = ResolveEngine("oracle", {})) request.pair.arbiter = std::move(arbiter).value();
  request.examples = args.examples, request.max_tokens = args.max_tokens;
  request.max_shrinks = args.max_shrinks, request.resume = !args.fresh;
  run::Choice seed{"seed", "", "default"};
  if (args.seed) {
    request.seed = *args.seed, seed.origin = "flag --seed";
  } else if (const char* set = VariableValue("BITNET_SEED")) {
    char* end = nullptr;
    request.seed = std::strtoull(set, &end, 10), seed.origin = "variable BITNET_SEED";
    if (*end) return MakeError(Code::kUsage, "BITNET_SEED: `{}` is not a number", set);
  }
  seed.value = std::to_string(request.seed);
  request.pair.choices.push_back(std::move(seed));
  return request;
}

std::string WordsOf(const GreedyArguments& args, uint64_t seed) {
  std::vector<std::string> words;
  if (args.pair.prompts.empty())
    words = {"--examples", std::to_string(args.examples), "--seed", std::to_string(seed)};
  words.insert(words.end(), {"--max-tokens", std::to_string(args.max_tokens)});
  return MoreWords(words);
}

// The prompt to name the op on; null: none fails.
const parity::GreedyRow* FailingRow(const parity::GreedyParity& greedy) {
  if (greedy.smallest) return &*greedy.smallest;
  for (const parity::GreedyRow& row : greedy.rows)
    if (row.failed()) return &row;
  return nullptr;
}

Result<int> Run(const GreedyArguments& args) {
  PB_ASSIGN(parity::GreedyRequest request, MakeGreedyRequest(args));
  Progress progress(args.pair.output);
  request.pair.progress = progress.Callback();
  auto compared = parity::CompareGreedy(request);
  progress.End();
  PB_ASSIGN(parity::GreedyParity greedy, std::move(compared));
  report::Context context = MakeContext("greedy-parity");
  context.notes.insert(context.notes.end(), greedy.run.notes.begin(), greedy.run.notes.end());
  const parity::GreedyRow* failing = FailingRow(greedy);
  int steps = 0;
  if (failing)
    steps = std::find_if(failing->flips.begin(), failing->flips.end(), [](const auto& f) {
              return !f.explained;
            })->step;
  greedy.run.next = NextAfterParity(args.pair, "greedy-parity", WordsOf(args, request.seed), greedy.run,
                                    failing ? std::optional(failing->text) : std::nullopt, steps);
  report::TextOptions options{UseColour(STDOUT_FILENO), false, false, TerminalWidth(STDOUT_FILENO)};
  options.details = args.pair.output.verbose;
  PrintOut(args.pair.output.json() ? report::RenderGreedyJson(greedy, context)
                                   : report::RenderGreedyText(greedy, context, options));
  return compare::ExitCode(greedy.run.verdict.outcome);
}

}  // namespace

Action DeclareGreedyParity(Flags& flags) {
  auto args = std::make_shared<GreedyArguments>();
  AddPairArguments(flags, args->pair);
  AddPromptArguments(flags, args->pair.prompts);
  flags
      .Option("--examples", args->examples,
              "where no prompt is given: this many at random; the first that fails is made smaller")
      .Range(1, 100'000)
      .ShowDefault()
      .Group("Prompts");
  flags.Option("--seed", args->seed, "of the random prompts; else $BITNET_SEED, else 0").Group("Prompts");
  flags.Option("-n,--max-tokens", args->max_tokens, "tokens to choose after each prompt, at most")
      .Range(1, 1 << 20)
      .ShowDefault()
      .Group("Prompts");
  flags.Option("--max-shrinks", args->max_shrinks, "smaller prompts to try, at most")
      .Range(0, 1 << 20)
      .ShowDefault()
      .Group("Prompts");
  flags.Switch("--fresh", args->fresh, "do not go on where an interrupted run ended").Group("Prompts");
  AddOutputArguments(flags, args->pair.output, "all that is known, and logs to stderr");
  return [args] {
    auto exit_code = Run(*args);
    return exit_code ? *exit_code : Fail(args->pair.output, exit_code.error());
  };
}

}  // namespace pb::cli
