// The values: NaN and infinity, zeros, scales, the statistics of norms and projections, and what
// I2_S demands of its codes and its scale.
#include <algorithm>
#include <cmath>
#include <mutex>

#include "base/half.h"
#include "formats/non_finite.h"
#include "soundness/parts.h"

namespace pb::soundness {
namespace {

// Sums over one tensor's decoded values.
struct Statistics {
  double squares = 0;
  int64_t n = 0, n_rows = 0, n_zero_rows = 0, n_lost_blocks = 0;
  double rms() const { return n ? std::sqrt(squares / static_cast<double>(n)) : 0; }
};

WeightView ViewOf(const GgufTensor& t, const BlockFormat& format) {
  WeightView view;
  view.type = format.type;
  view.data = t.data.data();
  view.n_columns = static_cast<int64_t>(t.n_columns());
  view.n_rows = static_cast<int64_t>(t.n_rows());
  view.row_bytes = t.n_columns() / format.block_values * format.block_bytes;
  if (format.type == BlockType::kI2_S) view.scale = ScanI2S(t.data).scale;
  return view;
}

// Where a block format keeps its scale; codes of a block of zeros are the same in every encoder.
struct ScaleAt {
  BlockType type;
  uint32_t offset;
};
constexpr ScaleAt kScales[] = {{BlockType::kQ4_0, 0},
                               {BlockType::kQ5_0, 0},
                               {BlockType::kQ8_0, 0},
                               {BlockType::kTQ1_0, 52},
                               {BlockType::kTQ2_0, 64}};

// Blocks whose scale is 0 while their codes are not those of zeros.
class LostBlocks {
 public:
  explicit LostBlocks(const BlockFormat& format) : format_(format) {
    const auto* row = std::find_if(std::begin(kScales), std::end(kScales),
                                   [&](const ScaleAt& s) { return s.type == format.type; });
    if (row == std::end(kScales)) return;
    at_ = row->offset;
    zeros_.resize(format.block_bytes);
    const std::vector<float> values(format.block_values, 0.0f);
    format.encode(values.data(), zeros_.data(), format.block_values);
  }
  int64_t Count(const std::byte* row, int64_t n_columns) const {
    int64_t n = 0;
    if (zeros_.empty()) return 0;
    for (int64_t k = 0; k < n_columns; k += format_.block_values, row += format_.block_bytes) {
      const auto scale = static_cast<unsigned>(row[at_]) | static_cast<unsigned>(row[at_ + 1]) << 8;
      if ((scale & 0x7fff) != 0) continue;
      n += !std::equal(row, row + at_, zeros_.begin()) ||
           !std::equal(row + at_ + 2, row + format_.block_bytes, zeros_.begin() + at_ + 2);
    }
    return n;
  }

 private:
  const BlockFormat& format_;
  uint32_t at_ = 0;
  std::vector<std::byte> zeros_;
};

Statistics Measure(const GgufTensor& t, const BlockFormat& format, ThreadPool& pool) {
  const WeightView view = ViewOf(t, format);
  const LostBlocks lost(format);
  Statistics all;
  std::mutex mutex;
  pool.For(view.n_rows, 1, [&](int64_t begin, int64_t end, int) {
    Statistics part;
    std::vector<float> row(static_cast<size_t>(view.n_columns));
    for (int64_t r = begin; r < end; ++r) {
      DecodeRow(view, r, row.data());
      double squares = 0;
      bool zero = true;
      for (float v : row) {
        zero = zero && v == 0;
        if (std::isfinite(v)) squares += static_cast<double>(v) * v;
      }
      part.squares += squares;
      part.n_zero_rows += zero;
      part.n_lost_blocks += lost.Count(view.data + static_cast<uint64_t>(r) * view.row_bytes, view.n_columns);
    }
    part.n_rows = end - begin, part.n = part.n_rows * view.n_columns;
    const std::lock_guard lock(mutex);
    all.squares += part.squares, all.n += part.n, all.n_rows += part.n_rows;
    all.n_zero_rows += part.n_zero_rows, all.n_lost_blocks += part.n_lost_blocks;
  });
  return all;
}

bool IsNorm(const GgufTensor& t) {
  return t.shape.size() == 1 && t.name.find("norm") != std::string::npos && t.name.ends_with(".weight");
}
bool IsProjection(const GgufTensor& t) {
  return t.shape.size() == 2 && t.name.starts_with("blk.") && t.name.ends_with(".weight");
}

struct Band {
  double low, high;
};
// What the documented system's `inspect --ln-stats` allows of a norm's RMS.
Band NormBand(std::string_view name, bool bitnet, bool f16) {
  const auto is = [&](std::string_view part) { return name.find(part) != name.npos; };
  if (!bitnet) return {0.8, 1.2};
  if (is("output_norm")) return {0.5, 2};
  if (f16) {
    if (is("attn_sub_norm") || is("ffn_sub_norm")) return {0.5, 2};
    return is("ffn_norm") ? Band{0.05, 2} : Band{0.35, 2};
  }
  if (is("attn_norm")) return {0.01, 2};
  return is("ffn_norm") ? Band{0.5, 2} : Band{0.25, 2};
}

class Values {
 public:
  explicit Values(Context& context) : context_(context) {
    const auto name = context.subject.main().String("general.architecture");
    bitnet_ = name.ok() && (name->find("bitnet") != name->npos || name->find("b1.58") != name->npos);
    const auto type = context.subject.main().Uint("general.file_type");
    f16_ = type.ok() && *type == 1;
  }
  void Look(const GgufTensor& t);
  Part Close();

