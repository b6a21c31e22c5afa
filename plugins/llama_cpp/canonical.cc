// Reads tensors of the reference row by row into the canonical layout, and writes overwrites
// back through the inverse.
#include "llama_cpp/canonical.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "ggml-backend.h"

namespace pb::llama_cpp {
namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

// Reads row by row through the strides; the values of a row stand together. `decode` is null for f32.
void ReadRows(const ggml_tensor* t, ggml_to_float_t decode, std::vector<float>* out) {
  const size_t row_bytes = ggml_row_size(t->type, t->ne[0]);
  std::vector<char> encoded(decode ? row_bytes : 0);
  float* row = out->data();
  for (int64_t i3 = 0; i3 < t->ne[3]; ++i3) {
    for (int64_t i2 = 0; i2 < t->ne[2]; ++i2) {
      for (int64_t i1 = 0; i1 < t->ne[1]; ++i1, row += t->ne[0]) {
        const size_t offset = i1 * t->nb[1] + i2 * t->nb[2] + i3 * t->nb[3];
        ggml_backend_tensor_get(t, decode ? static_cast<void*>(encoded.data()) : row, offset, row_bytes);
        if (decode) decode(encoded.data(), row, t->ne[0]);
      }
    }
  }
}

// Between the memory [head][row][cell] and (n, heads, p).
struct ScoreIndex {
  int64_t n_cells, n_rows, n_heads, first, p;
  ScoreIndex(const ggml_tensor* t, int64_t first_position)
      : n_cells(t->ne[0]),
        n_rows(t->ne[1]),
        n_heads(t->ne[2]),
        first(first_position),
        p(first_position + t->ne[1]) {}
  int64_t Native(int64_t row, int64_t head, int64_t cell) const {
    return (head * n_rows + row) * n_cells + cell;
  }
  int64_t Flat(int64_t row, int64_t head, int64_t cell) const { return (row * n_heads + head) * p + cell; }
  int64_t Visible(int64_t row) const { return first + row + 1; }  // cells 0 .. Visible-1
};

bool IsAttention(const Shape& shape) { return shape.form == Form::kScores || shape.form == Form::kWeights; }

// What the row of a mask says of a cell: 0 or -inf, or what else is added.
struct Mask {
  std::span<const float> values;  // [row][cell]; empty: each row sees the cells up to its own
  int64_t n_cells = 0;
  float Of(const ScoreIndex& at, int64_t row, int64_t cell) const {
    if (values.empty()) return cell < at.Visible(row) ? 0.0f : kHidden;
    return values[static_cast<size_t>(row * n_cells + cell)];
  }
};

// Scores times the scale, plus what the mask adds; weights as they are.
void ScoresToCanonical(const ScoreIndex& at, std::span<const float> native, const Shape& shape, const Mask& mask,
                       std::vector<float>* out) {
  out->resize(static_cast<size_t>(at.n_rows * at.n_heads * at.p));
  const bool scores = shape.form == Form::kScores;
  for (int64_t row = 0; row < at.n_rows; ++row) {
    for (int64_t head = 0; head < at.n_heads; ++head) {
      const float* from = native.data() + at.Native(row, head, 0);
      float* to = out->data() + at.Flat(row, head, 0);
      for (int64_t cell = 0; cell < at.p; ++cell) {
        const float added = scores ? mask.Of(at, row, cell) : 0;
        const bool as_it_is = added == 0 || (shape.mask_hides_alone && added != kHidden);
        to[cell] = as_it_is ? from[cell] * shape.scale : added == kHidden ? kHidden : from[cell] * shape.scale + added;
      }
    }
  }
}

void ScoresToNative(const ScoreIndex& at, const Canonical& c, const Shape& shape, std::span<float> native) {
  for (int64_t row = 0; row < at.n_rows; ++row) {
    for (int64_t head = 0; head < at.n_heads; ++head) {
      float* to = native.data() + at.Native(row, head, 0);
      const float* from = c.values.data() + at.Flat(row, head, 0);
      for (int64_t cell = 0; cell < at.p; ++cell)
        if (from[cell] != kHidden && to[cell] * shape.scale != from[cell]) to[cell] = from[cell] / shape.scale;
    }
  }
}

// Whole numbers, as many as float32 holds exactly.
bool ReadIds(const ggml_tensor* t, std::vector<float>* out) {
  if (!ggml_is_contiguous(t)) return false;
  std::vector<int32_t> ids(static_cast<size_t>(ggml_nelements(t)));
  ggml_backend_tensor_get(t, ids.data(), 0, ids.size() * sizeof(int32_t));
  out->assign(ids.begin(), ids.end());
  return true;
}

}  // namespace

void WriteTensor(ggml_tensor* t, std::span<const float> values) {
  if (t->type != GGML_TYPE_I32) {
    ggml_backend_tensor_set(t, values.data(), 0, values.size() * sizeof(float));
    return;
  }
  std::vector<int32_t> ids(values.begin(), values.end());
  ggml_backend_tensor_set(t, ids.data(), 0, ids.size() * sizeof(int32_t));
}

bool ReadTensor(const ggml_tensor* t, std::vector<float>* out) {
  if (t->type == GGML_TYPE_I32) return ReadIds(t, out);
  const ggml_to_float_t decode = t->type == GGML_TYPE_F32 ? nullptr : ggml_get_type_traits(t->type)->to_float;
  if (t->type != GGML_TYPE_F32 && !decode) return false;
  if (t->nb[0] != ggml_type_size(t->type) || t->ne[0] % ggml_blck_size(t->type) != 0) return false;
  out->resize(static_cast<size_t>(ggml_nelements(t)));
  if (!decode && ggml_is_contiguous(t)) {
    ggml_backend_tensor_get(t, out->data(), 0, out->size() * sizeof(float));
  } else {
    ReadRows(t, decode, out);
  }
  return true;
}

