// Elementwise formulas, the cache and the mask gone wrong in one part.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "plugins/mutant/catalogue.h"
#include "plugins/mutant/fault.h"

namespace pb::mutant {
namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

// Values of a head in a row of the output.
int64_t HeadWidth(const Op& op) {
  return stages::kOverPositions.Contains(op.stage) ? op.n_visible() : op.params().head_dim;
}

template <typename Change>
void ForFeatures(const Fault& fault, Op& op, Change change) {
  for (int64_t i = 0; i < op.n; i++)
    for (int64_t j = 0; j < op.width; j++)
      if (fault.part.Contains(j)) op.row(i)[j] = change(op.row(i)[j]);
}

template <typename Change>
void ForHeads(const Fault& fault, Op& op, Change change) {
  const int64_t d = HeadWidth(op);
  for (int64_t i = 0; i < op.n; i++)
    for (int64_t j = 0; j < op.width; j++)
      if (fault.part.Contains(j / d)) op.row(i)[j] = change(i, j);
}

float TruncateMantissa(float x) { return std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0xffff0000u); }

// What is there without the op: of a sum the stream, of others the first input.
void LeaveOut(Op& op) {
  const bool sum = stages::kSums.Contains(op.stage);
  const std::vector<float>& from = op.inputs[sum ? 1 : 0].values;
  std::copy_n(from.begin(), op.n * op.width, op.out);
}

void OtherPart(const Fault& fault, Op& op) {
  const std::vector<float> right(op.out, op.out + op.n * op.width);
  const auto by = static_cast<int64_t>(fault.amount);
  for (int64_t i = 0; i < op.n; i++)
    for (int64_t j = 0; j < op.width; j++)
      if (fault.part.Contains(j))
        op.row(i)[j] = right[static_cast<size_t>(i * op.width + ((j + by) % op.width + op.width) % op.width)];
}

// Keys or values of all positions, (positions, n_kv_heads, head_dim).
struct Cache {
  float* values;
  int64_t n, width;
  float* cell(int64_t p) const { return values + p * width; }
};

Cache CacheOf(Op& op) {
  Tensor& t = op.inputs[1];
  const int64_t n = t.shape[0];
  return {t.values.data(), n, static_cast<int64_t>(t.values.size()) / std::max<int64_t>(n, 1)};
}

// The rotation taken back: each pair turned by minus its angle.
void Unrotate(const Op& op, const Cache& cache) {
  const HyperParameters& p = op.params();
  const bool local = p.is_local(op.layer), halves = p.rope_pairing.value == RopePairing::kHalves;
  const double base = local ? p.local_rope_base.value : p.rope_base.value,
               scale = local ? p.local_rope_scale.value : p.rope_scale.value;
  const int64_t d = p.head_dim, dims = p.rope_dims;
  for (int64_t t = 0; t < cache.n; t++)
    for (int64_t h = 0; h < cache.width; h += d)
      for (int64_t i = 0; i < dims / 2; i++) {
        const double angle = -static_cast<double>(t) / scale *
                             std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(dims));
        float *a = cache.cell(t) + h + (halves ? i : 2 * i),
              *b = cache.cell(t) + h + (halves ? i + dims / 2 : 2 * i + 1);
        const double x = *a, y = *b;
        *a = static_cast<float>(x * std::cos(angle) - y * std::sin(angle));
        *b = static_cast<float>(x * std::sin(angle) + y * std::cos(angle));
      }
}

// Changes what the op reads of the cache. Cells of later positions are not there yet.
void SpoilCache(const Fault& fault, Op& op) {
  const Cache cache = CacheOf(op);
  const std::vector<float> right(cache.values, cache.values + cache.n * cache.width);
  auto copy = [&](int64_t from, int64_t to) {
    std::copy_n(right.begin() + from * cache.width, cache.width, cache.cell(to));
  };
  const int64_t d = op.params().head_dim;
  for (int64_t p = 0; p < cache.n; p++) {
    const bool here = fault.part.Contains(p);
    if (fault.kind->id == FaultId::kCellAbsent && here) std::fill_n(cache.cell(p), cache.width, 0.0f);
    if (fault.kind->id == FaultId::kCellOfBefore && here) copy(p - 1, p);
    if (fault.kind->id == FaultId::kCellOfNext && here && p + 1 < cache.n) copy(p + 1, p);
    for (int64_t h = 0; fault.kind->id == FaultId::kHeadUnwritten && h < cache.width / d; h++)
      if (fault.part.Contains(h)) std::fill_n(cache.cell(p) + h * d, d, 0.0f);
    for (int64_t h = 0; fault.kind->id == FaultId::kOtherHead && h < cache.width / d; h++) {
      const auto* other = right.data() + p * cache.width + (h + 1) % (cache.width / d) * d;
      std::copy_n(other, d, cache.cell(p) + h * d);
    }
  }
  if (fault.kind->id == FaultId::kUnrotated) Unrotate(op, cache);
  for (int64_t at = 0; at < cache.n * cache.width; at++) {
    float& x = cache.values[at];
    if (fault.kind->id == FaultId::kHeadColumnsAbsent && fault.part.Contains(at % d)) x = 0;
  }
}

