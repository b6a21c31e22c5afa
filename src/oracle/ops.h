// The operations of a Llama or BitNet layer in fp64: plain loops, straight from the published
// mathematics. Each function names its source; nothing here is shared with the native engine but
// block decoding and model reading.
#ifndef PARITYBIT_ORACLE_OPS_H_
#define PARITYBIT_ORACLE_OPS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/model.h"
#include "oracle/activations.h"

namespace pb::oracle {

// Token rows, row-major.
struct Rows {
  int64_t n = 0, width = 0;
  std::vector<double> v;

  Rows() = default;
  Rows(int64_t rows, int64_t columns) : n(rows), width(columns), v(static_cast<size_t>(rows * columns)) {}
  double* row(int64_t i) { return v.data() + i * width; }
  const double* row(int64_t i) const { return v.data() + i * width; }
};

enum class Act { kSilu, kRelu, kRelu2, kGelu, kGeluTanh, kSwigluOai, kIdentity };
// How the values of a block are taken from its bytes, several codes each: the codes of byte b are
// values b, b + n, b + 2n ... of n bytes, lowest bits first (as declared), highest first; or bytes
// hold consecutive values. n is 32 for ternary blocks of 128, 16 for Q4_1.
enum class BlockOrder { kDeclared, kReversed, kConsecutive };
// What the cache holds at a row's own position: its key or value, nothing yet, the one before; or
// it was written to the cell before as well.
enum class OwnCell { kWritten, kZero, kBefore, kTwice };
// query head h reads KV head h / group, or h % n_kv_heads
enum class HeadMap { kGrouped, kInterleaved };

// Everything that decides an op's result besides its inputs and weights. The defaults after
// Declare() are what the model declares; a hypothesis is a copy with one field changed.
struct OpConfig {
  int64_t n_heads = 0, n_kv_heads = 0, head_dim = 0;
  // norms
  double norm_eps = 0, norm_weight_offset = 0;
  int norm_repeat = 1;            // 0: the norm is missing
  bool norm_centred = false;      // the mean is subtracted first (LayerNorm)
  bool norm_unweighted = false;   // its weight is left out
  bool norm_eps_outside = false;  // eps is added to the root, not to the mean of squares
  // Of each row the last values that the sum of squares leaves out; below 0: the first.
  int64_t norm_dropped = 0;
  // products
  ActQuant act_quant;
  QuantiserVariation quantiser;
  double product_factor = 1;
  int64_t drop_columns = 0, drop_rows = 0;  // tail of the weight matrix that is left out
  bool transposed = false;                  // square matrices alone
  BlockOrder block_order = BlockOrder::kDeclared;
  double weight_offset = 0;  // added to every weight: codes that are not centred
  bool no_minimum = false;   // weights are scale * code alone, without their minimum
  bool no_bias = false;
  int64_t cell_row = -1, cell_column = -1;  // one weight that cell_delta is added to; -1: none
  double cell_delta = 0;
  bool output_is_embeddings = false;  // logits: the output matrix is taken for tied
  // rotary embedding
  RopePairing rope_pairing = RopePairing::kAdjacent;
  double rope_base = 0, rope_scale = 1, rope_offset = 0;
  std::vector<float> rope_factors;  // of each pair, dividing its frequency; empty: none
  int64_t rope_dims = 0;
  int64_t rope_pair_shift = 0;                       // the frequency is that of the pair so many further on
  int64_t rope_pairs_left = 0;                       // of a head's pairs the last that are not rotated
  double local_rope_base = 0, local_rope_scale = 1;  // of local layers
  bool rope_exchanged = false;                       // local layers rotate as the others, and these as they
  bool rotates = true;                               // false: this layer has no rotary embedding
  bool rotates_all = false;                          // though it has none
  bool yarn = false;
  double yarn_beta_fast = 32, yarn_beta_slow = 1, rope_attention_factor = 1;
  int64_t n_ctx_original = 0;
  // attention
  double attn_scale_factor = 1;
  double attention_scale = 0;  // 0: 1 / sqrt(head_dim)
  bool scale_queries = false;  // by the scale in float32, in place of the scores
  double score_cap = 0;        // c: scores become c tanh(score / c); 0: they stay
  int64_t window = 0;          // positions that a row of this layer sees, its own among them; 0: all
  int window_shift = 0;        // added to a window
  int mask_shift = 0;          // +1: one position of the future is seen; -1: a position does not see itself
  int kv_shift = 0;            // +1: keys and values of the position before (a stale cache)
  OwnCell own_cell = OwnCell::kWritten;
  HeadMap head_map = HeadMap::kGrouped;
  double softmax_scale = 1;  // of the scores, as the softmax reads them
  double softmax_sink = 0;   // times exp(0), in the sum of the exponentials
  bool no_sinks = false;     // though each head has one
  // q, k, v and the probabilities are rounded to f16: ggml with an f16 KV cache
  bool attention_f16 = false;
  bool cache_f16 = false;  // k and v alone are
  // feed-forward
  Act activation = Act::kSilu;
  bool gelu_f16 = false;   // tanh-GELU of values rounded to f16, and rounded to f16: ggml's table
  bool act_table = false;  // any activation so
  double gate_offset = 0, gate_limit = 0;  // of what the activation multiplies: added, and capped
  bool gate_alone = false;                 // nothing is multiplied
  // experts: how many, how many a token uses, and how their weights are made
  int64_t n_experts = 0, n_experts_used = 0;
  bool softmax_of_chosen = false, normalised_experts = false;
  double expert_scale = 1;
  int64_t expert_rank = 0;                  // of the first that is chosen; 0: the largest logit's
  int64_t exchanged_experts[2] = {-1, -1};  // each computed with the other's matrix
  bool equal_experts = false;               // all of weight one
  bool no_shared_gate = false;
  // what is added to the residual stream; the logits
  double residual_scale = 1, logit_scale = 1, logit_cap = 0;

