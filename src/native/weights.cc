// Weights made ready for the kernels, and the products with them.
#include "native/weights.h"

#include <algorithm>
#include <cstring>

#include "base/half.h"

namespace pb::native {
namespace {

constexpr int64_t kRowGrain = 16;  // rows of a float matrix a thread takes at once

Matrix LoadMatrix(const WeightView& view, float post_scale, std::span<const float> bias, ThreadPool& pool) {
  Matrix m{view, nullptr, post_scale, bias};
  if (!IsPackable(view.type)) return m;
  auto packed = std::make_unique<PackedMatrix>(MakePacked(view));
  pool.For(packed->n_groups(), 1,
           [&](int64_t begin, int64_t end, int) { PackGroups(view, *packed, begin, end); });
  m.packed = std::move(packed);
  return m;
}

// What the codes stand for: (n_rows, n_columns).
AlignedArray<float> Decoded(const QuantRows& q) {
  auto values = MakeAligned<float>(q.n_rows * q.n_columns);
  for (int64_t t = 0; t < q.n_rows; t++) {
    for (int64_t c = 0; c < q.n_columns; c++) {
      float code = q.codes[t * q.n_columns + c],
            scale = q.scales[t * q.n_blocks + (c / kSub >> SchemeShift(q.scheme))];
      values[t * q.n_columns + c] = q.scheme == ActScheme::kBitnet ? code / scale : code * scale;
    }
  }
  return values;
}

// Rows of a float matrix, or of any other decoded to floats, against float activations.
void FloatProduct(const Kernels& k, ThreadPool& pool, const Matrix& w, const float* x, int64_t n,
                  float* out) {
  const WeightView& v = w.view;
  bool f16 = v.type == BlockType::kF16 && reinterpret_cast<uintptr_t>(v.data) % alignof(uint16_t) == 0;
  bool f32 = v.type == BlockType::kF32 && reinterpret_cast<uintptr_t>(v.data) % alignof(float) == 0;
  pool.For(v.n_rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
    AlignedArray<float> decoded = f16 || f32 ? nullptr : MakeAligned<float>(v.n_columns);
    for (int64_t r = begin; r < end; r++) {
      const std::byte* row = v.data + static_cast<uint64_t>(r) * v.row_bytes;
      if (f16) {
        k.dot_f16(reinterpret_cast<const uint16_t*>(row), x, v.n_columns, n, v.n_columns, out + r, v.n_rows);
      } else {
        if (decoded) DecodeRow(v, r, decoded.get());
        const float* values = decoded ? decoded.get() : reinterpret_cast<const float*>(row);
        k.dot_f32(values, x, v.n_columns, n, v.n_columns, out + r, v.n_rows);
      }
      for (int64_t t = 0; w.post_scale != 1 && t < n; t++) out[t * v.n_rows + r] *= w.post_scale;
    }
  });
}

}  // namespace

std::shared_ptr<const Weights> Weights::Load(std::shared_ptr<const Model> model, ThreadPool& pool) {
  auto w = std::make_shared<Weights>();
  w->layers.resize(static_cast<size_t>(model->params().n_layers));
  w->experts.resize(w->layers.size());
  for (size_t layer = 0; layer < w->layers.size(); layer++) {
    for (pb_stage stage : stages::kLayerProducts) {
      const StageWeights& own = model->weights(stage, static_cast<int32_t>(layer));
      w->layers[layer][static_cast<size_t>(stage)] = LoadMatrix(own.matrix, own.scale, own.bias, pool);
    }
  }
  for (size_t layer = 0; layer < w->experts.size(); layer++) {
    for (pb_stage stage : stages::kExpertProducts) {
      const StageWeights& own = model->weights(stage, static_cast<int32_t>(layer));
      for (int64_t expert = 0; expert < own.n_experts; expert++)
        w->experts[layer][stage].push_back(
            LoadMatrix(own.MatrixOf(expert), own.scale, own.BiasOf(expert), pool));
    }
  }
  w->output = LoadMatrix(model->output(), 1, {}, pool);
  w->model = std::move(model);
  return w;
}

