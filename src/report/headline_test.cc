// Verdicts in plain words: each outcome's sentence and place, by hand.
#include "report/headline.h"

#include <gtest/gtest.h>

#include "report/escape.h"

namespace pb::report {
namespace {

using compare::Blame;
using compare::Outcome;
using compare::ReasonCode;

compare::LogitsRow Row(int32_t prompt, int32_t position, bool flipped) {
  compare::LogitsRow row;
  row.prompt = prompt, row.position = position;
  row.top1[0] = 1, row.top1[1] = flipped ? 2 : 1;
  return row;
}

// Two engines, a prompt of three tokens and two decode steps.
run::Comparison Two(Outcome outcome) {
  run::Comparison c;
  c.candidate.role = "candidate", c.reference.role = "reference";
  c.candidate.description = {{"name", "ours", "observed"}};
  c.reference.description = {{"name", "theirs", "observed"}};
  c.candidate.model_sha256 = c.reference.model_sha256 = "f";
  run::PromptRecord prompt;
  prompt.tokens = {7, 8, 9}, prompt.decoded = {10, 11};
  c.prompts = {prompt};
  c.token_text = {{7, "<s>"}, {8, " a"}, {9, " b"}, {10, " c"}, {11, " d"}};
  for (int32_t i = 0; i < 5; ++i) c.rows.push_back(Row(0, i, false));
  c.verdict.outcome = outcome;
  c.verdict.scope = compare::Scope::kLocal;
  c.verdict.coverage = {"points", 20, 20, {}, {}, {}};
  return c;
}

void PartAt(int32_t prompt, int32_t position, run::Comparison* c) {
  c->verdict.first_divergence = compare::FirstDivergence{prompt, position, -1, 2, PB_STAGE_DOWN_PROJ, {}};
}

diagnose::Diagnosis DownProjection(Blame blame, int32_t position) {
  diagnose::Diagnosis d;
  d.place = {0, 0, PB_STAGE_DOWN_PROJ, 2};
  d.position = position, d.blame = blame;
  d.sentence =
      "layer 2, down projection (down_proj): the candidate does not compute what the model declares; none "
      "of 40 variations explains it";
  return d;
}

std::string Place(const run::Comparison& c, const diagnose::Diagnosis* d) {
  std::string place = HeadlineOf(c, d).place;
  for (size_t at; (at = place.find(kNoBreak)) != std::string::npos;) place.replace(at, kNoBreak.size(), " ");
  return place;
}

TEST(Headline, WhatIsWrongByNameOfTheEngine) {
  run::Comparison c = Two(Outcome::kDiverged);
  PartAt(0, 0, &c);
  c.rows[3] = Row(0, 3, true);
  diagnose::Diagnosis d = DownProjection(Blame::kCandidate, 0);
  EXPECT_EQ(
      HeadlineOf(c, &d).sentence,
      "ours does not compute what the model declares; none of 40 variations explains it; 1 of 5 next-token "
      "choices differs");
  EXPECT_EQ(Place(c, &d), "at layer 2, down projection (down_proj), from the first token; blame: candidate");
  diagnose::Trial trial;
  trial.side = "candidate", trial.text = "leaves out the last column of the weight", trial.restores = true;
  d.trials = {trial};
  EXPECT_EQ(HeadlineOf(c, &d).sentence,
            "ours leaves out the last column of the weight; 1 of 5 next-token choices differs");
  d.blame = Blame::kBoth;
  EXPECT_EQ(HeadlineOf(c, &d).sentence.find("neither engine computes what the model declares: ours leaves"),
            0u);
  // Names that do not tell the engines apart are none.
  c.reference.description = c.candidate.description;
  d.blame = Blame::kCandidate;
  EXPECT_EQ(HeadlineOf(c, &d).sentence.find("the candidate leaves out"), 0u);
}

TEST(Headline, PlacesAreTokensStepsAndPrompts) {
  run::Comparison c = Two(Outcome::kDiverged);
  PartAt(0, 2, &c);
  EXPECT_EQ(
      HeadlineOf(c, nullptr).sentence,
      "given the same inputs, ours and theirs do not agree on the down projection; all 5 next-token choices "
      "are the same");
  EXPECT_EQ(Place(c, nullptr), "at layer 2, down projection (down_proj), from position 2 (\" b\")");
  PartAt(0, 4, &c);
  EXPECT_EQ(Place(c, nullptr),
            "at layer 2, down projection (down_proj), from decode step 2, position 4 (\" d\")");
  c.prompts.push_back(c.prompts[0]);
  PartAt(1, 0, &c);
  EXPECT_EQ(Place(c, nullptr), "at layer 2, down projection (down_proj), from the first token of prompt 1");
  c.verdict.first_divergence->feature = 17;
  EXPECT_NE(Place(c, nullptr).find("feature 17"), std::string::npos);
}

TEST(Headline, WhoIsWrongStaysOpen) {
  run::Comparison c = Two(Outcome::kDiverged);
  PartAt(0, 0, &c);
  diagnose::Diagnosis d = DownProjection(Blame::kUndetermined, 0);
  d.sentence = "layer 2, down projection (down_proj): it stays open who is wrong: each lies within its bound";
  EXPECT_EQ(
      HeadlineOf(c, &d).sentence.find("given the same inputs, ours and theirs do not agree on the down "
                                      "projection; it stays open who is wrong: each lies within its bound"),
      0u);
  EXPECT_EQ(Place(c, &d).substr(Place(c, &d).rfind(';')), "; blame: undetermined");
}

TEST(Headline, AMatchSaysWhatItDoesNotShow) {
  run::Comparison c = Two(Outcome::kMatch);
  EXPECT_EQ(HeadlineOf(c, nullptr).sentence,
            "ours computes what theirs computes: all 20 tensors agree on equal inputs, all 5 next-token "
            "choices are "
            "the same");
  EXPECT_EQ(Place(c, nullptr), "over 5 tokens; both read one file, so a mistake in the file does not show");
  c.candidate.model = {{"ffn.activation", "silu", "set"}};
  EXPECT_EQ(Place(c, nullptr).find("over 5 tokens, with ffn.activation=silu set; both read"), 0u);
  c.candidate.model.clear();
  c.reference.description = c.candidate.description;
  c.candidate.identity = "1", c.reference.identity = "2";
  EXPECT_EQ(HeadlineOf(c, nullptr).sentence.find("two builds of ours compute the same"), 0u);
  c.reference.identity = "1";
  c.candidate.settings = {{"threads", "2"}};
  EXPECT_EQ(HeadlineOf(c, nullptr).sentence.find("ours computes the same with both settings"), 0u);
  c.reference.settings = c.candidate.settings;
  EXPECT_EQ(HeadlineOf(c, nullptr).sentence.find("ours gives the same twice"), 0u);
  EXPECT_NE(Place(c, nullptr).find("shows that it repeats itself and not that it is right"),
            std::string::npos);
  c.reference.model_sha256 = "0";
  EXPECT_EQ(HeadlineOf(c, nullptr).sentence.find("ours computes the same from both files"), 0u);
  c.reference.description = {{"name", "replay of ours", "observed"}};
  EXPECT_EQ(HeadlineOf(c, nullptr).sentence.find("ours gives again what was recorded of it"), 0u);
}

TEST(Headline, DriftClaimsNoMoreThanItsReasons) {
  run::Comparison c = Two(Outcome::kDrift);
  c.verdict.reasons = {{ReasonCode::kFusedAttention, "one engine computes attention as one op"}};
  EXPECT_EQ(HeadlineOf(c, nullptr).sentence.find("noise"), std::string::npos);
  EXPECT_EQ(Place(c, nullptr), "over 5 tokens; the logits are within their limits");
  c.verdict.first_divergence = compare::FirstDivergence{0, 1, 8, -1, {}, {}};
  EXPECT_NE(HeadlineOf(c, nullptr).sentence.find("what rounding adds up to is more than the noise of theirs"),
            std::string::npos);
  EXPECT_EQ(Place(c, nullptr), "from position 1 (\" a\")");
}

// The place stands once, and what the report tells elsewhere not at all.
TEST(Headline, AReasonIsCutToWhatItSays) {
  run::Comparison c = Two(Outcome::kInvalid);
  PartAt(0, 0, &c);
  c.verdict.blame = Blame::kBoth;
  c.verdict.reasons = {{ReasonCode::kKvCacheOverflow, "layer 2, down_proj: the cache overflows"}};
  EXPECT_EQ(HeadlineOf(c, nullptr).sentence, "not a pass: the cache overflows");
  EXPECT_TRUE(HeadlineOf(c, nullptr).tells_reason);
  c.verdict.outcome = Outcome::kEngineFailed;
  c.verdict.reasons = {{ReasonCode::kReferenceFailed, "the reference failed: x; last words: \"y\"\nz"}};
  EXPECT_EQ(HeadlineOf(c, nullptr).sentence, "the reference failed: x");
}

TEST(Headline, OneLine) {
  run::Comparison c = Two(Outcome::kDiverged);
  PartAt(0, 0, &c);
  c.verdict.blame = Blame::kUndetermined;
  EXPECT_EQ(
      HeadlineInOne(Outcome::kDiverged, HeadlineOf(c, nullptr), {}),
      "DIVERGED at layer 2, down projection (down_proj), from the first token; blame: undetermined; given "
      "the same inputs, ours and theirs do not agree on the down projection; all 5 next-token choices are "
      "the "
      "same\n");
}

}  // namespace
}  // namespace pb::report
