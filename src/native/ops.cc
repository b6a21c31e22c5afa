// Each operation over the kernels, with its rows shared among threads.
#include "native/ops.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/half.h"

namespace pb::native {
namespace {

// x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) in float32 (Hendrycks, Gimpel 2016, section 2).
float GeluTanh(float x) {
  constexpr float kRoot = 0.79788456080286535588f, kCubic = 0.044715f;
  return 0.5f * x * (1.0f + std::tanh(kRoot * x * (1.0f + kCubic * x * x)));
}

// The same of every f16, rounded to f16: what ggml's CPU libraries read in its place below 10.
const std::vector<float>& GeluTable() {
  static const std::vector<float> table = [] {
    std::vector<float> values(1 << 16);
    for (size_t code = 0; code < values.size(); code++)
      values[code] = F16ToF32(F32ToF16(GeluTanh(F16ToF32(static_cast<uint16_t>(code)))));
    return values;
  }();
  return table;
}

void GeluTanhRow(const float* x, int64_t n, bool f16, float* y) {
  if (!f16) {
    std::transform(x, x + n, y, GeluTanh);
    return;
  }
  const std::vector<float>& table = GeluTable();
  for (int64_t i = 0; i < n; i++) y[i] = std::fabs(x[i]) >= 10 ? std::max(x[i], 0.0f) : table[F32ToF16(x[i])];
}

// The sigmoid's part of gpt-oss' SwiGLU, of a gate that is capped.
void SwigluOaiRow(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i++) {
    const float capped = std::min(x[i], kSwigluOaiLimit);
    y[i] = capped / (1.0f + std::exp(-kSwigluOaiSlope * capped));
  }
}

// (x - mean) / sqrt(variance + eps) * weight + bias, sums in double; the bias may be empty.
void LayerNorm(const float* x, std::span<const float> weight, std::span<const float> bias, float eps,
               float* y) {
  const size_t n = weight.size();
  double sum = 0, squares = 0;
  for (size_t i = 0; i < n; i++) sum += static_cast<double>(x[i]);
  const double mean = sum / static_cast<double>(n);
  for (size_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
  const double inverse = 1 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(eps));
  for (size_t i = 0; i < n; i++) {
    const auto scaled = static_cast<float>((x[i] - mean) * inverse) * weight[i];
    y[i] = bias.empty() ? scaled : scaled + bias[i];
  }
}

// Memory of this thread for n values, until the next call for the same purpose: attention needs
// some for every row of every head.
enum class For { kQuery, kWeights, kScores, kSink };
template <For kPurpose>
float* Scratch(int64_t n) {
  thread_local AlignedArray<float> memory;
  thread_local int64_t have = 0;
  if (have < n) memory = MakeAligned<float>(n), have = n;
  return memory.get();
}

}  // namespace

RopeTable::RopeTable(int64_t dims, float base, float scale, std::span<const float> factors,
                     const RopeStretch& stretch)
    : dims_(dims),
      factor_(static_cast<float>(
          std::pow(static_cast<double>(base), static_cast<double>(-2.0f / static_cast<float>(dims))))),
      frequency_scale_(1.0f / scale),
      factors_(factors),
      attention_factor_(stretch.attention_factor) {
  if (!stretch.yarn) return;
  // The pair that turns n times within the original context (Peng et al. 2023, section 3.2), between
  // whole pairs.
  const auto pair_of = [&](float n) {
    const float turns = static_cast<float>(stretch.n_ctx_original) / (n * 2 * static_cast<float>(M_PI));
    return static_cast<float>(dims) * std::log(turns) / (2 * std::log(base));
  };
  const float first = std::max(0.0f, std::floor(pair_of(stretch.beta_fast))),
              last = std::min(static_cast<float>(dims - 1), std::ceil(pair_of(stretch.beta_slow)));
  for (int64_t i = 0; i < dims / 2; i++) {
    const float along = (static_cast<float>(i) - first) / std::max(0.001f, last - first);
    kept_.push_back(1 - std::min(1.0f, std::max(0.0f, along)));
  }
}

