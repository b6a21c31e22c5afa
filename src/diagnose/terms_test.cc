// Products whose terms were taken otherwise, made here by their definition.
#include "diagnose/terms.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/random.h"

namespace pb::diagnose {
namespace {

Terms RandomTerms(int64_t n_rows, int64_t n_outputs, int64_t width) {
  Random random(7);
  Terms t{n_rows, n_outputs, width, {}, {}};
  for (int64_t i = 0; i < n_rows * width; i++) t.x.push_back(random.Normal());
  for (int64_t i = 0; i < n_outputs * width; i++) t.w.push_back(static_cast<float>(random.Normal()));
  return t;
}

// What taking term k (1 + change(k)) times adds to each output, with noise of 1e-6.
std::vector<double> Residual(const Terms& t, const std::function<double(int64_t)>& change) {
  Random random(8);
  std::vector<double> r;
  for (int64_t i = 0; i < t.n_rows; i++)
    for (int64_t j = 0; j < t.n_outputs; j++) {
      double sum = 1e-6 * random.Normal();
      for (int64_t k = 0; k < t.width; k++)
        sum += change(k) * t.x[static_cast<size_t>(i * t.width + k)] *
               double(t.w[static_cast<size_t>(j * t.width + k)]);
      r.push_back(sum);
    }
  return r;
}

TEST(FitChanges, FindsTheTermsThatAreTakenOtherwise) {
  const Terms t = RandomTerms(3, 60, 96);
  for (const double change : {-1.0, 1.0, 0.05}) {
    const auto fit = FitChanges(t, Residual(t, [&](int64_t k) { return k % 8 == 3 ? change : 0; }), 1e-6);
    ASSERT_TRUE(fit);
    const TermMarks marks = MarksOf(*fit);
    EXPECT_NEAR(marks.change, change, 1e-4);
    for (int64_t k = 0; k < t.width; k++)
      EXPECT_EQ(marks.marks[static_cast<size_t>(k)] == Mark::kWrong, k % 8 == 3) << k;
  }
}

TEST(FitChanges, TermsThatAreZeroAreOpen) {
  Terms t = RandomTerms(3, 60, 96);
  for (int64_t i = 0; i < 3; i++) t.x[static_cast<size_t>(i * 96 + 95)] = 0;
  const auto fit = FitChanges(t, Residual(t, [](int64_t k) { return k >= 94 ? -1 : 0; }), 1e-6);
  ASSERT_TRUE(fit);
  const TermMarks marks = MarksOf(*fit);
  EXPECT_EQ(marks.marks[94], Mark::kWrong);
  EXPECT_EQ(marks.marks[95], Mark::kOpen);
}

TEST(FitChanges, NoNumberOfItsOwnForEachTerm) {
  const Terms t = RandomTerms(1, 60, 96);
  EXPECT_FALSE(FitChanges(t, Residual(t, [](int64_t) { return -1; }), 1e-6));
}

TEST(MarksOf, ChangesThatDifferHaveNoneInCommon) {
  const Terms t = RandomTerms(3, 60, 96);
  const auto fit = FitChanges(
      t, Residual(t, [](int64_t k) { return k < 8 ? 0.1 * static_cast<double>(k + 1) : 0; }), 1e-6);
  ASSERT_TRUE(fit);
  EXPECT_EQ(MarksOf(*fit).change, 0);
}

TEST(FindTail, TakesTheFewestOfAnyNumber) {
  const Terms t = RandomTerms(1, 12, 96);
  for (int64_t n : {1, 3, 7, 40}) {
    const Tail tail = FindTail(t, Residual(t, [&](int64_t k) { return k >= 96 - n ? -1 : 0; }), 1e-3);
    EXPECT_EQ(tail.n, n);
    EXPECT_NEAR(tail.change, -1, 1e-4);
  }
  EXPECT_EQ(FindTail(t, Residual(t, [](int64_t k) { return k % 5 == 0 ? -1 : 0; }), 1e-3).n, 0);
}

TermTable TableOf(const Terms& t) {
  TermTable table{t.n_rows * t.n_outputs, t.width, {}};
  for (int64_t i = 0; i < t.n_rows; i++)
    for (int64_t j = 0; j < t.n_outputs; j++)
      for (int64_t k = 0; k < t.width; k++)
        table.t.push_back(t.x[static_cast<size_t>(i * t.width + k)] *
                          double(t.w[static_cast<size_t>(j * t.width + k)]));
  return table;
}

TEST(FindRun, OfFewerValuesThanTerms) {
  const Terms t = RandomTerms(1, 8, 96);
  for (const auto& [first, last, change] :
       {std::tuple{0, 31, -1.0}, {95, 95, -1.0}, {17, 18, 1.0}, {40, 80, 0.5}}) {
    const auto run = FindRun(TableOf(t), nullptr,
                             Residual(t, [&](int64_t k) { return k >= first && k <= last ? change : 0; }));
    ASSERT_TRUE(run);
    EXPECT_EQ(run->first, first);
    EXPECT_EQ(run->last, last);
    EXPECT_NEAR(run->change, change, 1e-4);
    EXPECT_LT(run->rest, 1e-4);
  }
  const auto none = FindRun(TableOf(t), nullptr, Residual(t, [](int64_t k) { return k % 3 == 0 ? -1 : 0; }));
  EXPECT_GT(none ? none->rest : 1, 0.05);
}

TEST(FindRun, TheSamePlacesOfEveryBlock) {
  const Terms t = RandomTerms(2, 6, 96);
  const auto run =
      FindRun(Folded(TableOf(t), 32), nullptr, Residual(t, [](int64_t k) { return k % 32 >= 28 ? -1 : 0; }));
  ASSERT_TRUE(run);
  EXPECT_EQ(run->first, 28);
  EXPECT_EQ(run->last, 31);
  EXPECT_LT(run->rest, 1e-4);
}

TEST(FindRun, GroupsGoWithAllOfTheirTerms) {
  const Terms t = RandomTerms(2, 6, 96), sums = RandomTerms(2, 6, 12);
  std::vector<double> r = Residual(t, [](int64_t k) { return k >= 20 && k <= 41 ? -1 : 0; });
  const std::vector<double> of_groups = Residual(sums, [](int64_t g) { return g >= 3 && g <= 4 ? -1 : 0; });
  for (size_t i = 0; i < r.size(); i++) r[i] += of_groups[i];
  const TermTable groups = TableOf(sums);
  const auto run = FindRun(TableOf(t), &groups, r);
  ASSERT_TRUE(run);
  EXPECT_EQ(run->first, 20);
  EXPECT_EQ(run->last, 41);
  EXPECT_LT(run->rest, 1e-4);
  EXPECT_GT(FindRun(TableOf(t), nullptr, r)->rest, 0.05);
}

TEST(FindRepeatedRun, TermsBeforeOrBehindInTheirPlace) {
  const Terms t = RandomTerms(2, 6, 96);
  for (const auto& [first, last, from] : {std::tuple{32, 63, 0}, {90, 95, 84}, {8, 15, 16}}) {
    const auto run =
        FindRepeatedRun(TableOf(t), nullptr, Residual(t, [&](int64_t k) {
                          return k >= first && k <= last ? -1 : k >= from && k <= from + last - first ? 1 : 0;
                        }));
    ASSERT_TRUE(run);
    EXPECT_EQ(run->first, first);
    EXPECT_EQ(run->last, last);
    EXPECT_EQ(run->from, from);
    EXPECT_LT(run->rest, 1e-4);
  }
}

}  // namespace
}  // namespace pb::diagnose
