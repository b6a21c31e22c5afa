// Which of the three arrangements of I2_S a file has. The bytes alone do not say it, the weights of
// a trained model do: how many codes of a column are not 0 goes with the gain that the norm before
// the matrix has there, and in a wrong arrangement the columns are shuffled against the norm.
#include <array>
#include <cmath>

#include "base/bytes.h"
#include "soundness/parts.h"

namespace pb::soundness {
namespace {

enum Arrangement { kGroupsOf128, kGroupsOf64, kFourRows, kArrangements };
constexpr int64_t kRowsLookedAt = 512;  // of a tensor: a multiple of four

// Of each column, in each arrangement: how many codes are not those of 0.
struct Columns {
  explicit Columns(int64_t n) {
    for (auto& column : counts) column.assign(static_cast<size_t>(n), 0);
  }
  std::array<std::vector<double>, kArrangements> counts;
};

// `first` values into its first group, four codes of a byte stand `step` columns apart.
void CountByte(unsigned byte, size_t at, size_t step, std::vector<double>* counts) {
  for (int k = 0; k < 4; ++k) (*counts)[at + static_cast<size_t>(k) * step] += (byte >> (6 - 2 * k) & 3) != 1;
}

// False: the tensor is none that can be looked at so.
bool Count(const GgufTensor* t, size_t n_columns, Columns* columns) {
  if (!t || t->type_id != static_cast<uint32_t>(BlockType::kI2_S) || t->data.empty() ||
      t->shape.size() != 2 || t->shape[0] != n_columns || t->shape[1] % 4 != 0)
    return false;
  const size_t n_rows = std::min<size_t>(t->shape[1], kRowsLookedAt);
  for (size_t i = 0; i < n_rows * n_columns / 4; ++i) {
    const auto byte = static_cast<unsigned>(t->data[i]);
    const size_t row_at = i % (n_columns / 4);  // of a row's bytes
    CountByte(byte, row_at / 32 * 128 + row_at % 32, 32, &columns->counts[kGroupsOf128]);
    CountByte(byte, row_at / 16 * 64 + row_at % 16, 16, &columns->counts[kGroupsOf64]);
    double& four = columns->counts[kFourRows][i % n_columns];
    for (int k = 0; k < 4; ++k) four += (byte >> 2 * k & 3) != 1;
  }
  return true;
}

// n / 2 * -log(1 - r^2): how much likelier the two are with a linear relation than without.
double Evidence(const std::vector<double>& x, const std::vector<double>& y) {
  const auto n = static_cast<double>(x.size());
  double sx = 0, sy = 0, sxx = 0, syy = 0, sxy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    sx += x[i], sy += y[i];
    sxx += x[i] * x[i], syy += y[i] * y[i], sxy += x[i] * y[i];
  }
  const double vx = sxx - sx * sx / n, vy = syy - sy * sy / n, c = sxy - sx * sy / n;
  if (!(vx > 0) || !(vy > 0)) return 0;
  return -n / 2 * std::log1p(-std::min(c * c / (vx * vy), 1 - 1e-12));
}

std::vector<double> Gain(const GgufTensor* norm, size_t n) {
  std::vector<double> gain;
  if (!norm || norm->type_id != static_cast<uint32_t>(BlockType::kF32) || norm->shape.size() != 1 ||
      norm->shape[0] != n || norm->data.size() != 4 * n)
    return gain;
  for (size_t i = 0; i < n; ++i) gain.push_back(std::fabs(LoadLe<float>(norm->data.data() + 4 * i)));
  return gain;
}

}  // namespace

Part ExamineArrangement(Context& context) {
  if (!context.params) return {};
  const HyperParameters& p = *context.params;
  const auto n = static_cast<size_t>(p.d_model);
  if (n % 128 != 0) return {};
  std::array<double, kArrangements> evidence{};
  int n_pairs = 0, n_tensors = 0;
  const auto look = [&](const std::string& norm, std::initializer_list<std::string> matrices) {
    const std::vector<double> gain = Gain(context.subject.FindTensor(norm), n);
    Columns columns(p.d_model);
    bool any = false;
    for (const std::string& name : matrices) {
      const bool counted = Count(context.subject.FindTensor(name), n, &columns);
      any |= counted, n_tensors += counted;
    }
    if (!any || gain.empty()) return;
    ++n_pairs;
    for (size_t a = 0; a < kArrangements; ++a) evidence[a] += Evidence(columns.counts[a], gain);
  };
  const auto n_layers = std::min<int64_t>(p.n_layers, static_cast<int64_t>(context.subject.n_tensors()));
  for (int64_t i = 0; i < n_layers; ++i) {
    const auto name = [&](const char* part) { return fmt::format("blk.{}.{}.weight", i, part); };
    look(name("attn_norm"), {name("attn_q"), name("attn_k"), name("attn_v")});
    look(name("ffn_norm"), {name("ffn_gate"), name("ffn_up")});
  }
  if (n_tensors == 0) return {};
  size_t best = 0;
  for (size_t a = 1; a < kArrangements; ++a)
    if (evidence[a] > evidence[best]) best = a;
  double second = 0;
  for (size_t a = 0; a < kArrangements; ++a)
    if (a != best) second = std::max(second, evidence[a]);
  // Without any relation each pair's evidence is half a chi-square of one degree of freedom, and the
  // difference of two has a variance of 1: this is eight standard deviations.
  const double lead = evidence[best] - second, needed = 8 * std::sqrt(n_pairs);
  Part part{"I2_S", "", true};
  if (n_pairs == 0 || lead <= needed) {
    context.findings.Add("i2s-arrangement", "",
                         fmt::format("norms and columns go together by {:.1f} in the likeliest arrangement, "
                                     "{:.1f} in the next; {:.1f} more would tell",
                                     evidence[best], second, needed));
    part.text = "the arrangement cannot be told";
    return part;
  }
  const std::string lead_text = fmt::format(
      "columns go with the norms' gains (log-likelihood +{:.0f} over "
      "the next arrangement, {:.0f} needed)",
      lead, needed);
  if (best == kGroupsOf128) part.text = "groups of 128 values: " + lead_text;
  if (best == kGroupsOf64) {
    part.text = "groups of 64 values, as bitnet.cpp's builds for Arm have them";
    context.findings.Add("i2s-groups-of-64", "", "groups of 64 values: " + lead_text);
  }
  if (best == kFourRows) {
    part.text = "four rows in a byte";
    context.findings.Add("i2s-four-rows", "", "four rows in a byte: " + lead_text);
  }
  return part;
}

}  // namespace pb::soundness
