// The table of spelled defects: their names, where each exists, and how one is read.
#include "plugins/mutant/fault.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace pb::mutant {
namespace {

using stages::Set;
constexpr Set kDenseProducts = {PB_STAGE_Q_PROJ,    PB_STAGE_K_PROJ,  PB_STAGE_V_PROJ,    PB_STAGE_ATTN_OUT,
                                PB_STAGE_GATE_PROJ, PB_STAGE_UP_PROJ, PB_STAGE_DOWN_PROJ, PB_STAGE_LOGITS};
constexpr Set kRope = stages::kRotary, kScores = PB_STAGE_ATTN_SCORES,
              kSoftmax = PB_STAGE_ATTN_SCORES_SOFTMAX, kContext = PB_STAGE_ATTN_CONTEXT,
              kResiduals = {PB_STAGE_ATTN_RESIDUAL, PB_STAGE_LAYER_OUT};
constexpr Set kPerFeature = stages::kNorms | kRope | Set{PB_STAGE_FFN_ACT, PB_STAGE_FFN_GATED} | kResiduals;

constexpr FaultKind kKinds[] = {
    // id, name, kind, stages, axis, needs a part, has an amount
    {FaultId::kCodesOff, "codes_off", "quantiser: codes", kDenseProducts, FaultAxis::kCode, true, true},
    {FaultId::kCodesTruncated, "codes_truncated", "quantiser: codes", kDenseProducts, FaultAxis::kNone, false,
     false},
    {FaultId::kCodesFloored, "codes_floored", "quantiser: codes", kDenseProducts, FaultAxis::kNone, false,
     false},
    {FaultId::kCodesClamped, "codes_clamped", "quantiser: codes", kDenseProducts, FaultAxis::kNone, false,
     true},
    {FaultId::kAmaxOfPart, "amax_of_part", "quantiser: scales", kDenseProducts, FaultAxis::kCode, true,
     false},
    {FaultId::kLevels, "levels", "quantiser: scales", kDenseProducts, FaultAxis::kNone, false, true},
    {FaultId::kScalesFactor, "scales_factor", "quantiser: scales", kDenseProducts, FaultAxis::kBlocks, false,
     true},
    {FaultId::kScalesUnrounded, "scales_unrounded", "quantiser: scales", kDenseProducts, FaultAxis::kNone,
     false, false},
    {FaultId::kScalesTruncated, "scales_truncated", "quantiser: scales", kDenseProducts, FaultAxis::kNone,
     false, false},
    {FaultId::kSumsAbsent, "sums_absent", "quantiser: sums", kDenseProducts, FaultAxis::kBlocks, false,
     false},
    {FaultId::kSumsShifted, "sums_shifted", "quantiser: sums", kDenseProducts, FaultAxis::kNone, false,
     false},
    {FaultId::kSumsWithout, "sums_without", "quantiser: sums", kDenseProducts, FaultAxis::kCode, true, false},
    {FaultId::kSumsOfValues, "sums_of_values", "quantiser: sums", kDenseProducts, FaultAxis::kNone, false,
     false},
    {FaultId::kColumnsAbsent, "columns_absent", "product: columns", kDenseProducts, FaultAxis::kColumns, true,
     false},
    {FaultId::kCodeAbsent, "code_absent", "product: columns", kDenseProducts, FaultAxis::kCode, true, false},
    {FaultId::kBlocksAbsent, "blocks_absent", "product: columns", kDenseProducts, FaultAxis::kBlocks, true,
     false},
    {FaultId::kColumnsRepeated, "columns_repeated", "product: columns", kDenseProducts, FaultAxis::kColumns,
     true, false},
    {FaultId::kFeaturesAbsent, "features_absent", "product: features", kDenseProducts, FaultAxis::kFeatures,
     true, false},
    {FaultId::kLanesLost, "lanes_lost", "product: features", kDenseProducts, FaultAxis::kFeatures, true,
     true},
    {FaultId::kProductFactor, "product_factor", "product: features", kDenseProducts, FaultAxis::kFeatures,
     false, true},
    {FaultId::kRowsShifted, "rows_shifted", "weights", kDenseProducts, FaultAxis::kFeatures, true, true},
    {FaultId::kWeightBlock, "weight_block", "weights", kDenseProducts, FaultAxis::kBlocks, true, true},
    {FaultId::kNibbles, "nibbles", "weights", kDenseProducts, FaultAxis::kFeatures, false, false},
    {FaultId::kNoMinimum, "no_minimum", "weights", kDenseProducts, FaultAxis::kFeatures, false, false},
    {FaultId::kOthersScale, "others_scale", "weights", kDenseProducts, FaultAxis::kFeatures, false, false},
    {FaultId::kWeightFactor, "weight_factor", "weights", kDenseProducts, FaultAxis::kFeatures, true, true},
    {FaultId::kFactor, "factor", "formula", kPerFeature, FaultAxis::kFeatures, false, true},
    {FaultId::kHeadFactor, "head_factor", "formula", kRope | kSoftmax, FaultAxis::kHeads, true, true},
    {FaultId::kOffset, "offset", "formula", kPerFeature, FaultAxis::kFeatures, false, true},
    {FaultId::kSaturated, "saturated", "formula", kPerFeature, FaultAxis::kNone, false, true},
    {FaultId::kTruncated, "truncated", "formula", kPerFeature | kSoftmax, FaultAxis::kNone, false, false},
    {FaultId::kHalf, "half", "formula", kPerFeature | kSoftmax, FaultAxis::kNone, false, false},
    {FaultId::kLeftOut, "left_out", "formula", kPerFeature, FaultAxis::kNone, false, false},
    {FaultId::kHeadLeftOut, "head_left_out", "formula", kRope, FaultAxis::kHeads, true, false},
    {FaultId::kOtherPart, "other_part", "formula", kPerFeature, FaultAxis::kFeatures, true, true},
    {FaultId::kCellAbsent, "cell_absent", "cache", kScores | kContext, FaultAxis::kPositions, true, false},
    {FaultId::kCellOfBefore, "cell_of_before", "cache", kScores | kContext, FaultAxis::kPositions, true,
     false},
    {FaultId::kCellOfNext, "cell_of_next", "cache", kScores | kContext, FaultAxis::kPositions, true, false},
    {FaultId::kHeadUnwritten, "head_unwritten", "cache", kScores | kContext, FaultAxis::kHeads, true, false},
    {FaultId::kUnrotated, "unrotated", "cache", kScores, FaultAxis::kNone, false, false},
    {FaultId::kOwnOfBefore, "own_of_before", "cache", kScores | kContext, FaultAxis::kNone, false, false},
    {FaultId::kReadBefore, "read_before", "cache", kScores | kContext, FaultAxis::kNone, false, false},
    {FaultId::kOtherHead, "other_head", "cache", kScores | kContext, FaultAxis::kHeads, true, false},
    {FaultId::kPositionHidden, "position_hidden", "mask", kScores | kSoftmax, FaultAxis::kPositions, true,
     false},
    {FaultId::kMaskShifted, "mask_shifted", "mask", kScores | kSoftmax, FaultAxis::kNone, false, true},
    {FaultId::kWindow, "window", "mask", kScores | kSoftmax, FaultAxis::kNone, false, true},
    {FaultId::kShareAbsent, "share_absent", "thread's share", kDenseProducts, FaultAxis::kFeatures, true,
     false},
    {FaultId::kShareRepeated, "share_repeated", "thread's share", kDenseProducts, FaultAxis::kFeatures, true,
     false},
    {FaultId::kGroupSumsWithout, "group_sums_without", "quantiser: sums", kDenseProducts, FaultAxis::kCode,
     true, false, false},
    {FaultId::kGroupSumsSaturated, "group_sums_saturated", "quantiser: sums", kDenseProducts,
     FaultAxis::kNone, false, true, false},
    {FaultId::kMinimaOf, "minima_of", "weights", kDenseProducts, FaultAxis::kNone, false, true, false},
    {FaultId::kBitsLost, "bits_lost", "weights", kDenseProducts, FaultAxis::kPositions, true, true, false},
    {FaultId::kGroupScale, "group_scale", "weights", kDenseProducts, FaultAxis::kPositions, true, true,
     false},
    {FaultId::kHeadColumnsAbsent, "head_columns_absent", "cache", kScores, FaultAxis::kColumns, true, false,
     false},
    {FaultId::kSquaresWithout, "squares_without", "formula", stages::kNorms, FaultAxis::kColumns, true, false,
     false},
    {FaultId::kEpsOutside, "eps_outside", "formula", stages::kNorms, FaultAxis::kNone, false, false, false},
    {FaultId::kUnweighted, "unweighted", "formula", stages::kNorms, FaultAxis::kFeatures, true, false, false},
    {FaultId::kPairFrequency, "pair_frequency", "formula", kRope, FaultAxis::kNone, false, true, false},
    {FaultId::kPairsLeft, "pairs_left", "formula", kRope, FaultAxis::kNone, false, true, false},
    {FaultId::kNotRescaled, "not_rescaled", "formula", kSoftmax, FaultAxis::kNone, false, true, false},
};

template <class Number>
bool ReadNumber(std::string_view text, Number* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return !text.empty() && error == std::errc() && end == text.data() + text.size();
}

std::string_view TakeUntil(char mark, std::string_view* rest) {
  const size_t at = rest->find(mark);
  const std::string_view before = rest->substr(0, at);
  *rest = at == std::string_view::npos ? std::string_view() : rest->substr(at + 1);
  return before;
}

bool ReadPart(std::string_view text, FaultPart* part) {
  const bool steps = text.find('%') != std::string_view::npos,
             range = text.find('-') != std::string_view::npos;
  std::string_view rest = text, ends = TakeUntil('%', &rest);
  if (steps && !ReadNumber(rest, &part->every)) return false;
  if (!ReadNumber(TakeUntil('-', &ends), &part->first)) return false;
  part->last = part->first;
  if (range && !ReadNumber(ends, &part->last)) return false;
  constexpr int64_t kMost = int64_t{1} << 40;
  return part->first >= 0 && part->last >= part->first && part->last < kMost && part->every >= 1;
}

bool HasMinimum(BlockType type) {
  return type == BlockType::kQ4_1 || type == BlockType::kQ5_1 || type == BlockType::kQ2_K ||
         type == BlockType::kQ4_K || type == BlockType::kQ5_K;
}

bool HasNibbles(BlockType type) {
  return type == BlockType::kQ4_0 || type == BlockType::kQ4_1 || type == BlockType::kQ4_K;
}

int64_t HeadsOf(const Op& op) {
  const bool by_head = stages::Of(op.stage).row.heads() != stages::Dim::kOne;
  return by_head ? stages::RowHeads(op.stage, op.params().shape()) : op.params().n_heads;
}

constexpr const char* kOtherwise = "the product does not quantise its input so";

// Of the parts of quantised products.
std::string ProductObstacle(const Fault& fault, const Weights& w, ActScheme scheme) {
  const bool integer = IsIntegerScheme(scheme), blocks = integer && scheme != ActScheme::kBitnet;
  switch (fault.kind->id) {
    case FaultId::kCodesOff:
    case FaultId::kCodeAbsent:
    case FaultId::kBlocksAbsent:
    case FaultId::kAmaxOfPart:
    case FaultId::kWeightBlock:
      return blocks ? "" : kOtherwise;
    case FaultId::kCodesTruncated:
    case FaultId::kCodesFloored:
    case FaultId::kCodesClamped:
    case FaultId::kLevels:
    case FaultId::kScalesFactor:
      return integer ? "" : kOtherwise;
    case FaultId::kScalesUnrounded:
    case FaultId::kScalesTruncated:
      return scheme == ActScheme::kQ8_0 || scheme == ActScheme::kQ8_1 ? "" : kOtherwise;
    case FaultId::kSumsAbsent:
    case FaultId::kSumsShifted:
    case FaultId::kSumsWithout:
    case FaultId::kSumsOfValues:
      return blocks && HasMinimum(w.view->type) ? "" : "no sums are stored for this product";
    case FaultId::kGroupSumsWithout:
      return scheme == ActScheme::kQ8_K && !BlockOffsets(*w.view, 0).empty()
                 ? ""
                 : "no sums lower the weights of this product";
    case FaultId::kGroupSumsSaturated:
      return scheme == ActScheme::kQ8_K && HasMinimum(w.view->type) ? ""
                                                                    : "no sums of groups meet these weights";
    case FaultId::kMinimaOf:
      return scheme == ActScheme::kQ8_K && HasMinimum(w.view->type) ? "" : "no groups of weights have minima";
    case FaultId::kBitsLost:
    case FaultId::kGroupScale: {
      const int64_t bytes = GetBlockFormat(w.view->type).block_bytes, more = std::abs(fault.amount) < 256;
      return fault.part.last < bytes && more ? "" : fmt::format("a block has {} bytes", bytes);
    }
    case FaultId::kNoMinimum:
      return blocks && HasMinimum(w.view->type) ? "" : "the weights have no minimum";
    case FaultId::kNibbles:
      return HasNibbles(w.view->type) ? "" : "the weights are not stored two codes to a byte";
    case FaultId::kOthersScale: {
      const uint32_t values = GetBlockFormat(w.view->type).block_values;
      const bool has = w.view->type == BlockType::kQ8_0 || HasNibbles(w.view->type);
      return has && w.n_in() >= 2 * values ? "" : "the weights have no scales of their own in each block";
    }
    default:
      return "";
  }
}

std::string PartObstacle(const Fault& fault, const Op& op) {
  const FaultPart& part = fault.part;
  if (part.all()) return "";
  const int64_t n = AxisLength(fault, op), length = part.last - part.first + 1;
  if (fault.kind->axis != FaultAxis::kPositions && part.last >= n)
    return fmt::format("its part ends at {}, and there are {} places, counted from 0", part.last, n);
  const FaultId id = fault.kind->id;
  const bool before = id == FaultId::kColumnsRepeated || id == FaultId::kShareRepeated;
  if (before && part.first < length) return "nothing as long as its part lies before it";
  if (id == FaultId::kCellOfBefore && part.first == 0) return "there is nothing before position 0";
  return "";
}

}  // namespace

