// A gate while it is checked.
#ifndef PARITYBIT_RECEIPT_CHECK_H_
#define PARITYBIT_RECEIPT_CHECK_H_

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "receipt/gates.h"

namespace pb::receipt {

// Of what is wrong the first is told.
class Check {
 public:
  explicit Check(const char* name) { gate_.name = name, gate_.passed = true; }
  template <typename... Args>
  void Fail(compare::Outcome outcome, fmt::format_string<Args...> format, const Args&... args) {
    FailWith(outcome, fmt::vformat(format, fmt::make_format_args(args...)));
  }
  void FailWith(compare::Outcome outcome, std::string why) {
    ++n_;
    gate_.outcome = std::max(gate_.outcome, outcome);
    if (!gate_.passed) return;
    gate_.passed = false;
    gate_.saw = std::move(why);
  }
  bool failed() const { return !gate_.passed; }
  Gate End(std::string saw) {
    if (gate_.passed) gate_.saw = std::move(saw);
    if (n_ > 1) gate_.saw += fmt::format(" (and {} more)", n_ - 1);
    return std::move(gate_);
  }

 private:
  Gate gate_;
  int n_ = 0;
};

inline std::string Plural(int64_t n, const char* what) {
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

}  // namespace pb::receipt

#endif  // PARITYBIT_RECEIPT_CHECK_H_