void RopeTable::Reach(int64_t n_positions) {
  int64_t have = static_cast<int64_t>(rows_.size()) / std::max<int64_t>(dims_, 1);
  if (dims_ == 0 || have >= n_positions) return;
  rows_.resize(static_cast<size_t>(n_positions * dims_));
  for (int64_t p = have; p < n_positions; p++) {
    float* row = rows_.data() + p * dims_;
    float theta = static_cast<float>(p);
    for (int64_t i = 0; i < dims_ / 2; i++, theta *= factor_) {
      const float own = factors_.empty() ? theta : theta / factors_[static_cast<size_t>(i)];
      float turned = own * frequency_scale_;
      if (!kept_.empty()) {
        const float kept = kept_[static_cast<size_t>(i)];
        turned = turned * (1 - kept) + own * kept;
      }
      const double angle = static_cast<double>(turned), factor = static_cast<double>(attention_factor_);
      row[i] = static_cast<float>(std::cos(angle) * factor);
      row[dims_ / 2 + i] = static_cast<float>(std::sin(angle) * factor);
    }
  }
}

Ops::Ops(std::shared_ptr<const Weights> weights, const Kernels& kernels, ThreadPool& pool,
         const OpParams& params)
    : weights_(std::move(weights)),
      kernels_(kernels),
      pool_(pool),
      params_(params),
      rope_(hyper().rope_dims, params.rope_base, params.rope_scale, hyper().RopeFactors(params.long_rope),
            hyper().rope_stretch),
      local_rope_(hyper().rope_dims, params.local_rope_base, params.local_rope_scale,
                  hyper().RopeFactors(params.long_rope),
                  params.local_rope_scale == params.rope_scale ? hyper().rope_stretch : RopeStretch()) {}

int64_t Ops::Width(pb_stage stage, const TokenRows& span) const {
  return stages::RowWidth(stage, hyper().shape(), span.n_visible());
}

Status Ops::Embed(std::span<const int32_t> tokens, float* out) const {
  const WeightView& table = weights_->model->token_embedding();
  for (size_t t = 0; t < tokens.size(); t++) {
    if (tokens[t] < 0 || tokens[t] >= table.n_rows) {
      return MakeError(Code::kUsage, "token id {}: the vocabulary has {}", tokens[t], table.n_rows);
    }
    float* row = out + static_cast<int64_t>(t) * table.n_columns;
    DecodeRow(table, tokens[t], row);
    const float scale = hyper().embedding_scale;
    for (int64_t i = 0; scale != 1 && i < table.n_columns; i++) row[i] *= scale;
  }
  return {};
}

// Elementwise work is shared between threads only where it is worth waking them.
void Ops::Rows(int64_t n, int64_t width, const std::function<void(int64_t row)>& body) {
  int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(width, 1));
  pool_.For(n, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; row++) body(row);
  });
}

template <typename Body>
void Ops::ForHeads(const TokenRows& span, Body body) {
  int64_t n_heads = hyper().n_heads;
  int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, span.n_visible() * hyper().head_dim));
  pool_.For(n_heads * span.n, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++)
      body(i % span.n, i / span.n);  // by heads first: rows differ in length
  });
}

int64_t Ops::FirstSeen(int64_t layer, int64_t position) const {
  const int64_t window = hyper().window_of(layer);
  return window > 0 ? std::max<int64_t>(position + 1 - window, 0) : 0;
}

