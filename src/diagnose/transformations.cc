// Fits factors, constants, permutations and other changes of an output, as guesses to be
// verified.
#include "diagnose/transformations.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "diagnose/op_weights.h"

namespace pb::diagnose {
namespace {

constexpr double kSameFactor = 1e-5;        // a fitted factor that is a known one
constexpr int64_t kMinRowsForConstant = 3;  // token rows that a constant vector is fitted to
constexpr int64_t kMaxPermuted = 1 << 13;
constexpr int64_t kLeastValues = 4;  // that a factor is told of: half of them it is fitted to
constexpr double kNoFactor = 1e-5;   // from 1: a factor that is none

struct View {
  explicit View(const Subject& subject)
      : n_rows(subject.culprit->shape[0]),
        n_features(static_cast<int64_t>(subject.output.size()) / n_rows),
        s(subject) {}
  double out(int64_t i, int64_t j) const { return s.output[static_cast<size_t>(i * n_features + j)]; }
  double should(int64_t i, int64_t j) const { return s.declared[static_cast<size_t>(i * n_features + j)]; }
  std::vector<float> Declared() const { return {s.declared.begin(), s.declared.end()}; }
  int64_t n_rows, n_features;
  const Subject& s;
};

// Least squares of output = factor * declared over every other value of some rows and features, so
// that the rest verify it; 0 where there is none, or there are too few values.
double FitFactor(const View& v, std::span<const int64_t> rows, std::span<const int64_t> features) {
  double dot = 0, square = 0;
  int64_t n = 0;
  for (int64_t i : rows) {
    for (int64_t j : features) {
      const double x = v.out(i, j), y = v.should(i, j);
      if (!std::isfinite(x) || !std::isfinite(y) || y == 0) continue;
      if (n++ % 2 == 0) dot += x * y, square += y * y;
    }
  }
  return square > 0 && n >= kLeastValues ? dot / square : 0;
}

std::vector<int64_t> First(int64_t n) {
  std::vector<int64_t> all(static_cast<size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// The scale of a product's weights: a tensor of its own, or the magnitude of ternary weights; 0
// where there is none.
double WeightScale(const Subject& s) {
  const OpWeights w = WeightsOf(s.arbiter->model(), s.culprit->place.stage, s.culprit->place.layer);
  return w.matrix && w.scale != 1 ? double(w.scale) : double(TernaryStep(w));
}

struct KnownFactor {
  double value;
  std::string name, text, short_text;
};

std::vector<KnownFactor> KnownFactors(const Subject& s) {
  std::vector<KnownFactor> known{{-1, "sign", "gives the negated output", "the sign turned"},
                                 {2, "doubled", "gives twice the output", "twice the output"},
                                 {0.5, "halved", "gives half the output", "half the output"}};
  const HyperParameters& p = s.arbiter->model().params();
  const double head = 1 / double(p.attention_scale), width = std::sqrt(static_cast<double>(p.d_model));
  if (s.culprit->place.stage == PB_STAGE_ATTN_SCORES) {
    known.push_back({head, "attn.scale=none", "does not divide scores by sqrt(head_dim)", "unscaled scores"});
    known.push_back({1 / head, "attn.scale=twice", "divides scores by head_dim", "scores scaled twice"});
    known.push_back(
        {head / width, "attn.scale=d_model", "divides scores by sqrt(d_model)", "the scale of d_model"});
  }
  if (s.culprit->place.stage == PB_STAGE_EMBEDDINGS)
    known.push_back(
        {width, "embeddings.scale", "multiplies embeddings by sqrt(d_model)", "scaled embeddings"});
  if (s.culprit->place.stage == PB_STAGE_EMBEDDINGS && p.embedding_scale != 1)
    known.push_back({1 / double(p.embedding_scale), "embeddings.unscaled", "does not scale the embeddings",
                     "unscaled embeddings"});
  if (const double scale = WeightScale(s); scale > 0) {
    known.push_back({1 / scale, "scale=missing", "leaves the weight's scale out", "the scale left out"});
    known.push_back(
        {1 / scale / scale, "scale=inverted", "divides by the weight's scale", "the scale inverted"});
    known.push_back({scale, "scale=doubled", "applies the weight's scale twice", "the scale applied twice"});
  }
  return known;
}

void PushScaled(const View& v, double factor, Guess guess, std::vector<Guess>* guesses) {
  for (float x : v.s.declared) guess.output.push_back(static_cast<float>(factor * double(x)));
  for (float u : v.s.units) guess.units.push_back(static_cast<float>(std::fabs(factor) * double(u)));
  guesses->push_back(std::move(guess));
}

void Factor(const View& v, std::vector<Guess>* guesses) {
  const double factor = FitFactor(v, First(v.n_rows), First(v.n_features));
  if (factor == 0 || std::fabs(factor - 1) < kNoFactor) return;
  for (const KnownFactor& known : KnownFactors(v.s)) {
    if (std::fabs(factor / known.value - 1) > kSameFactor) continue;
    Guess guess{known.name, known.text, known.short_text, 0};
    guess.meaning = MeaningOf(guess.name, v.s.culprit->place.stage);
    // Some are factors and nothing else; others name what is done with a parameter.
    if (known.name.find('=') == std::string::npos && known.name.find('.') == std::string::npos)
      guess.meaning.what = WhatKind::kFactor, guess.meaning.value = known.value;
    return PushScaled(v, known.value, std::move(guess), guesses);
  }
  Guess guess{fmt::format("factor={:.6g}", factor),
              fmt::format("gives {:.5g} times what the model declares", factor),
              fmt::format("factor {:.5g}", factor), 1};
  guess.meaning = MeaningOf(guess.name, v.s.culprit->place.stage);
  guess.meaning.what = WhatKind::kFactor, guess.meaning.value = factor;
  PushScaled(v, factor, std::move(guess), guesses);
}

// A part alone is wrong: it is zero, or scaled by one factor.
void PartAlone(const View& v, const WrongPart& part, std::vector<Guess>* guesses) {
  const std::vector<int64_t>& bad = part.features;
  if (part.n_values() == 0 || (part.all_features() && part.all_rows())) return;
  bool zero = true;
  for (int64_t i : part.rows)
    for (int64_t j : bad) zero &= v.out(i, j) == 0;
  const double factor = zero ? 0 : FitFactor(v, part.rows, bad);
  if (!zero && (factor == 0 || std::fabs(factor - 1) < kNoFactor)) return;
  Guess g;
  const bool told = part.region.axis != Axis::kUnknown && part.region.axis != Axis::kAll;
  const std::string which = part.all_features() ? "everything"
                            : told              ? RegionWords(part.region)
                                   : fmt::format("{} features, first {}", bad.size(), bad.front());
  const int32_t stage = v.s.culprit->place.stage;
  const OpWeights weights = WeightsOf(v.s.arbiter->model(), stage, v.s.culprit->place.layer);
  const bool tail = weights.matrix && bad.back() == v.n_features - 1 &&
                    bad.back() - bad.front() + 1 == static_cast<int64_t>(bad.size());
  if (zero && tail && part.all_rows()) {
    g = {fmt::format("drop.rows={}", bad.size()),
         fmt::format("leaves out the last {} of {} output rows", bad.size(), v.n_features),
         fmt::format("the last {} rows left out", bad.size()), 0};
  } else if (zero) {
    g = {fmt::format("zero={}", bad.front()), fmt::format("leaves {} at zero", which), which + " at zero", 0};
  } else {
    g = {fmt::format("factor={:.6g}", factor),
         fmt::format("gives {} {:.5g} times what the model declares", which, factor),
         fmt::format("factor {:.5g}", factor), 1};
  }
  g.meaning = {WhereOfPart(stage, part), part.region, zero ? WhatKind::kAbsent : WhatKind::kFactor, factor};
  // That some rows are right is not what it says: it is tried in the others alone.
  if (part.region.axis == Axis::kRows) g.meaning.part = {Axis::kAll};
  g.tells_part = true;
  g.output = v.Declared();
  for (int64_t i = 0; i < v.n_rows; i++)
    for (int64_t j : bad)
      g.output[static_cast<size_t>(i * v.n_features + j)] = static_cast<float>(factor * v.should(i, j));
  guesses->push_back(std::move(g));
}

// The same vector is added to every row.
void Constant(const View& v, std::vector<Guess>* guesses) {
  if (v.n_rows < kMinRowsForConstant || v.s.culprit->place.stage == PB_STAGE_ATTN_SCORES) return;
  Guess g;
  g.output = v.Declared();
  double square = 0;
  for (int64_t j = 0; j < v.n_features; j++) {
    double mean = 0;
    for (int64_t i = 0; i < v.n_rows; i++)
      mean += (v.out(i, j) - v.should(i, j)) / static_cast<double>(v.n_rows);
    for (int64_t i = 0; i < v.n_rows; i++)
      g.output[static_cast<size_t>(i * v.n_features + j)] = static_cast<float>(v.should(i, j) + mean);
    square += mean * mean;
  }
  const double rms = std::sqrt(square / static_cast<double>(v.n_features));
  if (!std::isfinite(rms)) return;
  g.name = "bias";
  g.text = fmt::format("adds a constant vector (RMS {:.2g}) that the model does not declare", rms);
  g.short_text = "a bias";
  g.n_fitted = static_cast<int>(v.n_features);
  guesses->push_back(std::move(g));
}

// What a feature of typical size comes to over the rows, squared.
double TypicalSquare(const View& v) {
  double typical = 0;  // sum of squared RMS of the rows
  for (float x : v.s.declared)
    if (std::isfinite(x)) typical += double(x) * double(x) / static_cast<double>(v.n_features);
  return typical;
}

// Of each bad feature the declared one that it equals; -1 where there is none left.
std::vector<int64_t> FindSources(const View& v, const std::vector<int64_t>& bad) {
  const double typical = TypicalSquare(v);  // small values may cancel, and are known less exactly
  auto distance = [&](int64_t j, int64_t from) {
    double error = 0, norm = 0;
    for (int64_t i = 0; i < v.n_rows; i++) {
      if (v.out(i, j) == v.should(i, from)) continue;  // hidden scores
      const double e = v.out(i, j) - v.should(i, from);
      error += e * e, norm += v.out(i, j) * v.out(i, j);
    }
    return norm + typical > 0 ? error / std::max(norm, typical) : error;
  };
  std::vector<int64_t> sources;
  std::vector<bool> used(bad.size());
  for (int64_t j : bad) {
    double best = 1e-6;  // squared; whether it is equal within the bound is verified afterwards
    int64_t at = -1;
    for (size_t k = 0; k < bad.size(); k++) {
      if (used[k]) continue;
      if (const double d = distance(j, bad[k]); d < best) best = d, at = static_cast<int64_t>(k);
    }
    if (at >= 0) used[static_cast<size_t>(at)] = true;
    sources.push_back(at < 0 ? -1 : bad[static_cast<size_t>(at)]);
  }
  return sources;
}

// What an order of features is, where it moves whole heads or the pairs of a rotation.
void NameOrder(const View& v, const std::vector<int64_t>& bad, const std::vector<int64_t>& sources,
               Guess* g) {
  const HyperParameters& p = v.s.arbiter->model().params();
  const int32_t stage = v.s.culprit->place.stage;
  const bool over_positions = stage == PB_STAGE_ATTN_SCORES || stage == PB_STAGE_ATTN_SCORES_SOFTMAX;
  const int64_t head = over_positions ? v.n_features / p.n_heads : p.head_dim;
  // Two rows alone may lie a head apart by chance.
  bool heads = head > 0 && v.n_features % head == 0 && static_cast<int64_t>(bad.size()) >= head;
  // Two rows that stay where they are in either pairing: the first and the last of a head.
  bool pairs = head > 2 && v.n_features % head == 0 && !over_positions &&
               static_cast<int64_t>(bad.size()) % (head - 2) == 0;
  for (size_t k = 0; k < bad.size(); k++) {
    const int64_t to = bad[k] % head, from = sources[k] % head;
    heads &= to == from;
    pairs &= bad[k] / head == sources[k] / head &&
             (from == (to % 2) * (head / 2) + to / 2 || to == (from % 2) * (head / 2) + from / 2);
  }
  g->name = heads ? "heads.permuted" : pairs ? "rows.pairing" : "rows.permuted";
  if (heads) {
    g->text = fmt::format("has heads in another order: head {} is head {}", bad[0] / head, sources[0] / head);
  } else if (pairs) {
    g->text = "has the rows of each head in the order of the other RoPE pairing";
  } else if (bad.size() == 2) {
    g->text = fmt::format("has output rows {} and {} exchanged", bad[0], bad[1]);
  } else {
    g->text =
        fmt::format("has {} output rows in another order: row {} is row {}", bad.size(), bad[0], sources[0]);
  }
  g->short_text = heads ? "the heads in order" : "the rows in order";
}

void Order(const View& v, const WrongPart& part, std::vector<Guess>* guesses) {
  const std::vector<int64_t>& bad = part.features;
  if (bad.size() < 2 || static_cast<int64_t>(bad.size()) > kMaxPermuted) return;
  const std::vector<int64_t> sources = FindSources(v, bad);
  if (std::ranges::find(sources, -1) != sources.end()) return;
  Guess g;
  NameOrder(v, bad, sources, &g);
  g.meaning = {WhereOfPart(v.s.culprit->place.stage, part), part.region, WhatKind::kOtherPart, 0};
  g.output = v.Declared();
  for (int64_t i = 0; i < v.n_rows; i++)
    for (size_t k = 0; k < bad.size(); k++)
      g.output[static_cast<size_t>(i * v.n_features + bad[k])] = static_cast<float>(v.should(i, sources[k]));
  guesses->push_back(std::move(g));
}

// An op that hands an input on, or adds one twice.
void Inputs(const View& v, std::vector<Guess>* guesses) {
  const int32_t stage = v.s.culprit->place.stage;
  const bool residual = stage == PB_STAGE_ATTN_RESIDUAL || stage == PB_STAGE_LAYER_OUT;
  const bool gated = stages::kGated.Contains(stage);
  const bool rope = stage == PB_STAGE_Q_ROPE || stage == PB_STAGE_K_ROPE;
  auto inputs = v.s.arbiter->Inputs(*v.s.culprit);
  if ((!residual && !rope && !gated) || !inputs.ok()) return;
  for (const Recorded& input : *inputs)
    if (input.values.size() != v.s.declared.size()) return;
  if (rope) guesses->push_back({"rope=none", "does not rotate", "no rotation", 0, inputs->front().values});
  if (gated) {
    const std::vector<float>&act = (*inputs)[0].values, &up = (*inputs)[1].values;
    guesses->push_back({"glu=gate", "leaves up out of the gated product", "the gate alone", 0, act});
    Guess sum{"glu=added", "adds up to the activated gate", "a sum in place of the product", 0};
    for (size_t i = 0; i < act.size(); i++) sum.output.push_back(act[i] + up[i]);
    guesses->push_back(std::move(sum));
  }
  if (!residual) return;
  std::vector<float> op = (*inputs)[0].values;
  for (float& x : op) x *= v.s.arbiter->model().params().residual_scale;
  const std::vector<float>& stream = (*inputs)[1].values;
  guesses->push_back({"residual=missing", "leaves the residual out", "the residual left out", 0, op});
  guesses->push_back({"residual=alone", "does not add the op's output", "the residual alone", 0, stream});
  Guess twice{"residual=doubled", "adds the residual twice", "the residual twice", 0};
  for (size_t i = 0; i < op.size(); i++) twice.output.push_back(op[i] + 2 * stream[i]);
  guesses->push_back(std::move(twice));
}

// Token rows that are another token's.
void OtherTokens(const View& v, std::vector<Guess>* guesses) {
  if (v.s.culprit->place.stage != PB_STAGE_EMBEDDINGS) return;
  const WeightView& table = v.s.arbiter->model().token_embedding();
  if (table.n_columns != v.n_features) return;
  std::vector<float> row(static_cast<size_t>(v.n_features));
  Guess g;
  g.output = v.Declared();
  for (int64_t i = 0; i < v.n_rows; i++) {
    const ptrdiff_t start = i * v.n_features;
    const auto given = v.s.output.begin() + start;
    if (std::equal(given, given + v.n_features, v.s.declared.begin() + start)) continue;
    for (int64_t id = 0; id < table.n_rows; id++) {
      DecodeRow(table, id, row.data());
      if (!std::equal(row.begin(), row.end(), given)) continue;
      if (g.n_fitted++ == 0) {
        g.name = fmt::format("embeddings.row={}", id);
        g.text = fmt::format("gives the row of token {} at position {}", id, v.s.culprit->first_position + i);
        g.short_text = fmt::format("the row of token {}", id);
      }
      std::copy(row.begin(), row.end(), g.output.begin() + start);
      break;
    }
  }
  if (g.n_fitted > 0) guesses->push_back(std::move(g));
}

}  // namespace

std::vector<Guess> OutputTransformations(const Subject& subject, const WrongPart& part) {
  const View v(subject);
  std::vector<Guess> guesses;
  Factor(v, &guesses);
  PartAlone(v, part, &guesses);
  Constant(v, &guesses);
  Order(v, part, &guesses);
  Inputs(v, &guesses);
  OtherTokens(v, &guesses);
  return guesses;
}

}  // namespace pb::diagnose
