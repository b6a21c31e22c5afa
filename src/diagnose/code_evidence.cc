// Compares codes, scales and stored sums of an op's input, and sums codes by weights exactly.
#include "diagnose/code_evidence.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/bytes.h"
#include "base/half.h"
#include "codes/act_scheme.h"
#include "codes/block_steps.h"
#include "diagnose/op_weights.h"

namespace pb::diagnose {
namespace {

constexpr size_t kMaxSummedRows = 4;

// A row of integer weights: weight k is d x q + m; d and m by blocks.
struct WeightRow {
  std::vector<int32_t> q;
  std::vector<double> d, m;  // one a weight
  int64_t block = 0;         // weights that share d; 0: the type has no integer codes
};

// Resizes to the matrix's columns; `row` may be used again for the next one.
void ReadRow(const WeightView& w, int64_t r, WeightRow* row) {
  const auto n = static_cast<size_t>(w.n_columns);
  row->q.assign(n, 0), row->d.assign(n, 0), row->m.assign(n, 0);
  const std::byte* data = w.data + static_cast<uint64_t>(r) * w.row_bytes;
  if (w.type == BlockType::kQ8_0 || w.type == BlockType::kQ4_1) {
    row->block = 32;
    const bool q4 = w.type == BlockType::kQ4_1;
    for (size_t k = 0; k < n; k++) {
      const size_t i = k % 32;
      const std::byte* at = data + k / 32 * (q4 ? sizeof(BlockQ4_1) : sizeof(BlockQ8_0));
      row->d[k] = F16ToF32(LoadLe<uint16_t>(at));
      if (!q4) {
        row->q[k] = LoadLe<int8_t>(at + offsetof(BlockQ8_0, qs) + i);
        continue;
      }
      const auto byte = LoadLe<uint8_t>(at + offsetof(BlockQ4_1, qs) + i % 16);
      row->q[k] = i < 16 ? byte & 15 : byte >> 4;
    }
    const std::vector<double> minima = BlockMinima(w, r);
    for (size_t k = 0; k < n && !minima.empty(); k++) row->m[k] = minima[k / 32];
    return;
  }
  const bool ternary =
      w.type == BlockType::kTQ1_0 || w.type == BlockType::kTQ2_0 || w.type == BlockType::kI2_S;
  row->block = w.type == BlockType::kI2_S ? w.n_columns : ternary ? 256 : 0;
  std::vector<float> values(n);
  DecodeRow(w, r, values.data());
  const std::vector<double> minima = BlockMinima(w, r);
  for (size_t k = 0; k < n; k++) {
    if (!minima.empty()) row->m[k] = minima[k * minima.size() / n];
    row->q[k] = ternary ? (values[k] > 0) - (values[k] < 0) : 1;
    row->d[k] = ternary ? std::fabs(values[k]) : double(values[k]) - row->m[k];
  }
}

// Codes of one engine against one weight row.
struct Sums {
  // one a block: of the weights' or of the codes', whichever is shorter; empty: weights are no
  // integers
  std::vector<int64_t> integer;
  double exact = 0;
};

Sums SumRow(const WeightRow& w, const host::Codes& c, int64_t i) {
  const int64_t n_blocks = c.n_blocks(), step = std::min(w.block, c.block);
  const int8_t* codes = c.codes.data() + i * c.n_columns;
  Sums s;
  if (w.block > 0) s.integer.assign(static_cast<size_t>((c.n_columns + step - 1) / step), 0);
  for (int64_t b = 0; b < n_blocks; b++) {
    const auto at = static_cast<size_t>(i * n_blocks + b);
    const double scale = c.scales[at];
    double products = 0, minimum = 0, sum = 0;
    for (int64_t k = b * c.block; k < std::min((b + 1) * c.block, c.n_columns); k++) {
      const auto weight = static_cast<size_t>(k);
      if (w.block > 0) s.integer[static_cast<size_t>(k / step)] += w.q[weight] * codes[k];
      products += w.d[weight] * (w.q[weight] * codes[k]);
      minimum += w.m[weight] * codes[k], sum += codes[k];
    }
    s.exact += products * scale;
    // A stored sum stands for the codes' own where a block has one minimum.
    const double m = w.m[static_cast<size_t>(b * c.block)];
    s.exact +=
        c.sums.empty() || m == 0 ? minimum * scale : m * double(c.sums[at]) + (minimum - m * sum) * scale;
  }
  return s;
}

std::span<const float> BlockOf(std::span<const float> row, int64_t block, size_t index) {
  const size_t at = index * static_cast<size_t>(block);
  return row.subspan(at, std::min(static_cast<size_t>(block), row.size() - at));
}

// The blocks of a row as the engines' scheme has them.
std::vector<codes::ActBlock> BlocksOf(std::span<const float> row, const host::Codes& c) {
  const ActScheme scheme = FindActScheme(c.scheme).value_or(ActScheme::kQ8_0);
  std::vector<codes::ActBlock> blocks;
  const auto n_blocks = static_cast<size_t>(c.n_blocks());
  for (size_t b = 0; b < n_blocks; b++) blocks.push_back(codes::ActBlockOf(BlockOf(row, c.block, b), scheme));
  return blocks;
}

bool SameBits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

int64_t CountEqual(const std::vector<float>& a, const std::vector<float>& b) {
  int64_t n = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); i++) n += SameBits(a[i], b[i]);
  return n;
}

