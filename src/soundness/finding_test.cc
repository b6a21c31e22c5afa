// The table of findings, and that docs/verify.md has all of it.
#include "soundness/finding.h"

#include <gtest/gtest.h>

#include <set>

#include "base/file.h"
#include "tests/paths.h"

namespace pb::soundness {
namespace {

TEST(Findings, TheDocumentHasEachKindAsItIs) {
  const std::string page = ReadFile(SourcePath("docs/verify.md")).value();
  std::set<std::string_view> codes;
  for (const FindingKind& kind : FindingKinds()) {
    EXPECT_TRUE(codes.insert(kind.code).second) << kind.code << " stands twice";
    const std::string row =
        fmt::format("| `{}` | {} | {} |\n", kind.code, SeverityName(kind.severity), kind.consequence);
    EXPECT_NE(page.find(row), page.npos) << row;
    EXPECT_FALSE(kind.cure.empty());
  }
  size_t n_rows = 0;
  for (size_t at = 0; (at = page.find("\n| `", at)) != page.npos; ++at)
    n_rows += page.compare(page.find("` | ", at), 8, "` | note") == 0 ||
              page.compare(page.find("` | ", at), 11, "` | warning") == 0 ||
              page.compare(page.find("` | ", at), 9, "` | error") == 0;
  EXPECT_EQ(n_rows, FindingKinds().size());
}

TEST(Findings, AreCountedBySeverity) {
  Findings findings;
  findings.Add("tensor-overlap", "a", "one");
  findings.Add("shards", "b", "two", "a cure of its own");
  EXPECT_EQ(findings.Count(Severity::kError), 1);
  EXPECT_EQ(findings.Count(Severity::kWarning), 0);
  EXPECT_TRUE(findings.Has("shards"));
  EXPECT_FALSE(findings.Has("metadata"));
  EXPECT_EQ(findings.items()[1].cure, "a cure of its own");
  EXPECT_FALSE(findings.items()[0].cure.empty());
}

TEST(Findings, LongListsAreCut) {
  EXPECT_EQ(FirstOf({"a"}), "a");
  EXPECT_EQ(FirstOf({"a", "b", "c", "d"}), "a, b, c, d");
  EXPECT_EQ(FirstOf({"a", "b", "c", "d", "e", "f"}), "a, b, c, d and 2 more");
}

}  // namespace
}  // namespace pb::soundness
