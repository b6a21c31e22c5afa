// The arbiter: a model evaluated in fp64, op by op, each op also on inputs given from outside
// (replay).
#ifndef PARITYBIT_ORACLE_FORWARD_H_
#define PARITYBIT_ORACLE_FORWARD_H_

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/model.h"
#include "oracle/ops.h"
#include "stages/stages.h"

namespace pb::oracle {

// Sees each op's output; may change the values in place (lock-step, injection). Its error ends the
// evaluation.
using StepTap = std::function<Status(pb_stage stage, int32_t layer, Rows& output)>;

// Computes ops of one model. Immutable but for the thread pool; one caller at a time.
class Ops {
 public:
  Ops(std::shared_ptr<const Model> model, const OpConfig& config, int n_threads)
      : model_(std::move(model)), config_(config), pool_(n_threads) {}

  const Model& model() const { return *model_; }
  const OpConfig& config() const { return config_; }

  // Rows of the token embedding.
  Result<Rows> Embeddings(std::span<const int32_t> tokens) const;
  // One op of the vocabulary on given inputs, in the order of the vocabulary's inputs column;
  // attn_scores and attn_context take keys and values of all positions from 0. `config` is the
  // declared one or a variation of it. Wrong shapes are kUsage. units: as in ops.h, may be null.
  Result<Rows> Compute(pb_stage stage, int32_t layer, int64_t first_position,
                       std::span<const Rows* const> inputs, const OpConfig& config, Rows* units);
  // What a product makes of its input rows, one each. kUnsupported: the op is no product, or makes
  // no codes.
  Result<std::vector<Activations>> Codes(pb_stage stage, int32_t layer, const Rows& x,
                                         const OpConfig& config) const;

 private:
  // A product's matrix, the factor beside it, and the scheme its input goes through; no view: no
  // product.
  struct Operand {
    const WeightView* view = nullptr;
    double scale = 1;
    ActScheme scheme = ActScheme::kNone;
    const std::vector<float>* bias = nullptr;  // none: null, or empty
  };
  Operand OperandOf(pb_stage stage, int32_t layer, const OpConfig& config) const;
  // Each token's row, or its part of each expert, times the matrices of the experts that it uses.
  Result<Rows> ExpertProjection(pb_stage stage, int32_t layer, const Rows& x, const Rows& ids,
                                const OpConfig& config, Rows* units);
  Result<Rows> Projection(pb_stage stage, int32_t layer, const Rows& x, const OpConfig& config, Rows* units);
  std::shared_ptr<const Model> model_;
  OpConfig config_;
  ThreadPool pool_;
};

// A sequence under evaluation: the keys and values of every layer so far.
class Sequence {
 public:
  explicit Sequence(Ops& ops)
      : ops_(ops), keys_(static_cast<size_t>(ops.model().params().n_layers)), values_(keys_) {}

  int64_t n_positions() const { return n_positions_; }
  void Truncate(int64_t n_keep);
  // Evaluates tokens at the next positions; returns the logits (n, n_vocab).
  Result<Rows> Forward(std::span<const int32_t> tokens, const StepTap& tap);

 private:
  Ops& ops_;
  std::vector<Rows> keys_, values_;  // per layer, (positions, n_kv_heads * head_dim)
  int64_t n_positions_ = 0;
};

// Applies "key=value" of a hypothesis to a config: kUnsupported with the key named when there is no
// such variation. Keys: ffn.activation rope.pairing rope.base rope.scale rope.offset rope.dims
// rope.pair_shift rope.pairs_left norm.eps_outside norm.dropped norm.eps norm.weight_offset norm.repeat act.quant quant.rounding quant.clamp quant.block
// product.factor drop.columns drop.rows weight.transposed weight.order weight.offset weight.minimum
// weight.cell
// norm.centred norm.unweighted output.tied attn.scale attn.rounded mask.shift kv.shift kv.map kv.own
// softmax.scale softmax.sink softmax.sinks rope.attention_factor rope.yarn ffn.gate_offset
// ffn.gate_limit router.softmax router.normalise router.equal router.rank experts.exchanged shared.gate.
Result<OpConfig> Vary(const OpConfig& declared, std::string_view variation);

}  // namespace pb::oracle

#endif  // PARITYBIT_ORACLE_FORWARD_H_
