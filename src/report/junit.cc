// Writes JUnit's XML by hand: five elements and their escapes.
#include "report/junit.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace pb::report {
namespace {

// XML 1.0 has no control characters but tab and line ends, no surrogates and no U+FFFE, U+FFFF.
std::string Xml(std::string_view text) {
  constexpr std::string_view kReplacement = "\xef\xbf\xbd";
  std::string out;
  while (!text.empty()) {
    const Utf8 c = DecodeUtf8(text);
    const size_t n = std::max<size_t>(c.n_bytes, 1);
    const bool allowed = c.n_bytes > 0 &&
                         (c.code_point >= 0x20 || c.code_point == '\t' || c.code_point == '\n') &&
                         c.code_point != 0xfffe && c.code_point != 0xffff;
    if (!allowed)
      out += kReplacement;
    else if (c.code_point == '<')
      out += "&lt;";
    else if (c.code_point == '>')
      out += "&gt;";
    else if (c.code_point == '&')
      out += "&amp;";
    else if (c.code_point == '"')
      out += "&quot;";
    else if (c.code_point == '\n' || c.code_point == '\t')
      out += fmt::format("&#{};", c.code_point);
    else
      out += text.substr(0, n);
    text.remove_prefix(n);
  }
  return out;
}

}  // namespace

std::string RenderJunit(std::string_view suite, const std::vector<JunitCase>& cases) {
  const auto n_failed =
      std::count_if(cases.begin(), cases.end(), [](const JunitCase& c) { return !c.failure.empty(); });
  double seconds = 0;
  for (const JunitCase& c : cases) seconds += c.seconds;
  const std::string counts = fmt::format("tests=\"{}\" failures=\"{}\" errors=\"0\" time=\"{:.3f}\"",
                                         cases.size(), n_failed, seconds);
  // What was skipped is an attribute of suites alone (junit-10.xsd).
  std::string out = fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {0}>\n  <testsuite name=\"{1}\" {0} "
      "skipped=\"0\">\n",
      counts, Xml(suite));
  for (const JunitCase& c : cases) {
    out += fmt::format("    <testcase name=\"{}\" classname=\"{}\" time=\"{:.3f}\"", Xml(c.name), Xml(suite),
                       c.seconds);
    if (c.failure.empty())
      out += "/>\n";
    else
      out += fmt::format(">\n      <failure message=\"{}\">{}</failure>\n    </testcase>\n", Xml(c.failure),
                         Xml(c.details.empty() ? c.failure : c.details));
  }
  return out + "  </testsuite>\n</testsuites>\n";
}

}  // namespace pb::report
