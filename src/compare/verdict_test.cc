// Every way to compare nothing, or less than was asked, and still pass: none may.
#include "compare/verdict.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "compare/logits_judge.h"

namespace pb::compare {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Limits: single position 3e-3, gap change 0.3, mean of n positions 2e-3.
NoiseFloor Floor() {
  NoiseRun run;
  run.kl.assign(400, 1e-3);
  run.gap_change.assign(400, 0.1);
  NoiseFloor floor;
  floor.engine = "reference 1";
  floor.runs.assign(8, run);
  return floor;
}

LogitsRow Row(int32_t prompt, int32_t position, Phase phase, double kl = 1e-4) {
  LogitsRow row;
  row.prompt = prompt;
  row.position = position;
  row.phase = phase;
  row.token = 100 + position;
  row.kl = kl;
  row.cosine = 1;
  row.top1[0] = row.top1[1] = 7;
  return row;
}

PromptEvidence Prompt(int32_t index, int n_tokens, int n_decode) {
  PromptEvidence p;
  p.prompt = index;
  for (int i = 0; i < n_tokens; ++i)
    for (auto& tokens : p.tokens) tokens.push_back(100 + i);
  p.n_decode_asked = n_decode;
  for (int side : {0, 1}) {
    p.n_prefill[side] = n_tokens;
    p.n_decode[side] = n_decode;
    p.n_vocab[side] = 32;
  }
  for (int i = 0; i < n_tokens + n_decode; ++i)
    p.rows.push_back(Row(index, i, i < n_tokens ? Phase::kPrefill : Phase::kDecode));
  return p;
}

// Everything asked for was run and agrees.
Evidence Good(int n_tokens = 9, int n_decode = 4) {
  Evidence e;
  e.n_prompts_asked = 1;
  e.prompts = {Prompt(0, n_tokens, n_decode)};
  e.floor = Floor();
  return e;
}

bool Has(const Verdict& v, const std::string& code) {
  for (const Reason& r : v.reasons)
    if (ReasonName(r.code) == std::string_view(code)) return true;
  return false;
}

// The verdict must be this one for this first reason, and fail as it should.
void Expect(Evidence e, Outcome outcome, const std::string& code) {
  Verdict v = JudgeLogits(&e);
  EXPECT_STREQ(OutcomeName(v.outcome), OutcomeName(outcome)) << v.reasons[0].text;
  EXPECT_EQ(ReasonName(v.reasons[0].code), std::string_view(code)) << v.reasons[0].text;
  EXPECT_FALSE(v.reasons[0].text.empty());
}

// The five ways in which Polygraphy's comparison passes on nothing.
TEST(PassesOnNothing, EmptyResult) {
  Evidence e = Good();
  PromptEvidence& p = e.prompts[0];
  p.rows.clear();
  p.n_prefill[0] = p.n_prefill[1] = p.n_decode[0] = p.n_decode[1] = 0;
  Expect(e, Outcome::kInvalid, "nothing-compared");
}

TEST(PassesOnNothing, ZeroIterations) {
  Evidence e;
  e.floor = Floor();
  Expect(e, Outcome::kInvalid, "no-prompts");
  e.n_prompts_asked = 1;
  Expect(e, Outcome::kInvalid, "nothing-compared");
}

TEST(PassesOnNothing, UnequalIterations) {
  for (int side : {0, 1}) {
    Evidence e = Good();
    e.prompts[0].n_decode[side] = 3;
    e.prompts[0].rows.pop_back();
    Expect(e, Outcome::kInvalid, "unequal-steps");
  }
}

TEST(PassesOnNothing, MissingOutput) {
  for (int side : {0, 1}) {
    Evidence e = Good(9, 0);
    e.prompts[0].n_prefill[side] = 0;
    e.prompts[0].rows.clear();
    Expect(e, Outcome::kInvalid, "missing-output");
  }
}

TEST(PassesOnNothing, ExtraOutput) {
  for (int side : {0, 1}) {
    Evidence e = Good();
    e.prompts[0].n_decode[side] = 5;
    Expect(e, Outcome::kInvalid, "extra-output");
  }
  Evidence e = Good();
  e.prompts[0].n_decode[0] = e.prompts[0].n_decode[1] = 5;
  e.prompts[0].rows.push_back(Row(0, 13, Phase::kDecode));
  Expect(e, Outcome::kInvalid, "extra-output");
}

// The other ways.
TEST(PassesOnNothing, NoReference) {
  Evidence e;
  e.n_prompts_asked = 1;
  e.obstacles = {NoReference("no reference named \"llama.cpp\" is set up")};
  Expect(e, Outcome::kIncomplete, "no-reference");
  // Also where the candidate has already read the prompt.
  e.prompts = {Prompt(0, 9, 0)};
  e.prompts[0].tokens[1].clear();
  e.prompts[0].n_prefill[1] = 0;
  e.prompts[0].rows.clear();
  Expect(e, Outcome::kIncomplete, "no-reference");
  EXPECT_EQ(JudgeLogits(&e).coverage.expected, 9);
}

TEST(PassesOnNothing, EngineDies) {
  for (bool candidate : {false, true}) {
    Evidence e = Good();
    PromptEvidence& p = e.prompts[0];
    p.n_decode[candidate ? 0 : 1] = 1;
    p.rows.resize(10);
    e.obstacles = {EngineFailed(candidate ? "candidate" : "reference", "signal 11")};
    Expect(e, Outcome::kEngineFailed, candidate ? "candidate-failed" : "reference-failed");
    Verdict v = JudgeLogits(&e);
    EXPECT_EQ(v.blame, candidate ? Blame::kCandidate : Blame::kReference);
    EXPECT_EQ(v.coverage.missing, std::vector<std::string>{"prompt 0 positions 10-12"});
    EXPECT_EQ(ExitCode(v.outcome), 4);
  }
}

TEST(PassesOnNothing, EmptyPrompt) {
  Expect(Good(0, 0), Outcome::kInvalid, "empty-prompt");
  Evidence two = Good();
  two.n_prompts_asked = 2;
  two.prompts.push_back(Prompt(1, 0, 0));
  Expect(two, Outcome::kInvalid, "empty-prompt");
}

TEST(PassesOnNothing, FewerPromptsThanAsked) {
  Evidence e = Good();
  e.n_prompts_asked = 2;
  Expect(e, Outcome::kIncomplete, "prompts-missing");
  e.n_prompts_asked = 0;
  Expect(e, Outcome::kInvalid, "no-prompts");
}

TEST(PassesOnNothing, FewerPositionsThanAsked) {
  Evidence e = Good();
  PromptEvidence& p = e.prompts[0];
  p.n_decode[0] = p.n_decode[1] = 2;
  p.rows.resize(11);
  Expect(e, Outcome::kIncomplete, "positions-missing");
  e = Good();
  e.prompts[0].rows.pop_back();  // run by both and not compared
  Expect(e, Outcome::kIncomplete, "positions-not-compared");
}

TEST(PassesOnNothing, OnePositionComparedManyTimes) {
  Evidence e = Good();
  for (LogitsRow& row : e.prompts[0].rows) row.position = 0;
  Expect(e, Outcome::kInvalid, "rows-out-of-order");
  e = Good();
  e.prompts[0].rows[9].phase = Phase::kPrefill;  // a decode step passed off as prefill
  Expect(e, Outcome::kInvalid, "rows-out-of-order");
}

TEST(PassesOnNothing, NonFiniteLogits) {
  for (int side : {0, 1}) {
    Evidence e = Good();
    LogitsRow& row = e.prompts[0].rows[5];
    row.finite = false;
    row.n_non_finite[side] = 3;
    row.kl = row.cosine = row.gap_change = kNan;
    Expect(e, Outcome::kInvalid, "non-finite");
    Verdict v = JudgeLogits(&e);
    EXPECT_EQ(v.blame, side ? Blame::kReference : Blame::kCandidate);
    EXPECT_EQ(v.first_divergence->position, 5);
    EXPECT_FALSE(Has(v, "within-limits"));
  }
  Evidence e = Good();  // a NaN that nobody flagged
  e.prompts[0].rows[5].kl = kNan;
  Expect(e, Outcome::kInvalid, "non-finite");
}

TEST(PassesOnNothing, ShapeMismatch) {
  Evidence e = Good();
  e.prompts[0].n_vocab[0] = 31;
  e.prompts[0].rows.clear();
  Expect(e, Outcome::kInvalid, "shape-mismatch");
}

TEST(PassesOnNothing, AVocabularyOfOneToken) {
  Evidence e = Good();
  e.prompts[0].n_vocab[0] = e.prompts[0].n_vocab[1] = 1;
  Expect(e, Outcome::kInvalid, "one-token-vocabulary");
}

// Every token as likely as any other, at every position: KL is 0, and nothing was computed.
TEST(PassesOnNothing, ConstantLogits) {
  Evidence e = Good();
  for (LogitsRow& row : e.prompts[0].rows)
    for (auto& log_p : row.top_k_logp) log_p.assign(10, -std::log(32.0));
  Expect(e, Outcome::kInvalid, "constant-logits");
  e.prompts[0].rows[3].top_k_logp[1][0] += 1e-3;  // one position says something
  Expect(e, Outcome::kMatch, "within-limits");
}

TEST(PassesOnNothing, TokenMismatch) {
  Evidence e = Good();
  e.prompts[0].tokens[0][4] = 5;
  Expect(e, Outcome::kInvalid, "tokens-differ");
  EXPECT_NE(JudgeLogits(&e).reasons[0].text.find("position 4: candidate 5, reference 104"),
            std::string::npos);
  e = Good();
  e.prompts[0].tokens[0].pop_back();
  Expect(e, Outcome::kInvalid, "tokens-differ");
}

TEST(PassesOnNothing, NoLimits) {
  Evidence e = Good();
  e.floor.reset();
  e.no_floor_reason = "the reference failed while disturbed";
  Expect(e, Outcome::kIncomplete, "no-noise-floor");
  e.user.min_cosine = 0.99;  // judges the cosine alone: not enough for a match
  Expect(e, Outcome::kIncomplete, "no-noise-floor");
  e = Good();
  e.floor->runs[3].kl[17] = kNan;
  Expect(e, Outcome::kIncomplete, "noise-floor-unusable");
  e.floor->runs.clear();
  Expect(e, Outcome::kIncomplete, "noise-floor-unusable");
}

TEST(PassesOnNothing, NoReasonsAtAll) {
  Verdict v;
  Settle(&v);
  EXPECT_EQ(v.outcome, Outcome::kInvalid);
  EXPECT_EQ(v.reasons.size(), 1u);
}

TEST(JudgeLogits, Match) {
  Evidence e = Good();
  Verdict v = JudgeLogits(&e);
  EXPECT_EQ(v.outcome, Outcome::kMatch);
  EXPECT_STREQ(ReasonName(v.reasons[0].code), "within-limits");
  EXPECT_EQ(v.coverage.expected, 13);
  EXPECT_EQ(v.coverage.compared, 13);
  EXPECT_TRUE(v.coverage.missing.empty());
  EXPECT_FALSE(v.first_divergence);
  EXPECT_EQ(v.blame, Blame::kNone);
  ASSERT_EQ(v.limits.size(), 4u);
  EXPECT_EQ(v.limits[0].name, "kl.worst");
  EXPECT_NEAR(v.limits[0].value, 3e-3, 1e-15);
  EXPECT_EQ(v.limits[1].name, "gap.change");
  EXPECT_NEAR(v.limits[1].value, 0.3, 1e-15);
  EXPECT_EQ(v.limits[2].name, "kl.prefill.mean");
  EXPECT_NEAR(v.limits[2].value, 2e-3, 1e-15);
  EXPECT_EQ(v.limits[3].name, "kl.decode.mean");
  for (const Limit& limit : v.limits) EXPECT_FALSE(limit.origin.empty());
}

TEST(JudgeLogits, WorstPosition) {
  Evidence e = Good();
  e.prompts[0].rows[6].kl = 3.1e-3;  // limit 3e-3
  e.prompts[0].rows[8].kl = 3.2e-3;
  Verdict v = JudgeLogits(&e);
  EXPECT_EQ(v.outcome, Outcome::kDiverged);
  ASSERT_EQ(v.reasons.size(), 1u);  // the mean of nine is 7.8e-4
  EXPECT_STREQ(ReasonName(v.reasons[0].code), "kl-worst-above-limit");
  EXPECT_EQ(v.first_divergence->position, 6);
  EXPECT_EQ(v.first_divergence->token, 106);
  EXPECT_EQ(v.first_divergence->layer, -1);
  EXPECT_FALSE(v.first_divergence->stage);
  EXPECT_TRUE(e.prompts[0].rows[6].above_limit);
  EXPECT_FALSE(e.prompts[0].rows[7].above_limit);
  EXPECT_EQ(v.blame, Blame::kUndetermined);
  EXPECT_EQ(ExitCode(v.outcome), 1);
}

// Two units in the last place of float32: no further apart than the sums behind the logits round.
TEST(JudgeLogits, LogitsAsCloseAsFloat32HoldsThemAreTies) {
  Evidence e = Good();
  e.prompts[0].rows[6].kl = 3.1e-3, e.prompts[0].rows[6].rel_l2 = 0x1p-22;
  EXPECT_EQ(JudgeLogits(&e).outcome, Outcome::kMatch);
  e.user.kl_worst = 3e-3, e.user.origin = "--kl-worst";
  EXPECT_EQ(JudgeLogits(&e).outcome, Outcome::kDiverged);
  e = Good();
  e.prompts[0].rows[6].kl = 3.1e-3, e.prompts[0].rows[6].rel_l2 = 0x1.01p-22;
  EXPECT_EQ(JudgeLogits(&e).outcome, Outcome::kDiverged);
}

TEST(JudgeLogits, MeanAlone) {
  Evidence e = Good();
  for (size_t i = 0; i < 9; ++i) e.prompts[0].rows[i].kl = 2.1e-3;  // below 3e-3, mean above 2e-3
  e.prompts[0].rows[3].kl = 2.9e-3;
  Verdict v = JudgeLogits(&e);
  EXPECT_EQ(v.outcome, Outcome::kDiverged);
  ASSERT_EQ(v.reasons.size(), 1u);
  EXPECT_STREQ(ReasonName(v.reasons[0].code), "kl-mean-above-limit");
  EXPECT_NE(v.reasons[0].text.find("no position is beyond its own limit, position 3 contributes most"),
            std::string::npos);
  EXPECT_EQ(v.first_divergence->position, 3);
}

// Decode steps are judged apart: a long good prefill must not dilute them.
TEST(JudgeLogits, DecodeIsJudgedApart) {
  Evidence e = Good(300, 4);
  for (size_t i = 300; i < 304; ++i) e.prompts[0].rows[i].kl = 2.5e-3;
  Verdict v = JudgeLogits(&e);
  EXPECT_EQ(v.outcome, Outcome::kDiverged);
  EXPECT_NE(v.reasons[0].text.find("decode"), std::string::npos);
  EXPECT_EQ(v.first_divergence->position, 300);
}

TEST(JudgeLogits, PromptsAreJudgedApart) {
  Evidence e = Good();
  e.n_prompts_asked = 2;
  e.prompts.push_back(Prompt(1, 200, 0));
  e.prompts.insert(e.prompts.begin(), Prompt(2, 200, 0));
  e.n_prompts_asked = 3;
  for (LogitsRow& row : e.prompts[1].rows) row.kl = 2.5e-3;
  Verdict v = JudgeLogits(&e);
  EXPECT_EQ(v.outcome, Outcome::kDiverged);
  EXPECT_EQ(v.first_divergence->prompt, 0);
}

TEST(JudgeLogits, NearTieAndFlip) {
  Evidence e = Good();
  e.prompts[0].rows[2].top1[0] = 8;
  e.prompts[0].rows[2].gap_change = 0.29;  // limit 0.3
  Verdict v = JudgeLogits(&e);
  EXPECT_EQ(v.outcome, Outcome::kNearTie);
  EXPECT_STREQ(ReasonName(v.reasons[0].code), "near-tie");
  EXPECT_FALSE(v.first_divergence);
  EXPECT_EQ(ExitCode(v.outcome), 0);
  e.prompts[0].rows[4].top1[0] = 8;
  e.prompts[0].rows[4].gap_change = 0.31;
  v = JudgeLogits(&e);
  EXPECT_EQ(v.outcome, Outcome::kDiverged);
  EXPECT_STREQ(ReasonName(v.reasons[0].code), "top1-flip");
  EXPECT_EQ(v.first_divergence->position, 4);
  EXPECT_TRUE(Has(v, "near-tie"));
}

TEST(JudgeLogits, UserLimitsAreEnforced) {
  auto with = [](auto set) {
    Evidence e = Good();
    LogitsRow& row = e.prompts[0].rows[7];
    row.cosine = 0.998;
    row.rel_l2 = 0.05;
    row.max_abs = 0.4;
    set(&e.user);
    return e;
  };
  Expect(with([](UserLimits* u) { u->min_cosine = 0.999; }), Outcome::kDiverged, "cosine-below-limit");
  Expect(with([](UserLimits* u) { u->min_cosine = 0.997; }), Outcome::kMatch, "within-limits");
  Expect(with([](UserLimits* u) { u->rel_l2 = 0.04; }), Outcome::kDiverged, "rel-l2-above-limit");
  Expect(with([](UserLimits* u) { u->rel_l2 = 0.06; }), Outcome::kMatch, "within-limits");
  Expect(with([](UserLimits* u) { u->max_abs = 0.3; }), Outcome::kDiverged, "max-abs-above-limit");
  Expect(with([](UserLimits* u) { u->kl_worst = 5e-5; }), Outcome::kDiverged, "kl-worst-above-limit");
  Expect(with([](UserLimits* u) { u->kl_mean = 5e-5; }), Outcome::kDiverged, "kl-mean-above-limit");
  Evidence e = with([](UserLimits* u) { u->kl_mean = u->kl_worst = 0.1; });
  e.floor.reset();  // limits of the user's own need no floor
  Verdict v = JudgeLogits(&e);
  EXPECT_EQ(v.outcome, Outcome::kMatch);
  EXPECT_TRUE(v.limits[0].by_user);
}

TEST(JudgeLogits, NanNeverPassesALimit) {
  Evidence e = Good();
  e.prompts[0].rows[7].cosine = kNan;  // a constant row has no cosine
  e.user.min_cosine = -2;
  Expect(e, Outcome::kDiverged, "cosine-below-limit");
}

TEST(JudgeLogits, SettingsThatDifferAreNotJudged) {
  for (const char* key : {"act.quant", "kv.type"}) {
    Evidence e = Good();
    e.settings[0] = {{key, "f16", "set"}};
    e.settings[1] = {{key, "f32", "observed"}};
    for (LogitsRow& row : e.prompts[0].rows) row.kl = 1;  // of no meaning here
    Expect(e, Outcome::kIncomplete, "settings-differ");
    e.settings[1][0].value = "f16";
    Expect(e, Outcome::kDiverged, "kl-worst-above-limit");
  }
}

// Floor() has limits of 3e-3, 2e-3 and 0.3: fused attention in one engine may lie kFusedAttentionKl
// times as far.
TEST(JudgeLogits, FusedAttentionIsDriftWithinWiderLimitsAndNeverAMatch) {
  auto judge = [](double kl, double gap_change, const char* flash) {
    Evidence e = Good();
    e.settings[0] = {{"attn.flash", "on", "observed"}};
    e.settings[1] = {{"attn.flash", flash, "observed"}};
    for (LogitsRow& row : e.prompts[0].rows) row.kl = kl, row.gap_change = gap_change;
    e.prompts[0].rows[3].top1[0] = 8;
    return JudgeLogits(&e);
  };
  EXPECT_EQ(judge(0, 0, "on").outcome, Outcome::kNearTie);
  EXPECT_EQ(judge(0, 0, "off").outcome, Outcome::kDrift);
  const Verdict within = judge(1.99e-3 * kFusedAttentionKl, 0.29 * std::sqrt(kFusedAttentionKl), "off");
  EXPECT_EQ(within.outcome, Outcome::kDrift);
  EXPECT_TRUE(Has(within, "fused-attention"));
  EXPECT_NE(within.limits[0].origin.find("as attn.flash differs"), std::string::npos);
  EXPECT_TRUE(Has(judge(2.01e-3 * kFusedAttentionKl, 0, "off"), "kl-mean-above-limit"));
  EXPECT_TRUE(Has(judge(3.01e-3 * kFusedAttentionKl, 0, "off"), "kl-worst-above-limit"));
  EXPECT_EQ(judge(0, 0.31 * std::sqrt(kFusedAttentionKl), "off").outcome, Outcome::kDiverged);
  EXPECT_EQ(judge(1.99e-3 * kFusedAttentionKl, 0, "on").outcome, Outcome::kDiverged);
}

// "ggml" means what it does to the weights at hand.
TEST(JudgeLogits, ActivationSchemesAreComparedByWhatTheyDo) {
  using Settings = std::vector<Setting>;
  auto side = [](const char* scheme, const char* weights) {
    return Settings{{"act.quant", scheme, "set"}, {"weights", weights, "metadata"}};
  };
  const char *f16 = "F16 x43, F32 x25", *tq2 = "TQ2_0 x42, F16 x1, F32 x25",
             *tq1 = "TQ1_0 x42, F16 x1, F32 x25", *i2s = "I2_S x42, F16 x1, F32 x25";
  EXPECT_TRUE(DifferingSettings(side("f16", tq2), side("ggml", f16), false).empty());
  EXPECT_TRUE(DifferingSettings(side("ggml", tq1), side("ggml", tq2), false).empty());
  EXPECT_TRUE(DifferingSettings(side("q8_k", i2s), side("q8_k", tq2), false).empty());
  EXPECT_FALSE(DifferingSettings(side("ggml", f16), side("ggml", tq2), false).empty());
  EXPECT_FALSE(DifferingSettings(side("ggml", i2s), side("ggml", tq2), false).empty());
  EXPECT_FALSE(DifferingSettings(side("none", tq2), side("ggml", tq2), false).empty());
  EXPECT_TRUE(DifferingSettings(side("ggml", "F32 x10"), side("none", tq2), false).empty());
  EXPECT_TRUE(DifferingSettings(side("q8_k", tq2), side("ggml", tq2), false)
                  .empty());  // the output matrix is F16 in both
  EXPECT_TRUE(DifferingSettings(side("ggml", "F16 x7, F32 x5"), side("f16", tq2), false).empty());
  EXPECT_FALSE(DifferingSettings(side("ggml", "Q4_1 x200, Q8_0 x10"), side("q8_1", tq2), false).empty());
  EXPECT_FALSE(
      DifferingSettings(side("ggml", ""), side("f16", tq2), false).empty());  // nothing known of the weights
}

TEST(JudgeLogits, UndeclaredIsIncompleteWhateverTheLogitsSay) {
  for (double kl : {0.0, 10.0}) {
    Evidence e = Good();
    for (LogitsRow& row : e.prompts[0].rows) row.kl = kl;
    e.obstacles = {Undeclared("the model does not declare its activation")};
    Expect(e, Outcome::kIncomplete, "undeclared");
  }
}

TEST(JudgeLogits, AFloorOfZerosPassesOnlyEqualBits) {
  Evidence e = Good();
  for (NoiseRun& run : e.floor->runs) {
    run.kl.assign(400, 0);
    run.gap_change.assign(400, 0);
  }
  Expect(e, Outcome::kIncomplete, "noise-floor-zero");
  e.user.min_cosine = 1.5;
  // what the user asked for is enforced all the same
  Expect(e, Outcome::kDiverged, "cosine-below-limit");
  e.user = {};
  for (LogitsRow& row : e.prompts[0].rows) row.kl = 0;
  Expect(e, Outcome::kMatch, "equal");
}

// What it takes to be decided by a part of the floor; limits as of Floor().
TEST(IsWithin, EverythingThatNoiseLimits) {
  NoiseFloor part = Floor();
  part.runs.resize(1);
  part.partial = true;
  EXPECT_TRUE(IsWithin(part, Good()));
  Evidence e = Good();
  e.prompts[0].rows[3].kl = 3.1e-3;
  EXPECT_FALSE(IsWithin(part, e)) << "a position";
  e = Good();
  for (LogitsRow& row : e.prompts[0].rows) row.kl = 2.1e-3;
  EXPECT_FALSE(IsWithin(part, e)) << "a mean";
  e = Good();
  e.prompts[0].rows[3].top1[0] = 8;
  e.prompts[0].rows[3].gap_change = 0.29;
  EXPECT_TRUE(IsWithin(part, e)) << "a near-tie";
  e.prompts[0].rows[3].gap_change = 0.31;
  EXPECT_FALSE(IsWithin(part, e)) << "a flip";
  EXPECT_TRUE(IsWithin(part, Good(400, 0)));
  EXPECT_FALSE(IsWithin(part, Good(9000, 0))) << "a mean of more positions than were measured";
  for (NoiseRun& run : part.runs) run.kl.assign(400, 0);
  EXPECT_FALSE(IsWithin(part, Good())) << "no noise was seen";
  part.runs.clear();
  EXPECT_FALSE(IsWithin(part, Good())) << "nothing was measured";
}

TEST(JudgeLogits, AWeakerFloorSaysSo) {
  Evidence e = Good();
  e.floor->method = NoiseFloor::Method::kVariations;
  Verdict v = JudgeLogits(&e);
  EXPECT_EQ(v.outcome, Outcome::kMatch);
  EXPECT_TRUE(Has(v, "weaker-floor"));
}

TEST(JudgeLogits, TheWorstReasonWinsAndAllAreListed) {
  Evidence e = Good();
  e.prompts[0].rows[2].kl = e.prompts[0].rows[3].kl = 1;
  e.prompts[0].rows.resize(12);
  e.prompts[0].n_decode[0] = 3;
  e.obstacles = {EngineFailed("candidate", "killed")};
  Verdict v = JudgeLogits(&e);
  EXPECT_EQ(v.outcome, Outcome::kEngineFailed);
  EXPECT_TRUE(Has(v, "kl-worst-above-limit"));
  EXPECT_TRUE(Has(v, "kl-mean-above-limit"));
  for (size_t i = 1; i < v.reasons.size(); ++i) EXPECT_GE(v.reasons[i - 1].outcome, v.reasons[i].outcome);
}

}  // namespace
}  // namespace pb::compare