 private:
  void LookAtI2S(const GgufTensor& t);
  void LookAtNorm(const GgufTensor& t, double rms);

  Context& context_;
  bool bitnet_ = false, f16_ = false;
  int64_t n_values_ = 0, n_norms_ = 0, n_unknown_ = 0;
  double least_norm_ = HUGE_VAL, largest_norm_ = 0;
  std::vector<std::string> beyond_, beyond_projections_, zero_rows_, i2s_;
};

void Values::LookAtI2S(const GgufTensor& t) {
  const I2SScan scan = ScanI2S(t.data);
  i2s_.push_back(t.name);
  const uint64_t tail = t.offset + t.data.size() - kI2STail;
  if (scan.code3_count > 0)
    context_.findings.Add("i2s-code3", t.name,
                          fmt::format("byte {}: code 3 occurs {} times; I2_S has 0, 1 and 2",
                                      t.offset + scan.first_code3_byte, scan.code3_count));
  if (!scan.scale_finite || !(scan.scale > 0))
    context_.findings.Add("i2s-scale", t.name,
                          fmt::format("byte {}: the scale behind the codes is {}", tail, scan.scale));
  else if (!scan.tail_repeats && !scan.tail_zero)
    context_.findings.Add("i2s-trailer", t.name,
                          fmt::format("byte {}: the 28 bytes behind the scale are neither the scale again "
                                      "nor zeros",
                                      tail + 4));
}

void Values::LookAtNorm(const GgufTensor& t, double rms) {
  ++n_norms_;
  least_norm_ = std::min(least_norm_, rms), largest_norm_ = std::max(largest_norm_, rms);
  const Band band = NormBand(t.name, bitnet_, f16_);
  if (rms >= band.low && rms <= band.high) return;
  if (bitnet_)
    context_.findings.Add(
        "norm-band", t.name,
        fmt::format("its RMS is {:.3g}; {} to {} is usual there", rms, band.low, band.high));
  else
    beyond_.push_back(t.name);
}

void Values::Look(const GgufTensor& t) {
  const BlockFormat* format = FindBlockFormat(t.type_id);
  if (!format || t.data.empty()) {
    n_unknown_ += !t.data.empty();
    return;
  }
  if (format->type == BlockType::kI2_S) LookAtI2S(t);
  const Statistics s = Measure(t, *format, context_.pool);
  n_values_ += s.n;
  if (s.n_zero_rows == s.n_rows && !t.name.ends_with(".bias")) {
    if (format->type != BlockType::kI2_S || ScanI2S(t.data).scale != 0)
      context_.findings.Add("tensor-zero", t.name, fmt::format("all of its {} values are 0", s.n));
    return;
  }
  if (s.n_rows > 1 && s.n_zero_rows > 0)
    zero_rows_.push_back(fmt::format("{} ({} of {} rows)", t.name, s.n_zero_rows, s.n_rows));
  if (s.n_lost_blocks > 0)
    context_.findings.Add("scale-zero", t.name,
                          fmt::format("{} blocks of {} have the scale 0 and codes that are not 0",
                                      s.n_lost_blocks, format->name));
  if (IsNorm(t)) LookAtNorm(t, s.rms());
  const Band band = f16_ ? Band{0.01, 0.40} : Band{0.002, 0.20};
  if (bitnet_ && IsProjection(t) && (s.rms() < band.low || s.rms() > band.high))
    beyond_projections_.push_back(fmt::format("{} ({:.3g})", t.name, s.rms()));
}

Part Values::Close() {
  if (!zero_rows_.empty()) context_.findings.Add("rows-zero", "", FirstOf(zero_rows_) + " hold zeros alone");
  if (!beyond_.empty())
    context_.findings.Add("norm-usual", beyond_.front(),
                          fmt::format("{} of {} norms have an RMS outside 0.8 to 1.2 ({:.3g} to {:.3g})",
                                      beyond_.size(), n_norms_, least_norm_, largest_norm_));
  if (!beyond_projections_.empty())
    context_.findings.Add("projection-band", "",
                          fmt::format("the RMS of {} is not within {}", FirstOf(beyond_projections_),
                                      f16_ ? "0.01 to 0.40" : "0.002 to 0.20"));
  if (!i2s_.empty())
    context_.findings.Add("i2s-readers", "", fmt::format("{} tensors are I2_S", i2s_.size()));
  Part part{"values", fmt::format("{} values", n_values_), true};
  if (n_norms_ > 0)
    part.text += fmt::format("; {} norms of RMS {:.3g} to {:.3g}", n_norms_, least_norm_, largest_norm_);
  if (n_unknown_ > 0) part.text += fmt::format("; {} tensors are of types that nothing decodes", n_unknown_);
  return part;
}

// Of an embedding that is not the output matrix, too, only texts with those tokens are spoilt.
void TellNonFinite(Context& context) {
  for (const GgufFile& file : context.subject.files()) {
    for (const NonFiniteTensor& found : FindNonFinite(file)) {
      const bool rows = found.tensor == "token_embd.weight" && context.subject.FindTensor("output.weight");
      context.findings.Add(rows ? "not-finite-row" : "not-finite", found.tensor, found.Text());
    }
  }
}

}  // namespace

Part ExamineValues(Context& context) {
  TellNonFinite(context);
  Values values(context);
  int64_t done = 0;
  for (const GgufFile& file : context.subject.files()) {
    for (const GgufTensor& t : file.tensors()) {
      if (context.request.progress)
        context.request.progress("values", done++, static_cast<int64_t>(context.subject.n_tensors()));
      values.Look(t);
    }
  }
  return values.Close();
}

}  // namespace pb::soundness
