// Stores rows of keys and values as float32 or float16.
#include "native/kv_cache.h"

#include <cstring>

namespace pb::native {

Result<KvCache> KvCache::Create(const Shape& shape, bool f16) {
  KvCache cache;
  cache.shape_ = shape, cache.f16_ = f16;
  int64_t bytes = cache.item_bytes();
  for (int64_t factor : {shape.n_layers, shape.n_kv_heads, shape.n_ctx, shape.head_dim}) {
    if (__builtin_mul_overflow(bytes, factor, &bytes) || bytes > (int64_t{1} << 46)) {
      return MakeError(Code::kUsage, "n_ctx={}: the KV cache would not fit any memory", shape.n_ctx);
    }
  }
  cache.keys_ = MakeAligned<std::byte>(bytes);
  cache.values_ = MakeAligned<std::byte>(bytes);
  return cache;
}

void KvCache::Store(const Kernels& k, std::byte* base, int64_t layer, int64_t first, int64_t n,
                    const float* rows) {
  for (int64_t h = 0; h < shape_.n_kv_heads; h++) {
    std::byte* head = base + Offset(layer, h);
    for (int64_t t = 0; t < n; t++) {
      const float* from = rows + (t * shape_.n_kv_heads + h) * shape_.head_dim;
      std::byte* to = head + (first + t) * shape_.head_dim * item_bytes();
      if (f16_) {
        k.to_f16(from, shape_.head_dim, reinterpret_cast<uint16_t*>(to));
      } else {
        std::memcpy(to, from, static_cast<size_t>(shape_.head_dim) * sizeof(float));
      }
    }
  }
}

void KvCache::StoreKeys(const Kernels& k, int64_t layer, int64_t first, int64_t n, const float* rows) {
  Store(k, keys_.get(), layer, first, n, rows);
}

void KvCache::StoreValues(const Kernels& k, int64_t layer, int64_t first, int64_t n, const float* rows) {
  Store(k, values_.get(), layer, first, n, rows);
}

void KvCache::Load(const Kernels& k, const std::byte* base, int64_t layer, int64_t n, float* rows) const {
  for (int64_t h = 0; h < shape_.n_kv_heads; h++) {
    const std::byte* head = base + Offset(layer, h);
    for (int64_t t = 0; t < n; t++) {
      float* to = rows + (t * shape_.n_kv_heads + h) * shape_.head_dim;
      const std::byte* from = head + t * shape_.head_dim * item_bytes();
      if (f16_) {
        k.from_f16(reinterpret_cast<const uint16_t*>(from), shape_.head_dim, to);
      } else {
        std::memcpy(to, from, static_cast<size_t>(shape_.head_dim) * sizeof(float));
      }
    }
  }
}

}  // namespace pb::native
