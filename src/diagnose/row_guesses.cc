// Weights of a product that are read otherwise than their blocks hold them: with the scale of a
// neighbouring block or group, with the two codes of each byte exchanged, or without some of their
// bits; in all places of their blocks, or in a run of these.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "diagnose/part.h"
#include "diagnose/product_terms.h"
#include "diagnose/region.h"
#include "diagnose/transformations.h"
#include "diagnose/wrong_part.h"

namespace pb::diagnose {
namespace {

constexpr int64_t kSampleRows = 4, kSampleOutputs = 32;
constexpr double kSampleRest = 0.02;
constexpr int64_t kLeastPeriod = 16;  // of places in a block

// Where the scale of a block's codes, an f16, stands; -1: it has none of this kind.
int64_t ScaleOffset(BlockType type) {
  switch (type) {
    case BlockType::kQ4_0:
    case BlockType::kQ4_1:
    case BlockType::kQ5_0:
    case BlockType::kQ5_1:
    case BlockType::kQ8_0:
    case BlockType::kQ4_K:
    case BlockType::kQ5_K:
      return 0;
    case BlockType::kQ6_K:
      return 208;
    case BlockType::kTQ2_0:
      return offsetof(BlockTQ2_0, d);
    default:
      return -1;
  }
}

// Where the codes of a block begin that stand two to a byte; -1: they do not.
int64_t NibbleOffset(BlockType type) {
  switch (type) {
    case BlockType::kQ4_0:
      return offsetof(BlockQ4_0, qs);
    case BlockType::kQ4_1:
      return offsetof(BlockQ4_1, qs);
    case BlockType::kQ4_K:
      return 16;
    default:
      return -1;
  }
}

// Some bytes of a block, and what their bits are of. `whole`: how many of them are all there is of a
// code or a scale; 0: none are.
struct Field {
  const char* noun;
  size_t begin, end;
  int whole = 0;
  // Without all of its bits a code is a term that is left out, which OtherTerms tells.
  bool LosesWhole(uint8_t bits) const {
    for (int at = 0; whole > 0 && at < 8; at += whole) {
      const int all = ((1 << whole) - 1) << at;
      if ((bits & all) == all) return true;
    }
    return false;
  }
};
std::vector<Field> FieldsOf(BlockType type) {
  switch (type) {
    case BlockType::kQ4_0:
      return {{"codes", offsetof(BlockQ4_0, qs), sizeof(BlockQ4_0), 4}};
    case BlockType::kQ4_1:
      return {{"codes", offsetof(BlockQ4_1, qs), sizeof(BlockQ4_1), 4}};
    case BlockType::kQ5_0:
      return {{"codes' high bits", 2, 6}, {"codes", 6, 22}};
    case BlockType::kQ5_1:
      return {{"codes' high bits", 4, 8}, {"codes", 8, 24}};
    case BlockType::kQ8_0:
      return {{"codes", 2, 34, 8}};
    case BlockType::kQ2_K:
      return {{"codes", 16, 80, 2}, {"scales", 0, 16, 4}};
    case BlockType::kQ3_K:
      return {{"codes' high bits", 0, 32}, {"codes", 32, 96}, {"scales", 96, 108, 8}};
    case BlockType::kQ4_K:
      return {{"codes", 16, 144, 4}, {"scales", 4, 16, 8}};
    case BlockType::kQ5_K:
      return {{"codes' high bits", 16, 48}, {"codes", 48, 176}, {"scales", 4, 16, 8}};
    case BlockType::kQ6_K:
      return {{"codes' high bits", 128, 192}, {"codes", 0, 128}, {"scales", 192, 208, 8}};
    case BlockType::kTQ2_0:
      return {{"codes", offsetof(BlockTQ2_0, qs), offsetof(BlockTQ2_0, qs) + sizeof(BlockTQ2_0::qs), 2}};
    default:
      return {};
  }
}
// Bits of a byte that a mask or a shift loses together.
constexpr std::array<uint8_t, 15> kBits = {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80,
                                           0x03, 0x0C, 0x30, 0xC0, 0x0F, 0xF0, 0xFF};

// Where scales of groups stand one to a byte; end == begin: they do not.
Field GroupScales(BlockType type) {
  if (type == BlockType::kQ6_K) return {"scales", 192, 208, 8};
  if (type == BlockType::kQ2_K) return {"scales", 0, 16, 8};
  return {"", 0, 0, 0};
}

// The smallest period of places that are marked alike, and the one run of them; nothing: there is no
// such run.
std::optional<Region> PlacesOf(const std::vector<bool>& marked) {
  const size_t n = marked.size();
  for (size_t period = 1; period <= n; period *= 2) {
    bool same = n % period == 0;
    for (size_t k = period; k < n && same; k++) same = marked[k] == marked[k - period];
    if (!same) continue;
    const auto begin = marked.begin(), end = begin + static_cast<ptrdiff_t>(period);
    const auto first = std::find(begin, end, true);
    if (first == end) return std::nullopt;
    const auto last = std::find(first, end, false);
    if (std::find(last, end, true) != end) return std::nullopt;
    if (period == 1) return Region{Axis::kAll};
    return Region{Axis::kCode, first - begin, last - begin - 1, 1, static_cast<int64_t>(period)};
  }
  return std::nullopt;
}

// What stands in the place of each byte of a row. `end`: what the block at the end takes that has no
// such neighbour.
enum class Reading { kScaleOfNext, kScaleOfPrevious, kNibblesExchanged };
enum class End { kOwn, kOtherNeighbour, kOtherEnd, kNextRow };
constexpr std::array kEnds = {End::kOwn, End::kOtherNeighbour, End::kOtherEnd, End::kNextRow};

class Rows {
 public:
  explicit Rows(const WeightView& w) : w_(w), format_(GetBlockFormat(w.type)) {}

