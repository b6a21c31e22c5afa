// The declared table of tracepoints, and its application to the graph that a warm-up evaluation showed.
#include "llama_cpp/graph.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>

namespace pb::llama_cpp {
namespace {

enum class Width { kAny, kHeads, kKvHeads };

struct Alternative {
  const char* base;
  ggml_op op;
};

// One row of the table: the first alternative that the graph has is the stage.
struct StageRule {
  pb_stage stage;
  Form form;
  Width width;
  std::vector<Alternative> alternatives;
};

// Names as the reference's graph builder gives them (src/llama-graph.cpp, src/models/{llama,bitnet}.cpp of
// v0.5.0). A bias or a scale tensor adds a node behind the product, so those come first.
const std::vector<StageRule>& Table() {
  static const std::vector<StageRule> table = {
      {PB_STAGE_EMBEDDINGS, Form::kRows, Width::kAny, {{"embd", GGML_OP_SCALE}, {"embd", GGML_OP_GET_ROWS}}},
      {PB_STAGE_ATTN_NORM, Form::kRows, Width::kAny, {{"attn_norm", GGML_OP_MUL}}},
      {PB_STAGE_Q_PROJ,
       Form::kHeads,
       Width::kHeads,
       {{"Qcur", GGML_OP_ADD}, {"Qcur", GGML_OP_MUL}, {"Qcur", GGML_OP_MUL_MAT}}},
      {PB_STAGE_K_PROJ,
       Form::kHeads,
       Width::kKvHeads,
       {{"Kcur", GGML_OP_ADD}, {"Kcur", GGML_OP_MUL}, {"Kcur", GGML_OP_MUL_MAT}}},
      {PB_STAGE_V_PROJ,
       Form::kHeads,
       Width::kKvHeads,
       {{"Vcur", GGML_OP_ADD}, {"Vcur", GGML_OP_MUL}, {"Vcur", GGML_OP_MUL_MAT}}},
      {PB_STAGE_Q_NORM, Form::kHeads, Width::kHeads, {{"Qcur_normed", GGML_OP_MUL}}},
      {PB_STAGE_K_NORM, Form::kHeads, Width::kKvHeads, {{"Kcur_normed", GGML_OP_MUL}}},
      {PB_STAGE_Q_ROPE, Form::kHeads, Width::kHeads, {{"Qcur", GGML_OP_ROPE}}},
      {PB_STAGE_K_ROPE, Form::kHeads, Width::kKvHeads, {{"Kcur", GGML_OP_ROPE}}},
      {PB_STAGE_ATTN_SCORES, Form::kScores, Width::kAny, {{"kq", GGML_OP_MUL_MAT}}},
      {PB_STAGE_ATTN_SCORES_SOFTMAX, Form::kWeights, Width::kAny, {{"kq_soft_max", GGML_OP_SOFT_MAX}}},
      {PB_STAGE_ATTN_CONTEXT,
       Form::kHeads,
       Width::kHeads,
       {{"kqv_out", GGML_OP_CONT}, {"kqv_out", GGML_OP_RESHAPE}}},
      {PB_STAGE_ATTN_SUB_NORM, Form::kRows, Width::kAny, {{"attn_sub_norm", GGML_OP_MUL}}},
      {PB_STAGE_ATTN_OUT,
       Form::kRows,
       Width::kAny,
       {{"attn_out", GGML_OP_ADD}, {"attn_out", GGML_OP_MUL}, {"attn_out", GGML_OP_MUL_MAT}}},
      {PB_STAGE_ATTN_RESIDUAL, Form::kRows, Width::kAny, {{"ffn_inp", GGML_OP_ADD}}},
      {PB_STAGE_FFN_NORM, Form::kRows, Width::kAny, {{"ffn_norm", GGML_OP_MUL}}},
      {PB_STAGE_GATE_PROJ,
       Form::kRows,
       Width::kAny,
       {{"ffn_gate_s", GGML_OP_MUL}, {"ffn_gate_b", GGML_OP_ADD}, {"ffn_gate", GGML_OP_MUL_MAT}}},
      {PB_STAGE_UP_PROJ,
       Form::kRows,
       Width::kAny,
       {{"ffn_up_s", GGML_OP_MUL}, {"ffn_up_b", GGML_OP_ADD}, {"ffn_up", GGML_OP_MUL_MAT}}},
      {PB_STAGE_FFN_ACT,
       Form::kRows,
       Width::kAny,
       {{"ffn_sqr(relu)", GGML_OP_SQR}, {"ffn_silu", GGML_OP_UNARY}}},
      {PB_STAGE_FFN_GATED,
       Form::kRows,
       Width::kAny,
       {{"ffn_sub_out", GGML_OP_GLU},
        {"ffn_swiglu", GGML_OP_GLU},
        {"ffn_geglu", GGML_OP_GLU},
        {"ffn_reglu", GGML_OP_GLU}}},
      {PB_STAGE_FFN_SUB_NORM, Form::kRows, Width::kAny, {{"ffn_sub_norm", GGML_OP_MUL}}},
      {PB_STAGE_DOWN_PROJ,
       Form::kRows,
       Width::kAny,
       {{"ffn_down", GGML_OP_MUL},
        {"ffn_out", GGML_OP_MUL},
        {"ffn_out", GGML_OP_ADD},
        {"ffn_down", GGML_OP_MUL_MAT},
        {"ffn_out", GGML_OP_MUL_MAT}}},
      {PB_STAGE_LAYER_OUT, Form::kRows, Width::kAny, {{"l_out", GGML_OP_ADD}}},
      {PB_STAGE_FINAL_NORM, Form::kRows, Width::kAny, {{"result_norm", GGML_OP_MUL}}},
      {PB_STAGE_LOGITS,
       Form::kRows,
       Width::kAny,
       {{"result_output", GGML_OP_MUL}, {"result_output", GGML_OP_MUL_MAT}}},
  };
  return table;
}

// Steps within a stage: the norm before its weight, the weighted sum before heads are joined, the choice of
// rows that need logits, fused attention before its rows are named, and writing the KV cache. An empty name
// is any name.
const std::vector<Alternative>& Parts() {
  static const std::vector<Alternative> parts = {{"norm", GGML_OP_RMS_NORM},
                                                 {"kqv", GGML_OP_MUL_MAT},
                                                 {"", GGML_OP_GET_ROWS},
                                                 {"", GGML_OP_FLASH_ATTN_EXT},
                                                 {"", GGML_OP_SET_ROWS}};
  return parts;
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
    for (const StageRule& rule : Table()) MapStage(rule);
    MarkParts();
    for (auto& [key, rule] : map_.rules) {
      MapInputs(&rule, by_key_.at(key));
      MapSteps(&rule, by_key_.at(key));
    }
    for (const auto& [key, rule] : map_.rules) {
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

  const Node* FindAny(const StageRule& rule, int layer) const {
    for (const Alternative& a : rule.alternatives) {
      if (const Node* node = Find(a.base, layer, a.op)) return node;
    }
    return nullptr;
  }

  int64_t HeadsOf(Width width) const {
    return width == Width::kHeads ? dims_.n_heads : width == Width::kKvHeads ? dims_.n_kv_heads : 0;
  }

  // Why a node cannot serve as this stage; empty when it can.
  std::string Unfit(const StageRule& rule, const Node& node) const {
    if (node.tensor->type != GGML_TYPE_F32) return node.name + " is not f32";
    if (rule.form == Form::kHeads && ggml_nelements(node.tensor) != HeadsOf(rule.width) * dims_.head_dim) {
      return node.name + " has " + std::to_string(ggml_nelements(node.tensor)) +
             " values a row, not heads x head_dim";
    }
    if (rule.form != Form::kScores && rule.form != Form::kWeights) return "";
    const Node* softmax = Find("kq_soft_max", node.layer, GGML_OP_SOFT_MAX);
    if (!softmax || FloatParam(softmax->tensor, 1) != 0) return "the softmax adds a bias of its own";
    if (rule.form == Form::kScores && SkipViews(softmax->tensor->src[0]) != node.tensor) {
      return "other ops stand between the product and the softmax";
    }
    return "";
  }

  PointRule MakeRule(const StageRule& rule, const Node& node) const {
    PointRule made;
    made.stage = rule.stage;
    made.layer = node.layer;
    made.occurrence = node.occurrence;
    made.shape = {rule.form, HeadsOf(rule.width), dims_.head_dim, 1};
    if (rule.form == Form::kScores) {
      made.shape.scale = FloatParam(Find("kq_soft_max", node.layer, GGML_OP_SOFT_MAX)->tensor, 0);
    }
    return made;
  }

  // A stage is observed when every layer shows it, and declared otherwise.
  void MapStage(const StageRule& rule) {
    const bool per_layer = pb_vocabulary[rule.stage].per_layer != 0;
    const int first = per_layer ? 0 : -1, end = per_layer ? static_cast<int>(dims_.n_layers) : 0;
    std::vector<const Node*> found;
    std::string reason;
    for (int layer = first; layer < end; ++layer) {
      const Node* node = FindAny(rule, layer);
      if (!node) continue;
      reason = Unfit(rule, *node);
      if (!reason.empty()) break;
      found.push_back(node);
    }
    Visibility& visible = map_.stages[rule.stage];
    if (reason.empty() && static_cast<int>(found.size()) == end - first) {
      visible = {PB_OBSERVED, ""};
      for (const Node* node : found) {
        map_.rules.emplace(node->key, MakeRule(rule, *node));
        by_key_[node->key] = node;
        stage_of_[node->tensor] = {rule.stage, node->layer};
      }
    } else if (found.empty() && reason.empty() && pb_vocabulary[rule.stage].optional) {
      visible = {PB_ABSENT, ""};
    } else {
      visible = {PB_UNOBSERVABLE, reason.empty() ? WhyMissing(rule.stage) : reason};
    }
  }

  // Declared steps, and products whose stage ends at a later node (bias, scale).
  void MarkParts() {
    const auto is = [](const Node& node, const Alternative& a) {
      return node.op == a.op && (*a.base == '\0' || node.base == a.base);
    };
    for (const Node& node : nodes_) {
      if (map_.rules.count(node.key)) continue;
      bool part =
          std::any_of(Parts().begin(), Parts().end(), [&](const Alternative& a) { return is(node, a); });
      for (const StageRule& rule : Table()) {
        if (map_.stages[rule.stage].visibility != PB_OBSERVED) continue;
        for (const Alternative& a : rule.alternatives) part |= is(node, a);
      }
      if (part) map_.parts.insert(node.key);
    }
  }

  std::string WhyMissing(pb_stage stage) const {
    if (map_.observed.flash && (stage == PB_STAGE_ATTN_SCORES || stage == PB_STAGE_ATTN_SCORES_SOFTMAX)) {
      return "flash attention computes scores, softmax and weighted sum in one op";
    }
    if (stage == PB_STAGE_FFN_ACT) {
      for (const Node& node : nodes_) {
        if (node.op == GGML_OP_GLU)
          return "the op " + node.op_name + " computes activation and product together";
      }
    }
    return "no node of this graph is known to be it in every layer";
  }

  // Names of the vocabulary's inputs column for a point: the stage that serves, and whether all earlier
  // positions count.
  struct Wanted {
    int stage, layer;
    bool all_positions;
  };
  // In place of an unobservable stage stand its own inputs.
  void WantedInputs(int stage, int layer, std::vector<Wanted>* wanted) const {
    std::string_view rest = pb_vocabulary[stage].inputs;
    while (!rest.empty()) {
      const size_t space = rest.find(' ');
      const Wanted input = WantedInput(rest.substr(0, space), layer);
      rest = space == rest.npos ? "" : rest.substr(space + 1);
      if (input.stage >= 0 && map_.stages[input.stage].visibility == PB_UNOBSERVABLE) {
        WantedInputs(input.stage, input.layer, wanted);
      } else {
        wanted->push_back(input);
      }
    }
  }

  Wanted WantedInput(std::string_view text, int layer) const {
    Wanted out{PB_STAGE_UNMAPPED, layer, false};
    const auto take = [&](std::string_view suffix) {
      if (text.size() < suffix.size() || text.substr(text.size() - suffix.size()) != suffix) return false;
      return text.remove_suffix(suffix.size()), true;
    };
    out.all_positions = take("*");
    const bool before = take("@prev");
    const size_t bar = text.find('|');
    out.stage = StageNamed(text.substr(0, bar));
    if (bar != text.npos && map_.stages[out.stage].visibility == PB_ABSENT)
      out.stage = StageNamed(text.substr(bar + 1));
    if (before) {
      const int last = static_cast<int>(dims_.n_layers) - 1;
      out.layer = layer < 0 ? last : layer - 1;
      if (out.layer < 0) out.stage = PB_STAGE_EMBEDDINGS;
    }
    return out;
  }

  static int StageNamed(std::string_view name) {
    for (const pb_stage_info& info : pb_vocabulary) {
      if (name == info.name) return info.stage;
    }
    return PB_STAGE_UNMAPPED;
  }

  // All inputs of a point, or none.
  void MapInputs(PointRule* rule, const Node* node) const {
    std::vector<Wanted> all;
    WantedInputs(rule->stage, rule->layer, &all);
    for (const Wanted& wanted : all) {
      InputRule input;
      input.stage = wanted.stage;
      input.from_cache = wanted.all_positions;
      // The cache holds values transposed, but for flash attention.
      input.cache_transposed = wanted.stage == PB_STAGE_V_PROJ && !map_.observed.flash;
      if (wanted.stage < 0 || !FindReader(*node, wanted, 0, &input)) {
        rule->inputs.clear();
        return;
      }
      rule->inputs.push_back(input);
    }
  }

  // Follows the first source from a point's node inwards, until another point, a weight, the cache, or a choice of rows.
  void MapSteps(PointRule* rule, const Node* node) const {
    while (node) {
      rule->steps.insert(rule->steps.begin(), *node->tensor);
      const ggml_tensor* source = SkipViews(node->tensor->src[0]);
      node = source && !stage_of_.count(source) && source->op != GGML_OP_GET_ROWS ? NodeOf(source) : nullptr;
    }
  }

  // Walks from a point's node towards its sources, through nodes that are no tracepoints, to the one that
  // reads the input.
  bool FindReader(const Node& node, const Wanted& wanted, int depth, InputRule* out) const {
    if (depth > 6) return false;
    for (int i = 0; i < GGML_MAX_SRC; ++i) {
      const ggml_tensor* source = SkipViews(node.tensor->src[i]);
      if (!source) continue;
      if (IsWanted(source, wanted)) {
        out->entry = node.key;
        out->src = i;
        const Node* at = NodeOf(source);
        if (at) out->shape = map_.rules.at(at->key).shape;
        out->width = source->ne[0];
        return true;
      }
      const Node* next = NodeOf(source);
      if (next && !stage_of_.count(source) && FindReader(*next, wanted, depth + 1, out)) return true;
    }
    return false;
  }

  bool IsWanted(const ggml_tensor* source, const Wanted& wanted) const {
    if (wanted.all_positions) {
      const char* prefix = wanted.stage == PB_STAGE_K_ROPE ? "cache_k_l" : "cache_v_l";
      return source->op == GGML_OP_NONE && std::strncmp(source->name, prefix, std::strlen(prefix)) == 0;
    }
    const auto at = stage_of_.find(source);
    return at != stage_of_.end() && at->second.first == wanted.stage &&
           (at->second.second == wanted.layer || !pb_vocabulary[wanted.stage].per_layer);
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
      if (node.op == GGML_OP_RMS_NORM && seen.norm_eps == 0) seen.norm_eps = FloatParam(t, 0);
      if (node.op == GGML_OP_ROPE && seen.rope_pairing.empty()) ObserveRope(t);
      if (seen.activation.empty()) seen.activation = ActivationOf(node);
    }
  }

  // ROPE's parameters as ggml.c packs them: 1 dims, 2 mode, 5 base, 6 scale.
  void ObserveRope(const ggml_tensor* t) {
    Observed& seen = map_.observed;
    const int mode = t->op_params[2];
    seen.rope_dims = t->op_params[1];
    seen.rope_pairing = mode == 0                     ? "adjacent"
                        : mode == GGML_ROPE_TYPE_NEOX ? "halves"
                                                      : "mode " + std::to_string(mode);
    seen.rope_base = FloatParam(t, 5);
    seen.rope_scale = FloatParam(t, 6);
  }

  static std::string ActivationOf(const Node& node) {
    if (node.op == GGML_OP_GLU) {
      switch (ggml_get_glu_op(node.tensor)) {
        case GGML_GLU_OP_SWIGLU:
          return "silu";
        case GGML_GLU_OP_REGLU:
          return "relu";
        case GGML_GLU_OP_GEGLU:
          return "gelu_tanh";
        case GGML_GLU_OP_GEGLU_ERF:
          return "gelu";
        default:
          return node.op_name;
      }
    }
    if (node.base == "ffn_sqr(relu)") return "relu2";
    if (node.base == "ffn_silu") return "silu";
    return "";
  }

  const std::vector<Node>& nodes_;
  const Dims dims_;
  GraphMap map_;
  std::unordered_map<std::string, const Node*> by_key_;
  std::unordered_map<const ggml_tensor*, std::pair<int, int>> stage_of_;  // stage, layer
};

}  // namespace

std::string NodeKey(std::string_view name, std::string_view op, int occurrence) {
  std::string key(name);
  key += '|';
  key += op;
  key += '|';
  key += std::to_string(occurrence);
  return key;
}

void SplitName(std::string_view name, std::string* base, int* layer) {
  *base = name;
  *layer = -1;
  const size_t dash = name.rfind('-');
  if (dash == name.npos || dash + 1 == name.size() || name.size() - dash > 8) return;
  int number = 0;
  for (char c : name.substr(dash + 1)) {
    if (c < '0' || c > '9') return;
    number = number * 10 + (c - '0');
  }
  *base = name.substr(0, dash);
  *layer = number;
}

bool IsView(const ggml_tensor* tensor) {
  return tensor->op == GGML_OP_VIEW || tensor->op == GGML_OP_RESHAPE || tensor->op == GGML_OP_PERMUTE ||
         tensor->op == GGML_OP_TRANSPOSE;
}

const ggml_tensor* SkipViews(const ggml_tensor* tensor) {
  while (tensor && IsView(tensor) && tensor->src[0]) tensor = tensor->src[0];
  return tensor;
}

void GraphRecorder::Add(const ggml_tensor* tensor) {
  Node node{tensor, tensor->name, "", -1, tensor->op, ggml_op_desc(tensor), 0, ""};
  SplitName(node.name, &node.base, &node.layer);
  node.occurrence = occurrences_[node.name + "|" + node.op_name]++;
  node.key = NodeKey(node.name, node.op_name, node.occurrence);
  nodes_.push_back(std::move(node));
}

GraphMap MapGraph(const GraphRecorder& recorder, const Dims& dims) { return Mapper(recorder, dims).Run(); }

}  // namespace pb::llama_cpp
