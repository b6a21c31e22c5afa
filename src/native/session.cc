// Forward(): embeddings, layers, logits; tracepoints shown and overwritten between them.
#include "native/session.h"

#include <algorithm>

#include "base/random.h"

namespace pb::native {
namespace {

constexpr int64_t kLogitsRows = 64;  // rows of logits computed and handed over at once

pb_point PointOf(pb_stage stage, int32_t layer, const TokenRows& span) {
  const char* name = pb_vocabulary[stage].name;
  return {sizeof(pb_point), stage, layer, static_cast<int32_t>(span.first), 0, name, name};
}

}  // namespace

Session::Buffers::Buffers(const HyperParameters& h, int64_t n) {
  for (auto* p : {&x, &residual, &norm, &in_norm, &out, &post}) *p = MakeAligned<float>(n * h.d_model);
  for (auto* p : {&q, &q_norm, &q_rope, &context, &sub}) *p = MakeAligned<float>(n * h.n_heads * h.head_dim);
  for (auto* p : {&k, &k_norm, &k_rope, &v}) *p = MakeAligned<float>(n * h.n_kv_heads * h.head_dim);
  if (h.ops.Contains(PB_STAGE_GATE_PROJ))
    for (auto* p : {&gate, &up, &act, &gated, &ffn}) *p = MakeAligned<float>(n * h.d_ff);
  const Experts& e = h.experts;
  if (e.n == 0) return;
  router = MakeAligned<float>(n * e.n);
  for (auto* p : {&ids, &weights}) *p = MakeAligned<float>(n * e.n_used);
  for (auto* p : {&expert_gate, &expert_up, &expert_act, &expert_gated})
    *p = MakeAligned<float>(n * e.n_used * e.d_ff);
  expert_down = MakeAligned<float>(n * e.n_used * h.d_model);
  for (auto* p : {&expert_sum, &shared, &ffn_out}) *p = MakeAligned<float>(n * h.d_model);
  shared_gate = MakeAligned<float>(n);
}

Result<std::unique_ptr<Session>> Session::Open(std::shared_ptr<const Weights> weights, const Config& config) {
  const HyperParameters& h = weights->model->params();
  Config c = config;
  if (c.n_ctx == 0) c.n_ctx = h.n_ctx_train > 0 ? std::min(h.n_ctx_train, kDefaultContext) : kDefaultContext;
  c.ubatch = std::min(c.ubatch, c.n_ctx);
  PB_ASSIGN(KvCache cache, KvCache::Create({h.n_layers, h.n_kv_heads, c.n_ctx, h.head_dim}, c.kv_f16));
  return std::unique_ptr<Session>(new Session(std::move(weights), c, std::move(cache)));
}

Session::Session(std::shared_ptr<const Weights> weights, const Config& config, KvCache cache)
    : config_(config),
      weights_(weights),
      pool_(config.threads),
      ops_(std::move(weights), GetKernels(config.isa), pool_,
           DeclaredParams(weights_->model->params(), config)),
      cache_(std::move(cache)),
      buffers_(weights_->model->params(), config.ubatch) {}

pb_tensor Session::Describe(pb_stage stage, const TokenRows& span, float* data) const {
  const int64_t width = ops_.Width(stage, span), heads = stages::RowHeads(stage, ops_.hyper().shape());
  pb_tensor t{sizeof(pb_tensor), PB_F32, 2, {span.n, width, 1, 1}, data, pb_vocabulary[stage].name};
  if (stages::Of(stage).row.n_axes == 2) t.n_dims = 3, t.shape[1] = heads, t.shape[2] = width / heads;
  return t;
}

uint32_t Session::Wanted(const pb_eval& eval, pb_stage stage, int32_t layer, const TokenRows& span) const {
  if (!eval.tap) return 0;
  pb_point point = PointOf(stage, layer, span);
  return eval.tap->want(eval.tap->ctx, &point);
}

void Session::ShowInputs(const pb_eval& eval, pb_stage stage, int32_t layer, const TokenRows& span,
                         std::span<const Input> inputs) {
  std::vector<pb_tensor> tensors;
  std::vector<AlignedArray<float>> loaded;
  for (const Input& in : inputs) {
    if (in.rows) {
      tensors.push_back(Describe(in.stage, span, const_cast<float*>(in.rows)));
      continue;
    }
    TokenRows all{0, span.n_visible()};
    loaded.push_back(MakeAligned<float>(all.n * ops_.Width(in.stage, all)));
    float* rows = loaded.back().get();
    in.stage == PB_STAGE_K_ROPE ? cache_.LoadKeys(ops_.kernels(), layer, all.n, rows)
                                : cache_.LoadValues(ops_.kernels(), layer, all.n, rows);
    tensors.push_back(Describe(in.stage, all, rows));
  }
  pb_point point = PointOf(stage, layer, span);
  eval.tap->inputs(eval.tap->ctx, &point, tensors.data(), tensors.size());
}

Status Session::ShowOutput(const pb_eval& eval, pb_stage stage, int32_t layer, const TokenRows& span,
                           uint32_t wanted, float* out) {
  const bool rounds = stage != PB_STAGE_LOGITS && stage != PB_STAGE_EXPERT_IDS;
  if (config_.noise_seed && rounds) Disturb(stage, layer, span, out);
  if (!(wanted & PB_WANT_OUTPUT)) return {};
  pb_point point = PointOf(stage, layer, span);
  pb_tensor tensor = Describe(stage, span, out);
  if (eval.tap->output(eval.tap->ctx, &point, &tensor) == PB_STOP)
    return Error{Code::kInterrupted, "stopped by the caller"};
  return {};
}

// Random rounding (Monte Carlo arithmetic, Parker 1997): x (1 + r 2^-24), r drawn from -1, 0, 1 by
// seed, point, position, head and element, so that threads and batches do not matter.
void Session::Disturb(pb_stage stage, int32_t layer, const TokenRows& span, float* out) const {
  const bool by_position = stages::kOverPositions.Contains(stage);
  const int64_t width = ops_.Width(stage, span), heads = by_position ? ops_.hyper().n_heads : 1;
  for (int64_t row = 0; row < span.n; row++) {
    for (int64_t head = 0; head < heads; head++) {
      const int64_t position = span.first + row;
      uint64_t key = Random(*config_.noise_seed).Next();
      for (int64_t part : {int64_t{stage}, int64_t{layer}, position, head})
        key = Random(key ^ static_cast<uint64_t>(part)).Next();
      Random random(key);
      float* values = out + row * width + head * (width / heads);
      const int64_t n = by_position ? position + 1 : width;
      for (int64_t i = 0; i < n; i++) {
        double r = static_cast<double>(random.Below(3)) - 1.0;
        values[i] = static_cast<float>(values[i] * (1.0 + r * 0x1p-24));
      }
    }
  }
}

Status Session::Run(const pb_eval& eval, pb_stage stage, int32_t layer, const TokenRows& span,
                    std::initializer_list<Input> inputs, float* out) {
  uint32_t wanted = Wanted(eval, stage, layer, span);
  if (wanted & PB_WANT_INPUTS) ShowInputs(eval, stage, layer, span, {inputs.begin(), inputs.size()});
  const float* rows[2] = {};
  std::transform(inputs.begin(), inputs.end(), rows, [](const Input& in) { return in.rows; });
  PB_TRY(ops_.Compute(stage, layer, span, {rows, inputs.size()}, cache_, layer, out));
  return ShowOutput(eval, stage, layer, span, wanted, out);
}

Status Session::Embed(const pb_eval& eval, const TokenRows& span, int64_t first_token) {
  uint32_t wanted = Wanted(eval, PB_STAGE_EMBEDDINGS, -1, span);
  if (wanted & PB_WANT_INPUTS) ShowInputs(eval, PB_STAGE_EMBEDDINGS, -1, span, {});
  PB_TRY(ops_.Embed({eval.tokens + first_token, static_cast<size_t>(span.n)}, buffers_.x.get()));
  return ShowOutput(eval, PB_STAGE_EMBEDDINGS, -1, span, wanted, buffers_.x.get());
}

// Nobody looks and nothing is disturbed: row by row, so that no (n, n_heads, p) tensor is ever
// held.
Status Session::Attention(const pb_eval& eval, int32_t l, const TokenRows& span) {
  Buffers& b = buffers_;
  const uint32_t wanted = Wanted(eval, PB_STAGE_ATTN_CONTEXT, l, span);
  const bool seen = (Wanted(eval, PB_STAGE_ATTN_SCORES, l, span) |
                     Wanted(eval, PB_STAGE_ATTN_SCORES_SOFTMAX, l, span) | (wanted & PB_WANT_INPUTS)) != 0;
  if (!seen && !config_.noise_seed) {
    ops_.Attention(l, span, b.q_rope.get(), cache_, l, b.context.get());
    return ShowOutput(eval, PB_STAGE_ATTN_CONTEXT, l, span, wanted, b.context.get());
  }
  // (n, n_heads, p)
  auto scores = MakeAligned<float>(span.n * ops_.Width(PB_STAGE_ATTN_SCORES, span));
  // (n, n_heads, p)
  auto weights = MakeAligned<float>(span.n * ops_.Width(PB_STAGE_ATTN_SCORES, span));
  PB_TRY(Run(eval, PB_STAGE_ATTN_SCORES, l, span,
             {{PB_STAGE_Q_ROPE, b.q_rope.get()}, {PB_STAGE_K_ROPE, nullptr}}, scores.get()));
  PB_TRY(Run(eval, PB_STAGE_ATTN_SCORES_SOFTMAX, l, span, {{PB_STAGE_ATTN_SCORES, scores.get()}},
             weights.get()));
  return Run(eval, PB_STAGE_ATTN_CONTEXT, l, span,
             {{PB_STAGE_ATTN_SCORES_SOFTMAX, weights.get()}, {PB_STAGE_V_PROJ, nullptr}}, b.context.get());
}

Status Session::Logits(const pb_eval& eval, const TokenRows& span, int64_t first_token) {
  const HyperParameters& h = ops_.hyper();
  int64_t begin = std::max<int64_t>(0, eval.logits_from - first_token);
  if (begin >= span.n || !eval.logits) return {};
  // (rows, n_vocab)
  auto logits = MakeAligned<float>(std::min(kLogitsRows, span.n - begin) * h.n_vocab);
  for (int64_t row = begin; row < span.n; row += kLogitsRows) {
    TokenRows part{span.first + row, std::min(kLogitsRows, span.n - row)};
    const float* norm = buffers_.norm.get() + row * h.d_model;
    PB_TRY(Run(eval, PB_STAGE_LOGITS, -1, part, {{PB_STAGE_FINAL_NORM, norm}}, logits.get()));
    if (eval.logits(eval.logits_ctx, static_cast<int32_t>(part.first), logits.get(), part.n, h.n_vocab) !=
        0) {
      return Error{Code::kInterrupted, "stopped by the caller"};
    }
  }
  return {};
}

Result<Session::Input> Session::Optional(const Where& at, pb_stage stage, Input input,
                                         AlignedArray<float>& out) {
  if (!ops_.hyper().ops.Contains(stage)) return input;
  PB_TRY(Run(at.eval, stage, at.layer, at.span, {input}, out.get()));
  return Input{stage, out.get()};
}

Result<Session::Input> Session::Dense(const Where& at, const Input& x) {
  Buffers& b = buffers_;
  auto run = [&](pb_stage stage, std::initializer_list<Input> inputs, AlignedArray<float>& out) {
    return Run(at.eval, stage, at.layer, at.span, inputs, out.get());
  };
  PB_ASSIGN(const Input for_gate, Optional(at, PB_STAGE_GATE_IN_NORM, x, b.in_norm));
  PB_TRY(run(PB_STAGE_GATE_PROJ, {for_gate}, b.gate));  // (n, d_ff)
  PB_ASSIGN(const Input for_up, Optional(at, PB_STAGE_UP_IN_NORM, x, b.in_norm));
  PB_TRY(run(PB_STAGE_UP_PROJ, {for_up}, b.up));  // (n, d_ff)
  PB_TRY(run(PB_STAGE_FFN_ACT, {{PB_STAGE_GATE_PROJ, b.gate.get()}}, b.act));
  PB_TRY(run(PB_STAGE_FFN_GATED, {{PB_STAGE_FFN_ACT, b.act.get()}, {PB_STAGE_UP_PROJ, b.up.get()}},
             b.gated));  // (n, d_ff)
  PB_ASSIGN(const Input g, Optional(at, PB_STAGE_FFN_SUB_NORM, {PB_STAGE_FFN_GATED, b.gated.get()}, b.ffn));
  PB_TRY(run(PB_STAGE_DOWN_PROJ, {g}, b.out));  // (n, d_model)
  return Input{PB_STAGE_DOWN_PROJ, b.out.get()};
}

Result<Session::Input> Session::ExpertMixture(const Where& at, const Input& x) {
  Buffers& b = buffers_;
  auto run = [&](pb_stage stage, std::initializer_list<Input> inputs, AlignedArray<float>& out) {
    return Run(at.eval, stage, at.layer, at.span, inputs, out.get());
  };
  const Input logits{PB_STAGE_ROUTER_LOGITS, b.router.get()}, ids{PB_STAGE_EXPERT_IDS, b.ids.get()};
  PB_TRY(run(PB_STAGE_ROUTER_LOGITS, {x}, b.router));              // (n, n_experts)
  PB_TRY(run(PB_STAGE_EXPERT_IDS, {logits}, b.ids));               // (n, n_experts_used)
  PB_TRY(run(PB_STAGE_EXPERT_WEIGHTS, {logits, ids}, b.weights));  // (n, n_experts_used)
  PB_TRY(run(PB_STAGE_EXPERT_GATE, {x, ids}, b.expert_gate));      // (n, n_experts_used, d_ff_expert)
  PB_TRY(run(PB_STAGE_EXPERT_UP, {x, ids}, b.expert_up));          // (n, n_experts_used, d_ff_expert)
  PB_TRY(run(PB_STAGE_EXPERT_ACT, {{PB_STAGE_EXPERT_GATE, b.expert_gate.get()}}, b.expert_act));
  PB_TRY(run(PB_STAGE_EXPERT_GATED,
             {{PB_STAGE_EXPERT_ACT, b.expert_act.get()}, {PB_STAGE_EXPERT_UP, b.expert_up.get()}},
             b.expert_gated));
  PB_TRY(run(PB_STAGE_EXPERT_DOWN, {{PB_STAGE_EXPERT_GATED, b.expert_gated.get()}, ids},
             b.expert_down));  // (n, n_experts_used, d_model)
  PB_TRY(run(PB_STAGE_EXPERT_SUM,
             {{PB_STAGE_EXPERT_DOWN, b.expert_down.get()}, {PB_STAGE_EXPERT_WEIGHTS, b.weights.get()}},
             b.expert_sum));  // (n, d_model)
  return Input{PB_STAGE_EXPERT_SUM, b.expert_sum.get()};
}

Result<Session::Input> Session::FeedForward(const Where& at, const Input& x) {
  const stages::Set ops = ops_.hyper().ops;
  if (!ops.Contains(PB_STAGE_EXPERT_SUM)) return Dense(at, x);
  PB_ASSIGN(const Input experts, ExpertMixture(at, x));
  if (!ops.Contains(PB_STAGE_SHARED_OUT)) return experts;
  PB_ASSIGN(const Input shared, Dense(at, x));
  Buffers& b = buffers_;
  auto run = [&](pb_stage stage, std::initializer_list<Input> inputs, AlignedArray<float>& out) {
    return Run(at.eval, stage, at.layer, at.span, inputs, out.get());
  };
  PB_TRY(run(PB_STAGE_SHARED_GATE, {x}, b.shared_gate));  // (n, 1)
  PB_TRY(run(PB_STAGE_SHARED_OUT, {shared, {PB_STAGE_SHARED_GATE, b.shared_gate.get()}}, b.shared));
  PB_TRY(run(PB_STAGE_FFN_OUT, {experts, {PB_STAGE_SHARED_OUT, b.shared.get()}}, b.ffn_out));
  return Input{PB_STAGE_FFN_OUT, b.ffn_out.get()};
}

// The whole model, once: Llama; Qwen 3 where queries and keys have norms; BitNet where there are
// sub-norms; Gemma where there are norms behind attention and FFN, and OLMo 2 where those alone are.
// n rows of one sequence from position span.first on.
Status Session::Forward(const pb_eval& eval, const TokenRows& span, int64_t first_token) {
  Buffers& b = buffers_;
  auto run = [&](pb_stage stage, int32_t layer, std::initializer_list<Input> inputs,
                 AlignedArray<float>& out) { return Run(eval, stage, layer, span, inputs, out.get()); };
  PB_TRY(Embed(eval, span, first_token));  // x (n, d_model)
  Input x{PB_STAGE_EMBEDDINGS, b.x.get()};
  for (int32_t l = 0; l < ops_.hyper().n_layers; l++) {
    const Where here{eval, span, l};
    PB_ASSIGN(const Input h, Optional(here, PB_STAGE_ATTN_NORM, x, b.norm));  // (n, d_model)
    PB_ASSIGN(const Input for_q, Optional(here, PB_STAGE_Q_IN_NORM, h, b.in_norm));
    PB_TRY(run(PB_STAGE_Q_PROJ, l, {for_q}, b.q));  // (n, n_heads, head_dim)
    PB_ASSIGN(const Input for_k, Optional(here, PB_STAGE_K_IN_NORM, h, b.in_norm));
    PB_TRY(run(PB_STAGE_K_PROJ, l, {for_k}, b.k));  // (n, n_kv_heads, head_dim)
    PB_ASSIGN(const Input for_v, Optional(here, PB_STAGE_V_IN_NORM, h, b.in_norm));
    PB_TRY(run(PB_STAGE_V_PROJ, l, {for_v}, b.v));  // (n, n_kv_heads, head_dim)
    PB_ASSIGN(const Input q, Optional(here, PB_STAGE_Q_NORM, {PB_STAGE_Q_PROJ, b.q.get()}, b.q_norm));
    PB_ASSIGN(const Input k, Optional(here, PB_STAGE_K_NORM, {PB_STAGE_K_PROJ, b.k.get()}, b.k_norm));
    PB_TRY(run(PB_STAGE_Q_ROPE, l, {q}, b.q_rope));  // (n, n_heads, head_dim)
    PB_TRY(run(PB_STAGE_K_ROPE, l, {k}, b.k_rope));  // (n, n_kv_heads, head_dim)
    cache_.StoreKeys(ops_.kernels(), l, span.first, span.n, b.k_rope.get());
    cache_.StoreValues(ops_.kernels(), l, span.first, span.n, b.v.get());
    PB_TRY(Attention(eval, l, span));  // (n, n_heads, head_dim)
    PB_ASSIGN(const Input a,
              Optional(here, PB_STAGE_ATTN_SUB_NORM, {PB_STAGE_ATTN_CONTEXT, b.context.get()}, b.sub));
    PB_TRY(run(PB_STAGE_ATTN_OUT, l, {a}, b.out));  // (n, d_model)
    PB_ASSIGN(const Input o,
              Optional(here, PB_STAGE_ATTN_POST_NORM, {PB_STAGE_ATTN_OUT, b.out.get()}, b.post));
    PB_TRY(run(PB_STAGE_ATTN_RESIDUAL, l, {o, x}, b.residual));  // (n, d_model)
    const Input r{PB_STAGE_ATTN_RESIDUAL, b.residual.get()};
    const bool parallel = !ops_.hyper().ops.Contains(PB_STAGE_FFN_NORM) && h.stage == PB_STAGE_ATTN_NORM;
    PB_ASSIGN(const Input f, Optional(here, PB_STAGE_FFN_NORM, parallel ? h : r, b.norm));  // (n, d_model)
    PB_ASSIGN(const Input y, FeedForward(here, f));                                         // (n, d_model)
    PB_ASSIGN(const Input d, Optional(here, PB_STAGE_FFN_POST_NORM, y, b.post));
    PB_TRY(run(PB_STAGE_LAYER_OUT, l, {d, r}, b.x));
    x = {PB_STAGE_LAYER_OUT, b.x.get()};  // (n, d_model)
  }
  PB_TRY(run(PB_STAGE_FINAL_NORM, -1, {x}, b.norm));  // (n, d_model)
  return Logits(eval, span, first_token);
}

Status Session::Eval(const pb_eval& eval) {
  if (eval.n_tokens <= 0 || !eval.tokens) return MakeError(Code::kUsage, "eval of no tokens");
  if (eval.first_position != n_positions_) {
    return MakeError(Code::kUsage, "eval at position {}, the session holds {}", eval.first_position,
                     n_positions_);
  }
  PB_TRY(ops_.hyper().CheckLength(n_positions_ + eval.n_tokens));
  if (n_positions_ + eval.n_tokens > n_ctx()) {
    return MakeError(Code::kUsage, "{} positions do not fit n_ctx={}: set a larger one",
                     n_positions_ + eval.n_tokens, n_ctx());
  }
  for (int64_t t = 0; t < eval.n_tokens; t += config_.ubatch) {
    TokenRows span{n_positions_ + t, std::min<int64_t>(config_.ubatch, eval.n_tokens - t)};
    PB_TRY(Forward(eval, span, t));
  }
  n_positions_ += eval.n_tokens;
  return {};
}

Status Session::Reset(int64_t n_keep) {
  if (n_keep < 0 || n_keep > n_positions_) {
    return MakeError(Code::kUsage, "reset to {} positions, the session holds {}", n_keep, n_positions_);
  }
  n_positions_ = n_keep;
  return {};
}

}  // namespace pb::native
