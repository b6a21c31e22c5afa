// The page of held-out measurements: what stands there stays.
#include "report/generated_report.h"

#include <gtest/gtest.h>

namespace pb::report {
namespace {

GeneratedReport Measured(int64_t version, const std::string& date, int64_t wrong) {
  GeneratedReport report;
  report.version = version, report.date = date, report.what = "300 defects, seed 1";
  report.variations_commit = "0123456789abcdef", report.defects_commit = "fedcba9876543210";
  report.table.total.kind = "all", report.table.total.n = 300, report.table.total.wrong = wrong;
  report.table.goals = {{"no conclusion is wrong", wrong == 0}};
  return report;
}

size_t Times(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) n++;
  return n;
}

TEST(HeldOut, TheFirstMeasurementOfAGeneratorStays) {
  const std::string first = AddMeasurement("", Measured(1, "2026-01-01", 7));
  EXPECT_EQ(Times(first, "### First measurement: held out"), 1u);
  EXPECT_NE(first.find("2026-01-01, 300 defects, seed 1: variations of commit 0123456789abcdef; defects of "
                       "commit fedcba9876543210"),
            first.npos);
  EXPECT_NE(first.find("- missed: no conclusion is wrong"), first.npos);
  const std::string second = AddMeasurement(first, Measured(1, "2026-02-02", 0));
  EXPECT_TRUE(second.starts_with(first.substr(0, first.size() - 1)));
  EXPECT_EQ(Times(second, "held out\n"), 1u);
  EXPECT_EQ(Times(second, "### Later measurements"), 1u);
  EXPECT_NE(second.find("| 2026-02-02 | 0123456789ab | 300 defects, seed 1 | 300 | 0 | 0 | 0 | 0 | 0 | 0 | 0 "
                        "| 0 | 0 of 0 |\n"),
            second.npos);
  // Of a new version the first one is held out again; a line of the old one goes to the old one.
  const std::string third = AddMeasurement(second, Measured(2, "2026-03-03", 1));
  EXPECT_TRUE(third.starts_with(second));
  const std::string fourth = AddMeasurement(third, Measured(1, "2026-04-04", 2));
  EXPECT_EQ(Times(fourth, "### First measurement: held out"), 2u);
  EXPECT_EQ(Times(fourth, "### Later measurements"), 1u);
  EXPECT_LT(fourth.find("2026-04-04"), fourth.find("## Generator 2"));
  EXPECT_GT(fourth.find("2026-04-04"), fourth.find("2026-02-02"));
  EXPECT_TRUE(fourth.ends_with(third.substr(third.find("## Generator 2"))));
}

}  // namespace
}  // namespace pb::report
