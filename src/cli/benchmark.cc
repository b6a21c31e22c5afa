// paritybit benchmark: prompt and decode speed of one engine, with a receipt.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/crossval_common.h"
#include "cli/last_run.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/receipts.h"
#include "cli/refusal.h"
#include "cli/tokenizer_file.h"
#include "drive/context_room.h"
#include "drive/speed.h"
#include "formats/gguf.h"
#include "report/benchmark_report.h"

namespace pb::cli {
namespace {

struct BenchmarkArguments {
  ModelArguments model;
  EngineArguments engines;
  PromptArguments prompts;
  OutputArguments output;
  std::string engine = "native", receipt = "ci/inference.json";
  int tokens = 128, warmup_tokens = 10, repeats = 5;
  bool gpu = false, allow_mock = false, no_output = true, json = false;
};

constexpr const char* kDocumentedPrompt = "The capital of France is";

// What the documented command takes and this one does not.
Status CheckRefused(const BenchmarkArguments& args) {
  if (args.allow_mock)
    return MakeError(
        Code::kUnsupported,
        "--allow-mock: refused: the speed of an engine that computes nothing says nothing, so there "
        "is none here");
  if (args.gpu)
    return MakeError(
        Code::kUnsupported,
        "--gpu: refused: where an engine computes is the engine's setting, which its receipt tells; "
        "name one that computes on a GPU with --engine");
  return {};
}

// What is read of a model file for one decoded token: all but the embeddings, of which it is a row,
// unless the output matrix is the same.
uint64_t WeightsBytes(const std::filesystem::path& model, std::vector<std::string>* notes) {
  auto file = GgufFile::Open(model);
  if (!file.ok()) return 0;
  uint64_t n = 0;
  bool experts = false;
  for (const GgufTensor& tensor : file->tensors()) {
    experts = experts || tensor.name.find("_exps") != std::string::npos;
    if (tensor.name != "token_embd.weight" || !file->FindTensor("output.weight")) n += tensor.data.size();
  }
  if (!experts) return n;
  notes->push_back(
      "the model is a mixture of experts, of which a token reads some: its share of the memory's speed is "
      "not known");
  return 0;
}

std::vector<std::string> WordsAgain(const BenchmarkArguments& args) {
  CrossvalArguments alone;
  alone.model = args.model, alone.engines = args.engines, alone.prompts = args.prompts;
  alone.engines.candidate = args.engine;
  std::vector<std::string> words = LastingWords(alone, "benchmark");
  for (const auto& [flag, value] :
       {std::pair("--tokens", args.tokens), std::pair("--warmup-tokens", args.warmup_tokens),
        std::pair("--repeats", args.repeats)})
    words.insert(words.end(), {flag, std::to_string(value)});
  return words;
}

Result<report::Benchmark> Measure(const BenchmarkArguments& args, drive::EngineRecord& record,
                                  report::Context* context) {
  report::Benchmark b;
  PB_ASSIGN(const OneEngine one, ChooseOneEngine(args.model, args.engines, args.engine, b.choices));
  PB_ASSIGN(const run::PromptSpec prompt, ReadOnePrompt(args.prompts, "benchmark"));
  Progress progress(args.output);
  record.role = "engine";
  drive::Participant engine(record, one.limits);
  PB_TRY(engine.Start(one.spec));
  PB_TRY(engine.OpenModel(one.model));
  PB_ASSIGN(const ChosenTokenizer tokenizer, ChooseTokenizer(args.model, one.model.string()));
  PB_ASSIGN(b.asked.prompt, ReadText(tokenizer, engine, prompt.text));
  if (b.asked.prompt.empty()) return MakeError(Code::kUsage, "the prompt has no tokens");
  const size_t n_ctx = b.asked.prompt.size() + static_cast<size_t>(args.tokens) + 1;
  PB_TRY(drive::CheckRoom(record, n_ctx, fmt::format("{}, with --tokens {}", prompt.origin, args.tokens)));
  host::Settings wishes = {{"n_ctx", std::to_string(n_ctx)}};
  if (!drive::FindSetting(one.spec.settings, "threads")) wishes.emplace_back("threads", one.threads);
  PB_ASSIGN([[maybe_unused]] host::Settings taken, engine.OpenSessionWishing(std::move(wishes)));
  b.asked.n_decode = args.tokens, b.asked.n_warmup = args.warmup_tokens, b.asked.n_repeats = args.repeats;
  b.asked.progress = progress.Callback();
  PB_ASSIGN(b.speed, drive::MeasureSpeed(engine, b.asked));
  b.threads = std::max<int64_t>(1, host::FactNumber(record.session, "threads", 1));
  progress.Update("memory", args.repeats, args.repeats);
  b.memory = drive::MeasureReadSpeed(static_cast<int>(b.threads));
  context->notes = drive::FindingsOf(record, static_cast<int64_t>(n_ctx));
  context->notes.insert(context->notes.end(), tokenizer.notes.begin(), tokenizer.notes.end());
  b.weights_bytes = WeightsBytes(one.model, &context->notes);
  b.engine = record;
  return b;
}

Result<int> Benchmark(BenchmarkArguments& args, drive::EngineRecord& record) {
  PB_TRY(CheckRefused(args));
  if (args.json) args.output.format = "json";
  if (args.prompts.empty()) args.prompts.prompts = {kDocumentedPrompt};
  if (const auto folder = std::filesystem::path(args.receipt).parent_path(); !folder.empty()) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) return MakeError(Code::kIo, "{}: {}", folder.string(), error.message());
  }
  PB_TRY(CheckReceiptPath(args.receipt));
  report::Context context = MakeContext("benchmark");
  PB_ASSIGN(const report::Benchmark b, Measure(args, record, &context));
  report::TextOptions options;
  options.colour = UseColour(STDOUT_FILENO), options.width = TerminalWidth(STDOUT_FILENO);
  PrintOut(args.output.json() ? report::RenderJson(b, context, args.receipt)
                              : report::RenderText(b, context, args.receipt, options));
  const int exit_code = b.repeats() ? kExitOk : kExitIncomplete;
  return WriteReceipt(args.receipt, report::RenderReceipt(b, context, HeadOf(WordsAgain(args))), exit_code);
}

}  // namespace

