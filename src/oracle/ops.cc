// Each operation in fp64, with the units of its rounding errors beside the values.
#include "oracle/ops.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/bytes.h"
#include "base/half.h"

namespace pb::oracle {
namespace {

double RoundF16(double x) { return F16ToF32(F32ToF16(static_cast<float>(x))); }

Rows RoundedF16(const Rows& x, bool round) {
  Rows y = x;
  if (round) {
    for (double& v : y.v) v = RoundF16(v);
  }
  return y;
}

int64_t KvHead(int64_t head, const OpConfig& c) {
  return c.head_map == HeadMap::kGrouped ? head / (c.n_heads / c.n_kv_heads) : head % c.n_kv_heads;
}

double ActivateOne(double x, Act a) {
  switch (a) {
    case Act::kSilu:
      return x / (1 + std::exp(-x));
    case Act::kRelu:
      return std::max(x, 0.0);
    case Act::kRelu2:
      return x > 0 ? x * x : 0;
    case Act::kGelu:
      return 0.5 * x * (1 + std::erf(x * std::sqrt(0.5)));
    case Act::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Act::kSwigluOai: {
      const double capped = std::min(x, double(kSwigluOaiLimit));
      return capped / (1 + std::exp(-double(kSwigluOaiSlope) * capped));
    }
    case Act::kIdentity:
      return x;
  }
  return x;
}

// ggml's table of tanh-GELU: a value for each f16, computed in float32 as its source has it, rounded
// to f16. It ends at 10, beyond which GELU is taken for what it tends to. `errors`: how many of the
// float32 arithmetic's own errors are added, which depend on the compiler and its libm: a unit or two
// of the last place of 1 + tanh, which cancels where x is negative, and of the products.
double TabulatedGelu(double x, double errors = 0) {
  if (std::fabs(x) >= 10) return std::max(x, 0.0);
  const auto h = static_cast<float>(RoundF16(x));
  const float gelu = 0.5f * h * (1.0f + std::tanh(0.79788456080286535588f * h * (1.0f + 0.044715f * h * h)));
  return RoundF16(gelu + errors * (std::fabs(h) * 0x1p-23 + std::fabs(gelu) * 0x1p-22));
}
// The same table of any activation; ggml has had one of SiLU, too.
double Tabulated(double x, Act a, double errors = 0) {
  if (a == Act::kGeluTanh) return TabulatedGelu(x, errors);
  const double h = RoundF16(x), y = ActivateOne(h, a);
  return RoundF16(y + errors * (std::fabs(h) * 0x1p-23 + std::fabs(y) * 0x1p-22));
}
// An entry that lies within them of the middle of two f16 may be either.
double TableUnits(double x, Act a) { return std::fabs(Tabulated(x, a, 1) - Tabulated(x, a, -1)) * 0x1p24; }

// One weight matrix as rows of exact numbers, and per block the minimum that multiplies a stored
// activation sum (Q4_1).
class WeightRows {
 public:
  WeightRows(const WeightView& w, const OpConfig& c) : w_(w), c_(c) {
    if (!c.transposed) return;
    columns_.resize(static_cast<size_t>(w.n_rows * w.n_columns));
    std::vector<float> row(static_cast<size_t>(w.n_columns));
    for (int64_t r = 0; r < w.n_rows; r++) {
      DecodeRow(w, r, row.data());
      for (int64_t k = 0; k < w.n_columns; k++)
        columns_[static_cast<size_t>(k * w.n_rows + r)] = row[static_cast<size_t>(k)];
    }
  }
  void Row(int64_t r, float* out) const {
    if (columns_.empty()) {
      DecodeRow(w_, r, out);
    } else {
      std::copy_n(columns_.data() + r * w_.n_rows, w_.n_rows, out);
    }
    if (c_.no_minimum && columns_.empty()) {
      const std::vector<double> minima = BlockMinima(w_, r);
      const int64_t block = minima.empty() ? 1 : w_.n_columns / static_cast<int64_t>(minima.size());
      for (int64_t k = 0; !minima.empty() && k < w_.n_columns; k++)
        out[k] -= static_cast<float>(minima[static_cast<size_t>(k / block)]);
    }
    if (c_.block_order != BlockOrder::kDeclared) Reorder(out);
    if (c_.weight_offset != 0) {
      for (int64_t k = 0; k < w_.n_columns; k++) out[k] += static_cast<float>(c_.weight_offset);
    }
    if (r == c_.cell_row) out[c_.cell_column] += static_cast<float>(c_.cell_delta);
  }
  // (n_blocks), as BlockMinima, else as BlockOffsets.
  std::vector<double> Parts(int64_t r) const {
    std::vector<double> minima = BlockMinima(w_, r);
    if (minima.empty()) return BlockOffsets(w_, r);
    if (c_.no_minimum) std::fill(minima.begin(), minima.end(), 0);
    return minima;
  }

