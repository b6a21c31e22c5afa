// paritybit gate: a CI's policy, gate by gate; and `gate mapper`, whether every tensor of a model
// file has a name that something reads.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/toml_text.h"
#include "cli/arguments.h"
#include "cli/baselines.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/receipts.h"
#include "model/unmapped.h"
#include "receipt/policy.h"
#include "receipt/schema.h"
#include "report/json.h"
#include "report/policy_report.h"

namespace pb::cli {
namespace {

struct GateArguments {
  std::string policy, junit, reason;
  ModelArguments model;
  bool update_baseline = false, require_cpp = false;
  OutputArguments output;
};

receipt::Gate Failed(const char* name, compare::Outcome outcome, std::string why) {
  return {name, false, outcome, std::move(why)};
}

// What an error that left no receipt comes to.
compare::Outcome OutcomeOfError(const Error& error) {
  return error.code == Code::kEngine || error.code == Code::kTimeout ? compare::Outcome::kEngineFailed
                                                                     : compare::Outcome::kIncomplete;
}

class PolicyRun {
 public:
  PolicyRun(const GateArguments& args, const receipt::Policy& policy) : args_(args), policy_(policy) {}

  report::PolicyReport Run() {
    Progress progress(args_.output, "gates");
    report::PolicyReport report;
    report.path = args_.policy;
    for (size_t i = 0; i < policy_.gates.size(); ++i) {
      progress.Update("gate " + policy_.gates[i].name, static_cast<int64_t>(i),
                      static_cast<int64_t>(policy_.gates.size()));
      const auto start = std::chrono::steady_clock::now();
      report.cases.push_back(RunGate(policy_.gates[i]));
      report.cases.back().seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    return report;
  }

 private:
  report::PolicyCase RunGate(const receipt::GatePolicy& gate) {
    report::PolicyCase c;
    c.name = gate.name;
    c.what = gate.run.empty() ? gate.receipt : fmt::format("{}", fmt::join(gate.run, " "));
    auto opened = Obtain(gate);
    if (!opened.ok()) {
      c.checks = {Failed("receipt", OutcomeOfError(opened.error()), opened.error().message)};
      return c;
    }
    receipt::Here here;
    here.now = NowSeconds();
    here.max_age_days = gate.max_age_days, here.as_recorded = gate.as_recorded;
    here.files_must_be_here = !gate.as_recorded;
    const bool readable = opened->object.is_object() && receipt::ReceiptViolations(opened->object).empty();
    if (readable) {
      here.files = receipt::FilesOf(opened->object);
      LookForFiles("", &here.files);
      c.verdict = opened->object["verdict"].get<std::string>();
      c.digest = opened->digest;
    }
    c.checks = receipt::CheckGates(*opened, here);
    if (!readable) return c;
    for (receipt::Gate& check : receipt::CheckPolicy(opened->object, gate, args_.require_cpp))
      c.checks.push_back(std::move(check));
    if (gate.baseline) Baseline(*opened, gate, &c);
    return c;
  }

  static Result<receipt::Opened> Obtain(const receipt::GatePolicy& gate) {
    if (!gate.run.empty()) return RunForReceipt(gate.run);
    PB_ASSIGN(const std::string text, ReadFile(gate.receipt, kMaxReceiptBytes));
    return receipt::Open(text);
  }

  // Holds it against the newest baseline; asked for, it becomes one where it passes, and where it
  // falls behind only for a reason.
  void Baseline(const receipt::Opened& opened, const receipt::GatePolicy& gate, report::PolicyCase* c) {
    auto newest = NewestBaseline(policy_.baselines, gate.name);
    if (!newest.ok()) {
      c->checks.push_back(Failed("baseline", compare::Outcome::kIncomplete, newest.error().message));
      return;
    }
    const bool good_so_far = c->failure() == nullptr;
    std::vector<receipt::Gate> checks;
    if (*newest) checks = receipt::CheckBaseline(opened.object, (*newest)->receipt);
    const bool behind =
        std::any_of(checks.begin(), checks.end(), [](const auto& check) { return !check.passed; });
    if (!args_.update_baseline) {
      if (!*newest)
        checks = {Failed("baseline", compare::Outcome::kIncomplete,
                         fmt::format("there is none in {}; --update-baseline writes it", policy_.baselines))};
      c->checks.insert(c->checks.end(), checks.begin(), checks.end());
      return;
    }
    if (!good_so_far) return;  // what does not pass becomes no baseline
    if (behind && args_.reason.empty()) {
      c->checks.push_back(
          Failed("baseline", checks[0].outcome, checks[0].saw + "; not updated: that takes a --reason"));
      return;
    }
    auto written =
        WriteBaseline(policy_.baselines, gate.name, opened.object, behind ? checks[0].saw : "", args_.reason);
    if (written.ok())
      c->baseline = *written + " is written";
    else
      c->checks.push_back(Failed("baseline", compare::Outcome::kIncomplete, written.error().message));
  }

  const GateArguments& args_;
  const receipt::Policy& policy_;
};

Result<int> RunPolicy(const GateArguments& args) {
  PB_TRY(CheckReceiptPath(args.junit));
  constexpr uint64_t kMaxPolicyBytes = 1 << 20;
  PB_ASSIGN(const std::string text, ReadFile(args.policy, kMaxPolicyBytes));
  auto toml = ParseToml(text);
  if (!toml.ok()) return std::move(toml).error().In(args.policy);
  auto policy = receipt::ReadPolicy(*toml);
  if (!policy.ok()) return std::move(policy).error().In(args.policy);
  const report::PolicyReport report = PolicyRun(args, *policy).Run();
  report::TextOptions options;
  options.colour = UseColour(STDOUT_FILENO), options.width = TerminalWidth(STDOUT_FILENO);
  PrintOut(args.output.json() ? report::RenderJson(report) : report::RenderText(report, options));
  if (!args.junit.empty()) PB_TRY(WriteFileAtomic(args.junit, report::RenderJunit(report)));
  return compare::ExitCode(report.outcome());
}

// The documented gate of tensor names, and its object.
Result<int> RunMapper(const GateArguments& args) {
  PB_ASSIGN(const run::Choice model, ChooseModel(args.model));
  PB_ASSIGN(const GgufFile file, GgufFile::Open(model.value));
  const std::vector<std::string> unmapped = UnmappedTensors(file);
  const size_t n = file.tensors().size();
  const bool ok = unmapped.empty() && n > 0;
  auto object = Envelope("paritybit.gate-mapper/0", ok ? "match" : "diverged", ok ? kExitOk : 1);
  if (n == 0) object["reasons"].push_back({{"code", "no-tensors"}, {"text", "the file has no tensor"}});
  if (!unmapped.empty())
    object["reasons"].push_back(
        {{"code", "unmapped"},
         {"text", fmt::format("{} of {} tensors have a name that no op reads, first {}", unmapped.size(), n,
                              unmapped[0])}});
  object["name"] = "ms_bitnet_names_map_clean";
  object["ok"] = ok;
  object["unmapped_count"] = unmapped.size();
  constexpr size_t kSample = 10;
  object["sample_unmapped"] = std::vector<std::string>(
      unmapped.begin(), unmapped.begin() + static_cast<ptrdiff_t>(std::min(unmapped.size(), kSample)));
  object["counts"] = {{"n_tensors", n}, {"n_mapped", n - unmapped.size()}, {"n_unmapped", unmapped.size()}};
  PrintJson(object);
  return ok ? kExitOk : 1;
}

Result<int> Gate(const GateArguments& args) {
  if (args.policy == "mapper") return RunMapper(args);
  if (!args.model.model.empty())
    return MakeError(Code::kUsage, "--model is of `gate mapper`; the gates of a policy name their own");
  if (!args.reason.empty() && !args.update_baseline)
    return MakeError(Code::kUsage, "--reason is of --update-baseline");
  return RunPolicy(args);
}

}  // namespace

Action DeclareGate(Flags& flags) {
  auto args = std::make_shared<GateArguments>();
  flags
      .Option("policy", args->policy,
              "the policy (TOML, docs/receipts.md); or the word mapper, for the gate of tensor names")
      .Required()
      .Group("Policy");
  flags.Option("-m,--model", args->model.model, "of `gate mapper`: the model file").Group("Policy");
  flags.Switch("--require-cpp", args->require_cpp, "fail every gate in which no C++ reference took part")
      .Group("Policy");
  flags
      .Switch("--update-baseline", args->update_baseline,
              "write what passes to BASELINES/DATE/NAME.json, for gates that have a baseline")
      .Group("Baselines");
  flags
      .Option("--reason", args->reason,
              "why a new baseline may fall behind the one before: a looser limit, a worse verdict, less that "
              "is compared")
      .Group("Baselines");
  flags.Option("--junit", args->junit, "write the gates to this file as JUnit's XML, a test case each")
      .Group("Output");
  AddOutputArguments(flags, args->output, nullptr);
  return [args] {
    auto exit_code = Gate(*args);
    return exit_code ? *exit_code : Fail(args->output, exit_code.error());
  };
}

}  // namespace pb::cli
