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

}  // namespace
}  // namespace pb::diagnose
