// Base64 (RFC 4648, section 4, with padding) of small binary fields in JSON.
#ifndef PARITYBIT_TRACE_BASE64_H_
#define PARITYBIT_TRACE_BASE64_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pb::trace {

std::string Base64(std::span<const uint8_t> bytes);
// Nothing when the text is no canonical base64.
std::optional<std::vector<uint8_t>> FromBase64(std::string_view text);

}  // namespace pb::trace

#endif  // PARITYBIT_TRACE_BASE64_H_
