// The scalar loops that every faster form must equal bit by bit.
#include "kernels/ref.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/half.h"
#include "kernels/exp_constants.h"

namespace pb {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Adds the upper half to the lower until one is left.
template <typename T>
T FoldLanes(T* lane, int n) {
  for (n /= 2; n > 0; n /= 2) {
    for (int i = 0; i < n; i++) lane[i] += lane[i + n];
  }
  return lane[0];
}

inline float Load(float x) { return x; }
inline float Load(uint16_t x) { return F16ToF32(x); }

template <typename T>
float Dot(const T* w, const float* x, int64_t n) {
  float lane[32] = {};
  for (int64_t i = 0; i < n; i++) lane[i % 32] = std::fma(Load(w[i]), x[i], lane[i % 32]);
  for (int64_t i = n; i % 32 != 0; i++) lane[i % 32] = std::fma(0.0f, 0.0f, lane[i % 32]);
  return FoldLanes(lane, 32);
}

template <typename T>
void Dots(const T* w, const float* x, int64_t x_stride, int64_t n_x, int64_t n, float* out,
          int64_t out_stride) {
  for (int64_t t = 0; t < n_x; t++) out[t * out_stride] = Dot(w, x + t * x_stride, n);
}

template <typename T>
void Scores(const float* q, const T* k, int64_t stride, int64_t n_positions, int64_t head_dim, float scale,
            float* out) {
  for (int64_t p = 0; p < n_positions; p++) out[p] = Dot(k + p * stride, q, head_dim) * scale;
}

template <typename T>
void Context(const float* probability, const T* v, int64_t stride, int64_t n_positions, int64_t head_dim,
             float* out) {
  for (int64_t d = 0; d < head_dim; d++) {
    float lane[8] = {};
    for (int64_t p = 0; p < n_positions; p++) {
      lane[p % 8] = std::fma(probability[p], Load(v[p * stride + d]), lane[p % 8]);
    }
    out[d] = FoldLanes(lane, 8);
  }
}

// max |x| as bits: NaN and infinity are above every finite number.
uint32_t MaxMagnitude(const float* x, int64_t n) {
  uint32_t m = 0;
  for (int64_t i = 0; i < n; i++) m = std::max(m, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  return m;
}

// The multiplier that makes codes of a block, and the scale and kind of sum that go with it.
struct BlockScale {
  float multiplier, scale, sum_scale;
  bool round_sum;
};

BlockScale ScaleOf(ActScheme scheme, const float* x, int64_t n, float max_magnitude) {
  if (scheme == ActScheme::kBitnet) {
    float s = 127.0f / (max_magnitude > 1e-5f ? max_magnitude : 1e-5f);
    return {s, s, 1.0f, false};
  }
  if (max_magnitude == 0) return {0, 0, 0, false};
  if (scheme == ActScheme::kQ8_K) {
    float first = *std::find_if(x, x + n, [&](float v) { return std::fabs(v) == max_magnitude; });
    float i = -127.0f / first, d = 1.0f / i;
    return {i, d, d, false};
  }
  float d = max_magnitude / 127.0f, rounded = F16ToF32(F32ToF16(d));
  bool q8_1 = scheme == ActScheme::kQ8_1;
  return {127.0f / max_magnitude, rounded, q8_1 ? d : rounded, q8_1};
}

}  // namespace

float ExpRef(float x) {
  if (x > kExpHigh) x = kExpHigh;
  if (x < kExpLow) x = kExpLow;
  float shifted = std::fma(x, kLog2E, kRoundMagic), n = shifted - kRoundMagic;
  float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, x));
  float p = kExpTaylor[7];
  for (int i = 6; i >= 0; i--) p = std::fma(p, r, kExpTaylor[i]);
  int32_t e = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRoundMagic);
  int32_t half = e >> 1, rest = e - half;
  auto power = [](int32_t k) { return std::bit_cast<float>(static_cast<uint32_t>(k + 127) << 23); };
  return p * power(half) * power(rest);
}

