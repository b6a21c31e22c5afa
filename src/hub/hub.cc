// Checks and makes the names of a hub.
#include "hub/hub.h"

#include <algorithm>
#include <charconv>

namespace pb::hub {
namespace {

bool IsNameChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_';
}

bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= 128 && name.find("..") == name.npos && name[0] != '.' &&
         std::all_of(name.begin(), name.end(), IsNameChar);
}

bool HasControl(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

// Of "a/b/c" each part between the slashes.
template <typename Visit>
bool AllSegments(std::string_view path, const Visit& holds) {
  for (;;) {
    const size_t slash = path.find('/');
    if (!holds(path.substr(0, slash))) return false;
    if (slash == path.npos) return true;
    path.remove_prefix(slash + 1);
  }
}

}  // namespace

Result<Repository> ParseRepository(const std::string& base, const std::string& id,
                                   const std::string& revision) {
  Repository repository;
  PB_ASSIGN(repository.base, Url::Parse(base));
  if (!repository.base.query.empty())
    return MakeError(Code::kUsage, "--base-url {}: a hub's address has no query", repository.base.shown());
  while (repository.base.path.ends_with('/')) repository.base.path.pop_back();
  if (std::count(id.begin(), id.end(), '/') > 1 || !AllSegments(id, IsName))
    return MakeError(Code::kUsage, "--id \"{:.120}\" is no repository: expected OWNER/NAME", id);
  const bool segments =
      AllSegments(revision, [](std::string_view s) { return !s.empty() && s != "." && s != ".."; });
  if (!segments || HasControl(revision) || revision.size() > 256)
    return MakeError(Code::kUsage, "--rev \"{:.120}\" is no branch, tag or commit", revision);
  repository.id = id, repository.revision = revision;
  return repository;
}

Status CheckFileName(std::string_view file) {
  const auto good = [](std::string_view s) {
    return !s.empty() && s != "." && s != ".." && s.find('\\') == s.npos && s.size() <= 255;
  };
  if (!HasControl(file) && AllSegments(file, good)) return {};
  return MakeError(Code::kUsage, "--file \"{:.120}\" is no file of a repository", file);
}

Result<Url> FileUrl(const Repository& repository, const std::string& file) {
  PB_TRY(CheckFileName(file));
  Url url = repository.base;
  std::string revision;
  for (char c : EscapePath(repository.revision)) revision += c == '/' ? "%2F" : std::string(1, c);
  url.path += fmt::format("/{}/resolve/{}/{}", repository.id, revision, EscapePath(file));
  return url;
}

std::filesystem::path TargetOf(const std::filesystem::path& out, const std::string& id,
                               const std::string& file) {
  std::string folder = id;
  std::replace(folder.begin(), folder.end(), '/', '-');
  return out / folder / file.substr(file.rfind('/') + 1);
}

Result<std::vector<std::string>> PartsOf(const std::string& file) {
  constexpr std::string_view kEnd = ".gguf";
  constexpr size_t kTail = 1 + 5 + 4 + 5 + kEnd.size();  // -00001-of-00003.gguf
  constexpr int kMostParts = 1000;
  if (file.size() <= kTail || !file.ends_with(kEnd)) return std::vector<std::string>{file};
  const size_t at = file.size() - kTail;
  int no = 0, count = 0;
  const auto number = [&](size_t from, int* to) {
    const auto [end, error] = std::from_chars(file.data() + from, file.data() + from + 5, *to);
    return error == std::errc() && end == file.data() + from + 5;
  };
  if (file[at] != '-' || file.compare(at + 6, 4, "-of-") != 0 || !number(at + 1, &no) ||
      !number(at + 10, &count))
    return std::vector<std::string>{file};
  if (no < 1 || no > count || count > kMostParts)
    return MakeError(Code::kUsage, "--file \"{:.120}\": part {} of {} cannot be", file, no, count);
  std::vector<std::string> parts;
  for (int i = 1; i <= count; ++i)
    parts.push_back(fmt::format("{}-{:05}-of-{:05}.gguf", file.substr(0, at), i, count));
  return parts;
}

Result<std::string> CheckToken(std::string token) {
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r' || token.back() == ' '))
    token.pop_back();
  if (std::any_of(token.begin(), token.end(), [](char c) { return c <= ' ' || c >= 0x7f; }))
    return MakeError(Code::kUsage, "HF_TOKEN holds blanks or control characters: it is no token");
  return token;
}

}  // namespace pb::hub
