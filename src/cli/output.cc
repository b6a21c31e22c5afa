// Talking to the caller: streams that may be closed, full or unread, errors as text and JSON, and
// the end by a signal.
#include "cli/output.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/kept.h"
#include "base/system_error.h"
#include "base/text.h"
#include "report/escape.h"
#include "report/json.h"

namespace pb::cli {
namespace {

constexpr int kInterrupting[] = {SIGINT, SIGTERM, SIGHUP};

// Complete before the handler is installed: a handler may not allocate.
std::string g_interrupted_text, g_interrupted_json[std::size(kInterrupting)];
// g_printed: something stands on stdout, where JSON stands alone.
volatile sig_atomic_t g_json = 0, g_line_is_drawn = 0, g_printed = 0;
int g_lost_output = 0;  // errno of the write to stdout that failed

int ExitCodeOfSignal(int number) { return 128 + number; }

void OnInterrupt(int number) {
  constexpr std::string_view kClear = "\r\033[K", kNewLine = "\n";
  const std::string_view before = g_line_is_drawn ? kClear : kNewLine;
  ssize_t ignored = write(STDERR_FILENO, before.data(), before.size());
  ignored = write(STDERR_FILENO, g_interrupted_text.data(), g_interrupted_text.size());
  for (size_t i = 0; i < std::size(kInterrupting); ++i) {
    if (!g_json || g_printed || kInterrupting[i] != number) continue;
    ignored = write(STDOUT_FILENO, g_interrupted_json[i].data(), g_interrupted_json[i].size());
  }
  (void)ignored;
  _exit(ExitCodeOfSignal(number));
}

const char* ReasonCode(Code code) {
  switch (code) {
    case Code::kUsage:
      return "usage";
    case Code::kNotFound:
      return "not-found";
    case Code::kIo:
      return "io";
    case Code::kMalformed:
      return "malformed";
    case Code::kUnsupported:
      return "unsupported";
    case Code::kUndeclared:
      return "undeclared";
    case Code::kEngine:
      return "engine-failed";
    case Code::kTimeout:
      return "engine-timeout";
    case Code::kInterrupted:
      return "interrupted";
    case Code::kInternal:
      return "bug";
  }
  return "bug";
}

// On a terminal the sentence is broken into lines; what stands below it, as a remedy, is whole.
std::string ErrorText(const std::string& message) {
  const std::string text = "error: " + message;
  if (!isatty(STDERR_FILENO)) return text;
  constexpr size_t kIndent = 7;
  const size_t end = std::min(text.find('\n'), text.size());
  return report::Wrap(text.substr(0, end), static_cast<size_t>(TerminalWidth(STDERR_FILENO)), kIndent) +
         text.substr(end);
}

}  // namespace

int ExitCodeOf(Code code) {
  switch (code) {
    case Code::kUsage:
    case Code::kUnsupported:
      return kExitUsage;
    case Code::kUndeclared:
      return kExitIncomplete;
    case Code::kNotFound:
    case Code::kIo:
    case Code::kMalformed:
      return kExitEnvironment;
    case Code::kEngine:
    case Code::kTimeout:
      return kExitEngine;
    case Code::kInterrupted:
      return kExitInterrupted;
    case Code::kInternal:
      return kExitBug;
  }
  return kExitBug;
}

void AddOutputArguments(Flags& flags, OutputArguments& args, const char* logs,
                        const std::vector<std::string>& formats) {
  // The documented system's name of text.
  flags.Option("--format", args.format, "text for people, json alone on stdout for programs")
      .OneOf(formats, {"human"})
      .ShowDefault()
      .Group("Output");
  if (logs) flags.Switch("-v,--verbose", args.verbose, logs).Group("Output");
}

void AddQuietArgument(Flags& flags, OutputArguments& args) {
  flags.Switch("-q,--quiet", args.quiet, "one line").Group("Output");
}

bool UseColour(int fd) {
  const char* no_colour = std::getenv("NO_COLOR");
  return isatty(fd) && (no_colour == nullptr || *no_colour == '\0');
}

int TerminalWidth(int fd) {
  constexpr int kLeast = 40, kMost = 1000;
  if (const char* columns = std::getenv("COLUMNS")) {
    const int width = std::atoi(columns);
    if (width >= kLeast && width <= kMost) return width;
  }
  winsize size{};
  return isatty(fd) && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col >= kLeast ? size.ws_col : 80;
}

nlohmann::ordered_json Envelope(std::string_view schema, std::string_view verdict, int exit_code) {
  nlohmann::ordered_json object;
  object["schema"] = schema;
  object["verdict"] = verdict;
  object["scope"] = nullptr;
  object["exit_code"] = exit_code;
  object["reasons"] = nlohmann::ordered_json::array();
  report::PutNext({}, &object);
  return object;
}

int FailWith(const OutputArguments& output, int exit_code, std::string_view verdict,
             std::string_view reason_code, const std::string& message,
             const std::vector<run::NextCommand>& next) {
  if (output.json()) {
    auto object = Envelope("paritybit.error/0", verdict, exit_code);
    object["reasons"].push_back({{"code", reason_code}, {"text", message}});
    report::PutNext(next, &object);
    PrintJson(object);
    return exit_code;
  }
  std::string text = ErrorText(EscapeUnsafe(message)) + "\n";
  for (const run::NextCommand& command : next)
    text += fmt::format("       next: {}\n", EscapeUnsafe(command.command));
  if (verdict != "error") {
    std::string loud(verdict);
    for (char& c : loud) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    text += fmt::format("{}  (exit {})\n", loud, exit_code);
  }
  PrintError(text);
  return exit_code;
}

int Fail(const OutputArguments& output, const Error& error, const std::vector<run::NextCommand>& next) {
  int exit_code = ExitCodeOf(error.code);
  const char* verdict = exit_code == kExitEngine       ? "engine-failed"
                        : exit_code == kExitIncomplete ? "incomplete"
                                                       : "error";
  return FailWith(output, exit_code, verdict, ReasonCode(error.code), error.message, next);
}

void PrepareStreams() {
  for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    // Opened the wrong way round: whoever reads or writes there is told that it cannot be done.
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
      (void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
  signal(SIGXFSZ, SIG_IGN);  // a file at its limit is an error to report, not a death
}

void PrintError(std::string_view text) {
  // Where nobody hears of an error there is no second place to tell it.
  (void)(std::fwrite(text.data(), 1, text.size(), stderr) == text.size());
}

bool PrintOut(std::string_view text) {
  HoldInterrupts hold;
  if (!text.empty()) g_printed = 1;
  const bool written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!written && g_lost_output == 0) g_lost_output = errno;
  return g_lost_output != EPIPE;
}

bool PrintText(std::string_view text) { return PrintOut(EscapeUnsafe(text)); }

int ReportLostOutput(int exit_code) {
  if (g_lost_output == 0 || g_lost_output == EPIPE) return exit_code;
  PrintError(fmt::format("error: stdout: cannot be written: {}\n", ErrnoText(g_lost_output)));
  return exit_code == kExitOk ? kExitEnvironment : exit_code;
}

void TellCacheTrouble() {
  const std::string trouble = CacheTrouble();
  if (trouble.empty()) return;
  PrintError(fmt::format("note: the cache did not serve, and what it would have saved was done anew: {}\n",
                         report::Escape(trouble)));
}

void PrintJson(const nlohmann::ordered_json& object) { PrintOut(DumpJson(object, 2) + "\n"); }

void Log(const OutputArguments& output, std::string_view line) {
  if (output.verbose) PrintError(EscapeUnsafe(line) + "\n");
}

void TellOfDrawnLine(bool drawn) { g_line_is_drawn = drawn; }

void HandleInterrupts(bool json, std::string_view kept) {
  g_json = json;
  g_interrupted_text = fmt::format("interrupted{}{}\n", kept.empty() ? "" : ": ", kept);
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  sigemptyset(&action.sa_mask);
  for (int number : kInterrupting) sigaddset(&action.sa_mask, number);
  for (size_t i = 0; i < std::size(kInterrupting); ++i) {
    auto object = Envelope("paritybit.error/0", "interrupted", ExitCodeOfSignal(kInterrupting[i]));
    object["reasons"].push_back(
        {{"code", "interrupted"},
         {"text", fmt::format("interrupted by SIG{}{}{}", sigabbrev_np(kInterrupting[i]),
                              kept.empty() ? "" : "; ", kept)}});
    g_interrupted_json[i] = DumpJson(object) + "\n";
    struct sigaction before {};
    sigaction(kInterrupting[i], nullptr, &before);
    if (kInterrupting[i] == SIGHUP && before.sa_handler == SIG_IGN) continue;  // started by nohup
    sigaction(kInterrupting[i], &action, nullptr);
  }
  signal(SIGPIPE, SIG_IGN);
}

}  // namespace pb::cli
