// paritybit verify: what is wrong with a model file, found without running it.
#include <fmt/format.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/processors.h"
#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/next.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "report/escape.h"
#include "report/json.h"
#include "soundness/examine.h"

namespace pb::cli {
namespace {

using soundness::Examination;
using soundness::Finding;
using soundness::Severity;

struct VerifyArguments {
  OutputArguments output;
  ModelArguments model;
  std::string position, checkpoint;
  std::vector<std::string> set;
  bool strict = false;
};

constexpr size_t kWidth = 80;

std::string Upper(std::string text) {
  for (char& c : text)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return text;
}

// In one line. Quotation marks stay; what a terminal would obey is escaped when all is printed.
std::string OneLine(std::string_view text) {
  std::string out;
  for (char c : text) out += c == '\n' ? "\\n" : c == '\t' ? "\\t" : std::string(1, c);
  return out;
}

// A label, and what is said beside and below it.
std::string Line(std::string_view indent, std::string_view label, size_t column, std::string_view text) {
  const std::string head = fmt::format("{}{:<{}}", indent, label, column - indent.size());
  return head + report::Wrap(std::string(text), kWidth, column) + "\n";
}

std::string TextOf(const Finding& finding) {
  constexpr size_t kColumn = 9;
  std::string out =
      fmt::format("\n{}  {}\n", Upper(soundness::SeverityName(finding.kind->severity)), finding.kind->code);
  if (!finding.where.empty()) out += Line("  ", "where", kColumn, OneLine(finding.where));
  out += Line("  ", "found", kColumn, OneLine(finding.text));
  out += Line("  ", "means", kColumn, finding.kind->consequence);
  return out + Line("  ", "cure", kColumn, finding.cure);
}

std::string Counts(const soundness::Findings& findings) {
  std::string text;
  for (Severity severity : {Severity::kError, Severity::kWarning, Severity::kNote}) {
    const int n = findings.Count(severity);
    if (n > 0)
      text += fmt::format("{}{} {}{}", text.empty() ? "" : ", ", n, soundness::SeverityName(severity),
                          n == 1 ? "" : "s");
  }
  return text.empty() ? "no finding" : text;
}

// The verdict in one sentence.
std::string Headline(const std::string& model, bool sound, const soundness::Findings& findings) {
  const bool errors = findings.Count(Severity::kError) > 0, warnings = findings.Count(Severity::kWarning) > 0;
  const char* what = errors     ? "the model file is broken"
                     : !sound   ? "there are warnings, which --strict does not let pass"
                     : warnings ? "no error shows without running it, but read the warnings"
                                : "nothing is wrong with it that shows without running it";
  return fmt::format("{}  {}: {} ({})  {}", sound ? "SOUND" : "INVALID", OneLine(model), what,
                     Counts(findings),
                     report::Together(fmt::format("(exit {})", sound ? kExitOk : kExitIncomplete)));
}

// The first of each kind, and how many more there are.
std::string FindingsOf(Severity severity, const soundness::Findings& findings) {
  constexpr int kShown = 3;
  std::map<const soundness::FindingKind*, int> seen;
  std::string out;
  for (const Finding& finding : findings.items())
    if (finding.kind->severity == severity && ++seen[finding.kind] <= kShown) out += TextOf(finding);
  for (const auto& [kind, n] : seen)
    if (n > kShown)
      out += fmt::format("\n{} more of {}: --format json has all of them\n", n - kShown, kind->code);
  return out;
}

std::string Text(const std::string& model, bool sound, const Examination& examined) {
  constexpr size_t kColumn = 15;
  std::string out = report::Wrap(Headline(model, sound, examined.findings), kWidth, 7) + "\n\n";
  for (const soundness::Part& part : examined.parts) out += Line("", part.name, kColumn, OneLine(part.text));
  for (Severity severity : {Severity::kError, Severity::kWarning, Severity::kNote})
    out += FindingsOf(severity, examined.findings);
  return out;
}

nlohmann::ordered_json Json(const std::string& model, bool sound, const VerifyArguments& args,
                            const Examination& examined) {
  auto object =
      Envelope("paritybit.verify/0", sound ? "sound" : "invalid", sound ? kExitOk : kExitIncomplete);
  object["model"] = model;
  object["strict"] = args.strict;
  object["parts"] = nlohmann::ordered_json::array();
  for (const soundness::Part& part : examined.parts)
    object["parts"].push_back({{"name", part.name}, {"done", part.done}, {"text", part.text}});
  object["counts"] = {{"error", examined.findings.Count(Severity::kError)},
                      {"warning", examined.findings.Count(Severity::kWarning)},
                      {"note", examined.findings.Count(Severity::kNote)}};
  object["findings"] = nlohmann::ordered_json::array();
  for (const Finding& finding : examined.findings.items()) {
    object["findings"].push_back({{"code", finding.kind->code},
                                  {"severity", soundness::SeverityName(finding.kind->severity)},
                                  {"where", finding.where},
                                  {"text", finding.text},
                                  {"consequence", finding.kind->consequence},
                                  {"cure", finding.cure}});
    const bool decides = finding.kind->severity == Severity::kError ||
                         (args.strict && finding.kind->severity == Severity::kWarning);
    if (decides) object["reasons"].push_back({{"code", finding.kind->code}, {"text", finding.text}});
  }
  return object;
}

Result<int> Verify(VerifyArguments& args) {
  if (!args.position.empty()) {
    if (!args.model.model.empty())
      return MakeError(Code::kUsage, "the model is given twice: {} and --model {}", args.position,
                       args.model.model);
    args.model.model = args.position;
  }
  PB_ASSIGN(const run::Choice model, ChooseModel(args.model));
  soundness::Request request;
  request.model = model.value;
  PB_ASSIGN(const host::Settings settings, ParseSettings(args.set, "--set"));
  for (const auto& [key, value] : settings) {
    PB_ASSIGN(const bool taken, Declare(key, value, &request.options));
    if (!taken)
      return MakeError(Code::kUsage,
                       "--set {}: nothing of a model file (ffn.activation, norm.eps, rope.base, "
                       "rope.scale are)",
                       key);
  }
  if (!args.model.hf_config.empty())
    PB_TRY([&]() -> Status {
      auto taken = Declare("hf.config", args.model.hf_config, &request.options);
      return taken.ok() ? Status() : Status(std::move(taken).error());
    }());
  if (!args.model.tokenizer.empty()) request.tokenizer = args.model.tokenizer;
  if (!args.checkpoint.empty()) {
    request.checkpoint = args.checkpoint;
    // The checkpoint's own, unless another was named.
    const std::filesystem::path config = *request.checkpoint / "config.json";
    std::error_code error;
    if (args.model.hf_config.empty() && std::filesystem::exists(config, error))
      request.options.hf_config = config;
  }
  request.n_threads = ProcessorCount();
  Progress progress(args.output, "opening");
  request.progress = [&](std::string_view what, int64_t done, int64_t total) {
    progress.Update(what, done, total);
  };
  PB_ASSIGN(const Examination examined, soundness::Examine(request));
  progress.End();
  const bool sound = examined.findings.Count(Severity::kError) == 0 &&
                     !(args.strict && examined.findings.Count(Severity::kWarning) > 0);
  if (args.output.json())
    PrintJson(Json(model.value, sound, args, examined));
  else
    PrintText(Text(model.value, sound, examined));
  return sound ? kExitOk : kExitIncomplete;
}

}  // namespace

Action DeclareVerify(Flags& flags) {
  auto args = std::make_shared<VerifyArguments>();
  flags.Option("MODEL", args->position, "the GGUF file, or the first of a set (else --model)").Group("Input");
  flags.Option("-m,--model", args->model.model, "the same; else $CROSSVAL_GGUF").Group("Input");
  flags
      .Option("--hf-config", args->model.hf_config,
              "config.json to hold it against (default: the one beside it; none: none)")
      .Group("Input");
  flags.Option("--hf", args->checkpoint, "folder of the checkpoint (safetensors) that it was converted from")
      .Group("Input");
  flags
      .Option("--tokenizer", args->model.tokenizer, "tokenizer.json or GGUF file whose tokens it should have")
      .Group("Input");
  flags
      .Option("--set", args->set,
              "what counts where files contradict: ffn.activation=, norm.eps=, rope.base=")
      .OneValue()
      .Group("Input");
  flags.Switch("--strict", args->strict, "warnings fail too (exit 3)").Group("Verdict");
  AddOutputArguments(flags, args->output, "progress as lines");
  return [args] {
    auto exit_code = Verify(*args);
    return exit_code ? *exit_code : Fail(args->output, exit_code.error());
  };
}

}  // namespace pb::cli
