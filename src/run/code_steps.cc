#include "run/code_steps.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "base/bytes.h"
#include "base/half.h"

namespace pb::run {
namespace {

// A quantiser's block: how values become codes and codes values again, in float32 as the schemes define them.
struct Scheme {
  int64_t block = 0;    // values; 0: nothing is quantised, nothing to explain
  bool q8_1 = false;    // stores d x sum of codes as f16
  bool q8_k = false;    // the value of largest magnitude becomes -127, d stays float32
  bool bitnet = false;  // a row is a block; 127 / max(|x|, 1e-5)
};

std::optional<Scheme> SchemeOf(const std::string& act_quant, BlockType weight, bool output,
                               int64_t n_columns) {
  std::string name = act_quant;
  if (name == "ggml" || output) {
    switch (weight) {
      case BlockType::kQ8_0:
        name = "q8_0";
        break;
      case BlockType::kQ4_1:
        name = "q8_1";
        break;
      case BlockType::kTQ1_0:
      case BlockType::kTQ2_0:
        name = "q8_k";
        break;
      case BlockType::kI2_S:
        name = "bitnet";
        break;
      default:
        return std::nullopt;
    }
  }
  if (name == "q8_0") return Scheme{.block = 32};
  if (name == "q8_1") return Scheme{.block = 32, .q8_1 = true};
  if (name == "q8_k") return Scheme{.block = 256, .q8_k = true};
  if (name == "bitnet") return Scheme{.block = n_columns, .bitnet = true};
  return std::nullopt;
}

struct Block {
  float to_code = 0;     // x -> code
  double from_code = 0;  // code -> value
  double sum_scale = 0;  // d before its rounding to f16 (Q8_1)
  int sum = 0;           // of the codes
};

Block BlockOf(std::span<const float> x, const Scheme& scheme) {
  float largest = 0, magnitude = 0;
  for (float v : x) {
    if (std::fabs(v) > magnitude) magnitude = std::fabs(v), largest = v;
  }
  Block b;
  if (scheme.bitnet) {
    b.to_code = 127.0f / std::max(magnitude, 1e-5f);
    b.from_code = 1.0 / b.to_code;
  } else if (magnitude == 0) {
    return b;
  } else if (scheme.q8_k) {
    b.to_code = -127.0f / largest;
    b.from_code = 1.0f / b.to_code;
  } else {
    const float d = magnitude / 127.0f;
    b.to_code = 127.0f / magnitude;
    b.from_code = F16ToF32(F32ToF16(d));
    b.sum_scale = d;
  }
  for (float v : x) b.sum += static_cast<int>(std::nearbyint(v * b.to_code));
  return b;
}

// Whether x's code may go either way: x * to_code lies within its own float32 rounding of a half.
bool OnBoundary(float x, const Block& b) {
  const double code = std::fabs(double(x) * double(b.to_code));
  return std::fabs(code - std::floor(code) - 0.5) <= 8 * 0x1p-24 * std::max(code, 1.0);
}

// From the code chosen here to the other neighbour of a value on a boundary: -1 or +1.
int OtherWay(float x, const Block& b) {
  const double exact = double(x) * double(b.to_code), lower = std::floor(exact);
  return std::nearbyint(x * b.to_code) == lower ? 1 : -1;
}

double StoredSum(const Block& b, int step) {
  return F16ToF32(F32ToF16(static_cast<float>(b.sum_scale * (b.sum + step))));
}

// The codes of one activation row that may go either way.
class RowCodes {
 public:
  RowCodes(std::span<const float> x, const Scheme& scheme, const WeightView& w, double scale)
      : x_(x), scheme_(scheme), w_(w), scale_(scale), row_(x.size()) {
    for (size_t start = 0; start < x.size(); start += static_cast<size_t>(scheme.block)) {
      blocks_.push_back(BlockOf(x.subspan(start, static_cast<size_t>(scheme.block)), scheme));
      for (size_t k = start; k < start + static_cast<size_t>(scheme.block); k++) {
        if (OnBoundary(x[k], blocks_.back())) codes_.push_back({static_cast<int64_t>(k), {}});
      }
    }
  }

