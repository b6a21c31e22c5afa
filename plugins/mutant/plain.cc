// Quantisers and products as plain loops in double.
#include "plugins/mutant/plain.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/half.h"

namespace pb::mutant {
namespace {

float LargestOf(const float* x, int64_t n) {
  float largest = 0;
  for (int64_t k = 0; k < n; k++)
    if (std::fabs(x[k]) > std::fabs(largest)) largest = x[k];
  return largest;
}

// Codes of one block: value * to_code rounded. Returns the value of one code.
double RoundBlock(const float* x, int64_t n, ActScheme scheme, const QuantiserFault& fault, int8_t* codes) {
  const float largest = LargestOf(x, n), magnitude = std::fabs(largest);
  float to_code = 0;
  double from_code = 0;
  int low = -127, high = 127;
  if (scheme == ActScheme::kBitnet) {
    to_code = 127.0f / std::max(magnitude, 1e-5f), from_code = 1 / double(to_code), low = -128;
  } else if (magnitude > 0 && scheme == ActScheme::kQ8_K) {
    to_code = -127.0f / largest, from_code = double(1.0f / to_code), low = -128;
  } else if (magnitude > 0) {
    to_code = 127.0f / magnitude, from_code = double(RoundF16(magnitude / 127.0f));
  }
  if (fault.clamp) low = -fault.clamp, high = fault.clamp;
  for (int64_t k = 0; k < n; k++) {
    const float scaled = x[k] * to_code;
    const float code = fault.truncate ? std::trunc(scaled) : std::nearbyint(scaled);
    codes[k] = static_cast<int8_t>(std::clamp(code, float(low), float(high)));
  }
  return from_code;
}

}  // namespace

float RoundF16(float x) { return F16ToF32(F32ToF16(x)); }

std::vector<float> Weights::Row(int64_t r) const {
  std::vector<float> row(static_cast<size_t>(view->n_columns));
  DecodeRow(*view, r, row.data());
  return row;
}

Weights MatrixOf(const Model& model, pb_stage stage, int32_t layer) {
  if (!stages::kProducts.Contains(stage)) return {};
  const StageWeights& w = model.weights(stage, layer);
  return {w.matrix.data ? &w.matrix : nullptr, w.scale, w.bias};
}

const std::vector<float>* NormWeight(const Model& model, pb_stage stage, int32_t layer) {
  const StageWeights& w = model.weights(stage, layer);
  return w.vector.empty() ? nullptr : &w.vector;
}

ActScheme OwnScheme(const Op& op) {
  const WeightView& w = *MatrixOf(*op.model, op.stage, op.layer).view;
  return op.act_quant.SchemeFor(w.type, w.n_rows, op.stage == PB_STAGE_LOGITS);
}

RowCodes CodesOf(const float* x, int64_t n, ActScheme scheme, const QuantiserFault& fault) {
  RowCodes row;
  row.block = fault.block ? fault.block : ActBlockValues(scheme, n);
  row.codes.resize(static_cast<size_t>(n));
  for (int64_t k = 0; k < n; k += row.block)
    row.scales.push_back(RoundBlock(x + k, std::min(row.block, n - k), scheme, fault, row.codes.data() + k));
  return row;
}

std::vector<double> Rounded(const float* x, int64_t n, ActScheme scheme, const QuantiserFault& fault) {
  std::vector<double> out(x, x + n);
  if (scheme == ActScheme::kNone) return out;
  if (scheme == ActScheme::kF16 || scheme == ActScheme::kF16Sums) {
    for (double& v : out) v = RoundF16(static_cast<float>(v));
    return out;
  }
  if (scheme == ActScheme::kBF16) {
    for (double& v : out) v = Bf16ToF32(F32ToBf16(static_cast<float>(v)));
    return out;
  }
  const RowCodes row = CodesOf(x, n, scheme, fault);
  for (size_t k = 0; k < out.size(); k++)
    out[k] = row.codes[k] * row.scales[k / static_cast<size_t>(row.block)];
  return out;
}

float Finished(const Op& op, double value, bool capped) {
  if (op.stage != PB_STAGE_LOGITS) return static_cast<float>(value);
  const HyperParameters& p = op.params();
  const double scaled = value * double(p.logit_scale), cap = double(p.logit_cap);
  return static_cast<float>(capped && cap > 0 ? cap * std::tanh(scaled / cap) : scaled);
}

void Product(Op& op, const Weights& w, ActScheme scheme, const QuantiserFault& fault) {
  ProductWith(op, w, scheme, fault, [](int64_t, std::vector<float>&) {});
}

void SumInF16(Op& op) {
  const Weights w = MatrixOf(*op.model, op.stage, op.layer);
  if (!w.view || w.view->type != BlockType::kF16) return;
  constexpr int64_t kLanes = 32;
  for (int64_t r = 0; r < w.n_out(); r++) {
    const std::vector<float> row = w.Row(r);
    for (int64_t i = 0; i < op.n; i++) {
      float lanes[kLanes] = {}, sum = 0;
      for (int64_t k = 0; k < w.n_in(); k++)
        lanes[k % kLanes] =
            RoundF16(lanes[k % kLanes] + row[static_cast<size_t>(k)] * RoundF16(op.in(0, i)[k]));
      for (float lane : lanes) sum = RoundF16(sum + lane);
      op.row(i)[r] = Finished(op, double(sum * w.scale + static_cast<float>(w.BiasOf(r))));
    }
  }
}

bool RoundsAttention(const Op& op) { return op.kv_f16 && op.act_quant.all != ActScheme::kNone; }

}  // namespace pb::mutant
