// Builds the graph of a small model with the reference's own functions, names its nodes as the reference's graph builder does, leaves ops
// out, and writes how the adapter maps it: what graph_map_test.py compiles against the reference's headers.
//   graph_map_probe llama|gemma OP[@LAYER]...    norms, sums and rotations that are left out, in all layers or in one
// One line a point: stage, layer, the op of its node.
#include <cstdio>
#include <cstring>
#include <map>
#include <string>

#include "ggml.h"
#include "llama_cpp/graph.h"
#include "stages/stages.h"

namespace {

constexpr int kLayers = 2, kWidth = 32, kHeads = 2, kHeadDim = 16, kInner = 64, kTokens = 1;

class Builder {
 public:
  Builder(bool gemma, int n_left_out, char** left_out) : c_(ggml_init({1 << 24, nullptr, true})), gemma_(gemma) {
    for (int i = 0; i < n_left_out; ++i) {
      const std::string text = left_out[i];
      const size_t at = text.find('@');
      left_out_[text.substr(0, at)] = at == text.npos ? -1 : std::stoi(text.substr(at + 1));
    }
    dims_.n_layers = kLayers, dims_.d_model = kWidth, dims_.n_heads = dims_.n_kv_heads = kHeads, dims_.head_dim = kHeadDim;
  }

  int Run() {
    ggml_tensor* tokens = ggml_new_tensor_1d(c_, GGML_TYPE_I32, kTokens);
    positions_ = ggml_new_tensor_1d(c_, GGML_TYPE_I32, kTokens);
    ggml_tensor* stream = Named(ggml_get_rows(c_, Weight("token_embd.weight", kWidth, 100), tokens), "inp_embd", -1);
    for (int layer = 0; layer < kLayers; ++layer) stream = Layer(stream, layer);
    ggml_tensor* normed = Norm(stream, "output_norm.weight", "result_norm", -1);
    ggml_tensor* logits = Named(ggml_mul_mat(c_, Weight("output.weight", kWidth, 100), normed), "result_output", -1);
    ggml_cgraph* graph = ggml_new_graph(c_);
    ggml_build_forward_expand(graph, logits);
    pb::llama_cpp::GraphRecorder recorder;
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) recorder.Add(ggml_graph_node(graph, i));
    const pb::llama_cpp::GraphMap map = pb::llama_cpp::MapGraph(recorder, dims_);
    std::map<std::string, std::string> ops;
    for (const auto& node : recorder.nodes()) ops[node.key] = node.op_name;
    for (const auto& [key, rules] : map.rules)
      for (const auto& rule : rules)
        std::printf("%s %d %s\n", pb::stages::Of(static_cast<pb_stage>(rule.stage)).name, rule.layer, ops[key].c_str());
    ggml_free(c_);
    return 0;
  }

 private:
  bool IsLeftOut(const char* op, int layer) const {
    const auto found = left_out_.find(op);
    return found != left_out_.end() && (found->second < 0 || found->second == layer);
  }
  // As the builder's callback does, which names whatever it is given.
  ggml_tensor* Named(ggml_tensor* t, const char* name, int layer) {
    return ggml_set_name(t, layer < 0 ? name : (std::string(name) + "-" + std::to_string(layer)).c_str());
  }
  ggml_tensor* Weight(const std::string& name, int n_in, int n_out) {
    if (name.find("norm.weight") != name.npos) dims_.norms.insert(name);
    ggml_tensor* t = n_out > 0 ? ggml_new_tensor_2d(c_, GGML_TYPE_F16, n_in, n_out) : ggml_new_tensor_1d(c_, GGML_TYPE_F32, n_in);
    return ggml_set_name(t, name.c_str());
  }
  static std::string Of(int layer, const char* tensor) { return "blk." + std::to_string(layer) + "." + tensor + ".weight"; }
  ggml_tensor* Norm(ggml_tensor* x, const std::string& weight, const char* name, int layer) {
    ggml_tensor* w = Weight(weight, static_cast<int>(x->ne[0]), 0);
    if (!IsLeftOut(name, layer)) x = ggml_mul(c_, Named(ggml_rms_norm(c_, x, 1e-5f), "norm", layer), w);
    return Named(x, name, layer);
  }
  ggml_tensor* Product(ggml_tensor* x, int layer, const char* tensor, int n_out, const char* name) {
    return Named(ggml_mul_mat(c_, Weight(Of(layer, tensor), static_cast<int>(x->ne[0]), n_out), x), name, layer);
  }
  ggml_tensor* Sum(ggml_tensor* a, ggml_tensor* b, const char* name, int layer) {
    return Named(IsLeftOut(name, layer) ? a : ggml_add(c_, a, b), name, layer);
  }
  ggml_tensor* Rotated(ggml_tensor* x, const char* name, const char* left_out, int layer) {
    x = ggml_reshape_3d(c_, x, kHeadDim, kHeads, kTokens);
    const bool of_queries = name[0] == 'Q';
    if (gemma_)
      x = Norm(x, Of(layer, of_queries ? "attn_q_norm" : "attn_k_norm"), of_queries ? "Qcur_normed" : "Kcur_normed", layer);
    if (!IsLeftOut(left_out, layer)) x = ggml_rope_ext(c_, x, positions_, nullptr, kHeadDim, 0, 64, 1e4f, 1, 0, 1, 32, 1);
    return Named(x, name, layer);
  }

