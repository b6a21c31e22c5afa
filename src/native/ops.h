// The operations of a layer, one for each stage of the vocabulary. Forward runs them in order and
// replay runs one alone; both through Compute, so they are the same arithmetic.
#ifndef PARITYBIT_NATIVE_OPS_H_
#define PARITYBIT_NATIVE_OPS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "native/config.h"
#include "native/kv_cache.h"
#include "native/weights.h"
#include "stages/stages.h"

namespace pb::native {

// Rows [first, first + n) of a sequence, and the positions before them that attention sees:
// n_visible = first + n.
struct TokenRows {
  int64_t first = 0, n = 0;
  int64_t n_visible() const { return first + n; }
};

// cos and sin of every position's angles, grown as positions are reached: ggml's f32 angles,
// position * scale^i by repeated multiplication, scale = base^(-2 / dims) rounded to f32, over the
// factor of pair i, if any, and mixed as YaRN mixes them; cos and sin of that f32 angle by libm in
// f64, times the attention factor, rounded to f32.
class RopeTable {
 public:
  // `factors`: of each pair, or empty; outlives this.
  RopeTable(int64_t dims, float base, float scale, std::span<const float> factors,
            const RopeStretch& stretch);
  void Reach(int64_t n_positions);
  const float* Row(int64_t position) const {
    return rows_.data() + position * dims_;
  }  // cos (dims/2), sin (dims/2)

 private:
  int64_t dims_;
  float factor_, frequency_scale_;
  std::span<const float> factors_;
  std::vector<float> kept_;  // YaRN: the part of each pair's angle that is not divided; empty: none is
  float attention_factor_ = 1;
  std::vector<float> rows_;
};

// Holds no positions. One caller at a time; works on all threads of the pool.
class Ops {
 public:
  Ops(std::shared_ptr<const Weights> weights, const Kernels& kernels, ThreadPool& pool,
      const OpParams& params);

  const HyperParameters& hyper() const { return weights_->model->params(); }
  const OpParams& params() const { return params_; }
  const Kernels& kernels() const { return kernels_; }
  // Values of one row of a stage's output.
  int64_t Width(pb_stage stage, const TokenRows& span) const;

  Status Embed(std::span<const int32_t> tokens, float* out) const;
  // Computes a stage from its inputs in the order of the vocabulary; keys and values of all visible
  // positions come from the cache (layer `cache_layer`), so their inputs are ignored. out: (n,
  // Width).
  Status Compute(pb_stage stage, int64_t layer, const TokenRows& span, std::span<const float* const> inputs,
                 const KvCache& cache, int64_t cache_layer, float* out);
  // The codes that Compute makes of a product's input x (n, K). kUnsupported: the op is no product,
  // or rounds x to no codes.
  Result<QuantRows> Codes(pb_stage stage, int64_t layer, int64_t n, const float* x);
  // attn_scores, attn_scores_softmax and attn_context in one go, row by row, with the same bits.
  void Attention(int64_t layer, const TokenRows& span, const float* q, const KvCache& cache,
                 int64_t cache_layer, float* out);

 private:
  template <typename Body>
  void ForHeads(const TokenRows& span, Body body);
  // Of a layer, for the row at `position`; what it does not see is -inf, and its weight not read.
  void Scores(int64_t layer, int64_t position, int64_t head, const float* q, const KvCache& cache,
              int64_t cache_layer, float* out) const;
  // The first position that the row at `position` sees.
  int64_t FirstSeen(int64_t layer, int64_t position) const;
  void Context(int64_t layer, int64_t position, int64_t head, const float* probabilities,
               const KvCache& cache, int64_t cache_layer, float* out) const;
  // One head's softmax over the scores of the positions that it sees, its sink among them.
  void Softmax(int64_t layer, int64_t head, const float* scores, int64_t n, float* out) const;
  void Norm(pb_stage stage, int64_t layer, int64_t n, const float* x, float* out);
  void Activate(int64_t n, int64_t width, const float* x, float* out);
  void Gate(int64_t n, int64_t width, const float* act, const float* up, float* out);
  // Of one token row: the ids of the experts used, and the weight of each.
  void ChooseExperts(const float* logits, float* ids) const;
  Status WeighExperts(const float* logits, const float* ids, float* weights) const;
  // out (n, experts used, width of one) = x times the matrix of each token's experts; x is the
  // token's row, or has a row for each of its experts.
  Status ExpertProduct(pb_stage stage, int64_t layer, int64_t n, const float* x, const float* ids,
                       float* out);
  void MixExperts(const float* down, const float* weights, float* out) const;
  void Rope(int64_t layer, const TokenRows& span, const float* x, int64_t n_heads, float* out);
  void FinishLogits(int64_t n, float* logits) const;
  void Rows(int64_t n, int64_t width, const std::function<void(int64_t row)>& body);

  std::shared_ptr<const Weights> weights_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  OpParams params_;
  RopeTable rope_, local_rope_;
};

}  // namespace pb::native

#endif  // PARITYBIT_NATIVE_OPS_H_
