// Draws the conclusion from variations, codes and the wrong part of the output, and words it.
#include "diagnose/conclude.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cmath>

#include "diagnose/code_part.h"
#include "diagnose/op_weights.h"
#include "diagnose/region.h"

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

bool ReadsCache(const Subject& s) {
  const int32_t stage = s.culprit->place.stage;
  return stage == PB_STAGE_ATTN_SCORES || stage == PB_STAGE_ATTN_CONTEXT;
}

bool IsNonFinite(const Subject& s) {
  const bool scores = s.culprit->place.stage == PB_STAGE_ATTN_SCORES;
  for (size_t i = 0; i < s.output.size(); i++) {
    const bool hidden = scores && std::isinf(s.output[i]) && s.output[i] < 0;
    if (!std::isfinite(s.output[i]) && !hidden && std::isfinite(s.declared[i])) return true;
  }
  return false;
}

// What is hidden on one side alone: a score that is minus infinity, a probability that is zero.
struct MaskDifference {
  int64_t n_hidden = 0, n_seen = 0;  // that should be seen, that should be hidden
  // Columns that are hidden in every row that should see them.
  std::vector<Mark> columns;
};
MaskDifference MaskDifferenceOf(const Subject& s) {
  const int32_t stage = s.culprit->place.stage;
  MaskDifference out;
  if (stage != PB_STAGE_ATTN_SCORES && stage != PB_STAGE_ATTN_SCORES_SOFTMAX) return out;
  const bool scores = stage == PB_STAGE_ATTN_SCORES;
  // A probability that underflows in float32 is no sign of a mask.
  constexpr float kSeen = 1e-30f;
  const auto width = s.output.size() / static_cast<size_t>(s.culprit->shape[0]);
  std::vector<int64_t> hidden(width), seen(width);
  for (size_t at = 0; at < s.output.size(); at++) {
    const float x = s.output[at], y = s.declared[at];
    const bool is_hidden = scores ? x == -INFINITY : x == 0, ought = scores ? y == -INFINITY : y == 0;
    const bool counts = scores || (is_hidden ? y > kSeen : x > kSeen);
    if (!ought) ++(is_hidden && counts ? hidden : seen)[at % width];
    if (is_hidden != ought && counts) ++(is_hidden ? out.n_hidden : out.n_seen);
  }
  for (size_t j = 0; j < width; j++)
    out.columns.push_back(hidden[j] == 0 ? Mark::kRight : seen[j] == 0 ? Mark::kWrong : Mark::kOpen);
  return out;
}

// Of a mask: the positions that nothing sees, where that is all that is wrong with it.
void ConcludeMask(const Subject& s, const MaskDifference& mask, Conclusion* c) {
  c->where = Where::kMask;
  if (mask.n_seen == 0) c->what = WhatKind::kAbsent;
  if (s.culprit->place.stage == PB_STAGE_ATTN_SCORES) return;
  // Softmax moves what is left: the wrong part of its output is all of it.
  c->part = {};
  const int64_t n_heads = std::max<int64_t>(s.arbiter->model().params().n_heads, 1);
  const auto n = static_cast<int64_t>(mask.columns.size()) / n_heads;
  std::vector<Mark> positions(static_cast<size_t>(n), Mark::kRight);
  for (size_t j = 0; j < mask.columns.size(); j++) {
    if (mask.columns[j] == Mark::kOpen) return;
    if (mask.columns[j] == Mark::kWrong) positions[j % static_cast<size_t>(n)] = Mark::kWrong;
  }
  if (const auto region = FindRegion(positions, {Axis::kPositions})) c->part = *region;
}

// The evidence of codes, for the side that is wrong.
struct Codes {
  const CodeSide* side = nullptr;  // null: it told none
  const CodeSide* arbiter = nullptr;
  const CodePair* pair = nullptr;  // against the arbiter
  bool Follows() const { return side && side->FollowsFromCodes(); }
  bool CodesRight() const { return pair && pair->comparable && pair->n_differ == pair->n_on_boundary; }
  bool ScalesRight() const {
    return pair && pair->comparable && pair->n_scales == pair->n_scales_equal + pair->n_scales_on_boundary;
  }
  bool SumsRight() const {
    return !pair || pair->n_stored == pair->n_stored_equal + pair->n_stored_on_boundary;
  }
};