void RmsNormRef(const float* x, const float* weight, float eps, int64_t n, float* y) {
  double lane[16] = {};
  for (int64_t i = 0; i < n; i++) lane[i % 16] += static_cast<double>(x[i] * x[i]);
  float mean = static_cast<float>(FoldLanes(lane, 16) / static_cast<double>(n));
  float scale = 1.0f / std::sqrt(mean + eps);
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale * weight[i];
}

void RopeRef(const float* x, const float* table, int64_t dims, int64_t head_dim, bool halves, float* y) {
  for (int64_t i = 0; i < dims / 2; i++) {
    int64_t a = halves ? i : 2 * i, b = halves ? i + dims / 2 : 2 * i + 1;
    float x0 = x[a], x1 = x[b], c = table[i], s = table[dims / 2 + i];
    y[a] = std::fma(x0, c, -(x1 * s));
    y[b] = std::fma(x0, s, x1 * c);
  }
  for (int64_t i = dims; i < head_dim; i++) y[i] = x[i];
}

void SoftmaxRef(const float* x, int64_t n, float* y) {
  float max = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
  double lane[16] = {};
  for (int64_t i = 0; i < n; i++) {
    y[i] = ExpRef(x[i] - max);
    lane[i % 16] += static_cast<double>(y[i]);
  }
  float inverse = static_cast<float>(1.0 / FoldLanes(lane, 16));
  for (int64_t i = 0; i < n; i++) y[i] *= inverse;
}

void SiluRef(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] / (1.0f + ExpRef(-x[i]));
}

void Relu2Ref(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i++) {
    float r = x[i] < 0 ? 0.0f : x[i];
    y[i] = r * r;
  }
}

void ReluRef(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] < 0 ? 0.0f : x[i];
}

void GeluRef(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i++) {
    double v = x[i];
    y[i] = static_cast<float>(0.5 * v * (1.0 + std::erf(v * 0.70710678118654752)));
  }
}

void ExpRowRef(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i++) y[i] = ExpRef(x[i]);
}

void AddRef(const float* a, const float* b, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

void MultiplyRef(const float* a, const float* b, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i++) y[i] = a[i] * b[i];
}

void RoundF16Ref(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i++) y[i] = F16ToF32(F32ToF16(x[i]));
}

void ToF16Ref(const float* x, int64_t n, uint16_t* y) {
  for (int64_t i = 0; i < n; i++) y[i] = F32ToF16(x[i]);
}

void FromF16Ref(const uint16_t* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i++) y[i] = F16ToF32(x[i]);
}

void QuantizeRef(const float* x, QuantRows& q, int64_t row) {
  int64_t n = q.n_columns, n_subs = n / kSub;
  int8_t* codes = q.codes.get() + row * n;
  float* sums = q.sums.get() + row * n_subs;
  int32_t* prefix = q.prefix.get() + row * (n_subs + 1);
  prefix[0] = 0;
  int64_t block = std::min(n, kSub << std::min(SchemeShift(q.scheme), 20));
  if (q.scheme == ActScheme::kBitnet) block = n;
  for (int64_t begin = 0, b = 0; begin < n; begin += block, b++) {
    int64_t count = std::min(block, n - begin);
    uint32_t magnitude = MaxMagnitude(x + begin, count);
    bool finite = magnitude < 0x7f800000u;
    BlockScale s{0, kNan, kNan, false};
    if (finite) s = ScaleOf(q.scheme, x + begin, count, std::bit_cast<float>(magnitude));
    q.scales[row * q.n_blocks + b] = s.scale;
    for (int64_t sub = begin / kSub; sub < (begin + count) / kSub; sub++) {
      int32_t sum = 0;
      for (int64_t i = sub * kSub; i < (sub + 1) * kSub; i++) {
        float rounded = finite ? std::nearbyint(x[i] * s.multiplier) : 0.0f;
        codes[i] = static_cast<int8_t>(std::clamp(rounded, -128.0f, 127.0f));
        sum += codes[i];
      }
      float total = s.sum_scale * static_cast<float>(sum);
      sums[sub] = s.round_sum ? F16ToF32(F32ToF16(total)) : total;
      prefix[sub + 1] = prefix[sub] + sum;
    }
  }
}

