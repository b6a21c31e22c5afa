// How many processors this process may use: its affinity mask, and the quota of its control group.
#include "base/processors.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string>
#include <thread>

namespace pb {

int ProcessorsOfQuota(std::string_view cpu_max) {
  long quota = 0, period = 0;
  const char* end = cpu_max.data() + cpu_max.size();
  const auto first = std::from_chars(cpu_max.data(), end, quota);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != ' ') return 0;
  if (std::from_chars(first.ptr + 1, end, period).ec != std::errc() || quota <= 0 || period <= 0) return 0;
  return static_cast<int>(std::min(1L + (quota - 1) / period, 1L << 20));
}

std::string ProcessorText() {
  std::ifstream file("/proc/cpuinfo");
  std::string text;
  for (std::string line; std::getline(file, line) && !line.empty();)  // of the first processor
    if (line.starts_with("model name") || line.starts_with("flags") || line.starts_with("Features") ||
        line.starts_with("CPU "))
      text += line + "; ";
  return text;
}

int ProcessorCount() {
  const int n = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  // Inside a container this is the group of the container itself; elsewhere the file is not there.
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string text;
  std::getline(file, text);
  const int quota = ProcessorsOfQuota(text);
  return quota > 0 ? std::min(n, quota) : n;
}

}  // namespace pb
