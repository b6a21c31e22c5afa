// The vocabulary made typed: of each operation its inputs, the shape of a row, its group, its place
// in the order, the weight that it reads and its name for people. Everything that asks what an
// operation is asks here; how it is computed is each engine's own.
//
// C++17, and nothing but the ABI's headers besides the standard library: the llama.cpp adapter,
// compiled on the user's machine, includes it too.
#ifndef PARITYBIT_STAGES_STAGES_H_
#define PARITYBIT_STAGES_STAGES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "abi/engine.h"
#include "abi/vocabulary.h"

namespace pb::stages {

// What kind of operation: one arithmetic each.
enum class Group {
  kEmbedding,      // a row of a table
  kNorm,           // RMSNorm with a weight, over the row or each head
  kProduct,        // a matrix times the row
  kRotary,         // rotary embedding
  kScores,         // queries times keys
  kSoftmax,        // over the visible positions
  kContext,        // probabilities times values
  kActivation,     // of each value
  kGate,           // two rows, value by value
  kSum,            // two rows, residual
  kSelect,         // ids of the largest values
  kRouting,        // weights of the chosen experts, from all their logits
  kExpertProduct,  // a matrix for each chosen expert, times the row or the expert's own part of it
  kMixture,        // parts of a row times a weight each, summed
  kShared,         // a row times the sigmoid of one value
};

// An extent of the canonical shape.
enum class Dim {
  kOne,
  kModel,
  kFf,
  kHeads,
  kKvHeads,
  kHeadDim,
  kPositions,
  kVocab,
  kExperts,
  kExpertsUsed,
  kExpertFf
};

// One axis of a row: the product of two extents, the second mostly 1.
struct Axis {
  Dim first = Dim::kOne, second = Dim::kOne;
};

// A row of the output, the canonical shape without its token axis.
struct Row {
  int n_axes = 0;
  Axis axes[2];

