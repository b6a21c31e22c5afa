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
double RoundBlock(const float* x, int64_t n, Scheme scheme, const QuantiserFault& fault, int8_t* codes) {
  const float largest = LargestOf(x, n), magnitude = std::fabs(largest);
  float to_code = 0;
  double from_code = 0;
  int low = -127, high = 127;
  if (scheme == Scheme::kBitnet) {
    to_code = 127.0f / std::max(magnitude, 1e-5f), from_code = 1 / double(to_code), low = -128;
  } else if (magnitude > 0 && scheme == Scheme::kQ8_K) {
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
  return {w.matrix.data ? &w.matrix : nullptr, w.scale};
}

const std::vector<float>* NormWeight(const Model& model, pb_stage stage, int32_t layer) {
  const StageWeights& w = model.weights(stage, layer);
  return w.vector.empty() ? nullptr : &w.vector;
}

constexpr std::pair<Scheme, const char*> kSchemeNames[] = {
    {Scheme::kNone, "none"}, {Scheme::kF16, "f16"},   {Scheme::kBF16, "bf16"},
    {Scheme::kQ8_0, "q8_0"}, {Scheme::kQ8_K, "q8_k"}, {Scheme::kBitnet, "bitnet"}};

Scheme SchemeOf(const std::string& act_quant, BlockType weight, bool is_output) {
  std::string name = act_quant;
  if (is_output) name = name == "none" || name == "bitnet" ? "none" : "ggml";
  if (name == "ggml") {
    switch (weight) {
      case BlockType::kF32:
        return Scheme::kNone;
      case BlockType::kF16:
        return Scheme::kF16;
      case BlockType::kBF16:
        return Scheme::kBF16;
      case BlockType::kQ8_0:
        return Scheme::kQ8_0;
      case BlockType::kTQ1_0:
      case BlockType::kTQ2_0:
        return Scheme::kQ8_K;
      case BlockType::kI2_S:
        return Scheme::kBitnet;
      default:
        return Scheme::kOther;
    }
  }
  for (const auto& [scheme, own] : kSchemeNames)
    if (name == own) return scheme;
  return Scheme::kOther;
}

const char* SchemeName(Scheme scheme) {
  for (const auto& [own, name] : kSchemeNames)
    if (scheme == own) return name;
  return "";
}

Scheme OwnScheme(const Op& op) {
  return SchemeOf(op.act_quant, MatrixOf(*op.model, op.stage, op.layer).view->type,
                  op.stage == PB_STAGE_LOGITS);
}

RowCodes CodesOf(const float* x, int64_t n, Scheme scheme, const QuantiserFault& fault) {
  RowCodes row;
  row.block = fault.block ? fault.block : scheme == Scheme::kQ8_K ? 256 : scheme == Scheme::kBitnet ? n : 32;
  row.codes.resize(static_cast<size_t>(n));
  for (int64_t k = 0; k < n; k += row.block)
    row.scales.push_back(RoundBlock(x + k, std::min(row.block, n - k), scheme, fault, row.codes.data() + k));
  return row;
}

std::vector<double> Rounded(const float* x, int64_t n, Scheme scheme, const QuantiserFault& fault) {
  std::vector<double> out(x, x + n);
  if (scheme == Scheme::kNone) return out;
  if (scheme == Scheme::kF16) {
    for (double& v : out) v = RoundF16(static_cast<float>(v));
    return out;
  }
  if (scheme == Scheme::kBF16) {
    for (double& v : out) v = Bf16ToF32(F32ToBf16(static_cast<float>(v)));
    return out;
  }
  const RowCodes row = CodesOf(x, n, scheme, fault);
  for (size_t k = 0; k < out.size(); k++)
    out[k] = row.codes[k] * row.scales[k / static_cast<size_t>(row.block)];
  return out;
}

void Product(Op& op, const Weights& w, Scheme scheme, const QuantiserFault& fault) {
  ProductWith(op, w, scheme, fault, [](int64_t, std::vector<float>&) {});
}

bool RoundsAttention(const Op& op) { return op.kv_f16 && op.act_quant != "none"; }

}  // namespace pb::mutant