void DotF32Ref(const float* w, const float* x, int64_t x_stride, int64_t n_x, int64_t n, float* out,
               int64_t out_stride) {
  Dots(w, x, x_stride, n_x, n, out, out_stride);
}

void DotF16Ref(const uint16_t* w, const float* x, int64_t x_stride, int64_t n_x, int64_t n, float* out,
               int64_t out_stride) {
  Dots(w, x, x_stride, n_x, n, out, out_stride);
}

void ScoresF32Ref(const float* q, const float* k, int64_t stride, int64_t n_positions, int64_t head_dim,
                  float scale, float* out) {
  Scores(q, k, stride, n_positions, head_dim, scale, out);
}

void ScoresF16Ref(const float* q, const uint16_t* k, int64_t stride, int64_t n_positions, int64_t head_dim,
                  float scale, float* out) {
  Scores(q, k, stride, n_positions, head_dim, scale, out);
}

void ContextF32Ref(const float* probability, const float* v, int64_t stride, int64_t n_positions,
                   int64_t head_dim, float* out) {
  Context(probability, v, stride, n_positions, head_dim, out);
}

void ContextF16Ref(const float* probability, const uint16_t* v, int64_t stride, int64_t n_positions,
                   int64_t head_dim, float* out) {
  Context(probability, v, stride, n_positions, head_dim, out);
}