Codes CodesOf(const Evidence& e) {
  Codes out;
  if (!e.codes) return out;
  for (const CodeSide& side : e.codes->sides)
    if (side.codes) {
      if (side.role == e.subject.side) out.side = &side;
      if (side.role == "arbiter") out.arbiter = &side;
    }
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
    // A scale is kept in f16, and codes end at 127, or at -128.
    const double code = std::clamp(double(inputs->front().values[at]) / scale, -127.0, 127.0);
    n_apart += std::fabs(code - std::max(double(c.codes[at]), -127.0)) > 0.5 + 2e-3 * std::fabs(code);
  }
  return 100 * n_apart < static_cast<int64_t>(c.codes.size());
}

// A quantiser that is wrong is so whether or not the output is what its codes make.
Where WhereOfCodes(const Evidence& e, const Codes& codes) {
  if (!codes.pair || !codes.pair->comparable) return Where::kUnknown;
  if (codes.CodesRight() && codes.ScalesRight()) return codes.SumsRight() ? Where::kUnknown : Where::kSums;
  if (codes.CodesRight()) return Where::kScales;
  return !codes.ScalesRight() && CodesFollowScales(e, *codes.side->codes) ? Where::kScales : Where::kCodes;
}

// Whether the op is a product that quantises its input.
bool IsQuantised(const Evidence& e) {
  const int32_t stage = e.subject.culprit->place.stage;
  const OpWeights w = WeightsOf(e.subject.arbiter->model(), stage, e.subject.culprit->place.layer);
  return stages::kProducts.Contains(stage) && w.matrix &&
         IsIntegerScheme(e.subject.arbiter->SchemeOf(*w.matrix, stage));
}

CodePart CodePartOf(const Evidence& e, const Codes& codes, Where where) {
  const auto inputs = e.subject.arbiter->Inputs(*e.subject.culprit);
  if (!codes.side || !codes.arbiter || !inputs.ok()) return {};
  return FindCodePart(*codes.side->codes, *codes.arbiter->codes, inputs->front().values, where);
}

void ConcludeCodes(const Evidence& e, const Codes& codes, Conclusion* c) {
  const CodePart found = CodePartOf(e, codes, c->where);
  c->part = found.part, c->what = found.what, c->value = found.value;
}

// Codes tell where a variation is made that comes to the same in several places.
void ConcludeNamed(const Evidence& e, const Trial& named, Conclusion* c) {
  c->where = named.meaning.where, c->part = named.meaning.part;
  c->what = named.meaning.what, c->value = named.meaning.value;
  c->name = named.name;
  const Codes codes = CodesOf(e);
  const Where by_codes = WhereOfCodes(e, codes);
  // One factor of all outputs, or of some columns, may be that of the scales, where these are not known
  // to be right.
  const bool some_outputs = c->part.axis == Axis::kFeatures || c->part.axis == Axis::kHeads;
  const bool may_be_scales = c->what == WhatKind::kFactor && !some_outputs && IsQuantised(e);
  if (may_be_scales && c->where == Where::kProduct && !(codes.CodesRight() && codes.ScalesRight()))
    c->where = Where::kUnknown;
  // Of weights that group sums lower, which no engine tells, those or the codes may be what is wrong.
  if (named.name.starts_with("weight.offset=") && !named.name.starts_with("weight.offset=-")) {
    const int32_t stage = e.subject.culprit->place.stage;
    const OpWeights w = WeightsOf(e.subject.arbiter->model(), stage, e.subject.culprit->place.layer);
    if (w.matrix && e.subject.arbiter->SchemeOf(*w.matrix, stage) == ActScheme::kQ8_K)
      c->where = Where::kUnknown;
  }
  // Sums that the engine tells, and that are right, are left out, or taken from elsewhere, in the product.
  if (c->where == Where::kSums && codes.pair && codes.pair->n_stored > 0 && codes.SumsRight())
    c->where = Where::kProduct;
  if (by_codes == Where::kUnknown || by_codes == c->where) return;
  c->where = by_codes;
  const CodePart found = CodePartOf(e, codes, by_codes);
  if (found.part.axis != Axis::kUnknown) c->part = found.part;
  if (found.what != WhatKind::kUnknown) c->what = found.what, c->value = found.value;
}

