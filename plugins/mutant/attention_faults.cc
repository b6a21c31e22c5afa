// Rotation and attention gone wrong.
#include <algorithm>
#include <cmath>
#include <limits>

#include "plugins/mutant/catalogue.h"

namespace pb::mutant {
namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

struct Rotation {
  double base, scale, offset;
  int64_t dims;
  bool halves;
  bool factors = true;  // frequencies have those of the model
  bool yarn = false;    // frequencies are mixed
  double size = 1;      // of what is rotated
};

// The part of a pair's frequency that YaRN keeps.
double Kept(const HyperParameters& p, const Rotation& r, int64_t i) {
  const RopeStretch& s = p.rope_stretch;
  const auto pair_of = [&](double turns) {
    return static_cast<double>(r.dims) *
           std::log(static_cast<double>(s.n_ctx_original) / (2 * M_PI * turns)) / std::log(r.base) / 2;
  };
  const double low = std::max(std::floor(pair_of(double(s.beta_fast))), 0.0),
               high = std::min(std::ceil(pair_of(double(s.beta_slow))), static_cast<double>(r.dims - 1));
  return 1 - std::clamp((static_cast<double>(i) - low) / std::max(high - low, 0.001), 0.0, 1.0);
}

// Pairs of each head turned by position * base^(-2i/dims).
void Rotate(Op& op, const Rotation& r, bool from_batch) {
  const int64_t d = op.params().head_dim;
  for (int64_t t = 0; t < op.n; t++) {
    const double position = static_cast<double>(from_batch ? t : op.first + t) + r.offset;
    const float* x = op.in(0, t);
    float* y = op.row(t);
    std::copy_n(x, op.width, y);
    for (int64_t h = 0; h < op.width; h += d) {
      for (int64_t i = 0; i < r.dims / 2; i++) {
        const std::vector<float>& factors = op.params().RopeFactors(op.long_rope);
        const double kept = r.yarn ? Kept(op.params(), r, i) : 0, slowed = (1 - kept) / r.scale + kept;
        const double factor = factors.empty() || !r.factors ? 1 : double(factors[static_cast<size_t>(i)]);
        const double angle = position * slowed *
                             std::pow(r.base, -2.0 * static_cast<double>(i) / static_cast<double>(r.dims)) /
                             factor;
        const int64_t a = h + (r.halves ? i : 2 * i), b = h + (r.halves ? i + r.dims / 2 : 2 * i + 1);
        y[a] = static_cast<float>(r.size * (x[a] * std::cos(angle) - x[b] * std::sin(angle)));
        y[b] = static_cast<float>(r.size * (x[a] * std::sin(angle) + x[b] * std::cos(angle)));
      }
    }
  }
}

// Which keys or values a row reads, and through which heads.
struct Reading {
  int64_t shift = 0;  // position j holds what belongs to j - shift
  // of the row's own position: 1 zeros, 2 the one before, 3 its own in the cell before as well
  int own = 0;
  int64_t future = 0;        // positions of the future that are seen; -1: not even its own
  bool interleaved = false;  // KV head h mod n_kv_heads
  double scale_power = 1;    // of the attention scale
  int64_t window_shift = 0;  // added to the layer's window
  bool capped = true;
};
enum Own { kDeclared, kZeros, kBefore, kTwice };

// Of position j as the row at position `own` reads it; null: zeros.
const float* CacheRow(const Op& op, int64_t j, int64_t own, const Reading& r) {
  if (r.own == kZeros && j == own) return nullptr;
  int64_t from = j;
  if (r.own == kBefore && j == own) from = j - 1;
  if (r.own == kTwice && j == own - 1) from = own;
  return op.in(1, std::max<int64_t>(from - r.shift, 0));
}

int64_t KvHead(const Op& op, int64_t head, const Reading& r) {
  const int64_t kv = op.params().n_kv_heads;
  return r.interleaved ? head % kv : head / (op.params().n_heads / kv);
}

void ScoresOf(Op& op, const Reading& r) {
  const int64_t d = op.params().head_dim, p = op.n_visible(), heads = op.params().n_heads;
  const bool of_queries = op.params().scale_queries;
  const float query_scale = of_queries ? op.params().attention_scale : 1;
  // The queries' own scale is the first power of it.
  const double scale = std::pow(double(op.params().attention_scale), r.scale_power - (of_queries ? 1 : 0));
  const double cap = r.capped ? double(op.params().score_cap) : 0;
  const int64_t window = op.params().window_of(op.layer);
  const bool rounds = RoundsAttention(op);
  for (int64_t t = 0; t < op.n; t++) {
    const int64_t own = op.first + t;
    for (int64_t h = 0; h < heads; h++) {
      const float* q = op.in(0, t) + h * d;
      for (int64_t j = 0; j < p; j++) {
        float* to = op.row(t) + h * p + j;
        if (j > own + r.future || (window > 0 && j <= own - window - r.window_shift)) {
          *to = kHidden;
          continue;
        }
        const float* k = CacheRow(op, j, own, r);
        double sum = 0;
        for (int64_t i = 0; k && i < d; i++) {
          const float key = k[KvHead(op, h, r) * d + i];
          const float query = q[i] * query_scale;
          sum += double(rounds ? RoundF16(query) : query) * double(op.kv_f16 ? RoundF16(key) : key);
        }
        *to = static_cast<float>(cap > 0 ? cap * std::tanh(sum * scale / cap) : sum * scale);
      }
    }
  }
}

void ContextOf(Op& op, const Reading& r) {
  const int64_t d = op.params().head_dim, p = op.n_visible(), heads = op.params().n_heads;
  const bool rounds = RoundsAttention(op);
  std::vector<double> sum(static_cast<size_t>(d));
  for (int64_t t = 0; t < op.n; t++) {
    for (int64_t h = 0; h < heads; h++) {
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int64_t j = 0; j < p; j++) {
        const float weight = op.in(0, t)[h * p + j];
        const float* v = CacheRow(op, j, op.first + t, r);
        for (int64_t i = 0; v && weight != 0 && i < d; i++) {
          const float value = v[KvHead(op, h, r) * d + i];
          sum[static_cast<size_t>(i)] +=
              double(rounds ? RoundF16(weight) : weight) * double(op.kv_f16 ? RoundF16(value) : value);
        }
      }
      std::copy(sum.begin(), sum.end(), op.row(t) + h * d);
    }
  }
}

