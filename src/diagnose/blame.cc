// The table of who is to blame, and the search for what two files hold differently of an op's
// weights and parameters.
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
      AddSums(a[i], b[i]);
      if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
      equal = false;
      n_values_++;
      const auto column = static_cast<int64_t>(i);
      first_column_ = std::min(first_column_, column), last_column_ = std::max(last_column_, column);
      n_non_finite_[0] += !std::isfinite(a[i]), n_non_finite_[1] += !std::isfinite(b[i]);
      all_zero_[0] &= a[i] == 0, all_zero_[1] &= b[i] == 0;
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

// What an op reads as rows of values: of a matrix its rows, with the factor beside it; of a norm's
// weight its channels.
class WeightRows {
 public:
  explicit WeightRows(const OpWeights& w)
      : w_(w), row_(static_cast<size_t>(w.matrix ? w.matrix->n_columns : 1)) {}
  int64_t n() const {
    return w_.matrix ? w_.matrix->n_rows : w_.vector ? static_cast<int64_t>(w_.vector->size()) : 0;
  }
  size_t width() const { return row_.size(); }
  const char* noun() const { return w_.matrix ? "rows" : "channels"; }
  // Holds until the next call.
  std::span<const float> Row(int64_t r) {
    if (!w_.matrix) return std::span(*w_.vector).subspan(static_cast<size_t>(r), 1);
    DecodeRow(*w_.matrix, r, row_.data());
    for (float& v : row_) v *= w_.scale;
    return row_;
  }

 private:
  const OpWeights& w_;
  std::vector<float> row_;
};

std::string WeightDifference(const OpWeights& a, const OpWeights& b, const FileNames& files) {
  WeightRows x(a), y(b);
  if (x.n() != y.n() || x.width() != y.width()) return a.name + " has another shape";
  TensorDifference difference;
  for (int64_t r = 0; r < x.n(); r++) difference.Add(r, x.Row(r), y.Row(r));
  return difference.Text(a.name, x.noun(), x.n(), files);
}

// Of a tensor of one row that a file need not have: a bias, factors, sinks.
void CompareVectors(const std::string& name, std::span<const float> a, std::span<const float> b,
                    const FileNames& files, std::vector<std::string>* out) {
  if (a.empty() && b.empty()) return;
  if (a.empty() || b.empty()) {
    out->push_back(fmt::format("{} is missing in {}", name, a.empty() ? files.first : files.second));
    return;
  }
  if (a.size() != b.size()) {
    out->push_back(name + " has another shape");
    return;
  }
  TensorDifference difference;
  for (size_t i = 0; i < a.size(); i++)
    difference.Add(static_cast<int64_t>(i), a.subspan(i, 1), b.subspan(i, 1));
  if (std::string text = difference.Text(name, "values", static_cast<int64_t>(a.size()), files);
      !text.empty())
    out->push_back(std::move(text));
}

void CompareRotations(const HyperParameters& a, const HyperParameters& b, int32_t layer,
                      const FileNames& files, std::vector<std::string>* out) {
  auto differ = [&](const char* what, const auto& x, const auto& y) {
    if (x != y) out->push_back(fmt::format("{}: {} in {}, {} in {}", what, x, files.first, y, files.second));
  };
  auto pairing = [](const HyperParameters& p) {
    return std::string(p.rope_pairing.value == RopePairing::kHalves ? "halves" : "adjacent");
  };
  if (a.is_local(layer) && b.is_local(layer)) {
    differ("RoPE base of local layers", a.local_rope_base.value, b.local_rope_base.value);
    differ("RoPE scale of local layers", a.local_rope_scale.value, b.local_rope_scale.value);
  } else {
    differ("RoPE base", a.rope_base.value, b.rope_base.value);
    differ("RoPE scale", a.rope_scale.value, b.rope_scale.value);
  }
  differ("RoPE dimensions", a.rope_dims, b.rope_dims);
  differ("RoPE pairing", pairing(a), pairing(b));
  differ("layers without RoPE", a.unrotated_every, b.unrotated_every);
  const RopeStretch &s = a.rope_stretch, &t = b.rope_stretch;
  differ("YaRN", s.yarn, t.yarn);
  differ("RoPE beta_fast", s.beta_fast, t.beta_fast);
  differ("RoPE beta_slow", s.beta_slow, t.beta_slow);
  differ("original context", s.n_ctx_original, t.n_ctx_original);
  differ("RoPE attention factor", s.attention_factor, t.attention_factor);
  CompareVectors("rope_freqs.weight", a.rope_factors, b.rope_factors, files, out);
  CompareVectors("rope_factors_long.weight", s.long_factors, t.long_factors, files, out);
  CompareVectors("rope_factors_short.weight", s.short_factors, t.short_factors, files, out);
}

