#include "diagnose/op_weights.h"

#include <algorithm>
#include <cmath>

#include "abi/vocabulary.h"

namespace pb::diagnose {

OpWeights WeightsOf(const Model& model, int32_t stage, int32_t layer) {
  const bool tied = model.params().output_tied;
  if (stage == PB_STAGE_EMBEDDINGS) return {"token_embd.weight", &model.token_embedding(), 1, nullptr};
  if (stage == PB_STAGE_LOGITS)
    return {tied ? "token_embd.weight" : "output.weight", &model.output(), 1, nullptr};
  if (stage == PB_STAGE_FINAL_NORM) return {"output_norm.weight", nullptr, 1, &model.final_norm()};
  if (layer < 0 || layer >= static_cast<int32_t>(model.layers().size())) return {};
  const LayerWeights& w = model.layers()[static_cast<size_t>(layer)];
  auto name = [&](const char* tensor) { return fmt::format("blk.{}.{}.weight", layer, tensor); };
  switch (stage) {
    case PB_STAGE_ATTN_NORM:
      return {name("attn_norm"), nullptr, 1, &w.attn_norm};
    case PB_STAGE_Q_PROJ:
      return {name("attn_q"), &w.attn_q, w.attn_q_scale, nullptr};
    case PB_STAGE_K_PROJ:
      return {name("attn_k"), &w.attn_k, w.attn_k_scale, nullptr};
    case PB_STAGE_V_PROJ:
      return {name("attn_v"), &w.attn_v, w.attn_v_scale, nullptr};
    case PB_STAGE_ATTN_SUB_NORM:
      return {name("attn_sub_norm"), nullptr, 1, &w.attn_sub_norm};
    case PB_STAGE_ATTN_OUT:
      return {name("attn_output"), &w.attn_output, w.attn_output_scale, nullptr};
    case PB_STAGE_FFN_NORM:
      return {name("ffn_norm"), nullptr, 1, &w.ffn_norm};
    case PB_STAGE_GATE_PROJ:
      return {name("ffn_gate"), &w.ffn_gate, w.ffn_gate_scale, nullptr};
    case PB_STAGE_UP_PROJ:
      return {name("ffn_up"), &w.ffn_up, w.ffn_up_scale, nullptr};
    case PB_STAGE_FFN_SUB_NORM:
      return {name("ffn_sub_norm"), nullptr, 1, &w.ffn_sub_norm};
    case PB_STAGE_DOWN_PROJ:
      return {name("ffn_down"), &w.ffn_down, w.ffn_down_scale, nullptr};
    default:
      return {};
  }
}

float TernaryStep(const OpWeights& weights) {
  if (!weights.matrix) return 0;
  const BlockType type = weights.matrix->type;
  if (type != BlockType::kTQ1_0 && type != BlockType::kTQ2_0 && type != BlockType::kI2_S) return 0;
  std::vector<float> row(static_cast<size_t>(weights.matrix->n_columns));
  DecodeRow(*weights.matrix, 0, row.data());
  float largest = 0;
  for (float x : row) largest = std::max(largest, std::fabs(x));
  return largest;
}

}  // namespace pb::diagnose
