// KL divergence, relative error, cosine and the gap of the top tokens, in one pass over a row
// each.
#include "compare/logits.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "compare/fast_exp.h"

// The loops over a row are compiled for what the machine may have; inlined into each form, so that
// they vectorise there. The order of operations is theirs, so all give the same.
#define PB_INLINED __attribute__((always_inline))
#define PB_LOOP inline PB_INLINED
#if defined(__x86_64__)
#define PB_FORMS(result, name, parameters, arguments)                                                  \
  __attribute__((target("avx512f,avx512dq,prefer-vector-width=512"))) result name##Avx512 parameters { \
    return name##Loops arguments;                                                                      \
  }                                                                                                    \
  __attribute__((target("avx2"))) result name##Avx2 parameters { return name##Loops arguments; }       \
  result name##Plain parameters { return name##Loops arguments; }                                      \
  result name parameters {                                                                             \
    static const auto form = HasAvx512() ? name##Avx512 : HasAvx2() ? name##Avx2 : name##Plain;        \
    return form arguments;                                                                             \
  }
#else
#define PB_FORMS(result, name, parameters, arguments) \
  result name parameters { return name##Loops arguments; }
#endif

namespace pb::compare {
namespace {

#if defined(__x86_64__)
bool HasAvx2() { return __builtin_cpu_supports("avx2"); }
bool HasAvx512() { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"); }
#endif

// Sums run in this many virtual lanes, so that they vectorise and are the same on every machine.
constexpr size_t kLanes = 8;

double SumLanes(const double (&lanes)[kLanes]) {
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

PB_LOOP int64_t CountNonFiniteLoops(std::span<const float> row) {
  int64_t n = 0;
  for (float v : row) n += !(std::abs(v) <= std::numeric_limits<float>::max());
  return n;
}
PB_FORMS(int64_t, CountNonFinite, (std::span<const float> row), (row))

// What one pass over both rows gives; d = candidate - reference, y = d - d(reference's top-1).
struct PairSums {
  double p_expm1_y = 0, p_y = 0;  // weighted by the reference's probabilities
  double y = 0, y2 = 0, ry = 0;   // r: centred reference
  double min_y = 0, max_y = 0;
};

// Adds term(i) for all i below n, lane by lane.
template <typename Term>
PB_LOOP void AddLanes(size_t n, double (&lanes)[kLanes], Term term) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  for (; i < n; ++i) lanes[i % kLanes] += term(i);
}

// Blocks of a few KB, each step a plain loop over a block: this is what compilers vectorise.
PB_LOOP PairSums SumPairLoops(std::span<const float> candidate, const ReferenceRow& reference, double d0) {
  constexpr size_t kBlock = 512;
  double y[kBlock], p[kBlock], e[kBlock], r[kBlock];
  double p_expm1_y[kLanes] = {}, p_y[kLanes] = {}, sum_y[kLanes] = {}, sum_y2[kLanes] = {},
         sum_ry[kLanes] = {};
  PairSums s;
  const double log_z = reference.log_z(), mean = reference.mean();
  for (size_t begin = 0; begin < candidate.size(); begin += kBlock) {
    size_t n = std::min(kBlock, candidate.size() - begin);
    const float *c = candidate.data() + begin, *ref = reference.logits().data() + begin;
    for (size_t i = 0; i < n; ++i) r[i] = ref[i];
    for (size_t i = 0; i < n; ++i) y[i] = c[i] - r[i] - d0;
    for (size_t i = 0; i < n; ++i) p[i] = FastExp(r[i] - log_z);
    for (size_t i = 0; i < n; ++i) e[i] = FastExp(y[i]) - 1.0;
    AddLanes(n, p_expm1_y, [&](size_t i) PB_INLINED { return p[i] * e[i]; });
    AddLanes(n, p_y, [&](size_t i) PB_INLINED { return p[i] * y[i]; });
    AddLanes(n, sum_y, [&](size_t i) PB_INLINED { return y[i]; });
    AddLanes(n, sum_y2, [&](size_t i) PB_INLINED { return y[i] * y[i]; });
    AddLanes(n, sum_ry, [&](size_t i) PB_INLINED { return (r[i] - mean) * y[i]; });
    for (size_t i = 0; i < n; ++i)
      s.min_y = y[i] < s.min_y ? y[i] : s.min_y;  // y is 0 at the reference's top-1
    for (size_t i = 0; i < n; ++i) s.max_y = y[i] > s.max_y ? y[i] : s.max_y;
  }
  s.p_expm1_y = SumLanes(p_expm1_y);
  s.p_y = SumLanes(p_y);
  s.y = SumLanes(sum_y);
  s.y2 = SumLanes(sum_y2);
  s.ry = SumLanes(sum_ry);
  return s;
}
PB_FORMS(PairSums, SumPair, (std::span<const float> candidate, const ReferenceRow& reference, double d0),
         (candidate, reference, d0))

PB_LOOP double SumExpLoops(std::span<const float> row, double max) {
  double lanes[kLanes] = {};
  AddLanes(row.size(), lanes, [&](size_t i) PB_INLINED { return FastExp(row[i] - max); });
  return SumLanes(lanes);
}
PB_FORMS(double, SumExp, (std::span<const float> row, double max), (row, max))

double LogZ(std::span<const float> row, double max) { return max + std::log(SumExp(row, max)); }

// Sum of the values, and of the squares of their distances from a centre.
PB_LOOP double SumLoops(std::span<const float> row) {
  double lanes[kLanes] = {};
  AddLanes(row.size(), lanes, [&](size_t i) PB_INLINED { return static_cast<double>(row[i]); });
  return SumLanes(lanes);
}
PB_FORMS(double, Sum, (std::span<const float> row), (row))

PB_LOOP double SquaresAroundLoops(std::span<const float> row, double centre) {
  double lanes[kLanes] = {};
  AddLanes(row.size(), lanes, [&](size_t i) PB_INLINED { return (row[i] - centre) * (row[i] - centre); });
  return SumLanes(lanes);
}
PB_FORMS(double, SquaresAround, (std::span<const float> row, double centre), (row, centre))

// KL and the candidate's log Z where the rows lie so far apart that exp(y) could overflow: by the
// definition. The result is then far above zero, so that the cancellation in it does not matter.
double KlByDefinition(std::span<const float> candidate, const ReferenceRow& reference,
                      double log_z_candidate) {
  double kl = 0;
  std::span<const float> r = reference.logits();
  for (size_t i = 0; i < r.size(); ++i) {
    double log_p = r[i] - reference.log_z();
    kl += std::exp(log_p) * (log_p - (candidate[i] - log_z_candidate));
  }
  return kl;
}

// How many values, a block at a time, come before the first block that holds one above the limit.
PB_LOOP size_t BelowRunLoops(std::span<const float> row, float limit) {
  constexpr size_t kBlock = 64;
  size_t i = 0;
  for (; i + kBlock <= row.size(); i += kBlock) {
    int32_t n_above = 0;
    for (size_t k = 0; k < kBlock; ++k) n_above += row[i + k] > limit;
    if (n_above > 0) break;
  }
  return i;
}
PB_FORMS(size_t, BelowRun, (std::span<const float> row, float limit), (row, limit))

void SetNotComparable(LogitsRow* row) {
  row->finite = false;
  double nan = std::numeric_limits<double>::quiet_NaN();
  row->rel_l2 = row->max_abs = row->cosine = row->mse = row->kl = nan;
  row->gap_reference = row->gap_candidate = row->gap_change = nan;
}

// Gaps are differences of logits: the same as those of log p.
void FillGaps(std::span<const float> c, std::span<const float> r, LogitsRow* row) {
  auto gap = [](std::span<const float> v, int32_t a, int32_t b) { return static_cast<double>(v[a]) - v[b]; };
  const std::vector<int32_t>& best = row->top_k[1];
  if (best.size() > 1) {
    row->gap_reference = gap(r, best[0], best[1]);
    row->gap_candidate = gap(c, best[0], best[1]);
  }
  row->gap_change = std::abs(row->gap_candidate - row->gap_reference);
  if (row->flipped())
    row->gap_change = std::abs(gap(c, row->top1[1], row->top1[0]) - gap(r, row->top1[1], row->top1[0]));
}

int32_t CountCommon(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  return static_cast<int32_t>(std::count_if(
      a.begin(), a.end(), [&](int32_t id) { return std::find(b.begin(), b.end(), id) != b.end(); }));
}

// KL and distances; returns the candidate's log Z.
double FillDistances(std::span<const float> candidate, const ReferenceRow& reference, LogitsRow* row) {
  int32_t top = reference.top_k()[0];
  double d0 = static_cast<double>(candidate[top]) - reference.logits()[top];
  PairSums s = SumPair(candidate, reference, d0);
  double log_z, log_ratio;  // log Z of the candidate, and what it has gained beyond d0
  if (s.max_y < 30.0) {
    // log Z' - log Z = d0 + log(1 + sum p (exp(y) - 1)), and KL = that - sum p d: no cancellation,
    // exactly 0 for y = 0.
    log_ratio = std::log1p(s.p_expm1_y);
    log_z = reference.log_z() + d0 + log_ratio;
    row->kl = std::max(0.0, log_ratio - s.p_y);
  } else {
    log_z = LogZ(candidate, candidate[static_cast<size_t>(row->top1[0])]);
    log_ratio = log_z - reference.log_z() - d0;
    row->kl = std::max(0.0, KlByDefinition(candidate, reference, log_z));
  }
  row->max_abs = std::max(std::abs(s.min_y - log_ratio), std::abs(s.max_y - log_ratio));
  double n = static_cast<double>(candidate.size()), r2 = reference.centred_norm2();
  row->mse = std::max(0.0, s.y2 + 2 * d0 * s.y + n * d0 * d0) / n;  // d = y + d0
  double d2 =
      std::max(0.0, s.y2 - s.y * s.y / n);  // of the centred difference; y differs from d by a constant
  double c2 =
      std::max(0.0, r2 + 2 * s.ry + d2);  // the centred reference sums to 0, so y serves for d here too
  row->rel_l2 = d2 == 0 ? 0 : std::sqrt(d2 / r2);  // infinite where the reference is constant
  row->cosine = d2 == 0 ? 1 : std::clamp((r2 + s.ry) / std::sqrt(r2 * c2), -1.0, 1.0);
  return log_z;
}

}  // namespace

std::vector<int32_t> TopK(std::span<const float> logits, int k) {
  std::vector<int32_t> best;
  auto better = [&](int32_t a, int32_t b) { return logits[a] > logits[b]; };
  for (size_t i = 0; i < logits.size(); ++i) {
    bool full = static_cast<int>(best.size()) >= k;
    // Nearly all are below those found.
    if (full && !best.empty()) i += BelowRun(logits.subspan(i), logits[best.back()]);
    if (i == logits.size()) break;
    if (std::isnan(logits[i]) || (full && (best.empty() || !(logits[i] > logits[best.back()])))) continue;
    auto id = static_cast<int32_t>(i);
    if (full) best.pop_back();
    best.insert(std::upper_bound(best.begin(), best.end(), id, better), id);
  }
  return best;
}

ReferenceRow::ReferenceRow(std::span<const float> logits, int top_k)
    : logits_(logits), k_(std::max(top_k, 2)), n_non_finite_(CountNonFinite(logits)) {
  top_k_ = TopK(logits, k_);
  if (logits.empty() || n_non_finite_ > 0) return;
  log_z_ = LogZ(logits, logits[static_cast<size_t>(top_k_[0])]);
  mean_ = Sum(logits) / static_cast<double>(logits.size());
  centred_norm2_ = SquaresAround(logits, mean_);
  for (int32_t id : top_k_) top_k_logp_.push_back(logits[id] - log_z_);
}

Result<LogitsRow> CompareLogits(std::span<const float> candidate, const ReferenceRow& reference) {
  std::span<const float> r = reference.logits();
  if (candidate.size() != r.size() || r.empty())
    return MakeError(
        Code::kEngine,
        "logits rows cannot be compared: the candidate's has {} values, the reference's {}; both must "
        "have one for each token of the vocabulary",
        candidate.size(), r.size());
  LogitsRow row;
  row.n_non_finite[0] = CountNonFinite(candidate);
  row.n_non_finite[1] = reference.n_non_finite();
  row.top_k[0] = TopK(candidate, reference.k());
  row.top_k[1] = reference.top_k();
  for (int side : {0, 1})
    if (!row.top_k[side].empty()) row.top1[side] = row.top_k[side][0];
  if (row.n_non_finite[0] + row.n_non_finite[1] > 0) {
    SetNotComparable(&row);
    return row;
  }
  double log_z = FillDistances(candidate, reference, &row);
  for (int32_t id : row.top_k[0]) row.top_k_logp[0].push_back(candidate[id] - log_z);
  row.top_k_logp[1] = reference.top_k_logp();
  row.top_k_overlap = CountCommon(row.top_k[0], row.top_k[1]);
  FillGaps(candidate, r, &row);
  return row;
}

Result<LogitsRow> CompareLogits(std::span<const float> candidate, std::span<const float> reference,
                                int top_k) {
  return CompareLogits(candidate, ReferenceRow(reference, top_k));
}

}  // namespace pb::compare
