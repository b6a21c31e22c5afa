// Remembers how the program was called.
#include "base/program.h"

#include "base/text.h"

namespace pb {
namespace {

std::string& Name() {
  static std::string name = "paritybit";
  return name;
}

}  // namespace

void NameProgram(std::string_view argv0) {
  if (!argv0.empty()) Name() = ShellQuote(argv0);
}

const std::string& ProgramName() { return Name(); }

}  // namespace pb
