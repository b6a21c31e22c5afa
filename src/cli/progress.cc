// Draws progress with its rate and the time that is left of the work at hand.
#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>

#include "base/text.h"
#include "report/escape.h"

namespace pb::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr auto kPatience = milliseconds(1000);  // before anything is drawn
constexpr auto kRedraw = milliseconds(250);
constexpr auto kLogEvery = seconds(10);

std::string Duration(double s) {
  const auto n = static_cast<int64_t>(s + 0.5);
  if (n < 60) return fmt::format("{} s", n);
  if (n < 3600) return fmt::format("{} min {} s", n / 60, n % 60);
  return fmt::format("{} h {} min", n / 3600, n % 3600 / 60);
}

// ", 0.5/s, 10 s left"; of work without parts ", 12 s".
std::string Pace(const Advance& a) {
  if (a.total <= 1) return ", " + Duration(a.seconds);
  const auto n = static_cast<double>(a.done - a.first);
  if (n <= 0 || a.seconds <= 0) return "";
  const double rate = n / a.seconds;
  return fmt::format(", {:.{}f}/s, {} left", rate, rate < 10 ? 1 : 0,
                     Duration(static_cast<double>(a.total - a.done) / rate));
}

}  // namespace

std::string ProgressLine(const Advance& a, int width) {
  constexpr int kCells = 16;
  std::string bar;
  if (a.total > 1) {
    const auto full = static_cast<int>(std::clamp<int64_t>(a.done * kCells / a.total, 0, kCells));
    bar = fmt::format("[{:#<{}}{:.<{}}] {}/{} ", "", full, "", kCells - full, a.done, a.total);
  }
  std::string pace = Pace(a);
  if (pace.empty()) pace = ", " + Duration(a.seconds);
  const auto room = static_cast<size_t>(std::max<int>(width - 1, 0));
  const std::string what = EscapeUnsafe(a.what);
  const size_t taken = bar.size() + pace.size();
  if (taken + report::Columns(what) <= room) return bar + what + pace;
  if (taken + 8 <= room) return bar + report::Fit(what, room - taken) + pace;
  return report::Fit(bar + what + pace, room);
}

std::string ProgressText(const Advance& a) {
  if (a.total <= 1) return a.what;
  return fmt::format("{}: {} of {}{}", a.what, a.done, a.total, Pace(a));
}

Progress::Progress(const OutputArguments& output, std::string_view what)
    : verbose_(output.verbose),
      terminal_(isatty(STDERR_FILENO)),
      width_(TerminalWidth(STDERR_FILENO)),
      start_(Clock::now()),
      phase_start_(start_),
      last_line_(start_ - kLogEvery) {
  advance_.what = what;
  if (!terminal_) return;
  HoldInterrupts hold;  // of the new thread: signals are the first one's
  try {
    ticker_ = std::thread([this] { Tick(); });
  } catch (const std::system_error&) {
    // Nobody has to hear how far it is where not even a thread can be had.
  }
}

Progress::~Progress() { End(); }

void Progress::End() {
  {
    std::lock_guard lock(mutex_);
    end_ = true;
  }
  ended_.notify_all();
  if (ticker_.joinable()) ticker_.join();
  Clear();
}

void Progress::Tick() {
  std::unique_lock lock(mutex_);
  while (!ended_.wait_for(lock, kRedraw, [this] { return end_; })) Draw();
}

Advance Progress::Now() const {
  Advance now = advance_;
  now.seconds = std::chrono::duration<double>(Clock::now() - phase_start_).count();
  return now;
}

void Progress::Draw() {
  if (!terminal_ || Clock::now() - start_ < kPatience) return;
  drawn_ = true;
  TellOfDrawnLine(true);
  PrintError("\r\033[K" + ProgressLine(Now(), width_));
}

void Progress::Clear() {
  if (!drawn_) return;
  PrintError("\r\033[K");
  drawn_ = false;
  TellOfDrawnLine(false);
}

void Progress::Update(std::string_view what, int64_t done, int64_t total) {
  std::lock_guard lock(mutex_);
  const bool renamed = advance_.what != what;
  // Work whose parts have names of their own goes on under another name.
  const bool other = total != advance_.total || done < advance_.done || (renamed && total <= 1);
  if (other) {
    phase_start_ = Clock::now();
    advance_.first = done;
  }
  advance_.what = what, advance_.done = done, advance_.total = total;
  if (!verbose_ || (!renamed && Clock::now() - last_line_ < kLogEvery)) return;
  Clear();
  PrintError(EscapeUnsafe(ProgressText(Now())) + "\n");
  last_line_ = Clock::now();
}

void Progress::Say(std::string_view line) {
  std::lock_guard lock(mutex_);
  Clear();
  PrintError(EscapeUnsafe(line) + "\n");
  phase_start_ = Clock::now();
  advance_ = Advance();
  advance_.what = line;
}

drive::Progress Progress::Callback() {
  return [this](std::string_view what, int64_t done, int64_t total) { Update(what, done, total); };
}

}  // namespace pb::cli