namespace {

// Adds the products of one output over the subs [begin, end) to 8 integer lanes.
void IntegerLanes(const PackedMatrix& w, const QuantRows& x, int64_t row, int64_t token, int64_t begin,
                  int64_t end, int32_t lane[8]) {
  const uint8_t* group = w.codes.get() + row / kGroupRows * w.n_subs() * w.bits * 64;
  const int8_t* codes = x.codes.get() + token * x.n_columns;
  const int32_t* prefix = x.prefix.get() + token * (w.n_subs() + 1);
  for (int64_t sub = begin; sub < end; sub++) {
    for (int q = 0; q < 8; q++) {
      const uint8_t* bytes = group + (sub * w.bits + q % w.bits) * 64 + row % kGroupRows * 4;
      for (int j = 0; j < 4; j++) {
        int code = w.bits == 8 ? static_cast<int8_t>(bytes[j])
                               : bytes[j] >> (q / w.bits * w.bits) & ((1 << w.bits) - 1);
        lane[q] += code * codes[sub * kSub + 4 * q + j];
      }
    }
    lane[(sub - begin) % 8] -= w.offset * (prefix[sub + 1] - prefix[sub]);
  }
}

float OneOutput(const PackedProduct& p, int64_t row, int64_t token) {
  const PackedMatrix& w = *p.w;
  const QuantRows& x = *p.x;
  bool bitnet = x.scheme == ActScheme::kBitnet;
  int x_shift = SchemeShift(x.scheme), shift = std::min(w.block_shift, x_shift);
  const float* scales = x.scales.get() + token * x.n_blocks;
  const float* sums = x.sums.get() + token * w.n_subs();
  int64_t w_at = row / kGroupRows * w.n_blocks() * kGroupRows + row % kGroupRows;
  float acc[8] = {}, low = 0;
  for (int64_t begin = 0; begin < w.n_subs(); begin += int64_t{1} << shift) {
    int64_t end = std::min(w.n_subs(), begin + (int64_t{1} << shift));
    int64_t w_block = w_at + (begin >> w.block_shift) * kGroupRows;
    float d = F16ToF32(w.scales[w_block]) * (bitnet ? 1.0f : scales[begin >> x_shift]);
    int32_t lane[8] = {};
    IntegerLanes(w, x, row, token, begin, end, lane);
    for (int q = 0; q < 8; q++) acc[q] = std::fma(d, static_cast<float>(lane[q]), acc[q]);
    if (w.has_min) low = std::fma(F16ToF32(w.minima[w_block]), sums[begin], low);
  }
  float sum = FoldLanes(acc, 8);
  if (w.has_min) sum += low;
  if (bitnet) sum /= scales[0];
  return sum * w.scale * p.post_scale;
}

// Adds the products of one output with fine scales over a block of subs: exact in 32 bits.
struct FineSums {
  int32_t products = 0, minima = 0;
};
FineSums FineSumsOf(const PackedMatrix& w, const QuantRows& x, int64_t row, int64_t token, int64_t begin,
                    int64_t end) {
  const uint8_t* group = w.codes.get() + row / kGroupRows * w.n_subs() * w.bits * 64;
  const int8_t* codes = x.codes.get() + token * x.n_columns;
  const int64_t fine_at = row / kGroupRows * (w.n_columns / w.fine) * kGroupRows + row % kGroupRows;
  FineSums sums;
  for (int64_t c = begin * kSub; c < end * kSub; c += w.fine) {
    int32_t dot = 0, all = 0;
    for (int64_t i = c; i < c + w.fine; i++) {
      const int64_t sub = i / kSub, q = i % kSub / 4;
      const uint8_t byte = group[(sub * w.bits + q % w.bits) * 64 + row % kGroupRows * 4 + i % 4];
      const int code =
          w.bits == 8 ? static_cast<int8_t>(byte) : byte >> (q / w.bits * w.bits) & ((1 << w.bits) - 1);
      dot += code * codes[i], all += codes[i];
    }
    const int64_t at = fine_at + c / w.fine * kGroupRows;
    sums.products += w.fine_scales[at] * dot;
    if (w.has_min) sums.minima += w.fine_minima[at] * all;
  }
  return sums;
}

float OneFineOutput(const PackedProduct& p, int64_t row, int64_t token) {
  const PackedMatrix& w = *p.w;
  const QuantRows& x = *p.x;
  const bool bitnet = x.scheme == ActScheme::kBitnet;
  const int x_shift = SchemeShift(x.scheme), shift = std::min(w.block_shift, x_shift);
  const float* scales = x.scales.get() + token * x.n_blocks;
  const int64_t w_at = row / kGroupRows * w.n_blocks() * kGroupRows + row % kGroupRows;
  float acc = 0, low = 0;
  for (int64_t begin = 0; begin < w.n_subs(); begin += int64_t{1} << shift) {
    const int64_t w_block = w_at + (begin >> w.block_shift) * kGroupRows;
    const float x_scale = bitnet ? 1.0f : scales[begin >> x_shift];
    const FineSums sums = FineSumsOf(w, x, row, token, begin, begin + (int64_t{1} << shift));
    acc = std::fma(F16ToF32(w.scales[w_block]) * x_scale, static_cast<float>(sums.products), acc);
    if (w.has_min)
      low = std::fma(F16ToF32(w.minima[w_block]) * x_scale, static_cast<float>(sums.minima), low);
  }
  float sum = w.has_min ? acc - low : acc;
  if (bitnet) sum /= scales[0];
  return sum * w.scale * p.post_scale;
}

}  // namespace

void PackedProductRef(const PackedProduct& p, int64_t begin_group, int64_t end_group) {
  int64_t end_row = std::min(p.w->n_rows, end_group * kGroupRows);
  for (int64_t row = begin_group * kGroupRows; row < end_row; row++) {
    for (int64_t t = 0; t < p.x->n_rows; t++) {
      p.out[t * p.out_stride + row] = p.w->fine ? OneFineOutput(p, row, t) : OneOutput(p, row, t);
    }
  }
}

}  // namespace pb
