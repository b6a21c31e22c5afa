// Between the reference's tensors and the vocabulary's canonical ones: layouts, KV padding, the softmax's
// scale and mask.
#ifndef PARITYBIT_PLUGINS_LLAMA_CPP_CANONICAL_H_
#define PARITYBIT_PLUGINS_LLAMA_CPP_CANONICAL_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ggml.h"
#include "llama_cpp/graph.h"

namespace pb::llama_cpp {

// A canonical tensor: row-major, token rows first.
struct Canonical {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// The values of a tensor where they lie, if they can be read and written there: float32, contiguous, in this
// process's memory. Else empty.
std::span<float> InPlace(const ggml_tensor* t);

// Values of a tensor in ggml's order (ne[0] fastest), whatever its strides; other types are widened, int32 among them, blocks
// decoded. False: another type of whole numbers.
bool ReadTensor(const ggml_tensor* t, std::vector<float>* out);
// The inverse, of a contiguous tensor of float32 or int32.
void WriteTensor(ggml_tensor* t, std::span<const float> values);

// Which shape `native`, the values of t in ggml's order, have as a canonical tensor; first is the position of
// its first row. False: t does not have the declared shape.
bool CanonicalShape(const ggml_tensor* t, size_t n_values, int64_t first, const Shape& shape,
                    std::vector<int64_t>* out);
// Whether the canonical tensor has the native values in their order.
bool IsAsItStands(const Shape& shape);
// `mask`: what the softmax adds to scores; null: each row sees the positions up to its own.
bool ToCanonical(const ggml_tensor* t, std::span<const float> native, int64_t first, const Shape& shape,
                 Canonical* out, const ggml_tensor* mask = nullptr);

// The inverse, into `native`. Cells that are hidden or padding stay as they are; an unchanged value keeps its
// bits.
void ToNative(const ggml_tensor* t, const Canonical& c, int64_t first, const Shape& shape,
              std::span<float> native);

// Keys ([head][cell][dim], stage k_rope) or values ([head][dim][cell]) of the cache's view -> (p, heads,
// head_dim).
bool CacheToCanonical(const ggml_tensor* t, bool transposed, int64_t p, Canonical* out);

// Whether a node that fills the cache puts tokens into the cells of their positions: by a cell for each token's row, or as a copy into
// a view of cells. Of a node that does neither, or says it otherwise, as values do that are written one by one, nothing is known,
// and it counts as true.
bool CellsInOrder(const ggml_tensor* filled, int64_t first, int64_t n_rows);

}  // namespace pb::llama_cpp

#endif  // PARITYBIT_PLUGINS_LLAMA_CPP_CANONICAL_H_
