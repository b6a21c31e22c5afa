// One sequence being computed: its KV cache, the buffers of a pass, and Forward().
#ifndef PARITYBIT_NATIVE_SESSION_H_
#define PARITYBIT_NATIVE_SESSION_H_

#include <initializer_list>
#include <memory>
#include <span>

#include "abi/engine.h"
#include "native/ops.h"

namespace pb::native {

// Same tokens, same bits: whatever the threads, the batch, prefill or decode, the instruction set,
// and whether taps look. Not for use from several threads; callbacks run on the calling thread.
class Session {
 public:
  static Result<std::unique_ptr<Session>> Open(std::shared_ptr<const Weights> weights, const Config& config);

  int64_t n_positions() const { return n_positions_; }
  int64_t n_ctx() const { return cache_.shape().n_ctx; }
  const Config& config() const { return config_; }
  // LongRoPE: whether there are two sets of factors, and which one counts.
  bool has_long_rope() const { return !ops_.hyper().rope_stretch.long_factors.empty(); }
  bool long_rope() const { return ops_.params().long_rope; }
  bool HasStage(pb_stage stage) const { return ops_.hyper().ops.Contains(stage); }

  // As in the ABI. After an error the session holds the positions it held before.
  Status Eval(const pb_eval& eval);
  Status Reset(int64_t n_keep);
  Status Replay(const pb_replay& replay);

 private:
  // Everything one pass writes; rows are tokens. Sized for `ubatch` rows.
  struct Buffers {
    Buffers(const HyperParameters& h, int64_t n);
    AlignedArray<float> x, residual;                      // (n, d_model)
    AlignedArray<float> norm, in_norm, out, post;         // (n, d_model)
    AlignedArray<float> q, q_norm, q_rope, context, sub;  // (n, n_heads, head_dim)
    AlignedArray<float> k, k_norm, k_rope, v;             // (n, n_kv_heads, head_dim)
    AlignedArray<float> gate, up, act, gated, ffn;        // (n, d_ff)
    // of experts: (n, n_experts), (n, n_experts_used)
    AlignedArray<float> router, ids, weights;
    AlignedArray<float> expert_gate, expert_up, expert_act, expert_gated;  // (n, n_experts_used, d_ff_expert)
    AlignedArray<float> expert_down;                                       // (n, n_experts_used, d_model)
    AlignedArray<float> expert_sum, shared_gate, shared, ffn_out;          // (n, d_model); the gate (n, 1)
  };
  // An input of an op: rows null means all visible positions, from the cache.
  struct Input {
    pb_stage stage;
    const float* rows;
  };
  // Which pass, and which layer of it.
  struct Where {
    const pb_eval& eval;
    const TokenRows& span;
    int32_t layer;
  };

  Session(std::shared_ptr<const Weights> weights, const Config& config, KvCache cache);

  Status Forward(const pb_eval& eval, const TokenRows& span, int64_t first_token);
  Status Attention(const pb_eval& eval, int32_t layer, const TokenRows& span);
  // What the feed-forward network adds to the stream, from its input: of all tokens' network, of the
  // experts, or of both.
  Result<Input> FeedForward(const Where& at, const Input& x);
  Result<Input> Dense(const Where& at, const Input& x);
  Result<Input> ExpertMixture(const Where& at, const Input& x);
  // An op that only some architectures have; where this one has it not, its input stays as it is.
  Result<Input> Optional(const Where& at, pb_stage stage, Input input, AlignedArray<float>& out);
  Status Logits(const pb_eval& eval, const TokenRows& span, int64_t first_token);
  Status Embed(const pb_eval& eval, const TokenRows& span, int64_t first_token);
  // Runs one op: shows its inputs, computes, disturbs, shows the output and takes what the tap
  // wrote.
  Status Run(const pb_eval& eval, pb_stage stage, int32_t layer, const TokenRows& span,
             std::initializer_list<Input> inputs, float* out);
  uint32_t Wanted(const pb_eval& eval, pb_stage stage, int32_t layer, const TokenRows& span) const;
  void ShowInputs(const pb_eval& eval, pb_stage stage, int32_t layer, const TokenRows& span,
                  std::span<const Input> inputs);
  Status ShowOutput(const pb_eval& eval, pb_stage stage, int32_t layer, const TokenRows& span,
                    uint32_t wanted, float* out);
  void Disturb(pb_stage stage, int32_t layer, const TokenRows& span, float* out) const;
  pb_tensor Describe(pb_stage stage, const TokenRows& span, float* data) const;

  Config config_;
  std::shared_ptr<const Weights> weights_;
  ThreadPool pool_;
  Ops ops_;
  KvCache cache_;
  Buffers buffers_;
  int64_t n_positions_ = 0;
};

}  // namespace pb::native

#endif  // PARITYBIT_NATIVE_SESSION_H_
