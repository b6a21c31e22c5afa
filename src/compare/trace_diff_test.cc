// Comparison of traces made by hand, with known errors of an op, of its inputs, and of rounding
// alone.
#include "compare/trace_diff.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/file.h"
#include "base/random.h"
#include "compare/trace_pairing.h"
#include "trace/writer.h"

namespace pb::compare {
namespace {

namespace fs = std::filesystem;
using trace::Level;
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr size_t kModel = 4;  // d_model

using Tensor = std::vector<float>;

struct Put {
  int32_t stage = 0, layer = -1;
  std::vector<int64_t> shape;
  Tensor values;
};

class TraceDiffTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "pb_diff_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override { fs::remove_all(root_); }

  trace::Manifest Head(Level level, const std::string& engine = "one") const {
    trace::Manifest m;
    m.level = level;
    m.engine = engine;
    m.engine_facts = {{"name", engine, "observed"}};
    m.model_facts = {{"d_model", "4", "metadata"},
                     {"d_ff", "4", "metadata"},
                     {"n_heads", "1", "metadata"},
                     {"n_kv_heads", "1", "metadata"},
                     {"head_dim", "4", "metadata"}};
    m.model_sha256 = std::string(64, 'a');
    return m;
  }

  // A trace of steps; each a first position, tokens, and points.
  struct Step {
    int32_t position;
    std::vector<int32_t> tokens;
    std::vector<Put> points;
  };
  trace::Trace Write(const std::string& name, const trace::Manifest& head, const std::vector<Step>& steps) {
    auto writer = trace::Writer::Create(root_ / name, head);
    EXPECT_TRUE(writer.ok());
    for (const Step& step : steps) {
      EXPECT_TRUE((*writer)->BeginStep(step.position, step.tokens).ok());
      for (const Put& p : step.points) {
        EXPECT_TRUE(
            (*writer)
                ->Append(
                    {.stage = p.stage, .native_name = "", .layer = p.layer, .first_position = step.position},
                    p.shape, p.values)
                .ok());
      }
    }
    EXPECT_TRUE((*writer)->Finish("", "").ok());
    return std::move(trace::Trace::Open(root_ / name)).value();
  }

  // Embeddings and the first norm and product of a layer, two tokens.
  trace::Trace Chain(const std::string& name, const trace::Manifest& head, const Tensor& embeddings,
                     const Tensor& norm, const Tensor& product) {
    const std::vector<int64_t> rows = {2, kModel};
    return Write(name, head,
                 {{0,
                   {7, 8},
                   {{PB_STAGE_EMBEDDINGS, -1, rows, embeddings},
                    {PB_STAGE_ATTN_NORM, 0, rows, norm},
                    {PB_STAGE_Q_PROJ, 0, {2, 1, kModel}, product}}}});
  }