 private:
  // Value i comes from code n_codes - 1 - i / n_bytes of byte i % n_bytes, or from code i % n_codes
  // of byte i / n_codes.
  void Reorder(float* row) const {
    const bool nibbles = w_.type == BlockType::kQ4_1;
    const int64_t n_bytes = nibbles ? 16 : 32, n_codes = nibbles ? 2 : 4, n = n_bytes * n_codes;
    float block[128];
    for (int64_t start = 0; start + n <= w_.n_columns; start += n) {
      std::copy_n(row + start, n, block);
      for (int64_t i = 0; i < n; i++)
        row[start + i] = c_.block_order == BlockOrder::kReversed
                             ? block[(n_codes - 1 - i / n_bytes) * n_bytes + i % n_bytes]
                             : block[i % n_codes * n_bytes + i / n_codes];
    }
  }

  const WeightView& w_;
  const OpConfig& c_;
  std::vector<float> columns_;
};

// The key or value that the row at position `own` reads for position j; nullptr: zeros.
const double* CacheRow(const Rows& cache, int64_t j, int64_t own, const OpConfig& c) {
  if (j == own && c.own_cell == OwnCell::kZero) return nullptr;
  if (j == own && c.own_cell == OwnCell::kBefore) j--;
  if (j == own - 1 && c.own_cell == OwnCell::kTwice) j++;
  return cache.row(std::max<int64_t>(j - c.kv_shift, 0));
}

// Token rows as a product reads them: tiles of kTile rows, within a tile token-fastest, the last
// one filled up with zeros.
constexpr int64_t kTile = 8;

class Tiles {
 public:
  Tiles(int64_t n, int64_t width)
      : width_(width), v_(static_cast<size_t>((n + kTile - 1) / kTile * kTile * width)) {}
  double* tile(int64_t t) { return v_.data() + t * width_ * kTile; }
  const double* tile(int64_t t) const { return v_.data() + t * width_ * kTile; }
  double& at(int64_t row, int64_t k) { return tile(row / kTile)[k * kTile + row % kTile]; }
  double at(int64_t row, int64_t k) const { return tile(row / kTile)[k * kTile + row % kTile]; }

