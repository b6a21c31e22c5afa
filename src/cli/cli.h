// The command line: reads arguments, runs one command, prints. The only room that prints.
#ifndef PARITYBIT_CLI_CLI_H_
#define PARITYBIT_CLI_CLI_H_

namespace pb::cli {

// Returns the exit code (ARCHITECTURE.md, "Verdicts").
int Main(int argc, char** argv);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_CLI_H_
