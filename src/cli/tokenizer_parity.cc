// paritybit tokenizer-parity: do two tokenisers read texts as the same tokens?
#include "parity/tokenizer_parity.h"

#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "cli/command.h"
#include "cli/parity_common.h"
#include "cli/progress.h"
#include "cli/tokenizer_file.h"
#include "report/tokenizer_report.h"

namespace pb::cli {
namespace {

struct TokenizerArguments {
  CrossvalArguments pair;
  std::vector<std::string> files, texts;
  int random = 500;
  uint64_t seed = 0;
  bool no_battery = false;
};

constexpr uint64_t kMaxBytes = 64ull << 20;

Status AddBattery(std::vector<run::PromptSpec>* texts) {
  const std::filesystem::path path =
      ExecutableDir().parent_path() / "share" / "paritybit" / "tokenizer_battery.json";
  PB_ASSIGN(const std::string text, ReadFile(path, kMaxBytes));
  const nlohmann::json battery = nlohmann::json::parse(text, nullptr, false);
  if (!battery.is_array() || battery.empty())
    return MakeError(Code::kMalformed, "{}: no array of strings", path.string());
  for (size_t i = 0; i < battery.size(); ++i) {
    if (!battery[i].is_string())
      return MakeError(Code::kMalformed, "{}: string {} is none", path.string(), i);
    texts->push_back({battery[i].get<std::string>(), fmt::format("battery {}", i)});
  }
  return {};
}

// Line by line, so that what differs is small, and whole, so that line ends are heard too.
Status AddFile(const std::string& path, std::vector<run::PromptSpec>* texts) {
  PB_ASSIGN(std::string text, ReadFile(path, kMaxBytes));
  int line = 1;
  for (size_t begin = 0; begin < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (end > begin) texts->push_back({text.substr(begin, end - begin), fmt::format("{}:{}", path, line)});
    begin = end + 1;
  }
  if (text.empty()) return MakeError(Code::kUsage, "{}: is empty", path);
  texts->push_back({std::move(text), path});
  return {};
}

Result<parity::TokenizerRequest> MakeTokenizerRequest(const TokenizerArguments& args) {
  parity::TokenizerRequest request;
  CrossvalArguments pair = args.pair;
  request.own_candidate = pair.engines.candidate == parity::kOwnTokenizer;
  if (request.own_candidate) pair.engines.candidate = "native";  // resolved, and never started
  pair.model.tokenizer.clear();                                  // here it is a side of the comparison
  PB_ASSIGN(request.pair, MakePairRequest(pair));
  request.pair.notes.clear();
  if (!args.pair.model.tokenizer.empty()) {
    if (!request.own_candidate)
      return MakeError(Code::kUsage, "--tokenizer and --candidate both name the candidate: give one of them");
    PB_ASSIGN(ChosenTokenizer chosen, ChooseTokenizer(args.pair.model, request.pair.model.string()));
    request.file = std::move(chosen.file), request.file_name = args.pair.model.tokenizer;
  }
  if (!args.no_battery) PB_TRY(AddBattery(&request.texts));
  for (const std::string& text : args.texts) request.texts.push_back({text, "--text"});
  for (const std::string& file : args.files) PB_TRY(AddFile(file, &request.texts));
  request.n_random = args.random, request.seed = args.seed;
  return request;
}

std::string WordsOf(const TokenizerArguments& args) {
  const TokenizerArguments unsaid;
  std::vector<std::string> words;
  for (const std::string& file : args.files) words.insert(words.end(), {"--file", file});
  for (const std::string& text : args.texts) words.insert(words.end(), {"--text", text});
  if (args.random != unsaid.random) words.insert(words.end(), {"--random", std::to_string(args.random)});
  if (args.seed != unsaid.seed) words.insert(words.end(), {"--seed", std::to_string(args.seed)});
  if (args.no_battery) words.emplace_back("--no-battery");
  return MoreWords(words);
}

Result<int> Run(const TokenizerArguments& args) {
  PB_ASSIGN(parity::TokenizerRequest request, MakeTokenizerRequest(args));
  Progress progress(args.pair.output);
  request.pair.progress = progress.Callback();
  auto compared = parity::CompareTokenizers(request);
  progress.End();
  PB_ASSIGN(parity::TokenizerParity parity, std::move(compared));
  report::Context context = MakeContext("tokenizer-parity");
  context.notes.insert(context.notes.end(), parity.run.notes.begin(), parity.run.notes.end());
  std::optional<std::string> text;
  if (!parity.differences.empty() && !request.own_candidate) text = parity.differences[0].text;
  parity.run.next = NextAfterParity(args.pair, "tokenizer-parity", WordsOf(args), parity.run, text);
  report::TextOptions options{UseColour(STDOUT_FILENO), false, false, TerminalWidth(STDOUT_FILENO)};
  options.details = args.pair.output.verbose;
  PrintOut(args.pair.output.json() ? report::RenderTokenizerJson(parity, context)
                                   : report::RenderTokenizerText(parity, context, options));
  return compare::ExitCode(parity.run.verdict.outcome);
}

}  // namespace

Action DeclareTokenizerParity(Flags& flags) {
  auto args = std::make_shared<TokenizerArguments>();
  args->pair.engines.candidate = parity::kOwnTokenizer;
  AddPairArguments(flags, args->pair);
  flags.Option("--file", args->files, "a text file, read line by line and as a whole; may be repeated")
      .OneValue()
      .Group("Texts");
  flags.Option("--text", args->texts, "a text; may be repeated").OneValue().Group("Texts");
  flags.Option("--random", args->random, "random texts besides: scripts, marks, spaces, broken bytes")
      .Range(0, 10'000'000)
      .ShowDefault()
      .Group("Texts");
  flags.Option("--seed", args->seed, "of the random texts").ShowDefault().Group("Texts");
  flags.Switch("--no-battery", args->no_battery, "leave out the hard strings that come with paritybit")
      .Group("Texts");
  AddOutputArguments(flags, args->pair.output, "all that is known, and logs to stderr");
  return [args] {
    auto exit_code = Run(*args);
    return exit_code ? *exit_code : Fail(args->pair.output, exit_code.error());
  };
}

}  // namespace pb::cli