  fs::path root_;
};

TraceDiff Diff(const trace::Trace& a, const trace::Trace& b, TraceDiffOptions options = {}) {
  auto diff = DiffTraces(a, b, options);
  EXPECT_TRUE(diff.ok()) << diff.error().message;
  return std::move(diff).value();
}

std::string FirstCode(const TraceDiff& diff) { return ReasonName(diff.verdict.reasons[0].code); }

const Tensor kEmbeddings = {1, 2, 3, 4, 5, 6, 7, 8}, kNorm = {1, -1, 1, -1, 2, -2, 2, -2},
             kProduct = {9, 8, 7, 6, 5, 4, 3, 2};

TEST_F(TraceDiffTest, AnErrorOnEqualInputsIsTheOpsOwnAndOneThatArrivedIsNot) {
  const trace::Trace good = Chain("good", Head(Level::kFull), kEmbeddings, kNorm, kProduct);
  Tensor norm = kNorm, product = kProduct;
  norm[5] = -2.02f;  // of token 1; rounding of a norm of four values stays below 3e-7
  product[6] = 3.5f;
  const TraceDiff diff = Diff(Chain("bad", Head(Level::kFull), kEmbeddings, norm, product), good);
  EXPECT_EQ(diff.verdict.outcome, Outcome::kDiverged);
  ASSERT_EQ(diff.points.size(), 3u);
  EXPECT_EQ(diff.points[0].own, OwnError::kWithin);
  EXPECT_TRUE(diff.points[0].equal);
  EXPECT_EQ(diff.points[1].own, OwnError::kAbove);
  EXPECT_EQ(diff.points[1].own_position, 1);
  EXPECT_EQ(diff.points[1].own_feature, 1);
  EXPECT_EQ(diff.points[1].max_abs_position, 1);
  EXPECT_EQ(diff.points[1].max_abs_feature, 1);
  // Of the product only token 0 has equal inputs, and there it is equal.
  EXPECT_EQ(diff.points[2].n_own_rows, 1);
  EXPECT_EQ(diff.points[2].own, OwnError::kWithin);
  EXPECT_NEAR(diff.points[2].row.rel_l2, 0.5 / std::sqrt(81 + 64 + 49 + 36 + 25 + 16 + 9 + 4), 1e-12);
  ASSERT_TRUE(diff.verdict.first_divergence);
  EXPECT_EQ(diff.verdict.first_divergence->stage, PB_STAGE_ATTN_NORM);
  EXPECT_EQ(diff.verdict.first_divergence->token, 8);
}

TEST_F(TraceDiffTest, RoundingIsNoDefectAndNoMatch) {
  const trace::Trace good = Chain("good", Head(Level::kFull), kEmbeddings, kNorm, kProduct);
  Tensor norm = kNorm;
  norm[5] = std::nextafter(norm[5], 0.0f);
  TraceDiff diff = Diff(Chain("near", Head(Level::kFull), kEmbeddings, norm, kProduct), good);
  EXPECT_EQ(diff.verdict.outcome, Outcome::kIncomplete);
  EXPECT_EQ(FirstCode(diff), "not-judged");
  EXPECT_EQ(diff.points[1].own, OwnError::kWithin);
  ASSERT_TRUE(diff.first_difference);
  EXPECT_EQ(*diff.first_difference, 1u);
  diff = Diff(Chain("near2", Head(Level::kFull), kEmbeddings, norm, kProduct), good, {1e-6, false, {}, {}});
  EXPECT_EQ(diff.verdict.outcome, Outcome::kMatch);
}

TEST_F(TraceDiffTest, ProductsOfOtherEnginesMayRoundTheirCodesOtherwiseUnlessOneFeatureIsWrong) {
  const trace::Trace good = Chain("good", Head(Level::kFull), kEmbeddings, kNorm, kProduct);
  Tensor codes = kProduct, feature = kProduct;
  for (float& v : codes) v *= 1.001f;
  feature[2] += 0.5f, feature[6] += 0.5f;
  TraceDiff diff = Diff(Chain("codes", Head(Level::kFull, "two"), kEmbeddings, kNorm, codes), good);
  EXPECT_EQ(FirstCode(diff), "codes-not-explained");
  EXPECT_EQ(diff.verdict.outcome, Outcome::kIncomplete);
  diff = Diff(Chain("feature", Head(Level::kFull, "two"), kEmbeddings, kNorm, feature), good);
  EXPECT_EQ(diff.verdict.outcome, Outcome::kDiverged);
  EXPECT_EQ(diff.verdict.first_divergence->feature, 2);
  diff = Diff(Chain("same", Head(Level::kFull), kEmbeddings, kNorm, codes), good);
  EXPECT_EQ(diff.verdict.outcome, Outcome::kDiverged);
}

TEST_F(TraceDiffTest, LowerLevelsSayWhatTheyCannotTell) {
  Tensor longer = kNorm, turned = kNorm, slightly = kNorm;
  longer[5] = -2.0001f;  // another size, by 1.2e-5
  turned[5] = 2;         // another direction of the same size
  // of nearly the same size, nearer than a sketch tells
  slightly[4] += 1e-4f, slightly[6] -= 1e-4f;
  for (bool per_row : {false, true}) {
    for (Level level : {Level::kDigest, Level::kSketch}) {
      trace::Manifest head = Head(level);
      head.per_row = per_row;
      const std::string name = fmt::format("{}{}", trace::LevelName(level), per_row);
      const trace::Trace good = Chain("good" + name, head, kEmbeddings, kNorm, kProduct);
      // Sizes alone prove a difference of that much.
      TraceDiff diff = Diff(Chain("longer" + name, head, kEmbeddings, longer, kProduct), good);
      EXPECT_EQ(diff.verdict.outcome, Outcome::kDiverged) << name;
      EXPECT_EQ(diff.verdict.first_divergence->position, 1) << name;
      diff = Diff(Chain("turned" + name, head, kEmbeddings, turned, kProduct), good);
      const bool digest = level == Level::kDigest;
      EXPECT_EQ(diff.points[1].confidence, digest ? Confidence::kDigest : Confidence::kSketch);
      EXPECT_EQ(diff.points[1].own, digest ? OwnError::kUnknown : OwnError::kAbove) << name;
      EXPECT_EQ(FirstCode(diff), digest ? "not-judged" : "own-error-above-bound") << name;
      diff = Diff(Chain("slightly" + name, head, kEmbeddings, slightly, kProduct), good);
      EXPECT_EQ(diff.points[1].own, OwnError::kUnknown) << name;
      EXPECT_EQ(FirstCode(diff), "not-judged") << name;
    }
  }
}

// Attention that one engine computes in one op is judged by what goes into it; its bound is that of
// the last step alone, so an error beyond it is none that a trace can tell from rounding of the
// steps that it does not show.
TEST_F(TraceDiffTest, AnOpWhoseStepsAreNotShownIsComparedOnTheInputsOfThose) {
  const std::vector<int64_t> rows = {2, 1, kModel};
  auto attention = [&](const std::string& name, const Tensor& keys, const Tensor& context) {
    trace::Manifest head = Head(Level::kFull);
    head.unobservable = {{"attn_scores", "inside attn_context"},
                         {"attn_scores_softmax", "inside attn_context"}};
    return Write(name, head,
                 {{0,
                   {7, 8},
                   {{PB_STAGE_V_PROJ, 0, rows, kProduct},
                    {PB_STAGE_Q_ROPE, 0, rows, kProduct},
                    {PB_STAGE_K_ROPE, 0, rows, keys},
                    {PB_STAGE_ATTN_CONTEXT, 0, rows, context}}}});
  };
  const trace::Trace good = attention("good", kNorm, kProduct);
  Tensor near = kProduct, far = kProduct, keys = kNorm;
  near[5] = std::nextafter(near[5], 0.0f);
  far[5] *= 1.01f;
  keys[2] = 7;  // of token 0, which both tokens read
  auto context = [&](const trace::Trace& trace) { return Diff(trace, good).points.back(); };
  TracePoint point = context(attention("near", kNorm, near));
  EXPECT_EQ(point.stage, "attn_context");
  EXPECT_EQ(point.n_own_rows, 2);
  EXPECT_EQ(point.own, OwnError::kWithin);
  point = context(attention("far", kNorm, far));
  EXPECT_EQ(point.own, OwnError::kUnknown);
  point = context(attention("keys", keys, far));
  EXPECT_EQ(point.n_own_rows, 0);
  EXPECT_EQ(point.own, OwnError::kNone);
}

// A prefill pads the scores of early rows; a decode step does not.
TEST_F(TraceDiffTest, HiddenScoresOfAPrefillAreNothingToADecodeStep) {
  const Step prefill = {0, {1, 2}, {{PB_STAGE_ATTN_SCORES, 0, {2, 1, 2}, {5, -kInf, 6, 7}}}};
  const std::vector<Step> steps = {{0, {1}, {{PB_STAGE_ATTN_SCORES, 0, {1, 1, 1}, {5}}}},
                                   {1, {2}, {{PB_STAGE_ATTN_SCORES, 0, {1, 1, 2}, {6, 7}}}}};
  const trace::Trace whole = Write("whole", Head(Level::kFull), {prefill});
  TraceDiff diff = Diff(whole, Write("steps", Head(Level::kFull), steps));
  EXPECT_EQ(diff.verdict.outcome, Outcome::kMatch) << FirstCode(diff);
  EXPECT_EQ(diff.verdict.coverage.compared, 1);
  // A score that is hidden and should not be is no number.
  std::vector<Step> hidden = steps;
  hidden[1].points[0].values[0] = -kInf;
  diff = Diff(Write("hidden", Head(Level::kFull), hidden), whole);
  EXPECT_EQ(diff.verdict.outcome, Outcome::kInvalid);
  EXPECT_EQ(FirstCode(diff), "non-finite");
}

TEST_F(TraceDiffTest, PiecesOfOneSideMeetTheWholeOfTheOther) {
  const std::vector<int64_t> two = {2, 2}, one = {1, 2};
  const trace::Trace whole =
      Write("whole", Head(Level::kDigest), {{0, {1, 2}, {{PB_STAGE_LAYER_OUT, 0, two, {1, 2, 3, 4}}}}});
  const trace::Trace part = Write(
      "part", Head(Level::kDigest),
      {{0, {1}, {{PB_STAGE_LAYER_OUT, 0, one, {1, 2}}}}, {1, {2}, {{PB_STAGE_LAYER_OUT, 1, one, {3, 4}}}}});
  const TracePairing pairing = PairTraces(whole, part, {});
  ASSERT_EQ(pairing.spans.size(), 1u);
  EXPECT_EQ(pairing.spans[0].n_rows, 1);
  EXPECT_FALSE(pairing.spans[0].whole);
  ASSERT_EQ(pairing.gaps.size(), 1u);
  EXPECT_EQ(pairing.gaps[0].record->layer, 1);
  const TraceDiff diff = Diff(whole, part);
  EXPECT_EQ(diff.verdict.outcome, Outcome::kIncomplete);
  EXPECT_EQ(diff.verdict.coverage.compared, 0);
}

// What a record claims is never believed: no crash, no allocation of that size, and an answer.
TEST_F(TraceDiffTest, EveryFlippedBitOfATraceIsAnErrorOrAVerdict) {
  trace::Manifest head = Head(Level::kSketch);
  head.per_row = true;
  const trace::Trace good = Chain("good", head, kEmbeddings, kNorm, kProduct);
  Chain("flip", head, kEmbeddings, kNorm, kProduct);
  const fs::path path = root_ / "flip" / trace::kRecordsFile;
  const std::string records = ReadFile(path).value();
  Random random(3);
  for (int i = 0; i < 3000; ++i) {
    std::string bad = records;
    bad[random.Below(bad.size())] ^= static_cast<char>(1 << random.Below(8));
    std::ofstream(path, std::ios::binary) << bad;
    auto trace = trace::Trace::Open(root_ / "flip");
    if (!trace.ok()) continue;
    auto diff = DiffTraces(*trace, good, {});
    if (diff.ok()) {
      EXPECT_FALSE(diff->verdict.reasons.empty());
    }
  }
}

// Logits of four tokens: two positions of a prompt, and a decode step with the token that was
// chosen after them.
struct Choice {
  Tensor prompt, step;
  int32_t chosen;
};
std::vector<Put> LogitsOf(const Tensor& values) {
  return {{PB_STAGE_LOGITS, -1, {static_cast<int64_t>(values.size()) / 4, 4}, values}};
}

class TraceLogitsTest : public TraceDiffTest {
 protected:
  trace::Trace Chosen(const std::string& name, Level level, const Choice& c) {
    return Write(name, Head(level, name),
                 {{0, {7, 8}, LogitsOf(c.prompt)}, {2, {c.chosen}, LogitsOf(c.step)}});
  }
  // Limits: single position 3e-3, gap change 0.3, mean 2e-3.
  static TraceDiffOptions WithFloor(int64_t* n_asked = nullptr) {
    NoiseFloor floor;
    floor.engine = "reference";
    NoiseRun run;
    run.kl.assign(400, 1e-3), run.gap_change.assign(400, 0.1);
    floor.runs.assign(8, run);
    TraceDiffOptions options;
    options.floor = [floor, n_asked](int64_t n) -> Result<NoiseFloor> {
      if (n_asked) *n_asked = n;
      return floor;
    };
    return options;
  }
};

bool HasCode(const TraceDiff& diff, const std::string& code) {
  for (const Reason& reason : diff.verdict.reasons)
    if (ReasonName(reason.code) == code) return true;
  return false;
}

TEST_F(TraceLogitsTest, WhatArrivedAtTheLogitsIsJudgedByTheNoiseFloor) {
  const Choice good{{1, 2, 3, 0, 0, 1, 2, 5}, {1, 1, 2, 0}, 3};
  Choice near = good, far = good;
  near.prompt[0] += 0.01f;
  far.prompt[2] += 1;
  for (Level level : {Level::kSketch, Level::kFull}) {
    const std::string tag = trace::LevelName(level);
    const trace::Trace reference = Chosen("r" + tag, level, good), close = Chosen("n" + tag, level, near),
                       other = Chosen("f" + tag, level, far);
    int64_t n_asked = 0;
    const TraceDiff within = Diff(close, reference, WithFloor(&n_asked));
    EXPECT_EQ(within.verdict.outcome, Outcome::kMatch) << FirstCode(within);
    EXPECT_TRUE(HasCode(within, "within-limits"));
    EXPECT_EQ(within.verdict.scope, Scope::kLogitsOnly);
    EXPECT_EQ(n_asked, 3);
    ASSERT_EQ(within.logits.size(), 3u);
    EXPECT_EQ(within.logits_exact, level == Level::kFull);
    const TraceDiff beyond = Diff(other, reference, WithFloor());
    EXPECT_EQ(beyond.verdict.outcome, Outcome::kDiverged);
    EXPECT_EQ(beyond.verdict.first_divergence->position, 0);
    const TraceDiff unknown = Diff(close, reference);
    EXPECT_EQ(FirstCode(unknown), "not-judged");
    TraceDiffOptions on_purpose = WithFloor();
    on_purpose.different_models = true;
    EXPECT_EQ(FirstCode(Diff(close, reference, on_purpose)), "not-judged");
  }
  // Digests tell no logits.
  EXPECT_EQ(
      FirstCode(Diff(Chosen("nd", Level::kDigest, near), Chosen("rd", Level::kDigest, good), WithFloor())),
      "not-judged");
}

TEST_F(TraceLogitsTest, TokensThatEachEngineChoseAreToldAndWhatFollowsIsLeftOut) {
  // After position 1 tokens 3 and 2 are as good as tied.
  const Choice ours{{1, 2, 3, 0, 0, 1, 5.01f, 5}, {9, 1, 2, 0}, 2},
      theirs{{1, 2, 3, 0, 0, 1, 5, 5.02f}, {1, 1, 2, 0}, 3};
  for (Level level : {Level::kSketch, Level::kFull}) {
    const std::string tag = trace::LevelName(level);
    int64_t n_asked = 0;
    const TraceDiff diff =
        Diff(Chosen("o" + tag, level, ours), Chosen("t" + tag, level, theirs), WithFloor(&n_asked));
    EXPECT_EQ(diff.verdict.outcome, Outcome::kNearTie) << FirstCode(diff);
    EXPECT_TRUE(HasCode(diff, "greedy-flip"));
    EXPECT_EQ(n_asked, 2);
    EXPECT_EQ(diff.verdict.coverage.expected, 1);  // the logits of the prompt
    const std::string text = diff.verdict.reasons[0].text + diff.verdict.reasons[1].text;
    EXPECT_NE(text.find("0.01 nats"), std::string::npos) << text;
    EXPECT_NE(text.find("0.02 nats"), std::string::npos) << text;
  }
  // A choice that noise does not explain is a divergence.
  const Choice sure{{1, 2, 3, 0, 0, 1, 9, 5}, {9, 1, 2, 0}, 2};
  const TraceDiff bad = Diff(Chosen("s", Level::kFull, sure), Chosen("t", Level::kFull, theirs), WithFloor());
  EXPECT_EQ(bad.verdict.outcome, Outcome::kDiverged);
  EXPECT_TRUE(HasCode(bad, "top1-flip"));
  // Tokens that are not the engine's own choice were given: these are traces of different texts.
  const Choice given{{1, 2, 3, 0, 0, 1, 5, 5.02f}, {1, 1, 2, 0}, 1};
  EXPECT_EQ(FirstCode(Diff(Chosen("g", Level::kFull, given), Chosen("u", Level::kFull, theirs), WithFloor())),
            "tokens-differ");
}

}  // namespace
}  // namespace pb::compare
