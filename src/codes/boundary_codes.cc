// What codes on a rounding boundary may explain of a product's outputs.
#include "codes/boundary_codes.h"

#include <array>
#include <cmath>
#include <map>

namespace pb::codes {
namespace {

// From the code chosen here to the other neighbour of a value on a boundary: -1 or +1.
int OtherWay(float x, const ActBlock& b) {
  const double exact = double(x) * double(b.to_code), lower = std::floor(exact);
  return std::nearbyint(x * b.to_code) == lower ? 1 : -1;
}

}  // namespace

BoundaryCodes::BoundaryCodes(std::span<const float> x, ActScheme scheme, const WeightView& w, double scale)
    : x_(x),
      scheme_(scheme),
      block_(ActBlockValues(scheme, w.n_columns)),
      w_(w),
      scale_(scale),
      row_(x.size()) {
  for (size_t start = 0; start < x.size(); start += static_cast<size_t>(block_)) {
    blocks_.push_back(ActBlockOf(x.subspan(start, static_cast<size_t>(block_)), scheme));
    for (size_t k = start; k < start + static_cast<size_t>(block_); k++) {
      if (OnBoundary(x[k], blocks_.back().to_code)) codes_.push_back({static_cast<int64_t>(k), {}});
    }
  }
}

compare::CodeExplanation BoundaryCodes::Explain(std::span<const double> difference, double bound_norm,
                                                std::span<const int64_t> features) {
  for (compare::BoundaryCode& code : codes_) code.effect.resize(difference.size());
  for (size_t i = 0; !codes_.empty() && i < difference.size(); i++) {
    const int64_t j = features.empty() ? static_cast<int64_t>(i) : features[i];
    ReadRow(j);
    for (compare::BoundaryCode& code : codes_) code.effect[i] = Effect(std::array{std::pair(code.column, 1)});
  }
  return compare::ExplainByCodes(difference, codes_, bound_norm);
}

void BoundaryCodes::Subtract(const std::vector<std::pair<int64_t, int>>& steps, float* outputs) {
  for (int64_t j = 0; !steps.empty() && j < w_.n_rows; j++) {
    ReadRow(j);
    outputs[j] -= static_cast<float>(Effect(steps));
  }
}

void BoundaryCodes::ReadRow(int64_t j) {
  DecodeRow(w_, j, row_.data());
  // Q8_1's blocks are of 32.
  if (scheme_ == ActScheme::kQ8_1) minima_ = BlockMinima(w_, j);
  if (minima_.size() != blocks_.size()) minima_.clear();
}

// What the candidate's output of the row that was read gains where it takes the other code (+1) or the reference does
// (-1). The sum that Q8_1 stores is rounded to f16, so codes of one block act together.
double BoundaryCodes::Effect(std::span<const std::pair<int64_t, int>> steps) const {
  double effect = 0;
  // By block: change of the candidate's sum, and of the reference's.
  std::map<int64_t, std::pair<int, int>> sums;
  for (const auto& [column, side] : steps) {
    const ActBlock& block = blocks_[static_cast<size_t>(column / block_)];
    const int step = OtherWay(x_[static_cast<size_t>(column)], block);
    effect += side * step * double(row_[static_cast<size_t>(column)]) * block.from_code;
    (side > 0 ? sums[column / block_].first : sums[column / block_].second) += step;
  }
  if (!minima_.empty()) {
    for (const auto& [at, change] : sums) {
      const ActBlock& block = blocks_[static_cast<size_t>(at)];
      effect += minima_[static_cast<size_t>(at)] *
                (StoredSum(block, block.sum + change.first) - StoredSum(block, block.sum + change.second) -
                 block.from_code * (change.first - change.second));
    }
  }
  return effect * scale_;
}

}  // namespace pb::codes