Action DeclareBenchmark(Flags& flags) {
  auto args = std::make_shared<BenchmarkArguments>();
  AddModelArguments(flags, args->model);
  AddTokenizerArgument(flags, args->model);
  AddOnePromptArguments(flags, args->prompts);
  flags.Option("-e,--engine,--candidate", args->engine, "engine to measure: NAME|PATH[,key=value...]")
      .ShowDefault()
      .Group("Engines");
  AddSettingArguments(flags, args->engines);
  flags.Option("--tokens", args->tokens, "tokens to decode in each repeat")
      .Range(1, 1 << 20)
      .ShowDefault()
      .Group("Measurement");
  flags.Option("--warmup-tokens", args->warmup_tokens, "tokens to decode before the first repeat")
      .Range(0, 1 << 20)
      .ShowDefault()
      .Group("Measurement");
  flags.Option("--repeats", args->repeats, "how often it is measured; bench-compare wants 5 of them")
      .Range(1, 1000)
      .ShowDefault()
      .Group("Measurement");
  flags.Switch("--no-output", args->no_output, "what is generated is never shown, so this changes nothing")
      .Group("Output");
  flags.Switch("--json", args->json, "as --format json").Group("Output");
  flags.Switch("--gpu", args->gpu, "refused: an engine's settings say where it computes").Group("Engines");
  flags.Switch("--allow-mock", args->allow_mock, "refused: there is no mock").Group("Engines");
  flags.Option("--receipt", args->receipt, "write the evidence to this file").ShowDefault().Group("Output");
  AddOutputArguments(flags, args->output);
  return [args] {
    drive::EngineRecord record;
    auto exit_code = Benchmark(*args, record);
    if (exit_code) return *exit_code;
    return FailOfEngine(
        args->output, exit_code.error(), record,
        OneEngineRefusal("benchmark", args->model, args->engines, args->engine, args->prompts, 0));
  };
}

}  // namespace pb::cli