  bool Has(Reading reading) const {
    if (reading == Reading::kNibblesExchanged) return NibbleOffset(w_.type) >= 0;
    return ScaleOffset(w_.type) >= 0 && n_blocks() > 1;
  }
  // Without these bits of a field in any block.
  std::vector<float> WithoutBits(int64_t row, const Field& field, uint8_t bits) const {
    std::vector<std::byte> bytes = Bytes(row);
    for (size_t at = 0; at < bytes.size(); at++)
      if (at % format_.block_bytes >= field.begin && at % format_.block_bytes < field.end)
        bytes[at] &= static_cast<std::byte>(~bits);
    return Decoded(bytes);
  }
  // Of each byte of a field the bits `to` on, `width` of them, are those `from` on.
  std::vector<float> WithSlotOf(int64_t row, const Field& field, int width, int to, int from) const {
    std::vector<std::byte> bytes = Bytes(row);
    const unsigned all = (1u << width) - 1;
    for (size_t at = 0; at < bytes.size(); at++) {
      if (at % format_.block_bytes < field.begin || at % format_.block_bytes >= field.end) continue;
      const auto b = static_cast<unsigned>(bytes[at]);
      bytes[at] = static_cast<std::byte>((b & ~(all << to)) | ((b >> from & all) << to));
    }
    return Decoded(bytes);
  }
  // Each group with the scale of the one `by` further on, where there is one. `codes_alone`: as they are
  // stored, and not their minimum, or the constant that they are lowered by.
  std::vector<float> WithScaleOf(int64_t row, const Field& scales, int64_t by, bool codes_alone) const {
    const std::vector<std::byte> own = Bytes(row);
    std::vector<std::byte> bytes = own;
    const auto n = static_cast<int64_t>(scales.end - scales.begin);
    for (size_t block = 0; block < bytes.size(); block += format_.block_bytes)
      for (int64_t g = std::max<int64_t>(-by, 0); g < std::min(n, n - by); g++)
        bytes[block + scales.begin + static_cast<size_t>(g)] =
            own[block + scales.begin + static_cast<size_t>(g + by)];
    std::vector<float> values = Decoded(bytes);
    if (!codes_alone) return values;
    const std::vector<double> right = Offsets(own), wrong = Offsets(bytes);
    for (size_t k = 0; k < values.size(); k++) {
      const size_t at = k * right.size() / values.size();
      values[k] += static_cast<float>(right[at] - wrong[at]);
    }
    return values;
  }
  int64_t block_values() const { return format_.block_values; }
  std::vector<float> Read(int64_t row, Reading reading, End end) const {
    std::vector<std::byte> bytes = Bytes(row);
    if (reading == Reading::kNibblesExchanged) {
      const auto codes = static_cast<size_t>(NibbleOffset(w_.type));
      for (size_t at = 0; at < bytes.size(); at++)
        if (at % format_.block_bytes >= codes) bytes[at] = (bytes[at] << 4) | (bytes[at] >> 4);
    } else {
      for (int64_t b = 0; b < n_blocks(); b++)
        std::memcpy(bytes.data() + b * format_.block_bytes + ScaleOffset(w_.type),
                    ScaleFor(row, b, reading, end), 2);
    }
    return Decoded(bytes);
  }