// The scale and the stored sum of a block: the second number of each counts those that differ, and
// that a correct quantiser may round either way.
void CompareBlock(const host::Codes& x, const host::Codes& y, std::span<const float> values, size_t block,
                  const codes::ActBlock& of, CodePair* pair) {
  auto may = [&](const host::Codes& c) { return codes::MayBeScale(of, c.scales[block]); };
  if (SameBits(x.scales[block], y.scales[block]))
    pair->n_scales_equal++;
  else
    pair->n_scales_on_boundary += may(x) && may(y);
  pair->n_scales++;
  if (x.sums.empty() || y.sums.empty()) return;
  auto may_sum = [&](const host::Codes& c) {
    const auto begin = c.codes.begin() + static_cast<ptrdiff_t>(block) * c.block;
    return codes::MayBeSum(of, values, std::accumulate(begin, begin + c.block, 0), c.sums[block]);
  };
  if (SameBits(x.sums[block], y.sums[block]))
    pair->n_stored_equal++;
  else
    pair->n_stored_on_boundary += may_sum(x) && may_sum(y);
  pair->n_stored++;
}

CodePair ComparePair(const CodeSide& a, const CodeSide& b, std::span<const float> input) {
  const host::Codes &x = *a.codes, &y = *b.codes;
  CodePair pair;
  pair.first = a.role, pair.second = b.role;
  pair.block[0] = x.block, pair.block[1] = y.block;
  pair.comparable = x.block == y.block && x.codes.size() == y.codes.size() && x.codes.size() == input.size();
  if (!pair.comparable) return pair;
  pair.n_codes = static_cast<int64_t>(x.codes.size());
  for (int64_t i = 0; i < x.n_rows; i++) {
    const auto begin = static_cast<size_t>(i * x.n_columns);
    const std::span<const float> row = input.subspan(begin, static_cast<size_t>(x.n_columns));
    const std::vector<codes::ActBlock> blocks = BlocksOf(row, x);
    for (size_t b = 0; b < blocks.size(); b++)
      CompareBlock(x, y, BlockOf(row, x.block, b), static_cast<size_t>(i) * blocks.size() + b, blocks[b],
                   &pair);
    for (int64_t k = 0; k < x.n_columns; k++) {
      const size_t at = begin + static_cast<size_t>(k);
      const int64_t step = std::abs(int64_t{x.codes[at]} - y.codes[at]);
      if (step == 0) continue;
      pair.n_differ++;
      pair.largest_step = std::max(pair.largest_step, step);
      if (step == 1 && codes::OnBoundary(input[at], blocks[static_cast<size_t>(k / x.block)].to_code)) {
        pair.n_on_boundary++;
      } else if (pair.off_row < 0) {
        pair.off_row = i, pair.off_column = k;
      }
    }
  }
  return pair;
}

// The rows to sum: the culprit's worst, those whose codes differ, then the first ones.
std::vector<int64_t> ChooseRows(const Culprit& culprit, const std::vector<CodeSide>& sides) {
  const int64_t n = culprit.shape[0];
  std::vector<int64_t> rows;
  auto take = [&](int64_t i) {
    if (i >= 0 && i < n && rows.size() < kMaxSummedRows &&
        std::find(rows.begin(), rows.end(), i) == rows.end())
      rows.push_back(i);
  };
  take(culprit.row.first_row_above - culprit.first_position);
  take(culprit.row.worst_row_position - culprit.first_position);
  const host::Codes* first = nullptr;
  for (const CodeSide& side : sides) {
    if (!side.codes) continue;
    if (!first) first = &*side.codes;
    for (int64_t i = 0; i < n; i++) {
      const auto width = first->n_columns;
      if (side.codes->n_columns == width &&
          std::memcmp(&side.codes->codes[static_cast<size_t>(i * width)],
                      &first->codes[static_cast<size_t>(i * width)], static_cast<size_t>(width)) != 0)
        take(i);
    }
  }
  for (int64_t i = 0; i < n; i++) take(i);
  std::sort(rows.begin(), rows.end());
  return rows;
}

