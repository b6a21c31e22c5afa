// Variations against what their definitions give by hand, on ops small enough to write out.
#include <gtest/gtest.h>

#include <cmath>

#include "base/half.h"
#include "oracle/forward.h"
#include "oracle/ops_for_tests.h"

namespace pb::oracle {
namespace {

OpConfig Varied(const OpConfig& c, std::string_view variation) {
  auto varied = Vary(c, variation);
  EXPECT_TRUE(varied.ok()) << variation;
  return varied.ok() ? *varied : c;
}

WeightView View(const std::vector<float>& values, int64_t n_rows) {
  WeightView w;
  w.data = reinterpret_cast<const std::byte*>(values.data());
  w.n_rows = n_rows, w.n_columns = static_cast<int64_t>(values.size()) / n_rows;
  w.row_bytes = static_cast<uint64_t>(w.n_columns) * sizeof(float);
  return w;
}

std::vector<double> Times(const Rows& x, const WeightView& w, const OpConfig& c) {
  ThreadPool pool(1);
  auto y = Product(x, w, 1, ActScheme::kNone, c, pool, nullptr);
  EXPECT_TRUE(y.ok()) << y.error().message;
  return y.ok() ? y->v : std::vector<double>{};
}

TEST(Vary, WeightsOfAProduct) {
  const std::vector<float> weights{1, -2, 3, 4};
  const WeightView w = View(weights, 2);
  const Rows x = RowOf({10, 1});
  const OpConfig c = OneHead(2);
  using V = std::vector<double>;
  EXPECT_EQ(Times(x, w, c), (V{8, 34}));
  EXPECT_EQ(Times(x, w, Varied(c, "weight.transposed=1")), (V{13, -16}));
  EXPECT_EQ(Times(x, w, Varied(c, "weight.offset=1")), (V{8 + 11, 34 + 11}));
  EXPECT_EQ(Times(x, w, Varied(c, "weight.cell=1,0,-6")), (V{8, 34 - 60}));
  EXPECT_EQ(Times(x, w, Varied(c, "drop.columns=1")), (V{10, 30}));
  EXPECT_EQ(Times(x, w, Varied(c, "drop.rows=1")), (V{8, 0}));
  EXPECT_EQ(Times(x, w, Varied(c, "product.factor=-0.5")), (V{-4, -17}));
}

// What a matrix does not have is an error, never an abort.
TEST(Vary, RefusesWhatTheMatrixDoesNotHave) {
  const std::vector<float> weights{1, -2, 3, 4, 5, 6};
  const WeightView w = View(weights, 3);
  ThreadPool pool(1);
  for (const char* variation : {"weight.transposed=1", "weight.cell=3,0,1", "weight.cell=0,2,1",
                                "drop.rows=4", "drop.columns=3", "drop.rows=-1"}) {
    EXPECT_FALSE(
        Product(RowOf({1, 1}), w, 1, ActScheme::kNone, Varied(OneHead(2), variation), pool, nullptr).ok())
        << variation;
  }
  for (const char* variation :
       {"weight.cell=1", "weight.cell=1,2", "weight.cell=-1,0,1", "weight.cell=1e30,0,1",
        "weight.order=sideways", "kv.own=", "no.such=1", "nothing"})
    EXPECT_FALSE(Vary(OneHead(2), variation).ok()) << variation;
}

// One block of 128 whose weights are their own index; x picks one value.
TEST(Vary, OrderOfABlock) {
  std::vector<float> weights(128);
  for (size_t i = 0; i < weights.size(); i++) weights[i] = static_cast<float>(i);
  const WeightView w = View(weights, 1);
  auto at = [&](int64_t i, const char* variation) {
    Rows x(1, 128);
    x.v[static_cast<size_t>(i)] = 1;
    return Times(x, w, Varied(OneHead(2), variation)).front();
  };
  // byte 5, code 3 in place of code 0: value 96 + 5
  EXPECT_EQ(at(5, "weight.order=reversed"), 101);
  EXPECT_EQ(at(70, "weight.order=reversed"), 38);    // byte 6, code 1 in place of code 2
  EXPECT_EQ(at(5, "weight.order=consecutive"), 33);  // byte 1, code 1: value 32 + 1
  EXPECT_EQ(at(127, "weight.order=consecutive"), 127);
}

// A block of Q4_1 whose codes are 0 to 15, and again: byte b holds value b in its low half and
// value b + 16 in its high half.
TEST(Vary, OrderAndMinimumOfNibbles) {
  BlockQ4_1 block{F32ToF16(1), F32ToF16(100), {}};
  for (size_t b = 0; b < 16; b++) block.qs[b] = static_cast<uint8_t>(b | (15 - b) << 4);
  WeightView w;
  w.type = BlockType::kQ4_1, w.data = reinterpret_cast<const std::byte*>(&block);
  w.n_rows = 1, w.n_columns = 32, w.row_bytes = sizeof block;
  for (const char* quant : {"act.quant=none", "act.quant=q8_1"}) {
    auto at = [&](int64_t i, const char* variation) {
      Rows x(1, 32);
      x.v[static_cast<size_t>(i)] = 127;  // a code of its own under q8_1
      return Times(x, w, Varied(Varied(OneHead(2), quant), variation)).front() / 127;
    };
    EXPECT_EQ(at(5, "weight.cell=0,0,0"), 105);
    EXPECT_EQ(at(20, "weight.cell=0,0,0"), 111);  // the high half of byte 4
    EXPECT_EQ(at(5, "weight.order=reversed"), 110);
    EXPECT_EQ(at(20, "weight.order=reversed"), 104);
    EXPECT_EQ(at(5, "weight.order=consecutive"), 113);   // the high half of byte 2
    EXPECT_EQ(at(20, "weight.order=consecutive"), 110);  // the low half of byte 10
    EXPECT_EQ(at(5, "weight.minimum=0"), 5);
    EXPECT_EQ(at(20, "weight.minimum=0"), 11);
  }
}

TEST(Vary, Norms) {
  const float weight[] = {2, 3};
  const OpConfig c = OneHead(2);
  const Rows x = RowOf({3, -1});
  const double rms = std::sqrt(5.0);
  EXPECT_DOUBLE_EQ(Norm(x, weight, {}, Varied(c, "norm.unweighted=1"), nullptr).v[0], 3 / rms);
  EXPECT_DOUBLE_EQ(Norm(x, weight, {}, Varied(c, "norm.weight_offset=1"), nullptr).v[1], -1 / rms * 4);
  EXPECT_DOUBLE_EQ(Norm(x, weight, {}, Varied(c, "norm.centred=1"), nullptr).v[0],
                   2);  // (2, -2) over its RMS 2, times 2
  EXPECT_DOUBLE_EQ(Norm(x, weight, {}, Varied(c, "norm.repeat=0"), nullptr).v[1], -1);
  EXPECT_DOUBLE_EQ(Norm(x, weight, {}, Varied(c, "norm.dropped=1"), nullptr).v[1], -1 / std::sqrt(4.5) * 3);
  EXPECT_DOUBLE_EQ(Norm(x, weight, {}, Varied(c, "norm.dropped=-1"), nullptr).v[0], 3 / std::sqrt(0.5) * 2);
  OpConfig outside = Varied(c, "norm.eps_outside=1");
  outside.norm_eps = 0.5;
  EXPECT_DOUBLE_EQ(Norm(x, weight, {}, outside, nullptr).v[0], 3 / (rms + 0.5) * 2);
}

TEST(Vary, OwnCellOfTheCache) {
  const OpConfig c = OneHead(1);
  Rows q(2, 1), k(2, 1);
  q.v = {1, 1}, k.v = {5, 7};
  auto score = [&](const char* variation) { return Scores(q, k, 0, Varied(c, variation), nullptr); };
  EXPECT_EQ(score("kv.own=written").row(1)[1], 7);
  EXPECT_EQ(score("kv.own=zero").row(1)[1], 0);
  EXPECT_EQ(score("kv.own=zero").row(1)[0], 5);
  EXPECT_EQ(score("kv.own=before").row(1)[1], 5);
  EXPECT_EQ(score("kv.own=before").row(0)[0], 5);  // there is none before the first
  EXPECT_EQ(score("kv.own=twice").row(1)[0], 7);
  EXPECT_EQ(score("kv.own=twice").row(1)[1], 7);
  Rows w(2, 2);
  w.v = {1, 0, 0.25, 0.75};
  EXPECT_EQ(Context(w, k, Varied(c, "kv.own=zero"), nullptr).row(1)[0], 0.25 * 5);
  EXPECT_EQ(Context(w, k, Varied(c, "kv.own=before"), nullptr).row(1)[0], 5);
}

TEST(Vary, SettingsAreJoined) {
  const OpConfig c = Varied(OneHead(2), "quant.clamp=63;norm.eps=0.5");
  EXPECT_EQ(c.quantiser.clamp, 63);
  EXPECT_EQ(c.norm_eps, 0.5);
  EXPECT_FALSE(Vary(OneHead(2), "quant.clamp=63;").ok());
  EXPECT_FALSE(Vary(OneHead(2), "quant.clamp=63;no.such=1").ok());
}

// A block of 32 whose scale is 1: its largest value is 127, the 21st.
TEST(Vary, QuantisersOfABlock) {
  std::vector<double> x(32);
  x[0] = 1.75, x[1] = -1.75, x[20] = 127;
  const auto codes = [&](std::string_view variation) {
    auto a = Quantise(x, ActScheme::kQ8_0, Varied(OneHead(2), variation).quantiser);
    EXPECT_TRUE(a.ok());
    return std::vector<int>{a->codes[0], a->codes[1], a->codes[20]};
  };
  using V = std::vector<int>;
  EXPECT_EQ(codes("quant.rounding=half_even"), (V{2, -2, 127}));
  EXPECT_EQ(codes("quant.rounding=truncate"), (V{1, -1, 127}));
  EXPECT_EQ(codes("quant.rounding=floor"), (V{1, -2, 127}));
  EXPECT_EQ(codes("quant.range=64"), (V{1, -1, 64}));      // 1.75 * 64 / 127
  EXPECT_EQ(codes("quant.range=128"), (V{2, -2, 127}));    // 128 is beyond int8
  EXPECT_EQ(codes("quant.amax=16"), (V{127, -127, 127}));  // of 1.75 among the first 16
  EXPECT_EQ(codes("quant.amax=-16"), (V{2, -2, 127}));
}

// 1.0006 lies between the f16 numbers 1 and 1 + 2^-10, nearer to the second.
TEST(Vary, ScalesThatAreCutOff) {
  std::vector<double> x(32);
  x[3] = 127 * 1.0006;
  for (const auto& [variation, scale] :
       {std::pair{"quant.cut_scales=0", 1 + 0x1p-10f}, {"quant.cut_scales=1", 1.0f}}) {
    const auto a = Quantise(x, ActScheme::kQ8_0, Varied(OneHead(2), variation).quantiser);
    ASSERT_TRUE(a.ok());
    EXPECT_EQ(a->scales[0], scale) << variation;
    EXPECT_EQ(a->codes[3], 127);
  }
}

TEST(Vary, AnActivationFromATable) {
  const OpConfig c = Varied(OneHead(2), "ffn.table=f16");
  const double given = 1.0001;  // 1 as f16
  const auto expected = double(F16ToF32(F32ToF16(static_cast<float>(1 / (1 + std::exp(-1.0))))));
  EXPECT_EQ(Activate(RowOf({given}), c, nullptr).v[0], expected);
}

}  // namespace
}  // namespace pb::oracle