  // Steps of codes that explain a row's difference to within the bound, as far as there are any.
  compare::CodeExplanation Explain(std::span<const double> difference, double bound_norm) {
    for (compare::BoundaryCode& code : codes_) code.effect.resize(difference.size());
    for (int64_t j = 0; !codes_.empty() && j < w_.n_rows; j++) {
      DecodeRow(w_, j, row_.data());
      for (compare::BoundaryCode& code : codes_) {
        code.effect[static_cast<size_t>(j)] = Effect(j, std::array{std::pair(code.column, 1)});
      }
    }
    return compare::ExplainByCodes(difference, codes_, bound_norm);
  }

  // Takes what these steps do together from a row of outputs.
  void Subtract(const std::vector<std::pair<int64_t, int>>& steps, float* outputs) {
    for (int64_t j = 0; !steps.empty() && j < w_.n_rows; j++) {
      DecodeRow(w_, j, row_.data());
      outputs[j] -= static_cast<float>(Effect(j, steps));
    }
  }

 private:
  // What the candidate's output j gains where it takes the other code (+1) or the reference does (-1). The sum that Q8_1 stores
  // is rounded to f16, so codes of one block act together.
  double Effect(int64_t j, std::span<const std::pair<int64_t, int>> steps) const {
    double effect = 0;
    std::map<int64_t, std::pair<int, int>>
        sums;  // by block: change of the candidate's sum, and of the reference's
    for (const auto& [column, side] : steps) {
      const Block& block = blocks_[static_cast<size_t>(column / scheme_.block)];
      const int step = OtherWay(x_[static_cast<size_t>(column)], block);
      effect += side * step * double(row_[static_cast<size_t>(column)]) * block.from_code;
      (side > 0 ? sums[column / scheme_.block].first : sums[column / scheme_.block].second) += step;
    }
    if (scheme_.q8_1 && w_.type == BlockType::kQ4_1) {
      for (const auto& [at, change] : sums) {
        const Block& block = blocks_[static_cast<size_t>(at)];
        const std::byte* q =
            w_.data + static_cast<uint64_t>(j) * w_.row_bytes + static_cast<uint64_t>(at) * sizeof(BlockQ4_1);
        const double minimum = F16ToF32(LoadLe<uint16_t>(q + offsetof(BlockQ4_1, m)));
        effect += minimum * (StoredSum(block, change.first) - StoredSum(block, change.second) -
                             block.from_code * (change.first - change.second));
      }
    }
    return effect * scale_;
  }

