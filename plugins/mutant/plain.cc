// Quantisers and products as plain loops in double.
#include "plugins/mutant/plain.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/half.h"

namespace pb::mutant {
namespace {

// Whether a scheme keeps its scales in float32.
bool IsFloatScale(ActScheme scheme) { return scheme == ActScheme::kQ8_K || scheme == ActScheme::kBitnet; }

float LargestOf(const float* x, int64_t n) {
  float largest = 0;
  for (int64_t k = 0; k < n; k++)
    if (std::fabs(x[k]) > std::fabs(largest)) largest = x[k];
  return largest;
}

// How one block's values become codes.
struct BlockScale {
  float to_code = 0;
  double from_code = 0;  // the value of one code
  float sum_scale = 0;   // d before it is rounded to f16
};

BlockScale ScaleOf(const float* x, int64_t n, ActScheme scheme, const QuantiserFault& fault) {
  const float largest = LargestOf(x, n), magnitude = std::fabs(largest);
  const bool bitnet = scheme == ActScheme::kBitnet;
  if (magnitude == 0 && !bitnet) return {};
  if (fault.other_arithmetic) {
    const float d = (bitnet                       ? std::max(magnitude, 1e-5f)
                     : scheme == ActScheme::kQ8_K ? -largest
                                                  : magnitude) *
                    (1 / 127.0f);
    return {1.0f / d, IsFloatScale(scheme) ? double(d) : double(RoundF16(d)), d};
  }
  if (bitnet) {
    const float to_code = 127.0f / std::max(magnitude, 1e-5f);
    return {to_code, 1 / double(to_code), 0};
  }
  if (scheme == ActScheme::kQ8_K) return {-127.0f / largest, double(1.0f / (-127.0f / largest)), 0};
  return {127.0f / magnitude, double(RoundF16(magnitude / 127.0f)), magnitude / 127.0f};
}

float Code(float scaled, const QuantiserFault& fault) {
  return fault.truncate           ? std::trunc(scaled)
         : fault.other_arithmetic ? std::round(scaled)
                                  : std::nearbyint(scaled);
}

// Codes of one block: value * to_code rounded; of Q8_1 its sum.
void RoundBlock(const float* x, int64_t n, ActScheme scheme, const QuantiserFault& fault, RowCodes* row) {
  const BlockScale scale = ScaleOf(x, n, scheme, fault);
  const int high = fault.clamp ? fault.clamp : 127;
  const int low = fault.clamp ? -fault.clamp : IsFloatScale(scheme) ? -128 : -127;
  float sum = 0;
  for (int64_t k = 0; k < n; k++) {
    const float code = std::clamp(Code(x[k] * scale.to_code, fault), float(low), float(high));
    row->codes.push_back(static_cast<int8_t>(code));
    sum += fault.other_arithmetic ? code * scale.sum_scale : code;
  }
  row->scales.push_back(scale.from_code);
  if (scheme == ActScheme::kQ8_1)
    row->sums.push_back(RoundF16(fault.other_arithmetic ? sum : sum * scale.sum_scale));
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
  return op.act_quant.SchemeFor(w.type, w.n_rows, PlaceOf(op.stage));
}

RowCodes CodesOf(const float* x, int64_t n, ActScheme scheme, const QuantiserFault& fault) {
  RowCodes row;
  row.block = fault.block ? fault.block : ActBlockValues(scheme, n);
  for (int64_t k = 0; k < n; k += row.block)
    RoundBlock(x + k, std::min(row.block, n - k), scheme, fault, &row);
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
