// Applies the declared table of tracepoints to the graph that a warm-up evaluation showed.
#include "llama_cpp/graph.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "llama_cpp/stage_table.h"
#include "stages/stages.h"

namespace pb::llama_cpp {
namespace {

// A node, or columns of it, that serves as a stage.
struct Found {
  const Node* node = nullptr;
  Columns columns = {};
};

Form FormOf(pb_stage stage) {
  if (stage == PB_STAGE_ATTN_SCORES) return Form::kScores;
  if (stage == PB_STAGE_ATTN_SCORES_SOFTMAX) return Form::kWeights;
  if (stage == PB_STAGE_EXPERT_IDS) return Form::kIds;
  return stages::Of(stage).row.heads() == stages::Dim::kOne ? Form::kRows : Form::kHeads;
}

float FloatParam(const ggml_tensor* tensor, int index) {
  float value;
  std::memcpy(&value, &tensor->op_params[index], sizeof value);
  return value;
}

// Applies the table to one graph, stage by stage.
class Mapper {
 public:
  Mapper(const GraphRecorder& recorder, const Dims& dims) : nodes_(recorder.nodes()), dims_(dims) {}

  GraphMap Run() {
    Observe();
    is_plain_ = IsPlain();
    for (const StageRule& rule : Table()) MapStage(rule);
    // Of a node that serves as two stages, as where an op was left out, the first comes first.
    for (auto& [key, rules] : map_.rules)
      std::stable_sort(rules.begin(), rules.end(), [](const PointRule& a, const PointRule& b) {
        return stages::Order(a.stage, a.layer) < stages::Order(b.stage, b.layer);
      });
    MarkParts();
    MarkApart();
    for (auto& [key, rules] : map_.rules) {
      for (PointRule& rule : rules) {
        MapInputs(&rule, by_key_.at(key));
        MapSteps(&rule, by_key_.at(key));
      }
    }
    for (const auto& [key, rules] : map_.rules) {
      for (const PointRule& rule : rules)
        for (size_t i = 0; i < rule.inputs.size(); ++i)
          map_.entries[rule.inputs[i].entry].push_back({&rule, i});
    }
    return std::move(map_);
  }

 private:
  // The last node of a name, layer and op; nullptr when there is none.
  const Node* Find(const char* base, int layer, ggml_op op) const {
    const Node* found = nullptr;
    for (const Node& node : nodes_) {
      if (node.layer == layer && node.op == op && node.base == base) found = &node;
    }
    return found;
  }

  static bool IsNorm(ggml_op op) { return op == GGML_OP_RMS_NORM || op == GGML_OP_NORM || op == kOpFusedRmsNorm; }

  // Of the scores; the table has its names.
  const Node* FindSoftmax(int layer) const { return FindStage(PB_STAGE_ATTN_SCORES_SOFTMAX, layer).node; }

