// Keys (after rotation) and values of all positions a session holds.
#ifndef PARITYBIT_NATIVE_KV_CACHE_H_
#define PARITYBIT_NATIVE_KV_CACHE_H_

#include <cstdint>

#include "base/result.h"
#include "kernels/kernels.h"

namespace pb::native {

// (n_layers, n_kv_heads, n_ctx, head_dim) of f16 or f32. Reserved at once, and not touched before
// it is used, so memory grows with the positions held. Not for use from several threads, but for
// the views.
class KvCache {
 public:
  struct Shape {
    int64_t n_layers, n_kv_heads, n_ctx, head_dim;
  };
  static Result<KvCache> Create(const Shape& shape, bool f16);

  const Shape& shape() const { return shape_; }
  bool f16() const { return f16_; }
  // Stores rows (n, n_kv_heads, head_dim) of keys and values from position `first`; rounds them to
  // f16 where the cache is.
  void StoreKeys(const Kernels& k, int64_t layer, int64_t first, int64_t n, const float* rows);
  void StoreValues(const Kernels& k, int64_t layer, int64_t first, int64_t n, const float* rows);
  // Start of one head's (n_ctx, head_dim) of keys or values.
  const std::byte* Keys(int64_t layer, int64_t head) const { return keys_.get() + Offset(layer, head); }
  const std::byte* Values(int64_t layer, int64_t head) const { return values_.get() + Offset(layer, head); }
  // Positions [0, n) as rows (n, n_kv_heads, head_dim) of f32.
  void LoadKeys(const Kernels& k, int64_t layer, int64_t n, float* rows) const {
    Load(k, keys_.get(), layer, n, rows);
  }
  void LoadValues(const Kernels& k, int64_t layer, int64_t n, float* rows) const {
    Load(k, values_.get(), layer, n, rows);
  }

 private:
  int64_t item_bytes() const { return f16_ ? 2 : 4; }
  int64_t Offset(int64_t layer, int64_t head) const {
    return (layer * shape_.n_kv_heads + head) * shape_.n_ctx * shape_.head_dim * item_bytes();
  }
  void Store(const Kernels& k, std::byte* base, int64_t layer, int64_t first, int64_t n, const float* rows);
  void Load(const Kernels& k, const std::byte* base, int64_t layer, int64_t n, float* rows) const;

  Shape shape_{};
  bool f16_ = true;
  AlignedArray<std::byte> keys_, values_;
};

}  // namespace pb::native

#endif  // PARITYBIT_NATIVE_KV_CACHE_H_
