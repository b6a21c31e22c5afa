// Walks the cache by open directories (openat), so that no name on the way can become a link while
// it is walked.
#include "setup/cache_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <iterator>
#include <memory>

#include "base/system_error.h"

namespace pb::setup {
namespace {

// What paritybit and its set-up scripts write, and nothing else is removed.
constexpr std::pair<std::string_view, std::string_view> kKnown[] = {
    {"greedy", "runs of greedy-parity that were interrupted"},
    {"last-diverged.json", "the last comparison that diverged, of an earlier version"},
    {"models", "models that were fetched"},
    {"noise", "noise floors"},
    {"prompts", "copies of prompts that were read from stdin"},
    {"python-tests", "packages of the tests of python/"},
    {"reference", "recordings of references (--reuse)"},
    {"references", "reference engines and their adapters"},
    {"runs", "the last comparisons"},
    {"self-check", "cases of self-check"},
    {"sha256", "digests of files"},
};

std::string_view WhatIs(std::string_view name) {
  const auto* known = std::find_if(std::begin(kKnown), std::end(kKnown),
                                   [&](const auto& entry) { return entry.first == name; });
  return known == std::end(kKnown) ? std::string_view() : known->second;
}

// An open directory, not reached through a link.
class Folder {
 public:
  static Result<Folder> Open(int parent, const char* name, const std::string& path, bool follow) {
    const int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
    if (fd < 0) return SystemError(fmt::format("{}: cannot open", path), errno);
    DIR* dir = fdopendir(fd);
    if (!dir) {
      const int error = errno;
      close(fd);
      return SystemError(fmt::format("{}: cannot open", path), error);
    }
    return Folder(dir, path);
  }
  int fd() const { return dirfd(dir_.get()); }
  const std::string& path() const { return path_; }

  // All names but . and .., read before anything is removed.
  Result<std::vector<std::string>> Names() const {
    std::vector<std::string> names;
    for (;;) {
      errno = 0;
      const dirent* entry = readdir(dir_.get());
      if (!entry && errno != 0) return SystemError(fmt::format("{}: cannot read", path_), errno);
      if (!entry) break;
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
    }
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  struct Close {
    void operator()(DIR* dir) const { closedir(dir); }
  };
  Folder(DIR* dir, std::string path) : dir_(dir), path_(std::move(path)) {}
  std::unique_ptr<DIR, Close> dir_;
  std::string path_;
};

// No tree of ours is deeper; a walk through more would be one in circles.
constexpr int kDeepest = 64;

// One entry of a folder, as it is itself.
Result<struct stat> StatOf(const Folder& folder, const std::string& name) {
  struct stat info {};
  if (fstatat(folder.fd(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
    return SystemError(fmt::format("{}/{}", folder.path(), name), errno);
  return info;
}

// Calls `leaf` for every entry below that is no folder, and `left` for every folder after all that
// it holds. Folders of another device than `device` are not entered.
struct Visit {
  std::function<Status(const Folder&, const std::string&name, const struct stat&)> leaf, left;
};

Status Walk(const Folder& folder, const std::string& name, dev_t device, int depth, const Visit& visit) {
  auto info = StatOf(folder, name);
  if (!info) return info.error().code == Code::kNotFound ? Status() : Status(info.error());
  if (!S_ISDIR(info->st_mode)) return visit.leaf(folder, name, *info);
  const std::string path = folder.path() + "/" + name;
  if (info->st_dev != device) return MakeError(Code::kIo, "{}: another file system is mounted there", path);
  if (depth > kDeepest) return MakeError(Code::kIo, "{}: deeper than {} folders", path, kDeepest);
  {
    PB_ASSIGN(const Folder inside, Folder::Open(folder.fd(), name.c_str(), path, false));
    PB_ASSIGN(const std::vector<std::string> names, inside.Names());
    for (const std::string& below : names) PB_TRY(Walk(inside, below, device, depth + 1, visit));
  }
  return visit.left(folder, name, *info);
}

constexpr uint64_t kStatBlock = 512;  // the unit of st_blocks

}  // namespace

Result<std::vector<CacheItem>> ListCache(const std::filesystem::path& cache) {
  std::vector<CacheItem> items;
  auto opened = Folder::Open(AT_FDCWD, cache.c_str(), cache.string(), true);
  if (!opened && opened.error().code == Code::kNotFound) return items;
  PB_ASSIGN(const Folder folder, std::move(opened));
  PB_ASSIGN(const std::vector<std::string> names, folder.Names());
  for (const std::string& name : names) {
    CacheItem item{name, std::string(WhatIs(name)), 0, 0, false};
    auto info = StatOf(folder, name);
    if (!info) continue;  // gone meanwhile
    item.is_link = S_ISLNK(info->st_mode);
    auto add = [&item](const Folder&, const std::string&, const struct stat& of) -> Status {
      item.bytes += static_cast<uint64_t>(of.st_blocks) * kStatBlock;
      item.n_files += S_ISDIR(of.st_mode) ? 0 : 1;
      return {};
    };
    if (item.known()) PB_TRY(Walk(folder, name, info->st_dev, 0, {add, add}));
    items.push_back(std::move(item));
  }
  return items;
}

Status RemoveFromCache(const std::filesystem::path& cache, std::string_view name) {
  if (WhatIs(name).empty())
    return MakeError(Code::kUsage, "{}: not a part of the cache that paritybit knows", name);
  PB_ASSIGN(const Folder folder, Folder::Open(AT_FDCWD, cache.c_str(), cache.string(), true));
  struct stat of_cache {};
  if (fstat(folder.fd(), &of_cache) != 0) return SystemError(cache.string(), errno);
  auto removing = [](int flag) {
    return [flag](const Folder& in, const std::string& entry, const struct stat&) -> Status {
      if (unlinkat(in.fd(), entry.c_str(), flag) == 0 || errno == ENOENT) return {};
      return SystemError(fmt::format("{}/{}: cannot remove", in.path(), entry), errno);
    };
  };
  return Walk(folder, std::string(name), of_cache.st_dev, 0, {removing(0), removing(AT_REMOVEDIR)});
}

}  // namespace pb::setup
