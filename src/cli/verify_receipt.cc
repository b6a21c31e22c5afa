// paritybit verify-receipt: a receipt against its eight gates and, asked for, against a new run.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/receipts.h"
#include "receipt/again.h"
#include "receipt/schema.h"
#include "report/gates_report.h"

namespace pb::cli {
namespace {

constexpr const char* kDocumentedPath = "ci/inference.json";

struct VerifyArguments {
  std::string receipt, path, model;
  std::optional<double> max_age_days;
  bool recompute = false, require_gpu = false, as_recorded = false;
  OutputArguments output;
};

// Runs what the receipt says again, without anything that a reference computed before.
Result<receipt::Again> Recompute(const nlohmann::json& recorded, const OutputArguments& output) {
  const std::string command = recorded["command"];
  if (command == "benchmark")
    return MakeError(
        Code::kUnsupported,
        "--recompute: a speed is not the same twice; bench-compare holds one measurement against "
        "another");
  PB_ASSIGN(std::vector<std::string> words, WordsOf(recorded));
  for (const std::string& word : words)
    for (const char* flag : {"--receipt", "--keep-traces", "--report", "--out"})
      if (word == flag || word.starts_with(std::string(flag) + "="))
        return MakeError(Code::kMalformed, "the command of the receipt writes files ({}), so it is not run",
                         flag);
  if (command.starts_with("crossval")) words.insert(words.end(), {"--reuse", "never"});
  Progress progress(output, "running it again");
  PB_ASSIGN(const receipt::Opened again, RunForReceipt(std::move(words)));
  progress.End();
  if (!again.problem.empty() || !receipt::ReceiptViolations(again.object).empty())
    return MakeError(Code::kInternal, "the new run wrote no receipt that can be read: {}", again.problem);
  return receipt::CompareAgain(recorded, again.object);
}

Result<int> Verify(const VerifyArguments& args) {
  if (!args.receipt.empty() && !args.path.empty() && args.receipt != args.path)
    return MakeError(Code::kUsage, "two receipts are named, {} and {}: one is checked", args.receipt,
                     args.path);
  report::GatesReport report;
  report.path = !args.receipt.empty() ? args.receipt : !args.path.empty() ? args.path : kDocumentedPath;
  PB_ASSIGN(const std::string text, ReadFile(report.path, kMaxReceiptBytes));
  const receipt::Opened opened = receipt::Open(text);
  receipt::Here here;
  here.now = NowSeconds();
  here.max_age_days = args.max_age_days, here.as_recorded = args.as_recorded;
  here.require_gpu = args.require_gpu;
  const bool readable = opened.object.is_object() && receipt::ReceiptViolations(opened.object).empty();
  if (readable) {
    report.receipt = &opened.object;
    here.files = receipt::FilesOf(opened.object);
    LookForFiles(args.model, &here.files);
  }
  report.gates = receipt::CheckGates(opened, here);
  report.outcome = readable ? receipt::OutcomeOf(report.gates, opened.object) : compare::Outcome::kInvalid;
  if (args.as_recorded)
    report.notes.push_back("--as-recorded: whether model and engines here are still those was not to count");
  if (readable) {
    for (const nlohmann::json& limit : opened.object["limits"])
      if (limit["by_user"].get<bool>())
        report.notes.push_back(fmt::format("the limit {} was given by the user, not measured: {}",
                                           limit["name"].get<std::string>(), limit["value"].dump()));
  }
  const bool stands = std::all_of(report.gates.begin(), report.gates.end(),
                                  [](const receipt::Gate& gate) { return gate.passed; });
  if (args.recompute && stands) {
    PB_ASSIGN(report.again, Recompute(opened.object, args.output));
    report.outcome = std::max(report.outcome, report.again->outcome);
  } else if (args.recompute) {
    report.notes.push_back("--recompute: nothing was run, as the receipt does not stand by itself");
  }
  report::TextOptions options;
  options.colour = UseColour(STDOUT_FILENO), options.width = TerminalWidth(STDOUT_FILENO);
  PrintOut(args.output.json() ? report::RenderJson(report) : report::RenderText(report, options));
  return compare::ExitCode(report.outcome);
}

}  // namespace

Action DeclareVerifyReceipt(Flags& flags) {
  auto args = std::make_shared<VerifyArguments>();
  flags.Option("receipt", args->receipt, "the receipt's file").Group("Receipt");
  flags.Option("--path", args->path, fmt::format("the same (default: {})", kDocumentedPath)).Group("Receipt");
  flags.Option("-m,--model", args->model, "where the model lies here (default: where it lay)")
      .Group("Receipt");
  flags.Switch("--recompute", args->recompute, "run it again as the receipt says, and compare")
      .Group("Gates");
  flags
      .Option("--max-age", args->max_age_days,
              "the oldest that it may be, in days (default: any age, while model and engines are the same)")
      .NonNegative()
      .Group("Gates");
  flags
      .Switch("--as-recorded", args->as_recorded,
              "do not ask whether model and engines here are still those that it is of, as of a receipt from "
              "an archive")
      .Group("Gates");
  flags.Switch("--require-gpu-kernels", args->require_gpu, "fail where no engine of it computed on a GPU")
      .Group("Gates");
  AddOutputArguments(flags, args->output, nullptr);
  return [args] {
    auto exit_code = Verify(*args);
    return exit_code ? *exit_code : Fail(args->output, exit_code.error());
  };
}

}  // namespace pb::cli
