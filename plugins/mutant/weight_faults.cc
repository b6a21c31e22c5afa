// Norms and products gone wrong.
#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "plugins/mutant/catalogue.h"

namespace pb::mutant {
namespace {

enum NormKind { kMissing, kTwice, kUnweighted, kPlusOne, kCentred, kUncentred };

void NormRow(const float* x, int64_t n, double eps, const std::vector<double>& weight, bool centred,
             float* out) {
  double mean = 0, squares = 0;
  for (int64_t k = 0; centred && k < n; k++) mean += double(x[k]) / static_cast<double>(n);
  for (int64_t k = 0; k < n; k++) squares += (x[k] - mean) * (x[k] - mean);
  const double inverse = 1 / std::sqrt(squares / static_cast<double>(n) + eps);
  for (int64_t k = 0; k < n; k++)
    out[k] = static_cast<float>((x[k] - mean) * inverse * weight[static_cast<size_t>(k)]);
}

// Each run of values that a norm is taken over: a row, or each head of it.
template <typename Body>
void ForNorms(Op& op, Body body) {
  const auto n = static_cast<int64_t>(NormWeight(*op.model, op.stage, op.layer)->size());
  for (int64_t at = 0; at < op.n * op.width; at += n) body(op.inputs[0].values.data() + at, n, op.out + at);
}

void AddNormBias(const Op& op, int64_t n, float* y) {
  const std::vector<float>& bias = op.model->weights(op.stage, op.layer).bias;
  for (int64_t k = 0; !bias.empty() && k < n; k++) y[k] += bias[static_cast<size_t>(k)];
}

std::vector<double> OwnNormWeight(const Op& op) {
  const std::vector<float>& w = *NormWeight(*op.model, op.stage, op.layer);
  return {w.begin(), w.end()};
}

// Each row's columns in another order: column j becomes what column source(j) was.
template <typename Source>
void Reorder(Op& op, Source source) {
  std::vector<float> old(static_cast<size_t>(op.width));
  for (int64_t i = 0; i < op.n; i++) {
    std::copy_n(op.row(i), op.width, old.data());
    for (int64_t j = 0; j < op.width; j++) op.row(i)[j] = old[static_cast<size_t>(source(j))];
  }
}

struct NormSource {
  pb_stage stage;
  int32_t layer;
};
// Another layer's, or another one of this layer's.
NormSource OtherNorm(const Op& op, bool of_this_layer) {
  const auto n = static_cast<int32_t>(op.params().n_layers);
  if (op.layer < 0) return {of_this_layer ? PB_STAGE_ATTN_NORM : PB_STAGE_FFN_NORM, n - 1};
  if (of_this_layer)
    return {op.stage == PB_STAGE_ATTN_NORM ? PB_STAGE_FFN_NORM : PB_STAGE_ATTN_NORM, op.layer};
  return {op.stage, op.layer + 1 < n ? op.layer + 1 : op.layer - 1};
}

int64_t HeadWidth(const Op& op) {
  return stages::kOverPositions.Contains(op.stage) ? op.n_visible() : op.params().head_dim;
}

}  // namespace

double TernaryScale(const Weights& w) {
  double largest = 0;
  for (float x : w.Row(0)) largest = std::max(largest, std::fabs(double(x)));
  return w.scale != 1 ? double(w.scale) : largest;
}

pb_stage PartnerOf(pb_stage stage) {
  switch (stage) {
    case PB_STAGE_Q_PROJ:
      return PB_STAGE_ATTN_OUT;
    case PB_STAGE_ATTN_OUT:
      return PB_STAGE_Q_PROJ;
    case PB_STAGE_K_PROJ:
      return PB_STAGE_V_PROJ;
    case PB_STAGE_V_PROJ:
      return PB_STAGE_K_PROJ;
    case PB_STAGE_GATE_PROJ:
      return PB_STAGE_UP_PROJ;
    case PB_STAGE_UP_PROJ:
      return PB_STAGE_GATE_PROJ;
    default:
      return stage;
  }
}

void NormFault(Op& op, double which) {
  std::vector<double> weight = OwnNormWeight(op);
  const std::vector<double> declared = weight;
  const double eps = op.params().norm_eps.value;
  const int kind = static_cast<int>(which);
  for (double& w : weight) w = kind == kUnweighted ? 1 : kind == kPlusOne ? w + 1 : w;
  const bool centred = kind == kCentred || (kind != kUncentred && op.params().layer_norm);
  ForNorms(op, [&](const float* x, int64_t n, float* y) {
    if (kind == kMissing) return static_cast<void>(std::copy_n(x, n, y));
    NormRow(x, n, eps, weight, centred, y);
    if (kind == kTwice) {
      const std::vector<float> once(y, y + n);
      NormRow(once.data(), n, eps, declared, centred, y);
    }
    AddNormBias(op, n, y);
  });
}

void NormEps(Op& op, double eps) {
  const std::vector<double> weight = OwnNormWeight(op);
  ForNorms(op, [&](const float* x, int64_t n, float* y) {
    NormRow(x, n, eps, weight, op.params().layer_norm, y);
    AddNormBias(op, n, y);
  });
}

void NormWithoutBias(Op& op, double) {
  const std::vector<double> weight = OwnNormWeight(op);
  ForNorms(op, [&](const float* x, int64_t n, float* y) {
    NormRow(x, n, op.params().norm_eps.value, weight, op.params().layer_norm, y);
  });
}

void NormOfOtherTensor(Op& op, double which) {
  const NormSource from = OtherNorm(op, which > 0);
  const std::vector<float>& other = *NormWeight(*op.model, from.stage, from.layer);
  const std::vector<double> weight(other.begin(), other.end());
  ForNorms(op, [&](const float* x, int64_t n, float* y) {
    NormRow(x, n, op.params().norm_eps.value, weight, op.params().layer_norm, y);
    AddNormBias(op, n, y);
  });
}

void FeatureFactor(Op& op, double factor) {
  const int64_t j = SpotFeature(op);
  for (int64_t i = 0; i < op.n; i++) op.row(i)[j] = static_cast<float>(op.row(i)[j] * factor);
}

void HeadFactor(Op& op, double factor) {
  const int64_t d = HeadWidth(op);
  const int64_t h = SpotHead(op);
  for (int64_t i = 0; i < op.n; i++)
    for (int64_t k = h * d; k < (h + 1) * d; k++)
      if (std::isfinite(op.row(i)[k])) op.row(i)[k] = static_cast<float>(op.row(i)[k] * factor);
}

void TailZero(Op& op, double n) {
  for (int64_t i = 0; i < op.n; i++)
    std::fill_n(op.row(i) + op.width - static_cast<int64_t>(n), static_cast<int64_t>(n), 0.0f);
}

void Factor(Op& op, double factor) {
  for (int64_t i = 0; i < op.n * op.width; i++)
    if (std::isfinite(op.out[i])) op.out[i] = static_cast<float>(op.out[i] * factor);
}

void ScaleFault(Op& op, double power) {
  Factor(op, std::pow(TernaryScale(MatrixOf(*op.model, op.stage, op.layer)), power));
}

void WeightCell(Op& op, double relative) {
  const Weights w = MatrixOf(*op.model, op.stage, op.layer);
  Random random(op.seed * 31 + static_cast<uint64_t>(op.stage));
  const int64_t r = SpotFeature(op);
  const std::vector<float> row = w.Row(r);
  const auto start = static_cast<size_t>(random.Below(static_cast<uint64_t>(w.n_in())));
  size_t c = start;
  while (row[c] == 0 && c + 1 != start) c = (c + 1) % row.size();
  const double delta = relative * double(row[c]) * double(w.scale);
  for (int64_t i = 0; i < op.n; i++) {
    const double x = Rounded(op.in(0, i), w.n_in(), OwnScheme(op), {})[c];
    op.row(i)[r] = static_cast<float>(double(op.row(i)[r]) + delta * x);
  }
}

void ExchangedRows(Op& op, double) {
  const int64_t a = SpotFeature(op), b = SecondRow(op);
  Reorder(op, [&](int64_t j) { return j == a ? b : j == b ? a : j; });
}

void ShiftedRows(Op& op, double) {
  Reorder(op, [&](int64_t j) { return (j + 1) % op.width; });
}

void ExchangedHeads(Op& op, double) {
  const int64_t d = HeadWidth(op);
  Reorder(op, [&](int64_t j) { return j < d ? j + d : j < 2 * d ? j - d : j; });
}

void PairedRows(Op& op, double) {
  const int64_t d = op.params().head_dim;
  Reorder(op, [&](int64_t j) { return j / d * d + (j % d % 2) * (d / 2) + j % d / 2; });
}

void Transposed(Op& op, double) {
  const Weights w = MatrixOf(*op.model, op.stage, op.layer);
  std::vector<std::vector<float>> columns(static_cast<size_t>(w.n_in()),
                                          std::vector<float>(static_cast<size_t>(w.n_out())));
  for (int64_t r = 0; r < w.n_out(); r++) {
    const std::vector<float> row = w.Row(r);
    for (size_t k = 0; k < row.size(); k++) columns[k][static_cast<size_t>(r)] = row[k];
  }
  ProductWith(op, w, OwnScheme(op), {},
              [&](int64_t r, std::vector<float>& row) { row = columns[static_cast<size_t>(r)]; });
}

// Blocks of 128 codes in 32 bytes, four to a byte: 0: the four in reverse; 1: a byte holds four
// consecutive ones.
void CodeOrder(Op& op, double which) {
  ProductWith(op, MatrixOf(*op.model, op.stage, op.layer), OwnScheme(op), {},
              [&](int64_t, std::vector<float>& row) {
                const std::vector<float> right = row;
                for (size_t start = 0; start + 128 <= row.size(); start += 128)
                  for (size_t byte = 0; byte < 32; byte++)
                    for (size_t code = 0; code < 4; code++) {
                      if (which > 0) {
                        row[start + byte * 4 + code] = right[start + code * 32 + byte];
                      } else {
                        row[start + (3 - code) * 32 + byte] = right[start + code * 32 + byte];
                      }
                    }
              });
}

// Codes 0, 1, 2 are not brought to -1, 0, 1.
void CodesUncentred(Op& op, double sign) {
  const Weights w = MatrixOf(*op.model, op.stage, op.layer);
  ProductWith(op, w, OwnScheme(op), {},
              [step = sign * TernaryScale(w) / double(w.scale)](int64_t, std::vector<float>& row) {
                for (float& x : row) x += static_cast<float>(step);
              });
}

// 0: of the layer after (of the last one: before); 1: another matrix of this layer.
void OtherMatrix(Op& op, double which) {
  const auto n = static_cast<int32_t>(op.params().n_layers);
  const int32_t layer = which > 0 ? op.layer : op.layer + 1 < n ? op.layer + 1 : op.layer - 1;
  Product(op, MatrixOf(*op.model, which > 0 ? PartnerOf(op.stage) : op.stage, layer), OwnScheme(op), {});
}

void TailColumns(Op& op, double n) {
  ProductWith(op, MatrixOf(*op.model, op.stage, op.layer), OwnScheme(op), {},
              [&](int64_t, std::vector<float>& row) {
                std::fill_n(row.end() - static_cast<ptrdiff_t>(n), static_cast<size_t>(n), 0.0f);
              });
}

void Bias(Op& op, double size) {
  Random random(op.seed * 77 + static_cast<uint64_t>(op.stage) * 1009 + static_cast<uint64_t>(op.layer + 1));
  for (int64_t j = 0; j < op.width; j++) {
    const double b = size * random.Normal();
    for (int64_t i = 0; i < op.n; i++) op.row(i)[j] = static_cast<float>(double(op.row(i)[j]) + b);
  }
}

void LogitsUncapped(Op& op, double) {
  ProductWith(
      op, MatrixOf(*op.model, op.stage, op.layer), OwnScheme(op), {}, [](int64_t, std::vector<float>&) {},
      false);
}

void NoBias(Op& op, double) {
  Weights w = MatrixOf(*op.model, op.stage, op.layer);
  w.bias = {};
  Product(op, w, OwnScheme(op), {});
}

namespace {

QuantiserFault BlockFault(double block) { return {.block = static_cast<int64_t>(block)}; }
QuantiserFault ClampFault(double clamp) { return {.clamp = static_cast<int>(clamp)}; }

}  // namespace

void OtherScheme(Op& op, double scheme) {
  Product(op, MatrixOf(*op.model, op.stage, op.layer), static_cast<ActScheme>(static_cast<int>(scheme)), {});
}
void QuantiserBlock(Op& op, double block) {
  Product(op, MatrixOf(*op.model, op.stage, op.layer), OwnScheme(op), BlockFault(block));
}
void QuantiserTruncates(Op& op, double) {
  Product(op, MatrixOf(*op.model, op.stage, op.layer), OwnScheme(op), {.truncate = true});
}
void QuantiserClamps(Op& op, double clamp) {
  Product(op, MatrixOf(*op.model, op.stage, op.layer), OwnScheme(op), ClampFault(clamp));
}

// The scheme's own quantiser by other arithmetic. What Q8_1 stores of a block's sum beyond that of
// its codes' values meets the block's minimum.
void OtherQuantiser(Op& op, double) {
  const Weights w = MatrixOf(*op.model, op.stage, op.layer);
  const ActScheme scheme = OwnScheme(op);
  const QuantiserFault other{.other_arithmetic = true};
  if (!IsIntegerScheme(scheme)) return;
  Product(op, w, scheme, other);
  if (scheme != ActScheme::kQ8_1) return;
  std::vector<std::vector<double>> beyond;  // of each row's blocks
  for (int64_t i = 0; i < op.n; i++) {
    const RowCodes x = CodesOf(op.in(0, i), w.n_in(), scheme, other);
    std::vector<double>& row = beyond.emplace_back(x.sums.begin(), x.sums.end());
    for (size_t k = 0; k < x.codes.size(); k++) row[k / 32] -= x.codes[k] * x.scales[k / 32];
  }
  for (int64_t r = 0; r < w.n_out(); r++) {
    const std::vector<double> minima = BlockMinima(*w.view, r);
    for (int64_t i = 0; i < op.n; i++) {
      double sum = 0;
      for (size_t b = 0; b < minima.size(); b++) sum += minima[b] * beyond[static_cast<size_t>(i)][b];
      op.row(i)[r] = static_cast<float>(double(op.row(i)[r]) + sum * double(w.scale));
    }
  }
}

std::optional<FaultyQuantiser> QuantiserOf(const Defect& d, const Op& op) {
  if (!Obstacle(d, op).empty()) return std::nullopt;
  if (d.commit == OtherScheme)
    return FaultyQuantiser{static_cast<ActScheme>(static_cast<int>(d.parameter)), {}};
  if (d.commit == QuantiserBlock) return FaultyQuantiser{OwnScheme(op), BlockFault(d.parameter)};
  if (d.commit == QuantiserTruncates) return FaultyQuantiser{OwnScheme(op), {.truncate = true}};
  if (d.commit == OtherQuantiser && IsIntegerScheme(OwnScheme(op)))
    return FaultyQuantiser{OwnScheme(op), {.other_arithmetic = true}};
  if (d.commit == QuantiserClamps) return FaultyQuantiser{OwnScheme(op), ClampFault(d.parameter)};
  return std::nullopt;
}

}  // namespace pb::mutant