std::span<const FaultKind> FaultKinds() { return kKinds; }

Result<Fault> ParseFault(std::string_view text) {
  std::string_view rest = text;
  const bool has_amount = text.find(':') != std::string_view::npos;
  std::string_view what = TakeUntil(':', &rest);
  const bool has_part = what.find('@') != std::string_view::npos;
  const std::string_view name = TakeUntil('@', &what);
  const FaultKind* kind =
      std::ranges::find(kKinds, name, [](const FaultKind& k) { return std::string_view(k.name); });
  if (kind == std::end(kKinds)) {
    std::vector<std::string_view> names;
    for (const FaultKind& k : kKinds) names.emplace_back(k.name);
    return MakeError(Code::kUsage, "mutant.fault={}: offered are {}", text, fmt::join(names, ", "));
  }
  Fault fault{kind, {}, 0};
  if (has_part && (kind->axis == FaultAxis::kNone || !ReadPart(what, &fault.part)))
    return MakeError(Code::kUsage, "mutant.fault={}: \"{}\" is no part of {}", text, what, name);
  if (!has_part && kind->needs_part)
    return MakeError(Code::kUsage, "mutant.fault={}: say of which part: {}@FIRST-LAST%EVERY", text, name);
  if (has_amount != kind->has_amount)
    return MakeError(Code::kUsage, "mutant.fault={}: {} takes {} amount", text, name,
                     kind->has_amount ? "an" : "no");
  if (has_amount &&
      (!ReadNumber(rest, &fault.amount) || !std::isfinite(fault.amount) || std::fabs(fault.amount) > 1e9))
    return MakeError(Code::kUsage, "mutant.fault={}: \"{}\" is no amount", text, rest);
  return fault;
}

