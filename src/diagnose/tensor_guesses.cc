// Hypotheses about what an op reads: other tensors, and variations with a fitted value.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <set>

#include "diagnose/op_weights.h"
#include "diagnose/transformations.h"
#include "stages/stages.h"

namespace pb::diagnose {
namespace {

bool SameShape(const OpWeights& a, const OpWeights& b) {
  if (a.matrix && b.matrix)
    return a.matrix->n_rows == b.matrix->n_rows && a.matrix->n_columns == b.matrix->n_columns;
  return a.vector && b.vector && a.vector->size() == b.vector->size();
}

void TryTensor(const Subject& s, const OpWeights& own, int32_t stage, int32_t layer,
               std::vector<Guess>* guesses) {
  const OpWeights other = WeightsOf(s.arbiter->model(), stage, layer);
  if (other.name == own.name || !SameShape(own, other)) return;
  auto replay = [arbiter = s.arbiter, stage, layer](const Culprit& c) -> Result<Expectation> {
    PB_ASSIGN(std::vector<Recorded> inputs, arbiter->Inputs(c));
    return arbiter->Replay(static_cast<pb_stage>(stage), layer, c.first_position, std::move(inputs), "");
  };
  Guess guess{"tensor=" + other.name, fmt::format("reads {} in place of {}", other.name, own.name),
              other.name};
  guess.replay = std::move(replay);
  if (auto varied = Varied(s, std::move(guess))) guesses->push_back(std::move(*varied));
}

// The gate goes through unchanged and up is activated.
void ExchangedGate(const Subject& s, std::vector<Guess>* guesses) {
  const int32_t layer = s.culprit->place.layer, first = s.culprit->first_position;
  const bool of_experts = s.culprit->place.stage == PB_STAGE_EXPERT_GATED;
  const Recorded *gate =
                     s.culprit->inputs.Output(of_experts ? PB_STAGE_EXPERT_GATE : PB_STAGE_GATE_PROJ, layer),
                 *up = s.culprit->inputs.Output(of_experts ? PB_STAGE_EXPERT_UP : PB_STAGE_UP_PROJ, layer);
  if (!gate || !up) return;
  auto active =
      s.arbiter->Replay(of_experts ? PB_STAGE_EXPERT_ACT : PB_STAGE_FFN_ACT, layer, first, {*up}, "");
  if (!active.ok()) return;
  std::vector<float> up_units = std::move(active->units);
  auto y = s.arbiter->Replay(of_experts ? PB_STAGE_EXPERT_GATED : PB_STAGE_FFN_GATED, layer, first,
                             {std::move(active->output), *gate}, "");
  if (!y.ok()) return;
  // The activation is no point of its own here: what its units are beyond one rounding of it is the
  // product's.
  for (size_t i = 0; i < y->units.size() && i < up_units.size(); i++)
    y->units[i] += up_units[i] * std::fabs(gate->values[i]);
  guesses->push_back({"glu=exchanged", "activates up in place of the gate", "gate and up exchanged", 0,
                      std::move(y->output.values), std::move(y->units)});
}

// A mask that is wrong where the softmax applies it: the scores as they are under it, and their
// softmax.
void SoftmaxOfOtherMasks(const Subject& s, std::vector<Guess>* guesses) {
  struct Mask {
    const char *name, *text, *short_text;
  };
  static constexpr Mask kMasks[] = {
      {"mask.shift=1", "sees one position of the future", "a mask off by one"},
      {"mask.shift=-1", "hides a position from itself", "a mask off by one"},
      {"mask.shift=1000000", "does not mask the future", "no causal mask"},
      {"attn.window_shift=1", "sees one position more than its window", "a window longer by one"},
      {"attn.window_shift=-1", "sees one position less than its window", "a window shorter by one"},
      {"attn.window_shift=1000000", "has no window", "no window"},
  };
  const Culprit& c = *s.culprit;
  for (const Mask& mask : kMasks) {
    auto scores = s.arbiter->ExpectOf(PB_STAGE_ATTN_SCORES, c, mask.name);
    if (!scores.ok()) continue;
    auto y = s.arbiter->Replay(PB_STAGE_ATTN_SCORES_SOFTMAX, c.place.layer, c.first_position,
                               {std::move(scores->output)}, "");
    if (y.ok())
      guesses->push_back(
          {mask.name, mask.text, mask.short_text, 0, std::move(y->output.values), std::move(y->units)});
  }
}

// A variation with a fitted value.
class Fit {
 public:
  explicit Fit(const Subject& s) : s_(s) {}

