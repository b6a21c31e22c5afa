// paritybit preflight: what is usable here: tools, references, models, variables; and the command
// that mends each gap.
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/next.h"
#include "cli/output.h"
#include "cli/setup_common.h"
#include "cli/variables.h"
#include "compare/reasons.h"
#include "report/escape.h"
#include "report/json.h"
#include "setup/setup.h"

namespace pb::cli {
namespace {

using nlohmann::ordered_json;

struct PreflightArguments {
  OutputArguments output;
  bool require_cpp = false, no_repair = false;
  std::string backend, repair = "never";
};

const char* ShownValue(const Variable& variable) {
  const char* value = VariableValue(variable.name);
  return value && variable.secret ? "(set)" : value;
}

void AddFindings(const std::vector<setup::Finding>& findings, std::string* text, ordered_json* object,
                 std::vector<run::NextCommand>* next) {
  (*object)["findings"] = ordered_json::array();
  for (const setup::Finding& finding : findings) {
    (*object)["findings"].push_back(
        {{"what", finding.what}, {"ok", finding.ok}, {"detail", finding.detail}, {"mend", finding.mend}});
    *text += fmt::format("{}  {:<22} {}\n", finding.ok ? "ok     " : "missing", finding.what, finding.detail);
    if (finding.ok || finding.mend.empty()) continue;
    next->push_back({finding.mend, "mends " + finding.what});
    *text += fmt::format("{:32} mend: {}\n", "", finding.mend);
  }
}

void AddReferences(ordered_json* object) {
  (*object)["references"] = ordered_json::array();
  for (const std::string& name : setup::KnownReferences())
    if (const auto found = setup::FindReference(name); found.ok())
      (*object)["references"].push_back(JsonOf(*found));
}

// Those that are set; with `all` the others too.
void AddVariables(bool all, std::string* text, ordered_json* object) {
  static constexpr const char* kEffects[] = {"works", "ignored", "ignored", "refused"};
  (*object)["variables"] = ordered_json::array();
  for (const Variable& variable : Variables()) {
    const char* value = ShownValue(variable);
    const char* effect = kEffects[variable.effect];
    (*object)["variables"].push_back({{"name", variable.name},
                                      {"value", value ? ordered_json(value) : ordered_json()},
                                      {"effect", effect},
                                      {"says", variable.says}});
    if (!value && !all) continue;
    *text += fmt::format("{:<7}  {}{}\n{:32} {}\n", value ? effect : "unset", variable.name,
                         value ? fmt::format("={}", report::Escape(value)) : "", "", variable.says);
  }
}

bool IsCi() {
  for (const char* name : {"CI", "GITHUB_ACTIONS", "JENKINS_HOME", "GITLAB_CI", "CIRCLECI"})
    if (VariableValue(name)) return true;
  return false;
}

// As setup-cpp-auto does it, where the reference is missing and may be mended.
void Repair(const PreflightArguments& args) {
  const bool wanted = !args.no_repair && (args.repair == "always" || (args.repair == "auto" && !IsCi()));
  const std::string name = setup::KnownReferences().front();
  if (!wanted || setup::FindReference(name).ok()) return;
  SetupArguments setup;
  const auto reference = SetUp(setup);
  if (!reference.ok()) PrintError("not repaired: " + reference.error().message + "\n");
}

int Preflight(const PreflightArguments& args) {
  Repair(args);
  const std::vector<setup::Finding> findings = setup::Preflight();
  const bool ready = std::any_of(findings.begin(), findings.end(), [](const setup::Finding& finding) {
    return finding.ok && finding.what.starts_with("reference ");
  });
  const bool required = args.require_cpp || !args.backend.empty();
  const int exit_code = required && !ready ? kExitIncomplete : kExitOk;
  auto object = Envelope("paritybit.preflight/1", exit_code == kExitOk ? "ok" : "incomplete", exit_code);
  std::string text =
      ready ? "A reference is ready: two engines can be compared.\n\n"
            : "No reference is set up yet: nothing to compare with but paritybit's own engines.\n\n";
  std::vector<run::NextCommand> next;
  AddFindings(findings, &text, &object, &next);
  AddReferences(&object);
  AddVariables(args.output.verbose, &text, &object);
  report::PutNext(next, &object);
  if (exit_code != kExitOk) {
    object["reasons"].push_back({{"code", compare::ReasonName(compare::ReasonCode::kNoReference)},
                                 {"text", "no reference engine is set up"}});
    text += fmt::format("INCOMPLETE  no reference engine is set up  (exit {})\n", exit_code);
  }
  if (args.output.json())
    PrintJson(object);
  else
    PrintText(text);
  return exit_code;
}

}  // namespace

Action DeclarePreflight(Flags& flags) {
  auto args = std::make_shared<PreflightArguments>();
  flags.Switch("--require-cpp", args->require_cpp, "exit 3 when no reference engine is usable")
      .Group("Verdict");
  flags.Option("--backend", args->backend, "the same, of the reference for such models: llama.cpp runs both")
      .OneOf({"bitnet", "llama"})
      .Group("Verdict");
  flags.Option("--repair", args->repair, "set a missing reference up; auto: but not in a CI")
      .OneOf({"auto", "never", "always"})
      .ShowDefault()
      .Group("Set-up");
  flags.Switch("--no-repair", args->no_repair, "as --repair never").Group("Set-up");
  AddOutputArguments(flags, args->output, "all variables, also those that are not set");
  return [args] { return Preflight(*args); };
}

}  // namespace pb::cli