void Ops::Scores(int64_t layer, int64_t position, int64_t head, const float* q, const KvCache& cache,
                 int64_t cache_layer, float* out) const {
  const HyperParameters& h = hyper();
  const int64_t first = FirstSeen(layer, position), n = position + 1 - first;
  const std::byte* keys = cache.Keys(cache_layer, head / (h.n_heads / h.n_kv_heads));
  bool rounds = cache.f16() && params_.act_quant.all != ActScheme::kNone;
  float* ready = Scratch<For::kQuery>(h.head_dim);
  for (int64_t i = 0; h.scale_queries && i < h.head_dim; i++) ready[i] = q[i] * h.attention_scale;
  if (h.scale_queries) q = ready;
  if (rounds) kernels_.round_f16(q, h.head_dim, ready), q = ready;
  const float scale = h.scale_queries ? 1 : h.attention_scale;
  std::fill(out, out + first, -std::numeric_limits<float>::infinity());
  if (cache.f16()) {
    kernels_.scores_f16(q, reinterpret_cast<const uint16_t*>(keys) + first * h.head_dim, h.head_dim, n,
                        h.head_dim, scale, out + first);
  } else {
    kernels_.scores_f32(q, reinterpret_cast<const float*>(keys) + first * h.head_dim, h.head_dim, n,
                        h.head_dim, scale, out + first);
  }
  for (int64_t j = first; h.score_cap > 0 && j <= position; j++)
    out[j] = h.score_cap * std::tanh(out[j] * (1 / h.score_cap));
}

void Ops::Context(int64_t layer, int64_t position, int64_t head, const float* p, const KvCache& cache,
                  int64_t cache_layer, float* out) const {
  const HyperParameters& h = hyper();
  // Weights before the window are 0, but for those that another engine's mask let through.
  const int64_t first = std::find_if(p, p + FirstSeen(layer, position), [](float w) { return w != 0; }) - p;
  const int64_t n = position + 1 - first;
  const std::byte* values = cache.Values(cache_layer, head / (h.n_heads / h.n_kv_heads));
  bool rounds = cache.f16() && params_.act_quant.all != ActScheme::kNone;
  p += first;
  if (rounds) {
    float* rounded = Scratch<For::kWeights>(n);
    kernels_.round_f16(p, n, rounded), p = rounded;
  }
  if (cache.f16()) {
    kernels_.context_f16(p, reinterpret_cast<const uint16_t*>(values) + first * h.head_dim, h.head_dim, n,
                         h.head_dim, out);
  } else {
    kernels_.context_f32(p, reinterpret_cast<const float*>(values) + first * h.head_dim, h.head_dim, n,
                         h.head_dim, out);
  }
}

void Ops::Attention(int64_t layer, const TokenRows& span, const float* q, const KvCache& cache,
                    int64_t cache_layer, float* out) {
  int64_t n_heads = hyper().n_heads, d = hyper().head_dim;
  ForHeads(span, [&](int64_t row, int64_t head) {
    const int64_t position = span.first + row;
    float* scores = Scratch<For::kScores>(position + 1);
    Scores(layer, position, head, q + (row * n_heads + head) * d, cache, cache_layer, scores);
    Softmax(layer, head, scores, position + 1, scores);
    Context(layer, position, head, scores, cache, cache_layer, out + (row * n_heads + head) * d);
  });
}

void Ops::Softmax(int64_t layer, int64_t head, const float* scores, int64_t n, float* out) const {
  const std::vector<float>& sinks =
      weights_->model->weights(PB_STAGE_ATTN_SCORES_SOFTMAX, static_cast<int32_t>(layer)).sinks;
  if (sinks.empty()) return kernels_.softmax(scores, n, out);
  // The sink takes part as one more score, and is dropped.
  float* with = Scratch<For::kSink>(n + 1);
  std::copy_n(scores, n, with);
  with[n] = sinks[static_cast<size_t>(head)];
  kernels_.softmax(with, n + 1, with);
  std::copy_n(with, n, out);
}

