// The table of stages against what a reader of the vocabulary, of GGUF files and of the papers
// expects, each row written out.
#include "stages/stages.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace pb::stages {
namespace {

// SmolLM2-135M: 9 heads of 64 over 3 KV heads.
constexpr ModelShape kShape = {576, 1536, 9, 3, 64, 49152};
// Qwen3-30B-A3B: 8 of 128 experts of width 768.
constexpr ModelShape kWithExperts = {2048, 6144, 32, 4, 128, 151936, false, 128, 8, 768};

// "attn_out layer_out@prev", as docs/plugin_abi.md writes inputs.
std::string Text(const std::vector<Input>& inputs) {
  std::string text;
  for (const Input& i : inputs) {
    if (!text.empty()) text.append(" ");
    text.append(Of(i.stage).name);
    text.append(i.all_positions ? "*" : "").append(i.previous_layer ? "@prev" : "");
  }
  return text;
}

TEST(Stages, EachRowDescribesItsStage) {
  for (int32_t s = 0; s < PB_STAGE_COUNT; ++s) {
    EXPECT_EQ(Of(s).id, s);
    EXPECT_EQ(detail::kExtras[s].id, s);
    EXPECT_EQ(Find(Of(s).name), s);
    EXPECT_STREQ(Of(s).name, pb_vocabulary[s].name);
  }
  EXPECT_EQ(Find("no_such_stage"), PB_STAGE_UNMAPPED);
}

TEST(Stages, RowsAreAsWideAsTheModelSays) {
  const std::map<std::string, int64_t> widths = {
      {"embeddings", 576},    {"attn_norm", 576},      {"q_proj", 576},
      {"k_proj", 192},        {"v_proj", 192},         {"q_norm", 576},
      {"k_norm", 192},        {"q_rope", 576},         {"k_rope", 192},
      {"attn_scores", 9 * 7}, {"attn_context", 576},   {"attn_sub_norm", 576},
      {"attn_out", 576},      {"attn_post_norm", 576}, {"attn_residual", 576},
      {"ffn_norm", 576},      {"gate_proj", 1536},     {"up_proj", 1536},
      {"ffn_act", 1536},      {"ffn_gated", 1536},     {"ffn_sub_norm", 1536},
      {"down_proj", 576},     {"ffn_post_norm", 576},  {"layer_out", 576},
      {"final_norm", 576},    {"logits", 49152},       {"attn_scores_softmax", 9 * 7},
      {"q_in_norm", 576},     {"k_in_norm", 576},      {"v_in_norm", 576},
      {"gate_in_norm", 576},  {"up_in_norm", 576}};
  const std::map<std::string, int64_t> of_experts = {
      {"router_logits", 128}, {"expert_ids", 8},       {"expert_weights", 8},     {"expert_gate", 8 * 768},
      {"expert_up", 8 * 768}, {"expert_act", 8 * 768}, {"expert_gated", 8 * 768}, {"expert_down", 8 * 2048},
      {"expert_sum", 2048},   {"shared_gate", 1},      {"shared_out", 2048},      {"ffn_out", 2048}};
  ASSERT_EQ(widths.size() + of_experts.size(), size_t{PB_STAGE_COUNT});
  for (const auto& [name, width] : widths) EXPECT_EQ(RowWidth(Find(name), kShape, 7), width) << name;
  for (const auto& [name, width] : of_experts)
    EXPECT_EQ(RowWidth(Find(name), kWithExperts, 7), width) << name;
  EXPECT_EQ(RowHeads(PB_STAGE_EXPERT_GATE, kWithExperts), 8);
  EXPECT_EQ(SumLength(PB_STAGE_EXPERT_GATE, kWithExperts, 7), 2048);
  EXPECT_EQ(SumLength(PB_STAGE_EXPERT_DOWN, kWithExperts, 7), 768);
  EXPECT_EQ(RowHeads(PB_STAGE_Q_ROPE, kShape), 9);
  EXPECT_EQ(RowHeads(PB_STAGE_V_PROJ, kShape), 3);
  EXPECT_EQ(RowHeads(PB_STAGE_ATTN_SCORES, kShape), 9);
  EXPECT_EQ(RowHeads(PB_STAGE_ATTN_SUB_NORM, kShape), 1);
  EXPECT_EQ(RowHeads(PB_STAGE_LOGITS, kShape), 1);
}

// Shapes as GGUF files of the architecture have them.
TEST(Stages, WeightsHaveTheNamesAndShapesOfTheFile) {
  struct Row {
    pb_stage stage;
    const char* name;
    int64_t n_rows, n_columns;
  };
  const Row rows[] = {{PB_STAGE_EMBEDDINGS, "token_embd.weight", 49152, 576},
                      {PB_STAGE_Q_PROJ, "blk.2.attn_q.weight", 576, 576},
                      {PB_STAGE_V_PROJ, "blk.2.attn_v.weight", 192, 576},
                      {PB_STAGE_K_NORM, "blk.2.attn_k_norm.weight", 1, 64},
                      {PB_STAGE_ATTN_OUT, "blk.2.attn_output.weight", 576, 576},
                      {PB_STAGE_UP_PROJ, "blk.2.ffn_up.weight", 1536, 576},
                      {PB_STAGE_DOWN_PROJ, "blk.2.ffn_down.weight", 576, 1536},
                      {PB_STAGE_FFN_SUB_NORM, "blk.2.ffn_sub_norm.weight", 1, 1536},
                      {PB_STAGE_V_IN_NORM, "blk.2.attn_v_norm_in.weight", 1, 576},
                      {PB_STAGE_UP_IN_NORM, "blk.2.ffn_up_norm_in.weight", 1, 576},
                      {PB_STAGE_FINAL_NORM, "output_norm.weight", 1, 576},
                      {PB_STAGE_LOGITS, "output.weight", 49152, 576}};
  for (const Row& row : rows) {
    EXPECT_EQ(TensorName(row.stage, 2), row.name);
    const WeightShape shape = WeightShapeOf(row.stage, kShape);
    EXPECT_EQ(shape.n_rows, row.n_rows) << row.name;
    EXPECT_EQ(shape.n_columns, row.n_columns) << row.name;
  }
  EXPECT_EQ(TensorName(PB_STAGE_GATE_PROJ, 0, "scale"), "blk.0.ffn_gate.scale");
  const WeightShape experts = WeightShapeOf(PB_STAGE_EXPERT_DOWN, kWithExperts);
  EXPECT_EQ(TensorName(PB_STAGE_EXPERT_DOWN, 1), "blk.1.ffn_down_exps.weight");
  EXPECT_EQ(experts.n_rows, 128 * 2048);
  EXPECT_EQ(experts.n_columns, 768);
  for (pb_stage s : kAll - kExpertProducts - kProducts - kNorms - Set(PB_STAGE_EMBEDDINGS))
    EXPECT_EQ(Of(s).weight.kind, WeightKind::kNone) << Of(s).name;
}

TEST(Stages, SetsAreThoseOfTheirGroups) {
  EXPECT_EQ(kProducts, Set({PB_STAGE_Q_PROJ, PB_STAGE_K_PROJ, PB_STAGE_V_PROJ, PB_STAGE_ATTN_OUT,
                            PB_STAGE_ROUTER_LOGITS, PB_STAGE_GATE_PROJ, PB_STAGE_UP_PROJ, PB_STAGE_DOWN_PROJ,
                            PB_STAGE_SHARED_GATE, PB_STAGE_LOGITS}));
  EXPECT_EQ(kExpertProducts, Set({PB_STAGE_EXPERT_GATE, PB_STAGE_EXPERT_UP, PB_STAGE_EXPERT_DOWN}));
  EXPECT_EQ(kNorms, kPreNorms | kPostNorms | kHeadNorms | kInputNorms | Set(PB_STAGE_FINAL_NORM));
  EXPECT_EQ(kNorms, Set({PB_STAGE_ATTN_NORM, PB_STAGE_Q_IN_NORM, PB_STAGE_K_IN_NORM, PB_STAGE_V_IN_NORM,
                         PB_STAGE_GATE_IN_NORM, PB_STAGE_UP_IN_NORM, PB_STAGE_Q_NORM, PB_STAGE_K_NORM,
                         PB_STAGE_ATTN_SUB_NORM, PB_STAGE_ATTN_POST_NORM, PB_STAGE_FFN_POST_NORM,
                         PB_STAGE_FFN_NORM, PB_STAGE_FFN_SUB_NORM, PB_STAGE_FINAL_NORM}));
  EXPECT_EQ(kElementwise,
            Set({PB_STAGE_ATTN_RESIDUAL, PB_STAGE_EXPERT_ACT, PB_STAGE_EXPERT_GATED, PB_STAGE_FFN_ACT,
                 PB_STAGE_FFN_GATED, PB_STAGE_SHARED_OUT, PB_STAGE_FFN_OUT, PB_STAGE_LAYER_OUT}));
  EXPECT_EQ(kOverPositions, Set({PB_STAGE_ATTN_SCORES, PB_STAGE_ATTN_SCORES_SOFTMAX}));
  EXPECT_FALSE(kAll.Contains(PB_STAGE_UNMAPPED));
  EXPECT_FALSE(kAll.Contains(PB_STAGE_COUNT));
  int n = 0;
  for (pb_stage s : kAll) EXPECT_EQ(s, n++);
  EXPECT_EQ(n, int{PB_STAGE_COUNT});
}

TEST(Stages, AlternativesAreSettledByWhatTheArchitectureHas) {
  const Set llama = (kAll - kOptional) | kPreNorms | kDense;
  EXPECT_EQ(Text(InputsOf(PB_STAGE_ATTN_OUT, llama)), "attn_context");
  EXPECT_EQ(Text(InputsOf(PB_STAGE_ATTN_OUT, kAll)), "attn_sub_norm");
  EXPECT_EQ(Text(InputsOf(PB_STAGE_Q_ROPE, llama | Set(PB_STAGE_Q_NORM))), "q_norm");
  EXPECT_EQ(Text(InputsOf(PB_STAGE_ATTN_SCORES, llama)), "q_rope k_rope*");
  EXPECT_EQ(Text(InputsOf(PB_STAGE_ATTN_RESIDUAL, llama)), "attn_out layer_out@prev");
  EXPECT_EQ(Text(InputsOf(PB_STAGE_EMBEDDINGS, llama)), "");
  // Norms behind attention and FFN, before them or not.
  const Set gemma = llama | kPostNorms, olmo = gemma - kPreNorms;
  EXPECT_EQ(Text(InputsOf(PB_STAGE_Q_PROJ, gemma)), "attn_norm");
  EXPECT_EQ(Text(InputsOf(PB_STAGE_Q_PROJ, olmo)), "layer_out@prev");
  EXPECT_EQ(Text(InputsOf(PB_STAGE_UP_PROJ, olmo)), "attn_residual");
  EXPECT_EQ(Text(InputsOf(PB_STAGE_ATTN_RESIDUAL, olmo)), "attn_post_norm layer_out@prev");
  EXPECT_EQ(Text(InputsOf(PB_STAGE_LAYER_OUT, gemma)), "ffn_post_norm attn_residual");
  EXPECT_EQ(Text(InputsOf(PB_STAGE_LAYER_OUT, llama)), "down_proj attn_residual");
  // Attention and network on one norm; experts; experts beside a shared one.
  EXPECT_EQ(Text(InputsOf(PB_STAGE_UP_PROJ, llama - Set(PB_STAGE_FFN_NORM))), "attn_norm");
  const Set experts = (llama - kDense) | kExperts;
  EXPECT_EQ(Text(InputsOf(PB_STAGE_EXPERT_UP, experts)), "ffn_norm expert_ids");
  EXPECT_EQ(Text(InputsOf(PB_STAGE_EXPERT_WEIGHTS, experts)), "router_logits expert_ids");
  EXPECT_EQ(Text(InputsOf(PB_STAGE_LAYER_OUT, experts)), "expert_sum attn_residual");
  EXPECT_EQ(Text(InputsOf(PB_STAGE_LAYER_OUT, llama | kExperts | kSharedExpert)), "ffn_out attn_residual");
}

TEST(Stages, InPlaceOfWhatIsNotShownStandItsOwnInputs) {
  const auto hiding = [](Set hidden) {
    return [hidden](pb_stage s) {
      const bool absent = Of(s).optional && !(kPreNorms | kDense).Contains(s);
      return absent ? PB_ABSENT : hidden.Contains(s) ? PB_UNOBSERVABLE : PB_OBSERVED;
    };
  };
  // Flash attention, and attention as one op of a framework.
  const auto flash = hiding({PB_STAGE_ATTN_SCORES, PB_STAGE_ATTN_SCORES_SOFTMAX});
  EXPECT_EQ(Text(InputsOf(PB_STAGE_ATTN_CONTEXT, flash)), "q_rope k_rope* v_proj*");
  EXPECT_EQ(InsideOf(PB_STAGE_ATTN_CONTEXT, flash),
            Set({PB_STAGE_ATTN_SCORES, PB_STAGE_ATTN_SCORES_SOFTMAX}));
  // SwiGLU as one op.
  EXPECT_EQ(Text(InputsOf(PB_STAGE_FFN_GATED, hiding(PB_STAGE_FFN_ACT))), "gate_proj up_proj");
  // Values of all positions that are not shown come from norms of all positions.
  EXPECT_EQ(Text(InputsOf(PB_STAGE_ATTN_CONTEXT, hiding(PB_STAGE_V_PROJ))), "attn_scores_softmax attn_norm*");
  // What enters a layer stays as it is.
  EXPECT_EQ(Text(InputsOf(PB_STAGE_ATTN_NORM, hiding(PB_STAGE_LAYER_OUT))), "layer_out@prev");
  EXPECT_TRUE(InsideOf(PB_STAGE_ATTN_NORM, hiding(PB_STAGE_LAYER_OUT)).empty());
}

TEST(Stages, TheLayerOfAnInputFollowsFromItsReader) {
  const Input entering{PB_STAGE_LAYER_OUT, true, false}, own{PB_STAGE_Q_PROJ, false, false};
  EXPECT_EQ(entering.Layer(3, 30), 2);
  EXPECT_EQ(entering.Layer(0, 30), -1);
  EXPECT_EQ(entering.Layer(-1, 30), 29);
  EXPECT_EQ(own.Layer(3, 30), 3);
}

TEST(Stages, OrderIsThatOfDependency) {
  EXPECT_LT(Order(PB_STAGE_EMBEDDINGS, -1), Order(PB_STAGE_ATTN_NORM, 0));
  EXPECT_LT(Order(PB_STAGE_LAYER_OUT, 0), Order(PB_STAGE_ATTN_NORM, 1));
  EXPECT_LT(Order(PB_STAGE_LAYER_OUT, 29), Order(PB_STAGE_FINAL_NORM, -1));
  EXPECT_LT(Order(PB_STAGE_LAYER_OUT, 1), Order(PB_STAGE_UNMAPPED, 1));
  EXPECT_EQ(Order(PB_STAGE_GATE_PROJ, 1), Order(PB_STAGE_UP_PROJ, 1));
  for (const Stage& s : kTable)
    for (const InputSpec& input : s.inputs)
      for (int i = 0; i < input.n_stages; ++i)
        EXPECT_TRUE(input.previous_layer[i] || Of(input.stages[i]).level < s.level) << s.name;
}

}  // namespace
}  // namespace pb::stages
