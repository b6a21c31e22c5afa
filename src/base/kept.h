// What paritybit keeps on disk for later runs (noise floors, digests of files, the last run),
// believed only while it is what was written: a kept file is a JSON object whose last member is the
// SHA-256 of all bytes before it.
#ifndef PARITYBIT_BASE_KEPT_H_
#define PARITYBIT_BASE_KEPT_H_

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pb {

// The text of a JSON object with one member more, its last: {...,"sha256":"64 digits"}, the SHA-256
// of the bytes before the comma.
std::string Sealed(const nlohmann::json& object);
// The object of a sealed text, which may end with a newline. kMalformed: its digest is missing or
// is that of another content.
Result<nlohmann::json> OpenSealed(std::string_view text);

// The same as a file. Errors name it; kNotFound: there is none.
Status WriteSealed(const std::filesystem::path& path, const nlohmann::json& object);
Result<nlohmann::json> ReadSealed(const std::filesystem::path& path, uint64_t max_bytes);

// An entry of the cache. None: there is none, or none to be believed, and what it would have saved
// is done anew.
std::optional<nlohmann::json> ReadCacheEntry(const std::filesystem::path& path, uint64_t max_bytes);
// Makes the folders that are missing. Without a writable cache nothing is kept.
void WriteCacheEntry(const std::filesystem::path& path, const nlohmann::json& object);
// What first kept the cache from serving this process (an entry damaged or unreadable, no room, no
// right to write), in one sentence; empty: nothing did. Safe from any thread.
std::string CacheTrouble();

}  // namespace pb

#endif  // PARITYBIT_BASE_KEPT_H_
