// How far a command is, for who waits: a line on a terminal, drawn again and again; with -v lines
// to stderr; else nothing, so that no log fills with it.
#ifndef PARITYBIT_CLI_PROGRESS_H_
#define PARITYBIT_CLI_PROGRESS_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "cli/output.h"
#include "drive/progress.h"

namespace pb::cli {

// Units of work done at some time since it began.
struct Advance {
  std::string what;
  int64_t first = 0, done = 0, total = 0;  // first: done when this was first heard of
  double seconds = 0;                      // since then
};
// "[####....] 3/8 noise floor, 0.5/s, 10 s left"; of one piece of work how long it takes already. At
// most `width` columns.
std::string ProgressLine(const Advance& advance, int width);
// The same for a log.
std::string ProgressText(const Advance& advance);

// Safe from any thread. Work that takes less than a second is not spoken of on a terminal.
class Progress {
 public:
  // `what`: what is done until the first Update says otherwise.
  explicit Progress(const OutputArguments& output, std::string_view what = "loading");
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Nothing is drawn any more, and what was is cleared: before the result is printed.
  void End();
  void Update(std::string_view what, int64_t done, int64_t total);
  // A line of its own; work of its name has begun.
  void Say(std::string_view line);
  // Update, for rooms below.
  drive::Progress Callback();

 private:
  using Clock = std::chrono::steady_clock;
  void Tick();
  void Draw();   // with mutex_ held
  void Clear();  // likewise
  Advance Now() const;

  const bool verbose_, terminal_;
  const int width_;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool end_ = false, drawn_ = false;
  Advance advance_;
  Clock::time_point start_, phase_start_, last_line_;
  std::thread ticker_;  // last: it uses all others
};

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_PROGRESS_H_
