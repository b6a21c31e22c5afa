// SHA-256 (FIPS 180-4) of bytes and files, as 64 hexadecimal digits, by OpenSSL.
#ifndef PARITYBIT_BASE_SHA256_H_
#define PARITYBIT_BASE_SHA256_H_

#include <filesystem>
#include <span>
#include <string>

#include "base/result.h"

namespace pb {

std::string Sha256Hex(std::span<const std::byte> bytes);
Result<std::string> Sha256File(const std::filesystem::path& path);

}  // namespace pb

#endif  // PARITYBIT_BASE_SHA256_H_