  // ||output - op under "key=value"|| / ||output||; infinite where the arbiter refuses.
  double Error(const char* key, double value) {
    auto e = s_.arbiter->Expect(*s_.culprit, {}, fmt::format("{}={:.17g}", key, value));
    if (!e.ok() || e->output.values.size() != s_.output.size()) return INFINITY;
    double error = 0, norm = 0;
    for (size_t i = 0; i < s_.output.size(); i++) {
      const double x = s_.output[i], d = x - double(e->output.values[i]);
      error += d * d, norm += x * x;
    }
    return norm > 0 ? std::sqrt(error / norm) : INFINITY;
  }

  // The variation with its value in as few digits as it needs.
  void Push(const char* key, double value, const std::string& text, std::vector<Guess>* guesses) {
    for (int digits : {3, 5, 9}) {
      const std::string number = fmt::format("{:.{}g}", value, digits);
      auto g =
          Varied(s_, {fmt::format("{}={}", key, number), fmt::format(fmt::runtime(text), number), number, 1});
      if (!g) return;
      if (digits < 9 && !s_.arbiter->Compare(*s_.culprit, s_.output, g->output, g->units).agrees) continue;
      guesses->push_back(std::move(*g));
      return;
    }
  }

 private:
  const Subject& s_;
};

// A factor of a whole row is (mean square + eps) / (mean square + other eps), under a root.
void FitEps(const Subject& s, std::vector<Guess>* guesses) {
  auto inputs = s.arbiter->Inputs(*s.culprit);
  if (!inputs.ok() || inputs->front().values.size() != s.output.size()) return;
  const std::vector<float>& x = inputs->front().values;
  const int64_t n_rows = s.culprit->shape[0], width = static_cast<int64_t>(x.size()) / n_rows;
  const double eps = s.arbiter->model().params().norm_eps.value;
  double sum = 0, weights = 0;
  for (int64_t i = 0; i < n_rows; i++) {
    double mean_square = 0, dot = 0, square = 0;
    for (int64_t k = i * width; k < (i + 1) * width; k++) {
      const auto at = static_cast<size_t>(k);
      mean_square += double(x[at]) * double(x[at]) / static_cast<double>(width);
      dot += double(s.output[at]) * double(s.declared[at]),
          square += double(s.declared[at]) * double(s.declared[at]);
    }
    if (!(square > 0) || dot == 0) continue;
    const double factor = dot / square, weight = 1 / ((mean_square + eps) * (mean_square + eps));
    sum += weight * ((mean_square + eps) / (factor * factor) - mean_square), weights += weight;
  }
  if (weights > 0 && sum / weights >= 0)
    Fit(s).Push("norm.eps", sum / weights, fmt::format("adds eps {{}}, the model declares {:.3g}", eps),
                guesses);
}

// A coarse scan over the logarithm, then golden section.
void FitBase(const Subject& s, std::vector<Guess>* guesses) {
  Fit fit(s);
  constexpr int kSteps = 36;
  constexpr double kLowest = 2, kHighest = 8, kStep = (kHighest - kLowest) / kSteps,
                   kGolden = 0.6180339887498949;
  auto error = [&](double log_base) { return fit.Error("rope.base", std::pow(10, log_base)); };
  double best = kLowest, least = INFINITY;
  for (int i = 0; i <= kSteps; i++) {
    const double at = kLowest + i * kStep, e = error(at);
    if (e < least) least = e, best = at;
  }
  double a = best - kStep, b = best + kStep, c = b - kGolden * (b - a), d = a + kGolden * (b - a);
  double at_c = error(c), at_d = error(d);
  for (int i = 0; i < 44; i++) {
    if (at_c < at_d) {
      b = d, d = c, at_d = at_c, c = b - kGolden * (b - a), at_c = error(c);
    } else {
      a = c, c = d, at_c = at_d, d = a + kGolden * (b - a), at_d = error(d);
    }
  }
  fit.Push("rope.base", std::pow(10, (a + b) / 2),
           fmt::format("rotates with base {{}}, the model declares {}",
                       s.arbiter->model().params().rope_base.value),
           guesses);
}

// The exponent's factor: log p is linear in the scores with it, each head's row apart.
void FitSoftmaxScale(const Subject& s, std::vector<Guess>* guesses) {
  auto inputs = s.arbiter->Inputs(*s.culprit);
  if (!inputs.ok() || inputs->front().values.size() != s.output.size()) return;
  const auto run = static_cast<size_t>(s.culprit->shape.back());
  double dot = 0, square = 0;
  for (size_t start = 0; start + run <= s.output.size(); start += run) {
    std::vector<std::pair<double, double>> seen;
    double x_mean = 0, y_mean = 0;
    for (size_t i = start; i < start + run; i++)
      if (s.output[i] > 0) seen.emplace_back(inputs->front().values[i], std::log(double(s.output[i])));
    for (const auto& [x, y] : seen)
      x_mean += x / static_cast<double>(seen.size()), y_mean += y / static_cast<double>(seen.size());
    for (const auto& [x, y] : seen) dot += (x - x_mean) * (y - y_mean), square += (x - x_mean) * (x - x_mean);
  }
  if (square > 0 && std::isfinite(dot))
    Fit(s).Push("softmax.scale", dot / square, "multiplies scores by {} within the softmax", guesses);
}

// The largest code: the error falls towards it from both sides.
void FitClamp(const Subject& s, std::vector<Guess>* guesses) {
  Fit fit(s);
  int low = 1, high = 127;
  while (high - low > 2) {
    const int a = low + (high - low) / 3, b = high - (high - low) / 3;
    if (fit.Error("quant.clamp", a) < fit.Error("quant.clamp", b)) {
      high = b;
    } else {
      low = a;
    }
  }
  fit.Push("quant.clamp", (low + high) / 2, "clamps activation codes to +-{}", guesses);
}

// One weight of one row: the column whose inputs go with the error over the token rows best.
void FitCell(const Subject& s, const OpWeights& w, int64_t feature, std::vector<Guess>* guesses) {
  constexpr size_t kTried = 3;
  constexpr int64_t kLeastRows = 4;  // the column and the weight are two numbers
  auto inputs = s.arbiter->Inputs(*s.culprit);
  const int64_t n_rows = s.culprit->shape[0], width = w.matrix->n_columns, n_features = w.matrix->n_rows;
  if (!inputs.ok() || n_rows < kLeastRows ||
      static_cast<int64_t>(inputs->front().values.size()) != n_rows * width)
    return;
  auto x = [&](int64_t i, int64_t k) {
    return double(inputs->front().values[static_cast<size_t>(i * width + k)]);
  };
  auto difference = [&](int64_t i) {
    const auto at = static_cast<size_t>(i * n_features + feature);
    return double(s.output[at]) - double(s.declared[at]);
  };
  std::vector<std::pair<double, int64_t>> columns;
  for (int64_t k = 0; k < width; k++) {
    double dot = 0, square = 0;
    for (int64_t i = 0; i < n_rows; i++) dot += difference(i) * x(i, k), square += x(i, k) * x(i, k);
    if (square > 0) columns.emplace_back(-dot * dot / square, k);
  }
  std::sort(columns.begin(), columns.end());
  for (size_t t = 0; t < std::min(kTried, columns.size()); t++) {
    const int64_t k = columns[t].second;
    auto unit = s.arbiter->Expect(*s.culprit, {}, fmt::format("weight.cell={},{},1", feature, k));
    if (!unit.ok()) return;
    double dot = 0, square = 0;
    for (int64_t i = 0; i < n_rows; i++) {
      const auto at = static_cast<size_t>(i * n_features + feature);
      const double effect = double(unit->output.values[at]) - double(s.declared[at]);
      dot += difference(i) * effect, square += effect * effect;
    }
    if (!(square > 0)) continue;
    Guess cell{fmt::format("weight.cell={},{},{:.9g}", feature, k, dot / square),
               fmt::format("has weight ({}, {}) of {} off by {:.4g}", feature, k, w.name, dot / square),
               "that weight", 2};
    cell.meaning = MeaningOf(cell.name, s.culprit->place.stage);
    cell.meaning.part = {Axis::kFeatures, feature, feature, 1, n_features};
    auto g = Varied(s, std::move(cell));
    if (!g) return;
    guesses->push_back(std::move(*g));
  }
}

}  // namespace

std::optional<Guess> Varied(const Subject& s, Guess guess) {
  if (!guess.replay)
    guess.replay = [arbiter = s.arbiter, name = guess.name](const Culprit& c) {
      return arbiter->Expect(c, {}, name);
    };
  auto e = guess.replay(*s.culprit);
  if (!e.ok()) return std::nullopt;
  guess.output = std::move(e->output.values), guess.units = std::move(e->units);
  return guess;
}

namespace {

// The experts whose outputs are not as declared: computed with each other's matrices, or, of one
// alone, with that of one which no token at hand uses.
void ExchangedExperts(const Subject& s, std::vector<Guess>* guesses) {
  constexpr int64_t kMostTried = 128;
  auto inputs = s.arbiter->Inputs(*s.culprit);
  if (!inputs.ok() || inputs->size() != 2) return;
  const std::vector<float>& ids = inputs->back().values;
  const size_t width = s.output.size() / ids.size();
  std::set<int64_t> wrong, used;
  for (size_t part = 0; part < ids.size(); part++) {
    double error = 0, norm = 0;
    for (size_t i = part * width; i < (part + 1) * width; i++) {
      const double e = double(s.output[i]) - double(s.declared[i]);
      error += e * e, norm += double(s.declared[i]) * double(s.declared[i]);
    }
    const auto id = static_cast<int64_t>(ids[part]);
    used.insert(id);
    if (error > 1e-4 * norm) wrong.insert(id);
  }
  std::vector<int64_t> others;
  if (wrong.size() == 2) others = {*wrong.rbegin()};
  for (int64_t id = 0; wrong.size() == 1 && id < s.arbiter->model().params().experts.n; id++)
    if (!used.count(id) && static_cast<int64_t>(others.size()) < kMostTried) others.push_back(id);
  for (const int64_t other : others) {
    const std::string pair = fmt::format("{},{}", *wrong.begin(), other);
    auto guess =
        Varied(s, {"experts.exchanged=" + pair,
                   fmt::format("computes expert {} with the matrix of expert {}", *wrong.begin(), other),
                   "those experts exchanged"});
    if (guess) guesses->push_back(std::move(*guess));
  }
}

}  // namespace

std::vector<Guess> OtherTensors(const Subject& s) {
  std::vector<Guess> guesses;
  if (stages::kExpertProducts.Contains(s.culprit->place.stage)) ExchangedExperts(s, &guesses);
  const int32_t stage = s.culprit->place.stage, layer = s.culprit->place.layer;
  const OpWeights own = WeightsOf(s.arbiter->model(), stage, layer);
  if (stages::kGated.Contains(stage)) ExchangedGate(s, &guesses);
  if (stage == PB_STAGE_ATTN_SCORES_SOFTMAX) SoftmaxOfOtherMasks(s, &guesses);
  if (stage == PB_STAGE_EMBEDDINGS || stage == PB_STAGE_LOGITS) return guesses;
  const auto last = static_cast<int32_t>(s.arbiter->model().params().n_layers) - 1;
  const std::vector<int32_t> layers =
      layer < 0 ? std::vector{0, last} : std::vector{layer, layer - 1, layer + 1};
  for (int32_t l : layers) {
    for (pb_stage other : stages::kLayerProducts)
      if (own.matrix && (l == layer || other == stage)) TryTensor(s, own, other, l, &guesses);
    for (pb_stage other : stages::kNorms)
      if (own.vector && stages::Of(other).per_layer && l >= 0) TryTensor(s, own, other, l, &guesses);
  }
  if (own.vector) TryTensor(s, own, PB_STAGE_FINAL_NORM, -1, &guesses);
  return guesses;
}

std::vector<Guess> FittedVariations(const Subject& s, const WrongPart& part) {
  std::vector<Guess> guesses;
  const int32_t stage = s.culprit->place.stage;
  const OpWeights own = WeightsOf(s.arbiter->model(), stage, s.culprit->place.layer);
  if (own.vector) FitEps(s, &guesses);
  if (stages::kRotary.Contains(stage)) FitBase(s, &guesses);
  if (stage == PB_STAGE_ATTN_SCORES_SOFTMAX) FitSoftmaxScale(s, &guesses);
  const bool product = own.matrix && !stages::kExpertProducts.Contains(stage) && stage != PB_STAGE_EMBEDDINGS;
  if (product && part.features.size() == 1) FitCell(s, own, part.features.front(), &guesses);
  if (product && part.features.size() > 1) FitClamp(s, &guesses);
  return guesses;
}

}  // namespace pb::diagnose