 private:
  int64_t width_;
  std::vector<double> v_;
};

// The sum of squared partial sums P of n terms: in the order of the inputs, plus its mean over all
// orders, as an engine adds in an order of its own, in lanes say, where a large term may be in many
// P that meets its opposite at once here. A random P_k has the mean square (k (n - k) sum of t^2 +
// k (k - 1) sum^2) / (n (n - 1)); summed over k this gives the second part.
double SumOfSquares(double squares, double terms, double sum, int64_t n) {
  return squares + static_cast<double>(n + 1) * (terms / 6 + sum * sum / 3);
}

// Sums the products of one weight row with the token rows of a tile, in the order of k; squares
// gets SumOfSquares.
void SumTile(const float* w, const double* x, int64_t k_end, double* sum_out, double* squares_out) {
  double sum[kTile] = {}, squares[kTile] = {}, terms[kTile] = {};
  for (int64_t k = 0; k < k_end; k++, x += kTile) {
    const double wk = w[k];
    for (int64_t i = 0; i < kTile; i++) {
      const double term = wk * x[i];
      sum[i] += term;
      squares[i] += sum[i] * sum[i];
      terms[i] += term * term;
    }
  }
  std::copy_n(sum, kTile, sum_out);
  for (int64_t i = 0; i < kTile; i++) squares_out[i] = SumOfSquares(squares[i], terms[i], sum[i], k_end);
}
// The same, every sum rounded to f16.
void SumTileInF16(const float* w, const double* x, int64_t k_end, double* sum_out) {
  float sum[kTile] = {};
  for (int64_t k = 0; k < k_end; k++, x += kTile) {
    for (int64_t i = 0; i < kTile; i++)
      sum[i] = F16ToF32(F32ToF16(static_cast<float>(double(sum[i]) + double(w[k]) * x[i])));
  }
  std::copy_n(sum, kTile, sum_out);
}
// The same without the squares.
void SumTile(const float* w, const double* x, int64_t k_end, double* sum_out) {
  double sum[kTile] = {};
  for (int64_t k = 0; k < k_end; k++, x += kTile) {
    const double wk = w[k];
    for (int64_t i = 0; i < kTile; i++) sum[i] += wk * x[i];
  }
  std::copy_n(sum, kTile, sum_out);
}

// c tanh(x / c). Its slope is at most 1, so that what came before moves it no further; it is rounded
// itself as a quotient, a tanh and a product.
double Capped(double x, double cap) { return cap > 0 ? cap * std::tanh(x / cap) : x; }
double CapUnits(double y, double cap) { return cap > 0 ? 3 * std::fabs(y) : 0; }

// the least normal float32 in units of the roundoff
constexpr double kUnderflow = 0x1p-126 / 0x1p-24;
// x / (1 + exp(-x)) is 0 from where the exponential overflows, at x = -88.7; the exact value there, in
// units of the roundoff.
constexpr double kSiluUnderflow = 88.73 * 0x1p-128 / 0x1p-24;

// Units of values that one operation rounds. What is less than the least normal float32 has no
// roundoff of its own: it may be rounded to a coarser grid, or to 0.
void OwnUnits(const Rows& y, Rows* units) {
  if (!units) return;
  *units = y;
  for (double& u : units->v) u = std::fabs(u) + kUnderflow;
}

}  // namespace

OpConfig OpConfig::Declare(const HyperParameters& p, ActQuant act_quant, bool kv_f16, bool long_rope) {
  OpConfig c;
  c.n_heads = p.n_heads, c.n_kv_heads = p.n_kv_heads, c.head_dim = p.head_dim;
  c.norm_eps = p.norm_eps.value;
  c.act_quant = act_quant;
  c.rope_pairing = p.rope_pairing.value, c.rope_base = p.rope_base.value, c.rope_scale = p.rope_scale.value;
  c.rope_dims = p.rope_dims, c.rope_factors = p.RopeFactors(long_rope);
  c.yarn = p.rope_stretch.yarn, c.n_ctx_original = p.rope_stretch.n_ctx_original;
  c.yarn_beta_fast = p.rope_stretch.beta_fast, c.yarn_beta_slow = p.rope_stretch.beta_slow;
  c.rope_attention_factor = p.rope_stretch.attention_factor;
  c.n_experts = p.experts.n, c.n_experts_used = p.experts.n_used;
  c.softmax_of_chosen = p.experts.softmax_of_chosen, c.normalised_experts = p.experts.normalised;
  c.expert_scale = p.experts.scale;
  c.norm_centred = p.layer_norm;
  c.local_rope_base = p.local_rope_base.value, c.local_rope_scale = p.local_rope_scale.value;
  c.scale_queries = p.scale_queries, c.attention_scale = p.attention_scale, c.score_cap = p.score_cap;
  c.residual_scale = p.residual_scale, c.logit_scale = p.logit_scale, c.logit_cap = p.logit_cap;
  c.gelu_f16 = act_quant.all != ActScheme::kNone;
  c.cache_f16 = kv_f16;
  c.attention_f16 = kv_f16 && act_quant.all != ActScheme::kNone;
  switch (p.ffn_activation ? p.ffn_activation->value : Activation::kSilu) {
    case Activation::kSilu:
      c.activation = Act::kSilu;
      break;
    case Activation::kRelu2:
      c.activation = Act::kRelu2;
      break;
    case Activation::kRelu:
      c.activation = Act::kRelu;
      break;
    case Activation::kGelu:
      c.activation = Act::kGelu;
      break;
    case Activation::kGeluTanh:
      c.activation = Act::kGeluTanh;
      break;
    case Activation::kSwigluOai:
      c.activation = Act::kSwigluOai;
      c.gate_offset = 1, c.gate_limit = kSwigluOaiLimit;
      break;
  }
  return c;
}

OpConfig OpConfig::Of(const HyperParameters& p, int64_t layer) const {
  OpConfig c = *this;
  if (p.window_of(layer) > 0) c.window = p.window_of(layer) + window_shift;
  if (p.is_local(layer) != rope_exchanged) c.rope_base = local_rope_base, c.rope_scale = local_rope_scale;
  c.rotates = rotates_all || p.rotates(layer);
  if (!p.stretches(layer)) c.yarn = false, c.rope_attention_factor = 1;
  return c;
}

Rows Norm(const Rows& x, std::span<const float> weight, std::span<const float> bias, const OpConfig& c,
          Rows* units) {
  Rows y = x;
  if (units) *units = Rows(x.n, x.width);
  const int64_t width = static_cast<int64_t>(weight.size());
  for (int64_t start = 0; start < static_cast<int64_t>(y.v.size()); start += width) {
    double* r = y.v.data() + start;
    double roundings = 1;  // of the factor, in units of itself: half those of the sum of squares
    double scale = 0;      // what the values are multiplied by, last
    for (int repeat = 0; repeat < c.norm_repeat; repeat++) {
      double sum = 0, squares = 0, terms = 0, mean = 0;
      for (int64_t k = 0; c.norm_centred && k < width; k++) mean += r[k] / static_cast<double>(width);
      for (int64_t k = 0; c.norm_centred && k < width; k++) r[k] -= mean;
      const int64_t first = std::max<int64_t>(-c.norm_dropped, 0),
                    end = width - std::max<int64_t>(c.norm_dropped, 0);
      for (int64_t k = first; k < end; k++) {
        const double term = r[k] * r[k];
        sum += term, squares += sum * sum, terms += term * term;
      }
      squares = SumOfSquares(squares, terms, sum, width);
      const double mean_square = sum / static_cast<double>(width);
      const double inverse = c.norm_eps_outside ? 1 / (std::sqrt(mean_square) + c.norm_eps)
                                                : 1 / std::sqrt(mean_square + c.norm_eps);
      scale = inverse;
      for (int64_t k = 0; k < width; k++)
        r[k] *= inverse * ((c.norm_unweighted ? 1 : weight[static_cast<size_t>(k)]) + c.norm_weight_offset);
      if (sum > 0) roundings += std::sqrt(squares) / sum / 2;
    }
    // Where the mean is subtracted it is rounded, as the values are as large as it is.
    const double* given = x.v.data() + start;
    double squares = 0;
    for (int64_t k = 0; k < width; k++) squares += given[k] * given[k];
    const double root = std::sqrt(squares / static_cast<double>(width));
    for (int64_t k = 0; units && k < width; k++) {
      double& unit = units->v[static_cast<size_t>(start + k)];
      unit = std::fabs(r[k]) * roundings;
      if (c.norm_centred && given[k] != 0)
        unit += std::fabs(scale * weight[static_cast<size_t>(k)]) * (std::fabs(given[k]) + root);
    }
    for (int64_t k = 0; !bias.empty() && !c.no_bias && k < width; k++) {
      r[k] += double(bias[static_cast<size_t>(k)]);
      if (units) units->v[static_cast<size_t>(start + k)] += std::fabs(r[k]);
    }
  }
  return y;
}

Result<Rows> Product(const Rows& x, const WeightView& w, double scale, ActScheme scheme, const OpConfig& c,
                     ThreadPool& pool, Rows* units) {
  const int64_t n = x.n, k_all = x.width, n_out = w.n_rows;
  PB_CHECK(k_all == w.n_columns);
  if (c.transposed && w.n_rows != w.n_columns)
    return MakeError(Code::kUnsupported, "weight.transposed: a matrix of {} x {} is not square", w.n_rows,
                     w.n_columns);
  if (c.cell_row >= w.n_rows || c.cell_column >= w.n_columns || (c.cell_row >= 0 && c.cell_column < 0))
    return MakeError(Code::kUsage, "weight.cell: there is no weight ({}, {})", c.cell_row, c.cell_column);
  if (c.drop_rows < 0 || c.drop_rows > n_out || c.drop_columns < 0 || c.drop_columns > k_all)
    return MakeError(Code::kUsage, "drop: a matrix of {} x {} has no such tail", w.n_rows, w.n_columns);
  const WeightRows rows(w, c);
  // Weights that are scale times code and a minimum are multiplied in two parts, the second by sums
  // of the codes of a block: exact ones, or such as Q8_1 stores. An engine may do so with an offset
  // of the codes, too, which is exact either way and decides units alone.
  const auto n_parts = static_cast<int64_t>((units ? rows.Parts(0) : BlockMinima(w, 0)).size());
  const bool in_parts =
      n_parts > 0 && IsIntegerScheme(scheme) && !c.transposed && c.quantiser.block_values == 0;
  const int64_t per_part = in_parts ? k_all / n_parts : 1;
  const int64_t k_end = k_all - c.drop_columns;
  // of a block's values, as it is stored
  Tiles tiles(n, k_all), sums(in_parts ? n : 0, n_parts);
  for (int64_t i = 0; i < n; i++) {
    PB_ASSIGN(Activations a, Quantise({x.row(i), static_cast<size_t>(k_all)}, scheme, c.quantiser));
    for (int64_t k = 0; k < k_all; k++) tiles.at(i, k) = a.values[static_cast<size_t>(k)];
    const bool stored = in_parts && static_cast<int64_t>(a.sum_error.size()) == n_parts;
    for (int64_t b = 0; stored && b < n_parts; b++) sums.at(i, b) = a.sum_error[static_cast<size_t>(b)];
    for (int64_t k = 0; in_parts && k < k_end; k++)
      sums.at(i, k / per_part) += a.values[static_cast<size_t>(k)];
  }
  const double factor = scale * c.product_factor;
  // Each rounding of a sum that is kept in f16 is one of 2^-11, for 2^-24 of a float32's.
  const double rounding = scheme == ActScheme::kF16Sums ? 0x1p13 : 1;
  Rows y(n, n_out);
  if (units) *units = Rows(n, n_out);
  pool.For(n_out - c.drop_rows, 8, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(k_all)), part(static_cast<size_t>(in_parts ? n_parts : 0));
    for (int64_t r = begin; r < end; r++) {
      rows.Row(r, row.data());
      // The second part is a sum of its own. The two may cancel, but each is rounded as large as it
      // is.
      if (in_parts) std::ranges::copy(rows.Parts(r), part.begin());
      for (int64_t k = 0; in_parts && k < k_all; k++)
        row[static_cast<size_t>(k)] -= part[static_cast<size_t>(k / per_part)];
      for (int64_t start = 0; start < n; start += kTile) {
        double sum[kTile], squares[kTile], stored[kTile] = {}, stored_squares[kTile] = {};
        const int64_t t = start / kTile;
        if (units) {
          SumTile(row.data(), tiles.tile(t), k_end, sum, squares);
        } else if (scheme == ActScheme::kF16Sums) {
          SumTileInF16(row.data(), tiles.tile(t), k_end, sum);
        } else {
          SumTile(row.data(), tiles.tile(t), k_end, sum);
        }
        if (in_parts) SumTile(part.data(), sums.tile(t), n_parts, stored, stored_squares);
        for (int64_t i = start; i < std::min(start + kTile, n); i++) {
          y.row(i)[r] = (sum[i - start] + stored[i - start]) * factor;
          if (units)
            units->row(i)[r] =
                std::sqrt(squares[i - start] + stored_squares[i - start]) * std::fabs(factor) * rounding;
        }
      }
    }
  });
  return y;
}

