// The table of kernels, one for each instruction set. All tables give equal bits on equal inputs:
// integer sums are exact, every float expression is written out with explicit fma, and every float
// sum has one order over fixed virtual lanes, stated here. The scalar table is the definition; the
// others are checked against it bit by bit.
#ifndef PARITYBIT_KERNELS_KERNELS_H_
#define PARITYBIT_KERNELS_KERNELS_H_

#include <cstdint>

#include "kernels/isa.h"
#include "kernels/packed.h"

namespace pb {

// A product of packed weights with quantised rows: out[t * out_stride + r] = sum over columns of
// w(r, c) * x(t, c). Integer sums run over blocks (a block is the smaller of the weights' and the
// activations'), in 8 lanes: lane q has columns 4q to 4q + 3 of every sub of 32; where codes have
// an offset, offset * (sum of sub s) is taken from lane s mod 8, s counted in the block. Over the
// blocks in order: acc[q] = fma(d_w * d_x, float(lane q), acc[q]); with a minimum, low = fma(m_w,
// s_x, low). Then halves of acc are added (q + 4, 2, 1), then low; the result is divided by the
// activations' s (bitnet), times the tensor's scale, times post_scale. On AVX2 and later ggml's x86
// products sum in the same order, so Q8_0, Q4_1, TQ1_0 and TQ2_0 give its very bits.
// With fine scales there is one lane: acc = fma(d_w * d_x, float(sum of fine_scale * code * code_x of
// the block), acc), low = fma(m_w * d_x, float(sum of fine_minimum * code_x), low), and low is taken
// from acc; blocks of Q8_1 are not for them, as its stored sums stand for 32 columns.
struct PackedProduct {
  const PackedMatrix* w;
  const QuantRows* x;
  float post_scale;
  float* out;
  int64_t out_stride;
};

// Sums of products of floats use 32 lanes: element i adds to lane i mod 32 by fma, from +0; the
// tail is filled with zeros; then halves are added (lane l + lane l + 16, then 8, 4, 2, 1).
struct Kernels {
  Isa isa;

  // y = x * (1 / sqrt(mean(x^2) + eps)) * weight. Squares are rounded to f32 and summed in f64 over
  // 16 lanes, halves added.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* y);
  // Rotates pairs of one head: y0 = fma(x0, cos, -(x1 * sin)), y1 = fma(x0, sin, x1 * cos), for
  // `dims` leading values; the rest is copied. table: cos at [i], sin at [dims / 2 + i]. y may be
  // x. halves: pairs (i, i + dims/2), else (2i, 2i + 1).
  void (*rope)(const float* x, const float* table, int64_t dims, int64_t head_dim, bool halves, float* y);
  // y = exp(x - max) * float(1 / sum), the sum in f64 over 16 lanes, halves added.
  void (*softmax)(const float* x, int64_t n, float* y);

  void (*silu)(const float* x, int64_t n, float* y);   // x / (1 + exp(-x))
  void (*relu2)(const float* x, int64_t n, float* y);  // max(x, 0)^2, NaN stays
  void (*relu)(const float* x, int64_t n, float* y);
  // x / 2 * (1 + erf(x / sqrt 2)), in f64 with libm's erf whatever the instruction set: rare.
  void (*gelu)(const float* x, int64_t n, float* y);
  void (*exp)(const float* x, int64_t n, float* y);  // below 1 ulp; NaN stays
  void (*add)(const float* a, const float* b, int64_t n, float* y);
  void (*multiply)(const float* a, const float* b, int64_t n, float* y);
  void (*round_f16)(const float* x, int64_t n, float* y);  // to the nearest f16, kept as f32
  void (*to_f16)(const float* x, int64_t n, uint16_t* y);
  void (*from_f16)(const uint16_t* x, int64_t n, float* y);

  // Quantises row `row` of q from n_columns floats.
  void (*quantize)(const float* x, QuantRows& q, int64_t row);

  // out[t * out_stride] = w . x[t * x_stride ..], t < n_x
  void (*dot_f32)(const float* w, const float* x, int64_t x_stride, int64_t n_x, int64_t n, float* out,
                  int64_t out_stride);
  void (*dot_f16)(const uint16_t* w, const float* x, int64_t x_stride, int64_t n_x, int64_t n, float* out,
                  int64_t out_stride);

  // out[p] = (q . k[p * stride ..]) * scale for p < n_positions, over head_dim values.
  void (*scores_f32)(const float* q, const float* k, int64_t stride, int64_t n_positions, int64_t head_dim,
                     float scale, float* out);
  void (*scores_f16)(const float* q, const uint16_t* k, int64_t stride, int64_t n_positions, int64_t head_dim,
                     float scale, float* out);
  // out[d] = sum over p of probability[p] * v[p * stride + d]: 8 lanes, position p adds to lane
  // p mod 8 by fma, halves added.
  void (*context_f32)(const float* probability, const float* v, int64_t stride, int64_t n_positions,
                      int64_t head_dim, float* out);
  void (*context_f16)(const float* probability, const uint16_t* v, int64_t stride, int64_t n_positions,
                      int64_t head_dim, float* out);

  void (*packed_product)(const PackedProduct& product, int64_t begin_group, int64_t end_group);
};

// The table of an instruction set, which must be available on this machine.
const Kernels& GetKernels(Isa isa);

}  // namespace pb

#endif  // PARITYBIT_KERNELS_KERNELS_H_
