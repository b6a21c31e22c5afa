// A floor on disk is read as it was written, and anything else is refused.
#include "noise/noise_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json_text.h"
#include "base/kept.h"

namespace pb::noise {
namespace {

class NoiseFile : public testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() / fmt::format("noise_file_{}.json", getpid());
    floor_.engine = "llama.cpp v0.5.0", floor_.engine_digest = "abc", floor_.model_sha256 = "def";
    floor_.calibration = "calibration.txt 12", floor_.isa = "zen4", floor_.threads = "1";
    floor_.n_calibration_positions = 2;
    floor_.runs = {{1, "noise.seed=1", {0, 1e-300, 0.125}, {3, 0.1, 0}, {}},
                   {2, "noise.seed=2", {1, 2, 3}, {4, 5, 6}, {}}};
    for (int32_t prompt : {0, 1, 2, compare::kCalibration}) {
      compare::PointNoise point;
      point.prompt = prompt, point.stage = PB_STAGE_Q_PROJ, point.layer = 3 + prompt, point.n_rows = 7;
      point.positions = compare::PositionClass::kDecode;
      point.error2 = 1e-300, point.norm2 = 0.3, point.worst_row = 0.1 * (2 + prompt);
      for (compare::NoiseRun& run : floor_.runs) run.points.push_back(point);
    }
    ASSERT_TRUE(WriteNoiseFloor(path_, floor_, 1, "fed").ok());
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::filesystem::path path_;
  compare::NoiseFloor floor_;
};

TEST_F(NoiseFile, IsReadAsItWasWritten) {
  auto recorded = ReadNoiseFloor(path_);
  ASSERT_TRUE(recorded.ok()) << recorded.error().message;
  EXPECT_EQ(recorded->trace_logits_blake3, "fed");
  const compare::NoiseFloor* read = &recorded->floor;
  EXPECT_EQ(read->method, floor_.method);
  EXPECT_EQ(read->engine, floor_.engine);
  EXPECT_EQ(read->model_sha256, "def");
  EXPECT_EQ(read->n_calibration_positions, 2);
  ASSERT_EQ(read->runs.size(), 2u);
  for (size_t i : {0u, 1u}) {
    EXPECT_EQ(read->runs[i].seed, floor_.runs[i].seed);
    EXPECT_EQ(read->runs[i].variation, floor_.runs[i].variation);
    EXPECT_EQ(read->runs[i].kl, floor_.runs[i].kl);  // bit by bit: limits follow from them
    EXPECT_EQ(read->runs[i].gap_change, floor_.runs[i].gap_change);
  }
}

// The prompt whose trace the file goes with is the reader's prompt 0; other prompts stay behind.
TEST_F(NoiseFile, PointsAreOfThePromptThatTheTraceHolds) {
  const auto read = ReadNoiseFloor(path_);
  ASSERT_TRUE(read.ok());
  const std::vector<compare::PointNoise>& points = read->floor.runs[1].points;
  ASSERT_EQ(points.size(), 2u);
  EXPECT_EQ(points[0].prompt, 0);
  EXPECT_EQ(points[0].layer, 4);
  EXPECT_EQ(points[0].stage, PB_STAGE_Q_PROJ);
  EXPECT_EQ(points[0].positions, compare::PositionClass::kDecode);
  EXPECT_EQ(points[0].n_rows, 7);
  EXPECT_EQ(points[0].error2, 1e-300);
  EXPECT_EQ(points[0].norm2, 0.3);
  EXPECT_EQ(points[0].worst_row, 0.1 * 3);
  EXPECT_EQ(points[1].prompt, compare::kCalibration);
  EXPECT_EQ(points[1].layer, 2);
}

TEST_F(NoiseFile, AnythingElseIsRefused) {
  EXPECT_EQ(ReadNoiseFloor(path_.string() + ".none").error().code, Code::kNotFound);
  const std::string good = ReadFile(path_).value();
  auto refused = [&](const std::string& text) {
    // With a digest of its own where it is JSON: its content is checked, too.
    auto json = ParseJson(text);
    std::string sealed = text;
    if (json.ok() && json->is_object() && !json->empty()) json->erase("sha256"), sealed = Sealed(*json);
    (void)WriteFileAtomic(path_, sealed).ok();
    auto read = ReadNoiseFloor(path_);
    return !read.ok() && read.error().code == Code::kMalformed &&
           read.error().message.find(path_.string()) != std::string::npos;
  };
  for (const char* text : {"", "[]", "{}", "null", R"({"schema":"paritybit.noise-floor/1"})"})
    EXPECT_TRUE(refused(text)) << text;
  for (auto [from, to] : {std::pair{"\"n_positions\":3", "\"n_positions\":4"},
                          {"\"n_positions\":3", "\"n_positions\":0"},
                          {"\"n_positions\":3", "\"n_positions\":18446744073709551615"},
                          {"\"n_calibration_positions\":2", "\"n_calibration_positions\":9"},
                          {"0.125", "-0.125"},
                          {"0.125", "\"x\""},
                          {"0.125", "1e999"},
                          {"\"runs\":[", "\"runs\":[1,"},
                          {"\"random_rounding\":true", "\"random_rounding\":1"},
                          {"q_proj", "q_projection"},
                          {"\"decode\",7", "\"decode\",-7"},
                          {"\"decode\",7", "\"late\",7"},
                          {"7,1e-300", "7,\"x\""},
                          {"points_of_calibration", "points_of_nothing"},
                          {"noise-floor/1", "noise-floor/9"}}) {
    std::string text = good;
    ASSERT_NE(text.find(from), std::string::npos) << from;
    EXPECT_TRUE(refused(text.replace(text.find(from), std::string(from).size(), to))) << to;
  }
  for (size_t n = 0; n + 2 < good.size(); n += 7) EXPECT_TRUE(refused(good.substr(0, n))) << n;
}

// A value that is as good as another, but not the one that was measured.
TEST_F(NoiseFile, AFlippedBitIsRefused) {
  std::string text = ReadFile(path_).value();
  text[text.find("0.125") + 2] ^= 1;
  ASSERT_TRUE(WriteFileAtomic(path_, text).ok());
  auto read = ReadNoiseFloor(path_);
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.error().code, Code::kMalformed);
  EXPECT_NE(read.error().message.find("it is damaged"), std::string::npos) << read.error().message;
}

}  // namespace
}  // namespace pb::noise
