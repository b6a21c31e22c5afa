// Reads and maps files, writes them beside their place and renames them, and finds the cache
// directory.
#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <utility>

#include "base/fd.h"
#include "base/system_error.h"

namespace pb {
namespace {

Error Errno(const std::filesystem::path& path, std::string_view doing) {
  return SystemError(fmt::format("{}: {}", path.string(), doing), errno);
}

// Opens a regular file for reading and tells its size.
Result<std::pair<int, uint64_t>> OpenRegular(const std::filesystem::path& path) {
  // A pipe without a writer or a device is not waited for.
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return Errno(path, "cannot open");
  struct stat st;
  if (::fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    ::close(fd);
    return MakeError(Code::kIo, "{}: not a regular file", path.string());
  }
  return std::pair(fd, static_cast<uint64_t>(st.st_size));
}

Status WriteAll(int fd, std::string_view content, const std::filesystem::path& path) {
  while (!content.empty()) {
    ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Errno(path, "cannot write");
    content.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

}  // namespace

Result<MappedFile> MappedFile::Open(const std::filesystem::path& path) {
  PB_ASSIGN(auto opened, OpenRegular(path));
  Fd fd(opened.first);
  if (opened.second == 0) return MappedFile(nullptr, 0);
  void* p = ::mmap(nullptr, opened.second, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (p == MAP_FAILED) return Errno(path, "cannot map");
  return MappedFile(static_cast<const std::byte*>(p), opened.second);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

Result<std::string> ReadFile(const std::filesystem::path& path, uint64_t max_bytes) {
  PB_ASSIGN(auto opened, OpenRegular(path));
  Fd fd(opened.first);
  if (opened.second > max_bytes) {
    return MakeError(Code::kMalformed, "{}: {} bytes, at most {} are read", path.string(), opened.second,
                     max_bytes);
  }
  std::string content(opened.second, '\0');
  size_t done = 0;
  while (done < content.size()) {
    ssize_t n = ::read(fd.get(), content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Errno(path, "cannot read");
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  content.resize(done);
  return content;
}

Status WriteFileAtomic(const std::filesystem::path& path, std::string_view content) {
  std::string temporary = path.string() + ".XXXXXX";
  int raw = ::mkstemp(temporary.data());
  if (raw < 0) return Errno(path, "cannot create");
  Status written = [&]() -> Status {
    Fd fd(raw);
    PB_TRY(WriteAll(fd.get(), content, path));
    if (::fchmod(fd.get(), 0644) != 0 || ::fsync(fd.get()) != 0) return Errno(path, "cannot finish");
    return {};
  }();
  if (written.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) written = Errno(path, "cannot replace");
  if (!written.ok()) ::unlink(temporary.c_str());
  return written;
}

std::filesystem::path CacheDir() {
  auto variable = [](const char* name) {
    return std::filesystem::path(std::getenv(name) ? std::getenv(name) : "");
  };
  if (auto p = variable("PARITYBIT_CACHE"); !p.empty()) return p;
  if (auto p = variable("XDG_CACHE_HOME"); !p.empty()) return p / "paritybit";
  if (auto p = variable("HOME"); !p.empty()) return p / ".cache" / "paritybit";
  return std::filesystem::temp_directory_path() / "paritybit-cache";
}

std::filesystem::path ExecutableDir() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
}

}  // namespace pb