  // `long_rope`: of LongRoPE the long factors count.
  static OpConfig Declare(const HyperParameters& p, ActQuant act_quant, bool kv_f16, bool long_rope = false);
  // What holds in one layer: its window and its rotation.
  OpConfig Of(const HyperParameters& p, int64_t layer) const;
};

// `units`, where not null, gets for each output value the unit of its rounding bound
// (docs/numerics.md, "Units"): what float32 rounding of each term and partial sum may move it by,
// over the unit roundoff.

// y = x / sqrt(mean(x^2) + eps) * weight (Zhang, Sennrich 2019, eq. 4), over rows of weight.size()
// values; centred: of x less its mean (Ba et al. 2016, eq. 4). `bias`: added; may be empty.
Rows Norm(const Rows& x, std::span<const float> weight, std::span<const float> bias, const OpConfig& c,
          Rows* units);

// y = x W^T * scale, x through the activation quantiser of the scheme (BitNet b1.58, "BitLinear";
// ggml block formats). Units: sqrt(sum of squares of the partial sums).
Result<Rows> Product(const Rows& x, const WeightView& w, double scale, ActScheme scheme, const OpConfig& c,
                     ThreadPool& pool, Rows* units);
// Adds a bias to each row of a product. Its sum is rounded once more.
void AddBias(std::span<const float> bias, Rows* y, Rows* units);

// Rotates pairs of each head by position * base^(-2i/dims) (Su et al. 2021, eq. 15). x: (n, heads *
// head_dim).
Rows Rope(const Rows& x, int64_t first_position, const OpConfig& c, Rows* units);

// q.k / sqrt(head_dim) or by another scale, capped (Gemma Team 2024, "Gemma 2", section 2.2), -inf
// where the causal mask or the window hides. q: rows of first_position...; k: all positions from 0.
// Returns (n, n_heads * k.n).
Rows Scores(const Rows& q, const Rows& k, int64_t first_position, const OpConfig& c, Rows* units);
// Softmax over each head's run of `positions` values; 0 where the score is -inf. `sinks`: a logit of
// each head that takes part and is dropped (openai/gpt-oss, torch/model.py, sdpa); may be empty.
Rows Softmax(const Rows& scores, int64_t positions, std::span<const float> sinks, const OpConfig& c,
             Rows* units);
// Sum over positions of probability * v. Returns (n, n_heads * head_dim).
Rows Context(const Rows& probabilities, const Rows& v, const OpConfig& c, Rows* units);

Rows Activate(const Rows& gate, const OpConfig& c, Rows* units);
// a * b, b capped and offset where the model does that.
Rows Multiply(const Rows& a, const Rows& b, const OpConfig& c, Rows* units);
// a * scale + b.
Rows AddScaled(const Rows& a, const Rows& b, double scale, Rows* units);
// Rows times the sigmoid of one value each: the shared expert (Qwen Team 2024, "Qwen1.5-MoE").
Rows GateShared(const Rows& down, const Rows& gate, const OpConfig& c, Rows* units);

// The ids of the largest logits of each row, largest first, of equal ones the lowest. An id's unit is
// how far off it may be where logits lie within rounding of each other.
Rows ChooseExperts(const Rows& logits, const OpConfig& c, Rows* units);
// softmax(logits) at the chosen ids (Shazeer et al. 2017, eq. 3 to 5), before the choice or of it
// alone, normalised and scaled as declared.
Result<Rows> WeighExperts(const Rows& logits, const Rows& ids, const OpConfig& c, Rows* units);
// The sum of each token's experts' outputs, each times its weight.
Rows MixExperts(const Rows& down, const Rows& weights, Rows* units);

// Scales and caps logits.
void FinishLogits(const OpConfig& c, Rows* y, Rows* units);

}  // namespace pb::oracle

#endif  // PARITYBIT_ORACLE_OPS_H_
