// A tape gives back what was written, bit by bit, whole and in parts, though it lacks what a mask hides.
#include "drive/tape.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "abi/engine.h"

namespace pb::drive {
namespace {

namespace fs = std::filesystem;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kHeads = 2;

std::vector<uint32_t> BitsOf(std::span<const float> values) {
  std::vector<uint32_t> bits;
  for (const float v : values) bits.push_back(std::bit_cast<uint32_t>(v));
  return bits;
}

// Scores of rows from a position on over `width` positions: numbers up to `shift` behind a row's own
// position, `tail` after that.
std::vector<float> Scores(int64_t first, int64_t n_rows, int64_t width, float tail, int64_t shift = 0) {
  std::vector<float> values;
  for (int64_t row = first; row < first + n_rows; ++row)
    for (int64_t head = 0; head < kHeads; ++head)
      for (int64_t k = 0; k < width; ++k)
        values.push_back(k <= row + shift ? static_cast<float>(100 * row + 10 * head + k) : tail);
  return values;
}

struct Shown {
  int32_t stage, first_position;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

class Tapes : public testing::Test {
 protected:
  Tapes() : folder_(fs::temp_directory_path() / ("pb_tape_test." + std::to_string(getpid()))) {}
  ~Tapes() override { fs::remove_all(folder_); }

  // A prefill of so many tokens that showed these.
  std::shared_ptr<const Tape> Record(int32_t n_tokens, const std::vector<Shown>& shown) {
    auto writer = TapeWriter::Create(folder_, 1 << 20);
    EXPECT_TRUE(writer.ok());
    host::EvalRequest request;
    request.tokens.assign(static_cast<size_t>(n_tokens), 1);
    request.tap.outputs = true;
    for (const Shown& s : shown) request.tap.stages.push_back(s.stage);
    (*writer)->BeginPass(request);
    for (const Shown& s : shown) {
      host::Event event;
      event.kind = host::Event::kPoint;
      event.point.stage = s.stage, event.point.layer = 0, event.point.first_position = s.first_position;
      event.tensor.shape = s.shape, event.tensor.data = s.values;
      (*writer)->Add(event);
    }
    auto tape = (*writer)->Finish({{"of", "a test"}}, nlohmann::json::object(), n_tokens);
    EXPECT_TRUE(tape.ok()) << tape.error().message;
    auto read = Tape::Open(folder_, {{"of", "a test"}});  // from its file, by its digest
    EXPECT_TRUE(read.ok()) << read.error().message;
    return read.ok() ? *read : nullptr;
  }

  void ExpectAll(const Tape& tape, const std::vector<Shown>& shown) {
    const std::vector<TapeItem>& items = tape.passes().at(0).items;
    ASSERT_EQ(items.size(), shown.size());
    for (size_t i = 0; i < shown.size(); ++i) {
      std::vector<float> values;
      tape.Expand(items[i], 0, shown[i].shape[0], shown[i].shape.back(), &values);
      EXPECT_EQ(BitsOf(values), BitsOf(shown[i].values)) << i;
    }
  }

  fs::path folder_;
};

TEST_F(Tapes, KeepWhatIsHiddenAsItsBits) {
  const std::vector<Shown> shown = {
      {PB_STAGE_ATTN_SCORES, 0, {5, kHeads, 5}, Scores(0, 5, 5, -kInfinity)},
      {PB_STAGE_ATTN_SCORES_SOFTMAX, 0, {5, kHeads, 5}, Scores(0, 5, 5, -0.0f)},
      {PB_STAGE_ATTN_SCORES, 0, {5, kHeads, 5}, Scores(0, 5, 5, std::nanf("7"))},
      // Rows from a position on; of the last ones nothing is hidden.
      {PB_STAGE_ATTN_SCORES, 2, {3, kHeads, 4}, Scores(2, 3, 4, -kInfinity)},
  };
  const auto tape = Record(5, shown);
  ASSERT_TRUE(tape);
  ExpectAll(*tape, shown);
  // 1 + 2 + .. + 5 values of each head, and 3 + 4 + 4.
  EXPECT_EQ(tape->n_bytes(), (3 * 15 + 11) * kHeads * sizeof(float));
  EXPECT_EQ(tape->passes()[0].items[1].hidden, std::bit_cast<uint32_t>(-0.0f));
}

TEST_F(Tapes, KeepAllWhereOneValueBehindAPositionIsAnother) {
  std::vector<float> one = Scores(0, 4, 4, -kInfinity);
  one[4] = -std::numeric_limits<float>::max();  // position 0 of the second head: its own
  std::vector<float> last = Scores(0, 4, 4, 0.0f);
  last[3] = -0.0f;  // equal as a number
  const std::vector<Shown> shown = {
      {PB_STAGE_ATTN_SCORES, 0, {4, kHeads, 4}, one},
      {PB_STAGE_ATTN_SCORES_SOFTMAX, 0, {4, kHeads, 4}, last},
      {PB_STAGE_ATTN_SCORES, 0, {4, kHeads, 4}, Scores(0, 4, 4, -kInfinity, 1)},
      {PB_STAGE_Q_PROJ, 0, {4, kHeads, 4}, Scores(0, 4, 4, -kInfinity)},  // not over positions
      {PB_STAGE_ATTN_SCORES, 3, {1, kHeads, 4}, Scores(3, 1, 4, 0.0f)},
  };
  const auto tape = Record(4, shown);
  ASSERT_TRUE(tape);
  ExpectAll(*tape, shown);
  const std::vector<TapeItem>& items = tape->passes()[0].items;
  EXPECT_TRUE(items[0].hidden);  // what is a row's own may be anything
  for (size_t i = 1; i < items.size(); ++i) EXPECT_FALSE(items[i].hidden) << i;
}

TEST_F(Tapes, GiveRowsOfAPassAsAShorterOneHasThem) {
  const auto tape = Record(6, {{PB_STAGE_ATTN_SCORES, 0, {6, kHeads, 6}, Scores(0, 6, 6, -kInfinity)}});
  ASSERT_TRUE(tape);
  const TapeItem& item = tape->passes()[0].items[0];
  for (int64_t first = 0; first < 6; ++first)
    for (int64_t n = 1; first + n <= 6; ++n) {
      std::vector<float> values;
      tape->Expand(item, first, n, first + n, &values);
      EXPECT_EQ(BitsOf(values), BitsOf(Scores(first, n, first + n, -kInfinity))) << first << " " << n;
    }
}

TEST_F(Tapes, AreNoneWhereAByteIsAnother) {
  ASSERT_TRUE(Record(3, {{PB_STAGE_ATTN_SCORES, 0, {3, kHeads, 3}, Scores(0, 3, 3, -kInfinity)}}));
  const fs::path data = folder_ / "tape.f32";
  std::FILE* file = std::fopen(data.c_str(), "r+b");
  ASSERT_TRUE(file);
  std::fseek(file, 17, SEEK_SET);
  std::fputc(0x5a, file);
  std::fclose(file);
  EXPECT_EQ(Tape::Open(folder_, {{"of", "a test"}}).error().code, Code::kMalformed);
}

}  // namespace
}  // namespace pb::drive
