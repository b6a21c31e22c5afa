// Draws the conclusion from variations, codes and the wrong part of the output, and words it.
#include "diagnose/conclude.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "diagnose/op_weights.h"
#include "diagnose/wrong_part.h"

namespace pb::diagnose {
namespace {

const Trial* NamedOf(const Evidence& e) {
  const auto named =
      std::ranges::find_if(e.trials, [&](const Trial& t) { return t.restores && t.side == e.subject.side; });
  return named == e.trials.end() ? nullptr : &*named;
}

// Of those that restore nothing the one that comes nearest; nullptr: all are worse than the op as it
// is declared.
const Trial* NearestOf(const Evidence& e, double declared_ratio) {
  const Trial* nearest = nullptr;
  for (const Trial& t : e.trials)
    if (!t.restores && t.side == e.subject.side && t.bound_ratio < declared_ratio &&
        (!nearest || t.bound_ratio < nearest->bound_ratio))
      nearest = &t;
  return nearest;
}

bool IsNonFinite(const Subject& s) {
  const bool scores = s.culprit->place.stage == PB_STAGE_ATTN_SCORES;
  for (size_t i = 0; i < s.output.size(); i++) {
    const bool hidden = scores && std::isinf(s.output[i]) && s.output[i] < 0;
    if (!std::isfinite(s.output[i]) && !hidden && std::isfinite(s.declared[i])) return true;
  }
  return false;
}

// Whether a score is hidden on one side alone.
bool MaskDiffers(const Subject& s) {
  if (s.culprit->place.stage != PB_STAGE_ATTN_SCORES) return false;
  for (size_t i = 0; i < s.output.size(); i++)
    if ((s.output[i] == -INFINITY) != (s.declared[i] == -INFINITY)) return true;
  return false;
}

// The evidence of codes, for the side that is wrong.
struct Codes {
  const CodeSide* side = nullptr;  // null: it told none
  const CodePair* pair = nullptr;  // against the arbiter
  bool Follows() const { return side && side->FollowsFromCodes(); }
  bool CodesRight() const { return pair && pair->comparable && pair->n_differ == pair->n_on_boundary; }
  bool ScalesRight() const { return pair && pair->comparable && pair->n_scales == pair->n_scales_equal; }
  bool SumsRight() const { return !pair || pair->n_stored == pair->n_stored_equal; }
};

Codes CodesOf(const Evidence& e) {
  Codes out;
  if (!e.codes) return out;
  for (const CodeSide& side : e.codes->sides)
    if (side.role == e.subject.side && side.codes) out.side = &side;
  for (const CodePair& pair : e.codes->pairs)
    if (pair.first == e.subject.side && pair.second == "arbiter") out.pair = &pair;
  return out;
}

// Whether an engine's codes are what its own scales make of the input: then its scales are wrong.
bool CodesFollowScales(const Evidence& e, const host::Codes& c) {
  const auto inputs = e.subject.arbiter->Inputs(*e.subject.culprit);
  if (!inputs.ok() || inputs->front().values.size() != c.codes.size()) return false;
  int64_t n_apart = 0;
  for (size_t at = 0; at < c.codes.size(); at++) {
    const auto row = static_cast<int64_t>(at) / c.n_columns, k = static_cast<int64_t>(at) % c.n_columns;
    const double scale = c.scales[static_cast<size_t>(row * c.n_blocks() + k / c.block)];
    if (scale == 0) continue;
    // A scale is kept in f16, and codes end at 127.
    const double code = std::clamp(double(inputs->front().values[at]) / scale, -128.0, 127.0);
    n_apart += std::fabs(code - double(c.codes[at])) > 0.5 + 2e-3 * std::fabs(code);
  }
  return 100 * n_apart < static_cast<int64_t>(c.codes.size());
}

Where WhereOfCodes(const Evidence& e, const Codes& codes) {
  if (!codes.Follows() || !codes.pair) return Where::kUnknown;
  if (codes.CodesRight() && codes.ScalesRight()) return codes.SumsRight() ? Where::kUnknown : Where::kSums;
  if (codes.CodesRight()) return Where::kScales;
  return !codes.ScalesRight() && CodesFollowScales(e, *codes.side->codes) ? Where::kScales : Where::kCodes;
}

void WithoutVariation(const Evidence& e, const WrongPart& part, Conclusion* c) {
  const Codes codes = CodesOf(e);
  const int32_t stage = e.subject.culprit->place.stage;
  c->part = part.region;
  if (IsNonFinite(e.subject)) c->what = WhatKind::kNonFinite;
  if (MaskDiffers(e.subject)) c->where = Where::kMask;
  if (c->where == Where::kUnknown) c->where = WhereOfCodes(e, codes);
  if (c->where != Where::kUnknown) return;
  const bool quantised = codes.side && stages::kProducts.Contains(stage);
  const Where place = WhereOfPart(stage, part);
  // Where the engine tells no codes, its quantiser may be wrong as well as its product.
  if (place == Where::kProduct && !quantised) {
    const OpWeights w = WeightsOf(e.subject.arbiter->model(), stage, e.subject.culprit->place.layer);
    if (w.matrix && IsIntegerScheme(e.subject.arbiter->SchemeOf(*w.matrix, stage))) return;
  }
  // What attention reads may be wrong in the cache.
  const bool reads_cache = stage == PB_STAGE_ATTN_SCORES || stage == PB_STAGE_ATTN_CONTEXT;
  if (!reads_cache) c->where = place;
  // The same keys are wrong for all rows that read them: so they stand there.
  if (reads_cache && c->part.axis == Axis::kPositions && part.n_rows > 1) c->where = Where::kCacheWritten;
}

std::string QuantiserWords(const Evidence& e, Where where) {
  const Codes codes = CodesOf(e);
  switch (where) {
    case Where::kCodes:
      return codes.ScalesRight() ? "its quantiser's codes are wrong, its scales are right"
                                 : "its quantiser's codes are wrong";
    case Where::kScales:
      return codes.CodesRight() ? "its quantiser's codes are right, its scales are not"
                                : "its quantiser's scales are wrong, and so its codes";
    case Where::kSums:
      return "its quantiser's codes and scales are right, the sums stored beside them are not";
    default:
      return "";
  }
}

std::string WhereWords(const Evidence& e, const Conclusion& c) {
  const Codes codes = CodesOf(e);
  switch (c.where) {
    case Where::kCodes:
    case Where::kScales:
    case Where::kSums:
      return QuantiserWords(e, c.where);
    case Where::kProduct:
      return codes.side ? "its product is not what its own codes and weights make" : "its product is wrong";
    case Where::kWeights:
      return "its weights there are others than the file's";
    case Where::kCacheWritten:
      return "its cache does not hold what was put into it";
    case Where::kMask:
      return "it sees or hides positions that the model does not";
    default:
      return "";
  }
}

std::string PartWords(const Conclusion& c, const WrongPart& part) {
  if (c.part.axis == Axis::kAll)
    return part.n_values() > 1 ? "all values are others than they should be" : "";
  if (c.part.axis == Axis::kUnknown) {
    if (part.features.empty() || part.all_features()) return "";
    return fmt::format("{} of {} features are wrong, first {}", part.features.size(), part.n_features,
                       part.features.front());
  }
  const bool one = c.part.first == c.part.last;
  return fmt::format("{} {}", RegionWords(c.part),
                     one ? "is not what its inputs make" : "are not what their inputs make");
}

}  // namespace

Conclusion Conclude(const Evidence& e) {
  Conclusion c;
  const WrongPart part = FindWrongPart(e.subject);
  const Trial* named = NamedOf(e);
  if (named) {
    c.where = named->meaning.where, c.part = named->meaning.part;
    c.what = named->meaning.what, c.value = named->meaning.value;
    c.name = named->name;
    if (const Where by_codes = WhereOfCodes(e, CodesOf(e)); by_codes != Where::kUnknown) c.where = by_codes;
  } else {
    WithoutVariation(e, part, &c);
    const double ratio =
        e.subject.arbiter->Compare(*e.subject.culprit, e.subject.output, e.subject.declared, e.subject.units)
            .row.bound_ratio;
    if (const Trial* nearest = NearestOf(e, ratio))
      c.nearest = nearest->name, c.nearest_ratio = nearest->bound_ratio;
  }
  c.when = WhenOf(e.passes, MayBeByPosition(c));
  // Rows that are wrong from a position on are so in every pass.
  if (c.when.kind == WhenKind::kFromPosition && c.part.axis == Axis::kRows) c.part = {Axis::kAll};
  return c;
}

bool MayBeByPosition(const Conclusion& c) {
  return c.name.empty() && (c.part.axis == Axis::kAll || c.part.axis == Axis::kRows);
}

std::string CauseWords(const Evidence& e, const Conclusion& c) {
  if (const Trial* named = NamedOf(e)) {
    const std::string quantiser = c.where == named->meaning.where ? "" : QuantiserWords(e, c.where);
    return named->text + (quantiser.empty() ? "" : ": " + quantiser);
  }
  if (c.what == WhatKind::kNonFinite) return "gives NaN or infinite values where the arbiter gives numbers";
  const std::string where = WhereWords(e, c);
  std::string which = PartWords(c, FindWrongPart(e.subject));
  // Of all values there is no more to say where it is known what made them.
  if (!where.empty() && c.part.axis == Axis::kAll) which.clear();
  std::string text = "does not compute what the model declares";
  if (!where.empty()) text += ": " + where;
  if (!which.empty()) text += (where.empty() ? ": " : ", ") + which;
  return text;
}

std::string NearestWords(const Evidence& e, const Conclusion& c) {
  if (c.nearest.empty()) return "";
  const auto nearest =
      std::ranges::find_if(e.trials, [&](const Trial& t) { return t.name == c.nearest && !t.restores; });
  const auto n = std::ranges::count_if(e.trials, [&](const Trial& t) { return t.side == e.subject.side; });
  return fmt::format("; nearest of {} variations: {} ({:.2g} times its bound)", n,
                     nearest == e.trials.end() ? c.nearest : nearest->short_text, c.nearest_ratio);
}

}  // namespace pb::diagnose