void WithoutVariation(const Evidence& e, const WrongPart& part, Conclusion* c) {
  const Codes codes = CodesOf(e);
  const int32_t stage = e.subject.culprit->place.stage;
  c->part = part.region;
  if (IsNonFinite(e.subject)) c->what = WhatKind::kNonFinite;
  const MaskDifference mask = MaskDifferenceOf(e.subject);
  if (mask.n_hidden + mask.n_seen > 0) return ConcludeMask(e.subject, mask, c);
  c->where = WhereOfCodes(e, codes);
  if (c->where != Where::kUnknown) return ConcludeCodes(e, codes, c);
  // That every output is wrong, or every one of some rows, says of a product nothing about which of
  // its terms are; nor whether it is the product, its weights, or sums that no engine tells.
  const bool product = stages::kProducts.Contains(stage);
  if (product && c->part.axis != Axis::kFeatures) c->part = {};
  const Where place = WhereOfPart(stage, part);
  // What attention reads may be wrong in the cache.
  const bool reads_cache = ReadsCache(e.subject);
  if (!reads_cache && !product && place != Where::kWeights) c->where = place;
  if (!reads_cache) return;
  // Rows that read what is wrong are no part of it; nor are all values of a context, which one position
  // makes wrong. At position 0 keys may look right that are wrong.
  const Region& p = c->part;
  const bool not_first = p.axis == Axis::kPositions && p.first == 1 && p.last == p.of - 1;
  if (p.axis == Axis::kRows || (p.axis == Axis::kAll && stage == PB_STAGE_ATTN_CONTEXT) || not_first)
    c->part = {};
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
      return QuantiserWords(e, c.where) + (codes.side && codes.side->sum_bound_ratio > 1
                                               ? ", and its output is not what its own codes and weights make"
                                               : "");
    case Where::kProduct:
      return codes.side ? "its product is not what its own codes and weights make" : "its product is wrong";
    case Where::kCacheWritten:
      return "its cache does not hold what was put into it";
    case Where::kMask:
      return "it sees or hides positions that the model does not";
    case Where::kUnknown:
      return codes.side && !codes.Follows() ? "its output is not what its own codes and weights make" : "";
    default:
      return "";
  }
}

// What is known of wrong codes, scales or sums: "in column 103 of 256 columns of K, by 1".
std::string CodeWords(const Conclusion& c) {
  std::string text;
  if (c.part.axis != Axis::kUnknown && c.part.axis != Axis::kAll) text = "in " + RegionWords(c.part);
  const char* between = text.empty() ? "" : ", ";
  if (c.what == WhatKind::kOffset) text += fmt::format("{}by {:+.5g}", between, c.value);
  if (c.what == WhatKind::kFactor) text += fmt::format("{}by the factor {:.5g}", between, c.value);
  if (c.what == WhatKind::kAbsent) text += fmt::format("{}left out", between);
  if (c.what == WhatKind::kSaturation) text += fmt::format("{}ending at {:.5g}", between, c.value);
  if (c.what == WhatKind::kTruncation) text += fmt::format("{}cut off in place of rounded", between);
  if (c.what == WhatKind::kOtherPart) text += fmt::format("{}those of other blocks", between);
  return text;
}

std::string PartWords(const Conclusion& c, const WrongPart& part) {
  if (c.where == Where::kCodes || c.where == Where::kScales || c.where == Where::kSums) return CodeWords(c);
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

// Whether what is wrong with several threads alone are the features that one of them computes.
bool IsShareOfThread(const Conclusion& c) {
  const Region& r = c.part;
  if (c.when.kind != WhenKind::kThreads || r.every != 1 || r.of == 0) return false;
  if (r.axis != Axis::kFeatures && r.axis != Axis::kHeads) return false;
  const auto is_edge = [&](int64_t at) {  // between two threads
    for (int64_t k = 0; k <= c.when.n; k++)
      if (at == k * r.of / c.when.n || at == (k * r.of + c.when.n - 1) / c.when.n) return true;
    return false;
  };
  return is_edge(r.first) && is_edge(r.last + 1) && r.last - r.first + 1 < r.of;
}

}  // namespace

