// paritybit trace: records what an engine computes, point by point.
#include <fmt/format.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/text.h"
#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/refusal.h"
#include "cli/variables.h"
#include "drive/capture.h"
#include "drive/context_room.h"
#include "report/escape.h"
#include "run/doubts.h"
#include "trace/reader.h"

namespace pb::cli {
namespace {

struct TraceArguments {
  ModelArguments model;
  EngineArguments engines;
  PromptArguments prompts;
  OutputArguments output;
  std::string engine = "native", out, like, level = "sketch";
  std::vector<std::string> filters;
  int max_tokens = 0, prefill = 0;
  bool per_row = false;
};

// The folder with who named it: flag beats variable.
Result<run::Choice> ChooseFolder(const TraceArguments& args) {
  if (!args.out.empty()) return run::Choice{"out", args.out, "flag --out"};
  if (const char* variable = VariableValue("BITNET_TRACE_DIR"))
    return run::Choice{"out", variable, "variable BITNET_TRACE_DIR"};
  return MakeError(Code::kUsage, "no folder for the trace: name one with --out or in BITNET_TRACE_DIR");
}

// -v, or the variable where it is set to anything but 0.
bool IsVerbose(const TraceArguments& args) {
  const char* variable = VariableValue("BITNET_TRACE_VERBOSE");
  return args.output.verbose || (variable && std::string_view(variable) != "0");
}

void LogRecord(const trace::Record& r) {
  PrintError(fmt::format("{}  ({})  rms {:.6g}  blake3:{}\n", report::Escape(r.name),
                         fmt::join(r.shape, ", "), r.rms, r.blake3.substr(0, 12)));
}

// What to evaluate: the tokens of another trace, or those of the prompt.
Status ReadSequence(const TraceArguments& args, drive::Participant& engine, drive::TraceRequest* request,
                    std::string* prompt) {
  request->max_tokens = args.max_tokens;
  if (args.like.empty()) {
    PB_ASSIGN(const run::PromptSpec spec, ReadOnePrompt(args.prompts, "trace"));
    *prompt = spec.text;
    PB_ASSIGN(request->tokens, engine.Tokenize(*prompt));
    PB_TRY(drive::CheckRoom(engine.record(), request->tokens.size(), spec.origin));
    request->n_prefill = args.prefill;
  } else {
    PB_ASSIGN(trace::Trace like, trace::Trace::Open(args.like));
    const trace::Manifest& manifest = like.manifest();
    *prompt = manifest.prompt;
    request->tokens = manifest.tokens;
    request->n_prefill = args.prefill > 0 ? args.prefill : manifest.n_prompt;
    if (request->tokens.empty())
      return MakeError(Code::kUsage, "--like {}: that trace does not say which tokens it is of", args.like);
  }
  if (request->tokens.empty()) return MakeError(Code::kUsage, "the prompt has no tokens");
  return {};
}

Result<trace::PointFilter> ReadFilter(const std::vector<std::string>& rules) {
  trace::PointFilter filter;
  for (const std::string& rule : rules) PB_TRY(filter.Add(rule));
  return filter;
}

// What was recorded and whether it can be relied on.
struct Outcome {
  int exit_code = kExitOk;
  std::string verdict = "ok";
  std::vector<std::pair<std::string, std::string>> reasons;  // code, text
};

Outcome Judge(const trace::Manifest& manifest) {
  Outcome outcome;
  auto incomplete = [&outcome](const char* code, std::string text) {
    outcome.exit_code = kExitIncomplete;
    outcome.verdict = "incomplete";
    outcome.reasons.emplace_back(code, std::move(text));
  };
  if (manifest.n_records == 0)
    incomplete("no-records", manifest.filter.empty() ? "the engine showed no point, so nothing was recorded"
                                                     : "the filter takes no point, so nothing was recorded");
  if (manifest.logits_blake3 != manifest.logits_blake3_untapped)
    incomplete(
        "observer-effect",
        "the engine's logits change when its points are watched, so the trace does not show what it computes "
        "otherwise");
  return outcome;
}

void PrintSummary(const run::Choice& folder, const trace::Manifest& manifest,
                  const drive::TraceSummary& summary, const Outcome& outcome,
                  const std::vector<std::string>& notes) {
  const size_t n_decode = manifest.tokens.size() - static_cast<size_t>(manifest.n_prompt);
  std::string text = fmt::format("trace      {} [{}]\n", folder.value, folder.origin);
  text += fmt::format("engine     {}\n", manifest.engine);
  text += fmt::format("model      {}  sha256:{}\n", manifest.model_path, manifest.model_sha256.substr(0, 12));
  text += fmt::format("tokens     {} in the prefill, {} decode steps\n", manifest.n_prompt, n_decode);
  text += fmt::format("recorded   {} points, level {}{}{}\n", manifest.n_records,
                      trace::LevelName(manifest.level), manifest.per_row ? ", row by row" : "",
                      manifest.filter.empty() ? "" : ", filter " + manifest.filter);
  for (const auto& [stage, reason] : manifest.unobservable)
    text += fmt::format("           {} is not observable: {}\n", stage, reason);
  text += fmt::format("logits     blake3:{}, {} without taps\n", summary.logits_blake3.substr(0, 12),
                      summary.logits_blake3 == summary.logits_blake3_untapped ? "the same" : "others");
  text +=
      fmt::format("time       {:.2f} s, {:.2f} s without taps\n", summary.seconds, summary.seconds_untapped);
  for (const std::string& note : notes) text += fmt::format("note       {}\n", report::Escape(note));
  for (const auto& [code, reason] : outcome.reasons) text += fmt::format("INCOMPLETE {}\n", reason);
  PrintText(text);
}

void PrintObject(const std::vector<run::Choice>& choices, const trace::Manifest& manifest,
                 const drive::TraceSummary& summary, const Outcome& outcome,
                 const std::vector<std::string>& notes) {
  auto object = Envelope("paritybit.trace-run/0", outcome.verdict, outcome.exit_code);
  for (const auto& [code, text] : outcome.reasons)
    object["reasons"].push_back({{"code", code}, {"text", text}});
  object["folder"] = choices[0].value;
  object["engine"] = manifest.engine;
  object["model"] = {{"path", manifest.model_path}, {"sha256", manifest.model_sha256}};
  object["tokens"] = manifest.tokens;
  object["n_prefill"] = manifest.n_prompt;
  object["level"] = trace::LevelName(manifest.level);
  object["per_row"] = manifest.per_row;
  object["filter"] = manifest.filter;
  object["n_records"] = manifest.n_records;
  object["unobservable"] = manifest.unobservable;
  object["logits_blake3"] = summary.logits_blake3;
  object["logits_blake3_untapped"] = summary.logits_blake3_untapped;
  object["notes"] = notes;
  object["seconds"] = summary.seconds;
  object["seconds_untapped"] = summary.seconds_untapped;
  for (const run::Choice& choice : choices)
    object["choices"].push_back({{"key", choice.key}, {"value", choice.value}, {"origin", choice.origin}});
  PrintJson(object);
}

Result<int> RunTrace(const TraceArguments& args, drive::EngineRecord& record) {
  PB_ASSIGN(run::Choice folder, ChooseFolder(args));
  std::vector<run::Choice> choices = {folder};
  PB_ASSIGN(trace::PointFilter filter, ReadFilter(args.filters));
  PB_ASSIGN(trace::Level level, trace::ParseLevel(args.level));
  PB_ASSIGN(const OneEngine one, ChooseOneEngine(args.model, args.engines, args.engine, choices));

  // Each point that is told says how far it is.
  std::optional<Progress> progress;
  if (!IsVerbose(args)) progress.emplace(args.output);
  record.role = one.spec.text;
  drive::Participant engine(record, one.limits);
  PB_TRY(engine.Start(one.spec));
  PB_TRY(engine.OpenModel(one.model));
  drive::TraceRequest request;
  std::string prompt;
  PB_TRY(ReadSequence(args, engine, &request, &prompt));
  host::Settings wishes = {
      {"n_ctx", std::to_string(request.tokens.size() + static_cast<size_t>(args.max_tokens))}};
  // Flash attention computes scores, softmax and context in one op, so that they cannot be seen.
  if (!drive::FindSetting(one.spec.settings, "attn.flash")) wishes.emplace_back("attn.flash", "off");
  if (!drive::FindSetting(one.spec.settings, "threads")) wishes.emplace_back("threads", one.threads);
  PB_ASSIGN([[maybe_unused]] host::Settings taken, engine.OpenSessionWishing(std::move(wishes)));
  PB_ASSIGN(trace::Manifest manifest, drive::DescribeTrace(engine));
  manifest.level = level;
  manifest.per_row = args.per_row;
  manifest.prompt = prompt;
  manifest.filter = filter.text();
  PB_ASSIGN(auto writer, trace::Writer::Create(folder.value, std::move(manifest)));
  if (!progress) {
    writer->OnRecord(LogRecord);
  } else {
    request.progress = progress->Callback();
  }
  PB_ASSIGN(drive::TraceSummary summary, drive::RecordTrace(engine, request, *writer, filter));
  progress.reset();
  const Outcome outcome = Judge(writer->manifest());
  const auto n_positions = static_cast<int64_t>(writer->manifest().tokens.size());
  std::vector<std::string> notes = drive::FindingsOf(record, n_positions);
  for (std::string& note : run::NotesOnModel(one.model, one.spec.settings, n_positions))
    notes.push_back(std::move(note));
  run::NoteTokens(record, request.tokens, args.like.empty() ? "as given" : args.like, &notes);
  if (args.output.json()) {
    PrintObject(choices, writer->manifest(), summary, outcome, notes);
  } else {
    PrintSummary(folder, writer->manifest(), summary, outcome, notes);
  }
  return outcome.exit_code;
}

// What says what is recorded and where, as words of the command.
std::string RecordingWords(const TraceArguments& args) {
  const TraceArguments unsaid;
  std::string words;
  auto add = [&words](const char* flag, const std::string& value) {
    words += fmt::format("{}{} {}", words.empty() ? "" : " ", flag, ShellQuote(value));
  };
  if (!args.like.empty()) add("--like", args.like);
  if (args.prefill > 0) add("--prefill", std::to_string(args.prefill));
  if (args.level != unsaid.level) add("--level", args.level);
  for (const std::string& rule : args.filters) add("--filter", rule);
  if (!args.out.empty()) add("--out", args.out);
  if (args.per_row) words += words.empty() ? "--per-row" : " --per-row";
  return words;
}

}  // namespace

Action DeclareTrace(Flags& flags) {
  auto args = std::make_shared<TraceArguments>();
  AddModelArguments(flags, args->model);
  AddOnePromptArguments(flags, args->prompts);
  flags.Option("-n,--max-tokens", args->max_tokens, "greedy decode steps after the prompt")
      .Range(0, 1 << 20)
      .ShowDefault()
      .Group("Prompts");
  flags.Option("--like", args->like, "the tokens of another trace, step by step, instead of a prompt")
      .Group("Prompts");
  flags
      .Option("--prefill", args->prefill,
              "tokens evaluated at once; the rest follow one by one (default: the whole prompt)")
      .Positive()
      .Group("Prompts");
  flags.Option("-e,--engine", args->engine, "engine to record: NAME|PATH[,key=value...]")
      .ShowDefault()
      .Group("Engines");
  AddSettingArguments(flags, args->engines);
  flags.Option("-o,--out", args->out, "folder of the trace; else $BITNET_TRACE_DIR").Group("Trace");
  flags
      .Option(
          "--level", args->level,
          "digest: hashes and sizes; sketch: also how far two tensors are, +-25 %; full: also every value")
      .OneOf({"digest", "sketch", "full"})
      .ShowDefault()
      .Group("Trace");
  flags.Switch("--per-row", args->per_row, "hash and sketch of every token row, not of each tensor alone")
      .Group("Trace");
  flags
      .Option("--filter", args->filters,
              "points to record, such as stage=q_*|k_*,layer=0-3,step=0,position=5-; may be repeated "
              "(default: all)")
      .OneValue()
      .Group("Trace");
  AddOutputArguments(flags, args->output,
                     "every point as it is recorded, to stderr; else $BITNET_TRACE_VERBOSE");
  return [args] {
    drive::EngineRecord record;
    auto exit_code = RunTrace(*args, record);
    if (exit_code) return *exit_code;
    Refusal refusal =
        OneEngineRefusal("trace", args->model, args->engines, args->engine, args->prompts, args->max_tokens);
    refusal.more = RecordingWords(*args);
    return FailOfEngine(args->output, exit_code.error(), record, refusal);
  };
}

}  // namespace pb::cli
