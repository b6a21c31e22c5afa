// Which point of a lock-step is captured, and with which inputs. Pairs are made by hand.
#include "diagnose/capture.h"

#include <gtest/gtest.h>

namespace pb::diagnose {
namespace {

// A lock-step of one feature and rows of one token each, fed point by point.
class Feed {
 public:
  explicit Feed(PointCapture& capture) : capture_(capture) {}
  void Point(pb_stage stage, int32_t layer, float reference, double ratio = 0.5) {
    const float candidate = reference + 1;
    compare::PointRow row;
    row.prompt = prompt, row.step = step, row.stage = stage, row.layer = layer;
    row.first_position = position;
    row.bound_ratio = ratio, row.explained_by_codes = explained;
    const compare::LocalBound bound;
    host::PointRef point;
    point.stage = stage, point.layer = layer, point.first_position = position;
    // What lasts keeps its value; else the capture has to copy it.
    auto kept = std::make_shared<float>(reference);
    capture_.OnPair({point,
                     {1, 1},
                     {&candidate, 1},
                     {lasts ? kept.get() : &reference, 1},
                     &row,
                     &bound,
                     lasts ? kept : nullptr});
  }
  int32_t prompt = 0, step = 0, position = 0;
  bool explained = false, lasts = false;

 private:
  PointCapture& capture_;
};

TEST(PointCapture, TakesTheFirstBeyondItsBoundWithItsInputs) {
  for (bool lasts : {false, true}) {
    PointCapture capture;
    Feed feed(capture);
    feed.lasts = lasts;
    feed.Point(PB_STAGE_EMBEDDINGS, -1, 1);
    feed.Point(PB_STAGE_ATTN_NORM, 0, 2);
    feed.explained = true;
    feed.Point(PB_STAGE_Q_PROJ, 0, 3, 9);  // beyond, and explained by codes
    feed.explained = false;
    EXPECT_EQ(capture.culprit(), nullptr);
    feed.Point(PB_STAGE_Q_ROPE, 0, 4, 2);
    feed.Point(PB_STAGE_ATTN_SCORES, 0, 5, 100);  // later, and worse
    feed.Point(PB_STAGE_Q_ROPE, 1, 6, 100);
    const Culprit* found = capture.culprit();
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->place.stage, PB_STAGE_Q_ROPE);
    EXPECT_EQ(found->place.layer, 0);
    EXPECT_EQ(found->reference, std::vector<float>{4});
    EXPECT_EQ(found->candidate, std::vector<float>{5});
    const Recorded* input = found->inputs.Output(PB_STAGE_Q_PROJ, 0);
    ASSERT_NE(input, nullptr);
    EXPECT_EQ(input->values, std::vector<float>{3});
    const Recorded* entering = found->inputs.Output(PB_STAGE_ATTN_NORM, 0);
    ASSERT_NE(entering, nullptr);
    EXPECT_EQ(entering->values, std::vector<float>{2});
    // Nothing of the layer before.
    PointCapture next;
    Feed on(next);
    on.lasts = lasts;
    on.Point(PB_STAGE_ATTN_NORM, 0, 1);
    on.Point(PB_STAGE_LAYER_OUT, 0, 2);
    on.Point(PB_STAGE_Q_PROJ, 1, 3, 9);
    on.Point(PB_STAGE_Q_PROJ, 2, 4);
    ASSERT_NE(next.culprit(), nullptr);
    EXPECT_EQ(next.culprit()->inputs.Output(PB_STAGE_ATTN_NORM, 1), nullptr);
    const Recorded* before = next.culprit()->inputs.Find({PB_STAGE_LAYER_OUT, true, false}, 1);
    ASSERT_NE(before, nullptr);
    EXPECT_EQ(before->values, std::vector<float>{2});
  }
}

TEST(PointCapture, OfSiblingsTheClearest) {
  PointCapture capture;
  Feed feed(capture);
  feed.Point(PB_STAGE_ATTN_NORM, 0, 1);
  feed.Point(PB_STAGE_Q_PROJ, 0, 2, 3);
  feed.Point(PB_STAGE_K_PROJ, 0, 3, 30);
  feed.Point(PB_STAGE_V_PROJ, 0, 4, 20);
  ASSERT_NE(capture.culprit(), nullptr);
  EXPECT_EQ(capture.culprit()->place.stage, PB_STAGE_K_PROJ);
}

// llama.cpp rotates the queries before it computes keys and values.
TEST(PointCapture, WithinALayerEnginesGoInOrdersOfTheirOwn) {
  PointCapture capture;
  Feed feed(capture);
  feed.Point(PB_STAGE_ATTN_NORM, 0, 1);
  feed.Point(PB_STAGE_Q_PROJ, 0, 2);
  feed.Point(PB_STAGE_Q_ROPE, 0, 3, 100);
  feed.Point(PB_STAGE_V_PROJ, 0, 4, 2);
  feed.Point(PB_STAGE_K_ROPE, 0, 5, 200);
  feed.Point(PB_STAGE_ATTN_NORM, 1, 6, 300);
  const Culprit* found = capture.culprit();
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->place.stage, PB_STAGE_V_PROJ);
  EXPECT_EQ(found->place.layer, 0);
  const Recorded* input = found->inputs.Output(PB_STAGE_ATTN_NORM, 0);
  ASSERT_NE(input, nullptr);
  EXPECT_EQ(input->values, std::vector<float>{1});
}