// What the op makes of the spoiled cache, where that is another value than of the right one: all
// else stays bit by bit.
void RecomputeFrom(const Fault& fault, Op& op) {
  const auto size = static_cast<size_t>(op.n * op.width);
  std::vector<float> plain(size), wrong(size);
  float* const out = op.out;
  auto compute = [&](std::vector<float>* to, bool stale) {
    op.out = to->data();
    if (stale)
      StaleCache(op, fault.kind->id == FaultId::kOwnOfBefore ? 2 : 0);
    else
      Mask(op, 0);
  };
  compute(&plain, false);
  const bool stale = fault.kind->id == FaultId::kOwnOfBefore || fault.kind->id == FaultId::kReadBefore;
  if (!stale) SpoilCache(fault, op);
  compute(&wrong, stale);
  op.out = out;
  const bool by_head = fault.kind->id == FaultId::kOtherHead;
  const int64_t d = HeadWidth(op);
  for (size_t at = 0; at < size; at++) {
    const int64_t head = static_cast<int64_t>(at) % op.width / d;
    if (by_head && !fault.part.Contains(head)) continue;
    if (wrong[at] != plain[at]) op.out[at] = wrong[at];
  }
}

// Whether the row at position `own` is kept from seeing position j. No row loses all that it sees.
bool Hides(const Fault& fault, int64_t own, int64_t j) {
  const auto n = static_cast<int64_t>(fault.amount);
  switch (fault.kind->id) {
    case FaultId::kPositionHidden:
      return fault.part.Contains(j) && j != own;
    case FaultId::kMaskShifted:
      return j > own - n && j > 0;
    case FaultId::kWindow:
      return j <= own - n;
    default:
      return false;
  }
}

void HideMore(const Fault& fault, Op& op) {
  const bool softmax = op.stage == PB_STAGE_ATTN_SCORES_SOFTMAX;
  const int64_t p = op.n_visible(), heads = op.width / p;
  std::vector<float> right(op.out, op.out + op.n * op.width);
  std::vector<bool> changes(static_cast<size_t>(op.n));
  for (int64_t i = 0; i < op.n; i++)
    for (int64_t h = 0; h < heads; h++)
      for (int64_t j = 0; j <= std::min(op.first + i, p - 1); j++) {
        if (!Hides(fault, op.first + i, j)) continue;
        changes[static_cast<size_t>(i)] = true;
        float* at = softmax ? op.inputs[0].values.data() + i * op.width : op.row(i);
        at[h * p + j] = kHidden;
      }
  if (!softmax) return;
  Softmax(op, 1);
  for (int64_t i = 0; i < op.n; i++)
    if (!changes[static_cast<size_t>(i)]) std::copy_n(right.data() + i * op.width, op.width, op.row(i));
}

// The probabilities that come to what attention gives which keeps its sums over the largest score so far,
// and does not rescale one of them where a larger one comes.
void NotRescaled(const Fault& fault, Op& op) {
  const int64_t p = op.n_visible();
  for (int64_t row = 0; row < op.n * op.width / p; row++) {
    const float* scores = op.inputs[0].values.data() + row * p;
    std::vector<double> so_far;  // the exponential of each score over the largest up to it
    double largest = kHidden, sum = 0, sum_so_far = 0;
    for (int64_t j = 0; j < p; j++) {
      largest = std::max(largest, double(scores[j]));
      so_far.push_back(scores[j] == kHidden ? 0 : std::exp(double(scores[j]) - largest));
      sum_so_far += so_far.back();
    }
    for (int64_t j = 0; j < p; j++) sum += std::exp(double(scores[j]) - largest);
    for (int64_t j = 0; j < p; j++)
      op.out[row * p + j] =
          static_cast<float>(fault.amount == 1 ? so_far[static_cast<size_t>(j)] / sum
                                               : std::exp(double(scores[j]) - largest) / sum_so_far);
  }
}

