/* The tracepoint vocabulary: one sorted table of every point an engine can show, in dependency order. C11-clean.
 *
 * A tracepoint is stage x layer x step x token positions. Tensors are canonical: rows are tokens, row-major, float32, so
 * that a prefill of T rows and T decode steps of one row line up row by row. n is the number of token rows, p the number
 * of positions a row can see (all earlier ones and its own), d_model, d_ff, n_heads, n_kv_heads, head_dim as usual. Of
 * models with experts: n_experts, of which a token uses n_experts_used, each of width d_ff_expert. Ids of experts are
 * whole numbers in float32.
 */
#ifndef PARITYBIT_ABI_VOCABULARY_H_
#define PARITYBIT_ABI_VOCABULARY_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum pb_stage {
  PB_STAGE_UNMAPPED = -1,
  PB_STAGE_EMBEDDINGS = 0,
  PB_STAGE_ATTN_NORM,
  PB_STAGE_Q_IN_NORM,
  PB_STAGE_K_IN_NORM,
  PB_STAGE_V_IN_NORM,
  PB_STAGE_Q_PROJ,
  PB_STAGE_K_PROJ,
  PB_STAGE_V_PROJ,
  PB_STAGE_Q_NORM,
  PB_STAGE_K_NORM,
  PB_STAGE_Q_ROPE,
  PB_STAGE_K_ROPE,
  PB_STAGE_ATTN_SCORES,
  PB_STAGE_ATTN_SCORES_SOFTMAX,
  PB_STAGE_ATTN_CONTEXT,
  PB_STAGE_ATTN_SUB_NORM,
  PB_STAGE_ATTN_OUT,
  PB_STAGE_ATTN_POST_NORM,
  PB_STAGE_ATTN_RESIDUAL,
  PB_STAGE_FFN_NORM,
  PB_STAGE_ROUTER_LOGITS,
  PB_STAGE_EXPERT_IDS,
  PB_STAGE_EXPERT_WEIGHTS,
  PB_STAGE_EXPERT_GATE,
  PB_STAGE_EXPERT_UP,
  PB_STAGE_EXPERT_ACT,
  PB_STAGE_EXPERT_GATED,
  PB_STAGE_EXPERT_DOWN,
  PB_STAGE_EXPERT_SUM,
  PB_STAGE_GATE_IN_NORM,
  PB_STAGE_UP_IN_NORM,
  PB_STAGE_GATE_PROJ,
  PB_STAGE_UP_PROJ,
  PB_STAGE_FFN_ACT,
  PB_STAGE_FFN_GATED,
  PB_STAGE_FFN_SUB_NORM,
  PB_STAGE_DOWN_PROJ,
  PB_STAGE_SHARED_GATE,
  PB_STAGE_SHARED_OUT,
  PB_STAGE_FFN_OUT,
  PB_STAGE_FFN_POST_NORM,
  PB_STAGE_LAYER_OUT,
  PB_STAGE_FINAL_NORM,
  PB_STAGE_LOGITS,
  PB_STAGE_COUNT
} pb_stage;

typedef struct pb_stage_info {
  pb_stage stage;
  const char* name;    /* as in traces and globs */
  int level;           /* place in the dependency order; stages of one level are siblings */
  int per_layer;       /* 1: once a layer; 0: once a pass (layer -1) */
  int optional;        /* 1: only in architectures that have it */
  const char* shape;   /* canonical shape */
  const char* inputs;  /* stages it is computed from, in the order replay takes them; "a|b": a where the architecture has
                          it, else b; "x@prev": of the layer before (layer 0: embeddings); "x*": all earlier positions too */
  const char* meaning;
} pb_stage_info;