 private:
  std::vector<std::byte> Bytes(int64_t row) const {
    const std::byte* own = Data(row);
    return {own, own + w_.row_bytes};
  }
  std::vector<float> Decoded(const std::vector<std::byte>& bytes) const {
    std::vector<float> values(static_cast<size_t>(w_.n_columns));
    format_.decode(bytes.data(), values.data(), w_.n_columns, w_.scale);
    return values;
  }
  int64_t n_blocks() const { return w_.n_columns / format_.block_values; }
  std::vector<double> Offsets(const std::vector<std::byte>& bytes) const {
    WeightView row = w_;
    row.data = bytes.data(), row.n_rows = 1;
    const std::vector<double> minima = BlockMinima(row, 0);
    return minima.empty() ? BlockOffsets(row, 0) : minima;
  }
  const std::byte* Data(int64_t row) const { return w_.data + static_cast<uint64_t>(row) * w_.row_bytes; }
  const std::byte* ScaleFor(int64_t row, int64_t block, Reading reading, End end) const {
    const bool next = reading == Reading::kScaleOfNext;
    int64_t from = next ? block + 1 : block - 1;
    if (from < 0 || from >= n_blocks()) {
      from = end == End::kOwn              ? block
             : end == End::kOtherNeighbour ? (next ? block - 1 : 1)
             : next                        ? 0
                                           : n_blocks() - 1;
      const int64_t other = next ? row + 1 : row - 1;
      if (end == End::kNextRow && other >= 0 && other < w_.n_rows) row = other;
    }
    return Data(row) + from * format_.block_bytes + ScaleOffset(w_.type);
  }

  const WeightView& w_;
  const BlockFormat& format_;
};

class RowSearch {
 public:
  RowSearch(const Subject& s, const WrongPart& part, const ProductTerms& product)
      : s_(s), part_(part), product_(product), rows_(*product.weights().matrix) {}

  std::vector<Guess> Run() {
    const char* scale = "each block's own scale";
    Try(Reading::kScaleOfNext,
        {"weight.scale=next", "takes for each block of weights the scale of the block behind", scale});
    Try(Reading::kScaleOfPrevious,
        {"weight.scale=previous", "takes for each block of weights the scale of the block before", scale});
    Try(Reading::kNibblesExchanged,
        {"weight.order=nibbles", "exchanges the two weight codes of each byte", "the codes in their order"});
    // In one row alone it is a cell that is another.
    if (guesses_.empty() && part_.features.size() > 1) TryPlaces();
    return std::move(guesses_);
  }

 private:
  void Try(Reading reading, Guess guess) {
    if (!rows_.Has(reading)) return;
    const bool ends = reading != Reading::kNibblesExchanged;
    std::optional<End> best;
    double least = kSampleRest;
    for (const End end : kEnds) {
      if (!ends && end != End::kOwn) continue;
      if (const double rest = RestOf(reading, end); rest < least) least = rest, best = end;
    }
    if (!best) return;
    guess.meaning = {Where::kWeights, {Axis::kAll}, WhatKind::kOtherPart, 0};
    if (part_.region.axis == Axis::kFeatures) {
      guess.meaning.part = part_.region;
      guess.text += " in " + RegionWords(part_.region);
    }
    Push(std::move(guess), [&](int64_t row) { return MoreOf(row, reading, *best); });
  }