std::span<float> InPlace(const ggml_tensor* t) {
  const ggml_backend_buffer_t buffer = t->view_src ? t->view_src->buffer : t->buffer;
  if (t->type != GGML_TYPE_F32 || !ggml_is_contiguous(t) || !t->data || !buffer ||
      !ggml_backend_buffer_is_host(buffer))
    return {};
  return {static_cast<float*>(t->data), static_cast<size_t>(ggml_nelements(t))};
}

bool CanonicalShape(const ggml_tensor* t, size_t n_values, int64_t first, const Shape& shape,
                    std::vector<int64_t>* out) {
  if (IsAttention(shape)) {
    const ScoreIndex at(t, first);
    *out = {at.n_rows, at.n_heads, at.p};
    return at.p <= at.n_cells && t->ne[3] == 1;
  }
  const bool heads = shape.form == Form::kHeads, part = shape.columns.n > 0;
  // A row of heads may lie in several of the tensor's own rows; columns are of a row as it lies.
  const int64_t total = static_cast<int64_t>(n_values);
  const int64_t width = heads && !part ? shape.n_heads * shape.head_dim : shape.width > 0 ? shape.width : t->ne[0];
  const int64_t n_columns = part ? shape.columns.n : width;
  if (width <= 0 || total % width != 0 || (part && shape.columns.first + n_columns > width)) return false;
  if (heads && n_columns != shape.n_heads * shape.head_dim) return false;
  *out = heads ? std::vector<int64_t>{total / width, shape.n_heads, shape.head_dim}
               : std::vector<int64_t>{total / width, n_columns};
  return true;
}

bool IsAsItStands(const Shape& shape) { return !IsAttention(shape) && shape.columns.n == 0; }

bool ToCanonical(const ggml_tensor* t, std::span<const float> native, int64_t first, const Shape& shape,
                 Canonical* out, const ggml_tensor* mask) {
  if (!CanonicalShape(t, native.size(), first, shape, &out->shape)) return false;
  if (IsAttention(shape)) {
    const ScoreIndex at(t, first);
    std::vector<float> values;
    if (mask && (!ReadTensor(mask, &values) || mask->ne[0] < at.p || mask->ne[1] < at.n_rows)) return false;
    ScoresToCanonical(at, native, shape, {values, mask ? mask->ne[0] : 0}, &out->values);
    return true;
  }
  if (IsAsItStands(shape)) return out->values.assign(native.begin(), native.end()), true;
  const int64_t width = t->ne[0], n = shape.columns.n;
  out->values.resize(static_cast<size_t>(out->shape[0] * n));
  for (int64_t r = 0; r < out->shape[0]; ++r)
    std::copy_n(native.begin() + r * width + shape.columns.first, n, out->values.begin() + r * n);
  return true;
}

void ToNative(const ggml_tensor* t, const Canonical& c, int64_t first, const Shape& shape,
              std::span<float> native) {
  if (IsAttention(shape)) return ScoresToNative(ScoreIndex(t, first), c, shape, native);
  if (IsAsItStands(shape)) {
    std::copy(c.values.begin(), c.values.end(), native.begin());
    return;
  }
  const int64_t width = t->ne[0], n = shape.columns.n;
  for (int64_t r = 0; r < c.shape[0]; ++r)
    std::copy_n(c.values.begin() + r * n, n, native.begin() + r * width + shape.columns.first);
}

bool CacheToCanonical(const ggml_tensor* t, bool transposed, int64_t p, Canonical* out) {
  std::vector<float> native;
  if (!ReadTensor(t, &native)) return false;
  const int64_t dim = t->ne[transposed], cells = t->ne[!transposed], heads = t->ne[2];
  if (p > cells || t->ne[3] != 1) return false;
  out->shape = {p, heads, dim};
  out->values.resize(static_cast<size_t>(p * heads * dim));
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t j = 0; j < p; ++j) {
      for (int64_t d = 0; d < dim; ++d) {
        out->values[(j * heads + h) * dim + d] =
            native[transposed ? (h * dim + d) * cells + j : (h * cells + j) * dim + d];
      }
    }
  }
  return true;
}

namespace {

// A copy into a view of the cache: rows of cells one after the other, or columns of them.
bool CopiedInOrder(const ggml_tensor* copy, int64_t first, int64_t n_rows) {
  const bool transposed = !ggml_is_contiguous(copy);
  const size_t cell = transposed ? ggml_type_size(copy->type) : ggml_nbytes(copy) / static_cast<size_t>(n_rows);
  return copy->view_offs == static_cast<size_t>(first) * cell;
}

}  // namespace

bool CellsInOrder(const ggml_tensor* filled, int64_t first, int64_t n_rows) {
  if (filled->op == GGML_OP_CPY) return CopiedInOrder(filled, first, n_rows);
  if (filled->op != kOpSetRows) return true;
  const ggml_tensor* cells = filled->src[1];
  if (!cells || cells->type != GGML_TYPE_I64 || cells->ne[0] != n_rows || !ggml_is_contiguous(cells)) return true;
  std::vector<int64_t> at(static_cast<size_t>(n_rows));
  ggml_backend_tensor_get(cells, at.data(), 0, at.size() * sizeof(int64_t));
  for (int64_t r = 0; r < n_rows; ++r)
    if (at[static_cast<size_t>(r)] != first + r) return false;
  return true;
}

}  // namespace pb::llama_cpp
