// The table of defects, and where each of them exists.
#include "plugins/mutant/catalogue.h"

#include <algorithm>
#include <array>

#include "base/random.h"
#include "plugins/mutant/fault.h"

namespace pb::mutant {
namespace {

using stages::kAll, stages::kLayerProducts, stages::kNorms, stages::kProducts, stages::Set;
// Over the whole row of the residual stream.
constexpr Set kWideNorms = {PB_STAGE_ATTN_NORM, PB_STAGE_FFN_NORM, PB_STAGE_FINAL_NORM};
// Those whose rows fall into heads.
constexpr Set kHeadProducts = stages::Where([](const stages::Stage& s) {
  return s.group == stages::Group::kProduct && s.row.heads() != stages::Dim::kOne;
});
constexpr Set kRope = stages::kRotary, kScores = PB_STAGE_ATTN_SCORES,
              kSoftmax = PB_STAGE_ATTN_SCORES_SOFTMAX, kContext = PB_STAGE_ATTN_CONTEXT,
              kResiduals = {PB_STAGE_ATTN_RESIDUAL, PB_STAGE_LAYER_OUT}, kAct = stages::kActivations,
              kGated = stages::kGated, kEmbeddings = PB_STAGE_EMBEDDINGS, kWeights = PB_STAGE_EXPERT_WEIGHTS,
              kExpertProducts = stages::kExpertProducts;

constexpr Defect kDefects[] = {
    // name, kind, stages, commit, parameter, spot, truth, need
    {"act_silu", "activation", kAct, OtherActivation, 0, Spot::kAll, "ffn.activation=silu", Need::kNothing},
    {"act_relu", "activation", kAct, OtherActivation, 1, Spot::kAll, "ffn.activation=relu", Need::kNothing},
    {"act_relu2", "activation", kAct, OtherActivation, 2, Spot::kAll, "ffn.activation=relu2", Need::kNothing},
    {"act_gelu", "activation", kAct, OtherActivation, 3, Spot::kAll, "ffn.activation=gelu", Need::kNothing},
    {"act_gelu_tanh", "activation", kAct, OtherActivation, 4, Spot::kAll, "ffn.activation=gelu_tanh",
     Need::kNothing},
    {"act_none", "activation", kAct, OtherActivation, 5, Spot::kAll, "ffn.activation=identity",
     Need::kNothing},
    {"gate_alone", "gate", kGated, Gate, 0, Spot::kAll, "glu=gate", Need::kNothing},
    {"gate_added", "gate", kGated, Gate, 1, Spot::kAll, "glu=added", Need::kNothing},
    {"rope_adjacent", "rotation", kRope, Rope<RopeFault::kPairing>, 0, Spot::kAll, "rope.pairing=adjacent",
     Need::kNothing},
    {"rope_halves", "rotation", kRope, Rope<RopeFault::kPairing>, 1, Spot::kAll, "rope.pairing=halves",
     Need::kNothing},
    {"rope_base_10000", "rotation", kRope, Rope<RopeFault::kBase>, 10000, Spot::kAll, "rope.base=10000",
     Need::kNothing},
    {"rope_base_500000", "rotation", kRope, Rope<RopeFault::kBase>, 500000, Spot::kAll, "rope.base=500000",
     Need::kNothing},
    {"rope_base_23456", "rotation", kRope, Rope<RopeFault::kBase>, 23456, Spot::kAll, "rope.base=2",
     Need::kNothing},
    {"rope_late", "rotation", kRope, Rope<RopeFault::kOffset>, 1, Spot::kAll, "rope.offset=1",
     Need::kNothing},
    {"rope_early", "rotation", kRope, Rope<RopeFault::kOffset>, -1, Spot::kAll, "rope.offset=-1",
     Need::kNothing},
    {"rope_none", "rotation", kRope, Rope<RopeFault::kNone>, 0, Spot::kAll, "rope=none", Need::kNothing},
    {"rope_backwards", "rotation", kRope, Rope<RopeFault::kScale>, -1, Spot::kAll, "rope.scale=-1",
     Need::kNothing},
    {"rope_half_speed", "rotation", kRope, Rope<RopeFault::kScale>, 2, Spot::kAll, "rope.scale=2",
     Need::kNothing},
    {"rope_double_speed", "rotation", kRope, Rope<RopeFault::kScale>, 0.5, Spot::kAll, "rope.scale=0.5",
     Need::kNothing},
    {"rope_half_dims", "rotation", kRope, Rope<RopeFault::kDims>, 0.5, Spot::kAll,
     "rope.dims=", Need::kNothing},
    {"rope_from_batch", "rotation", kRope, Rope<RopeFault::kFromBatch>, 0, Spot::kAll,
     "rope.offset=- rope=none", Need::kNothing},
    {"rope_unfactored", "rotation", kRope, Rope<RopeFault::kFactors>, 0, Spot::kAll, "rope.factors=0",
     Need::kFactors},
    {"rope_exchanged", "rotation", kRope, Rope<RopeFault::kExchanged>, 0, Spot::kAll,
     "rope.exchanged=1 rope.base=", Need::kLocalRope},
    {"rope_everywhere", "rotation", kRope, Rope<RopeFault::kEverywhere>, 0, Spot::kAll, "rope.everywhere=1",
     Need::kUnrotated},
    {"norm_missing", "norm", kNorms, NormFault, 0, Spot::kAll, "norm.repeat=0", Need::kNothing},
    {"norm_twice", "norm", kNorms, NormFault, 1, Spot::kAll, "norm.repeat=2", Need::kNothing},
    {"norm_unweighted", "norm", kNorms, NormFault, 2, Spot::kAll, "norm.unweighted", Need::kNothing},
    {"norm_plus_one", "norm", kNorms, NormFault, 3, Spot::kAll, "norm.weight_offset=1", Need::kNothing},
    {"norm_centred", "norm", kNorms, NormFault, 4, Spot::kAll, "norm.centred", Need::kNothing},
    {"norm_eps_1e-1", "norm eps", kNorms, NormEps, 0.1, Spot::kAll, "norm.eps=0.1", Need::kNothing},
    {"norm_eps_1e-3", "norm eps", kNorms, NormEps, 1e-3, Spot::kAll, "norm.eps=1e-3 norm.eps=0.001",
     Need::kNothing},
    {"norm_eps_1e-6", "norm eps", kNorms, NormEps, 1e-6, Spot::kAll, "norm.eps=1e-6 norm.eps=1e-06",
     Need::kNothing},
    {"norm_eps_0", "norm eps", kNorms, NormEps, 0, Spot::kAll, "norm.eps=0", Need::kNothing},
    {"norm_other_layer", "tensor", kNorms, NormOfOtherTensor, 0, Spot::kAll, "tensor=", Need::kTwoLayers},
    {"norm_other_norm", "tensor", kWideNorms, NormOfOtherTensor, 1, Spot::kAll, "tensor=", Need::kNothing},
    {"norm_channel_lost", "norm", kNorms, FeatureFactor, 0, Spot::kFeature, "zero= drop.rows=1",
     Need::kNothing},
    {"norm_channel_scaled", "norm", kNorms, FeatureFactor, 1.02, Spot::kFeature, "factor=1.02",
     Need::kNothing},
    {"norm_tail_zero", "tail", kNorms, TailZero, 8, Spot::kAll, "zero=", Need::kNothing},
    {"factor_1.05", "scale", kProducts, Factor, 1.05, Spot::kAll, "factor=1.05", Need::kNothing},
    {"factor_2", "scale", kProducts, Factor, 2, Spot::kAll, "doubled", Need::kNothing},
    {"factor_0.5", "scale", kProducts, Factor, 0.5, Spot::kAll, "halved", Need::kNothing},
    {"sign_turned", "scale", kProducts, Factor, -1, Spot::kAll, "sign", Need::kNothing},
    {"scale_missing", "scale", kLayerProducts, ScaleFault, -1, Spot::kAll, "scale=missing", Need::kTernary},
    {"scale_inverted", "scale", kLayerProducts, ScaleFault, -2, Spot::kAll, "scale=inverted", Need::kTernary},
    {"scale_twice", "scale", kLayerProducts, ScaleFault, 1, Spot::kAll, "scale=doubled", Need::kTernary},
    {"row_scaled", "scale", kProducts, FeatureFactor, 1.02, Spot::kFeature, "factor=1.02", Need::kNothing},
    {"head_scaled", "scale", kHeadProducts | kContext, HeadFactor, 1.02, Spot::kHead, "factor=1.02",
     Need::kTwoHeads},
    {"row_lost", "weight", kProducts, FeatureFactor, 0, Spot::kFeature, "zero= drop.rows=1", Need::kNothing},
    {"head_lost", "heads", kHeadProducts | kContext, HeadFactor, 0, Spot::kHead,
     "zero= drop.rows=", Need::kTwoHeads},
    {"weight_flipped", "weight", kProducts, WeightCell, -2, Spot::kFeature, "weight.cell=", Need::kNothing},
    {"weight_lost", "weight", kProducts, WeightCell, -1, Spot::kFeature, "weight.cell=", Need::kNothing},
    {"rows_exchanged", "weight", kProducts, ExchangedRows, 0, Spot::kFeature, "rows.permuted",
     Need::kNothing},
    {"rows_shifted", "weight", kProducts, ShiftedRows, 0, Spot::kAll, "rows.permuted", Need::kNothing},
    {"rows_paired", "weight", Set({PB_STAGE_Q_PROJ, PB_STAGE_K_PROJ}), PairedRows, 0, Spot::kAll,
     "rows.pairing", Need::kNothing},
    {"heads_exchanged", "heads", kHeadProducts | kContext | kScores, ExchangedHeads, 0, Spot::kAll,
     "heads.permuted", Need::kTwoHeads},
    {"weight_transposed", "layout", kLayerProducts, Transposed, 0, Spot::kAll, "weight.transposed",
     Need::kSquare},
    {"codes_reversed", "layout", kLayerProducts, CodeOrder, 0, Spot::kAll, "weight.order=reversed",
     Need::kCodes},
    {"codes_consecutive", "layout", kLayerProducts, CodeOrder, 1, Spot::kAll, "weight.order=consecutive",
     Need::kCodes},
    {"codes_uncentred", "layout", kLayerProducts, CodesUncentred, 1, Spot::kAll,
     "weight.offset=", Need::kTernary},
    {"codes_overcentred", "layout", kLayerProducts, CodesUncentred, -1, Spot::kAll, "weight.offset=-",
     Need::kTernary},
    {"matrix_other_layer", "tensor", kLayerProducts, OtherMatrix, 0, Spot::kAll, "tensor=", Need::kTwoLayers},
    {"matrix_other", "tensor", kLayerProducts, OtherMatrix, 1, Spot::kAll, "tensor=", Need::kPartner},
    {"tail_column_1", "tail", kProducts, TailColumns, 1, Spot::kAll, "drop.columns=1", Need::kNothing},
    {"tail_columns_8", "tail", kProducts, TailColumns, 8, Spot::kAll, "drop.columns=8", Need::kNothing},
    {"tail_columns_32", "tail", kProducts, TailColumns, 32, Spot::kAll, "drop.columns=32", Need::kNothing},
    {"tail_rows_8", "tail", kProducts, TailZero, 8, Spot::kAll, "drop.rows=8", Need::kNothing},
    {"tail_rows_32", "tail", kProducts, TailZero, 32, Spot::kAll, "drop.rows=32", Need::kNothing},
    {"bias_added", "bias", kProducts, Bias, 0.05, Spot::kAll, "bias", Need::kNothing},
    {"bias_missing", "bias", kProducts, NoBias, 0, Spot::kAll, "product.bias=0", Need::kBias},
    {"quant_none", "quantiser", kProducts, OtherScheme, double(ActScheme::kNone), Spot::kAll,
     "act.quant=none", Need::kNothing},
    {"quant_f16", "quantiser", kLayerProducts, OtherScheme, double(ActScheme::kF16), Spot::kAll,
     "act.quant=f16", Need::kQuantised},
    {"quant_q8_0", "quantiser", kLayerProducts, OtherScheme, double(ActScheme::kQ8_0), Spot::kAll,
     "act.quant=q8_0", Need::kQuantised},
    {"quant_bitnet", "quantiser", kLayerProducts, OtherScheme, double(ActScheme::kBitnet), Spot::kAll,
     "act.quant=bitnet", Need::kQuantised},
    {"quant_block_32", "quantiser", kLayerProducts, QuantiserBlock, 32, Spot::kAll, "quant.block=32",
     Need::kBlocks},
    {"quant_block_64", "quantiser", kLayerProducts, QuantiserBlock, 64, Spot::kAll, "quant.block=64",
     Need::kBlocks},
    {"quant_truncates", "quantiser", kLayerProducts, QuantiserTruncates, 0, Spot::kAll,
     "quant.rounding=truncate", Need::kQuantised},
    {"quant_clamp_126", "quantiser", kLayerProducts, QuantiserClamps, 126, Spot::kAll, "quant.clamp=126",
     Need::kQuantised},
    {"quant_clamp_63", "quantiser", kLayerProducts, QuantiserClamps, 63, Spot::kAll, "quant.clamp=63",
     Need::kQuantised},
    {"quant_clamp_99", "quantiser", kLayerProducts, QuantiserClamps, 99, Spot::kAll, "quant.clamp=99",
     Need::kQuantised},
    {"scores_unscaled", "attention scale", kScores, ScoresScale, 0, Spot::kAll, "attn.scale=none",
     Need::kNothing},
    {"scores_scaled_twice", "attention scale", kScores, ScoresScale, 2, Spot::kAll, "attn.scale=twice",
     Need::kNothing},
    {"scores_factor_1.05", "attention scale", kScores, Factor, 1.05, Spot::kAll, "factor=1.05",
     Need::kNothing},
    {"mask_future", "mask", kScores, Mask, 1, Spot::kAll, "mask.shift=1", Need::kNothing},
    {"mask_itself", "mask", kScores, Mask, -1, Spot::kAll, "mask.shift=-1", Need::kNothing},
    {"mask_none", "mask", kScores, Mask, 1000000, Spot::kAll, "mask.shift=1000000", Need::kNothing},
    {"window_longer", "mask", kScores, Window, 1, Spot::kAll, "attn.window_shift=1", Need::kWindow},
    {"window_shorter", "mask", kScores, Window, -1, Spot::kAll, "attn.window_shift=-1", Need::kWindow},
    {"window_none", "mask", kScores, Window, 1000000, Spot::kAll, "attn.window_shift=1000000", Need::kWindow},
    {"scores_uncapped", "cap", kScores, Uncapped, 0, Spot::kAll, "attn.cap=0", Need::kScoreCap},
    {"logits_uncapped", "cap", PB_STAGE_LOGITS, LogitsUncapped, 0, Spot::kAll, "logits.cap=0",
     Need::kLogitCap},
    {"kv_stale", "cache", kScores | kContext, StaleCache, 0, Spot::kAll, "kv.shift=1", Need::kNothing},
    {"kv_unwritten", "cache", kScores | kContext, StaleCache, 1, Spot::kAll, "kv.own=zero", Need::kNothing},
    {"kv_own_stale", "cache", kScores | kContext, StaleCache, 2, Spot::kAll, "kv.own=before", Need::kNothing},
    {"kv_doubled", "cache", kScores | kContext, StaleCache, 3, Spot::kAll, "kv.own=twice", Need::kNothing},
    {"kv_interleaved", "heads", kScores | kContext, InterleavedHeads, 0, Spot::kAll, "kv.map=interleaved",
     Need::kGrouped},
    {"softmax_base_2", "softmax", kSoftmax, Softmax, 0.6931471805599453, Spot::kAll, "softmax.scale=0.693",
     Need::kNothing},
    {"softmax_hot", "softmax", kSoftmax, Softmax, 0.5, Spot::kAll, "softmax.scale=0.5", Need::kNothing},
    {"softmax_sink", "softmax", kSoftmax, SoftmaxSink, 1, Spot::kAll, "softmax.sink=1", Need::kNothing},
    {"sinks_missing", "softmax", kSoftmax, NoSinks, 0, Spot::kAll, "softmax.sinks=0", Need::kSinks},
    {"rope_unscaled", "rotation", kRope, Rope<RopeFault::kAttentionFactor>, 0, Spot::kAll,
     "rope.attention_factor=1 factor=", Need::kAttentionFactor},
    {"rope_factor_twice", "rotation", kRope, Rope<RopeFault::kAttentionFactor>, 2, Spot::kAll,
     "factor=", Need::kAttentionFactor},
    {"rope_unmixed", "rotation", kRope, Rope<RopeFault::kYarn>, 0, Spot::kAll, "rope.yarn=0", Need::kYarn},
    {"norm_bias_missing", "bias", kNorms, NormWithoutBias, 0, Spot::kAll, "product.bias=0", Need::kNormBias},
    {"norm_uncentred", "norm", kNorms, NormFault, 5, Spot::kAll, "norm.centred=0", Need::kLayerNorm},
    {"up_not_offset", "gate", kGated, Gate, 2, Spot::kAll, "ffn.gate_offset=0", Need::kSwigluOai},
    {"experts_from_second", "experts", PB_STAGE_EXPERT_IDS, ExpertsFromRank, 1, Spot::kAll, "router.rank=1",
     Need::kMoreExperts},
    {"router_softmax_late", "experts", kWeights, RouterWeights, 0, Spot::kAll,
     "router.softmax=chosen router.normalise=1", Need::kSoftmaxOfAll},
    {"router_softmax_early", "experts", kWeights, RouterWeights, 1, Spot::kAll, "router.softmax=all",
     Need::kSoftmaxOfChosen},
    {"router_unnormalised", "experts", kWeights, RouterWeights, 2, Spot::kAll, "router.normalise=0",
     Need::kNormalised},
    {"router_equal", "experts", kWeights, RouterWeights, 3, Spot::kAll, "router.equal=1", Need::kNothing},
    {"experts_exchanged", "experts", kExpertProducts, ExpertsExchanged, 0, Spot::kAll,
     "experts.exchanged=", Need::kMoreExperts},
    {"experts_bias_missing", "bias", kExpertProducts, ExpertsWithoutBias, 0, Spot::kAll, "product.bias=0",
     Need::kExpertBias},
    {"shared_ungated", "experts", PB_STAGE_SHARED_OUT, SharedUngated, 0, Spot::kAll, "shared.gate=0",
     Need::kNothing},
    {"residual_missing", "residual", kResiduals, Residual, 0, Spot::kAll, "residual=missing", Need::kNothing},
    {"residual_alone", "residual", kResiduals, Residual, 1, Spot::kAll, "residual=alone", Need::kNothing},
    {"residual_twice", "residual", kResiduals, Residual, 2, Spot::kAll, "residual=doubled", Need::kNothing},
    {"residual_unscaled", "residual", kResiduals, Residual, 3, Spot::kAll, "residual.scale=1",
     Need::kResidualScale},
    {"embeddings_unscaled", "embeddings", kEmbeddings, EmbeddingScale, 1, Spot::kAll, "embeddings.unscaled",
     Need::kEmbeddingScale},
    {"embeddings_scaled", "embeddings", kEmbeddings, EmbeddingScale, 0, Spot::kAll, "embeddings.scale",
     Need::kNothing},
    {"embeddings_factor", "embeddings", kEmbeddings, Factor, 1.05, Spot::kAll, "factor=1.05", Need::kNothing},
    {"embeddings_next", "embeddings", kEmbeddings, NextTokensRow, 0, Spot::kAll,
     "embeddings.row=", Need::kNothing},
    {"bos_missing", "tokens", {}, nullptr, 0, Spot::kAll, "bos=missing", Need::kNothing},
    {"bos_doubled", "tokens", {}, nullptr, 1, Spot::kAll, "bos=doubled", Need::kNothing},
    {"benign_ulp", "benign", kAll - Set(PB_STAGE_EXPERT_IDS), Ulp, 0, Spot::kAll, "", Need::kNothing},
    {"benign_tie", "benign", PB_STAGE_EXPERT_IDS, HighestOfEqual, 0, Spot::kAll, "", Need::kNothing},
    {"benign_sum_double", "benign", kNorms | kProducts, OtherSum, 0, Spot::kAll, "", Need::kNothing},
    {"benign_sum_backwards", "benign", kNorms | kProducts, OtherSum, 1, Spot::kAll, "", Need::kNothing},
    {"benign_quantiser", "benign", kLayerProducts, OtherQuantiser, 0, Spot::kAll, "", Need::kNothing},
    {"benign_formula", "benign", kRope | kScores | kSoftmax | kContext | kAct, OtherFormula, 0, Spot::kAll,
     "", Need::kNothing},
    {"benign_scale_reciprocal", "benign arithmetic", kLayerProducts, OtherRounding,
     double(Harmless::kReciprocal), Spot::kAll, "", Need::kCoded},
    {"benign_scale_double", "benign arithmetic", kLayerProducts, OtherRounding, double(Harmless::kDouble),
     Spot::kAll, "", Need::kCoded},
    {"benign_sums_reordered", "benign arithmetic", kLayerProducts, OtherRounding,
     double(Harmless::kSumsReordered), Spot::kAll, "", Need::kSums},
    {"benign_fast_math", "benign arithmetic",
     kNorms | kProducts | kRope | kScores | kSoftmax | kContext | kAct | kResiduals, FastMath, 0, Spot::kAll,
     "", Need::kNothing},
    {"benign_unrounded", "benign arithmetic", kScores | kContext, AttentionUnrounded, 0, Spot::kAll, "",
     Need::kNothing},
};

uint64_t Choose(const Op& op, int64_t n) {
  const auto place = static_cast<uint64_t>(op.stage) * 1000 + static_cast<uint64_t>(op.layer + 1);
  return Random(op.seed * 1000003 + place).Below(static_cast<uint64_t>(n));
}

int64_t HeadsOf(const Op& op) {
  const bool by_head = stages::Of(op.stage).row.heads() != stages::Dim::kOne;
  return by_head ? stages::RowHeads(op.stage, op.params().shape()) : op.params().n_heads;
}

std::string MatrixObstacle(const Defect& defect, const Op& op) {
  const Need need = defect.need;
  const double parameter = defect.parameter;
  const Weights w = MatrixOf(*op.model, op.stage, op.layer);
  const ActScheme own = OwnScheme(op);
  const BlockType type = w.view->type;
  const bool ternary = type == BlockType::kTQ1_0 || type == BlockType::kTQ2_0 || type == BlockType::kI2_S;
  const bool knows_sums =
      defect.commit == OtherQuantiser || defect.commit == OtherRounding || defect.commit == FastMath;
  if (own == ActScheme::kQ8_1 && !knows_sums)
    return "the mutant does not know how this product rounds its activations";
  if (w.n_out() < defect.LeastRows()) return "the product has too few outputs";
  switch (need) {
    case Need::kTernary:
      return ternary ? "" : "the weights are not ternary";
    case Need::kCodes:
      return type == BlockType::kTQ2_0 || type == BlockType::kI2_S
                 ? ""
                 : "the weights are not stored four codes to a byte";
    case Need::kSquare:
      return w.n_in() == w.n_out() ? "" : "the matrix is not square";
    case Need::kPartner: {
      const Weights other = MatrixOf(*op.model, PartnerOf(op.stage), op.layer);
      const bool same =
          other.n_in() == w.n_in() && other.n_out() == w.n_out() && PartnerOf(op.stage) != op.stage;
      return same ? "" : "no other matrix of the layer has this shape";
    }
    case Need::kCoded:
      return IsIntegerScheme(own) ? "" : "the product does not quantise its activations";
    case Need::kSums:
      return IsIntegerScheme(own) && !BlockMinima(*w.view, 0).empty() ? ""
                                                                      : "no sums are stored for this product";
    case Need::kQuantised:
    case Need::kBlocks: {
      const bool whole = need == Need::kQuantised || w.n_in() > parameter;
      return whole && (own == ActScheme::kQ8_0 || own == ActScheme::kQ8_K || own == ActScheme::kBitnet)
                 ? ""
                 : "the product does not quantise its activations so";
    }
    default:
      return "";
  }
}

// What an architecture, or a file, may have and not have.
std::string OptionObstacle(Need need, const Op& op) {
  const HyperParameters& p = op.params();
  const StageWeights& w = op.model->weights(op.stage, op.layer);
  const Experts& e = p.experts;
  switch (need) {
    case Need::kSinks:
      return p.attention_sinks ? "" : "the heads have no sinks";
    case Need::kAttentionFactor:
      return p.rope_stretch.attention_factor != 1 && p.rotates(op.layer) && p.stretches(op.layer)
                 ? ""
                 : "what is rotated has no factor";
    case Need::kYarn:
      return p.rope_stretch.yarn && p.rotates(op.layer) && p.stretches(op.layer) ? ""
                                                                                 : "no frequencies are mixed";
    case Need::kLayerNorm:
      return p.layer_norm ? "" : "the norm does not subtract the mean";
    case Need::kNormBias:
      return w.bias.empty() ? "the norm has no bias" : "";
    case Need::kSwigluOai:
      return p.ffn_activation && p.ffn_activation->value == Activation::kSwigluOai
                 ? ""
                 : "nothing is added to what the gate multiplies";
    case Need::kSoftmaxOfAll:
      return !e.softmax_of_chosen && !e.normalised ? "" : "the weights do not depend on it";
    case Need::kSoftmaxOfChosen:
      return e.softmax_of_chosen ? "" : "the softmax is over all experts";
    case Need::kNormalised:
      return e.normalised ? "" : "the weights are not normalised";
    case Need::kExpertBias:
      return w.bias.empty() ? "the experts have no bias" : "";
    case Need::kMoreExperts:
      return e.n > e.n_used ? "" : "every expert is used";
    default:
      return "";
  }
}

}  // namespace

int64_t Defect::LeastRows() const {
  if (commit == TailZero) return static_cast<int64_t>(parameter) + 1;
  // Of one output a column is a weight, and a bias an offset.
  const bool of_several = commit == ExchangedRows || commit == ShiftedRows || commit == Bias ||
                          (commit == TailColumns && parameter == 1);
  return of_several || spot == Spot::kFeature ? 2 : 1;
}

std::span<const Defect> Catalogue() { return kDefects; }

const Defect* FindDefect(std::string_view name) {
  const Defect* found =
      std::find_if(std::begin(kDefects), std::end(kDefects), [&](const Defect& d) { return name == d.name; });
  return found == std::end(kDefects) ? nullptr : found;
}

std::string Obstacle(const Defect& defect, const Op& op) {
  const HyperParameters& p = op.params();
  if (defect.at.empty()) return "";
  if (!defect.at.Contains(op.stage)) return "the defect is not of this op";
  if (defect.need == Need::kTwoLayers && (p.n_layers < 2 && op.layer >= 0)) return "there is one layer";
  if (defect.need == Need::kTwoHeads && HeadsOf(op) < 2) return "there is one head";
  if (defect.need == Need::kGrouped && (p.n_kv_heads < 2 || p.n_kv_heads == p.n_heads))
    return "each query head has its own keys, or all have the same";
  if (defect.need == Need::kFactors && p.rope_factors.empty()) return "the frequencies have no factors";
  if (defect.need == Need::kWindow && p.window_of(op.layer) == 0) return "the layer has no window";
  if (defect.need == Need::kLocalRope && (p.local.empty() || p.local_rope_base.value == p.rope_base.value))
    return "all layers rotate alike";
  if (defect.need == Need::kUnrotated && p.rotates(op.layer)) return "the layer is rotated";
  if (defect.need == Need::kScoreCap && p.score_cap == 0) return "the scores have no cap";
  if (defect.need == Need::kLogitCap && p.logit_cap == 0) return "the logits have no cap";
  if (defect.need == Need::kResidualScale && p.residual_scale == 1) return "what is added has no scale";
  if (defect.need == Need::kEmbeddingScale && p.embedding_scale == 1) return "the embeddings have no scale";
  if (const std::string why = OptionObstacle(defect.need, op); !why.empty()) return why;
  if (defect.need == Need::kBias && MatrixOf(*op.model, op.stage, op.layer).bias.empty())
    return "the product has no bias";
  if (kProducts.Contains(op.stage)) return MatrixObstacle(defect, op);
  return "";
}

bool Carries(const Defect& defect, pb_stage stage) {
  return (defect.commit == Mask || defect.commit == Window) &&
         (stage == PB_STAGE_ATTN_SCORES_SOFTMAX || stage == PB_STAGE_ATTN_CONTEXT);
}

int64_t SpotFeature(const Op& op) { return static_cast<int64_t>(Choose(op, op.width)); }
int64_t SecondRow(const Op& op) { return (SpotFeature(op) + op.width / 2) % op.width; }
int64_t SpotHead(const Op& op) { return static_cast<int64_t>(Choose(op, HeadsOf(op))); }

}  // namespace pb::mutant
