// paritybit logit-parity: do two engines rank the next tokens alike?
#include "parity/logit_parity.h"

#include <unistd.h>

#include <memory>

#include "cli/command.h"
#include "cli/parity_common.h"
#include "cli/progress.h"
#include "parity/prompts.h"
#include "report/order_report.h"

namespace pb::cli {
namespace {

struct OrderArguments {
  CrossvalArguments pair;
  std::optional<int> examples, steps, top_k, min_steps;
  std::optional<double> tau_min, tie;
  std::optional<uint64_t> seed;
  int noise_runs = compare::kMinNoiseRuns;
};

constexpr int kExamples = 20;  // PROP_EXAMPLES of the documented system

Result<parity::LogitParityRequest> MakeOrderRequest(const OrderArguments& args) {
  parity::LogitParityRequest request;
  const parity::TauSettings documented;
  std::vector<run::PromptSpec> prompts;
  if (!args.pair.prompts.empty()) {
    PB_ASSIGN(prompts, ReadPrompts(args.pair.prompts));
  }
  PB_ASSIGN(request.pair, MakePairRequest(args.pair));
  auto& choices = request.pair.choices;
  PB_ASSIGN(request.tau.steps,
            ChooseWhole(args.steps, "--tau-steps", "TAU_STEPS", documented.steps, &choices));
  PB_ASSIGN(request.tau.top_k, ChooseWhole(args.top_k, "--topk", "LOGIT_TOPK", documented.top_k, &choices));
  PB_ASSIGN(request.tau.least_median,
            ChooseNumber(args.tau_min, "--tau-min", "TAU_MIN", documented.least_median, &choices));
  PB_ASSIGN(request.tau.tie, ChooseNumber(args.tie, "--tie-eps", "TAU_TIE_EPS", documented.tie, &choices));
  PB_ASSIGN(const int examples,
            ChooseWhole(args.examples, "--examples", "PROP_EXAMPLES", kExamples, &choices));
  if (request.tau.steps < 1) return MakeError(Code::kUsage, "TAU_STEPS: at least one step is needed");
  if (request.tau.top_k < 2) return MakeError(Code::kUsage, "LOGIT_TOPK: an order takes two tokens");
  if (!(request.tau.least_median >= -1 && request.tau.least_median <= 1))
    return MakeError(Code::kUsage, "TAU_MIN: tau lies between -1 and 1");
  if (!(request.tau.tie >= 0)) return MakeError(Code::kUsage, "TAU_TIE_EPS: 0 or above");
  request.tau.min_informative = args.min_steps.value_or(0);
  request.pair.n_noise_runs = args.noise_runs;
  if (args.pair.prompts.empty()) {
    const parity::RandomPrompts random(args.seed.value_or(0), examples);
    for (int i = 0; i < random.size(); ++i)
      prompts.push_back({random.At(i), fmt::format("example {} of seed {}", i, args.seed.value_or(0))});
  }
  request.pair.prompts = std::move(prompts);
  return request;
}

std::string WordsOf(const OrderArguments& args) {
  std::vector<std::string> words;
  const auto add = [&](const char* flag, const auto& value) {
    if (value) words.insert(words.end(), {flag, fmt::format("{}", *value)});
  };
  add("--examples", args.examples), add("--tau-steps", args.steps), add("--topk", args.top_k);
  add("--min-steps", args.min_steps), add("--tau-min", args.tau_min), add("--tie-eps", args.tie);
  add("--seed", args.seed);
  if (args.noise_runs != compare::kMinNoiseRuns)
    words.insert(words.end(), {"--noise-runs", std::to_string(args.noise_runs)});
  return MoreWords(words);
}

// The step with the largest exchange; null: none has one.
const parity::OrderRow* WorstRow(const parity::LogitParity& parity) {
  const parity::OrderRow* worst = nullptr;
  for (const parity::OrderRow& row : parity.rows)
    if (row.order.worst && (!worst || row.order.worst->change > worst->order.worst->change)) worst = &row;
  return worst;
}

Result<int> Run(const OrderArguments& args) {
  PB_ASSIGN(parity::LogitParityRequest request, MakeOrderRequest(args));
  if (auto arbiter = ResolveEngine("oracle", {})) request.pair.arbiter = std::move(arbiter).value();
  Progress progress(args.pair.output);
  request.pair.progress = progress.Callback();
  auto compared = parity::CompareOrders(request);
  progress.End();
  PB_ASSIGN(parity::LogitParity parity, std::move(compared));
  report::Context context = MakeContext("logit-parity");
  context.notes.insert(context.notes.end(), parity.run.notes.begin(), parity.run.notes.end());
  std::optional<std::string> prompt;
  int steps = 0;
  if (const parity::OrderRow* worst = WorstRow(parity)) {
    const run::PromptRecord& record = parity.run.prompts[static_cast<size_t>(worst->prompt)];
    prompt = record.text;
    steps = worst->position + 1 - static_cast<int>(record.tokens.size());
  }
  parity.run.next = NextAfterParity(args.pair, "logit-parity", WordsOf(args), parity.run, prompt, steps);
  report::TextOptions options{UseColour(STDOUT_FILENO), false, false, TerminalWidth(STDOUT_FILENO)};
  options.details = args.pair.output.verbose;
  PrintOut(args.pair.output.json() ? report::RenderOrderJson(parity, context)
                                   : report::RenderOrderText(parity, context, options));
  return compare::ExitCode(parity.run.verdict.outcome);
}

}  // namespace

Action DeclareLogitParity(Flags& flags) {
  auto args = std::make_shared<OrderArguments>();
  AddPairArguments(flags, args->pair);
  AddPromptArguments(flags, args->pair.prompts);
  flags
      .Option("--examples", args->examples,
              "where no prompt is given: this many at random; else $PROP_EXAMPLES, else 20")
      .Range(1, 10'000)
      .Group("Prompts");
  flags.Option("--seed", args->seed, "of the random prompts (default 0)").Group("Prompts");
  flags
      .Option("--tau-steps", args->steps, "steps along the reference's greedy path; else $TAU_STEPS, else 32")
      .Range(1, 4096)
      .Group("Prompts");
  flags.Option("--topk", args->top_k, "tokens that are ranked, of each engine; else $LOGIT_TOPK, else 10")
      .Range(2, 1000)
      .Group("Limits");
  flags.Option("--tau-min", args->tau_min, "the least median of tau-b; else $TAU_MIN, else 0.60")
      .Range(-1.0, 1.0)
      .Group("Limits");
  flags.Option("--tie-eps", args->tie, "logits as near as this are tied; else $TAU_TIE_EPS, else 1e-6")
      .NonNegative()
      .Group("Limits");
  flags
      .Option("--min-steps", args->min_steps,
              "steps of each prompt that must have an order (default: 8, or a third of the steps)")
      .Range(1, 4096)
      .Group("Limits");
  flags
      .Option("--noise-runs", args->noise_runs,
              "runs of the reference under random rounding, which tell what noise exchanges; 0: the limit "
              "alone decides")
      .Range(0, 1000)
      .ShowDefault()
      .Group("Limits");
  AddOutputArguments(flags, args->pair.output, "all that is known, and logs to stderr");
  return [args] {
    auto exit_code = Run(*args);
    return exit_code ? *exit_code : Fail(args->pair.output, exit_code.error());
  };
}

}  // namespace pb::cli