// A norm anew, in plain loops, of rows (or heads) as wide as its weight.
void SpoilNorm(const Fault& fault, Op& op) {
  const std::vector<float>& weight = op.model->weights(op.stage, op.layer).vector;
  const auto n = static_cast<int64_t>(weight.size());
  const double eps = double(op.params().norm_eps.value);
  const FaultId id = fault.kind->id;
  for (int64_t at = 0; at < op.n * op.width; at += n) {
    const float* x = op.inputs[0].values.data() + at;
    double sum = 0;
    for (int64_t k = 0; k < n; k++)
      if (id != FaultId::kSquaresWithout || !fault.part.Contains(k)) sum += double(x[k]) * double(x[k]);
    const double mean = sum / static_cast<double>(n);
    const double root = id == FaultId::kEpsOutside ? std::sqrt(mean) + eps : std::sqrt(mean + eps);
    for (int64_t k = 0; k < n; k++) {
      const bool plain = id == FaultId::kUnweighted && !fault.part.Contains(k);
      const double w = id == FaultId::kUnweighted ? 1 : double(weight[static_cast<size_t>(k)]);
      if (!plain) op.out[at + k] = static_cast<float>(double(x[k]) / root * w);
    }
  }
}

// A rotation anew with the frequencies of other pairs, or of fewer pairs.
void SpoilRotation(const Fault& fault, Op& op) {
  const HyperParameters& p = op.params();
  const bool local = p.is_local(op.layer), halves = p.rope_pairing.value == RopePairing::kHalves;
  const double base = local ? p.local_rope_base.value : p.rope_base.value,
               scale = local ? p.local_rope_scale.value : p.rope_scale.value;
  const auto amount = static_cast<int64_t>(fault.amount);
  const bool left = fault.kind->id == FaultId::kPairsLeft;
  const int64_t d = p.head_dim, pairs = p.rope_dims / 2;
  for (int64_t t = 0; t < op.n; t++)
    for (int64_t h = 0; h < op.width; h += d)
      for (int64_t i = 0; i < pairs; i++) {
        const int64_t a = h + (halves ? i : 2 * i), b = h + (halves ? i + pairs : 2 * i + 1);
        const double x = op.in(0, t)[a], y = op.in(0, t)[b];
        const double exponent = -static_cast<double>(i + (left ? 0 : amount)) / static_cast<double>(pairs);
        const double angle = left && i >= pairs - amount
                                 ? 0
                                 : static_cast<double>(op.first + t) / scale * std::pow(base, exponent);
        if (left && i < pairs - amount) continue;  // it stays bit by bit
        op.row(t)[a] = static_cast<float>(x * std::cos(angle) - y * std::sin(angle));
        op.row(t)[b] = static_cast<float>(x * std::sin(angle) + y * std::cos(angle));
      }
}

}  // namespace

void CommitValueFault(const Fault& fault, Op& op) {
  const auto amount = static_cast<float>(fault.amount);
  switch (fault.kind->id) {
    case FaultId::kFactor:
      return ForFeatures(fault, op, [&](float x) { return x * amount; });
    case FaultId::kOffset:
      return ForFeatures(fault, op, [&](float x) { return x + amount; });
    case FaultId::kSaturated:
      return ForFeatures(fault, op, [&](float x) { return std::clamp(x, -amount, amount); });
    case FaultId::kTruncated:
      return ForFeatures(fault, op, TruncateMantissa);
    case FaultId::kHalf:
      return ForFeatures(fault, op, RoundF16);
    case FaultId::kLeftOut:
      return LeaveOut(op);
    case FaultId::kOtherPart:
      return OtherPart(fault, op);
    case FaultId::kHeadFactor:
      return ForHeads(fault, op, [&](int64_t i, int64_t j) { return op.row(i)[j] * amount; });
    case FaultId::kHeadLeftOut:
      return ForHeads(fault, op, [&](int64_t i, int64_t j) { return op.in(0, i)[j]; });
    case FaultId::kSquaresWithout:
    case FaultId::kEpsOutside:
    case FaultId::kUnweighted:
      return SpoilNorm(fault, op);
    case FaultId::kPairFrequency:
    case FaultId::kPairsLeft:
      return SpoilRotation(fault, op);
    default:
      return;
  }
}

void CommitAttentionFault(const Fault& fault, Op& op) {
  if (fault.kind->id == FaultId::kNotRescaled) return NotRescaled(fault, op);
  const bool mask = fault.kind->id >= FaultId::kPositionHidden && fault.kind->id <= FaultId::kWindow;
  mask ? HideMore(fault, op) : RecomputeFrom(fault, op);
}

}  // namespace pb::mutant
