// Walks the double array; every index in it is checked, as it comes from a file.
#include "tokenizer/chars_map.h"

#include <cstring>

namespace pb {

Result<CharsMap> CharsMap::Create(std::string_view bytes) {
  uint32_t n_bytes = 0;
  if (bytes.size() < sizeof(n_bytes))
    return MakeError(Code::kMalformed, "it has {} bytes, too few for its length", bytes.size());
  std::memcpy(&n_bytes, bytes.data(), sizeof(n_bytes));
  bytes.remove_prefix(sizeof(n_bytes));
  if (n_bytes >= bytes.size() || n_bytes < 4)
    return MakeError(Code::kMalformed, "byte 0: an array of {} bytes, where {} follow", n_bytes,
                     bytes.size());
  CharsMap map;
  map.units_.resize(n_bytes / 4);
  std::memcpy(map.units_.data(), bytes.data(), map.units_.size() * 4);
  map.replacements_ = bytes.substr(n_bytes);
  return map;
}

Result<uint32_t> CharsMap::Unit(uint32_t index) const {
  if (index >= units_.size())
    return MakeError(Code::kMalformed, "an index {} beyond the {} units of its array", index, units_.size());
  return units_[index];
}

Result<std::optional<CharsMap::Found>> CharsMap::Walk(std::string_view text, bool first) const {
  auto offset = [](uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); };
  std::optional<Found> found;
  PB_ASSIGN(uint32_t unit, Unit(0));
  uint32_t node = offset(unit);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == 0) break;
    node ^= c;
    PB_ASSIGN(unit, Unit(node));
    if ((unit & (1u << 31 | 0xFF)) != c) break;
    node ^= offset(unit);
    if ((unit >> 8 & 1) == 0) continue;
    PB_ASSIGN(const uint32_t leaf, Unit(node));
    const uint32_t at = leaf & ~(1u << 31);
    const size_t end = at < replacements_.size() ? replacements_.find('\0', at) : std::string::npos;
    if (end == std::string::npos)
      return MakeError(Code::kMalformed, "a replacement at byte {} of {} that does not end", at,
                       replacements_.size());
    found = Found{i + 1, std::string_view(replacements_).substr(at, end - at)};
    if (first) break;
  }
  return found;
}

}  // namespace pb