void CompareParameters(const HyperParameters& a, const HyperParameters& b, int32_t stage, int32_t layer,
                       const FileNames& files, std::vector<std::string>* out) {
  auto differ = [&](const char* what, const auto& x, const auto& y) {
    if (x != y) out->push_back(fmt::format("{}: {} in {}, {} in {}", what, x, files.first, y, files.second));
  };
  auto activation = [](const HyperParameters& p) {
    return std::string(p.ffn_activation ? ActivationName(p.ffn_activation->value) : "undeclared");
  };
  switch (stage) {
    case PB_STAGE_Q_ROPE:
    case PB_STAGE_K_ROPE:
      CompareRotations(a, b, layer, files, out);
      return;
    case PB_STAGE_EMBEDDINGS:
      differ("scale of the embeddings", a.embedding_scale, b.embedding_scale);
      return;
    case PB_STAGE_ATTN_RESIDUAL:
    case PB_STAGE_LAYER_OUT:
      differ("scale of the residual", a.residual_scale, b.residual_scale);
      return;
    case PB_STAGE_EXPERT_IDS:
    case PB_STAGE_EXPERT_WEIGHTS:
      differ("experts of a token", a.experts.n_used, b.experts.n_used);
      differ("softmax of the chosen experts alone", a.experts.softmax_of_chosen, b.experts.softmax_of_chosen);
      differ("normalised weights of experts", a.experts.normalised, b.experts.normalised);
      differ("scale of the experts' weights", a.experts.scale, b.experts.scale);
      return;
    case PB_STAGE_FFN_ACT:
    case PB_STAGE_FFN_GATED:
    case PB_STAGE_EXPERT_ACT:
    case PB_STAGE_EXPERT_GATED:
      differ("activation", activation(a), activation(b));
      return;
    case PB_STAGE_ATTN_SCORES:
    case PB_STAGE_ATTN_CONTEXT:
      differ("heads", a.n_heads, b.n_heads);
      differ("KV heads", a.n_kv_heads, b.n_kv_heads);
      differ("scale of the scores", a.attention_scale, b.attention_scale);
      differ("cap of the scores", a.score_cap, b.score_cap);
      differ("window", a.window_of(layer), b.window_of(layer));
      return;
    case PB_STAGE_LOGITS:
      differ("output matrix tied to the embeddings", a.output_tied, b.output_tied);
      differ("scale of the logits", a.logit_scale, b.logit_scale);
      differ("cap of the logits", a.logit_cap, b.logit_cap);
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
  CompareParameters(first.params(), second.params(), stage, layer, names, &differences);
  const OpWeights a = WeightsOf(first, stage, layer), b = WeightsOf(second, stage, layer);
  const StageWeights &x = first.weights(stage, layer), &y = second.weights(stage, layer);
  const std::string& tensor = x.name.empty() ? y.name : x.name;
  CompareVectors(tensor.substr(0, tensor.rfind('.')) + ".bias", x.bias, y.bias, names, &differences);
  CompareVectors(fmt::format("blk.{}.attn_sinks.weight", layer), x.sinks, y.sinks, names, &differences);
  if ((a.matrix || a.vector) != (b.matrix || b.vector))
    differences.push_back(
        fmt::format("{} is missing in {}", tensor, a.matrix || a.vector ? names.second : names.first));
  std::string text;
  if (a.matrix && b.matrix) text = WeightDifference(a, b, names);
  if (a.vector && b.vector) {
    text = WeightDifference(a, b, names);
    const float eps[2] = {first.params().norm_eps.value, second.params().norm_eps.value};
    if (eps[0] != eps[1])
      differences.push_back(
          fmt::format("norm eps: {} in {}, {} in {}", eps[0], names.first, eps[1], names.second));
  }
  if (!text.empty()) differences.push_back(std::move(text));
  return differences;
}

std::string NonFiniteWeights(const Model& model, int32_t stage, int32_t layer) {
  const OpWeights w = WeightsOf(model, stage, layer);
  WeightRows rows(w);
  int64_t n_bad = 0, first = -1;
  for (int64_t r = 0; r < rows.n(); r++) {
    if (std::ranges::all_of(rows.Row(r), [](float x) { return std::isfinite(x); })) continue;
    n_bad++;
    if (first < 0) first = r;
  }
  if (n_bad == 0) return "";
  return fmt::format("{} holds NaN or infinite values in {} of {} {}, first {}", w.name, n_bad, rows.n(),
                     rows.noun(), first);
}

}  // namespace pb::diagnose
