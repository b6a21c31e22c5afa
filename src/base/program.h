// The name by which this program was called, for the commands that it suggests.
#ifndef PARITYBIT_BASE_PROGRAM_H_
#define PARITYBIT_BASE_PROGRAM_H_

#include <string>
#include <string_view>

namespace pb {

// Takes argv[0] as it was typed, before any thread is started.
void NameProgram(std::string_view argv0);
// One word of a shell: "paritybit" where it was found by PATH, else the path that was typed, as
// build/release/bin/paritybit.
const std::string& ProgramName();

}  // namespace pb

#endif  // PARITYBIT_BASE_PROGRAM_H_
