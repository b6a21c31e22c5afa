// Reports of comparisons made by hand: whole texts, and the contract of the JSON.
#include "report/crossval_report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "base/text.h"
#include "report/escape.h"

namespace pb::report {
namespace {

using compare::LogitsRow;
using nlohmann::json;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

LogitsRow Row(int32_t position, int32_t token, double kl, int32_t top_candidate, int32_t top_reference) {
  LogitsRow row;
  row.position = position;
  row.token = token;
  row.kl = kl;
  row.rel_l2 = 10 * kl;
  row.max_abs = 20 * kl;
  row.cosine = 1 - kl / 2;
  row.top1[0] = top_candidate;
  row.top1[1] = top_reference;
  row.gap_reference = 0.41;
  row.gap_candidate = 0.4;
  row.gap_change = 0.01;
  row.top_k[0] = {top_candidate, 5};
  row.top_k[1] = {top_reference, 5};
  row.top_k_logp[0] = row.top_k_logp[1] = {-0.5, -1.5};
  row.top_k_overlap = top_candidate == top_reference ? 2 : 1;
  return row;
}

// Three positions; the engines differ in the activation, the first position lies beyond its limit.
run::Comparison Diverged() {
  run::Comparison c;
  c.candidate.role = "candidate";
  c.candidate.spec = "native";
  c.candidate.description = {
      {"name", "native", "observed"}, {"version", "0.1.0", "observed"}, {"isa", "avx2", "observed"}};
  c.candidate.model = {{"architecture", "bitnet", "metadata"},
                       {"n_layers", "6", "metadata"},
                       {"d_model", "256", "metadata"},
                       {"weights", "TQ2_0 x42, F32 x25", "metadata"},
                       {"ffn.activation", "relu2", "config.json"},
                       {"rope.pairing", "halves", "default"},
                       {"rope.base", "10000", "metadata"},
                       {"norm.eps", "1e-05", "metadata"}};
  c.candidate.session = {
      {"threads", "1", "set"}, {"act.quant", "ggml", "default"}, {"kv.type", "f16", "default"}};
  c.candidate.model_path = "/models/tiny.gguf";
  c.candidate.model_sha256 = std::string(64, 'a');
  c.reference = c.candidate;
  c.reference.role = "reference";
  c.reference.spec = "llama.cpp";
  c.reference.description = {
      {"name", "llama.cpp", "observed"}, {"version", "v0.5.0", "observed"}, {"isa", "zen4", "observed"}};
  c.reference.model[4] = {"ffn.activation", "silu", "observed"};
  c.reference.model[7] = {"norm.eps", "1e-5", "observed"};
  run::PromptRecord prompt;
  prompt.text = "And God";
  prompt.tokens = prompt.tokens_of[0] = prompt.tokens_of[1] = {1, 2, 3};
  prompt.logits_sha256[0] = std::string(64, 'c');
  prompt.logits_sha256[1] = std::string(64, 'd');
  c.prompts = {prompt};
  c.token_text = {{1, "<bos>"}, {2, "And"}, {3, " God\n"}, {4, " the"}, {5, " of"}};
  c.rows = {Row(0, 1, 0.21, 4, 5), Row(1, 2, 1e-4, 4, 4), Row(2, 3, 2e-4, 4, 4)};
  c.rows[0].above_limit = true;
  c.floor.method = "random rounding";
  c.floor.n_runs = 8;
  c.floor.n_positions = 403;
  c.floor.mean_kl = 4.5e-5;
  c.floor.worst_kl = 5.7e-4;
  c.verdict.outcome = compare::Outcome::kDiverged;
  c.verdict.reasons = {
      {compare::Outcome::kDiverged, compare::ReasonCode::kKlWorstAboveLimit,
       "KL is above the limit of a single position at 1 position, first at position 0: 2.1e-01 at worst, "
       "limit 1.7e-03"}};
  c.verdict.limits = {{"kl.worst", 1.7e-3, "nats", "3 x the largest single value in 8 runs"}};
  c.verdict.coverage = {"positions", 3, 3, {}, {}, {}};
  c.verdict.first_divergence = compare::FirstDivergence{0, 0, 1, -1, {}, {}};
  c.verdict.blame = compare::Blame::kUndetermined;
  c.wall_seconds = 1.5;
  c.next = {{"paritybit crossval-per-token --model /models/tiny.gguf --all", "every position"}};
  return c;
}

Context MakeContext() {
  Context context;
  context.tool_version = "0.1.0";
  context.os = "Linux";
  context.cpu = "a cpu";
  context.n_cpus = 2;
  return context;
}

TEST(RenderText, Diverged) {
  EXPECT_EQ(RenderText(Diverged(), MakeContext(), {}),
            R"~(model      tiny.gguf, bitnet, 6 layers, d_model 256, TQ2_0 x42, F32 x25,
           sha256:aaaaaaaaaaaa
candidate  native 0.1.0 (avx2, 1 thread)
           ffn relu2  rope halves 10000  eps 1e-05  act ggml  kv f16
reference  llama.cpp v0.5.0 (zen4, 1 thread)
           ffn silu   rope halves 10000  eps 1e-05  act ggml  kv f16
differ     ffn.activation: relu2 [config.json] | silu [observed]
tokens     3 and 3, equal
noise      reference against itself, 8 runs of random rounding over 403 tokens:
           mean KL 4.5e-05, worst 5.7e-04

pos  token          KL    limit   rel-L2  candidate  reference  margin
  0  "<bos>"   2.1e-01  1.7e-03  2.1e+00  " the"     " of"        0.41  )~"
            "\xe2\x9c\x97"
            R"~(
  1  "And"     1.0e-04  1.7e-03  1.0e-03  " the"     " the"       0.41
  2  " God\n"  2.0e-04  1.7e-03  2.0e-03  " the"     " the"       0.41
  positions count from 0; candidate, reference: the next token that each
  chooses; margin: nats from the reference's choice to its second; )~"
            "\xe2\x9c\x97"
            R"~( beyond a
  limit

prefill    3 positions: KL 7.0e-02 on average, 2.1e-01 at worst, at 0; the
           choice is equal at 2 of 3
paths      not gone through: decode; 32 or more at once; a number of tokens at
           once that is no multiple of 4; and 10 more (-v)
limits     kl.worst 1.7e-03 nats, of the reference's noise
reasons    - KL is above the limit of a single position at 1 position, first at
             position 0: 2.1e-01 at worst, limit 1.7e-03

DIVERGED   the logits differ by more than noise explains at 1 of 3 positions; 1
           of 3 next-token choices differs (exit 1)
           from the first token; blame: undetermined
next       paritybit crossval-per-token --model /models/tiny.gguf --all
)~");
}

// The reference is not there: one cause, no table, not a pass.
TEST(RenderText, NoReference) {
  run::Comparison c = Diverged();
  c.reference = {};
  c.reference.role = "reference";
  c.reference.spec = "llama.cpp";
  c.prompts.clear();
  c.rows.clear();
  c.floor = {};
  c.verdict = {};
  c.verdict.reasons = {{compare::ReasonCode::kNoReference,
                        "no reference named \"llama.cpp\" is set up.\n       set one up:   paritybit setup"}};
  c.verdict.outcome = compare::Outcome::kIncomplete;
  c.next = {{"paritybit setup-cpp-auto", "the reference"}, {"paritybit preflight", "what is here"}};
  EXPECT_EQ(RenderText(c, MakeContext(), {}),
            R"~(model      tiny.gguf, bitnet, 6 layers, d_model 256, TQ2_0 x42, F32 x25,
           sha256:aaaaaaaaaaaa
candidate  native 0.1.0 (avx2, 1 thread)
           ffn relu2  rope halves 10000  eps 1e-05  act ggml  kv f16
reference  llama.cpp

INCOMPLETE not all was judged, so this is not a pass: no reference named
           "llama.cpp" is set up (exit 3)
next       paritybit setup-cpp-auto
)~");
}

TEST(RenderText, WideManyPromptsMatchWithNotes) {
  run::Comparison c = Diverged();
  c.reference.model = c.candidate.model;
  c.prompts.push_back(c.prompts[0]);
  c.prompts[1].text = "a\tb";
  c.prompts[1].steps_asked = 1;
  c.rows[0] = Row(0, 1, 3e-4, 4, 4);
  for (int i = 0; i < 3; ++i) {
    c.rows.push_back(Row(i, i + 1, 1e-6, 4, i == 1 ? 5 : 4));
    c.rows.back().prompt = 1;
  }
  c.rows.push_back(Row(3, 4, 2e-6, 4, 4));
  c.rows.back().prompt = 1;
  c.rows.back().phase = compare::Phase::kDecode;
  c.reference_default = run::DefaultConfiguration{"on", 1e-3, 2e-3, 3e-2, 7, 0, ""};
  c.verdict = {};
  c.next.clear();
  c.verdict.outcome = compare::Outcome::kNearTie;
  c.verdict.reasons = {{compare::ReasonCode::kNearTie, "top-1 differs at 1 position"}};
  c.floor.worst_gap = 0.09;
  c.verdict.coverage = {"positions", 7, 7, {}, {}, {}};
  Context context = MakeContext();
  context.notes = {"CROSSVAL_ALLOW_CPP_FAIL=1 is set and changes nothing"};
  TextOptions options;
  options.width = 120, options.details = true;
  EXPECT_EQ(RenderText(c, context, options),
            R"~(model      tiny.gguf, bitnet, 6 layers, d_model 256, TQ2_0 x42, F32 x25, sha256:aaaaaaaaaaaa
candidate  native 0.1.0 (avx2, 1 thread)
           ffn relu2  rope halves 10000  eps 1e-05  act ggml  kv f16
reference  llama.cpp v0.5.0 (zen4, 1 thread)
           ffn relu2  rope halves 10000  eps 1e-05  act ggml  kv f16
tokens     6 and 6, equal, in 2 prompts; 1 decode steps, both fed the reference's choice
noise      reference against itself, 8 runs of random rounding over 403 tokens: mean KL 4.5e-05, worst 5.7e-04
default    reference as it comes (flash attention on) against as compared, over 7 positions: mean KL 1.0e-03, worst
           2.0e-03; for information

pos  token          KL  limit   rel-L2  max abs    1-cos  top-k  candidate  reference  margin
prompt 0  "And God"
  0  "<bos>"   3.0e-04      -  3.0e-03  6.0e-03  1.5e-04    2/2  " the"     " the"       0.41
  1  "And"     1.0e-04      -  1.0e-03  2.0e-03  5.0e-05    2/2  " the"     " the"       0.41
  2  " God\n"  2.0e-04      -  2.0e-03  4.0e-03  1.0e-04    2/2  " the"     " the"       0.41
prompt 1  "a\tb"
  0  "<bos>"   1.0e-06      -  1.0e-05  2.0e-05  5.0e-07    2/2  " the"     " the"       0.41
  1  "And"     1.0e-06      -  1.0e-05  2.0e-05  5.0e-07    1/2  " the"     " of"        0.41
  3  " the"    2.0e-06      -  2.0e-05  4.0e-05  1.0e-06    2/2  " the"     " the"       0.41
  ...  (1 more, 0 of them beyond a limit; --all shows them)
  positions and prompts count from 0; candidate, reference: the next token that each chooses; margin: nats from the
  reference's choice to its second

prefill, 6 positions        mean    worst
  KL (nats)              1.0e-04  3.0e-04  at 0 of prompt 0
  rel-L2                 1.0e-03  3.0e-03  at 0 of prompt 0
  max |change of log p|  2.0e-03  6.0e-03  at 0 of prompt 0
  1 - cosine             5.0e-05  1.5e-04  at 0 of prompt 0
  top-1 equal at 5 of 6; of the best 2, 1.83 in common, 1 at worst

decode, 1 steps             mean    worst
  KL (nats)              2.0e-06  2.0e-06  at 3 of prompt 1
  rel-L2                 2.0e-05  2.0e-05  at 3 of prompt 1
  max |change of log p|  4.0e-05  4.0e-05  at 3 of prompt 1
  1 - cosine             1.0e-06  1.0e-06  at 3 of prompt 1
  top-1 equal at 1 of 1; of the best 2, 2.00 in common, 2 at worst

paths      not gone through: decode; 32 or more at once; a number of tokens at once that is no multiple of 4; two
           threads; positions from 32 on; positions from 512 on; flash attention; text with digits; text with
           contractions; text with blank lines; text with code; text in other scripts; a second sequence beside the
           first; --paths all runs what it can
note       CROSSVAL_ALLOW_CPP_FAIL=1 is set and changes nothing
reasons    - top-1 differs at 1 position

NEAR-TIE   every difference lies within the noise; 1 of 7 next-token choices differs, by less than rounding moves them
           after position 1 ("And"): " the" in native, " of" in llama.cpp; the gap moved by 0.01, and rounding alone
           moves gaps by up to 0.09
)~");
}

// A mark and a sentence stand only where a limit of the gap is in force.
TEST(RenderText, AnotherChoiceWithinTheNoise) {
  run::Comparison c = Diverged();
  c.rows[0] = Row(0, 1, 1e-4, 4, 5);
  c.rows[0].top_k[1] = {5, 4}, c.rows[0].top_k_logp[1] = {-1.5, -1.75};
  c.verdict.outcome = compare::Outcome::kNearTie;
  c.verdict.reasons = {{compare::ReasonCode::kNearTie, "top-1 differs at 1 position"}};
  c.verdict.first_divergence.reset();
  c.verdict.blame = compare::Blame::kNone;
  c.verdict.limits.push_back({"gap.change", 0.3, "nats", "3 x the largest"});
  c.floor.worst_gap = 0.1;
  const std::string text = RenderText(c, MakeContext(), {});
  EXPECT_NE(text.find("\" of\"        0.41  ~\n"), std::string::npos) << text;
  EXPECT_NE(text.find("after position 0 (\"<bos>\"): \" the\" in native, \" of\" in llama.cpp,\n"
                      "           which prefers it by 0.25 nats; the gap moved by 0.01, and rounding\n"
                      "           alone moves gaps by up to 0.1\n"),
            std::string::npos)
      << text;
  c.verdict.limits.pop_back();
  EXPECT_EQ(RenderText(c, MakeContext(), {}).find("~"), std::string::npos);
}

TEST(RenderText, EngineFailedShowsLastWordsEscaped) {
  run::Comparison c = Diverged();
  c.reference.last_words = "loading\nGGML_ASSERT(x) failed\n\x1b[31mred\n";
  c.verdict.outcome = compare::Outcome::kEngineFailed;
  c.verdict.reasons = {{compare::ReasonCode::kReferenceFailed, "the reference failed: signal 6"}};
  std::string text = RenderText(c, MakeContext(), {});
  EXPECT_NE(
      text.find(
          "stderr     last words of the reference:\n           loading\n           GGML_ASSERT(x) failed\n"
          "           \\x1b[31mred\n"),
      std::string::npos)
      << text;
  EXPECT_NE(text.find("ENGINE-FAILED the reference failed: signal 6 (exit 4)\n"), std::string::npos) << text;
}

TEST(RenderText, WhatLimitsHaveInCommonIsSaidOnce) {
  run::Comparison c = Diverged();
  c.verdict.limits = {{"kl.worst", 1.7e-3, "nats", "3 x the largest value in 8 runs of an engine"},
                      {"kl.prefill.mean", 9e-5, "nats", "2 x the largest mean in 8 runs of an engine"},
                      {"cosine.min", 0.999, "", "given by the user", true}};
  TextOptions options;
  EXPECT_NE(RenderText(c, MakeContext(), options)
                .find("limits     kl.worst 1.7e-03 nats, kl.prefill.mean 9.0e-05 nats, of the\n"
                      "           reference's noise\n"
                      "           cosine.min 0.999: given by the user\n"),
            std::string::npos)
      << RenderText(c, MakeContext(), options);
  options.details = true;
  std::string text = RenderText(c, MakeContext(), options);
  EXPECT_NE(text.find("limits     kl.worst 1.7e-03 nats: 3 x the largest value\n"
                      "           kl.prefill.mean 9.0e-05 nats: 2 x the largest mean\n"
                      "           cosine.min 0.999: given by the user\n"
                      "           ... in 8 runs of an engine\n"),
            std::string::npos)
      << text;
  c.verdict.limits[1].origin = "2 x the largest mean in 4 variations of an engine";
  options.width = 120;
  text = RenderText(c, MakeContext(), options);
  EXPECT_NE(text.find("largest mean in 4 variations of an engine\n"), std::string::npos) << text;
}

TEST(RenderText, Quiet) {
  TextOptions options;
  options.quiet = true;
  EXPECT_EQ(
      RenderText(Diverged(), MakeContext(), options),
      "DIVERGED from the first token; blame: undetermined; the logits differ by more than noise explains at "
      "1 of 3 positions; 1 of 3 next-token choices differs\n");
}

TEST(RenderText, ColourOnlyWhenAsked) {
  TextOptions options;
  EXPECT_EQ(RenderText(Diverged(), MakeContext(), options).find('\x1b'), std::string::npos);
  options.colour = true;
  EXPECT_NE(RenderText(Diverged(), MakeContext(), options).find("\x1b[1;31mDIVERGED\x1b[0m"),
            std::string::npos);
}

TEST(RenderText, NothingThatATerminalObeysGetsThrough) {
  const std::string evil = "a\x1b[2Jb\x07\xc2\x9b\xe2\x80\xae\r";
  run::Comparison c = Diverged();
  for (drive::EngineRecord* e : {&c.candidate, &c.reference}) {
    e->spec = e->last_words = evil;
    e->model_path = "/" + evil;
    for (host::Facts* facts : {&e->description, &e->model, &e->session})
      for (host::Fact& fact : *facts) fact.value = fact.origin = evil + e->role;
  }
  for (auto& [id, text] : c.token_text) text = evil;
  c.prompts.push_back(c.prompts[0]);
  for (run::PromptRecord& p : c.prompts) {
    p.text = evil;
    p.traces[0] = run::KeptTrace{evil, "full", "", "", 1, 1};
  }
  c.rows.push_back(c.rows[0]);
  c.rows.back().prompt = 1;
  c.floor.method = evil;
  c.reference_default = run::DefaultConfiguration{evil, 1, 1, 1, 1, 0, evil};
  c.verdict.reasons[0].text = evil;
  c.verdict.limits.push_back({"rel_l2", 1, "", evil});
  c.verdict.coverage = {"points", 3, 3, {evil}, {evil}, {evil + ": reference: " + evil}};
  c.points.resize(1);
  c.points[0].stage = PB_STAGE_Q_ROPE, c.points[0].layer = 1;
  diagnose::Diagnosis d;
  d.place = {0, 0, PB_STAGE_Q_ROPE, 1};
  d.sentence = d.why_undetermined = evil;
  d.blame = compare::Blame::kReference;
  d.findings = {{"candidate against arbiter", 1, 1e-6, 1e6, false, evil}};
  d.file_differences = d.shared = {evil};
  Context context = MakeContext();
  context.notes = {evil};
  c.next = {{"paritybit " + evil, evil}, {evil, evil}};
  for (const diagnose::Diagnosis* diagnosis :
       {static_cast<const diagnose::Diagnosis*>(nullptr), &std::as_const(d)})
    for (bool details : {false, true})
      for (bool quiet : {false, true})
        for (int outcome = 0; outcome <= static_cast<int>(compare::Outcome::kInvalid); ++outcome) {
          context.diagnosis = diagnosis;
          c.verdict.outcome = static_cast<compare::Outcome>(outcome);
          TextOptions options;
          options.details = details, options.quiet = quiet;
          const std::string text = RenderText(c, context, options);
          EXPECT_EQ(text, EscapeUnsafe(text));
          EXPECT_EQ(text.find('\t'), std::string::npos);
        }
}

TEST(RenderText, RowsBeyondALimitAreNeverHidden) {
  run::Comparison c = Diverged();
  c.rows.clear();
  for (int i = 0; i < 100; ++i) c.rows.push_back(Row(i, 2, i == 10 ? 1.0 : 1e-4, 4, 4));
  c.rows[77].above_limit = true;
  std::string text = RenderText(c, MakeContext(), {});
  EXPECT_NE(text.find("\n 77  "), std::string::npos) << text;
  EXPECT_NE(text.find("(94 more, 0 of them beyond a limit; --all shows them)"), std::string::npos) << text;
  TextOptions all;
  all.all = true;
  text = RenderText(c, MakeContext(), all);
  for (int i = 0; i < 100; ++i) EXPECT_NE(text.find(fmt::format("\n{:>3}  \"And\"", i)), std::string::npos);
}

// The contract of ARCHITECTURE.md.
TEST(RenderJson, Contract) {
  json j = json::parse(RenderJson(Diverged(), MakeContext()));
  EXPECT_EQ(j["schema"], "paritybit.crossval/0");
  EXPECT_EQ(j["verdict"], "diverged");
  EXPECT_EQ(j["scope"], "logits-only");
  EXPECT_EQ(j["exit_code"], 1);
  EXPECT_EQ(j["reasons"][0]["code"], "kl-worst-above-limit");
  EXPECT_EQ(j["next"], json::parse(R"(["paritybit crossval-per-token --model /models/tiny.gguf --all"])"));
  EXPECT_EQ(j["next_for"], json::parse(R"(["every position"])"));
  EXPECT_EQ(j["engines"].size(), 2u);
  EXPECT_EQ(j["engines"][1]["model_facts"]["ffn.activation"],
            json::parse(R"({"value":"silu","origin":"observed"})"));
  EXPECT_EQ(j["model"]["path"], "/models/tiny.gguf");
  EXPECT_EQ(j["model"]["sha256"], std::string(64, 'a'));
  EXPECT_EQ(j["coverage"],
            json::parse(R"({"unit":"positions","expected":3,"compared":3,"missing":[],"unmapped":[],
                                           "unobservable":[]})"));
  EXPECT_EQ(j["first_divergence"],
            json::parse(R"({"prompt":0,"position":0,"token":1,"layer":null,"stage":null,"feature":null})"));
  EXPECT_EQ(j["blame"], "undetermined");
  EXPECT_EQ(j["limits"][0]["origin"], "3 x the largest single value in 8 runs");
  ASSERT_EQ(j["positions"].size(), 3u);
  EXPECT_EQ(j["positions"][0]["kl"], 0.21);
  EXPECT_EQ(j["positions"][2]["text"], " God\n");
  EXPECT_EQ(j["positions"][0]["top_k"]["reference"][0],
            json::parse(R"({"token":5,"text":" of","logp":-0.5})"));
  EXPECT_EQ(j["non_finite_numbers"], 0);
  std::string text = RenderJson(Diverged(), MakeContext());
  EXPECT_LT(text.find("\"schema\""), text.find("\"verdict\""));
  EXPECT_LT(text.find("\"exit_code\""), text.find("\"engines\""));
}

TEST(RenderJson, FirstDivergenceInsideAndOutsideTheLayers) {
  run::Comparison c = Diverged();
  c.verdict.first_divergence = compare::FirstDivergence{0, 2, 3, 4, PB_STAGE_DOWN_PROJ, 17};
  json j = json::parse(RenderJson(c, MakeContext()));
  EXPECT_EQ(j["first_divergence"],
            json::parse(R"({"prompt":0,"position":2,"token":3,"layer":4,"stage":"down_proj","feature":17})"));
  c.verdict.first_divergence = compare::FirstDivergence{0, 2, 3, -1, PB_STAGE_FINAL_NORM, {}};
  j = json::parse(RenderJson(c, MakeContext()));
  EXPECT_EQ(j["first_divergence"]["layer"], -1);
}

TEST(RenderJson, NonFiniteNumbersAreNullAndCounted) {
  run::Comparison c = Diverged();
  c.rows[1].kl = kNan;
  c.rows[1].rel_l2 = std::numeric_limits<double>::infinity();
  c.rows[1].finite = false;
  json j = json::parse(RenderJson(c, MakeContext()));
  EXPECT_TRUE(j["positions"][1]["kl"].is_null());
  EXPECT_TRUE(j["positions"][1]["rel_l2"].is_null());
  EXPECT_EQ(j["positions"][1]["finite"], false);
  EXPECT_EQ(j["non_finite_numbers"], 2);
}

TEST(RenderJson, BytesThatAreNoUtf8DoNotBreakIt) {
  run::Comparison c = Diverged();
  c.token_text[2] = "\xff\xc3";
  c.prompts[0].text = "\x80";
  c.reference.last_words = "\xfe";
  EXPECT_FALSE(json::parse(RenderJson(c, MakeContext()), nullptr, false).is_discarded());
}

TEST(Escape, ControlsAndInvalidBytes) {
  EXPECT_EQ(Escape("a\n\t\r\x1b[0m\x7f\"\\"), "a\\n\\t\\r\\x1b[0m\\x7f\\\"\\\\");
  EXPECT_EQ(Escape("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"), "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  EXPECT_EQ(Escape("\xff\xc3"), "\\xff\\xc3");
  EXPECT_EQ(Escape("\xc0\xaf"), "\\xc0\\xaf");           // overlong
  EXPECT_EQ(Escape("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // a surrogate
  EXPECT_EQ(Escape("\xe2\x80\xae"), "\\u202e");          // right-to-left override
  EXPECT_EQ(Escape("\xc2\x9b"), "\\x9b");                // CSI
}

TEST(Escape, FitAndWrap) {
  EXPECT_EQ(Fit("abc", 5), "abc  ");
  EXPECT_EQ(Fit("abcdef", 5), "abc..");
  EXPECT_EQ(Fit("\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9", 3), "\xc3\xa9..");
  EXPECT_EQ(Wrap("one two three", 9, 2), "one two\n  three");
  EXPECT_EQ(Wrap("unbreakable", 5, 0), "unbreakable");
}

}  // namespace
}  // namespace pb::report
