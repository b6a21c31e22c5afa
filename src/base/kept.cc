// Seals what is kept for later runs with its digest, and reads nothing whose digest is that of
// another content.
#include "base/kept.h"

#include <mutex>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json_text.h"
#include "base/sha256.h"
#include "base/text.h"

namespace pb {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kBeforeDigest = ",\"sha256\":\"", kAfterDigest = "\"}";
constexpr size_t kDigits = 64;

std::string DigestOf(std::string_view text) {
  return Sha256Hex(std::as_bytes(std::span(text.data(), text.size())));
}

class Trouble {
 public:
  void Add(const Error& error) {
    std::lock_guard lock(mutex_);
    if (first_.empty()) first_ = error.message;
  }
  std::string first() {
    std::lock_guard lock(mutex_);
    return first_;
  }

 private:
  std::mutex mutex_;
  std::string first_;
};

// The cache is one for the whole process, as the environment that names it is.
Trouble& TroubleOfProcess() {
  static Trouble trouble;
  return trouble;
}

std::string_view WithoutNewline(std::string_view text) {
  return text.ends_with('\n') ? text.substr(0, text.size() - 1) : text;
}

bool HasDigest(std::string_view text) {
  const size_t n_last = kBeforeDigest.size() + kDigits + kAfterDigest.size();
  return text.size() > n_last && text.substr(text.size() - n_last, kBeforeDigest.size()) == kBeforeDigest &&
         text.substr(text.size() - kAfterDigest.size()) == kAfterDigest;
}

}  // namespace

std::string Sealed(const Json& object) {
  PB_CHECK(object.is_object() && !object.empty());
  std::string text = DumpJson(object, -1, true);
  text.pop_back();
  const std::string digest = DigestOf(text);
  return fmt::format("{}{}{}{}", text, kBeforeDigest, digest, kAfterDigest);
}

Result<Json> OpenSealed(std::string_view text) {
  text = WithoutNewline(text);
  if (!HasDigest(text)) return MakeError(Code::kMalformed, "it does not end with the digest of its content");
  const size_t n_content = text.size() - kBeforeDigest.size() - kDigits - kAfterDigest.size();
  if (DigestOf(text.substr(0, n_content)) != text.substr(n_content + kBeforeDigest.size(), kDigits))
    return MakeError(Code::kMalformed,
                     "it is damaged: its content is not the one that its digest was made of");
  PB_ASSIGN(Json object, ParseJson(text));
  if (!object.is_object()) return MakeError(Code::kMalformed, "it is no JSON object");
  return object;
}

Status WriteSealed(const std::filesystem::path& path, const Json& object) {
  return WriteFileAtomic(path, Sealed(object) + "\n");
}

Result<Json> ReadSealed(const std::filesystem::path& path, uint64_t max_bytes) {
  PB_ASSIGN(const std::string text, ReadFile(path, max_bytes));
  auto object = OpenSealed(text);
  if (!object.ok()) return std::move(object).error().In(path.string());
  return object;
}

std::optional<Json> ReadCacheEntry(const std::filesystem::path& path, uint64_t max_bytes) {
  auto text = ReadFile(path, max_bytes);
  if (!text.ok()) {
    if (text.error().code != Code::kNotFound) TroubleOfProcess().Add(text.error());
    return std::nullopt;
  }
  auto object = OpenSealed(*text);
  if (object.ok()) return std::move(object).value();
  // Cut short, or of a version that made no digests: no trouble of the cache, and written anew.
  if (HasDigest(WithoutNewline(*text))) TroubleOfProcess().Add(std::move(object).error().In(path.string()));
  return std::nullopt;
}

void WriteCacheEntry(const std::filesystem::path& path, const Json& object) {
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  if (error)
    TroubleOfProcess().Add(
        MakeError(Code::kIo, "{}: cannot create: {}", path.parent_path().string(), error.message()));
  else if (Status written = WriteSealed(path, object); !written.ok())
    TroubleOfProcess().Add(written.error());
}

std::string CacheTrouble() { return TroubleOfProcess().first(); }

}  // namespace pb
