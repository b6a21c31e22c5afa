// Appends to the log of runs under a lock, and reads it.
#include "cli/history_log.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/kept.h"
#include "base/text.h"
#include "cli/receipts.h"
#include "compare/verdict.h"

namespace pb::cli {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMostBytes = 2 << 20, kReadBytes = 2 * kMostBytes;

fs::path LogPath() { return CacheDir() / "runs" / "history.jsonl"; }

class Lock {
 public:
  explicit Lock(const fs::path& path) : fd_(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    if (fd_ >= 0 && flock(fd_, LOCK_EX) != 0) Release();
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
  ~Lock() { Release(); }
  bool held() const { return fd_ >= 0; }

 private:
  void Release() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  int fd_;
};

// The newest half of a log that has grown too long.
std::string NewestHalf(const std::string& text) {
  const size_t half = text.find('\n', text.size() / 2);
  return half == std::string::npos ? "" : text.substr(half + 1);
}

receipt::HistoryEngine EngineOf(const drive::EngineRecord& record) {
  const trace::EngineFacts facts = record.engine_facts();
  return {EscapeInvalid(record.spec), EscapeInvalid(facts.name), EscapeInvalid(facts.version),
          record.identity};
}

}  // namespace

receipt::HistoryEntry EntryOf(const run::Comparison& c, const std::string& command, const std::string& call) {
  receipt::HistoryEntry entry;
  entry.time = NowSeconds();
  entry.command = command, entry.call = EscapeInvalid(call);
  entry.verdict = compare::OutcomeName(c.verdict.outcome);
  if (!c.verdict.reasons.empty()) entry.why = EscapeInvalid(c.verdict.reasons[0].text);
  if (const auto& at = c.verdict.first_divergence)
    entry.place =
        at->stage ? compare::PointName(*at->stage, at->layer) : fmt::format("position {}", at->position);
  entry.engines[0] = EngineOf(c.candidate);
  if (c.reference.role == "reference") entry.engines[1] = EngineOf(c.reference);
  entry.model = EscapeInvalid(c.candidate.model_path.filename().string());
  entry.model_sha256 = c.candidate.model_sha256;
  return entry;
}

void AppendHistory(const receipt::HistoryEntry& entry) {
  const fs::path path = LogPath();
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  const Lock lock(fs::path(path).replace_extension(".lock"));
  if (!lock.held()) return;
  const uint64_t size = fs::file_size(path, error);
  std::string line = Sealed(receipt::ToJson(entry)) + "\n";
  if (!error && size > kMostBytes) {
    auto text = ReadFile(path, kReadBytes);
    if (text.ok()) (void)WriteFileAtomic(path, NewestHalf(*text) + line).ok();
    return;
  }
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return;
  // A line that was cut off stays alone.
  char last = '\n';
  if (!error && size > 0 && pread(fd, &last, 1, static_cast<off_t>(size - 1)) == 1 && last != '\n')
    line.insert(0, "\n");
  (void)(write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
  close(fd);
}

Result<History> ReadHistory() {
  History history;
  std::error_code ignored;
  if (!fs::exists(LogPath(), ignored)) return history;
  PB_ASSIGN(const std::string text, ReadFile(LogPath(), 2 * kReadBytes));
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    if (line.empty()) continue;
    auto sealed = OpenSealed(line);
    const auto entry = sealed.ok() ? receipt::EntryOf(*sealed) : std::nullopt;
    if (entry)
      history.entries.push_back(*entry);
    else
      ++history.n_damaged;
  }
  std::stable_sort(history.entries.begin(), history.entries.end(),
                   [](const auto& a, const auto& b) { return a.time < b.time; });
  return history;
}

}  // namespace pb::cli
