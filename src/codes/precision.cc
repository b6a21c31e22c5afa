// Observes the precision of products: an engine's own input of each, rounded by one scheme after
// the other, the product in fp64, and which of them gives the engine's own output.
#include "codes/precision.h"

#include <algorithm>
#include <cmath>

#include "codes/act_scheme.h"
#include "codes/boundary_steps.h"
#include "compare/local.h"
#include "stages/stages.h"

namespace pb::codes {
namespace {

// outputs of a row that are looked at: another scheme moves all of them
constexpr int64_t kFeatures = 32;

// A sum as it grows: docs/numerics.md, "Units".
struct PartialSums {
  double sum = 0, squares = 0, terms = 0;
  int64_t n = 0;
  void Add(double term) {
    sum += term, squares += sum * sum, terms += term * term;
    n++;
  }
  double UnitSquared() const { return squares + static_cast<double>(n + 1) * (terms / 6 + sum * sum / 3); }
};

// Some outputs of one row, exactly, and their units (docs/numerics.md, "Units").
struct ExactOutputs {
  std::vector<double> values;
  std::vector<float> units;
};

ExactOutputs Multiply(const WeightView& w, double scale, std::span<const float> input, ActScheme scheme,
                      std::span<const int64_t> features) {
  ExactOutputs out;
  const RoundedRow x = RoundRow(input, scheme);
  std::vector<float> row(static_cast<size_t>(w.n_columns));
  for (int64_t f : features) {
    DecodeRow(w, f, row.data());
    std::vector<double> parts = BlockMinima(w, f);
    if (parts.empty() && IsIntegerScheme(scheme)) parts = BlockOffsets(w, f);
    const size_t block = parts.empty() ? row.size() : row.size() / parts.size();
    PartialSums codes, stored;
    for (size_t k = 0; k < row.size(); k++)
      codes.Add((double(row[k]) - (parts.empty() ? 0 : parts[k / block])) * x.values[k]);
    for (size_t b = 0; b < parts.size(); b++) {
      double sum = x.sum_error.size() == parts.size() ? x.sum_error[b] : 0;
      for (size_t k = b * block; k < (b + 1) * block; k++) sum += x.values[k];
      stored.Add(parts[b] * sum);
    }
    out.values.push_back((codes.sum + stored.sum) * scale);
    out.units.push_back(
        static_cast<float>(std::sqrt(codes.UnitSquared() + stored.UnitSquared()) * std::fabs(scale)));
  }
  return out;
}

ActScheme SchemeFor(const ActQuant& quant, const ProductClass& of) {
  return quant.SchemeFor(of.weight, of.rows_32 ? 32 : 1, of.place);
}

bool Fits(ActScheme scheme, int64_t n_columns) {
  const int64_t block = ActBlockValues(scheme, n_columns);
  return block == 0 || n_columns % block == 0;
}

// One row of a product as an engine gave it, at some of its outputs.
class Product {
 public:
  Product(const ProductWeights& product, std::span<const float> input, std::span<const float> output)
      : product_(product), input_(input) {
    const int64_t n = std::min(kFeatures, product.weights->n_rows);
    for (int64_t i = 0; i < n; i++) features_.push_back(i * product.weights->n_rows / n);
    for (int64_t f : features_) output_.push_back(product.finish.Undo(output[static_cast<size_t>(f)]));
  }

  // Whether a scheme gives the output: within its bound, or but for what lies on a rounding
  // boundary.
  bool Holds(ActScheme scheme) const {
    const WeightView& w = *product_.weights;
    if (!Fits(scheme, w.n_columns)) return false;
    ExactOutputs exact = Multiply(w, product_.scale, input_, scheme, features_);
    for (size_t i = 0; !product_.bias.empty() && i < features_.size(); i++) {
      exact.values[i] += double(product_.bias[static_cast<size_t>(features_[i])]);
      exact.units[i] = static_cast<float>(std::hypot(double(exact.units[i]), exact.values[i]));
    }
    for (size_t i = 0; i < features_.size(); i++)
      exact.units[i] += static_cast<float>(product_.finish.UnitsAt(exact.values[i]));
    const compare::LocalBound bound = scheme == ActScheme::kF16Sums
                                          ? compare::F16SumsFromUnits(exact.units)
                                          : compare::BoundFromUnits(PB_STAGE_Q_PROJ, exact.units);
    std::vector<double> difference;
    double error = 0;
    for (size_t i = 0; i < output_.size(); i++) {
      difference.push_back(output_[i] - exact.values[i]);
      error += difference.back() * difference.back();
    }
    const double limit = bound.OfRow(0, static_cast<int64_t>(output_.size()), 0, 0);
    if (std::sqrt(error) <= limit) return true;
    if (!IsIntegerScheme(scheme)) return false;
    BoundarySteps steps(input_, scheme, w, product_.scale);
    return steps.Explain(difference, limit, features_).remainder_ratio <= 1;
  }

