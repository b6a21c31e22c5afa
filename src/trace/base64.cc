// By OpenSSL, whose decoder takes more than one encoding of the same bytes: what does not encode
// back to the same text is refused.
#include "trace/base64.h"

#include <openssl/evp.h>

namespace pb::trace {

std::string Base64(std::span<const uint8_t> bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');  // and the NUL that OpenSSL writes
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), bytes.data(),
                                static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(n));
  return text;
}

std::optional<std::vector<uint8_t>> FromBase64(std::string_view text) {
  std::vector<uint8_t> bytes(text.size() / 4 * 3 + 3);
  const int n = EVP_DecodeBlock(bytes.data(), reinterpret_cast<const unsigned char*>(text.data()),
                                static_cast<int>(text.size()));
  if (n < 0) return std::nullopt;
  // OpenSSL counts a byte for each '=', too.
  const size_t n_padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  bytes.resize(static_cast<size_t>(n) >= n_padding ? static_cast<size_t>(n) - n_padding : 0);
  if (Base64(bytes) != text) return std::nullopt;
  return bytes;
}

}  // namespace pb::trace
