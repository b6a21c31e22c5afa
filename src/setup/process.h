// Runs a program of the system to its end, without a shell, and keeps what it printed.
#ifndef PARITYBIT_SETUP_PROCESS_H_
#define PARITYBIT_SETUP_PROCESS_H_

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pb::setup {

struct Output {
  int exit_code = 0;  // 128 + signal when a signal ended it
  std::string out;    // stdout, at most the newest 64 KiB
  std::string err;    // stderr, likewise
};

// The full path of a program in $PATH; empty when there is none.
std::filesystem::path FindProgram(std::string_view name);

// A line of either stream, without its end; a carriage return ends one too.
using LineFn = std::function<void(std::string_view line)>;

// Runs argv[0] (looked up in $PATH) with stdin closed. kNotFound: no such program; kTimeout: killed
// after timeout_seconds. A nonzero exit code is no error here.
// `on_line` is called with each line as it comes, by the calling thread.
Result<Output> RunProgram(const std::vector<std::string>& argv, double timeout_seconds,
                          const LineFn& on_line = nullptr);

// RunProgram, and kIo with the program's last lines when it fails.
Result<Output> RunProgramOk(const std::vector<std::string>& argv, double timeout_seconds);

}  // namespace pb::setup

#endif  // PARITYBIT_SETUP_PROCESS_H_
