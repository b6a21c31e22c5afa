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
    case Act::kIdentity:
      return x;
  }
  return x;
}

// One weight matrix as rows of exact numbers, and per block the minimum that multiplies a stored activation
// sum (Q4_1).
class WeightRows {
 public:
  WeightRows(const WeightView& w, bool transposed) : w_(w) {
    if (!transposed) return;
    columns_.resize(static_cast<size_t>(w.n_rows * w.n_columns));
    std::vector<float> row(static_cast<size_t>(w.n_columns));
    for (int64_t r = 0; r < w.n_rows; r++) {
      DecodeRow(w, r, row.data());
      for (int64_t k = 0; k < w.n_columns; k++)
        columns_[static_cast<size_t>(k * w.n_rows + r)] = row[static_cast<size_t>(k)];
    }
  }
  void Row(int64_t r, float* out) const {
    if (columns_.empty()) return DecodeRow(w_, r, out);
    std::copy_n(columns_.data() + r * w_.n_rows, w_.n_rows, out);
  }
  double Minimum(int64_t r, int64_t block) const {
    const std::byte* p =
        w_.data + static_cast<uint64_t>(r) * w_.row_bytes + static_cast<uint64_t>(block) * sizeof(BlockQ4_1);
    return F16ToF32(LoadLe<uint16_t>(p + offsetof(BlockQ4_1, m)));
  }

 private:
  const WeightView& w_;
  std::vector<float> columns_;
};

// Sums the products of one weight row with all token rows, held token-fastest: x_t is (K, n).
void SumRow(const float* w, const std::vector<double>& x_t, int64_t k_end, int64_t n, double* sum,
            double* squares) {
  std::fill_n(sum, n, 0.0);
  if (!squares) {
    for (int64_t k = 0; k < k_end; k++) {
      const double wk = w[k];
      const double* x = x_t.data() + k * n;
      for (int64_t i = 0; i < n; i++) sum[i] += wk * x[i];
    }
    return;
  }
  std::fill_n(squares, n, 0.0);
  for (int64_t k = 0; k < k_end; k++) {
    const double wk = w[k];
    const double* x = x_t.data() + k * n;
    for (int64_t i = 0; i < n; i++) {
      sum[i] += wk * x[i];
      squares[i] += sum[i] * sum[i];
    }
  }
}

}  // namespace

OpConfig OpConfig::Declare(const HyperParameters& p, ActQuant act_quant, bool kv_f16) {
  OpConfig c;
  c.n_heads = p.n_heads, c.n_kv_heads = p.n_kv_heads, c.head_dim = p.head_dim;
  c.norm_eps = p.norm_eps.value;
  c.act_quant = act_quant;
  c.rope_pairing = p.rope_pairing.value, c.rope_base = p.rope_base.value, c.rope_scale = p.rope_scale.value;
  c.rope_dims = p.rope_dims;
  c.cache_f16 = kv_f16;
  c.attention_f16 = kv_f16 && act_quant != ActQuant::kNone;
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
  }
  return c;
}

Rows Norm(const Rows& x, std::span<const float> weight, const OpConfig& c) {
  Rows y = x;
  const int64_t width = static_cast<int64_t>(weight.size());
  for (int repeat = 0; repeat < c.norm_repeat; repeat++) {
    for (int64_t start = 0; start < static_cast<int64_t>(y.v.size()); start += width) {
      double* r = y.v.data() + start;
      double sum = 0;
      for (int64_t k = 0; k < width; k++) sum += r[k] * r[k];
      const double inverse = 1 / std::sqrt(sum / static_cast<double>(width) + c.norm_eps);
      for (int64_t k = 0; k < width; k++)
        r[k] *= inverse * (weight[static_cast<size_t>(k)] + c.norm_weight_offset);
    }
  }
  return y;
}

Result<Rows> Product(const Rows& x, const WeightView& w, double scale, const OpConfig& c, ThreadPool& pool,
                     Rows* partial) {
  const int64_t n = x.n, k_all = x.width, n_out = c.transposed ? w.n_columns : w.n_rows;
  PB_CHECK(k_all == (c.transposed ? w.n_rows : w.n_columns));
  const ActQuant scheme = SchemeFor(c.act_quant, w.type);
  std::vector<double> x_t(static_cast<size_t>(k_all * n)), sum_error_t;
  for (int64_t i = 0; i < n; i++) {
    PB_ASSIGN(Activations a, Quantise({x.row(i), static_cast<size_t>(k_all)}, scheme, c.quantiser));
    for (int64_t k = 0; k < k_all; k++)
      x_t[static_cast<size_t>(k * n + i)] = a.values[static_cast<size_t>(k)];
    const int64_t blocks = static_cast<int64_t>(a.sum_error.size());
    sum_error_t.resize(static_cast<size_t>(blocks * n));
    for (int64_t b = 0; b < blocks; b++)
      sum_error_t[static_cast<size_t>(b * n + i)] = a.sum_error[static_cast<size_t>(b)];
  }
  const WeightRows rows(w, c.transposed);
  const bool stored_sums = scheme == ActQuant::kQ8_1 && w.type == BlockType::kQ4_1 && !c.transposed;
  Rows y(n, n_out);
  if (partial) *partial = Rows(n, n_out);
  pool.For(n_out - c.drop_rows, 8, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(k_all));
    std::vector<double> sum(static_cast<size_t>(n)), squares(static_cast<size_t>(n));
    for (int64_t r = begin; r < end; r++) {
      rows.Row(r, row.data());
      SumRow(row.data(), x_t, k_all - c.drop_columns, n, sum.data(), partial ? squares.data() : nullptr);
      for (int64_t b = 0; stored_sums && b < k_all / 32; b++) {
        const double m = rows.Minimum(r, b);
        for (int64_t i = 0; i < n; i++)
          sum[static_cast<size_t>(i)] += m * sum_error_t[static_cast<size_t>(b * n + i)];
      }
      for (int64_t i = 0; i < n; i++) {
        y.row(i)[r] = sum[static_cast<size_t>(i)] * scale * c.product_factor;
        if (partial)
          partial->row(i)[r] =
              std::sqrt(squares[static_cast<size_t>(i)]) * std::fabs(scale * c.product_factor);
      }
    }
  });
  return y;
}