void Ops::Norm(pb_stage stage, int64_t layer, int64_t n, const float* x, float* out) {
  const HyperParameters& h = hyper();
  const StageWeights& w = weights_->model->weights(stage, static_cast<int32_t>(layer));
  const int64_t part = stages::SumLength(stage, h.shape(), 1);  // the row, or a head of it
  const int64_t n_parts = n * (stages::RowWidth(stage, h.shape(), 1) / part);
  Rows(n_parts, part, [&](int64_t r) {
    if (h.layer_norm) return LayerNorm(x + r * part, w.vector, w.bias, params_.norm_eps, out + r * part);
    kernels_.rms_norm(x + r * part, w.vector.data(), params_.norm_eps, part, out + r * part);
  });
}

void Ops::Activate(int64_t n, int64_t width, const float* x, float* out) {
  const Kernels& k = kernels_;
  if (params_.activation == Activation::kGeluTanh) {
    const bool f16 = params_.act_quant.all != ActScheme::kNone;
    Rows(n, width, [&](int64_t r) { GeluTanhRow(x + r * width, width, f16, out + r * width); });
    return;
  }
  auto act = params_.activation == Activation::kSwigluOai ? SwigluOaiRow
             : params_.activation == Activation::kSilu    ? k.silu
             : params_.activation == Activation::kRelu2   ? k.relu2
             : params_.activation == Activation::kRelu    ? k.relu
                                                          : k.gelu;
  Rows(n, width, [&](int64_t r) { act(x + r * width, width, out + r * width); });
}

void Ops::Gate(int64_t n, int64_t width, const float* act, const float* up, float* out) {
  if (params_.activation != Activation::kSwigluOai)
    return Rows(n, width, [&](int64_t r) {
      kernels_.multiply(act + r * width, up + r * width, width, out + r * width);
    });
  Rows(n, width, [&](int64_t r) {
    for (int64_t i = r * width; i < (r + 1) * width; i++)
      out[i] = act[i] * (std::clamp(up[i], -kSwigluOaiLimit, kSwigluOaiLimit) + 1.0f);
  });
}

void Ops::ChooseExperts(const float* logits, float* ids) const {
  const Experts& e = hyper().experts;
  std::vector<int64_t> order(static_cast<size_t>(e.n));
  std::iota(order.begin(), order.end(), int64_t{0});
  // What is no number comes last.
  const auto value = [&](int64_t i) {
    return std::isnan(logits[i]) ? -std::numeric_limits<float>::infinity() : logits[i];
  };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return value(a) > value(b); });
  std::copy_n(order.begin(), e.n_used, ids);
}

namespace {

// The expert that an id names.
Result<int64_t> ExpertOf(float id, int64_t n_experts) {
  if (id >= 0 && id < static_cast<float>(n_experts) && id == std::floor(id)) return static_cast<int64_t>(id);
  return MakeError(Code::kUsage, "expert {} of {}", id, n_experts);
}

}  // namespace

Status Ops::WeighExperts(const float* logits, const float* ids, float* weights) const {
  const Experts& e = hyper().experts;
  auto all = MakeAligned<float>(e.n);
  if (!e.softmax_of_chosen) kernels_.softmax(logits, e.n, all.get());
  for (int64_t j = 0; j < e.n_used; j++) {
    PB_ASSIGN(const int64_t expert, ExpertOf(ids[j], e.n));
    weights[j] = e.softmax_of_chosen ? logits[expert] : all[expert];
  }
  if (e.softmax_of_chosen) {
    std::copy_n(weights, e.n_used, all.get());
    kernels_.softmax(all.get(), e.n_used, all.get());
    std::copy_n(all.get(), e.n_used, weights);
  }
  float sum = 0;
  for (int64_t j = 0; j < e.n_used; j++) sum += weights[j];
  for (int64_t j = 0; e.normalised && j < e.n_used; j++) weights[j] /= sum;
  for (int64_t j = 0; e.scale != 1 && j < e.n_used; j++) weights[j] *= e.scale;
  return {};
}

