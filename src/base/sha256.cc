#include "base/sha256.h"

#include <openssl/evp.h>

#include "base/file.h"

namespace pb {

std::string Sha256Hex(std::span<const std::byte> bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int n = 0;
  PB_CHECK(EVP_Digest(bytes.data(), bytes.size(), digest, &n, EVP_sha256(), nullptr) == 1);
  std::string hex;
  for (unsigned int i = 0; i < n; i++) fmt::format_to(std::back_inserter(hex), "{:02x}", digest[i]);
  return hex;
}

Result<std::string> Sha256File(const std::filesystem::path& path) {
  PB_ASSIGN(MappedFile file, MappedFile::Open(path));
  return Sha256Hex(file.bytes());
}

}  // namespace pb
