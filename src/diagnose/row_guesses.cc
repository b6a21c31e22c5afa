// Weights of a product that are read otherwise than their blocks hold them: with the scale of a
// neighbouring block, or with the two codes of each byte exchanged.
#include <array>
#include <cmath>
#include <cstring>

#include "diagnose/part.h"
#include "diagnose/product_terms.h"
#include "diagnose/transformations.h"
#include "diagnose/wrong_part.h"

namespace pb::diagnose {
namespace {

constexpr int64_t kSampleRows = 4, kSampleOutputs = 32;
constexpr double kSampleRest = 0.02;

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
  std::vector<float> Read(int64_t row, Reading reading, End end) const {
    const std::byte* own = Data(row);
    std::vector<std::byte> bytes(own, own + w_.row_bytes);
    if (reading == Reading::kNibblesExchanged) {
      const auto codes = static_cast<size_t>(NibbleOffset(w_.type));
      for (size_t at = 0; at < bytes.size(); at++)
        if (at % format_.block_bytes >= codes) bytes[at] = (bytes[at] << 4) | (bytes[at] >> 4);
    } else {
      for (int64_t b = 0; b < n_blocks(); b++)
        std::memcpy(bytes.data() + b * format_.block_bytes + ScaleOffset(w_.type),
                    ScaleFor(row, b, reading, end), 2);
    }
    std::vector<float> values(static_cast<size_t>(w_.n_columns));
    format_.decode(bytes.data(), values.data(), w_.n_columns, w_.scale);
    return values;
  }

 private:
  int64_t n_blocks() const { return w_.n_columns / format_.block_values; }
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
    guess.output.assign(s_.declared.begin(), s_.declared.end());
    for (int64_t j : part_.features) {
      const std::vector<double> more = MoreOf(j, reading, *best);
      for (int64_t i = 0; i < product_.n_rows(); i++)
        guess.output[static_cast<size_t>(i * part_.n_features + j)] +=
            static_cast<float>(Dot(i, more) * double(product_.weights().scale));
    }
    guesses_.push_back(std::move(guess));
  }

  // Of some values of the output: what is left of the residual.
  double RestOf(Reading reading, End end) const {
    std::vector<int64_t> rows = part_.rows, outputs = part_.features;
    const auto thin = [](std::vector<int64_t>* all, int64_t n) {
      const auto n_all = static_cast<int64_t>(all->size());
      for (int64_t i = 0; i < std::min(n, n_all); i++)
        (*all)[static_cast<size_t>(i)] = (*all)[static_cast<size_t>(i * n_all / std::min(n, n_all))];
      all->resize(static_cast<size_t>(std::min(n, n_all)));
    };
    thin(&rows, kSampleRows), thin(&outputs, kSampleOutputs);
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
    const std::vector<float> read = rows_.Read(output, reading, end);
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