  // Whether each head has a value for each visible position: rows of passes differ in length.
  constexpr bool over_positions() const { return axes[1].first == Dim::kPositions; }
  // Extent of heads, or of chosen experts, in a row of several; kOne where it does not fall into such
  // parts.
  constexpr Dim heads() const { return n_axes == 2 ? axes[0].first : Dim::kOne; }
};

// An input as the vocabulary declares it.
struct InputSpec {
  static constexpr int kMost = 4;
  // The first that the architecture has counts.
  int n_stages = 0;
  pb_stage stages[kMost] = {PB_STAGE_UNMAPPED, PB_STAGE_UNMAPPED, PB_STAGE_UNMAPPED, PB_STAGE_UNMAPPED};
  // Of each: of the layer before. Of layer 0: the embeddings; outside the layers: of the last one.
  bool previous_layer[kMost] = {};
  bool all_positions = false;  // rows of all positions from 0
};
struct InputSpecs {
  int n = 0;
  InputSpec items[2];
  constexpr const InputSpec* begin() const { return items; }
  constexpr const InputSpec* end() const { return items + n; }
};

enum class WeightKind { kNone, kMatrix, kVector };
// What a stage reads of the model file; a matrix has the outputs for rows. The embeddings read a
// row of theirs for each token.
struct Weight {
  WeightKind kind = WeightKind::kNone;
  const char* tensor = "";  // "attn_q" of "blk.3.attn_q.weight"
};

struct Stage {
  pb_stage id = PB_STAGE_UNMAPPED;
  const char* name = "";  // in traces and globs
  const char* text = "";  // for people
  int level = 0;          // place in the dependency order; stages of one level are siblings
  bool per_layer = false;
  bool optional = false;  // only in architectures that have it
  Group group = Group::kEmbedding;
  Row row;
  InputSpecs inputs;  // in the order replay takes them
  Weight weight;
};

// Sizes that a model declares; 0: not known.
struct ModelShape {
  int64_t d_model = 0, d_ff = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, n_vocab = 0;
  bool norms_rows = false;  // norms of queries and keys are of the row, not of each head
  int64_t n_experts = 0, n_experts_used = 0, d_ff_expert = 0;
};

namespace detail {

// What the vocabulary does not say, by stage.
struct Extra {
  pb_stage id;
  Group group;
  Weight weight;
  const char* text;
};
constexpr Weight Matrix(const char* tensor) { return {WeightKind::kMatrix, tensor}; }
constexpr Weight Vector(const char* tensor) { return {WeightKind::kVector, tensor}; }
inline constexpr Extra kExtras[PB_STAGE_COUNT] = {
    {PB_STAGE_EMBEDDINGS, Group::kEmbedding, Matrix("token_embd"), "embeddings"},
    {PB_STAGE_ATTN_NORM, Group::kNorm, Vector("attn_norm"), "attention norm"},
    {PB_STAGE_Q_IN_NORM, Group::kNorm, Vector("attn_q_norm_in"), "norm before the query projection"},
    {PB_STAGE_K_IN_NORM, Group::kNorm, Vector("attn_k_norm_in"), "norm before the key projection"},
    {PB_STAGE_V_IN_NORM, Group::kNorm, Vector("attn_v_norm_in"), "norm before the value projection"},
    {PB_STAGE_Q_PROJ, Group::kProduct, Matrix("attn_q"), "query projection"},
    {PB_STAGE_K_PROJ, Group::kProduct, Matrix("attn_k"), "key projection"},
    {PB_STAGE_V_PROJ, Group::kProduct, Matrix("attn_v"), "value projection"},
    {PB_STAGE_Q_NORM, Group::kNorm, Vector("attn_q_norm"), "query norm"},
    {PB_STAGE_K_NORM, Group::kNorm, Vector("attn_k_norm"), "key norm"},
    {PB_STAGE_Q_ROPE, Group::kRotary, {}, "rotated queries"},
    {PB_STAGE_K_ROPE, Group::kRotary, {}, "rotated keys"},
    {PB_STAGE_ATTN_SCORES, Group::kScores, {}, "attention scores"},
    {PB_STAGE_ATTN_SCORES_SOFTMAX, Group::kSoftmax, {}, "attention softmax"},
    {PB_STAGE_ATTN_CONTEXT, Group::kContext, {}, "attention context"},
    {PB_STAGE_ATTN_SUB_NORM, Group::kNorm, Vector("attn_sub_norm"), "attention sub-norm"},
    {PB_STAGE_ATTN_OUT, Group::kProduct, Matrix("attn_output"), "output projection"},
    {PB_STAGE_ATTN_POST_NORM, Group::kNorm, Vector("post_attention_norm"), "attention post-norm"},
    {PB_STAGE_ATTN_RESIDUAL, Group::kSum, {}, "attention residual"},
    {PB_STAGE_FFN_NORM, Group::kNorm, Vector("ffn_norm"), "FFN norm"},
    {PB_STAGE_ROUTER_LOGITS, Group::kProduct, Matrix("ffn_gate_inp"), "router"},
    {PB_STAGE_EXPERT_IDS, Group::kSelect, {}, "choice of experts"},
    {PB_STAGE_EXPERT_WEIGHTS, Group::kRouting, {}, "weights of the experts"},
    {PB_STAGE_EXPERT_GATE, Group::kExpertProduct, Matrix("ffn_gate_exps"), "experts' gate projection"},
    {PB_STAGE_EXPERT_UP, Group::kExpertProduct, Matrix("ffn_up_exps"), "experts' up projection"},
    {PB_STAGE_EXPERT_ACT, Group::kActivation, {}, "experts' activation"},
    {PB_STAGE_EXPERT_GATED, Group::kGate, {}, "experts' gated product"},
    {PB_STAGE_EXPERT_DOWN, Group::kExpertProduct, Matrix("ffn_down_exps"), "experts' down projection"},
    {PB_STAGE_EXPERT_SUM, Group::kMixture, {}, "sum of the experts"},
    {PB_STAGE_GATE_IN_NORM, Group::kNorm, Vector("ffn_gate_norm_in"), "norm before the gate projection"},
    {PB_STAGE_UP_IN_NORM, Group::kNorm, Vector("ffn_up_norm_in"), "norm before the up projection"},
    {PB_STAGE_GATE_PROJ, Group::kProduct, Matrix("ffn_gate"), "gate projection"},
    {PB_STAGE_UP_PROJ, Group::kProduct, Matrix("ffn_up"), "up projection"},
    {PB_STAGE_FFN_ACT, Group::kActivation, {}, "activation"},
    {PB_STAGE_FFN_GATED, Group::kGate, {}, "gated product"},
    {PB_STAGE_FFN_SUB_NORM, Group::kNorm, Vector("ffn_sub_norm"), "FFN sub-norm"},
    {PB_STAGE_DOWN_PROJ, Group::kProduct, Matrix("ffn_down"), "down projection"},
    {PB_STAGE_SHARED_GATE, Group::kProduct, Matrix("ffn_gate_inp_shexp"), "gate of the shared expert"},
    {PB_STAGE_SHARED_OUT, Group::kShared, {}, "shared expert"},
    {PB_STAGE_FFN_OUT, Group::kSum, {}, "experts and shared expert"},
    {PB_STAGE_FFN_POST_NORM, Group::kNorm, Vector("post_ffw_norm"), "FFN post-norm"},
    {PB_STAGE_LAYER_OUT, Group::kSum, {}, "layer output"},
    {PB_STAGE_FINAL_NORM, Group::kNorm, Vector("output_norm"), "final norm"},
    {PB_STAGE_LOGITS, Group::kProduct, Matrix("output"), "logits"},
};

struct DimName {
  std::string_view name;
  Dim dim;
};
inline constexpr DimName kDimNames[] = {{"d_model", Dim::kModel},
                                        {"d_ff", Dim::kFf},
                                        {"n_heads", Dim::kHeads},
                                        {"n_kv_heads", Dim::kKvHeads},
                                        {"head_dim", Dim::kHeadDim},
                                        {"p", Dim::kPositions},
                                        {"n_vocab", Dim::kVocab},
                                        {"n_experts", Dim::kExperts},
                                        {"n_experts_used", Dim::kExpertsUsed},
                                        {"d_ff_expert", Dim::kExpertFf},
                                        {"1", Dim::kOne}};

// A name that nobody knows does not compile: dereferencing null is no constant expression.
constexpr Dim ParseDim(std::string_view name) {
  const DimName* found = nullptr;
  for (const DimName& d : kDimNames)
    if (d.name == name) found = &d;
  return found->dim;
}

// Takes what stands before a separator, and the separator, off the text.
constexpr std::string_view Take(std::string_view* text, std::string_view separator) {
  const size_t end = text->find(separator);
  const std::string_view taken = text->substr(0, end);
  *text = end == text->npos ? std::string_view() : text->substr(end + separator.size());
  return taken;
}

// "(n, n_heads, head_dim)", "(n, n_heads * head_dim)".
constexpr Row ParseRow(std::string_view shape) {
  shape = shape.substr(1, shape.size() - 2);
  Take(&shape, ", ");
  Row row;
  while (!shape.empty()) {
    std::string_view axis = Take(&shape, ", ");
    row.axes[row.n_axes].first = ParseDim(Take(&axis, " * "));
    if (!axis.empty()) row.axes[row.n_axes].second = ParseDim(axis);
    ++row.n_axes;
  }
  return row;
}

constexpr bool TakeSuffix(std::string_view* text, std::string_view suffix) {
  if (text->size() < suffix.size() || text->substr(text->size() - suffix.size()) != suffix) return false;
  text->remove_suffix(suffix.size());
  return true;
}

constexpr pb_stage ParseStage(std::string_view name) {
  const pb_stage_info* found = nullptr;
  for (const pb_stage_info& info : pb_vocabulary)
    if (name == info.name) found = &info;
  return found->stage;
}

// The vocabulary's inputs column: "attn_sub_norm|attn_context", "attn_out layer_out@prev".
constexpr InputSpecs ParseInputs(std::string_view text) {
  InputSpecs inputs;
  while (!text.empty()) {
    std::string_view item = Take(&text, " ");
    InputSpec& input = inputs.items[inputs.n++];
    input.all_positions = TakeSuffix(&item, "*");
    while (!item.empty()) {
      std::string_view name = Take(&item, "|");
      input.previous_layer[input.n_stages] = TakeSuffix(&name, "@prev");
      input.stages[input.n_stages++] = ParseStage(name);
    }
  }
  return inputs;
}

constexpr std::array<Stage, PB_STAGE_COUNT> MakeTable() {
  std::array<Stage, PB_STAGE_COUNT> table{};
  for (size_t i = 0; i < table.size(); ++i) {
    const pb_stage_info& info = pb_vocabulary[i];
    Stage& s = table[i];
    s.id = info.stage, s.name = info.name, s.level = info.level;
    s.per_layer = info.per_layer != 0, s.optional = info.optional != 0;
    s.row = ParseRow(info.shape), s.inputs = ParseInputs(info.inputs);
    s.group = kExtras[i].group, s.weight = kExtras[i].weight, s.text = kExtras[i].text;
  }
  return table;
}

}  // namespace detail

// Row i describes stage i.
inline constexpr std::array<Stage, PB_STAGE_COUNT> kTable = detail::MakeTable();

constexpr bool IsStage(int32_t stage) { return stage >= 0 && stage < PB_STAGE_COUNT; }
// Of a stage of the vocabulary.
constexpr const Stage& Of(int32_t stage) { return kTable[static_cast<size_t>(stage)]; }
// By name; PB_STAGE_UNMAPPED where there is none.
constexpr pb_stage Find(std::string_view name) {
  for (const Stage& s : kTable)
    if (name == s.name) return s.id;
  return PB_STAGE_UNMAPPED;
}

// Some stages.
class Set {
 public:
  constexpr Set() = default;
  constexpr Set(pb_stage stage) : bits_(uint64_t{1} << stage) {}  // NOLINT: a stage is a set of one
  constexpr Set(std::initializer_list<pb_stage> stages) {
    for (pb_stage s : stages) bits_ |= Set(s).bits_;
  }

