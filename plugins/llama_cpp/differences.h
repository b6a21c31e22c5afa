// What some releases of llama.cpp and some of its forks do not have, told apart by what their headers declare and never by a
// number. A function that the headers lack is one of these templates: their parameters are built from what is given (`Given`), so
// overload resolution takes a function of the headers first. Inside, the older name is looked up only where a template is used.
#ifndef PARITYBIT_PLUGINS_LLAMA_CPP_DIFFERENCES_H_
#define PARITYBIT_PLUGINS_LLAMA_CPP_DIFFERENCES_H_

#include <cstdlib>
#include <string>

#include "ggml-backend.h"
#include "ggml.h"
#if __has_include("ggml-cpu.h")
#include "ggml-cpu.h"
#endif
#if __has_include("gguf.h")
#include "gguf.h"
#endif
#include "llama.h"

// Where the headers lack them, a vocabulary is its model, and a memory its context.
struct llama_vocab;
struct llama_memory_i;
typedef struct llama_memory_i* llama_memory_t;
// Declared, that a template may ask whether the headers have more of them than this.
struct ggml_type_traits_cpu;

namespace pb_missing {

template <typename T>
struct Given {
  T value;
  Given(T given) : value(given) {}  // NOLINT: converts, and so comes behind what needs no conversion
};
using Model = Given<const llama_model*>;
using Vocab = Given<const llama_vocab*>;

// A file's own value of a model, by its key without the architecture's name; 0: it has none.
inline int32_t Declared(const llama_model* model, const char* key) {
  char text[256];
  if (llama_model_meta_val_str(model, "general.architecture", text, sizeof text) < 0) return 0;
  const std::string full = std::string(text) + key;
  return llama_model_meta_val_str(model, full.c_str(), text, sizeof text) < 0 ? 0 : std::atoi(text);
}

// The library's own version; null: it does not tell.
template <typename = void>
const char* llama_version() {
  return nullptr;
}
// Of which state of its sources the library was built; empty: it does not tell.
template <typename = void>
const char* ggml_commit() {
  return "";
}
// Where there is nothing to load, the CPU backend is linked.
template <typename = void>
void* ggml_backend_load(Given<const char*>) {
  return nullptr;
}

// Models.
template <typename Params>
llama_model* llama_model_load_from_file(Given<const char*> path, Params params) {
  return llama_load_model_from_file(static_cast<const char*>(path.value), params);
}
template <typename M = llama_model>
void llama_model_free(Given<llama_model*> m) {
  llama_free_model(static_cast<M*>(m.value));
}
template <typename M = llama_model>
int32_t llama_model_n_layer(Model m) {
  return llama_n_layer(static_cast<const M*>(m.value));
}
template <typename M = llama_model>
int32_t llama_model_n_embd(Model m) {
  return llama_n_embd(static_cast<const M*>(m.value));
}
template <typename M = llama_model>
int32_t llama_model_n_ctx_train(Model m) {
  return llama_n_ctx_train(static_cast<const M*>(m.value));
}
template <typename = void>
int32_t llama_model_n_head(Model m) {
  return Declared(m.value, ".attention.head_count");
}
template <typename = void>
int32_t llama_model_n_head_kv(Model m) {
  const int32_t n = Declared(m.value, ".attention.head_count_kv");
  return n > 0 ? n : Declared(m.value, ".attention.head_count");
}
template <typename = void>
int32_t llama_model_n_swa(Model m) {
  return Declared(m.value, ".attention.sliding_window");
}
template <typename = void>
const char* llama_model_chat_template(Model m, Given<const char*>) {
  static std::string text;
  text.assign(1 << 16, '\0');
  const int32_t n = llama_model_meta_val_str(m.value, "tokenizer.chat_template", text.data(), text.size());
  return n < 0 ? nullptr : text.c_str();
}

// Vocabularies.
template <typename M = llama_model>
const M* ModelOf(Vocab v) {
  return reinterpret_cast<const M*>(v.value);
}
template <typename = void>
const llama_vocab* llama_model_get_vocab(Model m) {
  return reinterpret_cast<const llama_vocab*>(m.value);
}
template <typename M = llama_model>
int32_t llama_vocab_n_tokens(Vocab v) {
  return llama_n_vocab(ModelOf<M>(v));
}
template <typename M = llama_model>
llama_token llama_vocab_bos(Vocab v) {
  return llama_token_bos(ModelOf<M>(v));
}
template <typename M = llama_model>
llama_token llama_vocab_eos(Vocab v) {
  return llama_token_eos(ModelOf<M>(v));
}
template <typename M = llama_model>
bool llama_vocab_is_eog(Vocab v, llama_token token) {
  return llama_token_is_eog(ModelOf<M>(v), token);
}
template <typename M = llama_model>
bool llama_vocab_get_add_bos(Vocab v) {
  return llama_add_bos_token(ModelOf<M>(v));
}
// Where a vocabulary is no model, these two may yet take a model, and have another name for a vocabulary.
template <typename M = llama_model, typename V = llama_vocab>
int32_t llama_tokenize(Vocab v, const char* text, int32_t n_bytes, llama_token* tokens, int32_t capacity, bool add_special,
                       bool parse_special) {
  const V* own = v.value;
  if constexpr (requires { llama_vocab_tokenize(own, text, n_bytes, tokens, capacity, add_special, parse_special); })
    return llama_vocab_tokenize(own, text, n_bytes, tokens, capacity, add_special, parse_special);
  else
    return llama_tokenize(ModelOf<M>(v), text, n_bytes, tokens, capacity, add_special, parse_special);
}
template <typename M = llama_model, typename V = llama_vocab>
int32_t llama_token_to_piece(Vocab v, llama_token token, char* text, int32_t capacity, int32_t skip, bool special) {
  const V* own = v.value;
  if constexpr (requires { llama_token_to_piece_vocab(own, token, text, capacity, skip, special); })
    return llama_token_to_piece_vocab(own, token, text, capacity, skip, special);
  else
    return llama_token_to_piece(ModelOf<M>(v), token, text, capacity, skip, special);
}

// Contexts.
template <typename M = llama_model>
llama_context* llama_init_from_model(Given<llama_model*> m, llama_context_params params) {
  return llama_new_context_with_model(static_cast<M*>(m.value), params);
}
template <typename = void>
llama_memory_t llama_get_memory(Given<llama_context*> c) {
  return reinterpret_cast<llama_memory_t>(c.value);
}
template <typename C = llama_context>
void llama_memory_clear(Given<llama_memory_t> m, bool) {
  llama_kv_cache_clear(reinterpret_cast<C*>(m.value));
}
template <typename C = llama_context>
bool llama_memory_seq_rm(Given<llama_memory_t> m, llama_seq_id sequence, llama_pos from, llama_pos to) {
  return llama_kv_cache_seq_rm(reinterpret_cast<C*>(m.value), sequence, from, to);
}

// Fused attention is a switch where it is not a choice of three: `choice` is 0 off, 1 on, -1 as the library decides.
template <typename Params>
void SetFlash(Params* params, int choice) {
  if constexpr (requires { params->flash_attn_type; })
    params->flash_attn_type = static_cast<decltype(params->flash_attn_type)>(choice);
  else
    params->flash_attn = choice > 0;
}
template <typename Params>
void SetNoPerf(Params* params) {
  if constexpr (requires { params->no_perf; }) params->no_perf = true;
}
// Several ops in one, where they can be had one by one, and a graph that stays for the next pass. Returns whether there was any.
template <typename Params>
bool SetUnfused(Params* params) {
  bool any = false;
  if constexpr (requires { params->fused_up_gate; }) any = true, params->fused_up_gate = false;
  if constexpr (requires { params->fused_moe_up_gate; }) any = true, params->fused_moe_up_gate = false;
  if constexpr (requires { params->fused_mmad; }) any = true, params->fused_mmad = false;
  if constexpr (requires { params->rope_cache; }) params->rope_cache = false;
  if constexpr (requires { params->graph_reuse; }) params->graph_reuse = false;
  return any;
}

// Ops that some graphs have; GGML_OP_COUNT, which no node is, where the headers do not know them.
#define PB_OP(constant, name)                                      \
  template <typename E = ggml_op>                                  \
  constexpr E constant##OrNone() {                                 \
    if constexpr (requires { E::name; }) {                         \
      return E::name;                                              \
    } else {                                                       \
      return E::GGML_OP_COUNT;                                     \
    }                                                              \
  }                                                                \
  inline constexpr ggml_op constant = constant##OrNone<ggml_op>();