std::vector<float> RowsOf(std::span<const float> all, const std::vector<int64_t>& rows, int64_t width) {
  std::vector<float> taken;
  for (int64_t i : rows)
    taken.insert(taken.end(), all.begin() + static_cast<ptrdiff_t>(i * width),
                 all.begin() + static_cast<ptrdiff_t>((i + 1) * width));
  return taken;
}

// What an output differs from an expectation by: the larger of row and feature error, and the
// bound's ratio.
compare::PointRow Differ(const Culprit& culprit, const CodeSubject& subject, const std::vector<int64_t>& rows,
                         const std::vector<float>& expected) {
  const auto n = static_cast<int64_t>(rows.size()), width = static_cast<int64_t>(expected.size()) / n;
  const std::vector<float> output = RowsOf(subject.output, rows, width);
  const std::vector<float> units =
      subject.units.empty() ? std::vector<float>() : RowsOf(subject.units, rows, width);
  const auto bound = units.empty()
                         ? culprit.bound
                         : compare::BoundFromUnits(static_cast<pb_stage>(culprit.place.stage), units);
  const compare::PointPlace place{culprit.place.prompt, culprit.place.step, culprit.place.stage,
                                  culprit.place.layer, culprit.first_position};
  auto row = compare::ComparePoint({output, n, width}, {expected, n, width}, place, bound);
  PB_CHECK(row.ok());
  return std::move(row).value();
}

// What the codes make of the weights in the rows to sum; integer sums in the order of rows,
// features, blocks.
struct Summed {
  std::vector<float> exact;
  std::vector<int64_t> integer;
};
Summed SumCodes(const OpWeights& weights, const host::Codes& codes, const std::vector<int64_t>& rows) {
  const WeightView& w = *weights.matrix;
  Summed out;
  std::vector<Sums> sums(rows.size() * static_cast<size_t>(w.n_rows));
  WeightRow row;
  for (int64_t j = 0; j < w.n_rows; j++) {
    ReadRow(w, j, &row);
    for (size_t i = 0; i < rows.size(); i++)
      sums[i * static_cast<size_t>(w.n_rows) + static_cast<size_t>(j)] = SumRow(row, codes, rows[i]);
  }
  for (const Sums& s : sums) {
    const size_t j = out.exact.size() % static_cast<size_t>(w.n_rows);
    const double bias = weights.bias ? double((*weights.bias)[j]) : 0;
    out.exact.push_back(static_cast<float>(s.exact * double(weights.scale) + bias));
    out.integer.insert(out.integer.end(), s.integer.begin(), s.integer.end());
  }
  return out;
}

void CompareProducts(const Culprit& culprit, const CodeSubject& subject, const std::vector<int64_t>& rows,
                     const OpWeights& weights, CodeSide* side) {
  const int64_t width = static_cast<int64_t>(subject.output.size()) / culprit.shape[0];
  std::vector<float> products = RowsOf(side->codes->products, rows, width);
  for (size_t i = 0; i < products.size(); i++) {
    products[i] *= weights.scale;
    if (weights.bias) products[i] += (*weights.bias)[i % static_cast<size_t>(width)];
  }
  side->n_products = static_cast<int64_t>(products.size());
  side->n_products_equal = CountEqual(products, RowsOf(subject.output, rows, width));
  side->product_bound_ratio = Differ(culprit, subject, rows, products).bound_ratio;
}