Result<QuantRows> Quantise(const Kernels& k, ThreadPool& pool, const Matrix& w, ActScheme scheme,
                           const float* x, int64_t n) {
  const int64_t n_columns = w.view.n_columns, block = scheme == ActScheme::kQ8_K ? 256 : kSub;
  if (n_columns % block != 0) {
    return MakeError(Code::kUnsupported,
                     "act.quant: rows of {} values are no multiple of the scheme's block of {}", n_columns,
                     block);
  }
  QuantRows q(scheme, n, n_columns);
  pool.For(n, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; t++) k.quantize(x + t * n_columns, q, t);
  });
  return q;
}

namespace {

// Q8_1 stores the sum of a block's codes rounded: what a minimum meets of that beyond the values of
// the codes.
void AddStoredSums(ThreadPool& pool, const Matrix& w, const QuantRows& q, float* out) {
  const WeightView& v = w.view;
  const int64_t n_blocks = q.n_columns / kSub;
  if (static_cast<int64_t>(BlockMinima(v, 0).size()) != n_blocks) return;
  std::vector<double> beyond;  // (n_rows, n_blocks)
  for (int64_t t = 0; t < q.n_rows; t++) {
    for (int64_t b = 0; b < n_blocks; b++) {
      const int32_t* prefix = q.prefix.get() + t * (n_blocks + 1) + b;
      beyond.push_back(double(q.sums[t * n_blocks + b]) -
                       double(q.scales[t * q.n_blocks + b]) * (prefix[1] - prefix[0]));
    }
  }
  pool.For(v.n_rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++) {
      const std::vector<double> minima = BlockMinima(v, r);
      for (int64_t t = 0; t < q.n_rows; t++) {
        double sum = 0;
        for (int64_t b = 0; b < n_blocks; b++)
          sum += minima[static_cast<size_t>(b)] * beyond[static_cast<size_t>(t * n_blocks + b)];
        out[t * v.n_rows + r] += static_cast<float>(sum * double(w.post_scale));
      }
    }
  });
}

Status Multiply(const Kernels& k, ThreadPool& pool, const Matrix& w, ActScheme scheme, const float* x,
                int64_t n, float* out) {
  if (!IsIntegerScheme(scheme)) {
    AlignedArray<float> rounded;
    const int64_t n_values = n * w.view.n_columns;
    if (scheme != ActScheme::kNone) rounded = MakeAligned<float>(n_values);
    if (scheme == ActScheme::kF16) k.round_f16(x, n_values, rounded.get());
    if (scheme == ActScheme::kBF16)
      for (int64_t i = 0; i < n_values; i++) rounded.get()[i] = Bf16ToF32(F32ToBf16(x[i]));
    FloatProduct(k, pool, w, rounded ? rounded.get() : x, n, out);
    return {};
  }
  PB_ASSIGN(const QuantRows q, Quantise(k, pool, w, scheme, x, n));
  // Q8_1 stores a sum for 32 columns; no library meets it with fine scales.
  if (!w.packed || (w.packed->fine && scheme == ActScheme::kQ8_1)) {
    FloatProduct(k, pool, w, Decoded(q).get(), n, out);
    if (scheme == ActScheme::kQ8_1) AddStoredSums(pool, w, q, out);
    return {};
  }
  PackedProduct product{w.packed.get(), &q, w.post_scale, out, w.view.n_rows};
  pool.For(w.packed->n_groups(), 1,
           [&](int64_t begin, int64_t end, int) { k.packed_product(product, begin, end); });
  return {};
}

}  // namespace

Status Product(const Kernels& k, ThreadPool& pool, const Matrix& w, ActScheme scheme, const float* x,
               int64_t n, float* out) {
  PB_TRY(Multiply(k, pool, w, scheme, x, n, out));
  const int64_t width = w.view.n_rows;
  for (int64_t t = 0; !w.bias.empty() && t < n; t++)
    k.add(out + t * width, w.bias.data(), width, out + t * width);
  return {};
}

}  // namespace pb::native
