// Errors as values: Error, Status and Result<T>. Nothing in paritybit throws across a room, aborts
// on input, or prints below cli.
#ifndef PARITYBIT_BASE_RESULT_H_
#define PARITYBIT_BASE_RESULT_H_

#include <fmt/core.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.h"

namespace pb {

enum class Code {
  kUsage,     // a flag, a setting or a call that makes no sense
  kNotFound,  // a file, a plugin or a package that is not there
  kIo,        // reading or writing failed
  // a file that is damaged or not what it claims to be; the message has the byte offset
  kMalformed,
  kUnsupported,  // understood, and not offered here; the message names it
  // the model does not declare something that decides the result; the message names the setting
  kUndeclared,
  kEngine,       // an engine crashed, reported an error or broke the ABI
  kTimeout,      // an engine made no progress within its limit
  kInterrupted,  // the user asked to stop
  kInternal,     // a bug in paritybit
};

// A code and one message: what is wrong, where (path, byte offset, tensor), and how to mend it.
struct Error {
  Code code;
  std::string message;

  // Puts where it happened in front: "PATH: message".
  Error In(std::string_view where) &&;
};

// MakeError's other half, which is compiled once.
Error FormatError(Code code, fmt::string_view format, fmt::format_args args);
template <typename... Args>
Error MakeError(Code code, fmt::format_string<Args...> format, const Args&... args) {
  return FormatError(code, format, fmt::make_format_args(args...));
}

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_(std::move(value)) {}
  Result(Error error) : v_(std::move(error)) {}
  bool ok() const { return v_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & { return PB_CHECK(ok()), std::get<0>(v_); }
  const T& value() const& { return PB_CHECK(ok()), std::get<0>(v_); }
  T&& value() && { return PB_CHECK(ok()), std::move(std::get<0>(v_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const& { return PB_CHECK(!ok()), std::get<1>(v_); }
  Error&& error() && { return PB_CHECK(!ok()), std::move(std::get<1>(v_)); }

 private:
  std::variant<T, Error> v_;
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}
  bool ok() const { return !error_; }
  explicit operator bool() const { return ok(); }
  const Error& error() const& { return PB_CHECK(!ok()), *error_; }
  Error&& error() && { return PB_CHECK(!ok()), std::move(*error_); }

 private:
  std::optional<Error> error_;
};

}  // namespace pb

#define PB_CONCAT_INNER(a, b) a##b
#define PB_CONCAT(a, b) PB_CONCAT_INNER(a, b)
// Returns the error of an expression of type Status or Result from the enclosing function.
#define PB_TRY(expr)                                                                               \
  do {                                                                                             \
    if (auto pb_try_status = (expr); !pb_try_status.ok()) return std::move(pb_try_status).error(); \
  } while (0)
// PB_ASSIGN(auto x, Foo()): x gets the value, or the enclosing function returns the error.
#define PB_ASSIGN(declaration, expr) PB_ASSIGN_IMPL(PB_CONCAT(pb_result_, __LINE__), declaration, expr)
#define PB_ASSIGN_IMPL(tmp, declaration, expr)  \
  auto tmp = (expr);                            \
  if (!tmp.ok()) return std::move(tmp).error(); \
  declaration = std::move(tmp).value()

#endif  // PARITYBIT_BASE_RESULT_H_