void AddBias(std::span<const float> bias, Rows* y, Rows* units) {
  for (int64_t t = 0; t < y->n; t++) {
    for (int64_t j = 0; j < y->width; j++) {
      y->row(t)[j] += double(bias[static_cast<size_t>(j)]);
      if (units) units->row(t)[j] = std::hypot(units->row(t)[j], y->row(t)[j]);
    }
  }
}

namespace {

// YaRN: the part of pair i's frequency that is not divided (Peng et al. 2023, equation 18, its ramp
// over pairs between whole ones, as its authors' code and transformers' have it).
double YarnKept(int64_t i, const OpConfig& c) {
  const auto pair_of = [&c](double turns) {
    return static_cast<double>(c.rope_dims) *
           std::log(static_cast<double>(c.n_ctx_original) / (turns * 2 * M_PI)) / (2 * std::log(c.rope_base));
  };
  const double first = std::max(0.0, std::floor(pair_of(c.yarn_beta_fast))),
               last = std::min(static_cast<double>(c.rope_dims - 1), std::ceil(pair_of(c.yarn_beta_slow)));
  const double along = (static_cast<double>(i) - first) / std::max(0.001, last - first);
  return 1 - std::clamp(along, 0.0, 1.0);
}

}  // namespace

Rows Rope(const Rows& x, int64_t first_position, const OpConfig& c, Rows* units) {
  Rows y = x;
  OwnUnits(x, units);  // of what is not rotated
  const int64_t half = c.rotates ? c.rope_dims / 2 : 0;
  const double size = c.rotates ? c.rope_attention_factor : 1;
  for (int64_t t = 0; t < x.n; t++) {
    const double position = static_cast<double>(first_position + t) + c.rope_offset;
    for (int64_t start = 0; start < x.width; start += c.head_dim) {
      double* head = y.row(t) + start;
      for (int64_t i = 0; i < half - c.rope_pairs_left; i++) {
        const double frequency = std::pow(c.rope_base, -2.0 * static_cast<double>(i + c.rope_pair_shift) /
                                                           static_cast<double>(c.rope_dims));
        const double kept = c.yarn ? YarnKept(i, c) : 0;
        const double slowed = (1 - kept) / c.rope_scale + kept;
        const double angle = position * frequency * slowed /
                             (c.rope_factors.empty() ? 1 : double(c.rope_factors[static_cast<size_t>(i)]));
        const bool adjacent = c.rope_pairing == RopePairing::kAdjacent;
        const int64_t at_a = adjacent ? 2 * i : i, at_b = adjacent ? 2 * i + 1 : i + half;
        double &a = head[at_a], &b = head[at_b];
        const double a0 = a, b0 = b;
        a = size * (a0 * std::cos(angle) - b0 * std::sin(angle));
        b = size * (a0 * std::sin(angle) + b0 * std::cos(angle));
        // The angle of pair i is multiplied up i times in float32, from a factor that is rounded
        // itself.
        if (units)
          units->row(t)[start + at_a] = units->row(t)[start + at_b] =
              std::hypot(a0, b0) * size *
              ((size == 1 ? 1 : 2) + std::fabs(angle) * static_cast<double>(1 + i));
      }
    }
  }
  return y;
}

