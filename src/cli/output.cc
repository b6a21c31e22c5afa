#include "cli/output.h"

#include <fmt/core.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/kept.h"
#include "report/escape.h"

namespace pb::cli {
namespace {

// Complete before the handler is installed: a handler may not allocate.
std::string g_interrupted_text, g_interrupted_json;
volatile sig_atomic_t g_json = 0;
int g_lost_output = 0;  // errno of the write to stdout that failed

void OnInterrupt(int) {
  ssize_t ignored = write(STDERR_FILENO, g_interrupted_text.data(), g_interrupted_text.size());
  if (g_json) ignored = write(STDOUT_FILENO, g_interrupted_json.data(), g_interrupted_json.size());
  (void)ignored;
  _exit(kExitInterrupted);
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
  flags.Option("--format", args.format, "text for people, json alone on stdout for programs")
      .OneOf(formats)
      .ShowDefault()
      .Group("Output");
  if (logs) flags.Switch("-v,--verbose", args.verbose, logs).Group("Output");
}

bool UseColour(int fd) {
  const char* no_colour = std::getenv("NO_COLOR");
  return isatty(fd) && (no_colour == nullptr || *no_colour == '\0');
}

int TerminalWidth(int fd) {
  winsize size{};
  return isatty(fd) && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40 ? size.ws_col : 80;
}

nlohmann::ordered_json Envelope(std::string_view schema, std::string_view verdict, int exit_code) {
  nlohmann::ordered_json object;
  object["schema"] = schema;
  object["verdict"] = verdict;
  object["scope"] = nullptr;
  object["exit_code"] = exit_code;
  object["reasons"] = nlohmann::ordered_json::array();
  object["next"] = nlohmann::ordered_json::array();
  return object;
}

int FailWith(const OutputArguments& output, int exit_code, std::string_view verdict,
             std::string_view reason_code, const std::string& message, const std::vector<std::string>& next) {
  if (output.json()) {
    auto object = Envelope("paritybit.error/0", verdict, exit_code);
    object["reasons"].push_back({{"code", reason_code}, {"text", message}});
    object["next"] = next;
    PrintJson(object);
    return exit_code;
  }
  std::string text = fmt::format("error: {}\n", message);
  for (const std::string& command : next) text += fmt::format("       next: {}\n", command);
  if (verdict != "error") {
    std::string loud(verdict);
    for (char& c : loud) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    text += fmt::format("{}  (exit {})\n", loud, exit_code);
  }
  std::fputs(text.c_str(), stderr);
  return exit_code;
}

int Fail(const OutputArguments& output, const Error& error, const std::vector<std::string>& next) {
  int exit_code = ExitCodeOf(error.code);
  const char* verdict = exit_code == kExitEngine       ? "engine-failed"
                        : exit_code == kExitIncomplete ? "incomplete"
                                                       : "error";
  return FailWith(output, exit_code, verdict, ReasonCode(error.code), error.message, next);
}

bool PrintOut(std::string_view text) {
  HoldInterrupts hold;
  const bool written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!written && g_lost_output == 0) g_lost_output = errno;
  return g_lost_output != EPIPE;
}

int ReportLostOutput(int exit_code) {
  if (g_lost_output == 0 || g_lost_output == EPIPE) return exit_code;
  fmt::print(stderr, "error: stdout: cannot be written: {}\n", std::strerror(g_lost_output));
  return exit_code == kExitOk ? kExitEnvironment : exit_code;
}

void TellCacheTrouble() {
  const std::string trouble = CacheTrouble();
  if (trouble.empty()) return;
  const std::string line =
      fmt::format("note: the cache did not serve, and what it would have saved was done anew: {}\n",
                  report::Escape(trouble));
  std::fputs(line.c_str(), stderr);
}

void PrintJson(const nlohmann::ordered_json& object) {
  // Bytes of a prompt or a token need not be UTF-8: they are replaced, never an exception.
  PrintOut(object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

void Log(const OutputArguments& output, std::string_view line) {
  if (output.verbose) fmt::print(stderr, "{}\n", line);
}

ProgressBar::ProgressBar() : terminal_(isatty(STDERR_FILENO)), start_(Clock::now()), last_(start_) {}

ProgressBar::~ProgressBar() {
  if (drawn_) std::fputs("\r\033[K", stderr);
}

void ProgressBar::Update(std::string_view what, int64_t done, int64_t total) {
  using std::chrono::milliseconds;
  if (!terminal_) return;
  auto now = Clock::now();
  if (now - start_ < milliseconds(1000) || now - last_ < milliseconds(100)) return;
  last_ = now;
  drawn_ = true;
  constexpr int kCells = 24;
  int full = total > 0 ? static_cast<int>(done * kCells / total) : 0;
  fmt::print(stderr, "\r\033[K[{:#<{}}{:.<{}}] {}/{} {}", "", full, "", kCells - full, done, total, what);
  std::fflush(stderr);
}

void HandleInterrupts(bool json, std::string_view kept) {
  g_json = json;
  g_interrupted_text = fmt::format("\ninterrupted{}{}\n", kept.empty() ? "" : ": ", kept);
  auto object = Envelope("paritybit.error/0", "interrupted", kExitInterrupted);
  object["reasons"].push_back(
      {{"code", "interrupted"},
       {"text", fmt::format("interrupted by a signal{}{}", kept.empty() ? "" : "; ", kept)}});
  g_interrupted_json = object.dump() + "\n";
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

}  // namespace pb::cli
