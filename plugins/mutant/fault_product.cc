// Quantisers, products and weights gone wrong in one part, in plain loops; and other right ways for
// a quantiser to compute the same.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/half.h"
#include "plugins/mutant/fault.h"

namespace pb::mutant {
namespace {

bool Is(const Fault* fault, FaultId id) { return fault && fault->kind->id == id; }

// A float32 rounded to f16 towards zero.
float TruncatedF16(float x) {
  const float near = RoundF16(x);
  if (std::fabs(near) <= std::fabs(x)) return near;
  return F16ToF32(static_cast<uint16_t>(F32ToF16(x) - 1));
}

// Of a block that begins at column `begin`.
struct BlockScale {
  float to_code = 0;
  double from_code = 0, sum_scale = 0;  // what codes, and stored sums, are multiplied by
};

struct Way {
  const Fault* fault = nullptr;
  const Harmless* harmless = nullptr;
  bool is(Harmless how) const { return harmless && *harmless == how; }
};

float LargestOf(const float* x, int64_t n, const Fault* fault) {
  float largest = 0;
  for (int64_t k = 0; k < n; k++) {
    if (Is(fault, FaultId::kAmaxOfPart) && !fault->part.Contains(k)) continue;
    if (std::fabs(x[k]) > std::fabs(largest)) largest = x[k];
  }
  return largest;
}

BlockScale ScaleOf(const float* x, int64_t n, ActScheme scheme, const Way& way) {
  const float largest = LargestOf(x, n, way.fault), magnitude = std::fabs(largest);
  const float levels = Is(way.fault, FaultId::kLevels) ? static_cast<float>(way.fault->amount) : 127.0f;
  BlockScale s;
  if (scheme == ActScheme::kBitnet) {
    const float least = std::max(magnitude, 1e-5f);
    s.to_code = way.is(Harmless::kReciprocal) ? 1.0f / (least / levels)
                : way.is(Harmless::kDouble)   ? static_cast<float>(double(levels) / double(least))
                                              : levels / least;
    s.from_code = 1 / double(s.to_code);
  } else if (magnitude > 0 && scheme == ActScheme::kQ8_K) {
    s.to_code = way.is(Harmless::kReciprocal) ? 1.0f / (largest / -levels)
                : way.is(Harmless::kDouble)   ? static_cast<float>(-double(levels) / double(largest))
                                              : -levels / largest;
    s.from_code = way.is(Harmless::kDouble) ? double(static_cast<float>(-double(largest) / double(levels)))
                                            : double(1.0f / s.to_code);
  } else if (magnitude > 0) {
    const float d = way.is(Harmless::kDouble) ? static_cast<float>(double(magnitude) / double(levels))
                                              : magnitude / levels;
    s.to_code = way.is(Harmless::kReciprocal) ? 1.0f / d : levels / magnitude;
    s.from_code = double(RoundF16(d));
    if (Is(way.fault, FaultId::kScalesUnrounded)) s.from_code = double(d);
    if (Is(way.fault, FaultId::kScalesTruncated)) s.from_code = double(TruncatedF16(d));
    s.sum_scale = double(d);
  }
  if (scheme != ActScheme::kQ8_1) s.sum_scale = s.from_code;
  return s;
}

double CodeOf(float scaled, int64_t place, ActScheme scheme, const Fault* fault) {
  double code = std::nearbyint(scaled);
  if (Is(fault, FaultId::kCodesTruncated)) code = std::trunc(scaled);
  if (Is(fault, FaultId::kCodesFloored)) code = std::floor(scaled);
  if (Is(fault, FaultId::kCodesOff) && fault->part.Contains(place)) code += fault->amount;
  double low = scheme == ActScheme::kQ8_0 || scheme == ActScheme::kQ8_1 ? -127 : -128, high = 127;
  // Beyond what its part holds, a value saturates as packing instructions do.
  if (Is(fault, FaultId::kAmaxOfPart) || Is(fault, FaultId::kCodesOff)) low = -128;
  if (Is(fault, FaultId::kCodesClamped)) low = -fault->amount, high = fault->amount;
  return std::clamp(code, std::max(low, -128.0), std::min(high, 127.0));
}

// Sums of groups of codes as they are stored, times the scale.
void SumUp(const float* x, const Way& way, ActScheme scheme, const std::vector<double>& sum_scales,
           CodedRow* row) {
  const auto n = static_cast<int64_t>(row->codes.size());
  row->sum_group = scheme == ActScheme::kQ8_1 ? 32 : 16;
  for (int64_t at = 0; at < n; at += row->sum_group) {
    const double scale = sum_scales[static_cast<size_t>(at / row->block)];
    double codes = 0, values = 0;
    float reordered = 0;
    for (int64_t k = std::min(at + row->sum_group, n) - 1; k >= at; k--) {
      const double code = row->codes[static_cast<size_t>(k)];
      const bool without = Is(way.fault, FaultId::kSumsWithout) || Is(way.fault, FaultId::kGroupSumsWithout);
      if (without && way.fault->part.Contains(k % row->block)) continue;
      codes += code, values += double(x[k]);
      reordered += static_cast<float>(scale) * static_cast<float>(code);
    }
    if (Is(way.fault, FaultId::kGroupSumsSaturated))
      codes = std::clamp(codes, -way.fault->amount, way.fault->amount);
    double sum = scale * codes;
    if (Is(way.fault, FaultId::kSumsOfValues)) sum = values;
    if (way.is(Harmless::kSumsReordered)) sum = double(reordered);
    const bool absent = Is(way.fault, FaultId::kSumsAbsent) && way.fault->part.Contains(at / row->block);
    if (scheme == ActScheme::kQ8_1) sum = double(RoundF16(static_cast<float>(sum)));
    row->sums.push_back(absent ? 0 : sum);
  }
  if (Is(way.fault, FaultId::kSumsShifted))
    std::rotate(row->sums.rbegin(), row->sums.rbegin() + 1, row->sums.rend());
}

CodedRow CodeBy(const float* x, int64_t n, ActScheme scheme, const Way& way) {
  CodedRow row;
  row.block = ActBlockValues(scheme, n);
  std::vector<double> sum_scales;
  for (int64_t begin = 0; begin < n; begin += row.block) {
    const int64_t count = std::min(row.block, n - begin);
    BlockScale s = ScaleOf(x + begin, count, scheme, way);
    for (int64_t k = 0; k < count; k++)
      row.codes.push_back(CodeOf(x[begin + k] * s.to_code, k, scheme, way.fault));
    if (Is(way.fault, FaultId::kScalesFactor) && way.fault->part.Contains(begin / row.block)) {
      s.from_code *= way.fault->amount;
      if (scheme != ActScheme::kQ8_1) s.sum_scale = s.from_code;
    }
    row.scales.push_back(s.from_code);
    sum_scales.push_back(s.sum_scale);
  }
  if (scheme == ActScheme::kQ8_1 || scheme == ActScheme::kQ8_K) SumUp(x, way, scheme, sum_scales, &row);
  return row;
}

// A product's input: values, and the sums that minima of weights are multiplied by.
struct Input {
  std::vector<double> values, sums;
};

Input InputOf(const float* x, int64_t n, ActScheme scheme, const Fault* fault) {
  if (!IsIntegerScheme(scheme)) return {Rounded(x, n, scheme, {}), {}};
  CodedRow row = CodeRow(x, n, scheme, fault);
  Input input;
  for (size_t k = 0; k < row.codes.size(); k++)
    input.values.push_back(row.codes[k] * row.scales[k / static_cast<size_t>(row.block)]);
  input.sums = std::move(row.sums);
  return input;
}

// From where each column's term is taken; -1: it is left out.
std::vector<int64_t> SourcesOf(const Fault& fault, int64_t n, int64_t block) {
  std::vector<int64_t> from(static_cast<size_t>(n));
  const FaultPart& part = fault.part;
  for (int64_t k = 0; k < n; k++) {
    int64_t& at = from[static_cast<size_t>(k)] = k;
    switch (fault.kind->id) {
      case FaultId::kColumnsAbsent:
        if (part.Contains(k)) at = -1;
        break;
      case FaultId::kCodeAbsent:
        if (part.Contains(k % block)) at = -1;
        break;
      case FaultId::kBlocksAbsent:
        if (part.Contains(k / block)) at = -1;
        break;
      case FaultId::kColumnsRepeated:
        if (part.Contains(k)) at = k - (part.last - part.first + 1);
        break;
      case FaultId::kLanesLost: {
        const auto n_lanes = static_cast<int64_t>(fault.amount);
        if (k % n_lanes == n_lanes - 1) at = -1;
        break;
      }
      default:
        break;
    }
  }
  return from;
}

// A row of weights: its values, and of each group of values the minimum that is among them.
struct WeightRow {
  std::vector<float> values;
  std::vector<double> minima;
};

std::vector<std::byte> RowBytes(const WeightView& w, int64_t r) {
  const std::byte* from = w.data + static_cast<uint64_t>(r) * w.row_bytes;
  return {from, from + w.row_bytes};
}

void ExchangeNibbles(const WeightView& w, std::vector<std::byte>* bytes) {
  const BlockFormat& format = GetBlockFormat(w.type);
  const size_t codes = w.type == BlockType::kQ4_K ? 16 : w.type == BlockType::kQ4_1 ? 4 : 2;
  for (size_t at = 0; at < bytes->size(); at++)
    if (at % format.block_bytes >= codes) (*bytes)[at] = ((*bytes)[at] << 4) | ((*bytes)[at] >> 4);
}

void TakeOthersScale(const WeightView& w, std::vector<std::byte>* bytes) {
  const size_t block = GetBlockFormat(w.type).block_bytes, n = bytes->size() / block;
  const std::vector<std::byte> right = *bytes;
  for (size_t b = 0; b < n; b++) {
    const size_t other = b + 1 < n ? b + 1 : b - 1;
    std::copy_n(right.begin() + static_cast<ptrdiff_t>(other * block), 2,
                bytes->begin() + static_cast<ptrdiff_t>(b * block));
  }
}

WeightRow RowOf(const Weights& w, int64_t r, const Fault& fault, int64_t act_block) {
  const FaultId id = fault.kind->id;
  const bool here = fault.part.Contains(r);
  if (id == FaultId::kRowsShifted && here) {
    const auto n = w.n_out(), by = static_cast<int64_t>(fault.amount);
    r = ((r + by) % n + n) % n;
  }
  WeightRow row{w.Row(r), BlockMinima(*w.view, r)};
  if ((id == FaultId::kNibbles || id == FaultId::kOthersScale) && here) {
    std::vector<std::byte> bytes = RowBytes(*w.view, r);
    id == FaultId::kNibbles ? ExchangeNibbles(*w.view, &bytes) : TakeOthersScale(*w.view, &bytes);
    GetBlockFormat(w.view->type).decode(bytes.data(), row.values.data(), w.n_in(), w.view->scale);
  }
  if (id == FaultId::kGroupSumsWithout) row.minima = BlockOffsets(*w.view, r);
  if (id == FaultId::kBitsLost || id == FaultId::kGroupScale) {
    const std::vector<std::byte> right = RowBytes(*w.view, r);
    std::vector<std::byte> bytes = right;
    const auto block = static_cast<int64_t>(GetBlockFormat(w.view->type).block_bytes);
    const auto amount = static_cast<int64_t>(fault.amount);
    for (int64_t at = 0; at < static_cast<int64_t>(bytes.size()); at++) {
      if (!fault.part.Contains(at % block)) continue;
      std::byte& b = bytes[static_cast<size_t>(at)];
      if (id == FaultId::kBitsLost) b &= static_cast<std::byte>(~amount);
      if (id == FaultId::kGroupScale && fault.part.Contains(at % block + amount))
        b = right[static_cast<size_t>(at + amount)];
    }
    GetBlockFormat(w.view->type).decode(bytes.data(), row.values.data(), w.n_in(), w.view->scale);
  }
  const auto group = row.minima.empty() ? 0 : w.n_in() / static_cast<int64_t>(row.minima.size());
  if (id == FaultId::kNoMinimum && here) {
    for (size_t k = 0; k < row.values.size(); k++)
      row.values[k] -= static_cast<float>(row.minima[k / static_cast<size_t>(group)]);
    std::fill(row.minima.begin(), row.minima.end(), 0.0);
  }
  if (id == FaultId::kMinimaOf) {
    constexpr size_t kBlock = 256;
    const auto of_block = kBlock / static_cast<size_t>(group);
    const std::vector<double> right = row.minima;
    for (size_t g = 0; g < right.size(); g++)
      row.minima[g] = right[g / of_block * of_block + (g + static_cast<size_t>(fault.amount)) % of_block];
    for (size_t k = 0; k < row.values.size(); k++) {
      const size_t g = k / static_cast<size_t>(group);
      row.values[k] += static_cast<float>(row.minima[g] - right[g]);
    }
  }
  if (id == FaultId::kWeightBlock && r == static_cast<int64_t>(fault.amount)) {
    for (int64_t k = 0; k < w.n_in(); k++)
      if (fault.part.Contains(k / act_block)) row.values[static_cast<size_t>(k)] = 0;
    for (size_t g = 0; g < row.minima.size(); g++)
      if (fault.part.Contains(static_cast<int64_t>(g) * group / act_block)) row.minima[g] = 0;
  }
  return row;
}

// Scale times code with the values, and the minima with the stored sums.
double DotOf(const Input& x, const WeightRow& row, const std::vector<int64_t>& from) {
  const bool sums = !row.minima.empty() && !x.sums.empty();
  const size_t group = sums ? row.values.size() / row.minima.size() : 0;
  double sum = 0;
  for (size_t k = 0; k < row.values.size(); k++) {
    if (from[k] < 0) continue;
    const auto at = static_cast<size_t>(from[k]);
    sum += x.values[at] * (double(row.values[at]) - (sums ? row.minima[at / group] : 0));
  }
  if (!sums) return sum;
  // A group's sum goes only with all of its columns.
  const size_t stored = row.values.size() / x.sums.size();
  for (size_t s = 0; s < x.sums.size(); s++) {
    const int64_t *first = from.data() + s * stored, *end = first + stored;
    if (std::all_of(first, end, [](int64_t k) { return k < 0; })) continue;
    const auto begin = static_cast<size_t>(std::max<int64_t>(first[0], 0));
    const bool moved = first[0] >= 0 && begin != s * stored && begin % stored == 0 && first[stored - 1] >= 0;
    const size_t at = moved ? begin / stored : s;
    sum += x.sums[at] * row.minima[at * stored / group];
  }
  return sum;
}

bool OnlyItsFeatures(FaultId id) {
  return id == FaultId::kLanesLost || id == FaultId::kRowsShifted || id == FaultId::kNibbles ||
         id == FaultId::kNoMinimum || id == FaultId::kOthersScale;
}

// Those that follow from the right output.
bool CommitOutput(const Fault& fault, Op& op) {
  const FaultId id = fault.kind->id;
  const bool factor = id == FaultId::kProductFactor || id == FaultId::kWeightFactor;
  const bool absent = id == FaultId::kFeaturesAbsent || id == FaultId::kShareAbsent,
             repeated = id == FaultId::kShareRepeated;
  if (!factor && !absent && !repeated) return false;
  const int64_t length = fault.part.last - fault.part.first + 1;
  const Weights w = MatrixOf(*op.model, op.stage, op.layer);
  for (int64_t i = 0; i < op.n; i++)
    for (int64_t r = 0; r < op.width; r++) {
      if (!fault.part.Contains(r)) continue;
      const double bias = w.BiasOf(r);
      float& y = op.row(i)[r];
      y = absent     ? 0
          : repeated ? op.row(i)[r - length]
                     : static_cast<float>((double(y) - bias) * fault.amount + bias);
    }
  return true;
}

}  // namespace

CodedRow CodeRow(const float* x, int64_t n, ActScheme scheme, const Fault* fault) {
  return CodeBy(x, n, scheme, {fault, nullptr});
}
CodedRow CodeRow(const float* x, int64_t n, ActScheme scheme, Harmless how) {
  return CodeBy(x, n, scheme, {nullptr, &how});
}

void CommitProductFault(const Fault& fault, Op& op) {
  if (CommitOutput(fault, op)) return;
  const Weights w = MatrixOf(*op.model, op.stage, op.layer);
  const ActScheme scheme = OwnScheme(op);
  const int64_t n = w.n_in(), block = std::max<int64_t>(ActBlockValues(scheme, n), 1);
  std::vector<Input> x;
  for (int64_t i = 0; i < op.n; i++) x.push_back(InputOf(op.in(0, i), n, scheme, &fault));
  const std::vector<int64_t> from = SourcesOf(fault, n, block);
  for (int64_t r = 0; r < w.n_out(); r++) {
    if (OnlyItsFeatures(fault.kind->id) && !fault.part.Contains(r)) continue;
    if (fault.kind->id == FaultId::kWeightBlock && r != static_cast<int64_t>(fault.amount)) continue;
    const WeightRow row = RowOf(w, r, fault, block);
    for (int64_t i = 0; i < op.n; i++) {
      const double dot = DotOf(x[static_cast<size_t>(i)], row, from);
      op.row(i)[r] = Finished(op, dot * double(w.scale) + w.BiasOf(r));
    }
  }
}

namespace {

// Those of the row as it is in the file.
WeightRow RightRow(const Weights& w, int64_t r) { return {w.Row(r), BlockMinima(*w.view, r)}; }

Input Of(const CodedRow& row) {
  Input input;
  for (size_t k = 0; k < row.codes.size(); k++)
    input.values.push_back(row.codes[k] * row.scales[k / static_cast<size_t>(row.block)]);
  input.sums = row.sums;
  return input;
}

// In float32, eight sums at a time, fused, and no denormals.
float FastDot(const Input& x, const WeightRow& row) {
  constexpr size_t kLanes = 8;
  float lanes[kLanes] = {};
  const bool sums = !row.minima.empty() && !x.sums.empty();
  const size_t group = sums ? row.values.size() / row.minima.size() : 1;
  for (size_t k = 0; k < row.values.size(); k++) {
    const float weight = row.values[k] - (sums ? static_cast<float>(row.minima[k / group]) : 0.0f);
    lanes[k % kLanes] = std::fma(static_cast<float>(x.values[k]), weight, lanes[k % kLanes]);
  }
  const size_t stored = sums ? row.values.size() / x.sums.size() : 1;
  for (size_t s = 0; sums && s < x.sums.size(); s++)
    lanes[s % kLanes] = std::fma(static_cast<float>(x.sums[s]),
                                 static_cast<float>(row.minima[s * stored / group]), lanes[s % kLanes]);
  float sum = 0;
  for (float lane : lanes) sum += lane;
  return sum;
}

template <typename Dot>
void ProductBy(Op& op, const std::vector<Input>& x, Dot dot) {
  const Weights w = MatrixOf(*op.model, op.stage, op.layer);
  for (int64_t r = 0; r < w.n_out(); r++) {
    const WeightRow row = RightRow(w, r);
    for (int64_t i = 0; i < op.n; i++)
      op.row(i)[r] =
          Finished(op, double(dot(x[static_cast<size_t>(i)], row)) * double(w.scale) + w.BiasOf(r));
  }
}

}  // namespace

void HarmlessProduct(Op& op, Harmless how) {
  const ActScheme scheme = OwnScheme(op);
  std::vector<Input> x;
  for (int64_t i = 0; i < op.n; i++) x.push_back(Of(CodeRow(op.in(0, i), op.in_width(0), scheme, how)));
  std::vector<int64_t> from(static_cast<size_t>(op.in_width(0)));
  std::iota(from.begin(), from.end(), int64_t{0});
  ProductBy(op, x, [&](const Input& input, const WeightRow& row) { return DotOf(input, row, from); });
}

void FastProduct(Op& op) {
  std::vector<Input> x;
  for (int64_t i = 0; i < op.n; i++)
    x.push_back(InputOf(op.in(0, i), op.in_width(0), OwnScheme(op), nullptr));
  ProductBy(op, x, FastDot);
}

}  // namespace pb::mutant