Rows Scores(const Rows& q_in, const Rows& k_in, int64_t first_position, const OpConfig& c, Rows* units) {
  Rows ready = q_in;
  const double whole =
      c.attention_scale != 0 ? c.attention_scale : 1 / std::sqrt(static_cast<double>(c.head_dim));
  const auto query_scale = static_cast<float>(whole);
  for (size_t i = 0; c.scale_queries && i < ready.v.size(); i++)
    ready.v[i] = static_cast<float>(ready.v[i]) * query_scale;
  const Rows q = RoundedF16(ready, c.attention_f16), k = RoundedF16(k_in, c.cache_f16);
  const int64_t p = k.n;
  Rows y(q.n, c.n_heads * p);
  if (units) *units = Rows(q.n, c.n_heads * p);
  const double scale = c.attn_scale_factor * (c.scale_queries ? 1 : whole);
  for (int64_t t = 0; t < q.n; t++) {
    const int64_t visible = std::clamp<int64_t>(first_position + t + 1 + c.mask_shift, 0, p);
    const int64_t from = c.window > 0 ? std::max<int64_t>(first_position + t + 1 - c.window, 0) : 0;
    for (int64_t h = 0; h < c.n_heads; h++) {
      const double* query = q.row(t) + h * c.head_dim;
      double* out = y.row(t) + h * p;
      for (int64_t j = 0; j < p; j++) {
        const double* key = CacheRow(k, j, first_position + t, c);
        if (key) key += KvHead(h, c) * c.head_dim;
        double sum = 0, squares = 0, terms = 0;
        for (int64_t d = 0; key && d < c.head_dim; d++) {
          const double term = query[d] * key[d];
          sum += term, squares += sum * sum, terms += term * term;
        }
        const bool seen = j >= from && j < visible;
        out[j] = seen ? Capped(sum * scale, c.score_cap) : -std::numeric_limits<double>::infinity();
        if (units && seen)
          units->row(t)[h * p + j] =
              std::sqrt(SumOfSquares(squares, terms, sum, c.head_dim)) * std::fabs(scale) +
              CapUnits(out[j], c.score_cap);
      }
    }
  }
  return y;
}

