// Starts crossval for a cell and reads what it wrote.
#include "sweep/cell_run.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>

#include "base/file.h"
#include "base/sha256.h"
#include "receipt/schema.h"
#include "receipt/sealed.h"
#include "sweep/outputs.h"

namespace pb::sweep {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxReceipt = 512ull << 20, kMaxLog = 64ull << 20;
constexpr int kExitEngine = 4, kExitEnvironment = 5, kExitIncomplete = 3;

// What the program of a cell says by itself every ten seconds, and what it may need beside that.
constexpr double kSilence = 30;

std::string Now() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<std::time_t>(std::time(nullptr))));
}

std::vector<std::string> CommandOf(const Runner& runner, const Cell& cell) {
  const fs::path folder = runner.folder.cell(cell.name);
  std::vector<std::string> words{runner.program.string()};
  words.insert(words.end(), cell.words.begin(), cell.words.end());
  words.insert(words.end(), {"--timeout", fmt::format("{}", runner.limits.stall), "--receipt",
                             (folder / kReceiptFile).string(), "-v"});
  if (!cell.trace_level.empty())
    words.insert(words.end(),
                 {"--keep-traces", (folder / kKeptTraces).string(), "--trace-level", cell.trace_level});
  return words;
}

// The first error that a command told, else its last line.
std::string ErrorOf(const fs::path& log) {
  const auto text = ReadFile(log, kMaxLog);
  if (!text.ok()) return "";
  std::string last;
  for (size_t begin = 0; begin < text->size();) {
    const size_t end = std::min(text->find('\n', begin), text->size());
    std::string line = text->substr(begin, end - begin);
    begin = end + 1;
    if (line.starts_with("error: ")) return line.substr(7);
    if (!line.empty()) last = std::move(line);
  }
  return last;
}

void EndedWithoutReceipt(const fs::path& folder, int code, CellResult* result) {
  result->why = ErrorOf(folder / kLogFile);
  if (code >= 128) {
    result->state = kError;
    result->why = fmt::format("signal {} ended it", code - 128);
    code = kExitEnvironment;
  } else if (code == kExitEngine) {
    result->state = "engine-failed";
  } else if (code == kExitIncomplete) {
    result->state = "incomplete";
  } else {
    result->state = kError;
    if (code == 0) {
      result->why = "it ended well and wrote no receipt";
      code = kExitEnvironment;
    }
  }
  result->exit_code = ExitCodeOfState(result->state, code);
}

// What the receipt says, where it is one and says what the program said.
Status TakeReceipt(const fs::path& folder, int code, CellResult* result) {
  const auto text = ReadFile(folder / kReceiptFile, kMaxReceipt);
  if (!text.ok()) {
    EndedWithoutReceipt(folder, code, result);
    return {};
  }
  const receipt::Opened opened = receipt::Open(*text);
  if (!opened.problem.empty() || !receipt::ReceiptViolations(opened.object).empty() ||
      opened.object["command"] != "crossval" || opened.object["exit_code"] != code) {
    result->state = kError, result->exit_code = kExitEnvironment;
    result->why = opened.problem.empty()
                      ? fmt::format("it ended with {}, and its receipt says otherwise", code)
                      : "its receipt: " + opened.problem;
    return {};
  }
  result->state = opened.object["verdict"].get<std::string>();
  result->exit_code = code;
  result->figures = FiguresOf(opened.object);
  result->why = opened.object["reasons"][0]["text"].get<std::string>();
  return WriteOutputs(folder, opened.object);
}

}  // namespace

Result<RunningCell> RunningCell::Start(const Runner& runner, const Cell& cell) {
  const fs::path folder = runner.folder.cell(cell.name);
  std::error_code error;
  fs::remove(runner.folder.result(cell.name), error);
  fs::remove_all(folder, error);
  fs::create_directories(folder, error);
  if (error) return MakeError(Code::kIo, "{}: cannot be made: {}", folder.string(), error.message());
  std::vector<std::string> command = CommandOf(runner, cell);
  PB_ASSIGN(Child child, Child::Start(command, folder / kReportFile, folder / kLogFile,
                                      {runner.limits.timeout, runner.limits.stall + kSilence}));
  RunningCell running(runner, cell, std::move(child));
  running.command_ = std::move(command);
  running.started_ = Now();
  return running;
}

Result<std::optional<CellResult>> RunningCell::Poll() {
  const std::optional<ChildEnd> end = child_.Poll();
  if (!end) return std::optional<CellResult>();
  const fs::path folder = runner_->folder.cell(cell_.name);
  CellResult result;
  result.name = cell_.name, result.key = cell_.key;
  result.command = command_, result.started = started_, result.host = runner_->host;
  result.wall_seconds = end->wall_seconds, result.peak_mib = end->peak_mib;
  result.timeout = runner_->limits.timeout, result.stall = runner_->limits.stall;
  if (end->how == ChildEnd::kExited) {
    PB_TRY(TakeReceipt(folder, end->exit_code, &result));
  } else {
    result.state = end->how == ChildEnd::kOutOfTime ? kTimedOut : kStalled;
    result.exit_code = ExitCodeOfState(result.state, 0);
    result.why = end->how == ChildEnd::kOutOfTime
                     ? fmt::format("its {:g} s were up before it had a verdict", result.timeout)
                     : fmt::format("nothing was heard of it for {:g} s", result.stall + kSilence);
  }
  for (const char* file : {kReceiptFile, kReportFile})
    if (auto digest = Sha256File(folder / file); digest.ok()) result.files[file] = *digest;
  PB_TRY(WriteResult(runner_->folder, result));
  return std::optional(std::move(result));
}

Result<CellResult> RunCell(const Runner& runner, const Cell& cell) {
  PB_ASSIGN(RunningCell running, RunningCell::Start(runner, cell));
  for (;;) {
    PB_ASSIGN(std::optional<CellResult> result, running.Poll());
    if (result) return *std::move(result);
    const Child* child = &running.child();
    Child::Wait({&child, 1});
  }
}

}  // namespace pb::sweep
