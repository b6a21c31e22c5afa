#include "run/code_steps.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/bytes.h"
#include "base/half.h"

namespace pb::run {
namespace {

// From the code chosen here to the other neighbour of a value on a boundary: -1 or +1.
int OtherWay(float x, const ActBlock& b) {
  const double exact = double(x) * double(b.to_code), lower = std::floor(exact);
  return std::nearbyint(x * b.to_code) == lower ? 1 : -1;
}

// The codes of one activation row that may go either way.
class RowCodes {
 public:
  RowCodes(std::span<const float> x, const ActScheme& scheme, const WeightView& w, double scale)
      : x_(x), scheme_(scheme), w_(w), scale_(scale), row_(x.size()) {
    for (size_t start = 0; start < x.size(); start += static_cast<size_t>(scheme.block)) {
      blocks_.push_back(ActBlockOf(x.subspan(start, static_cast<size_t>(scheme.block)), scheme));
      for (size_t k = start; k < start + static_cast<size_t>(scheme.block); k++) {
        if (OnBoundary(x[k], blocks_.back().to_code)) codes_.push_back({static_cast<int64_t>(k), {}});
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
      const ActBlock& block = blocks_[static_cast<size_t>(column / scheme_.block)];
      const int step = OtherWay(x_[static_cast<size_t>(column)], block);
      effect += side * step * double(row_[static_cast<size_t>(column)]) * block.from_code;
      (side > 0 ? sums[column / scheme_.block].first : sums[column / scheme_.block].second) += step;
    }
    if (scheme_.q8_1 && w_.type == BlockType::kQ4_1) {
      for (const auto& [at, change] : sums) {
        const ActBlock& block = blocks_[static_cast<size_t>(at)];
        const std::byte* q =
            w_.data + static_cast<uint64_t>(j) * w_.row_bytes + static_cast<uint64_t>(at) * sizeof(BlockQ4_1);
        const double minimum = F16ToF32(LoadLe<uint16_t>(q + offsetof(BlockQ4_1, m)));
        effect += minimum *
                  (StoredSum(block, block.sum + change.first) - StoredSum(block, block.sum + change.second) -
                   block.from_code * (change.first - change.second));
      }
    }
    return effect * scale_;
  }

  std::span<const float> x_;
  const ActScheme& scheme_;
  const WeightView& w_;
  double scale_;
  std::vector<ActBlock> blocks_;
  std::vector<compare::BoundaryCode> codes_;
  std::vector<float> row_;  // the weight row at hand
};

}  // namespace

// The candidate's values less what steps of boundary codes explain of their difference.
std::vector<float> CodeExplainer::Explained(const PointPair& pair, const ProductWeights& product,
                                            std::span<const float> input, const compare::LocalBound& bound,
                                            int64_t* n_steps) const {
  const WeightView& w = *product.weights;
  std::vector<float> corrected(pair.candidate.begin(), pair.candidate.end());
  const auto scheme = check_->SchemeOf(pair.point.stage, w);
  const int64_t n_rows = pair.shape[0], n_columns = w.n_columns, n_features = w.n_rows;
  if (!scheme) return corrected;
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
  const ProductWeights product = ProductOf(*model_, pair.point.stage, pair.point.layer);
  if (row->bound_ratio > 1 && row->n_non_finite[0] + row->n_non_finite[1] == 0 && product.weights &&
      check_->Contradiction(pair.point.stage, *product.weights).empty()) {
    const auto input = inputs_.find(product.input);
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
            "error is {:.1e} ({})",
            n_steps, rows.size(), rest->rel_l2, check_->Basis(pair.point.stage, *product.weights));
      }
    }
  }
  if (pair.point.stage == PB_STAGE_ATTN_NORM) inputs_.clear();  // a layer begins
  if (stages::kProductInputs.Contains(pair.point.stage))
    inputs_[pair.point.stage] = {pair.point.first_position, {pair.reference.begin(), pair.reference.end()}};
}

}  // namespace pb::run