Rows Softmax(const Rows& scores, int64_t positions, std::span<const float> sinks, const OpConfig& c,
             Rows* units) {
  Rows y = scores;
  if (units) *units = Rows(y.n, y.width);
  for (int64_t start = 0; start < static_cast<int64_t>(y.v.size()); start += positions) {
    double* r = y.v.data() + start;
    const double* score = scores.v.data() + start;
    double largest = *std::max_element(r, r + positions);
    const bool sinks_here = !sinks.empty() && !c.no_sinks;
    const double sink = sinks_here ? double(sinks[static_cast<size_t>(start / positions % c.n_heads)]) : 0;
    if (sinks_here) largest = std::max(largest, sink);
    double sum = c.softmax_sink == 0 ? 0 : c.softmax_sink * std::exp(-largest * c.softmax_scale), squares = 0;
    double terms = 0;
    if (sinks_here) sum += std::exp((sink - largest) * c.softmax_scale);
    int64_t n_visible = 0;
    for (int64_t j = 0; j < positions; j++) {
      const bool hidden = std::isinf(r[j]) && r[j] < 0;
      sum += r[j] = hidden ? 0 : std::exp((r[j] - largest) * c.softmax_scale);
      if (!hidden) squares += sum * sum, terms += r[j] * r[j], n_visible++;
    }
    squares = SumOfSquares(squares, terms, sum, n_visible);
    for (int64_t j = 0; j < positions; j++) r[j] /= sum;
    // The difference to the largest score is rounded before it is an exponent, and so is the score
    // where it is scaled. What underflows may become 0.
    for (int64_t j = 0; units && j < positions; j++)
      if (r[j] > 0)
        units->v[static_cast<size_t>(start + j)] =
            r[j] * (1 + std::fabs(score[j]) + std::fabs(largest) + std::sqrt(squares) / sum) + kUnderflow;
  }
  return y;
}

