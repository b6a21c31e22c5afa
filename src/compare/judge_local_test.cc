// The verdict on ops, from points made by hand: which is named first, what passes, what can
// never pass.
#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "compare/verdict.h"

namespace pb::compare {
namespace {

// One prompt of three positions whose logits agree, in a model of two layers with five points each
// and five outside.
Evidence GoodLogits() {
  Evidence e;
  e.n_prompts_asked = 1;
  NoiseRun run;
  run.kl.assign(400, 1e-3);
  run.gap_change.assign(400, 0.1);
  e.floor.emplace();
  e.floor->runs.assign(8, run);
  PromptEvidence p;
  for (auto& tokens : p.tokens) tokens = {11, 12, 13};
  p.n_prefill[0] = p.n_prefill[1] = 3;
  for (int32_t i = 0; i < 3; ++i) {
    LogitsRow row;
    row.position = i;
    row.token = 11 + i;
    row.kl = 1e-4;
    p.rows.push_back(row);
  }
  e.prompts = {p};
  return e;
}

PointRow Point(int32_t stage, int32_t layer, double error = 1e-7) {
  PointRow p;
  p.stage = stage;
  p.layer = layer;
  p.worst_row = p.worst_feature = error;
  p.worst_row_position = 1;
  p.worst_feature_index = 6;
  p.bound = 1e-6;
  p.bound_ratio = error / p.bound;
  p.first_row_above = p.bound_ratio > 1 ? 1 : -1;
  return p;
}

LocalEvidence GoodPoints() {
  LocalEvidence l;
  l.points.push_back(Point(PB_STAGE_LOGITS, -1));  // in no order
  for (int32_t layer : {1, 0})
    for (int32_t stage :
         {PB_STAGE_LAYER_OUT, PB_STAGE_Q_PROJ, PB_STAGE_K_PROJ, PB_STAGE_ATTN_NORM, PB_STAGE_FFN_GATED})
      l.points.push_back(Point(stage, layer));
  l.points.push_back(Point(PB_STAGE_EMBEDDINGS, -1));
  l.n_expected = l.n_compared = static_cast<int64_t>(l.points.size());
  return l;
}

PointRow* Find(LocalEvidence* l, int32_t stage, int32_t layer) {
  for (PointRow& p : l->points)
    if (p.stage == stage && p.layer == layer) return &p;
  return nullptr;
}

void Break(PointRow* p, double error) {
  PointRow broken = Point(p->stage, p->layer, error);
  *p = broken;
}

void Expect(Evidence e, const LocalEvidence& l, Outcome outcome, const std::string& code) {
  Verdict v = JudgeLocal(&e, l);
  EXPECT_STREQ(OutcomeName(v.outcome), OutcomeName(outcome)) << v.reasons[0].text;
  EXPECT_EQ(ReasonName(v.reasons[0].code), std::string_view(code)) << v.reasons[0].text;
  EXPECT_EQ(v.scope, Scope::kLocal);
}

TEST(JudgeLocal, Match) {
  Evidence e = GoodLogits();
  Verdict v = JudgeLocal(&e, GoodPoints());
  EXPECT_EQ(v.outcome, Outcome::kMatch);
  EXPECT_EQ(v.coverage.unit, "points");
  EXPECT_EQ(v.coverage.expected, 12);
  EXPECT_EQ(v.coverage.compared, 12);
  EXPECT_FALSE(v.first_divergence);
}

// A defect that the logits cannot show.
TEST(JudgeLocal, TheFirstPointInDependencyOrderIsNamed) {
  Evidence e = GoodLogits();
  LocalEvidence l = GoodPoints();
  Break(Find(&l, PB_STAGE_FFN_GATED, 0), 4e-2);
  Break(Find(&l, PB_STAGE_LAYER_OUT, 0), 9e-2);
  Break(Find(&l, PB_STAGE_ATTN_NORM, 1), 5e-1);
  Break(Find(&l, PB_STAGE_LOGITS, -1), 1);
  Find(&l, PB_STAGE_FFN_GATED, 0)->feature_alone = true;
  Verdict v = JudgeLocal(&e, l);
  EXPECT_EQ(v.outcome, Outcome::kDiverged);
  EXPECT_STREQ(ReasonName(v.reasons[0].code), "local-error-above-bound");
  EXPECT_EQ(v.reasons[0].text,
            "layer 0, ffn_gated, feature 6: error 4.0e-02, bound 1.0e-06; 4 points before it agree, 4 "
            "of 12 points are "
            "beyond their bound");
  ASSERT_TRUE(v.first_divergence);
  EXPECT_EQ(v.first_divergence->stage, PB_STAGE_FFN_GATED);
  EXPECT_EQ(v.first_divergence->layer, 0);
  EXPECT_EQ(v.first_divergence->position, 1);
  EXPECT_EQ(v.first_divergence->token, 12);
  EXPECT_EQ(v.first_divergence->feature, 6);
}

TEST(JudgeLocal, OfSiblingsTheClearest) {
  Evidence e = GoodLogits();
  LocalEvidence l = GoodPoints();
  Break(Find(&l, PB_STAGE_Q_PROJ, 1), 2e-6);
  Break(Find(&l, PB_STAGE_K_PROJ, 1), 4e-2);
  EXPECT_EQ(JudgeLocal(&e, l).first_divergence->stage, PB_STAGE_K_PROJ);
}

TEST(JudgeLocal, PrefillComesBeforeDecode) {
  Evidence e = GoodLogits();
  LocalEvidence l = GoodPoints();
  PointRow decode = Point(PB_STAGE_EMBEDDINGS, -1, 1);
  decode.step = 1;
  l.points.push_back(decode);
  ++l.n_expected, ++l.n_compared;
  Break(Find(&l, PB_STAGE_LOGITS, -1), 1);
  EXPECT_EQ(JudgeLocal(&e, l).first_divergence->stage, PB_STAGE_LOGITS);
}

TEST(JudgeLocal, DriftWhenEveryOpAgreesAndTheLogitsDoNot) {
  Evidence e = GoodLogits();
  e.prompts[0].rows[2].kl = 1;
  Expect(e, GoodPoints(), Outcome::kDrift, "kl-worst-above-limit");
  EXPECT_EQ(JudgeLocal(&e, GoodPoints()).blame, Blame::kNone);
  // With a point that nobody saw it is no drift.
  LocalEvidence l = GoodPoints();
  l.unobservable = {"layer 0, ffn_act: inside the gated product"};
  Expect(e, l, Outcome::kDiverged, "kl-worst-above-limit");
  // A limit of the user's own is not noise's to excuse.
  e.user.kl_worst = 0.5;
  e.user.kl_mean = 10;
  Expect(e, GoodPoints(), Outcome::kDiverged, "kl-worst-above-limit");
  e = GoodLogits();
  e.prompts[0].rows[2].cosine = 0.5;
  e.user.min_cosine = 0.9;
  Expect(e, GoodPoints(), Outcome::kDiverged, "cosine-below-limit");
}

TEST(JudgeLocal, NoDriftWithoutProofThatPointsAreWhatTheEngineComputes) {
  Evidence e = GoodLogits();
  e.prompts[0].rows[1].kl = 1;  // far beyond the floor
  Expect(e, GoodPoints(), Outcome::kDrift, "kl-worst-above-limit");
  LocalEvidence unproven = GoodPoints();
  unproven.shown_is_used = false;
  Expect(e, unproven, Outcome::kDiverged, "kl-worst-above-limit");
  e.obstacles.push_back({Outcome::kIncomplete, ReasonCode::kShownNotUsed, "it computes with other values"});
  Expect(e, GoodPoints(), Outcome::kDiverged, "kl-worst-above-limit");
}

TEST(JudgeLocal, ExplainedByCodesIsNoDefect) {
  Evidence e = GoodLogits();
  LocalEvidence l = GoodPoints();
  Break(Find(&l, PB_STAGE_Q_PROJ, 1), 4e-4);
  Find(&l, PB_STAGE_Q_PROJ, 1)->explained_by_codes = true;
  Verdict v = JudgeLocal(&e, l);
  EXPECT_EQ(v.outcome, Outcome::kMatch);
  EXPECT_FALSE(v.first_divergence);
  bool said = false;
  for (const Reason& r : v.reasons) said |= r.code == ReasonCode::kExplainedByCodes;
  EXPECT_TRUE(said);
}

// The ways to pass on nothing, once more for points.
TEST(JudgeLocal, NothingComparedNeverPasses) {
  Expect(GoodLogits(), LocalEvidence{}, Outcome::kInvalid, "no-points");
  LocalEvidence l = GoodPoints();
  l.points.clear();
  Expect(GoodLogits(), l, Outcome::kInvalid, "no-points");
  l = GoodPoints();
  l.points.pop_back();
  Expect(GoodLogits(), l, Outcome::kIncomplete, "points-missing");
  l = GoodPoints();
  l.points.push_back(l.points[0]);
  Expect(GoodLogits(), l, Outcome::kInvalid, "points-repeated");
  l = GoodPoints();
  l.points.pop_back();
  l.points.push_back(l.points[0]);  // the count is right, the points are not
  Expect(GoodLogits(), l, Outcome::kInvalid, "points-repeated");
  l = GoodPoints();
  l.points.push_back(Point(PB_STAGE_FFN_NORM, 0));
  Expect(GoodLogits(), l, Outcome::kInvalid, "extra-points");
  l = GoodPoints();
  l.n_compared = 11;  // the run itself claims less
  Expect(GoodLogits(), l, Outcome::kIncomplete, "points-missing");
  l = GoodPoints();
  l.missing = {"layer 1, ffn_norm"};
  Expect(GoodLogits(), l, Outcome::kIncomplete, "points-missing");
  l = GoodPoints();
  l.unmapped = {"inp_scale"};
  Expect(GoodLogits(), l, Outcome::kIncomplete, "points-unmapped");
}

TEST(JudgeLocal, APointMayComeInPieces) {
  Evidence e = GoodLogits();
  LocalEvidence l = GoodPoints();
  for (int32_t first : {1, 2}) {
    l.points.push_back(Point(PB_STAGE_Q_PROJ, 0, first == 2 ? 1e-2 : 1e-7));
    l.points.back().first_position = first;
    if (first == 2) l.points.back().first_row_above = 2;
  }
  Verdict v = JudgeLocal(&e, l);
  EXPECT_EQ(v.outcome, Outcome::kDiverged);
  EXPECT_EQ(v.coverage.compared, 12);
  EXPECT_STREQ(ReasonName(v.reasons[0].code), "local-error-above-bound");
  EXPECT_EQ(v.first_divergence->stage, PB_STAGE_Q_PROJ);
  EXPECT_EQ(v.first_divergence->position, 2);
  EXPECT_NE(v.reasons[0].text.find("1 of 12 points are beyond"), std::string::npos) << v.reasons[0].text;
}

TEST(JudgeLocal, APointWithoutABoundIsNotCompared) {
  LocalEvidence l = GoodPoints();
  l.points[3].bound = l.points[3].bound_ratio = 0;
  Expect(GoodLogits(), l, Outcome::kIncomplete, "points-missing");
}

TEST(JudgeLocal, NonFinitePointsAreInvalid) {
  const std::pair<std::array<int64_t, 2>, Blame> cases[] = {
      {{2, 0}, Blame::kCandidate}, {{0, 2}, Blame::kReference}, {{2, 2}, Blame::kUndetermined}};
  for (const auto& [n, blame] : cases) {
    for (bool settings_differ : {false, true}) {
      Evidence e = GoodLogits();
      if (settings_differ)
        e.settings[0].push_back({"kv.type", "f16", "set"}),
            e.settings[1].push_back({"kv.type", "f32", "set"});
      LocalEvidence l = GoodPoints();
      PointRow* p = Find(&l, PB_STAGE_K_PROJ, 0);
      p->n_non_finite[0] = n[0], p->n_non_finite[1] = n[1];
      p->bound_ratio = std::numeric_limits<double>::infinity();
      Verdict v = JudgeLocal(&e, l);
      EXPECT_EQ(v.outcome, Outcome::kInvalid);
      EXPECT_STREQ(ReasonName(v.reasons[0].code), "non-finite-point");
      EXPECT_EQ(v.blame, settings_differ ? Blame::kUndetermined : blame);
      EXPECT_EQ(v.first_divergence->stage, PB_STAGE_K_PROJ);
      for (const Reason& reason : v.reasons) EXPECT_STRNE(ReasonName(reason.code), "ops-within-bounds");
    }
  }
}

// What is NaN behind an op that is wrong with finite values follows from it.
TEST(JudgeLocal, AFiniteErrorThatComesFirstIsTheFinding) {
  Evidence e = GoodLogits();
  LocalEvidence l = GoodPoints();
  Find(&l, PB_STAGE_K_PROJ, 0)->bound_ratio = 1e4;
  PointRow* later = Find(&l, PB_STAGE_K_PROJ, 1);
  later->n_non_finite[0] = later->n_non_finite[1] = 2;
  later->bound_ratio = std::numeric_limits<double>::infinity();
  const Verdict v = JudgeLocal(&e, l);
  EXPECT_EQ(v.outcome, Outcome::kDiverged);
  EXPECT_STREQ(ReasonName(v.reasons[0].code), "local-error-above-bound");
  ASSERT_TRUE(v.first_divergence);
  EXPECT_EQ(v.first_divergence->layer, 0);
}

// Keys of 70000 become infinite in an f16 cache: the cache is at fault, and the engine that has it;
// not what follows.
TEST(JudgeLocal, ACacheThatOverflowsIsNamedWithItsEngine) {
  struct Case {
    const char* type[2];
    int64_t n[2];
    double largest;
    const char* code;
    Blame blame;
  };
  for (const Case& c : {Case{{"f32", "f16"}, {0, 5}, 7e4, "kv-cache-overflow", Blame::kReference},
                        Case{{"f16", "f32"}, {5, 0}, 7e4, "kv-cache-overflow", Blame::kCandidate},
                        Case{{"f16", "f16"}, {5, 5}, 7e4, "kv-cache-overflow", Blame::kBoth},
                        Case{{"f32", "f32"}, {5, 0}, 7e4, "non-finite-point", Blame::kCandidate},
                        Case{{"f16", "f16"}, {5, 0}, 6.5e4, "non-finite-point", Blame::kCandidate}}) {
    Evidence e = GoodLogits();
    LocalEvidence l = GoodPoints();
    for (int side : {0, 1}) e.settings[side].push_back({"kv.type", c.type[side], "observed"});
    l.points.push_back(Point(PB_STAGE_K_ROPE, 1));
    l.points.back().largest = c.largest, l.points.back().n_rows = 1;
    for (int32_t stage : {PB_STAGE_ATTN_SCORES, PB_STAGE_ATTN_SCORES_SOFTMAX, PB_STAGE_ATTN_CONTEXT}) {
      PointRow& p = l.points.emplace_back(Point(stage, 1));
      for (int side : {0, 1}) p.n_non_finite[side] = c.n[side];
      p.bound_ratio = std::numeric_limits<double>::infinity();
      p.n_rows = 1;
    }
    l.n_expected = l.n_compared = static_cast<int64_t>(l.points.size());
    const Verdict v = JudgeLocal(&e, l);
    EXPECT_EQ(v.outcome, Outcome::kInvalid);
    EXPECT_EQ(ReasonName(v.reasons[0].code), std::string_view(c.code));
    EXPECT_EQ(v.blame, c.blame);
    EXPECT_EQ(v.first_divergence->stage, PB_STAGE_ATTN_SCORES);
    EXPECT_EQ(v.first_divergence->layer, 1);
    EXPECT_EQ(std::count_if(v.reasons.begin(), v.reasons.end(),
                            [](const Reason& r) { return r.outcome == Outcome::kInvalid; }),
              1);
  }
}

TEST(JudgeLocal, ErrorsThatOverwritingDidNotMakeLocalAreNotJudged) {
  LocalEvidence l = GoodPoints();
  Break(Find(&l, PB_STAGE_FFN_GATED, 1), 1e-5);
  Evidence e = GoodLogits();
  e.obstacles.push_back({Outcome::kIncomplete, ReasonCode::kOverwriteIgnored, "its own values came out"});
  Expect(e, l, Outcome::kIncomplete, "overwrite-ignored");
}

TEST(JudgeLocal, IncomparableRunsAreNotJudgedByTheirOpsEither) {
  Evidence e = GoodLogits();
  e.obstacles = {Undeclared("the model does not declare its activation")};
  LocalEvidence l = GoodPoints();
  Break(Find(&l, PB_STAGE_FFN_GATED, 0), 0.6);
  Expect(e, l, Outcome::kIncomplete, "undeclared");
}

// An audit has no rows of a second engine: index 0 is the engine, 1 the arbiter.
Evidence AuditOf(int64_t n_prefill = 3) {
  Evidence e;
  e.n_prompts_asked = 1;
  PromptEvidence p;
  p.tokens[0] = p.tokens[1] = {11, 12, 13};
  p.n_prefill[0] = n_prefill;
  e.prompts = {p};
  return e;
}

TEST(JudgeAudit, EveryOpWithinItsBoundIsAMatchOfOneEngine) {
  const Verdict v = JudgeAudit(AuditOf(), GoodPoints());
  EXPECT_EQ(v.outcome, Outcome::kMatch);
  EXPECT_EQ(v.blame, Blame::kNone);
  EXPECT_EQ(v.coverage.compared, 12);
  EXPECT_STREQ(ReasonName(v.reasons.front().code), "ops-within-bounds");
}

TEST(JudgeAudit, NothingJudgedIsInvalid) {
  EXPECT_EQ(JudgeAudit(AuditOf(), {}).outcome, Outcome::kInvalid);
  EXPECT_EQ(JudgeAudit({}, {}).outcome, Outcome::kInvalid);
  EXPECT_EQ(JudgeAudit({}, GoodPoints()).outcome, Outcome::kInvalid) << "of no prompt";
  Evidence empty = AuditOf();
  empty.prompts[0].tokens[0].clear(), empty.prompts[0].tokens[1].clear();
  EXPECT_EQ(JudgeAudit(empty, GoodPoints()).outcome, Outcome::kInvalid);
}

TEST(JudgeAudit, LessThanAskedIsIncomplete) {
  LocalEvidence l = GoodPoints();
  l.points.pop_back();
  EXPECT_EQ(JudgeAudit(AuditOf(), l).outcome, Outcome::kIncomplete);
  l = GoodPoints();
  l.missing = {"layer 0, q_rope: its input q_proj was not recorded"};
  EXPECT_EQ(JudgeAudit(AuditOf(), l).outcome, Outcome::kIncomplete);
  EXPECT_EQ(JudgeAudit(AuditOf(2), GoodPoints()).outcome, Outcome::kIncomplete) << "a row too few";
  EXPECT_EQ(JudgeAudit(AuditOf(4), GoodPoints()).outcome, Outcome::kInvalid) << "a row too many";
}

TEST(JudgeAudit, TheFirstOpBeyondItsBoundIsThePlace) {
  LocalEvidence l = GoodPoints();
  for (int32_t layer : {1, 0}) *Find(&l, PB_STAGE_FFN_GATED, layer) = Point(PB_STAGE_FFN_GATED, layer, 1e-3);
  // What the model leaves open elsewhere does not hide it.
  Evidence e = AuditOf();
  e.obstacles = {Undeclared("the model does not declare its activation")};
  for (const Evidence& evidence : {AuditOf(), e}) {
    const Verdict v = JudgeAudit(evidence, l);
    EXPECT_EQ(v.outcome, Outcome::kDiverged);
    ASSERT_TRUE(v.first_divergence);
    EXPECT_EQ(v.first_divergence->layer, 0);
    EXPECT_EQ(v.first_divergence->stage, PB_STAGE_FFN_GATED);
    EXPECT_EQ(v.first_divergence->token, 12) << "of the row beyond its bound";
  }
}

TEST(JudgeAudit, ValuesThatAreNotFiniteAreOfTheEngineOrOfTheFile) {
  const std::pair<std::array<int64_t, 2>, Blame> cases[] = {
      {{3, 0}, Blame::kEngine}, {{3, 3}, Blame::kModelFile}, {{0, 3}, Blame::kUndetermined}};
  for (const auto& [n, blame] : cases) {
    LocalEvidence l = GoodPoints();
    PointRow* p = Find(&l, PB_STAGE_Q_PROJ, 1);
    p->n_non_finite[0] = n[0], p->n_non_finite[1] = n[1];
    const Verdict v = JudgeAudit(AuditOf(), l);
    EXPECT_EQ(v.outcome, Outcome::kInvalid);
    EXPECT_EQ(v.blame, blame);
  }
}

TEST(JudgeAudit, AFailureIsOfTheEngine) {
  Evidence e = AuditOf(0);
  e.obstacles = {{Outcome::kEngineFailed, ReasonCode::kEngineFailed, "the engine failed: signal 11"}};
  LocalEvidence l;
  l.n_expected = 12;
  const Verdict v = JudgeAudit(e, l);
  EXPECT_EQ(v.outcome, Outcome::kEngineFailed);
  EXPECT_EQ(v.blame, Blame::kEngine);
}

}  // namespace
}  // namespace pb::compare
