// Test results as JUnit's XML, which every CI reads.
#ifndef PARITYBIT_REPORT_JUNIT_H_
#define PARITYBIT_REPORT_JUNIT_H_

#include <string>
#include <string_view>
#include <vector>

namespace pb::report {

struct JunitCase {
  std::string name;
  double seconds = 0;
  std::string failure;  // one sentence; empty: it passed
  std::string details;  // of a failure, several lines
};

// One suite with a test case each. Characters that XML does not have become U+FFFD.
std::string RenderJunit(std::string_view suite, const std::vector<JunitCase>& cases);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_JUNIT_H_
