// The forward pass in fp64: each op by its stage, alone and in order.
#include "oracle/forward.h"

#include <algorithm>
#include <cmath>

namespace pb::oracle {
namespace {

void Append(Rows& all, const Rows& more) {
  all.width = more.width;
  all.n += more.n;
  all.v.insert(all.v.end(), more.v.begin(), more.v.end());
}

// The inputs that an op takes here and the width of each; scores have any number of positions.
Status CheckInputs(pb_stage stage, std::span<const Rows* const> inputs, const HyperParameters& p) {
  const char* name = stages::Of(stage).name;
  const std::vector<stages::Input> reads = stages::InputsOf(stage, p.ops);
  if (inputs.size() != reads.size()) {
    return MakeError(Code::kUsage, "{}: takes {} inputs, {} were given", name, reads.size(), inputs.size());
  }
  // Context: as many probabilities a head as there are values; softmax: whatever there is.
  const int64_t positions = inputs.size() == 2 ? inputs[1]->n : inputs[0]->width / p.n_heads;
  for (size_t i = 0; i < reads.size(); i++) {
    const int64_t width = stages::RowWidth(reads[i].stage, p.shape(), positions);
    if (inputs[i]->width != width) {
      return MakeError(Code::kUsage, "{}: input {} has rows of {} values, {} are expected", name, i,
                       inputs[i]->width, width);
    }
  }
  return {};
}

}  // namespace

Result<Rows> Ops::Embeddings(std::span<const int32_t> tokens) const {
  const WeightView& table = model_->token_embedding();
  Rows x(static_cast<int64_t>(tokens.size()), table.n_columns);
  std::vector<float> row(static_cast<size_t>(table.n_columns));
  for (int64_t i = 0; i < x.n; i++) {
    const int32_t id = tokens[static_cast<size_t>(i)];
    if (id < 0 || id >= table.n_rows)
      return MakeError(Code::kUsage, "token id {}: the vocabulary has {}", id, table.n_rows);
    DecodeRow(table, id, row.data());
    // Scaled in float32, as it is stored.
    std::transform(row.begin(), row.end(), x.row(i),
                   [&](float v) { return double(v * model_->params().embedding_scale); });
  }
  return x;
}

Ops::Operand Ops::OperandOf(pb_stage stage, int32_t layer, const OpConfig& c) const {
  auto operand = [&](const WeightView& w, float scale) {
    return Operand{&w, scale, c.act_quant.SchemeFor(w.type, w.n_rows, PlaceOf(stage)), nullptr};
  };
  if (stage == PB_STAGE_LOGITS)
    return operand(c.output_is_embeddings ? model_->token_embedding() : model_->output(), 1);
  if (!stages::kProducts.Contains(stage)) return {};
  const StageWeights& w = model_->weights(stage, layer);
  Operand with_bias = operand(w.matrix, w.scale);
  with_bias.bias = &w.bias;
  return with_bias;
}

Result<Rows> Ops::Projection(pb_stage stage, int32_t layer, const Rows& x, const OpConfig& c, Rows* units) {
  const Operand w = OperandOf(stage, layer, c);
  PB_ASSIGN(Rows y, Product(x, *w.view, w.scale, w.scheme, c, pool_, units));
  if (w.bias && !w.bias->empty() && !c.no_bias) AddBias(*w.bias, &y, units);
  if (stage == PB_STAGE_LOGITS) FinishLogits(c, &y, units);
  return y;
}

// One expert after the other: the rows that use it, as a product of their own.
Result<Rows> Ops::ExpertProjection(pb_stage stage, int32_t layer, const Rows& x, const Rows& ids,
                                   const OpConfig& c, Rows* units) {
  const StageWeights& w = model_->weights(stage, layer);
  const int64_t n_used = c.n_experts_used, n_parts = ids.n * n_used;
  const bool own_rows = stage == PB_STAGE_EXPERT_DOWN;  // each expert has its own input
  const int64_t width = w.matrix.n_rows / c.n_experts, in_width = w.matrix.n_columns;
  Rows y(ids.n, n_used * width);
  if (units) *units = Rows(y.n, y.width);
  std::vector<std::vector<int64_t>> parts(static_cast<size_t>(c.n_experts));
  for (int64_t i = 0; i < n_parts; i++) {
    const double id = ids.v[static_cast<size_t>(i)];
    if (!(id >= 0 && id < static_cast<double>(c.n_experts) && id == std::floor(id)))
      return MakeError(Code::kUsage, "{}: expert {} of {}", stages::Of(stage).name, id, c.n_experts);
    parts[static_cast<size_t>(id)].push_back(i);
  }
  for (int64_t expert = 0; expert < c.n_experts; expert++) {
    const auto& own = parts[static_cast<size_t>(expert)];
    if (own.empty()) continue;
    Rows rows(static_cast<int64_t>(own.size()), in_width), row_units;
    for (int64_t i = 0; i < rows.n; i++) {
      const int64_t at = own[static_cast<size_t>(i)];
      std::copy_n(x.v.data() + (own_rows ? at : at / n_used) * in_width, in_width, rows.row(i));
    }
    const int64_t other = expert == c.exchanged_experts[0]   ? c.exchanged_experts[1]
                          : expert == c.exchanged_experts[1] ? c.exchanged_experts[0]
                                                             : expert;
    const WeightView matrix = w.MatrixOf(other);
    const ActScheme scheme = c.act_quant.SchemeFor(matrix.type, matrix.n_rows, PlaceOf(stage));
    PB_ASSIGN(Rows made, Product(rows, matrix, w.scale, scheme, c, pool_, units ? &row_units : nullptr));
    if (!w.bias.empty() && !c.no_bias) AddBias(w.BiasOf(other), &made, units ? &row_units : nullptr);
    for (int64_t i = 0; i < rows.n; i++) {
      const int64_t at = own[static_cast<size_t>(i)] * width;
      std::copy_n(made.row(i), width, y.v.data() + at);
      if (units) std::copy_n(row_units.row(i), width, units->v.data() + at);
    }
  }
  return y;
}

Result<std::vector<Activations>> Ops::Codes(pb_stage stage, int32_t layer, const Rows& x,
                                            const OpConfig& c) const {
  const Operand w = OperandOf(stage, layer, c);
  if (!w.view)
    return MakeError(Code::kUnsupported, "{}: not a product, so its input has no codes",
                     stages::Of(stage).name);
  if (!IsIntegerScheme(w.scheme))
    return MakeError(Code::kUnsupported, "{}: its input is not quantised (act.quant {})",
                     stages::Of(stage).name, ActSchemeName(w.scheme));
  std::vector<Activations> rows;
  for (int64_t i = 0; i < x.n; i++) {
    PB_ASSIGN(Activations a, Quantise({x.row(i), static_cast<size_t>(x.width)}, w.scheme, c.quantiser));
    rows.push_back(std::move(a));
  }
  return rows;
}

Result<Rows> Ops::Compute(pb_stage stage, int32_t layer, int64_t first_position,
                          std::span<const Rows* const> in, const OpConfig& config, Rows* units) {
  const HyperParameters& p = model_->params();
  const OpConfig c = config.Of(p, layer);
  if (stages::Of(stage).per_layer && (layer < 0 || layer >= p.n_layers)) {
    return MakeError(Code::kUsage, "{}: there is no layer {}", stages::Of(stage).name, layer);
  }
  if (!p.ops.Contains(stage) || stage == PB_STAGE_EMBEDDINGS)
    return MakeError(Code::kUnsupported, "{}: not an op of this architecture", stages::Of(stage).name);
  PB_TRY(CheckInputs(stage, in, p));
  switch (stages::Of(stage).group) {
    case stages::Group::kNorm:
      return Norm(*in[0], model_->weights(stage, layer).vector, model_->weights(stage, layer).bias, c, units);
    case stages::Group::kProduct:
      return Projection(stage, layer, *in[0], c, units);
    case stages::Group::kRotary:
      return Rope(*in[0], first_position, c, units);
    case stages::Group::kScores:
      return Scores(*in[0], *in[1], first_position, c, units);
    case stages::Group::kSoftmax:
      return Softmax(*in[0], in[0]->width / p.n_heads, model_->weights(stage, layer).sinks, c, units);
    case stages::Group::kContext:
      return Context(*in[0], *in[1], c, units);
    case stages::Group::kActivation:
      return Activate(*in[0], c, units);
    case stages::Group::kGate:
      return Multiply(*in[0], *in[1], c, units);
    case stages::Group::kSum:
      return AddScaled(*in[0], *in[1], stage == PB_STAGE_FFN_OUT ? 1 : c.residual_scale, units);
    case stages::Group::kSelect:
      return ChooseExperts(*in[0], c, units);
    case stages::Group::kRouting:
      return WeighExperts(*in[0], *in[1], c, units);
    case stages::Group::kExpertProduct:
      return ExpertProjection(stage, layer, *in[0], *in[1], c, units);
    case stages::Group::kMixture:
      return MixExperts(*in[0], *in[1], units);
    case stages::Group::kShared:
      return GateShared(*in[0], *in[1], c, units);
    case stages::Group::kEmbedding:
      break;
  }
  PB_CHECK(false);
}

void Sequence::Truncate(int64_t n_keep) {
  n_positions_ = std::min(n_positions_, std::max<int64_t>(n_keep, 0));
  for (auto* cache : {&keys_, &values_}) {
    for (Rows& r : *cache) {
      r.n = n_positions_;
      r.v.resize(static_cast<size_t>(r.n * r.width));
    }
  }
}

Result<Rows> Sequence::Forward(std::span<const int32_t> tokens, const StepTap& tap) {
  const HyperParameters& p = ops_.model().params();
  const int64_t first = n_positions_;
  PB_TRY(p.CheckLength(first + static_cast<int64_t>(tokens.size())));
  // Computes one op on what came before it and shows it.
  auto step = [&](pb_stage stage, int32_t layer, std::initializer_list<const Rows*> inputs) -> Result<Rows> {
    PB_ASSIGN(Rows y,
              ops_.Compute(stage, layer, first, {inputs.begin(), inputs.size()}, ops_.config(), nullptr));
    if (tap) PB_TRY(tap(stage, layer, y));
    return y;
  };

  // An op that only some architectures have: where this one has it not, its input stays as it is.
  auto optional = [&](pb_stage stage, int32_t layer, Rows x) -> Result<Rows> {
    if (!p.ops.Contains(stage)) return x;
    return step(stage, layer, {&x});
  };

  // What all tokens pass through: (n, d_model) to (n, d_model).
  auto dense = [&](int32_t l, const Rows& f) -> Result<Rows> {
    PB_ASSIGN(const Rows for_gate, optional(PB_STAGE_GATE_IN_NORM, l, f));
    PB_ASSIGN(const Rows for_up, optional(PB_STAGE_UP_IN_NORM, l, f));
    PB_ASSIGN(Rows gate, step(PB_STAGE_GATE_PROJ, l, {&for_gate}));  // (n, d_ff)
    PB_ASSIGN(Rows up, step(PB_STAGE_UP_PROJ, l, {&for_up}));
    PB_ASSIGN(Rows act, step(PB_STAGE_FFN_ACT, l, {&gate}));
    PB_ASSIGN(Rows gated, step(PB_STAGE_FFN_GATED, l, {&act, &up}));
    PB_ASSIGN(gated, optional(PB_STAGE_FFN_SUB_NORM, l, gated));
    return step(PB_STAGE_DOWN_PROJ, l, {&gated});
  };
  auto experts = [&](int32_t l, const Rows& f) -> Result<Rows> {
    PB_ASSIGN(Rows logits, step(PB_STAGE_ROUTER_LOGITS, l, {&f}));  // (n, n_experts)
    PB_ASSIGN(Rows ids, step(PB_STAGE_EXPERT_IDS, l, {&logits}));   // (n, n_experts_used)
    PB_ASSIGN(Rows weights, step(PB_STAGE_EXPERT_WEIGHTS, l, {&logits, &ids}));
    PB_ASSIGN(Rows gate, step(PB_STAGE_EXPERT_GATE, l, {&f, &ids}));  // (n, n_experts_used * d_ff_expert)
    PB_ASSIGN(Rows up, step(PB_STAGE_EXPERT_UP, l, {&f, &ids}));
    PB_ASSIGN(Rows act, step(PB_STAGE_EXPERT_ACT, l, {&gate}));
    PB_ASSIGN(Rows gated, step(PB_STAGE_EXPERT_GATED, l, {&act, &up}));
    PB_ASSIGN(Rows down, step(PB_STAGE_EXPERT_DOWN, l, {&gated, &ids}));  // (n, n_experts_used * d_model)
    return step(PB_STAGE_EXPERT_SUM, l, {&down, &weights});               // (n, d_model)
  };
  auto feed_forward = [&](int32_t l, const Rows& f) -> Result<Rows> {
    if (!p.ops.Contains(PB_STAGE_EXPERT_SUM)) return dense(l, f);
    PB_ASSIGN(Rows sum, experts(l, f));
    if (!p.ops.Contains(PB_STAGE_SHARED_OUT)) return sum;
    PB_ASSIGN(Rows down, dense(l, f));
    PB_ASSIGN(Rows gate, step(PB_STAGE_SHARED_GATE, l, {&f}));  // (n, 1)
    PB_ASSIGN(Rows shared, step(PB_STAGE_SHARED_OUT, l, {&down, &gate}));
    return step(PB_STAGE_FFN_OUT, l, {&sum, &shared});
  };

  PB_ASSIGN(Rows x, ops_.Embeddings(tokens));  // (n, d_model)
  if (tap) PB_TRY(tap(PB_STAGE_EMBEDDINGS, -1, x));
  for (int32_t l = 0; l < p.n_layers; l++) {
    Rows& keys = keys_[static_cast<size_t>(l)];
    Rows& values = values_[static_cast<size_t>(l)];
    PB_ASSIGN(Rows h, optional(PB_STAGE_ATTN_NORM, l, x));  // (n, d_model)
    PB_ASSIGN(const Rows for_q, optional(PB_STAGE_Q_IN_NORM, l, h));
    PB_ASSIGN(const Rows for_k, optional(PB_STAGE_K_IN_NORM, l, h));
    PB_ASSIGN(const Rows for_v, optional(PB_STAGE_V_IN_NORM, l, h));
    PB_ASSIGN(Rows q, step(PB_STAGE_Q_PROJ, l, {&for_q}));  // (n, n_heads * head_dim)
    PB_ASSIGN(Rows k, step(PB_STAGE_K_PROJ, l, {&for_k}));  // (n, n_kv_heads * head_dim)
    PB_ASSIGN(Rows v, step(PB_STAGE_V_PROJ, l, {&for_v}));  // (n, n_kv_heads * head_dim)
    PB_ASSIGN(q, optional(PB_STAGE_Q_NORM, l, q));
    PB_ASSIGN(k, optional(PB_STAGE_K_NORM, l, k));
    PB_ASSIGN(Rows q_rope, step(PB_STAGE_Q_ROPE, l, {&q}));
    PB_ASSIGN(Rows k_rope, step(PB_STAGE_K_ROPE, l, {&k}));
    Append(keys, k_rope);
    Append(values, v);
    // (n, n_heads * positions)
    PB_ASSIGN(Rows scores, step(PB_STAGE_ATTN_SCORES, l, {&q_rope, &keys}));
    PB_ASSIGN(Rows weights, step(PB_STAGE_ATTN_SCORES_SOFTMAX, l, {&scores}));
    // (n, n_heads * head_dim)
    PB_ASSIGN(Rows context, step(PB_STAGE_ATTN_CONTEXT, l, {&weights, &values}));
    PB_ASSIGN(context, optional(PB_STAGE_ATTN_SUB_NORM, l, context));
    PB_ASSIGN(Rows out, step(PB_STAGE_ATTN_OUT, l, {&context}));  // (n, d_model)
    PB_ASSIGN(out, optional(PB_STAGE_ATTN_POST_NORM, l, out));
    PB_ASSIGN(Rows residual, step(PB_STAGE_ATTN_RESIDUAL, l, {&out, &x}));
    const bool parallel = !p.ops.Contains(PB_STAGE_FFN_NORM) && p.ops.Contains(PB_STAGE_ATTN_NORM);
    PB_ASSIGN(Rows f, optional(PB_STAGE_FFN_NORM, l, parallel ? h : residual));
    PB_ASSIGN(Rows down, feed_forward(l, f));
    PB_ASSIGN(down, optional(PB_STAGE_FFN_POST_NORM, l, down));
    PB_ASSIGN(x, step(PB_STAGE_LAYER_OUT, l, {&down, &residual}));
  }
  PB_ASSIGN(Rows final_norm, step(PB_STAGE_FINAL_NORM, -1, {&x}));
  n_positions_ += static_cast<int64_t>(tokens.size());
  return step(PB_STAGE_LOGITS, -1, {&final_norm});
}

}  // namespace pb::oracle