// Where nothing is visible all is 0.
void SoftmaxOf(Op& op, double scale, double sink, bool own_sinks = true) {
  const int64_t p = op.n_visible(), heads = op.params().n_heads;
  const std::vector<float>& sinks = op.model->weights(op.stage, op.layer).sinks;
  for (int64_t t = 0; t < op.n; t++) {
    for (int64_t h = 0; h < heads; h++) {
      const float* s = op.in(0, t) + h * p;
      float* y = op.row(t) + h * p;
      double largest = *std::max_element(s, s + p);
      const bool has = own_sinks && !sinks.empty();
      const double own = has ? double(sinks[static_cast<size_t>(h)]) : 0;
      if (has) largest = std::max(largest, own);
      double sum = std::isfinite(largest) ? sink * std::exp(-largest * scale) : 1;
      if (has) sum += std::exp((own - largest) * scale);
      for (int64_t j = 0; j < p; j++)
        if (std::isfinite(s[j])) sum += std::exp((s[j] - largest) * scale);
      for (int64_t j = 0; j < p; j++)
        y[j] = std::isfinite(s[j]) ? static_cast<float>(std::exp((s[j] - largest) * scale) / sum) : 0;
    }
  }
}

void Attend(Op& op, const Reading& r) {
  op.stage == PB_STAGE_ATTN_SCORES ? ScoresOf(op, r) : ContextOf(op, r);
}

