// How a Hugging Face-compatible hub names its files, and how they are named here.
#ifndef PARITYBIT_HUB_HUB_H_
#define PARITYBIT_HUB_HUB_H_

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "hub/url.h"

namespace pb::hub {

inline constexpr const char* kDefaultBase = "https://huggingface.co";

struct Repository {
  Url base;
  std::string id;        // "owner/name"
  std::string revision;  // a branch, a tag or a commit
};

// kUsage: an id, a revision or a base that cannot be one. Nothing of them can leave its place in a
// path.
Result<Repository> ParseRepository(const std::string& base, const std::string& id,
                                   const std::string& revision);
// kUsage: a name that leads out of the repository.
Status CheckFileName(std::string_view file);
// BASE/ID/resolve/REVISION/FILE
Result<Url> FileUrl(const Repository& repository, const std::string& file);
// OUT/owner-name/FILE, of FILE the last part alone.
std::filesystem::path TargetOf(const std::filesystem::path& out, const std::string& id,
                               const std::string& file);
// All files of the set that FILE is one of (NAME-00001-of-00003.gguf); else itself.
Result<std::vector<std::string>> PartsOf(const std::string& file);

// A token (HF_TOKEN) without the line's end behind it; empty: none. kUsage: it holds what no header may.
Result<std::string> CheckToken(std::string token);

}  // namespace pb::hub

#endif  // PARITYBIT_HUB_HUB_H_
