#include "diagnose/blame.h"

#include <algorithm>
#include <cmath>

#include "abi/vocabulary.h"
#include "diagnose/op_weights.h"

namespace pb::diagnose {
namespace {

using compare::Blame;

// A factor counts as such where nothing but the rounding of f16 scales remains.
constexpr double kFactorRemainder = 1e-3;

// Two tensors, value by value.
class TensorDifference {
 public:
  void Add(int64_t row, std::span<const float> a, std::span<const float> b) {
    bool equal = true;
    for (size_t i = 0; i < a.size(); i++) {
      if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) {
        AddSums(a[i], b[i]);
        continue;
      }
      equal = false;
      n_values_++;
      const auto column = static_cast<int64_t>(i);
      first_column_ = std::min(first_column_, column), last_column_ = std::max(last_column_, column);
      n_non_finite_[0] += !std::isfinite(a[i]), n_non_finite_[1] += !std::isfinite(b[i]);
      all_zero_[0] &= a[i] == 0, all_zero_[1] &= b[i] == 0;
      AddSums(a[i], b[i]);
    }
    n_columns_ = static_cast<int64_t>(a.size());
    n_rows_ += !equal;
    if (!equal && first_row_ < 0) first_row_ = row;
  }

  // Empty: they are equal.
  std::string Text(const std::string& name, const char* rows, int64_t n_all, const FileNames& files) const {
    if (n_values_ == 0) return "";
    const double factor = b2_ > 0 ? dot_ / b2_ : 0;
    const double rest = a2_ > 0 ? std::sqrt(std::max(a2_ - factor * dot_, 0.0) / a2_) : 1;
    const bool finite = n_non_finite_[0] + n_non_finite_[1] == 0;
    if (finite && rest < kFactorRemainder && std::fabs(factor - 1) > 2 * rest)
      return fmt::format("{} of {} is {:.5g} times {}", name, files.first, factor, files.second);
    std::string text =
        fmt::format("{} differs in {} of {} {}, first {}", name, n_rows_, n_all, rows, first_row_);
    const int64_t n_span = last_column_ - first_column_ + 1;
    if (n_span < n_columns_)
      text += n_span == 1 ? fmt::format(", in column {}", first_column_)
                          : fmt::format(", in columns {} to {}", first_column_, last_column_);
    if (finite) text += fmt::format(" (rel-L2 {:.1e})", b2_ > 0 ? std::sqrt(error2_ / b2_) : INFINITY);
    for (int side : {0, 1}) {
      const std::string& file = side == 0 ? files.first : files.second;
      if (n_non_finite_[side] > 0)
        text += fmt::format(", {} of {} NaN or infinite", n_non_finite_[side], file);
      if (all_zero_[side]) text += ", all zero in " + file;
    }
    return text;
  }

 private:
  void AddSums(double x, double y) {
    if (!std::isfinite(x) || !std::isfinite(y)) return;
    dot_ += x * y, a2_ += x * x, b2_ += y * y, error2_ += (x - y) * (x - y);
  }

  double dot_ = 0, a2_ = 0, b2_ = 0, error2_ = 0;
  int64_t n_rows_ = 0, n_values_ = 0, first_row_ = -1;  // that differ
  int64_t first_column_ = INT64_MAX, last_column_ = -1, n_columns_ = 0;
  int64_t n_non_finite_[2] = {0, 0};
  bool all_zero_[2] = {true, true};  // of the values that differ
};

std::string MatrixDifference(const OpWeights& a, const OpWeights& b, const FileNames& files) {
  const WeightView &x = *a.matrix, &y = *b.matrix;
  if (x.n_rows != y.n_rows || x.n_columns != y.n_columns) return a.name + " has another shape";
  TensorDifference difference;
  std::vector<float> row[2];
  for (auto& r : row) r.resize(static_cast<size_t>(x.n_columns));
  for (int64_t r = 0; r < x.n_rows; r++) {
    DecodeRow(x, r, row[0].data());
    DecodeRow(y, r, row[1].data());
    for (float& v : row[0]) v *= a.scale;
    for (float& v : row[1]) v *= b.scale;
    difference.Add(r, row[0], row[1]);
  }
  return difference.Text(a.name, "rows", x.n_rows, files);
}

std::string VectorDifference(const OpWeights& a, const OpWeights& b, const FileNames& files) {
  if (a.vector->size() != b.vector->size()) return a.name + " has another shape";
  TensorDifference difference;
  for (size_t i = 0; i < a.vector->size(); i++)
    difference.Add(static_cast<int64_t>(i), {a.vector->data() + i, 1}, {b.vector->data() + i, 1});
  return difference.Text(a.name, "channels", static_cast<int64_t>(a.vector->size()), files);
}

void CompareParameters(const HyperParameters& a, const HyperParameters& b, int32_t stage,
                       const FileNames& files, std::vector<std::string>* out) {
  auto differ = [&](const char* what, const auto& x, const auto& y) {
    if (x != y) out->push_back(fmt::format("{}: {} in {}, {} in {}", what, x, files.first, y, files.second));
  };
  auto pairing = [](const HyperParameters& p) {
    return std::string(p.rope_pairing.value == RopePairing::kHalves ? "halves" : "adjacent");
  };
  auto activation = [](const HyperParameters& p) {
    return std::string(p.ffn_activation ? ActivationName(p.ffn_activation->value) : "undeclared");
  };
  switch (stage) {
    case PB_STAGE_Q_ROPE:
    case PB_STAGE_K_ROPE:
      differ("RoPE base", a.rope_base.value, b.rope_base.value);
      differ("RoPE scale", a.rope_scale.value, b.rope_scale.value);
      differ("RoPE dimensions", a.rope_dims, b.rope_dims);
      differ("RoPE pairing", pairing(a), pairing(b));
      return;
    case PB_STAGE_FFN_ACT:
    case PB_STAGE_FFN_GATED:
      differ("activation", activation(a), activation(b));
      return;
    case PB_STAGE_ATTN_SCORES:
    case PB_STAGE_ATTN_CONTEXT:
      differ("heads", a.n_heads, b.n_heads);
      differ("KV heads", a.n_kv_heads, b.n_kv_heads);
      return;
    case PB_STAGE_LOGITS:
      differ("output matrix tied to the embeddings", a.output_tied, b.output_tied);
      return;
    default:
      return;
  }
}

}  // namespace