  std::span<const float> x_;
  const Scheme& scheme_;
  const WeightView& w_;
  double scale_;
  std::vector<Block> blocks_;
  std::vector<compare::BoundaryCode> codes_;
  std::vector<float> row_;  // the weight row at hand
};

}  // namespace

bool CodeExplainer::FindProduct(int32_t stage, int32_t layer, Product* p) const {
  if (stage == PB_STAGE_LOGITS)
    return *p = {&model_->output(), 1, {PB_STAGE_FINAL_NORM, PB_STAGE_FINAL_NORM}}, true;
  if (layer < 0 || layer >= static_cast<int32_t>(model_->layers().size())) return false;
  const LayerWeights& w = model_->layers()[static_cast<size_t>(layer)];
  switch (stage) {
    case PB_STAGE_Q_PROJ:
      *p = {&w.attn_q, w.attn_q_scale, {PB_STAGE_ATTN_NORM, PB_STAGE_ATTN_NORM}};
      return true;
    case PB_STAGE_K_PROJ:
      *p = {&w.attn_k, w.attn_k_scale, {PB_STAGE_ATTN_NORM, PB_STAGE_ATTN_NORM}};
      return true;
    case PB_STAGE_V_PROJ:
      *p = {&w.attn_v, w.attn_v_scale, {PB_STAGE_ATTN_NORM, PB_STAGE_ATTN_NORM}};
      return true;
    case PB_STAGE_ATTN_OUT:
      *p = {&w.attn_output, w.attn_output_scale, {PB_STAGE_ATTN_SUB_NORM, PB_STAGE_ATTN_CONTEXT}};
      return true;
    case PB_STAGE_GATE_PROJ:
      *p = {&w.ffn_gate, w.ffn_gate_scale, {PB_STAGE_FFN_NORM, PB_STAGE_FFN_NORM}};
      return true;
    case PB_STAGE_UP_PROJ:
      *p = {&w.ffn_up, w.ffn_up_scale, {PB_STAGE_FFN_NORM, PB_STAGE_FFN_NORM}};
      return true;
    case PB_STAGE_DOWN_PROJ:
      *p = {&w.ffn_down, w.ffn_down_scale, {PB_STAGE_FFN_SUB_NORM, PB_STAGE_FFN_GATED}};
      return true;
    default:
      return false;
  }
}

// The candidate's values less what steps of boundary codes explain of their difference.
std::vector<float> CodeExplainer::Explained(const PointPair& pair, const Product& product,
                                            std::span<const float> input, const compare::LocalBound& bound,
                                            int64_t* n_steps) const {
  const WeightView& w = *product.weights;
  std::vector<float> corrected(pair.candidate.begin(), pair.candidate.end());
  const bool output = pair.point.stage == PB_STAGE_LOGITS;
  const auto scheme = SchemeOf(act_quant_, w.type, output, w.n_columns);
  const int64_t n_rows = pair.shape[0], n_columns = w.n_columns, n_features = w.n_rows;
  if (!scheme || scheme->block == 0 || n_columns % scheme->block != 0) return corrected;
  for (int64_t i = 0; i < n_rows; i++) {
    const float* a = pair.candidate.data() + i * n_features;
    const float* b = pair.reference.data() + i * n_features;
    std::vector<double> difference(static_cast<size_t>(n_features));
    double error = 0, norm = 0;
    for (int64_t j = 0; j < n_features; j++) {
      const double e = double(a[j]) - double(b[j]);
      difference[static_cast<size_t>(j)] = e, error += e * e, norm += double(b[j]) * double(b[j]);
    }
    const double bound_norm = bound.OfRow(i, n_features, pair.point.first_position + i, std::sqrt(norm));
    if (!(std::sqrt(error) > bound_norm)) continue;
    RowCodes codes(input.subspan(static_cast<size_t>(i * n_columns), static_cast<size_t>(n_columns)), *scheme,
                   w, product.scale);
    const compare::CodeExplanation found = codes.Explain(difference, bound_norm);
    codes.Subtract(found.steps, corrected.data() + i * n_features);
    *n_steps += static_cast<int64_t>(found.steps.size());
  }
  return corrected;
}

void CodeExplainer::OnPair(const PointPair& pair) {
  compare::PointRow* row = pair.row;
  const compare::LocalBound& bound = *pair.bound;
  Product product;
  if (row->bound_ratio > 1 && row->n_non_finite[0] + row->n_non_finite[1] == 0 &&
      FindProduct(pair.point.stage, pair.point.layer, &product)) {
    auto input = inputs_.find(product.inputs[0]);
    if (input == inputs_.end()) input = inputs_.find(product.inputs[1]);
    const int64_t n_rows = pair.shape[0], width = product.weights->n_columns;
    const int64_t skip =
        input == inputs_.end() ? 0 : (pair.point.first_position - input->second.first_position) * width;
    if (input != inputs_.end() && skip >= 0 &&
        static_cast<int64_t>(input->second.values.size()) >= skip + n_rows * width &&
        static_cast<int64_t>(pair.reference.size()) == n_rows * product.weights->n_rows) {
      const std::span<const float> rows(input->second.values.data() + skip,
                                        static_cast<size_t>(n_rows * width));
      int64_t n_steps = 0;
      const std::vector<float> corrected = Explained(pair, product, rows, bound, &n_steps);
      const compare::PointPlace place{row->prompt, row->step, row->stage, row->layer, row->first_position};
      auto rest = compare::ComparePoint({corrected, n_rows, product.weights->n_rows},
                                        {pair.reference, n_rows, product.weights->n_rows}, place, bound);
      if (n_steps > 0 && rest.ok() && rest->bound_ratio <= 1) {
        row->explained_by_codes = true;
        row->explanation = fmt::format(
            "{} of {} activation codes lie on a rounding boundary and went the other way; without them the "
            "error is {:.1e}",
            n_steps, rows.size(), rest->rel_l2);
      }
    }
  }
  switch (pair.point.stage) {
    case PB_STAGE_ATTN_NORM:
      inputs_.clear();
      [[fallthrough]];
    case PB_STAGE_ATTN_CONTEXT:
    case PB_STAGE_ATTN_SUB_NORM:
    case PB_STAGE_FFN_NORM:
    case PB_STAGE_FFN_GATED:
    case PB_STAGE_FFN_SUB_NORM:
    case PB_STAGE_FINAL_NORM:
      inputs_[pair.point.stage] = {pair.point.first_position, {pair.reference.begin(), pair.reference.end()}};
      break;
    default:
      break;
  }
}

}  // namespace pb::run
