// Activation, gate, residual and embeddings gone wrong; and other right ways to compute an op.
#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "plugins/mutant/catalogue.h"

namespace pb::mutant {
namespace {

double Active(double x, int which) {
  constexpr double kTanhFactor = 0.7978845608028654;  // sqrt(2 / pi)
  switch (which) {
    case 0:
      return x / (1 + std::exp(-x));
    case 1:
      return std::max(x, 0.0);
    case 2:
      return x > 0 ? x * x : 0;
    case 3:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case 4:
      return 0.5 * x * (1 + std::tanh(kTanhFactor * (x + 0.044715 * x * x * x)));
    case 6: {
      const double capped = std::min(x, double(kSwigluOaiLimit));
      return capped / (1 + std::exp(-double(kSwigluOaiSlope) * capped));
    }
    default:
      return x;
  }
}

int ActivationOf(const Op& op) {
  const auto& declared = op.params().ffn_activation;
  switch (declared ? declared->value : Activation::kSilu) {
    case Activation::kSilu:
      return 0;
    case Activation::kRelu:
      return 1;
    case Activation::kRelu2:
      return 2;
    case Activation::kGelu:
      return 3;
    case Activation::kGeluTanh:
      return 4;
    case Activation::kSwigluOai:
      return 6;
  }
  return 0;
}

// Sums in float, from the last term to the first.
float BackwardsDot(const std::vector<double>& x, const std::vector<float>& w) {
  float sum = 0;
  for (size_t k = w.size(); k-- > 0;) sum += static_cast<float>(x[k]) * w[k];
  return sum;
}

void OtherSumProduct(Op& op, bool backwards) {
  const Weights w = MatrixOf(*op.model, op.stage, op.layer);
  if (!backwards) return Product(op, w, OwnScheme(op), {});
  std::vector<std::vector<double>> x;
  for (int64_t i = 0; i < op.n; i++) x.push_back(Rounded(op.in(0, i), w.n_in(), OwnScheme(op), {}));
  for (int64_t r = 0; r < w.n_out(); r++) {
    const std::vector<float> row = w.Row(r);
    for (int64_t i = 0; i < op.n; i++)
      op.row(i)[r] = Finished(op, double(BackwardsDot(x[static_cast<size_t>(i)], row) * w.scale +
                                         static_cast<float>(w.BiasOf(r))));
  }
}

void OtherSumNorm(Op& op, const std::vector<float>& weight, bool backwards) {
  const auto n = static_cast<int64_t>(weight.size());  // the row, or a head of it
  const std::vector<float>& bias = op.model->weights(op.stage, op.layer).bias;
  for (int64_t at = 0; at < op.n * op.width; at += n) {
    const float* x = op.inputs[0].values.data() + at;
    float sum = 0, mean = 0;
    for (int64_t k = 0; op.params().layer_norm && k < n; k++)
      mean += x[backwards ? n - 1 - k : k] / static_cast<float>(n);
    for (int64_t k = 0; k < n; k++) {
      const float v = x[backwards ? n - 1 - k : k] - mean;
      sum += v * v;
    }
    const float inverse = 1.0f / std::sqrt(sum / static_cast<float>(n) + op.params().norm_eps.value);
    for (int64_t k = 0; k < n; k++) op.out[at + k] = (x[k] - mean) * inverse * weight[static_cast<size_t>(k)];
    for (int64_t k = 0; !bias.empty() && k < n; k++) op.out[at + k] += bias[static_cast<size_t>(k)];
  }
}

}  // namespace

// ggml's table of tanh-GELU, in double: of values rounded to f16, rounded to f16.
bool Tabulated(const Op& op, int which) {
  return which == 4 && ActivationOf(op) == 4 && op.act_quant.all != ActScheme::kNone;
}

void OtherActivation(Op& op, double which) {
  const int kind = static_cast<int>(which);
  const bool tabulated = Tabulated(op, kind);
  for (int64_t i = 0; i < op.n * op.width; i++) {
    const float x = op.inputs[0].values[static_cast<size_t>(i)];
    op.out[i] = tabulated && std::fabs(x) < 10
                    ? RoundF16(static_cast<float>(Active(double(RoundF16(x)), kind)))
                    : static_cast<float>(Active(x, kind));
  }
}

// 0: up is not multiplied in; 1: it is added; 2: it is multiplied in as it is.
void Gate(Op& op, double which) {
  for (int64_t i = 0; i < op.n * op.width; i++) {
    const auto at = static_cast<size_t>(i);
    if (which > 1) {
      op.out[i] =
          op.inputs[0].values[at] * std::clamp(op.inputs[1].values[at], -kSwigluOaiLimit, kSwigluOaiLimit);
      continue;
    }
    op.out[i] = which > 0 ? op.inputs[0].values[at] + op.inputs[1].values[at] : op.inputs[0].values[at];
  }
}

// 0: the op's output alone; 1: the stream alone; 2: the stream twice; 3: unscaled.
void Residual(Op& op, double which) {
  const float scale = which == 3 ? 1 : op.params().residual_scale;  // 3: forgotten
  for (int64_t i = 0; i < op.n * op.width; i++) {
    const float a = op.inputs[0].values[static_cast<size_t>(i)] * scale,
                b = op.inputs[1].values[static_cast<size_t>(i)];
    op.out[i] = which == 0 ? a : which == 1 ? b : which == 2 ? a + 2 * b : a + b;
  }
}

// 0: by sqrt(d_model) once more; 1: not as the model scales.
void EmbeddingScale(Op& op, double which) {
  const double scale = which > 0 ? 1 / double(op.params().embedding_scale)
                                 : std::sqrt(static_cast<double>(op.params().d_model));
  for (int64_t i = 0; i < op.n * op.width; i++) op.out[i] = static_cast<float>(op.out[i] * scale);
}

// Of tokens with an odd id the next token's row is read.
void NextTokensRow(Op& op, double) {
  const WeightView& table = op.model->token_embedding();
  for (int64_t i = 0; i < op.n; i++)
    if (op.tokens[i] % 2 == 1) DecodeRow(table, (op.tokens[i] + 1) % table.n_rows, op.row(i));
}

// Each value one step up, down, or as it is.
void Ulp(Op& op, double) {
  ChangeAtRandom(op, op.seed, [](Random& random, float* x) {
    const uint64_t step = random.Below(3);
    if (step > 0 && std::isfinite(*x) && *x != 0) *x = std::nextafter(*x, step == 1 ? INFINITY : -INFINITY);
  });
}

// 0: in double; 1: in float, from the last term to the first.
void OtherSum(Op& op, double which) {
  if (const std::vector<float>* weight = NormWeight(*op.model, op.stage, op.layer))
    return OtherSumNorm(op, *weight, which > 0);
  OtherSumProduct(op, which > 0);
}

void OtherFormula(Op& op, double) {
  switch (op.stage) {
    case PB_STAGE_Q_ROPE:
    case PB_STAGE_K_ROPE:
      return Rope<RopeFault::kOffset>(op, 0);  // angles in double
    case PB_STAGE_ATTN_SCORES_SOFTMAX:
      return Softmax(op, 1);
    case PB_STAGE_ATTN_SCORES:
    case PB_STAGE_ATTN_CONTEXT:
      return Mask(op, 0);
    default:
      return OtherActivation(op, ActivationOf(op));
  }
}

}  // namespace pb::mutant