TEST(PointCapture, KeysOfEarlierPassesArePartOfTheInputs) {
  PointCapture capture;
  Feed feed(capture);
  for (int32_t step : {0, 1, 2}) {
    feed.step = step, feed.position = step;
    feed.Point(PB_STAGE_Q_ROPE, 0, 1);
    feed.Point(PB_STAGE_K_ROPE, 0, static_cast<float>(10 + step));
    feed.Point(PB_STAGE_ATTN_SCORES, 0, 1, step == 2 ? 5 : 0.1);
  }
  const Culprit* found = capture.culprit();
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->place.step, 2);
  EXPECT_EQ(found->first_position, 2);
  const Recorded* keys = found->inputs.Find({PB_STAGE_K_ROPE, false, true}, 0);
  ASSERT_NE(keys, nullptr);
  EXPECT_EQ(keys->values, (std::vector<float>{10, 11, 12}));
}

// Logits of four rows in three pieces, of which the second and the third are wrong.
TEST(PointCapture, OfPiecesTheFirstThatIsWrongWithTheRowsThatItReads) {
  for (const bool named : {false, true}) {
    PointCapture capture = named ? PointCapture(Place{0, 0, PB_STAGE_LOGITS, -1}) : PointCapture();
    const compare::LocalBound bound;
    auto feed = [&](pb_stage stage, int32_t layer, int32_t first, std::vector<float> values, double ratio) {
      compare::PointRow row;
      row.stage = stage, row.layer = layer, row.first_position = first, row.bound_ratio = ratio;
      host::PointRef point;
      point.stage = stage, point.layer = layer, point.first_position = first;
      const auto n = static_cast<int64_t>(values.size());
      capture.OnPair({point, {n, 1}, values, values, &row, &bound});
    };
    feed(PB_STAGE_EMBEDDINGS, -1, 0, {1, 2, 3, 4}, 0.1);
    feed(PB_STAGE_LAYER_OUT, 0, 0, {5, 6, 7, 8}, 0.1);
    feed(PB_STAGE_FINAL_NORM, -1, 0, {9, 10, 11, 12}, 0.1);
    feed(PB_STAGE_LOGITS, -1, 0, {13, 14}, 0.5);
    feed(PB_STAGE_LOGITS, -1, 2, {15}, 2);
    feed(PB_STAGE_LOGITS, -1, 3, {16}, 4);
    const Culprit* found = capture.culprit();
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->first_position, 2);
    EXPECT_EQ(found->reference, std::vector<float>{15});
    EXPECT_EQ(found->inputs.first_position(), 2);
    const Recorded* input = found->inputs.Find({PB_STAGE_FINAL_NORM, false, false}, -1);
    ASSERT_NE(input, nullptr);
    EXPECT_EQ(input->shape, (std::vector<int64_t>{1, 1}));
    EXPECT_EQ(input->values, std::vector<float>{11});
  }
}

TEST(PointCapture, AnotherPromptBeginsAnew) {
  PointCapture capture(Place{1, 0, PB_STAGE_ATTN_SCORES, 0});
  Feed feed(capture);
  for (int32_t prompt : {0, 1}) {
    feed.prompt = prompt;
    feed.Point(PB_STAGE_K_ROPE, 0, static_cast<float>(prompt));
    feed.Point(PB_STAGE_ATTN_SCORES, 0, 1, prompt == 0 ? 100 : 0.1);
  }
  const Culprit* found = capture.culprit();  // the place that was asked for, whatever its error
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->place.prompt, 1);
  EXPECT_EQ(found->inputs.Find({PB_STAGE_K_ROPE, false, true}, 0)->values, std::vector<float>{1});
}

}  // namespace
}  // namespace pb::diagnose
