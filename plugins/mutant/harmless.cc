// Right ways to compute that differ in last bits: how a quantiser gets its scales and sums, and what
// a compiler makes of an op that may reorder sums, fuse, multiply by reciprocals and flush denormals
// (-ffast-math).
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "plugins/mutant/catalogue.h"
#include "plugins/mutant/fault.h"

namespace pb::mutant {
namespace {

constexpr size_t kLanes = 8;

float Flushed(float x) { return std::fabs(x) < FLT_MIN ? 0.0f : x; }

// An estimate of 12 bits, as processors give, and one step of Newton's.
float Estimate(float x) {
  int exponent = 0;
  const float m = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(m * 4096.0f) / 4096.0f, exponent);
}
float Reciprocal(float x) {
  if (!std::isfinite(1.0f / x) || 1.0f / x == 0) return 1.0f / x;
  const float r = Estimate(1.0f / x);
  return r * (2.0f - x * r);
}
float ReciprocalRoot(float x) {
  const float r = Estimate(1.0f / std::sqrt(x));
  return 0.5f * r * (3.0f - x * r * r);
}

template <typename Term>
float Sum(size_t n, Term term) {
  float lanes[kLanes] = {}, sum = 0;
  for (size_t k = 0; k < n; k++) {
    const auto [a, b] = term(k);
    lanes[k % kLanes] = std::fma(a, b, lanes[k % kLanes]);
  }
  for (float lane : lanes) sum += lane;
  return sum;
}
using Pair = std::pair<float, float>;

void Norm(Op& op, const std::vector<float>& weight) {
  const size_t n = weight.size();
  const std::vector<float>& bias = op.model->weights(op.stage, op.layer).bias;
  for (int64_t at = 0; at < op.n * op.width; at += static_cast<int64_t>(n)) {
    const float* x = op.inputs[0].values.data() + at;
    const float share = 1.0f / static_cast<float>(n);
    const float mean = op.params().layer_norm ? Sum(n, [&](size_t k) { return Pair(x[k], share); }) : 0.0f;
    const float squares = Sum(n, [&](size_t k) { return Pair(x[k] - mean, x[k] - mean); });
    const float inverse = ReciprocalRoot(std::fma(squares, share, op.params().norm_eps.value));
    for (size_t k = 0; k < n; k++) {
      const float scaled = (x[k] - mean) * inverse;
      op.out[static_cast<size_t>(at) + k] =
          bias.empty() ? scaled * weight[k] : std::fma(scaled, weight[k], bias[k]);
    }
  }
}

void Softmax(Op& op) {
  const auto p = static_cast<size_t>(op.n_visible());
  if (op.params().attention_sinks) return;
  for (size_t at = 0; at < static_cast<size_t>(op.n * op.width); at += p) {
    const float* s = op.inputs[0].values.data() + at;
    const float largest = *std::max_element(s, s + p);
    if (!std::isfinite(largest)) continue;
    float* y = op.out + at;
    for (size_t j = 0; j < p; j++) y[j] = Flushed(std::exp(s[j] - largest));
    const float inverse = Reciprocal(Sum(p, [&](size_t j) { return Pair(y[j], 1.0f); }));
    for (size_t j = 0; j < p; j++) y[j] *= inverse;
  }
}

float Key(const Op& op, float x) { return op.kv_f16 ? RoundF16(x) : x; }

void Scores(Op& op, bool rounds) {
  const int64_t d = op.params().head_dim, p = op.n_visible(), heads = op.params().n_heads;
  const int64_t group = heads / op.params().n_kv_heads;
  if (op.params().score_cap > 0) return;
  const bool of_queries = op.params().scale_queries;
  const float scale = op.params().attention_scale;
  for (int64_t t = 0; t < op.n; t++)
    for (int64_t at = 0; at < heads * p; at++) {
      if (!std::isfinite(op.row(t)[at])) continue;
      const float *q = op.in(0, t) + at / p * d, *k = op.in(1, at % p) + at / p / group * d;
      const float sum = Sum(static_cast<size_t>(d), [&](size_t i) {
        const float query = of_queries ? q[i] * scale : q[i];
        return Pair(rounds ? RoundF16(query) : query, Key(op, k[i]));
      });
      op.row(t)[at] = of_queries ? sum : sum * scale;
    }
}

void Context(Op& op, bool rounds) {
  const int64_t d = op.params().head_dim, p = op.n_visible(), heads = op.params().n_heads;
  const int64_t group = heads / op.params().n_kv_heads;
  for (int64_t t = 0; t < op.n; t++)
    for (int64_t at = 0; at < heads * d; at++) {
      const float* weights = op.in(0, t) + at / d * p;
      op.row(t)[at] = Sum(static_cast<size_t>(p), [&](size_t j) {
        const float* v = op.in(1, static_cast<int64_t>(j)) + at / d / group * d;
        return Pair(rounds ? RoundF16(weights[j]) : weights[j], Key(op, v[at % d]));
      });
    }
}

void Activate(Op& op) {
  const auto& declared = op.params().ffn_activation;
  const Activation activation = declared ? declared->value : Activation::kSilu;
  for (int64_t i = 0; i < op.n * op.width; i++) {
    const float x = op.inputs[0].values[static_cast<size_t>(i)];
    if (activation == Activation::kSilu) op.out[i] = Flushed(x * Reciprocal(1.0f + std::exp(-x)));
    if (activation == Activation::kRelu2) op.out[i] = Flushed(std::max(x, 0.0f) * std::max(x, 0.0f));
  }
}

void Residual(Op& op) {
  for (int64_t i = 0; i < op.n * op.width; i++) {
    const auto at = static_cast<size_t>(i);
    op.out[i] = std::fma(op.inputs[0].values[at], op.params().residual_scale, op.inputs[1].values[at]);
  }
}

}  // namespace

void OtherRounding(Op& op, double how) { HarmlessProduct(op, static_cast<Harmless>(static_cast<int>(how))); }

void AttentionUnrounded(Op& op, double) {
  op.stage == PB_STAGE_ATTN_SCORES ? Scores(op, false) : Context(op, false);
}

void FastMath(Op& op, double) {
  if (const std::vector<float>* weight = NormWeight(*op.model, op.stage, op.layer)) return Norm(op, *weight);
  if (stages::kProducts.Contains(op.stage)) return FastProduct(op);
  switch (op.stage) {
    case PB_STAGE_Q_ROPE:
    case PB_STAGE_K_ROPE:
      return OtherFormula(op, 0);
    case PB_STAGE_ATTN_SCORES_SOFTMAX:
      return Softmax(op);
    case PB_STAGE_ATTN_SCORES:
      return Scores(op, RoundsAttention(op));
    case PB_STAGE_ATTN_CONTEXT:
      return Context(op, RoundsAttention(op));
    case PB_STAGE_ATTN_RESIDUAL:
    case PB_STAGE_LAYER_OUT:
      return Residual(op);
    default:
      return Activate(op);
  }
}

}  // namespace pb::mutant
