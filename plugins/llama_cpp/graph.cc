// Applies the declared table of tracepoints to the graph that a warm-up evaluation showed.
#include "llama_cpp/graph.h"

#include <algorithm>
#include <cstring>

#include "llama_cpp/graph_find.h"
#include "llama_cpp/stage_table.h"
#include "stages/stages.h"

namespace pb::llama_cpp {
namespace {

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
  Mapper(const GraphRecorder& recorder, const Dims& dims) : nodes_(recorder.nodes()), dims_(dims), finder_(nodes_, dims) {}

  GraphMap Run() {
    Observe();
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
    const Node* softmax = finder_.FindSoftmax(node.layer);
    if (!softmax) return "no node of this graph is known to be their softmax";
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
      const ggml_tensor* softmax = finder_.FindSoftmax(node.layer)->tensor;
      made.shape.scale = FloatParam(softmax, 0);
      made.shape.mask_hides_alone = FloatParam(softmax, 1) != 0;
    }
    if (made.shape.form == Form::kWeights && FloatParam(node.tensor, 1) != 0)
      made.not_replayable = "it adds a bias of positions that is none of its inputs";
    return made;
  }

  // A stage is observed in the layers that show it, and declared where none does.
  void MapStage(const StageRule& rule) {
    if (finder_.IsPlain() && (rule.stage == PB_STAGE_GATE_PROJ || rule.stage == PB_STAGE_FFN_ACT)) return;  // absent
    const bool per_layer = stages::Of(rule.stage).per_layer;
    const int first = per_layer ? 0 : -1, end = per_layer ? static_cast<int>(dims_.n_layers) : 0;
    std::vector<Found> found;
    for (int layer = first; layer < end; ++layer) found.push_back(finder_.FindAny(rule, layer));
    const auto is_there = [](const Found& one) { return one.node != nullptr; };
    if (stages::Of(rule.stage).group == stages::Group::kNorm)
      for (size_t i = 0; i < found.size(); ++i)
        if (!found[i].node) found[i] = finder_.FindUnnormed(rule.stage, first + static_cast<int>(i));
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
      if (const Node* next = finder_.NodeOf(source)) CountOps(*next, known, n);
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
      const Node* next = source && !are_points_.count(source) ? finder_.NodeOf(source) : nullptr;
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
          source && !are_points_.count(source) && source->op != GGML_OP_GET_ROWS ? finder_.NodeOf(source) : nullptr;
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
      const Node* next = finder_.NodeOf(source);
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
    const Node* node = are_points_.count(tensor) ? finder_.NodeOf(tensor) : nullptr;
    if (!node) return nullptr;
    for (const PointRule& rule : map_.rules.at(node->key))
      if (rule.stage == wanted.stage && (rule.layer == wanted.layer || !stages::Of(rule.stage).per_layer))
        return &rule;
    return nullptr;
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
  const Finder finder_;
  GraphMap map_;
  std::unordered_map<std::string, const Node*> by_key_;
  std::unordered_set<const ggml_tensor*> are_points_;
};

}  // namespace

GraphMap MapGraph(const GraphRecorder& recorder, const Dims& dims) { return Mapper(recorder, dims).Run(); }

}  // namespace pb::llama_cpp