Rows Context(const Rows& probabilities, const Rows& v_in, const OpConfig& c, Rows* units) {
  const Rows v = RoundedF16(v_in, c.cache_f16), weights = RoundedF16(probabilities, c.attention_f16);
  const int64_t p = v.n;
  Rows y(weights.n, c.n_heads * c.head_dim);
  if (units) *units = Rows(y.n, y.width);
  for (int64_t t = 0; t < weights.n; t++) {
    for (int64_t h = 0; h < c.n_heads; h++) {
      double* out = y.row(t) + h * c.head_dim;
      double* unit = units ? units->row(t) + h * c.head_dim : nullptr;
      std::vector<double> terms(unit ? static_cast<size_t>(c.head_dim) : 0);
      int64_t n_terms = 0;
      for (int64_t j = 0; j < p; j++) {
        const double w = weights.row(t)[h * p + j];
        const double* value = CacheRow(v, j, p - weights.n + t, c);
        if (!value) continue;
        value += KvHead(h, c) * c.head_dim;
        for (int64_t d = 0; d < c.head_dim; d++) out[d] += w * value[d];
        n_terms += w != 0;
        for (int64_t d = 0; unit && w != 0 && d < c.head_dim; d++) {
          const double term = w * value[d];
          unit[d] += out[d] * out[d], terms[static_cast<size_t>(d)] += term * term;
        }
      }
      for (int64_t d = 0; unit && d < c.head_dim; d++)
        unit[d] = std::sqrt(SumOfSquares(unit[d], terms[static_cast<size_t>(d)], out[d], n_terms));
    }
  }
  return y;
}

