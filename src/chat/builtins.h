// Filters, tests, methods and functions of chat templates.
#ifndef PARITYBIT_CHAT_BUILTINS_H_
#define PARITYBIT_CHAT_BUILTINS_H_

#include <string>
#include <string_view>

#include "base/result.h"
#include "chat/value.h"

namespace pb::chat {

// Bounds of what a template may make; a rendered conversation is far below them.
inline constexpr size_t kMaxStringBytes = 16 << 20;
inline constexpr size_t kMaxItems = 1 << 20;
inline constexpr size_t kMaxParts = 1 << 18;  // strings in a list that is made of one string
inline constexpr size_t kMaxKeys = 1 << 10;   // of a dictionary

struct Call {
  std::string_view name;
  int line;
  Value subject;  // what the filter, test or method applies to
  List args;
  Dict named;

  template <typename... Args>
  Error Fail(Code code, fmt::format_string<Args...> format, const Args&... arguments) const {
    return FormatError(code, format, fmt::make_format_args(arguments...))
        .In(fmt::format("chat template, line {}", line));
  }
};

// kUnsupported: not offered, named. kMalformed: arguments that Jinja refuses too.
Result<Value> ApplyFilter(const Call& call);
Result<bool> ApplyTest(const Call& call);
Result<Value> CallMethod(const Call& call);
// raise_exception is kUsage with its message.
Result<Value> CallFunction(const Call& call);

}  // namespace pb::chat

#endif  // PARITYBIT_CHAT_BUILTINS_H_