/* Row i describes stage i. */
#ifdef __cplusplus
static constexpr
#else
static const
#endif
    pb_stage_info pb_vocabulary[PB_STAGE_COUNT] = {
    {PB_STAGE_EMBEDDINGS, "embeddings", 0, 0, 0, "(n, d_model)", "", "token embeddings, scaled where the model scales"},
    {PB_STAGE_ATTN_NORM, "attn_norm", 1, 1, 1, "(n, d_model)", "layer_out@prev", "norm before attention, weight applied"},
    {PB_STAGE_Q_IN_NORM, "q_in_norm", 2, 1, 1, "(n, d_model)", "attn_norm|layer_out@prev",
     "norm of what the query projection alone reads"},
    {PB_STAGE_K_IN_NORM, "k_in_norm", 2, 1, 1, "(n, d_model)", "attn_norm|layer_out@prev",
     "norm of what the key projection alone reads"},
    {PB_STAGE_V_IN_NORM, "v_in_norm", 2, 1, 1, "(n, d_model)", "attn_norm|layer_out@prev",
     "norm of what the value projection alone reads"},
    {PB_STAGE_Q_PROJ, "q_proj", 3, 1, 0, "(n, n_heads, head_dim)", "q_in_norm|attn_norm|layer_out@prev",
     "queries, head rows in the file's order"},
    {PB_STAGE_K_PROJ, "k_proj", 3, 1, 0, "(n, n_kv_heads, head_dim)", "k_in_norm|attn_norm|layer_out@prev",
     "keys, head rows in the file's order"},
    {PB_STAGE_V_PROJ, "v_proj", 3, 1, 0, "(n, n_kv_heads, head_dim)", "v_in_norm|attn_norm|layer_out@prev", "values"},
    {PB_STAGE_Q_NORM, "q_norm", 4, 1, 1, "(n, n_heads, head_dim)", "q_proj", "queries after their norm, of each head or of the row"},
    {PB_STAGE_K_NORM, "k_norm", 4, 1, 1, "(n, n_kv_heads, head_dim)", "k_proj", "keys after their norm, of each head or of the row"},
    {PB_STAGE_Q_ROPE, "q_rope", 5, 1, 0, "(n, n_heads, head_dim)", "q_norm|q_proj", "queries after rotary embedding, where the layer has one"},
    {PB_STAGE_K_ROPE, "k_rope", 5, 1, 0, "(n, n_kv_heads, head_dim)", "k_norm|k_proj", "keys after rotary embedding, where the layer has one"},
    {PB_STAGE_ATTN_SCORES, "attn_scores", 6, 1, 0, "(n, n_heads, p)", "q_rope k_rope*",
     "q.k scaled, and capped where the model caps; -inf where the causal mask or the layer's window hides"},
    {PB_STAGE_ATTN_SCORES_SOFTMAX, "attn_scores_softmax", 7, 1, 0, "(n, n_heads, p)", "attn_scores",
     "softmax over the visible positions; 0 where hidden"},
    {PB_STAGE_ATTN_CONTEXT, "attn_context", 8, 1, 0, "(n, n_heads, head_dim)", "attn_scores_softmax v_proj*",
     "weighted sum of the values"},
    {PB_STAGE_ATTN_SUB_NORM, "attn_sub_norm", 9, 1, 1, "(n, n_heads * head_dim)", "attn_context",
     "BitNet: norm before the output projection"},
    {PB_STAGE_ATTN_OUT, "attn_out", 10, 1, 0, "(n, d_model)", "attn_sub_norm|attn_context", "output projection"},
    {PB_STAGE_ATTN_POST_NORM, "attn_post_norm", 11, 1, 1, "(n, d_model)", "attn_out",
     "norm of what attention adds to the residual stream"},
    {PB_STAGE_ATTN_RESIDUAL, "attn_residual", 12, 1, 0, "(n, d_model)", "attn_post_norm|attn_out layer_out@prev",
     "residual sum, the first part scaled where the model scales"},
    {PB_STAGE_FFN_NORM, "ffn_norm", 13, 1, 1, "(n, d_model)", "attn_residual", "norm before the feed-forward network"},
    {PB_STAGE_ROUTER_LOGITS, "router_logits", 14, 1, 1, "(n, n_experts)", "ffn_norm|attn_norm|attn_residual",
     "how well each expert suits the token"},
    {PB_STAGE_EXPERT_IDS, "expert_ids", 15, 1, 1, "(n, n_experts_used)", "router_logits",
     "the experts of the largest logits, largest first; of equal ones the lowest id"},
    {PB_STAGE_EXPERT_WEIGHTS, "expert_weights", 16, 1, 1, "(n, n_experts_used)", "router_logits expert_ids",
     "what each chosen expert's output is multiplied by"},
    {PB_STAGE_EXPERT_GATE, "expert_gate", 17, 1, 1, "(n, n_experts_used, d_ff_expert)", "ffn_norm|attn_norm|attn_residual expert_ids",
     "gate projection of each chosen expert"},
    {PB_STAGE_EXPERT_UP, "expert_up", 17, 1, 1, "(n, n_experts_used, d_ff_expert)", "ffn_norm|attn_norm|attn_residual expert_ids",
     "up projection of each chosen expert"},
    {PB_STAGE_EXPERT_ACT, "expert_act", 18, 1, 1, "(n, n_experts_used, d_ff_expert)", "expert_gate",
     "activation of the gate"},
    {PB_STAGE_EXPERT_GATED, "expert_gated", 19, 1, 1, "(n, n_experts_used, d_ff_expert)", "expert_act expert_up",
     "activated gate times up"},
    {PB_STAGE_EXPERT_DOWN, "expert_down", 20, 1, 1, "(n, n_experts_used, d_model)", "expert_gated expert_ids",
     "down projection of each chosen expert: its output"},
    {PB_STAGE_EXPERT_SUM, "expert_sum", 21, 1, 1, "(n, d_model)", "expert_down expert_weights",
     "weighted sum of the experts' outputs"},
    {PB_STAGE_GATE_IN_NORM, "gate_in_norm", 22, 1, 1, "(n, d_model)", "ffn_norm|attn_norm|attn_residual",
     "norm of what the gate projection alone reads"},
    {PB_STAGE_UP_IN_NORM, "up_in_norm", 22, 1, 1, "(n, d_model)", "ffn_norm|attn_norm|attn_residual",
     "norm of what the up projection alone reads"},
    {PB_STAGE_GATE_PROJ, "gate_proj", 23, 1, 1, "(n, d_ff)", "gate_in_norm|ffn_norm|attn_norm|attn_residual", "gate projection; beside experts: of the shared one"},
    {PB_STAGE_UP_PROJ, "up_proj", 23, 1, 1, "(n, d_ff)", "up_in_norm|ffn_norm|attn_norm|attn_residual", "up projection"},
    {PB_STAGE_FFN_ACT, "ffn_act", 24, 1, 1, "(n, d_ff)", "gate_proj", "activation of the gate"},
    {PB_STAGE_FFN_GATED, "ffn_gated", 25, 1, 1, "(n, d_ff)", "ffn_act up_proj", "activated gate times up"},
    {PB_STAGE_FFN_SUB_NORM, "ffn_sub_norm", 26, 1, 1, "(n, d_ff)", "ffn_gated", "BitNet: norm before the down projection"},
    {PB_STAGE_DOWN_PROJ, "down_proj", 27, 1, 1, "(n, d_model)", "ffn_sub_norm|ffn_gated", "down projection"},
    {PB_STAGE_SHARED_GATE, "shared_gate", 27, 1, 1, "(n, 1)", "ffn_norm|attn_norm|attn_residual", "gate of the shared expert's output, before its sigmoid"},
    {PB_STAGE_SHARED_OUT, "shared_out", 28, 1, 1, "(n, d_model)", "down_proj shared_gate",
     "the shared expert's output times the sigmoid of its gate"},
    {PB_STAGE_FFN_OUT, "ffn_out", 29, 1, 1, "(n, d_model)", "expert_sum shared_out", "experts and the shared one together"},
    {PB_STAGE_FFN_POST_NORM, "ffn_post_norm", 30, 1, 1, "(n, d_model)", "ffn_out|expert_sum|down_proj",
     "norm of what the feed-forward network adds to the residual stream"},
    {PB_STAGE_LAYER_OUT, "layer_out", 31, 1, 0, "(n, d_model)", "ffn_post_norm|ffn_out|expert_sum|down_proj attn_residual",
     "residual sum, the first part scaled where the model scales: the layer's output"},
    {PB_STAGE_FINAL_NORM, "final_norm", 32, 0, 0, "(n, d_model)", "layer_out@prev", "norm before the output matrix"},
    {PB_STAGE_LOGITS, "logits", 33, 0, 0, "(n, n_vocab)", "final_norm", "unnormalised log-probabilities of the next token, scaled and capped where the model does"},
};

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* PARITYBIT_ABI_VOCABULARY_H_ */
