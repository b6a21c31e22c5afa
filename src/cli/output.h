// What every command shares in talking to its caller: format, exit codes, errors as text or JSON,
// logs, progress, interruption.
#ifndef PARITYBIT_CLI_OUTPUT_H_
#define PARITYBIT_CLI_OUTPUT_H_

#include <signal.h>

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cli/flags.h"
#include "run/record.h"

namespace pb::cli {

// Exit codes beside those of verdicts (compare/types.h). A signal ends the program with 128 and its
// number.
inline constexpr int kExitOk = 0, kExitUsage = 2, kExitIncomplete = 3, kExitEngine = 4, kExitEnvironment = 5,
                     kExitBug = 70, kExitInterrupted = 130;
// Of an error that ends a command before there is a verdict.
int ExitCodeOf(Code code);

struct OutputArguments {
  std::string format = "text";  // text json markdown
  bool verbose = false;         // logs to stderr
  bool quiet = false;           // the verdict in one line
  bool json() const { return format == "json"; }
};
// --format, which every command has, and -v, where a command has something to log.
void AddOutputArguments(Flags& flags, OutputArguments& args, const char* logs = "logs to stderr",
                        const std::vector<std::string>& formats = {"text", "json"});
// -q, of commands that end with one verdict.
void AddQuietArgument(Flags& flags, OutputArguments& args);

// True when colour helps: a terminal, and NO_COLOR is not set.
bool UseColour(int fd);
// $COLUMNS where it is set, else the columns of the terminal at fd; 80 when there is none.
int TerminalWidth(int fd);

// The fields that every JSON object of this program begins with.
nlohmann::ordered_json Envelope(std::string_view schema, std::string_view verdict, int exit_code);

// Prints the error (text: stderr; JSON: stdout) with the commands that mend it, and returns its
// exit code.
int Fail(const OutputArguments& output, const Error& error, const std::vector<run::NextCommand>& next = {});
int FailWith(const OutputArguments& output, int exit_code, std::string_view verdict,
             std::string_view reason_code, const std::string& message,
             const std::vector<run::NextCommand>& next = {});

// Before anything else: descriptors 0 to 2 that are closed are opened on /dev/null, so that no file
// or socket takes their place and is written to as if it were the terminal.
void PrepareStreams();
// Writes to stderr; that it cannot is no error.
void PrintError(std::string_view text);
// Writes to stdout at once. Interruption waits until all is written. False when nobody reads any
// more, which is no error; what else keeps stdout from being written is told by ReportLostOutput.
bool PrintOut(std::string_view text);
// The same of text without colours, in which nothing is left that a terminal would obey.
bool PrintText(std::string_view text);
// The exit code of a command that ended with `exit_code`: 5 in place of a success whose output
// could not be written, which is said on stderr.
int ReportLostOutput(int exit_code);
// Says on stderr, once at the end of a command, what kept the cache from serving it.
void TellCacheTrouble();
void PrintJson(const nlohmann::ordered_json& object);
// A line to stderr when -v was given.
void Log(const OutputArguments& output, std::string_view line);

// Whether a line of progress stands on the terminal, which an interruption has to clear.
void TellOfDrawnLine(bool drawn);

// Keeps SIGINT, SIGTERM and SIGHUP waiting while it lives.
class HoldInterrupts {
 public:
  HoldInterrupts() {
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGTERM);
    sigaddset(&held, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &held, &before_);
  }
  ~HoldInterrupts() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

// From now on SIGINT, SIGTERM and SIGHUP end the program with exit codes 130, 143 and 129: engines
// die with it, files are written whole or not at all. `kept` is what the user hears of the work
// done so far.
void HandleInterrupts(bool json, std::string_view kept);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_OUTPUT_H_