Rows Activate(const Rows& gate, const OpConfig& c, Rows* units) {
  Rows y = gate;
  const bool table = c.act_table || (c.gelu_f16 && c.activation == Act::kGeluTanh);
  for (double& x : y.v) x = table ? Tabulated(x, c.activation) : ActivateOne(x, c.activation);
  OwnUnits(y, units);
  if (units && (c.activation == Act::kSilu || c.activation == Act::kSwigluOai))
    for (double& unit : units->v) unit += kSiluUnderflow;
  // Of exp(-1.702 x) the exponent is rounded before.
  for (size_t i = 0; units && c.activation == Act::kSwigluOai && i < y.v.size(); i++)
    if (gate.v[i] < 0) units->v[i] += std::fabs(y.v[i] * 1.702 * gate.v[i]);
  // GELU's 1 + erf cancels where the gate is negative.
  if (units && !table && (c.activation == Act::kGelu || c.activation == Act::kGeluTanh))
    for (size_t i = 0; i < y.v.size(); i++) units->v[i] += std::fabs(gate.v[i]) / 2;
  for (size_t i = 0; units && table && i < y.v.size(); i++)
    units->v[i] += TableUnits(gate.v[i], c.activation);
  return y;
}

Rows Multiply(const Rows& a, const Rows& b, const OpConfig& c, Rows* units) {
  Rows y = a;
  const auto up = [&c](double x) {
    return (c.gate_limit > 0 ? std::clamp(x, -c.gate_limit, c.gate_limit) : x) + c.gate_offset;
  };
  for (size_t i = 0; !c.gate_alone && i < y.v.size(); i++) y.v[i] *= up(b.v[i]);
  OwnUnits(y, units);
  // an activation that is not shown apart may have been 0 in the engine
  for (size_t i = 0; units && !c.gate_alone && i < y.v.size(); i++)
    units->v[i] += kSiluUnderflow * std::fabs(up(b.v[i]));
  // So is an activation of which only the product is shown. Its exponent z was 1.702 x, and of a negative
  // x sigmoid(z) that does not underflow ln|x| < 4.2.
  for (size_t i = 0; units && c.activation == Act::kSwigluOai && i < y.v.size(); i++)
    if (a.v[i] < 0) units->v[i] += std::fabs(y.v[i]) * (4.2 + std::fabs(std::log(-a.v[i])));
  // 1 + x is rounded, as large as 1 is.
  for (size_t i = 0; units && c.gate_offset != 0 && i < y.v.size(); i++)
    units->v[i] += std::fabs(a.v[i]) * (1 + std::fabs(b.v[i]));
  return y;
}

Rows AddScaled(const Rows& a, const Rows& b, double scale, Rows* units) {
  Rows y = a;
  for (size_t i = 0; i < y.v.size(); i++) y.v[i] = y.v[i] * scale + b.v[i];
  OwnUnits(y, units);
  // The product is rounded before it is added.
  for (size_t i = 0; units && scale != 1 && i < y.v.size(); i++) units->v[i] += std::fabs(a.v[i] * scale);
  return y;
}

void FinishLogits(const OpConfig& c, Rows* y, Rows* units) {
  if (c.logit_scale == 1 && c.logit_cap == 0) return;
  for (size_t i = 0; i < y->v.size(); i++) {
    const double scaled = y->v[i] * c.logit_scale;
    y->v[i] = Capped(scaled, c.logit_cap);
    if (units)
      units->v[i] =
          units->v[i] * std::fabs(c.logit_scale) + std::fabs(scaled) + CapUnits(y->v[i], c.logit_cap);
  }
}

}  // namespace pb::oracle
