// Tables at several widths: what is cut, what is left out, in which order.
#include "report/table.h"

#include <gtest/gtest.h>

namespace pb::report {
namespace {

Table Example() {
  Table table({{"pos"}, {"token", true, 0, 10, 6}, {"KL"}, {"limit", false, 1}, {"rel-L2", false, 2}, {""}},
              2);
  table.Row({"0", "\"<|begin_of_text|>\"", "3.5e+00", "2.7e-03", "7.8e-01", "x"});
  table.Line("  prompt 1");
  table.Row({"11", "\"a\"", "0", "2.7e-03", "NaN", ""});
  return table;
}

TEST(Table, ColumnsAreAsWideAsTheirCells) {
  EXPECT_EQ(Example().Render(80),
            "  pos  token            KL    limit   rel-L2\n"
            "    0  \"<|begi..\"  3.5e+00  2.7e-03  7.8e-01  x\n"
            "  prompt 1\n"
            "   11  \"a\"               0  2.7e-03      NaN\n");
  EXPECT_TRUE(Example().LeftOut(80).empty());
}

// The whole takes 47 columns: 2 + 3 + 10 + 7 + 7 + 7 + 1 and five gaps of two.
TEST(Table, TheLargestRankGoesFirstThenCellsAreCutThenTheLastRankGoes) {
  EXPECT_TRUE(Example().LeftOut(47).empty());
  EXPECT_EQ(Example().LeftOut(46), std::vector<std::string>{"rel-L2"});
  // 38 columns remain; four less are taken from the tokens
  EXPECT_EQ(Example().Render(34),
            "  pos  token        KL    limit\n"
            "    0  \"<|..\"  3.5e+00  2.7e-03  x\n"
            "  prompt 1\n"
            "   11  \"a\"           0  2.7e-03\n");
  EXPECT_EQ(Example().LeftOut(33), (std::vector<std::string>{"limit", "rel-L2"}));
}

TEST(Table, HeadsOfNumbersStandAtTheRight) {
  Table table({{"n"}, {"name", true}});
  table.Row({"1000", "a"});
  EXPECT_EQ(table.Render(80), "   n  name\n1000  a\n");
}

}  // namespace
}  // namespace pb::report
