// Receipts as files: an object sealed with the digest of its canonical text. What differs in one byte
// from what was written is no receipt.
#ifndef PARITYBIT_RECEIPT_SEALED_H_
#define PARITYBIT_RECEIPT_SEALED_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pb::receipt {

inline constexpr const char* kDigestField = "receipt_sha256";

// The text of a receipt's file: the object with the SHA-256 of its canonical text as one member
// more, canonical, and a newline. Bytes that are no UTF-8 are escaped. kInternal as of Canonical.
Result<std::string> Seal(nlohmann::json object);

// A text read as a receipt.
struct Opened {
  nlohmann::json object;       // null: it is no JSON
  std::string digest;          // as it says of itself
  std::string content_digest;  // of what it holds; empty: that is not canonical
  std::string problem;         // why it is not what Seal wrote; empty: it is, byte by byte
};
Opened Open(std::string_view text);

}  // namespace pb::receipt

#endif  // PARITYBIT_RECEIPT_SEALED_H_
