// SHA-256 (FIPS 180-4) of bytes and files, as 64 hexadecimal digits, by OpenSSL.
#ifndef PARITYBIT_BASE_SHA256_H_
#define PARITYBIT_BASE_SHA256_H_

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pb {

// A digest over bytes that come in pieces.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(std::span<const std::byte> bytes);
  std::string Hex() const;  // of all bytes so far

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string Sha256Hex(std::span<const std::byte> bytes);
std::string Sha256Hex(std::string_view text);
Result<std::string> Sha256File(const std::filesystem::path& path);

}  // namespace pb

#endif  // PARITYBIT_BASE_SHA256_H_
