// paritybit trace-diff: two traces against each other. No engine is run but the reference's own,
// for its noise floor, where that is not kept beside its trace.
#include <fmt/core.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>

#include "base/blake3.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/arguments.h"
#include "cli/bisect.h"
#include "cli/command.h"
#include "cli/crossval_common.h"
#include "cli/history_log.h"
#include "cli/next.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/receipts.h"
#include "cli/report_files.h"
#include "drive/participant.h"
#include "formats/gguf.h"
#include "report/trace_diff_report.h"
#include "run/trace_floor.h"
#include "tokenizer/gguf_keys.h"

namespace pb::cli {
namespace {

using run::NextCommand;

struct TraceDiffArguments {
  std::string folders[2];  // candidate, reference
  std::optional<double> max_rel_l2;
  std::string receipt;
  std::vector<std::string> reports;
  bool different_models = false, table = false, git_bisect = false;
  std::vector<std::string> filters;
  OutputArguments output;
};

bool IsHere(const trace::Manifest& m) { return !m.engine.empty() && ResolveEngine(m.engine, {}).ok(); }

// The reference of a further run: its engine, or its full trace where that is none that is here
// (PyTorch). Empty: neither.
std::string ReferenceSpec(const trace::Manifest& m, const std::string& folder) {
  if (IsHere(m)) return m.engine;
  return m.level == trace::Level::kFull && !m.engine.empty() ? "replay,trace=" + folder : "";
}

// What the user set of a recorded engine, beside its own name: the facts that came from there.
std::vector<std::string> SettingsOf(const trace::Manifest& m) {
  std::vector<std::string> settings;
  for (const trace::Facts* facts : {&m.model_facts, &m.session_facts})
    for (const trace::Fact& fact : *facts)
      if (fact.origin == "set" && fact.key != "n_ctx" && fact.key != "threads" && fact.key != "attn.flash" &&
          m.engine.find(fact.key + "=") == std::string::npos)
        settings.push_back(fact.key + "=" + fact.value);
  return settings;
}

// The comparison that the traces stand for.
std::optional<NextCommand> CrossvalCommand(const TraceDiffArguments& args, const trace::Manifest (&m)[2]) {
  const std::string reference = ReferenceSpec(m[1], args.folders[1]);
  const bool same_model = !m[0].model_sha256.empty() && m[0].model_sha256 == m[1].model_sha256;
  if (!same_model || m[1].model_path.empty() || m[1].prompt.empty() || !IsHere(m[0]) || reference.empty())
    return std::nullopt;
  CrossvalArguments compared;
  compared.model.model = m[1].model_path;
  compared.engines.candidate = m[0].engine, compared.engines.reference = reference;
  compared.engines.set = SettingsOf(m[0]);
  if (reference == m[1].engine) compared.engines.set_reference = SettingsOf(m[1]);
  const int threads = std::atoi(trace::ReadSessionFacts(m[0].session_facts).threads.c_str());
  if (threads > 1) compared.engines.threads = threads;
  compared.prompts.prompts = {m[1].prompt};
  compared.max_tokens = static_cast<int>(m[1].tokens.size()) - m[1].n_prompt;
  compared.user.rel_l2 = args.max_rel_l2;
  return NextCommand{CommandLine(compared, "crossval"), "each op on equal inputs"};
}

// What was asked for again, of these folders.
std::vector<std::string> WordsAgain(const TraceDiffArguments& args, const std::string (&folders)[2]) {
  std::vector<std::string> words{"trace-diff", folders[0], folders[1]};
  for (const std::string& rule : args.filters) words.insert(words.end(), {"--filter", rule});
  if (args.different_models) words.emplace_back("--different-models");
  if (args.max_rel_l2) words.insert(words.end(), {"--rel-l2", fmt::format("{}", *args.max_rel_l2)});
  return words;
}

// What mends or goes on from here, with the traces' own paths filled in.
std::vector<NextCommand> NextCommands(const TraceDiffArguments& args, const compare::TraceDiff& diff,
                                      const trace::Manifest (&m)[2]) {
  std::vector<NextCommand> next;
  if (diff.verdict.Has(compare::ReasonCode::kTokensDiffer) && !m[0].model_path.empty() && IsHere(m[0])) {
    std::vector<std::string> words{"trace", "--model", m[0].model_path, "--engine", m[0].engine};
    for (const std::string& setting : SettingsOf(m[0])) words.insert(words.end(), {"--set", setting});
    words.insert(words.end(), {"--like", args.folders[1], "--out", "trace-again"});
    next.push_back({Call(words), "the candidate over the reference's tokens"});
  }
  if (!diff.verdict.Has(compare::ReasonCode::kNotJudged) &&
      diff.verdict.outcome != compare::Outcome::kDiverged)
    return next;
  if (auto compared = CrossvalCommand(args, m)) next.push_back(*std::move(compared));
  if (args.table) return next;
  std::vector<std::string> self = WordsAgain(args, args.folders);
  self.emplace_back("--table");
  next.push_back({Call(self), "every stage of every layer"});
  return next;
}

// Kept beside the trace, else measured with the engine that it names.
Result<compare::NoiseFloor> FloorOf(const trace::Trace& reference, int64_t n_tokens,
                                    const OutputArguments& output) {
  run::TraceFloorRequest request;
  const std::string& name = reference.manifest().engine;
  auto engine = ResolveEngine(name, {});
  if (engine.ok()) request.engine = std::move(engine).value();
  if (!engine.ok() && !run::HasKeptFloor(reference))
    return MakeError(Code::kNotFound,
                     "the reference's engine ({}) is not here, so its noise floor cannot be measured",
                     name.empty() ? "not recorded" : name);
  PB_ASSIGN(request.calibration, ReadCalibration());
  Progress progress(output);
  request.progress = progress.Callback();
  return run::FloorOfTrace(reference, n_tokens, request);
}

// The digest of the records, which hold those of every tensor.
std::string RecordsDigest(const std::string& folder) {
  auto records = MappedFile::Open(std::filesystem::path(folder) / trace::kRecordsFile);
  return records.ok() ? ToHex(Blake3Of(records->bytes())) : "";
}

// For `history`.
void Remember(const TraceDiffArguments& args, const compare::TraceDiff& diff, const trace::Manifest (&m)[2]) {
  receipt::HistoryEntry entry;
  entry.time = NowSeconds();
  entry.command = "trace-diff";
  std::string folders[2];
  std::error_code ignored;
  for (size_t side : {0u, 1u}) {
    folders[side] = std::filesystem::absolute(args.folders[side], ignored).string();
    const trace::EngineFacts facts = trace::ReadEngineFacts(m[side].engine_facts);
    entry.engines[side] = {EscapeInvalid(m[side].engine), EscapeInvalid(facts.name),
                           EscapeInvalid(facts.version), ""};
  }
  entry.call = EscapeInvalid(Call(WordsAgain(args, folders)));
  entry.verdict = compare::OutcomeName(diff.verdict.outcome);
  if (!diff.verdict.reasons.empty()) entry.why = EscapeInvalid(diff.verdict.reasons[0].text);
  if (const auto& at = diff.verdict.first_divergence)
    entry.place =
        at->stage ? compare::PointName(*at->stage, at->layer) : fmt::format("position {}", at->position);
  entry.model = EscapeInvalid(std::filesystem::path(m[0].model_path).filename().string());
  entry.model_sha256 = m[0].model_sha256;
  AppendHistory(entry);
}

int WriteTraceDiffReceipt(const TraceDiffArguments& args, const compare::TraceDiff& diff,
                          report::TraceDiffContext context, int exit_code) {
  std::error_code ignored;
  for (int side : {0, 1}) {
    context.records_blake3[side] = RecordsDigest(args.folders[side]);
    context.folders[side] = std::filesystem::absolute(args.folders[side], ignored).string();
  }
  return WriteReceipt(args.receipt,
                      report::RenderReceipt(diff, context, MakeContext("trace-diff"),
                                            HeadOf(WordsAgain(args, context.folders))),
                      exit_code);
}

// The text of each token that is told of, where the very model file that was traced is here.
std::map<int32_t, std::string> TextsOfTokens(const trace::Manifest& manifest,
                                             const compare::TraceDiff& diff) {
  const auto digest = drive::CachedFileSha256(manifest.model_path);
  if (!digest.ok() || *digest != manifest.model_sha256) return {};
  const auto file = GgufFile::Open(manifest.model_path);
  if (!file.ok()) return {};
  auto data = ReadTokenizerData(*file);
  if (!data.ok()) return {};
  const auto tokenizer = Tokenizer::Create(std::move(data).value());
  if (!tokenizer.ok()) return {};
  std::set<int32_t> ids(manifest.tokens.begin(), manifest.tokens.end());
  for (const compare::LogitsRow& row : diff.logits)
    for (const std::vector<int32_t>& best : row.top_k) ids.insert(best.begin(), best.end());
  std::map<int32_t, std::string> texts;
  for (const int32_t id : ids)
    if (auto text = (*tokenizer)->Decode(std::span(&id, 1), true); text.ok()) texts[id] = *std::move(text);
  return texts;
}

Result<int> RunTraceDiff(const TraceDiffArguments& args) {
  PB_TRY(CheckReceiptPath(args.receipt));
  PB_TRY(CheckReports(args.reports, args.output));
  compare::TraceDiffOptions options;
  options.max_rel_l2 = args.max_rel_l2;
  options.different_models = args.different_models;
  for (const std::string& rule : args.filters) PB_TRY(options.filter.Add(rule));
  PB_ASSIGN(trace::Trace candidate, trace::Trace::Open(args.folders[0]));
  PB_ASSIGN(trace::Trace reference, trace::Trace::Open(args.folders[1]));
  options.floor = [&](int64_t n_tokens) { return FloorOf(reference, n_tokens, args.output); };
  PB_ASSIGN(compare::TraceDiff diff, compare::DiffTraces(candidate, reference, options));
  report::TraceDiffContext context;
  for (int side : {0, 1}) context.folders[side] = args.folders[side];
  context.manifests[0] = candidate.manifest();
  context.manifests[1] = reference.manifest();
  context.next = NextCommands(args, diff, context.manifests);
  Remember(args, diff, context.manifests);
  std::error_code ignored;
  context.same_folder = std::filesystem::equivalent(args.folders[0], args.folders[1], ignored);
  if (args.output.json()) {
    PrintOut(report::RenderJson(diff, context));
  } else {
    report::TextOptions shown;
    shown.quiet = args.output.quiet;
    shown.width = TerminalWidth(STDOUT_FILENO), shown.details = args.table || args.output.verbose;
    PrintText(report::RenderText(diff, context, shown));
  }
  int exit_code = compare::ExitCode(diff.verdict.outcome);
  if (args.git_bisect) exit_code = BisectVerdict(diff.verdict, exit_code);
  if (!args.reports.empty()) {
    const auto texts = TextsOfTokens(reference.manifest(), diff);
    report::Summary summary = report::SummaryOf(diff, context, MakeContext("trace-diff"));
    summary.token_text = &texts;
    exit_code =
        WriteReports(args.reports, std::move(summary), Call(WordsAgain(args, args.folders)), exit_code);
  }
  if (!args.receipt.empty()) exit_code = WriteTraceDiffReceipt(args, diff, std::move(context), exit_code);
  return exit_code;
}

}  // namespace

Action DeclareTraceDiff(Flags& flags) {
  auto args = std::make_shared<TraceDiffArguments>();
  flags.Option("candidate", args->folders[0], "folder of the trace under test").Required().Group("Traces");
  flags.Option("reference", args->folders[1], "folder of the trace to agree with").Required().Group("Traces");
  flags
      .Option("--filter", args->filters,
              "points to compare, such as stage=q_*|k_*,layer=0-3,step=0,position=5-; may be repeated "
              "(default: all)")
      .OneValue()
      .Group("Traces");
  flags.Switch("--different-models", args->different_models, "the traces are of two model files on purpose")
      .Group("Traces");
  flags
      .Option("--rel-l2", args->max_rel_l2,
              "largest rel-L2 of a token row, or of a tensor whose rows are not recorded (default: no such "
              "limit)")
      .NonNegative()
      .Group("Limits");
  AddReceiptArgument(flags, args->receipt);
  AddReportArgument(flags, args->reports);
  AddBisectArgument(flags, args->git_bisect);
  flags.Switch("--table", args->table, "show every stage of every layer").Group("Output");
  AddQuietArgument(flags, args->output);
  AddOutputArguments(flags, args->output, "as --table, and log each step to stderr");
  return [args] {
    auto exit_code = RunTraceDiff(*args);
    return exit_code ? *exit_code : Fail(args->output, exit_code.error());
  };
}

}  // namespace pb::cli