PB_OP(kOpGlu, GGML_OP_GLU)
PB_OP(kOpSetRows, GGML_OP_SET_ROWS)
PB_OP(kOpTopK, GGML_OP_TOP_K)
PB_OP(kOpAddId, GGML_OP_ADD_ID)
PB_OP(kOpFusedRmsNorm, GGML_OP_FUSED_RMS_NORM)
PB_OP(kOpFusedMulUnary, GGML_OP_FUSED_MUL_UNARY)
#undef PB_OP

// The gated op over two tensors, as another one does it; null: there is none.
template <typename T = ggml_tensor>
T* GluSplitAs(ggml_context* context, T* a, T* b, const T* like) {
  if constexpr (requires { ggml_glu_split(context, a, b, ggml_get_glu_op(like)); })
    return ggml_glu_split(context, a, b, ggml_get_glu_op(like));
  else
    return nullptr;
}
// Activation and product in one op, and a norm with its weight; null: there are none.
template <typename T = ggml_tensor>
T* FusedMulUnaryAs(ggml_context* context, T* gate, T* up, const T* like) {
  if constexpr (requires { ggml_fused_mul_unary(context, gate, up, GGML_UNARY_OP_SILU); })
    return ggml_fused_mul_unary(context, gate, up, static_cast<ggml_unary_op>(like->op_params[0]));
  else
    return nullptr;
}
template <typename T = ggml_tensor>
T* FusedRmsNorm(ggml_context* context, T* x, T* weight) {
  if constexpr (requires { ggml_fused_rms_norm(context, x, weight, 0.0f); })
    return ggml_fused_rms_norm(context, x, weight, 0.0f);
  else
    return nullptr;
}
// False: there are no sinks.
template <typename T = ggml_tensor>
bool AddSinks(T* softmax, T* sinks) {
  if constexpr (requires { ggml_soft_max_add_sinks(softmax, sinks); })
    return ggml_soft_max_add_sinks(softmax, sinks), true;
  else
    return false;
}

// Blocks from float, where it takes one argument more.
template <typename E = ggml_type>
size_t ggml_quantize_chunk(Given<ggml_type> type, const float* values, void* blocks, int64_t start, int64_t n_rows,
                           int64_t n_columns, const float* importance) {
  return ggml_quantize_chunk(static_cast<E>(type.value), values, blocks, start, n_rows, n_columns, importance, nullptr);
}
// Traits of types, where the table is handed out by value.
template <typename E = ggml_type>
const auto* ggml_get_type_traits(Given<ggml_type> type) {
  static decltype(ggml_internal_get_type_traits(E{})) table[GGML_TYPE_COUNT];
  return &(table[type.value] = ggml_internal_get_type_traits(static_cast<E>(type.value)));
}

}  // namespace pb_missing

using namespace pb_missing;  // NOLINT: beside the functions of the headers, or they would be hidden

#endif  // PARITYBIT_PLUGINS_LLAMA_CPP_DIFFERENCES_H_