  // A row of weights as it may be read, and in which places of each block of so many it is read so.
  using ReadRow = std::function<std::vector<float>(int64_t)>;
  struct Places {
    Guess guess;
    ReadRow read;
    WhatKind what = WhatKind::kUnknown;
  };
  void TryPlaces() {
    const BlockType type = product_.weights().matrix->type;
    for (const Field& field : FieldsOf(type))
      for (const uint8_t bits : kBits) {
        if (field.LosesWhole(bits)) continue;
        TryIn({{fmt::format("weight.lost={}:{:#x}", field.begin, bits),
                fmt::format("loses bits {:#x} of the bytes of the weights' {}", bits, field.noun),
                "all bits of the weights"},
               [this, field, bits](int64_t row) { return rows_.WithoutBits(row, field, bits); },
               WhatKind::kAbsent});
      }
    for (const Field& field : FieldsOf(type)) {
      // Two high bits of a code lie as codes of two bits do.
      const int width = field.whole > 0 && field.whole < 8            ? field.whole
                        : type == BlockType::kQ6_K && field.begin > 0 ? 2
                                                                      : 8;
      if (std::string_view(field.noun) == "scales") continue;
      for (int to = 0; to < 8 && width < 8; to += width)
        for (int from = 0; from < 8; from += width)
          if (from != to)
            TryIn({{fmt::format("weight.slot={}:{}<{}", field.begin, to, from),
                    fmt::format("takes for bits {} on of the bytes of the weights' {} those {} on", to,
                                field.noun, from),
                    "each weight's own bits"},
                   [=, this](int64_t row) { return rows_.WithSlotOf(row, field, width, to, from); },
                   WhatKind::kOtherPart});
    }
    const Field scales = GroupScales(type);
    for (int64_t distance = 1; scales.end > scales.begin && distance <= 8; distance *= 2)
      for (const int64_t by : {distance, -distance})
        for (const bool codes_alone : {false, true})
          TryIn({{fmt::format("weight.group_scale={}{}", by, codes_alone ? ";codes" : ""),
                  fmt::format("multiplies groups of 16 weights by the scale of the group {} {}", distance,
                              by > 0 ? "behind" : "before"),
                  "each group's own scale"},
                 [=, this](int64_t row) { return rows_.WithScaleOf(row, scales, by, codes_alone); },
                 WhatKind::kOtherPart});
  }

  void TryIn(Places tried) {
    std::vector<int64_t> rows = part_.rows, outputs = part_.features;
    Thin(&rows, kSampleRows), Thin(&outputs, kSampleOutputs);
    const std::vector<double> residual = product_.Residual(rows, outputs);
    const int64_t width = product_.width(), block = rows_.block_values();
    TermTable table{static_cast<int64_t>(residual.size()), width, {}};
    table.t.resize(residual.size() * static_cast<size_t>(width));
    std::vector<bool> moved(static_cast<size_t>(block));
    for (size_t j = 0; j < outputs.size(); j++) {
      const std::vector<double> more = MoreOf(outputs[j], tried.read);
      for (size_t k = 0; k < more.size(); k++)
        if (more[k] != 0) moved[k % moved.size()] = true;
      for (size_t i = 0; i < rows.size(); i++) {
        double* terms = table.t.data() + (i * outputs.size() + j) * static_cast<size_t>(width);
        const std::span<const double> x = product_.Values(rows[i]);
        for (size_t k = 0; k < more.size(); k++) terms[k] = x[k] * more[k];
      }
    }
    // The run of places that it is so in, of those that would be other weights.
    std::optional<TermRun> best;
    int64_t period = 0;
    for (int64_t n = block; n >= kLeastPeriod; n /= 2) {
      const auto run = FindRun(Folded(table, n), nullptr, residual);
      if (!run || run->rest > kSampleRest || std::fabs(run->change - 1) > kSampleRest) continue;
      if (!best || run->rest < best->rest + 1e-6) best = run, period = n;
    }
    if (!best) return;
    for (size_t k = 0; k < moved.size(); k++) {
      const auto place = static_cast<int64_t>(k) % period;
      if (place < best->first || place > best->last) moved[k] = false;
    }
    Guess guess = std::move(tried.guess);
    guess.meaning = {Where::kWeights, {}, tried.what, 0};
    const auto places = PlacesOf(moved);
    if (places && places->axis == Axis::kCode) {
      guess.name += fmt::format("@{}", PartText(*places));
      guess.text += fmt::format(" in {}", RegionWords(*places));
    }
    if (places) guess.meaning.part = *places;
    if (part_.region.axis == Axis::kFeatures) {
      guess.meaning.part = part_.region;
      guess.text += fmt::format(", in {}", RegionWords(part_.region));
    }
    Push(std::move(guess), [this, read = tried.read, moved](int64_t row) {
      std::vector<double> more = MoreOf(row, read);
      for (size_t k = 0; k < more.size(); k++)
        if (!moved[k % moved.size()]) more[k] = 0;
      return more;
    });
  }