Rows Rope(const Rows& x, int64_t first_position, const OpConfig& c) {
  Rows y = x;
  const int64_t half = c.rope_dims / 2;
  for (int64_t t = 0; t < x.n; t++) {
    const double position = (static_cast<double>(first_position + t) + c.rope_offset) / c.rope_scale;
    for (int64_t start = 0; start < x.width; start += c.head_dim) {
      double* head = y.row(t) + start;
      for (int64_t i = 0; i < half; i++) {
        const double angle = position * std::pow(c.rope_base, -2.0 * static_cast<double>(i) /
                                                                  static_cast<double>(c.rope_dims));
        const bool adjacent = c.rope_pairing == RopePairing::kAdjacent;
        double& a = head[adjacent ? 2 * i : i];
        double& b = head[adjacent ? 2 * i + 1 : i + half];
        const double a0 = a, b0 = b;
        a = a0 * std::cos(angle) - b0 * std::sin(angle);
        b = a0 * std::sin(angle) + b0 * std::cos(angle);
      }
    }
  }
  return y;
}

Rows Scores(const Rows& q_in, const Rows& k_in, int64_t first_position, const OpConfig& c) {
  const Rows q = RoundedF16(q_in, c.attention_f16), k = RoundedF16(k_in, c.cache_f16);
  const int64_t p = k.n;
  Rows y(q.n, c.n_heads * p);
  for (int64_t t = 0; t < q.n; t++) {
    const int64_t visible = std::clamp<int64_t>(first_position + t + 1 + c.mask_shift, 0, p);
    for (int64_t h = 0; h < c.n_heads; h++) {
      const double* query = q.row(t) + h * c.head_dim;
      double* out = y.row(t) + h * p;
      for (int64_t j = 0; j < p; j++) {
        const double* key = k.row(std::max<int64_t>(j - c.kv_shift, 0)) + KvHead(h, c) * c.head_dim;
        double sum = 0;
        for (int64_t d = 0; d < c.head_dim; d++) sum += query[d] * key[d];
        out[j] = j < visible ? sum / std::sqrt(static_cast<double>(c.head_dim)) * c.attn_scale_factor
                             : -std::numeric_limits<double>::infinity();
      }
    }
  }
  return y;
}

Rows Softmax(const Rows& scores, int64_t positions) {
  Rows y = scores;
  for (int64_t start = 0; start < static_cast<int64_t>(y.v.size()); start += positions) {
    double* r = y.v.data() + start;
    const double largest = *std::max_element(r, r + positions);
    double sum = 0;
    for (int64_t j = 0; j < positions; j++)
      sum += r[j] = std::isinf(r[j]) && r[j] < 0 ? 0 : std::exp(r[j] - largest);
    for (int64_t j = 0; j < positions; j++) r[j] /= sum;
  }
  return y;
}

Rows Context(const Rows& probabilities, const Rows& v_in, const OpConfig& c) {
  const Rows v = RoundedF16(v_in, c.cache_f16), weights = RoundedF16(probabilities, c.attention_f16);
  const int64_t p = v.n;
  Rows y(weights.n, c.n_heads * c.head_dim);
  for (int64_t t = 0; t < weights.n; t++) {
    for (int64_t h = 0; h < c.n_heads; h++) {
      double* out = y.row(t) + h * c.head_dim;
      for (int64_t j = 0; j < p; j++) {
        const double w = weights.row(t)[h * p + j];
        const double* value = v.row(std::max<int64_t>(j - c.kv_shift, 0)) + KvHead(h, c) * c.head_dim;
        for (int64_t d = 0; d < c.head_dim; d++) out[d] += w * value[d];
      }
    }
  }
  return y;
}

Rows Activate(const Rows& gate, const OpConfig& c) {
  Rows y = gate;
  for (double& x : y.v) x = ActivateOne(x, c.activation);
  return y;
}

Rows Multiply(const Rows& a, const Rows& b) {
  Rows y = a;
  for (size_t i = 0; i < y.v.size(); i++) y.v[i] *= b.v[i];
  return y;
}

Rows Add(const Rows& a, const Rows& b) {
  Rows y = a;
  for (size_t i = 0; i < y.v.size(); i++) y.v[i] += b.v[i];
  return y;
}

}  // namespace pb::oracle
