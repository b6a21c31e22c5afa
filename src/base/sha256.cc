// SHA-256 by OpenSSL's digest interface.
#include "base/sha256.h"

#include <openssl/evp.h>

#include <exception>
#include <new>

#include "base/file.h"

namespace pb {

namespace {

// OpenSSL's calls fail where there is no memory, and for no other reason here: told as operator new
// tells it.
void Need(bool done) {
  if (!done) std::rethrow_exception(std::make_exception_ptr(std::bad_alloc()));
}

}  // namespace

struct Sha256::State {
  State() : context(EVP_MD_CTX_new()) { Need(context != nullptr); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_MD_CTX_free(context); }
  EVP_MD_CTX* context;
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  Need(EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;

void Sha256::Update(std::span<const std::byte> bytes) {
  PB_CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
}

std::string Sha256::Hex() const {
  State copy;  // finishing a copy leaves the original open for more
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int n = 0;
  Need(EVP_MD_CTX_copy_ex(copy.context, state_->context) == 1);
  PB_CHECK(EVP_DigestFinal_ex(copy.context, digest, &n) == 1);
  std::string hex;
  for (unsigned int i = 0; i < n; i++) fmt::format_to(std::back_inserter(hex), "{:02x}", digest[i]);
  return hex;
}

std::string Sha256Hex(std::span<const std::byte> bytes) {
  Sha256 digest;
  digest.Update(bytes);
  return digest.Hex();
}

std::string Sha256Hex(std::string_view text) { return Sha256Hex(std::as_bytes(std::span(text))); }

Result<std::string> Sha256File(const std::filesystem::path& path) {
  PB_ASSIGN(MappedFile file, MappedFile::Open(path));
  return Sha256Hex(file.bytes());
}

}  // namespace pb