  // The output with these weights more, in the features that are wrong.
  void Push(Guess guess, const std::function<std::vector<double>(int64_t)>& more_of) {
    guess.output.assign(s_.declared.begin(), s_.declared.end());
    for (int64_t j : part_.features) {
      const std::vector<double> more = more_of(j);
      for (int64_t i = 0; i < product_.n_rows(); i++)
        guess.output[static_cast<size_t>(i * part_.n_features + j)] +=
            static_cast<float>(Dot(i, more) * double(product_.weights().scale));
    }
    guesses_.push_back(std::move(guess));
  }

  static void Thin(std::vector<int64_t>* all, int64_t n) {
    const auto n_all = static_cast<int64_t>(all->size());
    for (int64_t i = 0; i < std::min(n, n_all); i++)
      (*all)[static_cast<size_t>(i)] = (*all)[static_cast<size_t>(i * n_all / std::min(n, n_all))];
    all->resize(static_cast<size_t>(std::min(n, n_all)));
  }

  // Of some values of the output: what is left of the residual.
  double RestOf(Reading reading, End end) const {
    std::vector<int64_t> rows = part_.rows, outputs = part_.features;
    Thin(&rows, kSampleRows), Thin(&outputs, kSampleOutputs);
    const std::vector<double> residual = product_.Residual(rows, outputs);
    double left = 0, square = 0;
    for (size_t j = 0; j < outputs.size(); j++) {
      const std::vector<double> more = MoreOf(outputs[j], reading, end);
      for (size_t i = 0; i < rows.size(); i++) {
        const double r = residual[i * outputs.size() + j], d = r - Dot(rows[i], more);
        left += d * d, square += r * r;
      }
    }
    return square > 0 ? std::sqrt(left / square) : 1;
  }
  std::vector<double> MoreOf(int64_t output, Reading reading, End end) const {
    return MoreOf(output, [&](int64_t row) { return rows_.Read(row, reading, end); });
  }
  std::vector<double> MoreOf(int64_t output, const ReadRow& read_row) const {
    const std::vector<float> read = read_row(output);
    std::vector<float> own(read.size());
    DecodeRow(*product_.weights().matrix, output, own.data());
    std::vector<double> more;
    for (size_t k = 0; k < own.size(); k++) more.push_back(double(read[k]) - double(own[k]));
    return more;
  }
  double Dot(int64_t row, const std::vector<double>& w) const {
    const std::span<const double> x = product_.Values(row);
    double sum = 0;
    for (size_t k = 0; k < w.size(); k++) sum += x[k] * w[k];
    return sum;
  }

  const Subject& s_;
  const WrongPart& part_;
  const ProductTerms& product_;
  Rows rows_;
  std::vector<Guess> guesses_;
};

}  // namespace

std::vector<Guess> OtherReadings(const Subject& subject, const WrongPart& part) {
  const auto product = ProductTerms::Of(subject);
  if (!product || part.features.empty() || part.rows.empty()) return {};
  return RowSearch(subject, part, *product).Run();
}

}  // namespace pb::diagnose
