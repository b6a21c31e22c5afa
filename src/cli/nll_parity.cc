// paritybit nll-parity: how well two engines predict a text.
#include "parity/nll_parity.h"

#include <unistd.h>

#include <memory>

#include "base/file.h"
#include "cli/command.h"
#include "cli/parity_common.h"
#include "cli/progress.h"
#include "drive/participant.h"
#include "report/nll_report.h"

namespace pb::cli {
namespace {

struct NllArguments {
  CrossvalArguments pair;
  std::string file, text;
  int64_t window = 0;
  double limit = parity::kNllLimit, confidence = 0.95;
};

// --text, --file, or the text that comes with paritybit and that no bundled model was trained on.
Result<run::PromptSpec> ReadText(const NllArguments& args) {
  constexpr uint64_t kMaxBytes = 256ull << 20;
  if (!args.text.empty() && !args.file.empty())
    return MakeError(Code::kUsage, "--text and --file both give the text: give one of them");
  if (!args.text.empty()) return run::PromptSpec{args.text, "--text"};
  const std::filesystem::path path =
      args.file.empty() ? ExecutableDir().parent_path() / "share" / "paritybit" / "heldout.txt"
                        : std::filesystem::path(args.file);
  PB_ASSIGN(std::string text, ReadFile(path, kMaxBytes));
  return run::PromptSpec{std::move(text), args.file.empty() ? path.filename().string() : args.file};
}

std::string WordsOf(const NllArguments& args) {
  const NllArguments unsaid;
  std::vector<std::string> words;
  const auto add = [&](const char* flag, const std::string& value) {
    words.insert(words.end(), {flag, value});
  };
  if (!args.text.empty()) add("--text", args.text);
  if (!args.file.empty()) add("--file", args.file);
  if (args.window != unsaid.window) add("--ctx-size", std::to_string(args.window));
  if (args.limit != unsaid.limit) add("--nll-max", fmt::format("{}", args.limit));
  if (args.confidence != unsaid.confidence) add("--confidence", fmt::format("{}", args.confidence));
  return MoreWords(words);
}

// The beginning of the text, not cut within a character: enough to name an op.
std::string Beginning(const std::string& text) {
  constexpr size_t kBytes = 200;
  size_t n = std::min(text.size(), kBytes);
  while (n > 0 && n < text.size() && (static_cast<unsigned char>(text[n]) & 0xC0) == 0x80) --n;
  return text.substr(0, n);
}

Result<int> Run(const NllArguments& args) {
  parity::NllRequest request;
  PB_ASSIGN(request.text, ReadText(args));
  PB_ASSIGN(request.pair, MakePairRequest(args.pair));
  request.window = args.window, request.limit = args.limit, request.confidence = args.confidence;
  Progress progress(args.pair.output);
  request.pair.progress = progress.Callback();
  auto measured = parity::MeasureNll(request);
  progress.End();
  PB_ASSIGN(parity::NllParity nll, std::move(measured));
  report::Context context = MakeContext("nll-parity");
  context.notes.insert(context.notes.end(), nll.run.notes.begin(), nll.run.notes.end());
  nll.run.next =
      NextAfterParity(args.pair, "nll-parity", WordsOf(args), nll.run, Beginning(request.text.text));
  report::TextOptions options{UseColour(STDOUT_FILENO), false, false, TerminalWidth(STDOUT_FILENO)};
  options.details = args.pair.output.verbose;
  PrintOut(args.pair.output.json() ? report::RenderNllJson(nll, request.text.origin, context)
                                   : report::RenderNllText(nll, request.text.origin, context, options));
  return compare::ExitCode(nll.run.verdict.outcome);
}

}  // namespace

Action DeclareNllParity(Flags& flags) {
  auto args = std::make_shared<NllArguments>();
  AddPairArguments(flags, args->pair);
  flags.Option("--file", args->file, "the text (default: the held-out text that comes with paritybit)")
      .Group("Text");
  flags.Option("--text", args->text, "the text itself").Group("Text");
  flags
      .Option("--ctx-size", args->window,
              "tokens evaluated at once, as llama-perplexity does (default: 512, the model's context, or "
              "what a short text allows)")
      .Range(4, 1 << 20)
      .Group("Text");
  flags.Option("--nll-max", args->limit, "how far the NLL may differ, nats a token")
      .Positive()
      .ShowDefault()
      .Group("Limits");
  flags
      .Option("--confidence", args->confidence,
              "of the interval that has to lie within the limit, or outside it, to decide")
      .Range(0.5, 0.9999)
      .ShowDefault()
      .Group("Limits");
  AddOutputArguments(flags, args->pair.output, "all that is known, and logs to stderr");
  return [args] {
    auto exit_code = Run(*args);
    return exit_code ? *exit_code : Fail(args->pair.output, exit_code.error());
  };
}

}  // namespace pb::cli