Rotation Declared(const Op& op) {
  const HyperParameters& p = op.params();
  const bool local = p.is_local(op.layer);
  return {local ? p.local_rope_base.value : p.rope_base.value,
          local ? p.local_rope_scale.value : p.rope_scale.value,
          0,
          p.rotates(op.layer) ? p.rope_dims : 0,
          p.rope_pairing.value == RopePairing::kHalves,
          true,
          p.rope_stretch.yarn && p.stretches(op.layer),
          p.stretches(op.layer) ? double(p.rope_stretch.attention_factor) : 1};
}

}  // namespace

template <RopeFault kind>
void Rope(Op& op, double parameter) {
  Rotation r = Declared(op);
  if (kind == RopeFault::kPairing) r.halves = parameter > 0;
  if (kind == RopeFault::kBase) r.base = parameter;
  if (kind == RopeFault::kOffset) r.offset = parameter;
  if (kind == RopeFault::kNone) r.dims = 0;
  if (kind == RopeFault::kScale) r.scale *= parameter;
  if (kind == RopeFault::kFactors) r.factors = false;
  if (kind == RopeFault::kExchanged) {
    const HyperParameters& p = op.params();
    const bool local = p.is_local(op.layer);
    r.base = local ? p.rope_base.value : p.local_rope_base.value;
    r.scale = local ? p.rope_scale.value : p.local_rope_scale.value;
  }
  if (kind == RopeFault::kAttentionFactor) r.size = std::pow(r.size, parameter);
  if (kind == RopeFault::kYarn) r.yarn = false;
  if (kind == RopeFault::kEverywhere) r.dims = op.params().rope_dims;
  if (kind == RopeFault::kDims) r.dims = static_cast<int64_t>(static_cast<double>(r.dims) * parameter);
  Rotate(op, r, kind == RopeFault::kFromBatch);
}
template void Rope<RopeFault::kPairing>(Op&, double);
template void Rope<RopeFault::kBase>(Op&, double);
template void Rope<RopeFault::kOffset>(Op&, double);
template void Rope<RopeFault::kNone>(Op&, double);
template void Rope<RopeFault::kScale>(Op&, double);
template void Rope<RopeFault::kDims>(Op&, double);
template void Rope<RopeFault::kFromBatch>(Op&, double);
template void Rope<RopeFault::kFactors>(Op&, double);
template void Rope<RopeFault::kExchanged>(Op&, double);
template void Rope<RopeFault::kEverywhere>(Op&, double);
template void Rope<RopeFault::kAttentionFactor>(Op&, double);
template void Rope<RopeFault::kYarn>(Op&, double);

void ScoresScale(Op& op, double power) {
  Reading r;
  r.scale_power = power;
  ScoresOf(op, r);
}

void Mask(Op& op, double shift) {
  Reading r;
  if (op.stage == PB_STAGE_ATTN_SCORES_SOFTMAX) return SoftmaxOf(op, 1, 0);
  if (op.stage == PB_STAGE_ATTN_CONTEXT) return ContextOf(op, r);
  r.future = static_cast<int64_t>(shift);
  ScoresOf(op, r);
}

// A layer's window is longer by so many positions.
void Window(Op& op, double shift) {
  Reading r;
  if (op.stage == PB_STAGE_ATTN_SCORES_SOFTMAX) return SoftmaxOf(op, 1, 0);
  if (op.stage == PB_STAGE_ATTN_CONTEXT) return ContextOf(op, r);
  r.window_shift = static_cast<int64_t>(shift);
  ScoresOf(op, r);
}

void Uncapped(Op& op, double) {
  Reading r;
  r.capped = false;
  ScoresOf(op, r);
}

void StaleCache(Op& op, double which) {
  Reading r;
  if (which < 1) r.shift = 1;
  if (which >= 1) r.own = static_cast<int>(which);
  Attend(op, r);
}

void InterleavedHeads(Op& op, double) {
  Reading r;
  r.interleaved = true;
  Attend(op, r);
}

void Softmax(Op& op, double scale) { SoftmaxOf(op, scale, 0); }
void SoftmaxSink(Op& op, double sink) { SoftmaxOf(op, 1, sink); }
void NoSinks(Op& op, double) { SoftmaxOf(op, 1, 0, false); }

}  // namespace pb::mutant