  constexpr bool Contains(int32_t stage) const { return IsStage(stage) && (bits_ >> stage & 1) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr Set operator|(Set other) const { return Set(bits_ | other.bits_); }
  constexpr Set operator-(Set other) const { return Set(bits_ & ~other.bits_); }
  constexpr Set& operator|=(Set other) { return bits_ |= other.bits_, *this; }
  constexpr bool operator==(Set other) const { return bits_ == other.bits_; }
  constexpr bool operator!=(Set other) const { return bits_ != other.bits_; }

  // In the vocabulary's order.
  class Iterator {
   public:
    constexpr explicit Iterator(uint64_t rest) : rest_(rest) {}
    constexpr pb_stage operator*() const {
      int stage = 0;
      while ((rest_ >> stage & 1) == 0) ++stage;
      return static_cast<pb_stage>(stage);
    }
    constexpr Iterator& operator++() { return rest_ &= rest_ - 1, *this; }
    constexpr bool operator!=(Iterator other) const { return rest_ != other.rest_; }

   private:
    uint64_t rest_;
  };
  constexpr Iterator begin() const { return Iterator(bits_); }
  constexpr Iterator end() const { return Iterator(0); }

 private:
  static_assert(PB_STAGE_COUNT <= 64);
  constexpr explicit Set(uint64_t bits) : bits_(bits) {}
  uint64_t bits_ = 0;
};

// Those for which this holds.
template <typename Holds>
constexpr Set Where(Holds holds) {
  Set set;
  for (const Stage& s : kTable)
    if (holds(s)) set |= s.id;
  return set;
}
constexpr Set OfGroup(Group group) {
  Set set;
  for (const Stage& s : kTable)
    if (s.group == group) set |= s.id;
  return set;
}

inline constexpr Set kAll = Where([](const Stage&) { return true; });
inline constexpr Set kOptional = Where([](const Stage& s) { return s.optional; });
inline constexpr Set kNorms = OfGroup(Group::kNorm);
// Before attention and before the feed-forward network: LLaMA's and most others'.
inline constexpr Set kPreNorms = {PB_STAGE_ATTN_NORM, PB_STAGE_FFN_NORM};
inline constexpr Set kPostNorms = {PB_STAGE_ATTN_POST_NORM, PB_STAGE_FFN_POST_NORM};
inline constexpr Set kHeadNorms = {PB_STAGE_Q_NORM, PB_STAGE_K_NORM};
inline constexpr Set kSubNorms = {PB_STAGE_ATTN_SUB_NORM, PB_STAGE_FFN_SUB_NORM};
// A norm before each projection, of what it alone reads: BitNet's embedding models.
inline constexpr Set kInputNorms = kSubNorms | Set{PB_STAGE_Q_IN_NORM, PB_STAGE_K_IN_NORM, PB_STAGE_V_IN_NORM,
                                                   PB_STAGE_GATE_IN_NORM, PB_STAGE_UP_IN_NORM};
inline constexpr Set kProducts = OfGroup(Group::kProduct);
// The output matrix stands outside where schemes of activations are concerned.
inline constexpr Set kLayerProducts = kProducts - Set(PB_STAGE_LOGITS);
inline constexpr Set kRotary = OfGroup(Group::kRotary);
// Of queries with keys, and of probabilities with values.
inline constexpr Set kAttention = OfGroup(Group::kScores) | OfGroup(Group::kContext);
inline constexpr Set kSums = OfGroup(Group::kSum);
inline constexpr Set kActivations = OfGroup(Group::kActivation);
inline constexpr Set kGated = OfGroup(Group::kGate);
inline constexpr Set kElementwise = kActivations | kGated | kSums | OfGroup(Group::kShared);
// Of each chosen expert.
inline constexpr Set kExpertProducts = OfGroup(Group::kExpertProduct);
// The feed-forward network that all tokens pass through: of a model without experts, or the shared
// expert of one with.
inline constexpr Set kDense = {PB_STAGE_GATE_PROJ, PB_STAGE_UP_PROJ, PB_STAGE_FFN_ACT, PB_STAGE_FFN_GATED,
                               PB_STAGE_DOWN_PROJ};
inline constexpr Set kExperts =
    kExpertProducts | Set{PB_STAGE_ROUTER_LOGITS, PB_STAGE_EXPERT_IDS,   PB_STAGE_EXPERT_WEIGHTS,
                          PB_STAGE_EXPERT_ACT,    PB_STAGE_EXPERT_GATED, PB_STAGE_EXPERT_SUM};
inline constexpr Set kSharedExpert = {PB_STAGE_SHARED_GATE, PB_STAGE_SHARED_OUT, PB_STAGE_FFN_OUT};
inline constexpr Set kOverPositions = Where([](const Stage& s) { return s.row.over_positions(); });
// Everything later in the pass depends on what came before through these alone.
inline constexpr Set kCuts = {PB_STAGE_EMBEDDINGS, PB_STAGE_LAYER_OUT, PB_STAGE_FINAL_NORM, PB_STAGE_LOGITS};

constexpr int64_t Extent(Dim dim, const ModelShape& s, int64_t n_positions) {
  switch (dim) {
    case Dim::kOne:
      return 1;
    case Dim::kModel:
      return s.d_model;
    case Dim::kFf:
      return s.d_ff;
    case Dim::kHeads:
      return s.n_heads;
    case Dim::kKvHeads:
      return s.n_kv_heads;
    case Dim::kHeadDim:
      return s.head_dim;
    case Dim::kPositions:
      return n_positions;
    case Dim::kVocab:
      return s.n_vocab;
    case Dim::kExperts:
      return s.n_experts;
    case Dim::kExpertsUsed:
      return s.n_experts_used;
    case Dim::kExpertFf:
      return s.d_ff_expert;
  }
  return 0;
}
constexpr int64_t Extent(const Axis& axis, const ModelShape& s, int64_t n_positions) {
  return Extent(axis.first, s, n_positions) * Extent(axis.second, s, n_positions);
}

// Values of one row of a stage's output. `n_positions`: that the last row sees; counts for scores
// and softmax alone.
constexpr int64_t RowWidth(pb_stage stage, const ModelShape& shape, int64_t n_positions) {
  const Row& row = Of(stage).row;
  int64_t width = 1;
  for (int i = 0; i < row.n_axes; ++i) width *= Extent(row.axes[i], shape, n_positions);
  return width;
}
// Heads, or chosen experts, that a row falls into; 1: none.
constexpr int64_t RowHeads(pb_stage stage, const ModelShape& shape) {
  return Extent(Of(stage).row.heads(), shape, 1);
}
// Terms that one value of the output sums.
constexpr int64_t SumLength(pb_stage stage, const ModelShape& shape, int64_t n_positions) {
  const Stage& s = Of(stage);
  switch (s.group) {
    case Group::kNorm:
      if (shape.norms_rows) return RowWidth(stage, shape, n_positions);
      return Extent(s.row.axes[s.row.n_axes - 1], shape, n_positions);
    case Group::kProduct:
      return RowWidth(s.inputs.items[0].stages[0], shape, n_positions);
    case Group::kExpertProduct: {
      const Row& input = Of(s.inputs.items[0].stages[0]).row;
      return Extent(input.axes[input.n_axes - 1], shape, n_positions);
    }
    case Group::kRouting:
      return shape.n_experts;
    case Group::kMixture:
      return shape.n_experts_used;
    case Group::kRotary:
      return 2;
    case Group::kScores:
      return shape.head_dim;
    case Group::kSoftmax:
    case Group::kContext:
      return n_positions;
    default:
      return 1;
  }
}

// The shape of a stage's weight: rows x columns of a matrix; a vector is one row. Of experts: the
// rows of all, one expert after the other.
struct WeightShape {
  int64_t n_rows = 0, n_columns = 0;
};
constexpr WeightShape WeightShapeOf(pb_stage stage, const ModelShape& shape) {
  switch (Of(stage).weight.kind) {
    case WeightKind::kNone:
      return {};
    case WeightKind::kVector:
      return {1, SumLength(stage, shape, 1)};
    case WeightKind::kMatrix:
      break;
  }
  if (stage == PB_STAGE_EMBEDDINGS) return {shape.n_vocab, shape.d_model};
  if (Of(stage).group == Group::kExpertProduct) {
    const Row& row = Of(stage).row;
    return {shape.n_experts * Extent(row.axes[1], shape, 1), SumLength(stage, shape, 1)};
  }
  return {RowWidth(stage, shape, 1), SumLength(stage, shape, 1)};
}
// "blk.3.attn_q.weight"; part "scale": the factor that some files have beside it. Of a stage that
// reads one, in architectures that do not rename it (model/hyper.h).
inline std::string TensorName(pb_stage stage, int32_t layer, std::string_view part = "weight") {
  const Stage& s = Of(stage);
  std::string name;
  if (s.per_layer) name.append("blk.").append(std::to_string(layer)).append(".");
  return name.append(s.weight.tensor).append(".").append(part);
}

// Where a layer stands within a pass: the embeddings, the layers in order, what comes after them.
constexpr std::pair<int, int32_t> LayerOrder(int32_t stage, int32_t layer) {
  return {layer >= 0 ? 1 : stage == PB_STAGE_EMBEDDINGS ? 0 : 2, layer};
}
// Dependency order within a pass; an unmapped op comes last in its layer, siblings are equal.
constexpr std::tuple<int, int32_t, int> Order(int32_t stage, int32_t layer) {
  constexpr int kAfterAll = 1 << 20;
  const auto at = LayerOrder(stage, layer);
  return {at.first, at.second, IsStage(stage) ? Of(stage).level : kAfterAll};
}

// An input as it is read in a given architecture or engine.
struct Input {
  pb_stage stage = PB_STAGE_UNMAPPED;
  bool previous_layer = false, all_positions = false;  // as of InputSpec

