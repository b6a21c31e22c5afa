// The text of errors is put together here, once, so that the header needs nothing but fmt's
// declarations.
#include "base/result.h"

namespace pb {

Error Error::In(std::string_view where) && { return {code, fmt::format("{}: {}", where, message)}; }

Error FormatError(Code code, fmt::string_view format, fmt::format_args args) {
  return {code, fmt::vformat(format, args)};
}

}  // namespace pb
