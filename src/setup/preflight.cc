// What is usable on this machine and what is missing, each with the command that mends it.

#include "base/program.h"
#include "setup/process.h"
#include "setup/setup.h"

namespace pb::setup {
namespace {

struct Tool {
  const char* name;
  std::vector<std::string> version_command;
  const char* what_for;
  const char* mend;
};

const std::vector<Tool>& Tools() {
  static const std::vector<Tool> tools = {
      {"g++", {"g++", "--version"}, "compiles the adapter for a reference", "sudo apt-get install g++"},
      {"git", {"git", "--version"}, "unpacks the reference's headers", "sudo apt-get install git"},
      {"npm", {"npm", "--version"}, "fetches the reference", "sudo apt-get install npm"},
      {"pip", {"python3", "-m", "pip", "--version"}, "fetches models", "sudo apt-get install python3-pip"},
      {"tar", {"tar", "--version"}, "unpacks packages", "sudo apt-get install tar"},
  };
  return tools;
}

Finding CheckTool(const Tool& tool) {
  const Result<Output> output = RunProgram(tool.version_command, 60);
  if (!output.ok() || output->exit_code != 0) {
    return {tool.name, false, fmt::format("missing; {}", tool.what_for), tool.mend};
  }
  return {tool.name, true, output->out.substr(0, output->out.find('\n')), ""};
}

}  // namespace

std::vector<Finding> Preflight() {
  std::vector<Finding> findings;
  for (const Tool& tool : Tools()) findings.push_back(CheckTool(tool));
  for (const std::string& name : KnownReferences()) {
    const Result<Reference> found = FindReference(name);
    findings.push_back(
        found.ok()
            ? Finding{"reference " + name, true,
                      fmt::format("{}, {} ({})", found->version, found->how, found->library_dir.string()), ""}
            : Finding{"reference " + name, false, "not set up", ProgramName() + " setup-cpp-auto"});
  }
  for (const std::string& name : KnownModels()) {
    const Result<std::filesystem::path> found = FindModel(name);
    if (!found.ok() && name != KnownModels().front()) continue;  // one is enough to begin with
    findings.push_back(
        found.ok() ? Finding{"model " + name, true, found->string(), ""}
                   : Finding{"model " + name, false, "not fetched", ProgramName() + " setup-crossval"});
  }
  return findings;
}

}  // namespace pb::setup