  // Part of a fused product where the graph has one, else a node of its own.
  Found FindAny(const StageRule& rule, int layer) const {
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

  Found FindStage(pb_stage stage, int layer) const {
    for (const StageRule& rule : Table())
      if (rule.stage == stage) return FindAny(rule, layer);
    return {};
  }

  // Whether a node of a name that several stages have is this one: the sum of experts and shared expert is called as a network's
  // output is, and one architecture calls the norm before its network as others call that behind attention.
  bool Serves(const Node& node, pb_stage stage) const {
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
  const Node* FindAttentionOutput(int layer) const {
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
  const Node* FindProduct(pb_stage stage, int layer) const {
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
  const Node* WithBias(const Node* at) const {
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
  Found FindRotated(pb_stage norm, pb_stage product, int layer) const {
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
  bool EntersAttention(const Node& node) const {
    return std::any_of(nodes_.begin(), nodes_.end(), [&](const Node& n) {
      const auto reads = [&](int i) { return n.tensor->src[i] && SkipViews(n.tensor->src[i]) == node.tensor; };
      const auto is_keys = [](const ggml_tensor* t) { return t && std::strncmp(t->name, "cache_k_l", 9) == 0; };
      if (n.op == GGML_OP_MUL_MAT) return reads(1) && is_keys(SkipViews(n.tensor->src[0]));
      if (n.op == GGML_OP_FLASH_ATTN_EXT) return reads(0);
      return (n.op == kOpSetRows || n.op == GGML_OP_CPY) && reads(0) && is_keys(n.tensor->view_src);
    });
  }

  // A norm that the file has a weight for and the graph has no op for: what it would read, where what would read the norm reads that.
  Found FindUnnormed(pb_stage norm, int layer) const {
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
  bool IsRead(const Node& node, std::initializer_list<ggml_op> by) const {
    return std::any_of(nodes_.begin(), nodes_.end(), [&](const Node& n) {
      return std::find(by.begin(), by.end(), n.op) != by.end() &&
             std::any_of(std::begin(n.tensor->src), std::end(n.tensor->src),
                         [&](const ggml_tensor* read) { return read && (SkipViews(read) == node.tensor || SkipChoice(read) == node.tensor); });
    });
  }

  // What would be added to a residual stream that no sum reads any more: a sum that was left out.
  const Node* FindUnadded(const Node* stream, const Node* added) const {
    const bool left_out = stream && added && !IsRead(*stream, {GGML_OP_ADD}) &&
                          IsRead(*added, {GGML_OP_RMS_NORM, GGML_OP_NORM, kOpFusedRmsNorm});
    return left_out ? added : nullptr;
  }

  // Rows of the table of embeddings, where a norm that was left out behind them leaves its name there.
  const Node* FindEmbeddings() const {
    for (const Node& node : nodes_)
      if (node.op == GGML_OP_GET_ROWS && std::strcmp(node.tensor->src[0]->name, "token_embd.weight") == 0)
        return IsRead(node, {GGML_OP_SCALE}) ? nullptr : &node;
    return nullptr;
  }

  // What joins the heads of what the softmax weighs: a norm that was left out behind it leaves its name there.
  const Node* FindContext(int layer) const {
    const Node* softmax = FindSoftmax(layer);
    for (const Node& sum : nodes_) {
      if (!softmax || sum.op != GGML_OP_MUL_MAT || SkipViews(sum.tensor->src[1]) != softmax->tensor) continue;
      for (const Node& node : nodes_)
        if (node.op == GGML_OP_CONT && SkipViews(node.tensor->src[0]) == sum.tensor) return &node;
    }
    return nullptr;
  }

  // The layer's last sum, where the norm behind it was left out.
  const Node* FindLayerSum(int layer) const {
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

  // Whether the network has no gate: what it activates is what enters it, and nothing is multiplied with it.
  bool IsPlain() const {
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
  const Node* FindActivation(int layer) const {
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
  const Node* FindGated(pb_stage gate, pb_stage up, int layer) const {
    const Found found[] = {FindStage(gate, layer), FindStage(up, layer)};
    if (!found[0].node || !found[1].node) return nullptr;
    for (const Node& node : nodes_)
      if ((node.op == kOpFusedMulUnary || node.op == kOpGlu) && SkipViews(node.tensor->src[0]) == found[0].node->tensor &&
          SkipViews(node.tensor->src[1]) == found[1].node->tensor)
        return &node;
    return nullptr;
  }

  // Whether a norm reads a sum of two streams: by the weight, or the name, that stands behind attention elsewhere it is then the one
  // before the network.
  static bool IsOfSum(const ggml_tensor& norm) {
    const ggml_tensor* read = SkipChoice(norm.src[0]);
    return read && read->op == GGML_OP_ADD && SkipViews(read->src[1])->op != GGML_OP_NONE;
  }

  // The norm by a stage's weight, whatever its name: `fused` with it in one op, else multiplied by it.
  const Node* FindNorm(pb_stage stage, int layer, bool fused) const {
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
  const Node* FindAttentionSum(int layer) const {
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
  const Node* FindSumBeforeNetwork(int layer, const Node& before) const {
    const Node* norm = FindStage(PB_STAGE_FFN_NORM, layer).node;
    if (!norm) return nullptr;
    const ggml_tensor* op = IsNorm(norm->op) ? norm->tensor : SkipViews(norm->tensor->src[0]);
    const ggml_tensor* sum = op && IsNorm(op->op) && IsOfSum(*op) ? SkipChoice(op->src[0]) : nullptr;
    return sum && (Shows(sum->src[0], before) || Shows(sum->src[1], before)) ? NodeOf(sum) : nullptr;
  }

  // Chosen rows are compared by what they are chosen of; the embeddings are themselves a choice.
  static bool Shows(const ggml_tensor* tensor, const Node& node) {
    return SkipViews(tensor) == node.tensor || SkipChoice(tensor) == node.tensor;
  }

  // What enters a layer.
  const Node* Before(int layer) const {
    return layer > 0 ? FindStage(PB_STAGE_LAYER_OUT, layer - 1).node : FindStage(PB_STAGE_EMBEDDINGS, -1).node;
  }

  // What rows were chosen of, where only some need logits.
  static const ggml_tensor* SkipChoice(const ggml_tensor* tensor) {
    tensor = SkipViews(tensor);
    return tensor && tensor->op == GGML_OP_GET_ROWS ? SkipViews(tensor->src[0]) : tensor;
  }

  // Queries, keys and values that are views of one product; gate and up that one op reads as halves of one product.
  Found FindPart(const StageRule& rule, int layer) const {
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
  const Node* FindChosenSoftmax(int layer) const {
    if (Find("ffn_moe_weights_norm", layer, GGML_OP_DIV) || Find("ffn_moe_weights_scaled", layer, GGML_OP_SCALE))
      return nullptr;
    const Node* shown = Find("ffn_moe_weights_softmax", layer, GGML_OP_RESHAPE);
    return shown ? NodeOf(SkipViews(shown->tensor)) : nullptr;
  }

  // A cache of blocks holds keys and values that were multiplied with an orthogonal matrix, which spreads outliers; the context is
  // what comes out of the inverse.
  const Node* FindTurnedBack(int layer) const {
    const Node* turned = Find("kqv_out", layer, GGML_OP_RESHAPE);
    for (const Node& node : nodes_)
      if (turned && IsTurn(node.tensor, "attn_inp_v_rot") &&
          SkipViews(node.tensor->src[1]) == SkipViews(turned->tensor))
        return &node;
    return nullptr;
  }

  static bool IsTurn(const ggml_tensor* t, const char* matrix) {
    return t->op == GGML_OP_MUL_MAT && t->src[0] && std::strcmp(t->src[0]->name, matrix) == 0;
  }

  // What a view of this name shows of the rows of another node, if that is a run of columns.
  Found FindView(const char* base, int layer) const {
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
  Found FindHalf(int layer, bool up) const {
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

  stages::ModelShape ShapeOfModel() const {
    stages::ModelShape shape;
    shape.d_model = dims_.d_model, shape.n_heads = dims_.n_heads, shape.n_kv_heads = dims_.n_kv_heads;
    shape.head_dim = dims_.head_dim, shape.n_experts = dims_.n_experts;
    shape.n_experts_used = dims_.n_experts_used, shape.d_ff_expert = dims_.d_ff_expert;
    return shape;
  }
  // Heads, or chosen experts, of a row, and the values of one.
  int64_t HeadsOf(pb_stage stage) const { return stages::RowHeads(stage, ShapeOfModel()); }
  int64_t HeadDimOf(pb_stage stage) const {
    return stages::RowWidth(stage, ShapeOfModel(), 1) / std::max<int64_t>(HeadsOf(stage), 1);
  }

  // Why a node cannot serve as this stage; empty when it can.
  std::string Unfit(const StageRule& rule, const Found& found) const {
    const Node& node = *found.node;
    const Form form = FormOf(rule.stage);
    if (stages::kExperts.Contains(rule.stage) && (dims_.n_experts == 0 || dims_.n_experts_used == 0))
      return "the graph does not show how many experts there are, and how many a token uses";
    if (form == Form::kIds && node.tensor->type != GGML_TYPE_I32) return node.name + " is not i32";
    if (form != Form::kIds && node.tensor->type != GGML_TYPE_F32) return node.name + " is not f32";
    const int64_t n = found.columns.n > 0 ? found.columns.n : ggml_nelements(node.tensor);
    if (form == Form::kHeads && n != HeadsOf(rule.stage) * HeadDimOf(rule.stage))
      return node.name + " has " + std::to_string(n) + " values a row, not heads x head_dim";
    if (form != Form::kScores && form != Form::kWeights) return "";
    const Node* softmax = FindSoftmax(node.layer);
    if (!softmax || FloatParam(softmax->tensor, 1) != 0) return "the softmax adds a bias of its own";
    const ggml_tensor* scores = SkipViews(softmax->tensor->src[0]);
    if (scores->op == GGML_OP_MUL_MAT && SkipViews(scores->src[0])->op == GGML_OP_CONCAT)
      return "its keys are those of several caches";
    if (form == Form::kScores && SkipViews(softmax->tensor->src[0]) != node.tensor) {
      return "other ops stand between the product and the softmax";
    }
    return "";
  }

  PointRule MakeRule(const StageRule& rule, const Found& found, int layer) const {
    const Node& node = *found.node;
    PointRule made;
    made.stage = rule.stage;
    made.layer = layer;
    made.occurrence = node.occurrence;
    made.shape = {FormOf(rule.stage), HeadsOf(rule.stage), HeadDimOf(rule.stage), 1, found.columns};
    if (made.shape.form == Form::kIds) made.shape.columns = {0, dims_.n_experts_used};
    if (rule.stage == PB_STAGE_EXPERT_WEIGHTS) made.shape.width = dims_.n_experts_used;
    if (made.shape.form == Form::kScores) {
      made.shape.scale = FloatParam(FindSoftmax(node.layer)->tensor, 0);
    }
    return made;
  }

  // A stage is observed in the layers that show it, and declared where none does.
  void MapStage(const StageRule& rule) {
    if (is_plain_ && (rule.stage == PB_STAGE_GATE_PROJ || rule.stage == PB_STAGE_FFN_ACT)) return;  // absent
    const bool per_layer = stages::Of(rule.stage).per_layer;
    const int first = per_layer ? 0 : -1, end = per_layer ? static_cast<int>(dims_.n_layers) : 0;
    std::vector<Found> found;
    for (int layer = first; layer < end; ++layer) found.push_back(FindAny(rule, layer));
    const auto is_there = [](const Found& one) { return one.node != nullptr; };
    if (stages::Of(rule.stage).group == stages::Group::kNorm)
      for (size_t i = 0; i < found.size(); ++i)
        if (!found[i].node) found[i] = FindUnnormed(rule.stage, first + static_cast<int>(i));
    const bool exists = std::any_of(found.begin(), found.end(), is_there);
    std::string reason;
    std::vector<Visibility::Layer> layers;
    for (size_t i = 0; i < found.size(); ++i) {
      const Found& one = found[i];
      const int layer = first + static_cast<int>(i);
      const std::string why = is_there(one) ? Unfit(rule, one) : "";
      if (reason.empty()) reason = why;
      if (!is_there(one) || !why.empty()) continue;
      layers.push_back({layer});
      map_.rules[one.node->key].push_back(MakeRule(rule, one, layer));
      by_key_[one.node->key] = one.node;
      are_points_.insert(one.node->tensor);
    }
    Visibility& visible = map_.stages[rule.stage];
    if (layers.size() == found.size()) {
      visible = {PB_OBSERVED, ""};
    } else if (!layers.empty()) {
      visible = {PB_OBSERVED, reason.empty() ? WhyMissing(rule.stage) : reason, layers};
    } else if (!exists && stages::Of(rule.stage).optional && !IsInside(rule.stage)) {
      visible = {PB_ABSENT, ""};
    } else {
      visible = {PB_UNOBSERVABLE, reason.empty() ? WhyMissing(rule.stage) : reason};
    }
  }

  // Whether the graph has a network of which a stage is a part, so that what is not found is computed inside another op of
  // it.
  bool IsInside(pb_stage stage) const {
    const auto any = [this](const char* name, ggml_op op) {
      return std::any_of(nodes_.begin(), nodes_.end(),
                         [&](const Node& node) { return node.op == op && node.base == name; });
    };
    if (stages::kExperts.Contains(stage)) return any("ffn_moe_argsort", GGML_OP_ARGSORT);
    if (!stages::kDense.Contains(stage)) return false;
    return any("ffn_up", GGML_OP_MUL_MAT) || any("ffn_gate", GGML_OP_MUL_MAT) ||
           !any("ffn_moe_argsort", GGML_OP_ARGSORT);
  }

  // Declared steps, and products whose stage ends at a later node (bias, scale).
  void MarkParts() {
    // Between the router's logits, the choice, and the sum of what was chosen.
    constexpr stages::Set kOfSeveral = stages::kExpertProducts | stages::Set{PB_STAGE_EXPERT_IDS, PB_STAGE_EXPERT_WEIGHTS,
                                                                             PB_STAGE_EXPERT_SUM, PB_STAGE_SHARED_OUT};
    for (const auto& [key, rules] : map_.rules)
      for (const PointRule& rule : rules)
        if (kOfSeveral.Contains(rule.stage)) MarkSources(*by_key_.at(key));
    const auto is = [](const Node& node, const Alternative& a) {
      return node.op == a.op && (*a.base == '\0' || node.base == a.base);
    };
    for (const Node& node : nodes_) {
      if (map_.rules.count(node.key)) continue;
      // What a fused product is before its bias or clamp.
      if (node.base.rfind("wqkv", 0) == 0 && map_.stages[PB_STAGE_Q_PROJ].visibility == PB_OBSERVED)
        map_.parts.insert(node.key);
      bool part =
          std::any_of(Parts().begin(), Parts().end(), [&](const Alternative& a) { return is(node, a); });
      for (const StageRule& rule : Table()) {
        if (map_.stages[rule.stage].visibility != PB_OBSERVED) continue;
        for (const Alternative& a : rule.alternatives) part |= is(node, a);
      }
      if (part) map_.parts.insert(node.key);
    }
  }

  // Points between which and the points, weights and caches that they read more is computed than they are themselves.
  void MarkApart() {
    std::array<std::vector<int>, PB_STAGE_COUNT> apart;
    for (const auto& [key, rules] : map_.rules) {
      std::unordered_set<const ggml_tensor*> known;
      int n_ops = 0;
      CountOps(*by_key_.at(key), &known, &n_ops);
      for (const PointRule& rule : rules)
        if (n_ops > MostOps(static_cast<pb_stage>(rule.stage))) apart[static_cast<size_t>(rule.stage)].push_back(rule.layer);
    }
    for (size_t s = 0; s < apart.size(); ++s) {
      if (apart[s].empty()) continue;
      std::vector<Visibility::Layer>& layers = map_.stages[s].layers;
      const bool per_layer = stages::Of(static_cast<int32_t>(s)).per_layer;
      if (layers.empty() && !per_layer) layers.push_back({-1});
      if (layers.empty())
        for (int layer = 0; layer < static_cast<int>(dims_.n_layers); ++layer) layers.push_back({layer});
      for (Visibility::Layer& layer : layers)
        layer.apart = std::find(apart[s].begin(), apart[s].end(), layer.layer) != apart[s].end();
    }
    for (int32_t s = 0; s < PB_STAGE_COUNT; ++s) {
      const Visibility& v = map_.stages[static_cast<size_t>(s)];
      const bool inside = stages::kActivations.Contains(s) ||
                          (map_.observed.flash && (s == PB_STAGE_ATTN_SCORES || s == PB_STAGE_ATTN_SCORES_SOFTMAX));
      map_.has_holes |= !v.layers.empty() || (v.visibility == PB_UNOBSERVABLE && !inside);
    }
  }

  // Ops that are work (WorkOf), from a node inwards to the next points; through the caches too that it reads.
  void CountOps(const Node& node, std::unordered_set<const ggml_tensor*>* known, int* n) const {
    *n += WorkOf(node.tensor);
    for (const ggml_tensor* read : node.tensor->src) {
      const ggml_tensor* source = SkipViews(read);
      if (!source || are_points_.count(source) || !known->insert(source).second) continue;
      if (const Node* next = NodeOf(source)) CountOps(*next, known, n);
      const bool cache = source->op == GGML_OP_NONE && std::strncmp(source->name, "cache_", 6) == 0;
      for (const Node& filler : nodes_)
        if (cache && (filler.op == kOpSetRows || filler.op == GGML_OP_CPY) && filler.tensor->view_src == source &&
            known->insert(filler.tensor).second)
          CountOps(filler, known, n);
    }
  }

  // The nodes between a point and those that it reads.
  void MarkSources(const Node& node) {
    for (const ggml_tensor* read : node.tensor->src) {
      const ggml_tensor* source = SkipViews(read);
      const Node* next = source && !are_points_.count(source) ? NodeOf(source) : nullptr;
      if (next && map_.parts.insert(next->key).second) MarkSources(*next);
    }
  }

  std::string WhyMissing(pb_stage stage) const {
    if (map_.observed.flash && (stage == PB_STAGE_ATTN_SCORES || stage == PB_STAGE_ATTN_SCORES_SOFTMAX)) {
      return "flash attention computes scores, softmax and weighted sum in one op";
    }
    if (stages::kActivations.Contains(stage)) {
      const bool of_experts = stage == PB_STAGE_EXPERT_ACT;
      for (const Node& node : nodes_) {
        if ((node.op == kOpGlu || node.op == kOpFusedMulUnary) && (node.base.rfind("ffn_moe", 0) == 0) == of_experts)
          return "the op " + node.op_name + " computes activation and product together";
      }
    }
    return "no node of this graph is known to be it";
  }

  // What a point reads: a stage of a layer; keys or values of all positions come from the cache.
  struct Wanted {
    pb_stage stage;
    int32_t layer;
    bool all_positions;
  };

  // All inputs of a point, or none.
  void MapInputs(PointRule* rule, const Node* node) {
    const auto see = [this](pb_stage s) { return map_.stages[s].visibility; };
    const auto n_layers = static_cast<int32_t>(dims_.n_layers);
    for (const stages::Input& read : stages::InputsOf(static_cast<pb_stage>(rule->stage), see)) {
      const int32_t layer = read.Layer(rule->layer, n_layers);
      const bool entering = read.previous_layer && layer < 0;
      const Wanted wanted{entering ? PB_STAGE_EMBEDDINGS : read.stage, layer, read.all_positions};
      InputRule input;
      input.stage = wanted.stage;
      input.from_cache = wanted.all_positions;
      const char* turn = wanted.stage == PB_STAGE_K_ROPE ? "attn_inp_k_rot" : "attn_inp_v_rot";
      const bool turned =
          std::any_of(nodes_.begin(), nodes_.end(), [&](const Node& n) { return IsTurn(n.tensor, turn); });
      if (wanted.all_positions && turned) return rule->inputs.clear();  // the cache holds other values
      // The cache holds values transposed, but for flash attention.
      input.cache_transposed = wanted.stage == PB_STAGE_V_PROJ && !map_.observed.flash;
      const ggml_tensor* source = FindReader(*node, wanted, 0, &input);
      if (!source) {
        rule->inputs.clear();
        return;
      }
      if (input.from_cache) map_.caches.insert(source);
      rule->inputs.push_back(input);
    }
  }

  // Follows the first source from a point's node inwards, until another point, a weight, the cache, or a choice of rows.
  void MapSteps(PointRule* rule, const Node* node) const {
    std::unordered_set<std::string> keys;
    while (node) {
      keys.insert(node->key);
      rule->steps.insert(rule->steps.begin(), *node->tensor);
      const ggml_tensor* source = SkipViews(node->tensor->src[0]);
      node =
          source && !are_points_.count(source) && source->op != GGML_OP_GET_ROWS ? NodeOf(source) : nullptr;
    }
    // An input that passes through another op first, as queries that are scaled before their product.
    for (const InputRule& input : rule->inputs)
      if (!keys.count(input.entry)) rule->not_replayable = input.entry + " stands between it and its input";
  }

  // Walks from a point's node towards its sources, through nodes that are no tracepoints, to the one that
  // reads the input. Returns what it reads; null: there is none.
  const ggml_tensor* FindReader(const Node& node, const Wanted& wanted, int depth, InputRule* out) const {
    if (depth > 6) return nullptr;
    for (int i = 0; i < GGML_MAX_SRC; ++i) {
      const ggml_tensor* source = SkipViews(node.tensor->src[i]);
      if (!source) continue;
      if (IsWanted(source, wanted)) {
        out->entry = node.key;
        out->src = i;
        if (const PointRule* at = RuleOf(source, wanted)) out->shape = at->shape;
        out->width = out->shape.columns.n > 0 ? out->shape.columns.n : source->ne[0];
        return source;
      }
      const Node* next = NodeOf(source);
      if (!next || are_points_.count(source)) continue;
      if (const ggml_tensor* read = FindReader(*next, wanted, depth + 1, out)) return read;
    }
    return nullptr;
  }

  bool IsWanted(const ggml_tensor* source, const Wanted& wanted) const {
    if (wanted.all_positions) {
      const char* prefix = wanted.stage == PB_STAGE_K_ROPE   ? "cache_k_l"
                           : wanted.stage == PB_STAGE_V_PROJ ? "cache_v_l"
                                                             : nullptr;
      return prefix && source->op == GGML_OP_NONE &&
             std::strncmp(source->name, prefix, std::strlen(prefix)) == 0;
    }
    return RuleOf(source, wanted) != nullptr;
  }

  // The rule by which a tensor is the stage that is wanted; nullptr where it is not.
  const PointRule* RuleOf(const ggml_tensor* tensor, const Wanted& wanted) const {
    const Node* node = are_points_.count(tensor) ? NodeOf(tensor) : nullptr;
    if (!node) return nullptr;
    for (const PointRule& rule : map_.rules.at(node->key))
      if (rule.stage == wanted.stage && (rule.layer == wanted.layer || !stages::Of(rule.stage).per_layer))
        return &rule;
    return nullptr;
  }

  const Node* NodeOf(const ggml_tensor* tensor) const {
    const auto at =
        std::find_if(nodes_.begin(), nodes_.end(), [&](const Node& n) { return n.tensor == tensor; });
    return at == nodes_.end() ? nullptr : &*at;
  }

  void Observe() {
    Observed& seen = map_.observed;
    for (const Node& node : nodes_) {
      const ggml_tensor* t = node.tensor;
      if (node.op == GGML_OP_FLASH_ATTN_EXT) seen.flash = true;
      if (IsNorm(node.op) && seen.norm_eps == 0) seen.norm_eps = FloatParam(t, 0);
      if (node.op == GGML_OP_ROPE) ObserveRope(t);
      if (node.op == GGML_OP_MUL && node.base == "Qcur_normed")
        seen.norms_rows = t->ne[0] != dims_.head_dim;
      if (seen.activation.empty()) seen.activation = ActivationOf(node);
      if (node.base == "ffn_moe_argsort" && node.op == GGML_OP_ARGSORT) seen.n_experts = t->ne[0];
      if (node.base == "ffn_moe_gate" && node.op == GGML_OP_MUL_MAT_ID)
        seen.d_ff_expert = t->ne[0], seen.n_experts_used = t->ne[1];
    }
    dims_.n_experts = seen.n_experts, dims_.n_experts_used = seen.n_experts_used;
    dims_.d_ff_expert = seen.d_ff_expert;
  }

  // ROPE's parameters as ggml.c packs them: 1 dims, 2 mode, 5 base, 6 scale.
  void ObserveRope(const ggml_tensor* t) {
    Observed& seen = map_.observed;
    const char* factors = t->src[2] ? t->src[2]->name : "";
    if (std::strcmp(factors, "rope_factors_long.weight") == 0) seen.rope_factors = "long";
    if (std::strcmp(factors, "rope_factors_short.weight") == 0) seen.rope_factors = "short";
    const int mode = t->op_params[2];
    seen.rope_dims = t->op_params[1];
    seen.rope_pairing = mode == 0                     ? "adjacent"
                        : mode == GGML_ROPE_TYPE_NEOX ? "halves"
                                                      : "mode " + std::to_string(mode);
    // Layers that see a window alone turn faster, by the smaller base.
    const float base = FloatParam(t, 5);
    if (seen.rope_base == 0) seen.rope_base = seen.local_rope_base = base, seen.rope_scale = FloatParam(t, 6);
    if (base > seen.rope_base) seen.rope_base = base, seen.rope_scale = FloatParam(t, 6);
    seen.local_rope_base = std::min(seen.local_rope_base, base);
  }

  static std::string ActivationOf(const Node& node) {
    if (node.op == kOpGlu) {
      static constexpr std::pair<std::string_view, const char*> kNames[] = {{"SWIGLU", "silu"},
                                                                            {"REGLU", "relu"},
                                                                            {"GEGLU", "gelu_tanh"},
                                                                            {"GEGLU_ERF", "gelu"},
                                                                            {"SWIGLU_OAI", "swiglu_oai"}};
      for (const auto& [op_name, activation] : kNames)
        if (node.op_name == op_name) return activation;
      return node.op_name;
    }
    if (node.op == kOpFusedMulUnary) {
      const auto op = static_cast<ggml_unary_op>(node.tensor->op_params[0]);
      return op == GGML_UNARY_OP_SILU   ? "silu"
             : op == GGML_UNARY_OP_RELU ? "relu"
             : op == GGML_UNARY_OP_GELU ? "gelu_tanh"
                                        : ggml_unary_op_name(op);
    }
    if (node.base == "ffn_sqr(relu)") return "relu2";
    if (node.base == "ffn_silu") return "silu";
    return "";
  }

  const std::vector<Node>& nodes_;
  Dims dims_;
  GraphMap map_;
  bool is_plain_ = false;  // the network has no gate
  std::unordered_map<std::string, const Node*> by_key_;
  std::unordered_set<const ggml_tensor*> are_points_;
};

}  // namespace

GraphMap MapGraph(const GraphRecorder& recorder, const Dims& dims) { return Mapper(recorder, dims).Run(); }

}  // namespace pb::llama_cpp
