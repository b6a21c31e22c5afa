// Finds the node of the graph that serves as a stage: by the table's names, else by weights and by the graph's edges.
#include "llama_cpp/graph_find.h"

#include <algorithm>
#include <cstring>

#include "stages/stages.h"

namespace pb::llama_cpp {
namespace {

// What rows were chosen of, where only some need logits.
const ggml_tensor* SkipChoice(const ggml_tensor* tensor) {
  tensor = SkipViews(tensor);
  return tensor && tensor->op == GGML_OP_GET_ROWS ? SkipViews(tensor->src[0]) : tensor;
}

// Whether a norm reads a sum of two streams: by the weight, or the name, that stands behind attention elsewhere it is then the one
// before the network.
bool IsOfSum(const ggml_tensor& norm) {
  const ggml_tensor* read = SkipChoice(norm.src[0]);
  return read && read->op == GGML_OP_ADD && SkipViews(read->src[1])->op != GGML_OP_NONE;
}

// Chosen rows are compared by what they are chosen of; the embeddings are themselves a choice.
bool Shows(const ggml_tensor* tensor, const Node& node) {
  return SkipViews(tensor) == node.tensor || SkipChoice(tensor) == node.tensor;
}

}  // namespace

bool IsNorm(ggml_op op) { return op == GGML_OP_RMS_NORM || op == GGML_OP_NORM || op == kOpFusedRmsNorm; }

bool IsTurn(const ggml_tensor* t, const char* matrix) {
  return t->op == GGML_OP_MUL_MAT && t->src[0] && std::strcmp(t->src[0]->name, matrix) == 0;
}

Finder::Finder(const std::vector<Node>& nodes, const Dims& dims) : nodes_(nodes), dims_(dims) { is_plain_ = HasNoGate(); }

const Node* Finder::Find(const char* base, int layer, ggml_op op) const {
  const Node* found = nullptr;
  for (const Node& node : nodes_) {
    if (node.layer == layer && node.op == op && node.base == base) found = &node;
  }
  return found;
}

const Node* Finder::FindSoftmax(int layer) const { return FindStage(PB_STAGE_ATTN_SCORES_SOFTMAX, layer).node; }

Found Finder::FindAny(const StageRule& rule, int layer) const {
  if (const Found part = FindPart(rule, layer); part.node) return part;
  for (const Alternative& a : rule.alternatives) {
    if (const Node* node = Find(a.base, layer, a.op); node && Serves(*node, rule.stage)) return {node, {}};
  }
  // Some architectures leave these without a name; weights and the graph's edges tell them.
  if (stages::kProducts.Contains(rule.stage))
    if (const Node* node = FindProduct(rule.stage, layer)) return {node, {}};
  if (rule.stage == PB_STAGE_ATTN_OUT) return {FindAttentionOutput(layer), {}};
  if (rule.stage == PB_STAGE_ATTN_RESIDUAL) return {FindAttentionSum(layer), {}};
  if (rule.stage == PB_STAGE_EMBEDDINGS) return {FindEmbeddings(), {}};
  if (rule.stage == PB_STAGE_ATTN_CONTEXT) return {FindContext(layer), {}};
  if (rule.stage == PB_STAGE_LAYER_OUT) return {FindLayerSum(layer), {}};
  if (stages::Of(rule.stage).group == stages::Group::kNorm) return {FindNorm(rule.stage, layer, false), {}};
  if (rule.stage == PB_STAGE_Q_ROPE) return FindRotated(PB_STAGE_Q_NORM, PB_STAGE_Q_PROJ, layer);
  if (rule.stage == PB_STAGE_K_ROPE) return FindRotated(PB_STAGE_K_NORM, PB_STAGE_K_PROJ, layer);
  if (rule.stage == PB_STAGE_FFN_GATED && is_plain_) return {FindActivation(layer), {}};
  if (rule.stage == PB_STAGE_FFN_GATED) return {FindGated(PB_STAGE_GATE_PROJ, PB_STAGE_UP_PROJ, layer), {}};
  if (rule.stage == PB_STAGE_EXPERT_GATED) return {FindGated(PB_STAGE_EXPERT_GATE, PB_STAGE_EXPERT_UP, layer), {}};
  return {};
}

Found Finder::FindStage(pb_stage stage, int layer) const {
  for (const StageRule& rule : Table())
    if (rule.stage == stage) return FindAny(rule, layer);
  return {};
}

// Whether a node of a name that several stages have is this one: the sum of experts and shared expert is called as a network's
// output is, and one architecture calls the norm before its network as others call that behind attention.
bool Finder::Serves(const Node& node, pb_stage stage) const {
  const bool has_experts = Find("ffn_moe_out", node.layer, GGML_OP_ADD) || Find("ffn_moe_out", node.layer, GGML_OP_CONT);
  if (stage == PB_STAGE_FFN_OUT) return has_experts;
  if (stage == PB_STAGE_DOWN_PROJ && node.base == "ffn_out" && node.op == GGML_OP_ADD && has_experts) return false;
  // What is added behind a product is its bias, and not the residual; what is multiplied is no norm.
  if (stages::kLayerProducts.Contains(stage) && (node.op == GGML_OP_ADD || node.op == GGML_OP_MUL)) {
    const ggml_op of = SkipViews(node.tensor->src[0])->op;
    return SkipViews(node.tensor->src[1])->op == GGML_OP_NONE && !IsNorm(of);
  }
  // A norm's last op adds its bias: a sum of this name is what some engine calls the norm's input.
  if (stages::Of(stage).group == stages::Group::kNorm && node.op == GGML_OP_ADD)
    return SkipViews(node.tensor->src[1])->op == GGML_OP_NONE;
  if (node.base != "attn_post_norm") return true;
  const ggml_tensor* norm = SkipViews(node.tensor->src[0]);
  return (norm && IsOfSum(*norm)) == (stage == PB_STAGE_FFN_NORM);
}

// The product that reads the context, with its bias or scale.
const Node* Finder::FindAttentionOutput(int layer) const {
  const Node* context = FindTurnedBack(layer);
  for (const ggml_op op : {GGML_OP_CONT, GGML_OP_RESHAPE})
    if (!context) context = Find("kqv_out", layer, op);
  const Node* at = nullptr;
  for (const Node& node : nodes_)
    if (context && node.op == GGML_OP_MUL_MAT && !IsTurn(node.tensor, "attn_inp_v_rot") &&
        SkipViews(node.tensor->src[1]) == SkipViews(context->tensor))
      at = &node;
  return WithBias(at);
}

// The product of a stage's weight, by the weight's name.
const Node* Finder::FindProduct(pb_stage stage, int layer) const {
  if (!stages::Of(stage).weight.tensor) return nullptr;
  const std::string weight = stages::TensorName(stage, layer);
  for (const Node& node : nodes_) {
    if (node.op != GGML_OP_MUL_MAT) continue;
    const std::string_view read = node.tensor->src[0]->name;
    if (read == weight || (stage == PB_STAGE_LOGITS && read == "token_embd.weight")) return WithBias(&node);
  }
  return nullptr;
}

// A product, or the last of what adds its bias and multiplies its scale; null: of none.
const Node* Finder::WithBias(const Node* at) const {
  for (const Node* next = at; next;) {
    at = next, next = nullptr;
    for (const Node& node : nodes_)
      if ((node.op == GGML_OP_ADD || node.op == GGML_OP_MUL) && node.tensor->src[0] == at->tensor &&
          node.tensor->src[1]->op == GGML_OP_NONE)
        next = &node;
  }
  return at;
}

// What rotates queries or keys, whatever its name; of layers that do not rotate, what would be rotated, where other layers do, or
// attention reads just that.
Found Finder::FindRotated(pb_stage norm, pb_stage product, int layer) const {
  const auto rotates = [](const Node& n) { return n.op == GGML_OP_ROPE; };
  const bool any = std::any_of(nodes_.begin(), nodes_.end(), rotates);
  for (const pb_stage stage : {norm, product}) {
    const Found found = FindStage(stage, layer);
    if (!found.node) continue;
    const size_t offset = static_cast<size_t>(found.columns.first) * sizeof(float);
    for (const Node& node : nodes_) {
      const ggml_tensor* read = node.tensor->src[0];
      if (rotates(node) && SkipViews(read) == found.node->tensor &&
          (found.columns.n == 0 || read->view_offs - found.node->tensor->view_offs == offset))
        return {&node, {}};
    }
    return any || EntersAttention(*found.node) ? found : Found{};
  }
  return {};
}

// Whether a node is what scores are made of, or what is put into the cache of keys, as it stands.
bool Finder::EntersAttention(const Node& node) const {
  return std::any_of(nodes_.begin(), nodes_.end(), [&](const Node& n) {
    const auto reads = [&](int i) { return n.tensor->src[i] && SkipViews(n.tensor->src[i]) == node.tensor; };
    const auto is_keys = [](const ggml_tensor* t) { return t && std::strncmp(t->name, "cache_k_l", 9) == 0; };
    if (n.op == GGML_OP_MUL_MAT) return reads(1) && is_keys(SkipViews(n.tensor->src[0]));
    if (n.op == GGML_OP_FLASH_ATTN_EXT) return reads(0);
    return (n.op == kOpSetRows || n.op == GGML_OP_CPY) && reads(0) && is_keys(n.tensor->view_src);
  });
}

Found Finder::FindUnnormed(pb_stage norm, int layer) const {
  if (!stages::Of(norm).weight.tensor) return {};
  const std::string weight = stages::TensorName(norm, layer);
  const auto reads_it = [&](const Node& n) {
    return std::any_of(std::begin(n.tensor->src), std::end(n.tensor->src),
                       [&](const ggml_tensor* read) { return read && weight == read->name; });
  };
  // A weight that is read is of a norm of another name.
  if (!dims_.norms.count(weight) || std::any_of(nodes_.begin(), nodes_.end(), reads_it)) return {};
  const bool has_experts = std::any_of(nodes_.begin(), nodes_.end(), [](const Node& n) { return n.base.rfind("ffn_moe", 0) == 0; });
  const stages::Set lacks = has_experts ? stages::Set() : stages::kExperts | stages::kSharedExpert;
  const stages::Input read = stages::InputsOf(norm, stages::kAll - lacks).front();
  const auto at = read.Layer(layer, static_cast<int32_t>(dims_.n_layers));
  const Found found = at < 0 ? FindStage(PB_STAGE_EMBEDDINGS, -1) : FindStage(read.stage, at);
  const bool of_heads = norm == PB_STAGE_Q_NORM || norm == PB_STAGE_K_NORM;
  const bool behind = norm == PB_STAGE_ATTN_POST_NORM || norm == PB_STAGE_FFN_POST_NORM;
  const ggml_op reader = of_heads ? GGML_OP_ROPE : behind ? GGML_OP_ADD : GGML_OP_MUL_MAT;
  return found.node && IsRead(*found.node, {reader}) ? found : Found{};
}

// Whether an op of one of these kinds reads a node, or rows chosen of it.
bool Finder::IsRead(const Node& node, std::initializer_list<ggml_op> by) const {
  return std::any_of(nodes_.begin(), nodes_.end(), [&](const Node& n) {
    return std::find(by.begin(), by.end(), n.op) != by.end() &&
           std::any_of(std::begin(n.tensor->src), std::end(n.tensor->src),
                       [&](const ggml_tensor* read) { return read && (SkipViews(read) == node.tensor || SkipChoice(read) == node.tensor); });
  });
}

// What would be added to a residual stream that no sum reads any more: a sum that was left out.
const Node* Finder::FindUnadded(const Node* stream, const Node* added) const {
  const bool left_out = stream && added && !IsRead(*stream, {GGML_OP_ADD}) &&
                        IsRead(*added, {GGML_OP_RMS_NORM, GGML_OP_NORM, kOpFusedRmsNorm});
  return left_out ? added : nullptr;
}

// Rows of the table of embeddings, where a norm that was left out behind them leaves its name there.
const Node* Finder::FindEmbeddings() const {
  for (const Node& node : nodes_)
    if (node.op == GGML_OP_GET_ROWS && std::strcmp(node.tensor->src[0]->name, "token_embd.weight") == 0)
      return IsRead(node, {GGML_OP_SCALE}) ? nullptr : &node;
  return nullptr;
}

// What joins the heads of what the softmax weighs: a norm that was left out behind it leaves its name there.
const Node* Finder::FindContext(int layer) const {
  const Node* softmax = FindSoftmax(layer);
  for (const Node& sum : nodes_) {
    if (!softmax || sum.op != GGML_OP_MUL_MAT || SkipViews(sum.tensor->src[1]) != softmax->tensor) continue;
    for (const Node& node : nodes_)
      if (node.op == GGML_OP_CONT && SkipViews(node.tensor->src[0]) == sum.tensor) return &node;
  }
  return nullptr;
}

// The layer's last sum, where the norm behind it was left out.
const Node* Finder::FindLayerSum(int layer) const {
  const Node* residual = FindStage(PB_STAGE_ATTN_RESIDUAL, layer).node;  // itself what is left of a sum, perhaps
  const Node* network = nullptr;
  for (const pb_stage stage : {PB_STAGE_FFN_POST_NORM, PB_STAGE_FFN_OUT, PB_STAGE_EXPERT_SUM, PB_STAGE_DOWN_PROJ})
    if (!network) network = FindStage(stage, layer).node;
  if (!residual || !network) return nullptr;
  for (const Node& node : nodes_)
    for (int i : {0, 1})
      if (node.op == GGML_OP_ADD && SkipViews(node.tensor->src[i]) == network->tensor &&
          SkipChoice(node.tensor->src[1 - i]) == residual->tensor)
        return &node;
  return FindUnadded(residual, network);
}

bool Finder::HasNoGate() const {
  const auto is_glu = [](const Node& n) { return n.op == kOpGlu || n.op == kOpFusedMulUnary; };
  if (std::any_of(nodes_.begin(), nodes_.end(), is_glu)) return false;
  bool up = false, gate = false;
  for (int layer = 0; layer < static_cast<int>(dims_.n_layers); ++layer) {
    up |= FindStage(PB_STAGE_UP_PROJ, layer).node != nullptr;
    gate |= FindStage(PB_STAGE_GATE_PROJ, layer).node != nullptr;
  }
  return up && !gate;
}

// The last op of the activation of a network without a gate.
const Node* Finder::FindActivation(int layer) const {
  const Node* at = FindStage(PB_STAGE_UP_PROJ, layer).node;
  bool activated = false;
  for (const Node* next = at; next;) {
    at = next, next = nullptr;
    for (const Node& node : nodes_)
      if ((node.op == GGML_OP_UNARY || node.op == GGML_OP_SQR) && SkipViews(node.tensor->src[0]) == at->tensor) next = &node;
    activated |= next != nullptr;
  }
  return activated ? at : nullptr;
}

// Activation and product in one op, under no name or another's.
const Node* Finder::FindGated(pb_stage gate, pb_stage up, int layer) const {
  const Found found[] = {FindStage(gate, layer), FindStage(up, layer)};
  if (!found[0].node || !found[1].node) return nullptr;
  for (const Node& node : nodes_)
    if ((node.op == kOpFusedMulUnary || node.op == kOpGlu) && SkipViews(node.tensor->src[0]) == found[0].node->tensor &&
        SkipViews(node.tensor->src[1]) == found[1].node->tensor)
      return &node;
  return nullptr;
}

// The norm by a stage's weight, whatever its name: `fused` with it in one op, else multiplied by it.
const Node* Finder::FindNorm(pb_stage stage, int layer, bool fused) const {
  if (!stages::Of(stage).weight.tensor) return nullptr;
  const std::string weight = stages::TensorName(stage, layer);
  for (const Node& node : nodes_) {
    const ggml_tensor* t = node.tensor;
    const ggml_tensor* norm = fused ? t : t->src[0];
    if (node.op != (fused ? kOpFusedRmsNorm : GGML_OP_MUL) || !t->src[1] || weight != t->src[1]->name) continue;
    if (IsNorm(norm->op) && !(stage == PB_STAGE_ATTN_POST_NORM && IsOfSum(*norm))) return fused ? &node : WithBias(&node);
  }
  return nullptr;
}

// The sum of that and what enters the layer.
const Node* Finder::FindAttentionSum(int layer) const {
  const Node* added = FindStage(PB_STAGE_ATTN_POST_NORM, layer).node;
  if (!added) added = FindStage(PB_STAGE_ATTN_OUT, layer).node;
  const Node* before = Before(layer);
  if (!added && before) return FindSumBeforeNetwork(layer, *before);
  if (!added || !before) return nullptr;
  for (const Node& node : nodes_) {
    if (node.op != GGML_OP_ADD || node.tensor->src[1]->op == GGML_OP_NONE) continue;
    for (int i : {0, 1}) {
      const bool enters = Shows(node.tensor->src[1 - i], *before);
      if (enters && SkipChoice(node.tensor->src[i]) == added->tensor) return &node;
    }
  }
  return FindUnadded(before, added);
}

// In a layer that mixes tokens in another way: what the norm before its network reads, where that adds to what enters.
const Node* Finder::FindSumBeforeNetwork(int layer, const Node& before) const {
  const Node* norm = FindStage(PB_STAGE_FFN_NORM, layer).node;
  if (!norm) return nullptr;
  const ggml_tensor* op = IsNorm(norm->op) ? norm->tensor : SkipViews(norm->tensor->src[0]);
  const ggml_tensor* sum = op && IsNorm(op->op) && IsOfSum(*op) ? SkipChoice(op->src[0]) : nullptr;
  return sum && (Shows(sum->src[0], before) || Shows(sum->src[1], before)) ? NodeOf(sum) : nullptr;
}

// What enters a layer.
const Node* Finder::Before(int layer) const {
  return layer > 0 ? FindStage(PB_STAGE_LAYER_OUT, layer - 1).node : FindStage(PB_STAGE_EMBEDDINGS, -1).node;
}

// Queries, keys and values that are views of one product; gate and up that one op reads as halves of one product.
Found Finder::FindPart(const StageRule& rule, int layer) const {
  switch (rule.stage) {
    case PB_STAGE_Q_PROJ:
      return FindView("Qcur", layer);
    case PB_STAGE_K_PROJ:
      return FindView("Kcur", layer);
    case PB_STAGE_V_PROJ:
      return FindView("Vcur", layer);
    case PB_STAGE_GATE_PROJ:
      return FindHalf(layer, false);
    case PB_STAGE_UP_PROJ:
      return FindHalf(layer, true);
    case PB_STAGE_ATTN_CONTEXT:
      return {FindTurnedBack(layer), {}};
    case PB_STAGE_EXPERT_WEIGHTS:
      return {FindChosenSoftmax(layer), {}};
    default:
      // Its name may be its input's.
      if (stages::Of(rule.stage).group == stages::Group::kNorm) return {FindNorm(rule.stage, layer, true), {}};
      return {};
  }
}

// The softmax of the chosen experts' logits, whose reshaped form alone has a name; where nothing follows it.
const Node* Finder::FindChosenSoftmax(int layer) const {
  if (Find("ffn_moe_weights_norm", layer, GGML_OP_DIV) || Find("ffn_moe_weights_scaled", layer, GGML_OP_SCALE))
    return nullptr;
  const Node* shown = Find("ffn_moe_weights_softmax", layer, GGML_OP_RESHAPE);
  return shown ? NodeOf(SkipViews(shown->tensor)) : nullptr;
}

// A cache of blocks holds keys and values that were multiplied with an orthogonal matrix, which spreads outliers; the context is
// what comes out of the inverse.
const Node* Finder::FindTurnedBack(int layer) const {
  const Node* turned = Find("kqv_out", layer, GGML_OP_RESHAPE);
  for (const Node& node : nodes_)
    if (turned && IsTurn(node.tensor, "attn_inp_v_rot") &&
        SkipViews(node.tensor->src[1]) == SkipViews(turned->tensor))
      return &node;
  return nullptr;
}

// What a view of this name shows of the rows of another node, if that is a run of columns.
Found Finder::FindView(const char* base, int layer) const {
  const Node* view = Find(base, layer, GGML_OP_VIEW);
  const ggml_tensor* whole = view ? SkipViews(view->tensor) : nullptr;
  const Node* node = whole ? NodeOf(whole) : nullptr;
  if (!node || whole->type != GGML_TYPE_F32 || !ggml_is_contiguous(whole)) return {};
  const ggml_tensor* v = view->tensor;
  const size_t offset = v->view_offs - whole->view_offs;
  const int64_t n = v->ne[0] * v->ne[1];
  const bool heads_in_turn =
      v->nb[0] == sizeof(float) && v->nb[1] == v->nb[0] * static_cast<size_t>(v->ne[0]);
  if (!heads_in_turn || v->nb[2] != whole->nb[1] || n >= whole->ne[0]) return {};
  return {node, {static_cast<int64_t>(offset / sizeof(float)), n}};
}

// The first half of what a gated op reads passes through the activation, unless it says that they are swapped.
Found Finder::FindHalf(int layer, bool up) const {
  const Node* glu = nullptr;
  for (const Node& node : nodes_)
    if (node.layer == layer && node.op == kOpGlu && !node.tensor->src[1]) glu = &node;
  const ggml_tensor* whole = glu ? SkipViews(glu->tensor->src[0]) : nullptr;
  const Node* node = whole ? NodeOf(whole) : nullptr;
  if (!node || whole->ne[0] != 2 * glu->tensor->ne[0] || !ggml_is_contiguous(whole)) return {};
  const bool swapped = glu->tensor->op_params[1] != 0;
  const int64_t n = glu->tensor->ne[0];
  return {node, {up != swapped ? n : 0, n}};
}

const Node* Finder::NodeOf(const ggml_tensor* tensor) const {
  const auto at = std::find_if(nodes_.begin(), nodes_.end(), [&](const Node& n) { return n.tensor == tensor; });
  return at == nodes_.end() ? nullptr : &*at;
}

}  // namespace pb::llama_cpp