Grounds FindGrounds(const Evidence& e, const WrongPart& part) {
  Grounds g;
  Conclusion& c = g.conclusion;
  g.n_features = part.n_features;
  const Trial* named = NamedOf(e);
  if (named) {
    ConcludeNamed(e, *named, &c);
    if (named->rows_alone) g.rows = part.some_rows;
    g.rows_without_order = named->rows_alone && g.rows.axis == Axis::kUnknown;
  } else {
    WithoutVariation(e, part, &c);
    const double ratio =
        e.subject.arbiter->Compare(*e.subject.culprit, e.subject.output, e.subject.declared, e.subject.units)
            .row.bound_ratio;
    if (const Trial* nearest = NearestOf(e, ratio))
      c.nearest = nearest->name, c.nearest_ratio = nearest->bound_ratio;
  }
  // The same keys or values are wrong for all rows that read them: so they stand there.
  const bool unsaid = c.where == Where::kFormula || (!named && c.where == Where::kUnknown);
  if (ReadsCache(e.subject) && c.part.axis == Axis::kPositions && part.n_rows > 1 && unsaid)
    c.where = Where::kCacheWritten;
  g.rows_tell = named ? named->in_part || c.part.axis == Axis::kRows
                      : c.part.axis == Axis::kAll || c.part.axis == Axis::kRows;
  g.rows_tell &= c.where != Where::kMask || named;
  // Of codes that are wrong in some rows, and of a product of which no more is known than its rows.
  const bool quantiser = c.where == Where::kCodes || c.where == Where::kScales || c.where == Where::kSums;
  g.rows_tell |= !named && !part.all_rows() &&
                 (quantiser || (part.region.axis == Axis::kRows && c.part.axis == Axis::kUnknown &&
                                stages::kProducts.Contains(e.subject.culprit->place.stage)));
  if (c.part.axis == Axis::kRows) g.rows = c.part, c.part = {Axis::kAll};
  // The probability of the one position that row 0 sees is 1 whatever is wrong.
  const Culprit& op = *e.subject.culprit;
  if (op.place.stage == PB_STAGE_ATTN_SCORES_SOFTMAX && op.first_position == 0 && g.rows.first == 1 &&
      g.rows.last == part.n_rows - 1)
    g.rows = {};
  return g;
}

namespace {

// Passes that tell something: not those that end before the mistake shows.
std::vector<SeenPass> TellingPasses(const Conclusion& c, std::span<const SeenPass> passes) {
  int64_t first = c.part.axis == Axis::kPositions ? c.part.first + 1 : 0;
  if (c.where == Where::kMask) {
    first = LLONG_MAX;
    for (const SeenPass& p : passes)
      if (p.wrong && p.first_wrong >= 0) first = std::min(first, p.first_wrong);
  }
  std::vector<SeenPass> telling(passes.begin(), passes.end());
  std::erase_if(telling, [&](const SeenPass& p) { return !p.wrong && !p.shows && p.end() <= first; });
  return telling;
}

}  // namespace

Conclusion Conclude(const Grounds& g, std::span<const SeenPass> passes) {
  Conclusion c = g.conclusion;
  const std::vector<SeenPass> telling = TellingPasses(c, passes);
  c.when = WhenOf(telling, g.rows_tell);
  // A mask may be wrong from a position on, or not show before it.
  const bool silent = telling.size() < passes.size() && std::ranges::none_of(telling, &SeenPass::shows);
  if (c.where == Where::kMask && silent && c.when.kind == WhenKind::kAlways) c.when = {};
  // Rows that are wrong from a position on are so in every pass, and at random they are no part.
  const bool by_rows = c.when.kind == WhenKind::kFromPosition || c.when.kind == WhenKind::kNotRepeatable;
  if (!by_rows && c.part.axis == Axis::kAll) {
    const bool some_rows = g.rows.axis == Axis::kRows;
    if (some_rows) c.part = g.rows;
    if (g.rows_without_order || (some_rows && c.where == Where::kMask)) c.part = {};
  }
  const bool attention =
      c.where == Where::kCacheWritten || c.where == Where::kCacheRead || c.where == Where::kMask;
  if (attention || !IsShareOfThread(c)) return c;
  c.where = Where::kThread;
  if (c.part.axis != Axis::kHeads) return c;
  const int64_t head = g.n_features / c.part.of;
  c.part = {Axis::kFeatures, c.part.first * head, (c.part.last + 1) * head - 1, 1, g.n_features};
  return c;
}

std::string CauseWords(const Evidence& e, const WrongPart& part, const Conclusion& c) {
  if (const Trial* named = NamedOf(e)) {
    const std::string quantiser = c.where == named->meaning.where ? "" : QuantiserWords(e, c.where);
    return named->text + (quantiser.empty() ? "" : ": " + quantiser);
  }
  if (c.what == WhatKind::kNonFinite) return "gives NaN or infinite values where the arbiter gives numbers";
  const std::string where = WhereWords(e, c);
  std::string which = PartWords(c, part);
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
