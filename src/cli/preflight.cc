// paritybit preflight: what is usable here.
#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/output.h"
#include "compare/reasons.h"
#include "report/json.h"
#include "setup/setup.h"

namespace pb::cli {
namespace {

int Preflight(const OutputArguments& output, bool require_cpp) {
  std::vector<setup::Finding> findings = setup::Preflight();
  bool ready = std::any_of(findings.begin(), findings.end(), [&](const setup::Finding& finding) {
    return finding.ok && finding.what.starts_with("reference ");
  });
  int exit_code = require_cpp && !ready ? kExitIncomplete : kExitOk;
  auto object = Envelope("paritybit.preflight/0", exit_code == kExitOk ? "ok" : "incomplete", exit_code);
  object["findings"] = nlohmann::ordered_json::array();
  std::string text;
  std::vector<run::NextCommand> next;
  for (const setup::Finding& finding : findings) {
    object["findings"].push_back(
        {{"what", finding.what}, {"ok", finding.ok}, {"detail", finding.detail}, {"mend", finding.mend}});
    text += fmt::format("{}  {:<22} {}\n", finding.ok ? "ok     " : "missing", finding.what, finding.detail);
    if (finding.ok || finding.mend.empty()) continue;
    next.push_back({finding.mend, "mends " + finding.what});
    text += fmt::format("{:32} mend: {}\n", "", finding.mend);
  }
  report::PutNext(next, &object);
  if (exit_code != kExitOk) {
    object["reasons"].push_back({{"code", compare::ReasonName(compare::ReasonCode::kNoReference)},
                                 {"text", "no reference engine is set up"}});
    text += fmt::format("INCOMPLETE  no reference engine is set up  (exit {})\n", exit_code);
  }
  if (output.json())
    PrintJson(object);
  else
    PrintText(text);
  return exit_code;
}

}  // namespace

Action DeclarePreflight(Flags& flags) {
  struct Arguments {
    OutputArguments output;
    bool require_cpp = false;
  };
  auto args = std::make_shared<Arguments>();
  flags.Switch("--require-cpp", args->require_cpp, "exit 3 when no reference engine is usable")
      .Group("Verdict");
  AddOutputArguments(flags, args->output, nullptr);
  return [args] { return Preflight(args->output, args->require_cpp); };
}

}  // namespace pb::cli