  // The layer that it is of, for a reader in this one; -1: the embeddings.
  constexpr int32_t Layer(int32_t reader, int32_t n_layers) const {
    return !previous_layer ? reader : (reader < 0 ? n_layers : reader) - 1;
  }
};

// The inputs of a stage, where `see(pb_stage)` tells what an engine shows (pb_visibility):
// alternatives settled, and in place of a stage that it computes inside another op that stage's own
// inputs, of all positions where the stage was read so. What enters a layer stays as it is.
template <typename See>
void AppendInputs(pb_stage stage, const See& see, bool all_positions, std::vector<Input>* inputs) {
  for (const InputSpec& spec : Of(stage).inputs) {
    int chosen = 0;
    while (chosen + 1 < spec.n_stages && see(spec.stages[chosen]) == PB_ABSENT) ++chosen;
    const pb_stage serves = spec.stages[chosen];
    const bool previous = spec.previous_layer[chosen], all = all_positions || spec.all_positions;
    if (!previous && see(serves) == PB_UNOBSERVABLE) {
      AppendInputs(serves, see, all, inputs);
    } else {
      inputs->push_back({serves, previous, all});
    }
  }
}
template <typename See>
std::vector<Input> InputsOf(pb_stage stage, const See& see) {
  std::vector<Input> inputs;
  AppendInputs(stage, see, false, &inputs);
  return inputs;
}
// The stages that it computes inside this one.
template <typename See>
Set InsideOf(pb_stage stage, const See& see) {
  Set inside;
  for (const InputSpec& spec : Of(stage).inputs)
    for (int i = 0; i < spec.n_stages; ++i)
      if (!spec.previous_layer[i] && see(spec.stages[i]) == PB_UNOBSERVABLE)
        inside |= InsideOf(spec.stages[i], see) | spec.stages[i];
  return inside;
}
// The inputs where all stages that exist are shown.
inline std::vector<Input> InputsOf(pb_stage stage, Set existing) {
  return InputsOf(stage, [&](pb_stage s) { return existing.Contains(s) ? PB_OBSERVED : PB_ABSENT; });
}

}  // namespace pb::stages

#endif  // PARITYBIT_STAGES_STAGES_H_
