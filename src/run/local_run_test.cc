// Which rows of points a report keeps.
#include "run/local_run.h"

#include <gtest/gtest.h>

namespace pb::run {
namespace {

compare::PointRow Row(int32_t step, int32_t stage, double rel_l2, double bound_ratio) {
  compare::PointRow row;
  row.step = step;
  row.stage = stage;
  row.layer = 0;
  row.rel_l2 = rel_l2;
  row.bound = 1;
  row.bound_ratio = bound_ratio;
  return row;
}

TEST(CondensePoints, KeepsThePrefillAndTheWorstDecodeStepOfEachPoint) {
  std::vector<compare::PointRow> rows = {
      Row(0, PB_STAGE_Q_PROJ, 1e-8, 0.1), Row(0, PB_STAGE_K_PROJ, 1e-8, 0.1),
      Row(1, PB_STAGE_Q_PROJ, 3e-8, 0.2), Row(1, PB_STAGE_K_PROJ, 1e-8, 0.3),
      Row(2, PB_STAGE_Q_PROJ, 2e-8, 0.5), Row(2, PB_STAGE_K_PROJ, 1e-8, 0.1)};
  auto judged = CondensePoints(rows, true);
  ASSERT_EQ(judged.size(), 4u);
  EXPECT_EQ(judged[2].step, 2);  // the larger share of its bound
  EXPECT_EQ(judged[3].step, 1);
  auto told = CondensePoints(rows, false);
  ASSERT_EQ(told.size(), 4u);
  EXPECT_EQ(told[2].step, 1);  // the larger rel-L2
}

TEST(CondensePoints, KeepsEveryJudgedRowBeyondItsBound) {
  std::vector<compare::PointRow> rows = {Row(1, PB_STAGE_Q_PROJ, 1, 5), Row(2, PB_STAGE_Q_PROJ, 1, 2),
                                         Row(3, PB_STAGE_Q_PROJ, 1, 0.5), Row(4, PB_STAGE_Q_PROJ, 1, 0.4)};
  EXPECT_EQ(CondensePoints(rows, true).size(), 3u);
  EXPECT_EQ(CondensePoints(rows, false).size(), 1u);
}

// The stages of a llama, all shown but those named.
std::vector<host::StageVisibility> Shown(std::initializer_list<pb_stage> hidden,
                                         std::initializer_list<pb_stage> absent = {}) {
  std::vector<host::StageVisibility> stages(PB_STAGE_COUNT);
  for (auto& s : stages) s.visibility = PB_OBSERVED;
  for (pb_stage s : stages::kHeadNorms | stages::kSubNorms | stages::kPostNorms)
    stages[s].visibility = PB_ABSENT;
  for (pb_stage s : hidden) stages[s].visibility = PB_UNOBSERVABLE;
  for (pb_stage s : absent) stages[s].visibility = PB_ABSENT;
  return stages;
}

constexpr int64_t kLayers = 2;

drive::PointPlan Plan(const std::vector<host::StageVisibility>& candidate,
                      const std::vector<host::StageVisibility>& reference) {
  return drive::PlanPoints(candidate, reference, kLayers);
}

// Stages of which a point is not judged.
std::vector<int32_t> Unequal(const drive::PointPlan& plan) {
  std::set<int32_t> stages;
  for (const auto& [stage, layer] : plan.unequal) stages.insert(stage);
  return {stages.begin(), stages.end()};
}

using Stages = std::vector<int32_t>;

// What is computed inside the op that reads it reads equal inputs itself.
TEST(PlanPoints, AStageWithoutWeightsMayBeHidden) {
  EXPECT_EQ(Unequal(Plan(Shown({}), Shown({}))), Stages());
  EXPECT_EQ(Unequal(Plan(Shown({}), Shown({PB_STAGE_FFN_ACT}))), Stages());
  EXPECT_EQ(Unequal(Plan(Shown({PB_STAGE_ATTN_SCORES, PB_STAGE_ATTN_SCORES_SOFTMAX}), Shown({}))), Stages());
  EXPECT_EQ(Unequal(Plan(Shown({PB_STAGE_ATTN_RESIDUAL, PB_STAGE_LAYER_OUT}), Shown({}))), Stages());
}

// A hidden product or norm has a rounding of its own, in either engine, and through what is hidden
// between.
TEST(PlanPoints, WhatReadsAHiddenProductIsNotJudged) {
  const drive::PointPlan values = Plan(Shown({PB_STAGE_V_PROJ}), Shown({}));
  EXPECT_EQ(Unequal(values), Stages({PB_STAGE_ATTN_CONTEXT}));
  EXPECT_EQ(values.unobservable.size(), 2u);
  EXPECT_NE(values.unobservable[1].find(
                "attn_context: not judged by its own error: it reads v_proj, which the candidate does not"),
            std::string::npos);
  EXPECT_EQ(Unequal(Plan(Shown({}), Shown({PB_STAGE_V_PROJ}))), Stages({PB_STAGE_ATTN_CONTEXT}));
  // 21 stages of such a layer, less the hidden one and its reader; three outside.
  EXPECT_EQ(values.Expected(), kLayers * (PB_STAGE_COUNT - 3 - 6 - 2) + 3);
  EXPECT_EQ(Unequal(Plan(Shown({PB_STAGE_K_ROPE, PB_STAGE_K_PROJ}), Shown({}))),
            Stages({PB_STAGE_ATTN_SCORES}));
  EXPECT_EQ(Unequal(Plan(Shown({PB_STAGE_K_ROPE}), Shown({}))), Stages({PB_STAGE_ATTN_SCORES}));
  EXPECT_EQ(Unequal(Plan(Shown({PB_STAGE_FFN_NORM}), Shown({}))),
            Stages({PB_STAGE_ROUTER_LOGITS, PB_STAGE_EXPERT_GATE, PB_STAGE_EXPERT_UP, PB_STAGE_GATE_IN_NORM,
                    PB_STAGE_UP_IN_NORM, PB_STAGE_SHARED_GATE}));
  const auto without = Shown({PB_STAGE_FFN_NORM}, {PB_STAGE_GATE_IN_NORM, PB_STAGE_UP_IN_NORM});
  EXPECT_EQ(Unequal(Plan(without, Shown({}, {PB_STAGE_GATE_IN_NORM, PB_STAGE_UP_IN_NORM}))),
            Stages({PB_STAGE_ROUTER_LOGITS, PB_STAGE_EXPERT_GATE, PB_STAGE_EXPERT_UP, PB_STAGE_GATE_PROJ,
                    PB_STAGE_UP_PROJ, PB_STAGE_SHARED_GATE}));
  EXPECT_EQ(Unequal(Plan(Shown({PB_STAGE_ATTN_RESIDUAL, PB_STAGE_ATTN_OUT}), Shown({}))),
            Stages({PB_STAGE_FFN_NORM, PB_STAGE_LAYER_OUT}));
}

// An engine without attention: what it lacks passes through what enters the layer.
TEST(PlanPoints, WhatNeitherHasHidesNothing) {
  const auto plain =
      Shown({}, {PB_STAGE_ATTN_NORM, PB_STAGE_Q_PROJ, PB_STAGE_K_PROJ, PB_STAGE_V_PROJ, PB_STAGE_Q_ROPE,
                 PB_STAGE_K_ROPE, PB_STAGE_ATTN_SCORES, PB_STAGE_ATTN_SCORES_SOFTMAX, PB_STAGE_ATTN_CONTEXT,
                 PB_STAGE_ATTN_OUT, PB_STAGE_ATTN_RESIDUAL});
  EXPECT_EQ(Unequal(Plan(plain, plain)), Stages());
}

// Attention in the second layer alone, as in hybrids: what reads it is judged there, and in the first what adds something unseen is not.
TEST(PlanPoints, ByLayer) {
  auto hybrid = Shown({});
  for (pb_stage s :
       {PB_STAGE_Q_PROJ, PB_STAGE_K_PROJ, PB_STAGE_V_PROJ, PB_STAGE_Q_ROPE, PB_STAGE_K_ROPE,
        PB_STAGE_ATTN_SCORES, PB_STAGE_ATTN_SCORES_SOFTMAX, PB_STAGE_ATTN_CONTEXT, PB_STAGE_ATTN_OUT})
    hybrid[s].layers = {1};
  hybrid[PB_STAGE_FFN_NORM].layers = {0};  // optional: the second layer has none
  const drive::PointPlan plan = Plan(hybrid, hybrid);
  EXPECT_TRUE(plan.points.contains({PB_STAGE_Q_PROJ, 1}));
  EXPECT_FALSE(plan.points.contains({PB_STAGE_Q_PROJ, 0}));
  EXPECT_EQ(plan.unequal, (std::set<drive::PointPlan::Point>{{PB_STAGE_ATTN_RESIDUAL, 0}}));
  EXPECT_EQ(plan.Expected(), Plan(Shown({}), Shown({})).Expected() - 9 - 1 - 1);
  EXPECT_EQ(plan.one_sided, std::vector<std::string>());
  EXPECT_EQ(plan.unobservable.size(), 10u);
  EXPECT_EQ(plan.unobservable[0], "q_proj in 1 of 2 layers: reference: ");
  EXPECT_EQ(plan.unobservable[9].find(
                "attn_residual in 1 of 2 layers: not judged by its own error: it reads attn_out"),
            0u);
  // Where one engine shows an op in a layer and the other lacks it there.
  const drive::PointPlan other = Plan(Shown({}), hybrid);
  EXPECT_EQ(other.one_sided,
            std::vector<std::string>{"ffn_norm in 1 of 2 layers: reference: has no such op"});
}

// Behind ops that neither shows nothing is judged; where one alone computes more, that is the finding.
TEST(PlanPoints, BehindOpsThatNoStageShows) {
  auto more = Shown({});
  more[PB_STAGE_Q_PROJ].layers = {0, 1}, more[PB_STAGE_Q_PROJ].apart = {1};
  more[PB_STAGE_FINAL_NORM].layers = more[PB_STAGE_FINAL_NORM].apart = {-1};
  const drive::PointPlan both = Plan(more, more);
  EXPECT_EQ(both.unequal,
            (std::set<drive::PointPlan::Point>{{PB_STAGE_Q_PROJ, 1}, {PB_STAGE_FINAL_NORM, -1}}));
  EXPECT_EQ(both.unobservable[0],
            "q_proj in 1 of 2 layers: not judged by its own error: neither engine shows all ops between it "
            "and what it "
            "reads");
  EXPECT_TRUE(Plan(more, Shown({})).unequal.empty());
  EXPECT_TRUE(Plan(Shown({}), more).unequal.empty());
}

// What enters the first layer are the embeddings.
TEST(PlanPoints, TheFirstLayerReadsTheEmbeddings) {
  const drive::PointPlan plan = Plan(Shown({PB_STAGE_EMBEDDINGS}), Shown({}));
  EXPECT_TRUE(plan.unequal.contains({PB_STAGE_ATTN_NORM, 0}));
  EXPECT_FALSE(plan.unequal.contains({PB_STAGE_ATTN_NORM, 1}));
}

}  // namespace
}  // namespace pb::run
