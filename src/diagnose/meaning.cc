// What names of variations say in the vocabulary of conclusions: one table.
#include <charconv>
#include <string_view>

#include "diagnose/hypotheses.h"
#include "stages/stages.h"

namespace pb::diagnose {
namespace {

// By the beginning of the name; the first that fits counts.
struct Row {
  std::string_view name;
  Where where;
  WhatKind what;
};
constexpr Row kRows[] = {
    {"quant.rounding=truncate", Where::kCodes, WhatKind::kTruncation},
    {"quant.rounding=floor", Where::kCodes, WhatKind::kTruncation},
    {"quant.rounding=", Where::kCodes, WhatKind::kVariation},
    {"quant.clamp=", Where::kCodes, WhatKind::kSaturation},
    {"quant.cut_scales=", Where::kScales, WhatKind::kTruncation},
    {"quant.", Where::kScales, WhatKind::kVariation},
    {"act.quant=", Where::kCodes, WhatKind::kVariation},
    {"drop.columns=", Where::kProduct, WhatKind::kAbsent},
    {"weight.cell=", Where::kWeights, WhatKind::kUnknown},
    {"weight.minimum=0", Where::kWeights, WhatKind::kAbsent},
    {"weight.", Where::kWeights, WhatKind::kVariation},
    {"tensor=", Where::kWeights, WhatKind::kOtherTensor},
    {"output.tied=", Where::kWeights, WhatKind::kOtherTensor},
    {"experts.exchanged=", Where::kWeights, WhatKind::kOtherTensor},
    {"embeddings.row=", Where::kWeights, WhatKind::kOtherPart},
    {"scale=", Where::kWeights, WhatKind::kVariation},
    {"norm.repeat=0", Where::kFormula, WhatKind::kAbsent},
    {"rope=none", Where::kFormula, WhatKind::kAbsent},
    {"ffn.activation=identity", Where::kFormula, WhatKind::kAbsent},
    {"mask.", Where::kMask, WhatKind::kVariation},
    {"attn.window_shift=", Where::kMask, WhatKind::kVariation},
    {"kv.own=zero", Where::kCacheRead, WhatKind::kAbsent},
    {"kv.own=before", Where::kCacheRead, WhatKind::kStale},
    {"kv.shift=", Where::kCacheRead, WhatKind::kStale},
    {"kv.unrotated", Where::kCacheWritten, WhatKind::kVariation},
    {"kv.", Where::kCacheRead, WhatKind::kVariation},
};

// Where an op of this stage computes what no row says.
Where PlaceOf(int32_t stage) {
  if ((stages::kProducts | stages::kExpertProducts).Contains(stage)) return Where::kProduct;
  return stage == PB_STAGE_EMBEDDINGS ? Where::kWeights : Where::kFormula;
}

double NumberOf(std::string_view text) {
  double value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

Meaning MeaningOf(const std::string& name, int32_t stage) {
  Meaning m{PlaceOf(stage), {Axis::kAll}, WhatKind::kVariation, 0};
  for (const Row& row : kRows) {
    if (!name.starts_with(row.name)) continue;
    m.where = row.where, m.what = row.what;
    if (m.what == WhatKind::kSaturation) m.value = NumberOf(std::string_view(name).substr(row.name.size()));
    break;
  }
  return m;
}

}  // namespace pb::diagnose
