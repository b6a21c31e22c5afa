// Which code paths a record shows, worked out by hand.
#include "run/paths.h"

#include <gtest/gtest.h>

#include "run/path_trials.h"
#include "run/record.h"

namespace pb::run {
namespace {

// A comparison of one prompt with so many tokens and steps, in engines of these batches and threads.
Comparison Of(size_t n_tokens, size_t n_steps, int ubatch, int threads, const std::string& flash) {
  Comparison c;
  for (drive::EngineRecord* e : {&c.candidate, &c.reference}) {
    e->session = {{"ubatch", std::to_string(ubatch), "default"},
                  {"threads", std::to_string(threads), "default"},
                  {"attn.flash", flash, "default"}};
  }
  c.prompts.resize(1);
  c.prompts[0].tokens.resize(n_tokens);
  c.prompts[0].decoded.resize(n_steps);
  c.rows.resize(1);
  c.rows[0].prompt = 0;
  return c;
}

using Paths = std::set<Path>;

TEST(Paths, RowsAtOnceAreThoseOfThePasses) {
  EXPECT_EQ(PathsTaken(Of(1, 0, 512, 1, "off")), Paths{});
  EXPECT_EQ(PathsTaken(Of(4, 0, 512, 1, "off")), Paths{});
  EXPECT_EQ(PathsTaken(Of(5, 2, 512, 1, "off")), (Paths{Path::kDecode, Path::kOddRows}));
  EXPECT_EQ(PathsTaken(Of(24, 0, 3, 1, "off")), Paths{Path::kFewRows});
  EXPECT_EQ(PathsTaken(Of(32, 0, 512, 1, "off")), Paths{Path::kManyRows});
  EXPECT_EQ(PathsTaken(Of(32, 1, 512, 1, "off")), (Paths{Path::kDecode, Path::kManyRows, Path::kPast32}));
  // 514: a pass of 512 and one of 2
  EXPECT_EQ(PathsTaken(Of(514, 0, 512, 1, "off")),
            (Paths{Path::kFewRows, Path::kManyRows, Path::kPast32, Path::kPast512}));
}

TEST(Paths, ThreadsAndFlashAreOfBothEngines) {
  EXPECT_EQ(PathsTaken(Of(4, 0, 512, 2, "on")), (Paths{Path::kThreads, Path::kFlash}));
  Comparison one = Of(4, 0, 512, 2, "on");
  one.candidate.session[1].value = "1";
  one.reference.session[2].value = "off";
  EXPECT_EQ(PathsTaken(one), Paths{});
}

TEST(Paths, ThreadsAreTriedOverAFewTokensAndForATime) {
  const std::string text(4000, 'x');
  int n_bounded = 0;
  for (const PathTrial& trial : PathTrials(Of(4, 0, 512, 1, "off"), text)) {
    EXPECT_EQ(trial.seconds > 0, trial.key == "threads") << trial.name;
    if (trial.key != "threads") continue;
    ++n_bounded;
    EXPECT_LE(trial.prompt.size(), 4u * 40);  // four bytes are about a token
    EXPECT_LE(trial.steps, 2);
    EXPECT_LE(trial.seconds, 60);
  }
  EXPECT_EQ(n_bounded, 1);
}

TEST(Paths, WhatWasNotComparedShowsNothing) {
  Comparison c = Of(600, 9, 512, 4, "on");
  c.rows.clear();
  EXPECT_EQ(PathsTaken(c), Paths{});
  EXPECT_EQ(PathsNotTaken(c).size(), static_cast<size_t>(kPathCount));
  c.paths_beside = {Path::kDecode};
  EXPECT_EQ(PathsNotTaken(c).size(), static_cast<size_t>(kPathCount) - 1);
}

TEST(Paths, OfTexts) {
  EXPECT_EQ(PathsOfText("The quick brown fox"), Paths{});
  EXPECT_EQ(PathsOfText("caf\xC3\xA9 7"), Paths{});
  EXPECT_EQ(PathsOfText("17"), Paths{Path::kDigits});
  EXPECT_EQ(PathsOfText("we don't"), Paths{Path::kContractions});
  EXPECT_EQ(PathsOfText("a\n\nb"), Paths{Path::kBlankLines});
  EXPECT_EQ(PathsOfText("f() "), Paths{Path::kCode});
  EXPECT_EQ(PathsOfText("\xCE\xB1."), Paths{Path::kScripts});
  EXPECT_EQ(PathsOfText(TextOfAllPaths()),
            (Paths{Path::kDigits, Path::kContractions, Path::kBlankLines, Path::kCode, Path::kScripts}));
}

}  // namespace
}  // namespace pb::run