Status Ops::ExpertProduct(pb_stage stage, int64_t layer, int64_t n, const float* x, const float* ids,
                          float* out) {
  const Experts& e = hyper().experts;
  const std::vector<Matrix>& matrices = weights_->experts[static_cast<size_t>(layer)].at(stage);
  std::vector<std::vector<int64_t>> parts(static_cast<size_t>(e.n));  // of each expert: token * n_used + slot
  for (int64_t i = 0; i < n * e.n_used; i++) {
    PB_ASSIGN(const int64_t expert, ExpertOf(ids[i], e.n));
    parts[static_cast<size_t>(expert)].push_back(i);
  }
  const bool own_rows = stage == PB_STAGE_EXPERT_DOWN;  // each expert has its own input
  for (size_t expert = 0; expert < parts.size(); expert++) {
    const Matrix& w = matrices[expert];
    const int64_t in_width = w.view.n_columns, out_width = w.view.n_rows;
    const auto m = static_cast<int64_t>(parts[expert].size());
    if (m == 0) continue;
    auto rows = MakeAligned<float>(m * in_width), made = MakeAligned<float>(m * out_width);
    for (int64_t i = 0; i < m; i++) {
      const int64_t at = parts[expert][static_cast<size_t>(i)];
      std::copy_n(x + (own_rows ? at : at / e.n_used) * in_width, in_width, rows.get() + i * in_width);
    }
    const ActScheme scheme = params_.act_quant.SchemeFor(w.view.type, w.view.n_rows, PlaceOf(stage));
    PB_TRY(Product(kernels_, pool_, w, scheme, rows.get(), m, made.get()));
    for (int64_t i = 0; i < m; i++)
      std::copy_n(made.get() + i * out_width, out_width,
                  out + parts[expert][static_cast<size_t>(i)] * out_width);
  }
  return {};
}

void Ops::MixExperts(const float* down, const float* weights, float* out) const {
  const int64_t width = hyper().d_model;
  for (int64_t i = 0; i < width; i++) out[i] = down[i] * weights[0];
  for (int64_t j = 1; j < hyper().experts.n_used; j++)
    for (int64_t i = 0; i < width; i++) out[i] += down[j * width + i] * weights[j];
}

void Ops::Rope(int64_t layer, const TokenRows& span, const float* x, int64_t n_heads, float* out) {
  const HyperParameters& h = hyper();
  if (!h.rotates(layer)) {
    std::copy_n(x, span.n * n_heads * h.head_dim, out);
    return;
  }
  RopeTable& table = h.is_local(layer) ? local_rope_ : rope_;
  table.Reach(span.n_visible());
  Rows(span.n, n_heads * h.head_dim, [&](int64_t row) {
    for (int64_t i = row * n_heads; i < (row + 1) * n_heads; i++) {
      kernels_.rope(x + i * h.head_dim, table.Row(span.first + row), h.rope_dims, h.head_dim,
                    params_.rope_pairing == RopePairing::kHalves, out + i * h.head_dim);
    }
  });
}

void Ops::FinishLogits(int64_t n, float* logits) const {
  const HyperParameters& h = hyper();
  for (int64_t i = 0; h.logit_scale != 1 && i < n; i++) logits[i] *= h.logit_scale;
  for (int64_t i = 0; h.logit_cap > 0 && i < n; i++)
    logits[i] = h.logit_cap * std::tanh(logits[i] * (1 / h.logit_cap));
}

Result<QuantRows> Ops::Codes(pb_stage stage, int64_t layer, int64_t n, const float* x) {
  const char* name = stages::Of(stage).name;
  if (!stages::kProducts.Contains(stage))
    return MakeError(Code::kUnsupported, "{}: not a product, so its input has no codes", name);
  const Matrix& w = weights_->Of(stage, layer);
  const ActScheme scheme = params_.act_quant.SchemeFor(w.view.type, w.view.n_rows, PlaceOf(stage));
  if (!IsIntegerScheme(scheme))
    return MakeError(Code::kUnsupported, "{}: its input is not quantised (act.quant {})", name,
                     ActSchemeName(scheme));
  return Quantise(kernels_, pool_, w, scheme, x, n);
}

