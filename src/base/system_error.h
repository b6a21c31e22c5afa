// What the operating system says of a call that failed, with the limit of this process that was
// met.
#ifndef PARITYBIT_BASE_SYSTEM_ERROR_H_
#define PARITYBIT_BASE_SYSTEM_ERROR_H_

#include <string>
#include <string_view>

#include "base/result.h"

namespace pb {

// The limit that an errno tells of, as a shell shows it: "ulimit -n is 16"; empty where there is
// none.
std::string LimitText(int error);
// strerror, and the limit: "Too many open files (ulimit -n is 16)".
std::string ErrnoText(int error);
// kNotFound for ENOENT, else kIo; the message is "WHAT: " and ErrnoText.
Error SystemError(std::string_view what, int error);

}  // namespace pb

#endif  // PARITYBIT_BASE_SYSTEM_ERROR_H_