std::string PairText(const CodePair& p) {
  const std::string who = fmt::format("{} against {}: ", p.first, p.second);
  if (!p.comparable)
    return who +
           fmt::format("blocks of {} values against {}: other codes altogether", p.block[0], p.block[1]);
  std::string text = who + fmt::format("{} of {} codes differ", p.n_differ, p.n_codes);
  if (p.n_differ > 0 && p.n_differ == p.n_on_boundary) {
    text += ", each by one step at a value on a rounding boundary";
  } else if (p.n_differ > 0) {
    text += fmt::format(
        ", {} of them by one step at a value on a rounding boundary; by up to {} steps, first "
        "row {}, column {}",
        p.n_on_boundary, p.largest_step, p.off_row, p.off_column);
  }
  auto others = [](int64_t n) { return n > 0 ? fmt::format(" ({} more on a rounding boundary)", n) : ""; };
  text += fmt::format("; scales equal in {} of {} blocks{}", p.n_scales_equal, p.n_scales,
                      others(p.n_scales_on_boundary));
  if (p.n_stored > 0)
    text += fmt::format(", stored sums in {} of {}{}", p.n_stored_equal, p.n_stored,
                        others(p.n_stored_on_boundary));
  if (p.n_sums > 0) text += fmt::format("; {} of {} int32 sums differ", p.n_sums_differ, p.n_sums);
  return text;
}

std::string SideText(const CodeSide& s) {
  if (!s.codes) return fmt::format("{}: no codes: {}", s.role, s.why_none);
  std::string text = fmt::format("{}: {} {}", s.role, s.codes->scheme, s.codes->maker);
  if (s.sum_bound_ratio >= 0)
    text += fmt::format("; its output {} its codes make of the weights ({:.2g} of the bound)",
                        s.FollowsFromCodes() ? "is what" : "is not what", s.sum_bound_ratio);
  if (s.n_products > 0)
    text += fmt::format("; {} of {} outputs have the bits of the library's scalar product of these codes{}",
                        s.n_products_equal, s.n_products,
                        s.product_bound_ratio <= 1 ? "" : ", and the others are beyond the bound of it");
  return text;
}

}  // namespace

std::vector<std::string> CodeEvidence::Sentences() const {
  std::vector<std::string> out;
  for (const CodeSide& s : sides) out.push_back(SideText(s));
  for (const CodePair& p : pairs) out.push_back(PairText(p));
  if (!rows.empty()) out.push_back(fmt::format("summed in rows {}", fmt::join(rows, ", ")));
  return out;
}

std::optional<CodeEvidence> CompareCodes(const Culprit& culprit, std::span<const float> input,
                                         std::span<const CodeSubject> subjects) {
  CodeEvidence out;
  std::vector<Summed> sums;
  for (const CodeSubject& s : subjects) {
    CodeSide& side = out.sides.emplace_back();
    side.role = s.role;
    if (s.codes.ok()) {
      side.codes = *s.codes;
    } else {
      side.why_none = s.codes.error().message;
    }
  }
  const bool any = std::any_of(out.sides.begin(), out.sides.end(), [](const auto& s) { return s.codes; });
  if (!any || culprit.row.n_non_finite[0] + culprit.row.n_non_finite[1] > 0) return std::nullopt;
  out.rows = ChooseRows(culprit, out.sides);
  for (size_t i = 0; i < subjects.size(); i++) {
    const OpWeights weights = WeightsOf(*subjects[i].model, culprit.place.stage, culprit.place.layer);
    CodeSide& side = out.sides[i];
    sums.emplace_back();
    if (!side.codes || !weights.matrix || side.codes->n_columns != weights.matrix->n_columns ||
        side.codes->n_rows != culprit.shape[0])
      continue;
    sums.back() = SumCodes(weights, *side.codes, out.rows);
    const compare::PointRow row = Differ(culprit, subjects[i], out.rows, sums.back().exact);
    side.sum_error = std::max(row.worst_row, row.worst_feature), side.sum_bound_ratio = row.bound_ratio;
    if (!side.codes->products.empty()) CompareProducts(culprit, subjects[i], out.rows, weights, &side);
  }
  for (size_t i = 0; i < out.sides.size(); i++) {
    for (size_t j = i + 1; j < out.sides.size(); j++) {
      if (!out.sides[i].codes || !out.sides[j].codes) continue;
      CodePair pair = ComparePair(out.sides[i], out.sides[j], input);
      if (pair.comparable && sums[i].integer.size() == sums[j].integer.size()) {
        pair.n_sums = static_cast<int64_t>(sums[i].integer.size());
        for (size_t k = 0; k < sums[i].integer.size(); k++)
          pair.n_sums_differ += sums[i].integer[k] != sums[j].integer[k];
      }
      out.pairs.push_back(std::move(pair));
    }
  }
  return out;
}

}  // namespace pb::diagnose