  ggml_tensor* Layer(ggml_tensor* in, int layer) {
    ggml_tensor* x = Norm(in, Of(layer, "attn_norm"), "attn_norm", layer);
    ggml_tensor* q = Rotated(Product(x, layer, "attn_q", kWidth, "Qcur"), "Qcur", "rope_q", layer);
    ggml_tensor* k = Rotated(Product(x, layer, "attn_k", kWidth, "Kcur"), "Kcur", "rope_k", layer);
    ggml_tensor* v = ggml_reshape_3d(c_, Product(x, layer, "attn_v", kWidth, "Vcur"), kHeadDim, kHeads, kTokens);
    ggml_tensor* scores = Named(ggml_mul_mat(c_, ggml_permute(c_, k, 0, 2, 1, 3), ggml_permute(c_, q, 0, 2, 1, 3)), "kq", layer);
    ggml_tensor* softmax = Named(ggml_soft_max_ext(c_, scores, nullptr, 0.25f, 0), "kq_soft_max", layer);
    ggml_tensor* sum = Named(ggml_mul_mat(c_, ggml_cont(c_, ggml_permute(c_, v, 1, 2, 0, 3)), softmax), "kqv", layer);
    x = Named(ggml_cont_2d(c_, ggml_permute(c_, sum, 0, 2, 1, 3), kWidth, kTokens), "kqv_out", layer);
    if (!gemma_) x = Norm(x, Of(layer, "attn_sub_norm"), "attn_sub_norm", layer);
    x = Product(x, layer, "attn_output", kWidth, "attn_out");
    if (gemma_) x = Norm(x, Of(layer, "post_attention_norm"), "attn_post_norm", layer);
    ggml_tensor* residual = Sum(x, in, "ffn_inp", layer);
    x = Norm(residual, Of(layer, "ffn_norm"), "ffn_norm", layer);
    ggml_tensor* up = Product(x, layer, "ffn_up", kInner, "ffn_up");
    ggml_tensor* gate = Product(x, layer, "ffn_gate", kInner, "ffn_gate");
    x = Named(ggml_swiglu_split(c_, gate, up), "ffn_swiglu", layer);
    if (!gemma_) x = Norm(Named(x, "ffn_sub_out", layer), Of(layer, "ffn_sub_norm"), "ffn_sub_norm", layer);
    x = Product(x, layer, "ffn_down", kWidth, gemma_ ? "ffn_out" : "ffn_down");
    if (gemma_) x = Norm(x, Of(layer, "post_ffw_norm"), "ffn_post_norm", layer);
    return Sum(x, residual, "l_out", layer);
  }

  ggml_context* c_;
  bool gemma_;
  pb::llama_cpp::Dims dims_;
  ggml_tensor* positions_ = nullptr;
  std::map<std::string, int> left_out_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  return Builder(std::strcmp(argv[1], "gemma") == 0, argc - 2, argv + 2).Run();
}