Status Ops::Compute(pb_stage stage, int64_t layer, const TokenRows& span, std::span<const float* const> in,
                    const KvCache& cache, int64_t cache_layer, float* out) {
  const HyperParameters& h = hyper();
  const int64_t n = span.n, width = Width(stage, span), p = span.n_visible();
  const Kernels& k = kernels_;
  switch (stages::Of(stage).group) {
    case stages::Group::kNorm:
      return Norm(stage, layer, n, in[0], out), Status();
    case stages::Group::kProduct: {
      const Matrix& w = weights_->Of(stage, layer);
      const ActScheme scheme = params_.act_quant.SchemeFor(w.view.type, w.view.n_rows, PlaceOf(stage));
      PB_TRY(Product(k, pool_, w, scheme, in[0], n, out));
      if (stage == PB_STAGE_LOGITS) FinishLogits(n * width, out);
      return {};
    }
    case stages::Group::kRotary:
      return Rope(layer, span, in[0], stages::RowHeads(stage, h.shape()), out), Status();
    case stages::Group::kScores:
      ForHeads(span, [&](int64_t row, int64_t head) {
        float* to = out + row * width + head * p;
        Scores(layer, span.first + row, head, in[0] + (row * h.n_heads + head) * h.head_dim, cache,
               cache_layer, to);
        std::fill(to + span.first + row + 1, to + p, -std::numeric_limits<float>::infinity());
      });
      return {};
    case stages::Group::kSoftmax:
      ForHeads(span, [&](int64_t row, int64_t head) {
        const int64_t at = row * width + head * p, visible = span.first + row + 1;
        Softmax(layer, head, in[0] + at, visible, out + at);
        std::fill(out + at + visible, out + at + p, 0.0f);
      });
      return {};
    case stages::Group::kContext:
      ForHeads(span, [&](int64_t row, int64_t head) {
        Context(layer, span.first + row, head, in[0] + (row * h.n_heads + head) * p, cache, cache_layer,
                out + (row * h.n_heads + head) * h.head_dim);
      });
      return {};
    case stages::Group::kSum: {
      const float scale = stage == PB_STAGE_FFN_OUT ? 1 : h.residual_scale;  // of the stream alone
      Rows(n, width, [&](int64_t r) {
        const float* x = in[0] + r * width;
        if (scale != 1)
          for (int64_t i = 0; i < width; i++) out[r * width + i] = x[i] * scale;
        k.add(scale != 1 ? out + r * width : x, in[1] + r * width, width, out + r * width);
      });
      return {};
    }
    case stages::Group::kActivation:
      return Activate(n, width, in[0], out), Status();
    case stages::Group::kGate:
      return Gate(n, width, in[0], in[1], out), Status();
    case stages::Group::kSelect:
      Rows(n, h.experts.n, [&](int64_t r) { ChooseExperts(in[0] + r * h.experts.n, out + r * width); });
      return {};
    case stages::Group::kRouting:
      for (int64_t r = 0; r < n; r++)
        PB_TRY(WeighExperts(in[0] + r * h.experts.n, in[1] + r * width, out + r * width));
      return {};
    case stages::Group::kExpertProduct:
      return ExpertProduct(stage, layer, n, in[0], in[1], out);
    case stages::Group::kMixture:
      Rows(n, width, [&](int64_t r) {
        MixExperts(in[0] + r * width * h.experts.n_used, in[1] + r * h.experts.n_used, out + r * width);
      });
      return {};
    case stages::Group::kShared:
      Rows(n, width, [&](int64_t r) {
        const float share = 1.0f / (1.0f + std::exp(-in[1][r]));
        for (int64_t i = r * width; i < (r + 1) * width; i++) out[i] = in[0][i] * share;
      });
      return {};
    default:
      return MakeError(Code::kUnsupported, "stage {}: the native engine does not compute it alone",
                       stages::Of(stage).name);
  }
}

}  // namespace pb::native