BlameFinding FindBlame(const BlameEvidence& e) {
  const bool candidate_avoids = !e.candidate_agrees && e.candidate_file_non_finite;
  const bool reference_avoids = !e.reference_agrees && e.reference_file_non_finite;
  if (candidate_avoids || reference_avoids)
    return {Blame::kUndetermined,
            fmt::format("by its model file the op gives NaN or infinite values, which the {} does not give",
                        candidate_avoids ? "candidate" : "reference")};
  if (!e.candidate_agrees || !e.reference_agrees) {
    const bool both = !e.candidate_agrees && !e.reference_agrees;
    return {both ? Blame::kBoth : e.candidate_agrees ? Blame::kReference : Blame::kCandidate, ""};
  }
  if (e.candidate_file_non_finite && e.reference_file_non_finite) return {Blame::kModelFile, ""};
  if (e.equal) return {Blame::kNone, ""};
  if (e.files_differ_here) return {Blame::kModelFile, ""};
  return {Blame::kUndetermined,
          "each engine lies within its bound of the arbiter; only from each other they are further apart"};
}

std::vector<std::string> FileDifferences(const Model& first, const Model& second, int32_t stage,
                                         int32_t layer, const FileNames& names) {
  std::vector<std::string> differences;
  CompareParameters(first.params(), second.params(), stage, names, &differences);
  const OpWeights a = WeightsOf(first, stage, layer), b = WeightsOf(second, stage, layer);
  std::string text;
  if (a.matrix && b.matrix) text = MatrixDifference(a, b, names);
  if (a.vector && b.vector) {
    text = VectorDifference(a, b, names);
    const float x = first.params().norm_eps.value, y = second.params().norm_eps.value;
    if (x != y)
      differences.push_back(fmt::format("norm eps: {} in {}, {} in {}", x, names.first, y, names.second));
  }
  if (!text.empty()) differences.push_back(std::move(text));
  return differences;
}

std::string NonFiniteWeights(const Model& model, int32_t stage, int32_t layer) {
  const OpWeights w = WeightsOf(model, stage, layer);
  int64_t n_rows = 0, first = -1;
  auto add = [&](int64_t row, std::span<const float> values) {
    if (std::ranges::all_of(values, [](float x) { return std::isfinite(x); })) return;
    n_rows++;
    if (first < 0) first = row;
  };
  int64_t n_all = 0;
  if (w.matrix) {
    n_all = w.matrix->n_rows;
    std::vector<float> row(static_cast<size_t>(w.matrix->n_columns));
    for (int64_t r = 0; r < n_all; r++) {
      DecodeRow(*w.matrix, r, row.data());
      for (float& x : row) x *= w.scale;
      add(r, row);
    }
  } else if (w.vector) {
    n_all = static_cast<int64_t>(w.vector->size());
    for (int64_t i = 0; i < n_all; i++) add(i, {w.vector->data() + i, 1});
  }
  if (n_rows == 0) return "";
  return fmt::format("{} holds NaN or infinite values in {} of {} {}, first {}", w.name, n_rows, n_all,
                     w.matrix ? "rows" : "channels", first);
}

}  // namespace pb::diagnose