std::string FaultText(const Fault& fault) {
  std::string text = fault.kind->name;
  if (const FaultPart& p = fault.part; !p.all()) {
    text += fmt::format("@{}", p.first);
    if (p.last != p.first) text += fmt::format("-{}", p.last);
    if (p.every != 1) text += fmt::format("%{}", p.every);
  }
  return fault.kind->has_amount ? fmt::format("{}:{:g}", text, fault.amount) : text;
}

int64_t AxisLength(const Fault& fault, const Op& op) {
  const bool product = kDenseProducts.Contains(op.stage);
  const Weights w = product ? MatrixOf(*op.model, op.stage, op.layer) : Weights{};
  const int64_t block = product && w.view ? ActBlockValues(OwnScheme(op), w.n_in()) : 0;
  switch (fault.kind->axis) {
    case FaultAxis::kColumns:
      if (fault.kind->id == FaultId::kHeadColumnsAbsent) return op.params().head_dim;
      return w.view ? w.n_in() : static_cast<int64_t>(op.model->weights(op.stage, op.layer).vector.size());
    case FaultAxis::kBlocks:
      return block > 0 ? (w.n_in() + block - 1) / block : 0;
    case FaultAxis::kCode:
      return block;
    case FaultAxis::kFeatures:
      return w.view ? w.n_out() : stages::RowWidth(op.stage, op.params().shape(), 1);
    case FaultAxis::kHeads:
      return fault.kind->id == FaultId::kHeadUnwritten ? op.params().n_kv_heads : HeadsOf(op);
    default:
      return 0;
  }
}