 private:
  const ProductWeights& product_;
  std::span<const float> input_;
  std::vector<int64_t> features_;
  std::vector<double> output_;  // before its finish
};

// The scheme that held for most of some products, and that for more than half. Sums in f16, whose
// bound leaves room for much that is wrong, only where they held for all and nothing else did.
std::optional<ActScheme> MostHeld(const std::map<ActScheme, int64_t>& held, int64_t n, ActScheme declared) {
  std::optional<ActScheme> most;
  for (const auto& [scheme, count] : held) {
    if (scheme == ActScheme::kF16Sums) continue;
    const bool more = !most || count > held.at(*most) || (count == held.at(*most) && scheme == declared);
    if (2 * count > n && more) most = scheme;
  }
  const auto in_f16 = held.find(ActScheme::kF16Sums);
  if (!most && in_f16 != held.end() && in_f16->second == n) return ActScheme::kF16Sums;
  return most;
}

}  // namespace

ProductInputs::ProductInputs(const Model& model) {
  const stages::Set ops = model.params().ops;
  for (pb_stage product : stages::kProducts | stages::kExpertProducts)
    if (ops.Contains(product))
      for (const stages::Input& input : stages::InputsOf(product, ops)) read_ |= input.stage;
  // What experts are chosen by.
  if (ops.Contains(PB_STAGE_EXPERT_IDS)) read_ |= PB_STAGE_ROUTER_LOGITS;
}

void ProductInputs::OnPoint(const host::PointRef& point, std::span<const float> values,
                            const std::shared_ptr<const void>& lasting) {
  if (point.stage == PB_STAGE_ATTN_NORM || point.stage == PB_STAGE_EMBEDDINGS) held_.clear();
  // What enters the first layer is read as what the layer before gave.
  const int32_t stage = point.stage == PB_STAGE_EMBEDDINGS ? PB_STAGE_LAYER_OUT : point.stage;
  if (!read_.Contains(stage)) return;
  Held& held = held_[stage];
  held.first_position = point.first_position;
  held.values.Hold(values, lasting);
}

std::span<const float> ProductInputs::Find(const ProductWeights& product, int32_t first_position,
                                           int64_t n_rows) const {
  return Rows(product.input, first_position, n_rows, product.weights->n_columns);
}

std::span<const float> ProductInputs::Rows(int32_t stage, int32_t first_position, int64_t n_rows,
                                           int64_t width) const {
  const auto input = held_.find(stage);
  if (input == held_.end()) return {};
  const int64_t skip = (first_position - input->second.first_position) * width;
  const std::span<const float> held = input->second.values.values();
  if (skip < 0 || static_cast<int64_t>(held.size()) < skip + n_rows * width) return {};
  return held.subspan(static_cast<size_t>(skip), static_cast<size_t>(n_rows * width));
}

void PrecisionObserver::OnPoint(const host::PointRef& point, const std::vector<int64_t>& shape,
                                std::span<const float> values, bool decode) {
  const int64_t n_rows = shape.empty() ? 0 : shape[0], row = n_rows / 2;
  const int32_t position = point.first_position + static_cast<int32_t>(row);
  if (n_rows > 0 && stages::kExpertProducts.Contains(point.stage)) {
    // the first of the experts that the row uses
    const int64_t n_used = model_->params().experts.n_used;
    const auto ids = inputs_.Rows(PB_STAGE_EXPERT_IDS, position, 1, n_used);
    const ExpertWeights expert =
        ids.empty() ? ExpertWeights() : ExpertOf(*model_, point.stage, point.layer, ids.front());
    const int64_t width = expert.matrix.n_rows, n_columns = expert.matrix.n_columns;
    if (expert.matrix.data && static_cast<int64_t>(values.size()) == n_rows * n_used * width) {
      const bool own_rows = point.stage == PB_STAGE_EXPERT_DOWN;  // each expert has its own input
      const auto input = inputs_.Rows(expert.input, position, 1, own_rows ? n_used * n_columns : n_columns);
      LookAt(point, {&expert.matrix, expert.scale, expert.input, expert.bias},
             input.first(std::min(input.size(), static_cast<size_t>(n_columns))),
             values.subspan(static_cast<size_t>(row * n_used * width), static_cast<size_t>(width)), decode);
    }
  }
  const ProductWeights product = ProductOf(*model_, point.stage, point.layer);
  if (product.weights && n_rows > 0 &&
      static_cast<int64_t>(values.size()) == n_rows * product.weights->n_rows) {
    const int64_t width = product.weights->n_rows;
    LookAt(point, product, inputs_.Find(product, position, 1),
           values.subspan(static_cast<size_t>(row * width), static_cast<size_t>(width)), decode);
  }
  inputs_.OnPoint(point, values);
}

void PrecisionObserver::LookAt(const host::PointRef& point, const ProductWeights& product,
                               std::span<const float> input, std::span<const float> output, bool decode) {
  auto finite = [](float x) { return std::isfinite(x); };
  if (input.empty() || !std::all_of(input.begin(), input.end(), finite) ||
      !std::all_of(output.begin(), output.end(), finite))
    return;
  const ProductClass of = ClassOf(point.stage, *product.weights);
  Seen& seen = seen_[of];
  seen.matrices.insert({point.stage, point.layer});
  seen.n[decode]++;
  const Product at(product, input, output);
  const ActScheme declared = SchemeFor(declared_, of);
  const bool follows = at.Holds(declared);
  seen.held[decode][declared] += follows;
  seen.departs |= !follows;
  for (ActScheme scheme : kActSchemes) {
    if (scheme == ActScheme::kF16Sums && of.weight != BlockType::kF16) continue;
    if (seen.departs && scheme != declared) seen.held[decode][scheme] += at.Holds(scheme);
  }
}

std::optional<ProductClass> ClassAt(const Model& model, int32_t stage, int32_t layer) {
  if (const ExpertWeights expert = ExpertOf(model, stage, layer, 0); expert.matrix.data)
    return ClassOf(stage, expert.matrix);
  const ProductWeights product = ProductOf(model, stage, layer);
  return product.weights ? std::optional(ClassOf(stage, *product.weights)) : std::nullopt;
}

bool MayGoByRows(const drive::EngineRecord& engine) { return engine.engine_facts().name == "llama.cpp"; }

std::vector<ClassPrecision> PrecisionObserver::Classes() const {
  std::vector<ClassPrecision> classes;
  for (const auto& [of, seen] : seen_) {
    ClassPrecision c;
    c.of = of;
    c.n_matrices = static_cast<int64_t>(seen.matrices.size());
    c.n_products = seen.n[0] + seen.n[1];
    const ActScheme declared = SchemeFor(declared_, of);
    std::optional<ActScheme> in[2];
    for (int decode : {0, 1}) in[decode] = MostHeld(seen.held[decode], seen.n[decode], declared);
    auto name = [](const std::optional<ActScheme>& s) {
      return s ? ActSchemeName(*s) : "none that is known";
    };
    if (seen.n[0] > 0 && seen.n[1] > 0 && in[0] != in[1]) {
      c.why_not = fmt::format("prefill {}, decode {}", name(in[0]), name(in[1]));
      // Kernels of matrices and of vectors that round otherwise, each as libraries do.
      if (by_rows_ && in[0] && in[1] && IsUsualPrecision(of.weight, *in[0]) &&
          IsUsualPrecision(of.weight, *in[1]))
        c.of_rows[0] = in[0], c.of_rows[1] = in[1];
    } else if (const auto one = seen.n[0] > 0 ? in[0] : in[1])
      c.scheme = one;
    else
      c.why_not = "its products follow no scheme that is known";
    if (c.scheme) c.of_rows[0] = c.of_rows[1] = c.scheme;
    classes.push_back(std::move(c));
  }
  return classes;
}

Result<std::vector<ClassPrecision>> ObservePrecision(drive::Participant& engine,
                                                     const host::Settings& session,
                                                     std::shared_ptr<const Model> model,
                                                     std::span<const int32_t> tokens) {
  constexpr size_t kMostTokens = 64;
  auto declared = ActQuant::Parse(engine.record().session_facts().act_quant.value);
  if (!model || !declared.ok() || !(engine.engine().capabilities() & PB_CAP_OUTPUTS))
    return std::vector<ClassPrecision>();
  PB_TRY(engine.OpenSession(session));
  PB_ASSIGN(const std::vector<host::StageVisibility> stages, engine.Stages());
  PrecisionObserver observer(std::move(model), *declared, MayGoByRows(engine.record()));
  drive::Taps taps;
  for (int32_t s = 0; s < PB_STAGE_COUNT; s++)
    if (stages[static_cast<size_t>(s)].visibility == PB_OBSERVED) taps.filter.stages.push_back(s);
  taps.filter.outputs = !taps.filter.stages.empty();
  bool decode = false;
  taps.on_point = [&](const host::Event& event) -> Status {
    observer.OnPoint(event.point, event.tensor.shape, event.tensor.data, decode);
    return {};
  };
  auto ignore = [](int32_t, std::span<const float>) { return Status(); };
  const size_t n = std::min(tokens.size(), kMostTokens), n_prefill = n > 2 ? n - 1 : n;
  if (n_prefill > 0) PB_TRY(engine.Evaluate(tokens.first(n_prefill), 0, ignore, taps));
  decode = true;
  if (n > n_prefill)
    PB_TRY(engine.Evaluate(tokens.subspan(n_prefill, 1), static_cast<int32_t>(n_prefill), ignore, taps));
  return observer.Classes();
}

namespace {

// Whether classes of the weight type that differ in a member are computed otherwise.
template <typename Member>
bool HasOthers(const std::vector<ClassPrecision>& classes, const ProductClass& of,
               Member ProductClass::*member) {
  const auto own = std::ranges::find(classes, of, &ClassPrecision::of);
  return std::ranges::any_of(classes, [&](const ClassPrecision& c) {
    return c.of.weight == of.weight && c.of.*member != of.*member &&
           (own == classes.end() || c.scheme != own->scheme);
  });
}

// Whether it is of the layers' class but for where its matrices stand.
bool IsOfOtherPlace(const ProductClass& of, ProductClass layers) {
  return layers.place == MatrixPlace::kLayer && of != layers && (layers.place = of.place, of == layers);
}

}  // namespace

std::string ClassName(const std::vector<ClassPrecision>& classes, const ProductClass& of) {
  const std::string type = BlockTypeName(static_cast<uint32_t>(of.weight));
  if (HasOthers(classes, of, &ProductClass::rows_32))
    return type + (of.rows_32 ? " (a multiple of 32 rows)" : " (no multiple of 32 rows)");
  if (!HasOthers(classes, of, &ProductClass::place)) return type;
  return type + (of.place == MatrixPlace::kOutput   ? " (output)"
                 : of.place == MatrixPlace::kExpert ? " (experts)"
                                                    : " (layers)");
}

std::vector<PrecisionDifference> Differences(const std::vector<ClassPrecision>& candidate,
                                             const std::vector<ClassPrecision>& reference) {
  std::vector<PrecisionDifference> differences;
  for (const ClassPrecision& c : candidate) {  // the layers' before the others
    const auto r = std::ranges::find(reference, c.of, &ClassPrecision::of);
    if (r == reference.end()) continue;
    if (!c.scheme || !r->scheme) {
      for (const bool one : {false, true})
        if (const auto& ours = c.of_rows[one], &theirs = r->of_rows[one]; ours && theirs && *ours != *theirs)
          differences.push_back(
              {c.of, {}, {*ours, *theirs}, one, std::min(c.n_matrices, r->n_matrices), 0, {}});
      continue;
    }
    if (*c.scheme == *r->scheme) continue;
    const int64_t n_matrices = std::min(c.n_matrices, r->n_matrices);
    const auto layers = std::ranges::find_if(differences, [&](const PrecisionDifference& d) {
      return IsOfOtherPlace(c.of, d.of) && d.scheme[0] == *c.scheme && d.scheme[1] == *r->scheme;
    });
    if (layers != differences.end())
      layers->with.push_back(c.of.place), layers->n_matrices += n_matrices;
    else
      differences.push_back({c.of, {}, {*c.scheme, *r->scheme}, std::nullopt, n_matrices, 0, {}});
  }
  return differences;
}

PrecisionDifference* FindDifference(std::vector<PrecisionDifference>& differences, const ProductClass& of,
                                    int64_t n_rows) {
  const auto found = std::ranges::find_if(differences, [&](const PrecisionDifference& d) {
    if (d.one_row && *d.one_row != (n_rows == 1)) return false;
    return d.of == of || (IsOfOtherPlace(of, d.of) && std::ranges::find(d.with, of.place) != d.with.end());
  });
  return found == differences.end() ? nullptr : &*found;
}

std::vector<Departure> Departures(const ActQuant& declared, const std::vector<ClassPrecision>& classes) {
  std::vector<Departure> departures;
  for (const ClassPrecision& c : classes) {
    const ActScheme said = SchemeFor(declared, c.of);
    if (!c.scheme || *c.scheme == said) continue;
    const auto layers = std::ranges::find_if(departures, [&](const Departure& d) {
      return IsOfOtherPlace(c.of, d.of.of) && d.said == said && d.of.scheme == c.scheme;
    });
    if (layers != departures.end())
      layers->of.n_matrices += c.n_matrices;
    else
      departures.push_back({c, said});
  }
  return departures;
}

ActQuant Observed(const ActQuant& declared, const std::vector<ClassPrecision>& classes) {
  ActQuant observed = declared;
  for (const ClassPrecision& c : classes) {  // the layers' first, the output last
    if (!c.scheme || *c.scheme == SchemeFor(observed, c.of)) continue;
    ActQuant::Exception exception{c.of.weight, false, std::nullopt, *c.scheme};
    if (std::ranges::any_of(classes, [&](const ClassPrecision& before) {
          return before.of.weight == c.of.weight && before.of.place < c.of.place;
        }))
      exception.place = c.of.place;
    else
      exception.rows_32 = c.of.rows_32 && HasOthers(classes, c.of, &ProductClass::rows_32);
    observed.exceptions.push_back(exception);
  }
  return observed;
}

ActQuant ObservedOfPrefill(const ActQuant& declared, std::vector<ClassPrecision> classes) {
  for (ClassPrecision& c : classes)
    if (!c.scheme) c.scheme = c.of_rows[0];
  return Observed(declared, classes);
}

std::string PrecisionText(const std::vector<ClassPrecision>& classes) {
  std::string text;
  std::set<std::string> said;
  for (const ClassPrecision& c : classes) {
    const std::string of =
        fmt::format("{} {}", ClassName(classes, c.of),
                    c.scheme ? std::string(ActSchemeName(*c.scheme)) : "not known: " + c.why_not);
    if (said.insert(of).second) text += (text.empty() ? "" : ", ") + of;
  }
  return text;
}

std::vector<float> SchemeDifference(const WeightView& w, double scale, std::span<const float> input,
                                    ActScheme candidate, ActScheme reference) {
  const auto k_all = static_cast<size_t>(w.n_columns);
  const size_t n_rows = input.size() / k_all;
  // (n_rows, K): by how much the candidate's rounded input exceeds the reference's; (n_rows, K /
  // 32): its stored sums.
  std::vector<float> x(input.size()), sums;
  for (size_t i = 0; i < n_rows; i++) {
    const auto row = input.subspan(i * k_all, k_all);
    const RoundedRow c = RoundRow(row, candidate), r = RoundRow(row, reference);
    for (size_t k = 0; k < k_all; k++) x[i * k_all + k] = static_cast<float>(c.values[k] - r.values[k]);
    for (size_t b = 0; b < std::max(c.sum_error.size(), r.sum_error.size()); b++)
      sums.push_back(static_cast<float>((c.sum_error.empty() ? 0 : c.sum_error[b]) -
                                        (r.sum_error.empty() ? 0 : r.sum_error[b])));
  }
  std::vector<float> difference(n_rows * static_cast<size_t>(w.n_rows)), weights(k_all);
  for (int64_t j = 0; j < w.n_rows; j++) {
    DecodeRow(w, j, weights.data());
    const std::vector<double> minima = BlockMinima(w, j);
    for (size_t i = 0; i < n_rows; i++) {
      constexpr size_t kLanes = 16;
      float lanes[kLanes] = {};
      const float* row = x.data() + i * k_all;
      size_t k = 0;
      for (; k + kLanes <= k_all; k += kLanes)
        for (size_t lane = 0; lane < kLanes; lane++) lanes[lane] += weights[k + lane] * row[k + lane];
      double sum = 0;
      for (float lane : lanes) sum += double(lane);
      for (; k < k_all; k++) sum += double(weights[k]) * double(row[k]);
      for (size_t b = 0; sums.size() == n_rows * minima.size() && b < minima.size(); b++)
        sum += minima[b] * double(sums[i * minima.size() + b]);
      difference[i * static_cast<size_t>(w.n_rows) + static_cast<size_t>(j)] =
          static_cast<float>(sum * scale);
    }
  }
  return difference;
}

}  // namespace pb::codes
