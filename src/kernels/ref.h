// The scalar definition of every kernel in kernels.h, in plain loops. No instruction set beyond the
// compiler's baseline.
#ifndef PARITYBIT_KERNELS_REF_H_
#define PARITYBIT_KERNELS_REF_H_

#include "kernels/kernels.h"

namespace pb {

float ExpRef(float x);
void RmsNormRef(const float* x, const float* weight, float eps, int64_t n, float* y);
void RopeRef(const float* x, const float* table, int64_t dims, int64_t head_dim, bool halves, float* y);
void SoftmaxRef(const float* x, int64_t n, float* y);
void SiluRef(const float* x, int64_t n, float* y);
void Relu2Ref(const float* x, int64_t n, float* y);
void ReluRef(const float* x, int64_t n, float* y);
void GeluRef(const float* x, int64_t n, float* y);
void ExpRowRef(const float* x, int64_t n, float* y);
void AddRef(const float* a, const float* b, int64_t n, float* y);
void MultiplyRef(const float* a, const float* b, int64_t n, float* y);
void RoundF16Ref(const float* x, int64_t n, float* y);
void ToF16Ref(const float* x, int64_t n, uint16_t* y);
void FromF16Ref(const uint16_t* x, int64_t n, float* y);
void QuantizeRef(const float* x, QuantRows& q, int64_t row);
void DotF32Ref(const float* w, const float* x, int64_t x_stride, int64_t n_x, int64_t n, float* out,
               int64_t out_stride);
void DotF16Ref(const uint16_t* w, const float* x, int64_t x_stride, int64_t n_x, int64_t n, float* out,
               int64_t out_stride);
void ScoresF32Ref(const float* q, const float* k, int64_t stride, int64_t n_positions, int64_t head_dim,
                  float scale, float* out);
void ScoresF16Ref(const float* q, const uint16_t* k, int64_t stride, int64_t n_positions, int64_t head_dim,
                  float scale, float* out);
void ContextF32Ref(const float* probability, const float* v, int64_t stride, int64_t n_positions,
                   int64_t head_dim, float* out);
void ContextF16Ref(const float* probability, const uint16_t* v, int64_t stride, int64_t n_positions,
                   int64_t head_dim, float* out);
void PackedProductRef(const PackedProduct& product, int64_t begin_group, int64_t end_group);

}  // namespace pb

#endif  // PARITYBIT_KERNELS_REF_H_