std::string Obstacle(const Fault& fault, const Op& op) {
  const HyperParameters& p = op.params();
  const FaultId id = fault.kind->id;
  if (!fault.kind->at.Contains(op.stage)) return "the defect is not of this op";
  if (kDenseProducts.Contains(op.stage)) {
    const Weights w = MatrixOf(*op.model, op.stage, op.layer);
    if (!w.view || op.model->weights(op.stage, op.layer).n_experts > 0)
      return "the product has no matrix of its own";
    if (std::string why = ProductObstacle(fault, w, OwnScheme(op)); !why.empty()) return why;
    const double rows = static_cast<double>(w.n_out());
    if (id == FaultId::kWeightBlock && !(fault.amount >= 0 && fault.amount < rows))
      return fmt::format("there are {} rows", w.n_out());
    if (id == FaultId::kRowsShifted && !(std::fabs(fault.amount) < rows))
      return fmt::format("there are {} rows", w.n_out());
  }
  if (id == FaultId::kOtherHead && (p.n_kv_heads < 2)) return "all heads have the same keys and values";
  if (id == FaultId::kLanesLost && !(fault.amount >= 2 && fault.amount <= 64))
    return "there are 2 to 64 lanes";
  if (id == FaultId::kLevels && !(fault.amount >= 2 && fault.amount <= 1000))
    return "there are 2 to 1000 levels";
  if ((id == FaultId::kCodesClamped || id == FaultId::kMaskShifted || id == FaultId::kWindow) &&
      !(fault.amount >= 1))
    return "its amount is 1 or more";
  const bool unrotated = stages::kRotary.Contains(op.stage) || id == FaultId::kUnrotated;
  if (unrotated && (id == FaultId::kUnrotated || id == FaultId::kLeftOut || id == FaultId::kHeadLeftOut) &&
      (!p.rotates(op.layer) || p.rope_dims == 0))
    return "the layer has no rotation";
  // Attention is computed anew here; what only some models have of it is not.
  const bool attention = (kScores | kSoftmax | kContext).Contains(op.stage);
  if (attention && (p.attention_sinks || p.window_of(op.layer) > 0 || p.score_cap > 0))
    return "the attention has sinks, a window or a cap";
  if (id == FaultId::kUnrotated &&
      (p.rope_stretch.yarn || !p.rope_factors.empty() || !p.rope_stretch.long_factors.empty()))
    return "the rotation is stretched";
  return PartObstacle(fault, op);
}

void Commit(const Fault& fault, Op& op) {
  if (kDenseProducts.Contains(op.stage)) return CommitProductFault(fault, op);
  if ((kScores | kSoftmax | kContext).Contains(op.stage) && fault.kind->id >= FaultId::kCellAbsent)
    return CommitAttentionFault(fault, op);
  CommitValueFault(fault, op);
}

bool ChangesCodes(const Fault& fault) { return fault.kind->id <= FaultId::kSumsOfValues; }

}  // namespace pb::mutant
