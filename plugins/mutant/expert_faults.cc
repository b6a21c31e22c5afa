// Routers and experts gone wrong.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "plugins/mutant/catalogue.h"

namespace pb::mutant {
namespace {

// A row's products with one expert's matrix.
void ExpertRow(const Op& op, const float* x, int64_t expert, bool biased, float* out) {
  const StageWeights& w = op.model->weights(op.stage, op.layer);
  const WeightView matrix = w.MatrixOf(expert);
  const std::span<const float> bias = w.BiasOf(expert);
  const ActScheme scheme = op.act_quant.SchemeFor(matrix.type, matrix.n_rows, PlaceOf(op.stage));
  const std::vector<double> rounded = Rounded(x, matrix.n_columns, scheme, {});
  std::vector<float> row(static_cast<size_t>(matrix.n_columns));
  for (int64_t r = 0; r < matrix.n_rows; r++) {
    DecodeRow(matrix, r, row.data());
    double sum = 0;
    for (size_t k = 0; k < row.size(); k++) sum += rounded[k] * double(row[k]);
    sum *= double(w.scale);
    if (biased && !bias.empty()) sum += double(bias[static_cast<size_t>(r)]);
    out[r] = static_cast<float>(sum);
  }
}

// Each token's experts once more, by what `choose` makes of their ids.
template <typename Choose>
void Experts(Op& op, bool biased, Choose choose) {
  const int64_t n_used = op.params().experts.n_used, width = op.width / n_used;
  const bool own_rows = op.stage == PB_STAGE_EXPERT_DOWN;  // each expert has its own input
  const int64_t in_width = op.model->weights(op.stage, op.layer).matrix.n_columns;
  for (int64_t t = 0; t < op.n; t++) {
    for (int64_t j = 0; j < n_used; j++) {
      const auto id = static_cast<int64_t>(op.in(1, t)[j]);
      const int64_t other = choose(id);
      if (other == id && biased) continue;
      ExpertRow(op, op.in(0, t) + (own_rows ? j * in_width : 0), other, biased, op.row(t) + j * width);
    }
  }
}

// The experts of the largest logits, from this rank on; of equal ones the lowest id first, or the
// highest.
void Choose(Op& op, int64_t rank, bool lowest_first) {
  const int64_t n = op.params().experts.n;
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (int64_t t = 0; t < op.n; t++) {
    const float* x = op.in(0, t);
    std::iota(order.begin(), order.end(), int64_t{0});
    if (!lowest_first) std::reverse(order.begin(), order.end());
    std::stable_sort(order.begin(), order.end(), [x](int64_t a, int64_t b) { return x[a] > x[b]; });
    for (int64_t j = 0; j < op.width; j++)
      op.row(t)[j] = static_cast<float>(order[static_cast<size_t>((j + rank) % n)]);
  }
}

}  // namespace

// The first that is chosen is not the best one.
void ExpertsFromRank(Op& op, double rank) { Choose(op, static_cast<int64_t>(rank), true); }

// Of experts whose logits are equal the last one goes first, which is as right.
void HighestOfEqual(Op& op, double) { Choose(op, 0, false); }

// 0: the softmax is over the chosen alone; 1: over all; 2: not normalised; 3: all of weight 1.
void RouterWeights(Op& op, double which) {
  const struct Experts& e = op.params().experts;
  const bool of_chosen = which == 0 || (which != 1 && e.softmax_of_chosen);
  for (int64_t t = 0; t < op.n; t++) {
    const float *x = op.in(0, t), *ids = op.in(1, t);
    const double largest = *std::max_element(x, x + e.n);
    const auto share = [&](int64_t i) { return std::exp(double(x[i]) - largest); };
    double all = 0, chosen = 0;
    for (int64_t i = 0; i < e.n; i++) all += share(i);
    for (int64_t j = 0; j < op.width; j++) chosen += share(static_cast<int64_t>(ids[j]));
    const bool normalised = which != 2 && e.normalised;
    for (int64_t j = 0; j < op.width; j++) {
      const double weight = share(static_cast<int64_t>(ids[j])) / (of_chosen || normalised ? chosen : all);
      op.row(t)[j] = which == 3 ? 1.0f : static_cast<float>(weight * double(e.scale));
    }
  }
}

// The expert that the first token uses first is computed with another's matrix, and that one with
// its.
void ExpertsExchanged(Op& op, double) {
  const auto a = static_cast<int64_t>(op.in(1, 0)[0]), b = (a + 1) % op.params().experts.n;
  Experts(op, true, [a, b](int64_t id) { return id == a ? b : id == b ? a : id; });
}

void ExpertsWithoutBias(Op& op, double) {
  Experts(op, false, [](int64_t id) { return id; });
}

void SharedUngated(Op& op, double) {
  for (int64_t t = 0; t < op.n; t++) std::copy_n(op.in(0, t), op.width, op.row(t));
}

}  // namespace pb::mutant
