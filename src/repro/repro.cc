// Chooses the token row and the values that show the defect, and writes their inputs, weights
// and expected values as fields.
#include "repro/repro.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/bytes.h"
#include "base/half.h"
#include "diagnose/file_arbiter.h"
#include "diagnose/op_weights.h"
#include "diagnose/stage_text.h"

namespace pb::repro {
namespace {

using compare::Blame;
constexpr int64_t kMostFeatures = 16;
// of what differs from feature to feature: rows of weights, keys
constexpr int64_t kMostValues = 1024;

// What a model has at an op that the program has no formula for; empty: nothing.
const char* BeyondProgram(pb_stage stage, const HyperParameters& p) {
  const RopeStretch& r = p.rope_stretch;
  const bool stretched = r.yarn || r.attention_factor != 1 || !r.long_factors.empty();
  if (stages::kNorms.Contains(stage) && p.layer_norm) return "LayerNorm";
  if (stages::kRotary.Contains(stage) && stretched) return "YaRN and LongRoPE";
  return stage == PB_STAGE_ATTN_SCORES_SOFTMAX && p.attention_sinks ? "sinks" : "";
}

// The formula of the program that computes a stage; empty: it has none.
const char* FormulaOf(int32_t stage) {
  if (!stages::IsStage(stage) || stage == PB_STAGE_Q_NORM || stage == PB_STAGE_K_NORM ||
      stage == PB_STAGE_FFN_OUT)
    return "";
  switch (stages::Of(stage).group) {
    case stages::Group::kEmbedding:
      return "copy";
    case stages::Group::kNorm:
      return "norm";
    case stages::Group::kProduct:
      return "product";
    case stages::Group::kRotary:
      return "rotate";
    case stages::Group::kScores:
      return "scores";
    case stages::Group::kSoftmax:
      return "softmax";
    case stages::Group::kContext:
      return "context";
    case stages::Group::kSum:
      return "add";
    case stages::Group::kActivation:
    case stages::Group::kGate:
      return stages::kDense.Contains(stage) ? "activate" : "";
    case stages::Group::kSelect:
    case stages::Group::kRouting:
    case stages::Group::kExpertProduct:
    case stages::Group::kMixture:
    case stages::Group::kShared:
      break;
  }
  return "";
}

// Heads that the program computes one of; a product is of the whole row.
int64_t HeadsOf(pb_stage stage, const HyperParameters& p) {
  return stages::kProducts.Contains(stage) ? 1 : stages::RowHeads(stage, p.shape());
}

// "llama.cpp v0.5.0 (zen4)".
std::string EngineText(const drive::EngineRecord& engine) {
  const trace::EngineFacts facts = engine.engine_facts();
  return fmt::format("{} {}{}", facts.name, facts.version, facts.isa.empty() ? "" : " (" + facts.isa + ")");
}

// The piece of the output: features [first, first + width) of a token row are its head, `features`
// counts within that.
struct Piece {
  int64_t row = 0, head = 0, first = 0, width = 0;
  std::vector<int64_t> features;
};

std::vector<float> AtFeatures(std::span<const float> values, int64_t n_rows, const Piece& piece) {
  const int64_t width = static_cast<int64_t>(values.size()) / n_rows;
  std::vector<float> picked;
  for (int64_t f : piece.features)
    picked.push_back(values[static_cast<size_t>(piece.row * width + piece.first + f)]);
  return picked;
}

std::string Text(std::span<const float> values) { return fmt::format("{}", fmt::join(values, " ")); }

// What one side's file and settings declare of the piece, and what it is computed from: fields of
// the program's data.
class Fields {
 public:
  Fields(const diagnose::Culprit& culprit, diagnose::FileArbiter& arbiter,
         const diagnose::Expectation& expected, const Piece& piece, int32_t token)
      : culprit_(culprit),
        arbiter_(arbiter),
        expected_(expected),
        piece_(piece),
        p_(arbiter.model().params()),
        token_(token),
        recomputed_(expected.recomputed) {}

  std::vector<std::pair<std::string, std::string>> Make(const std::string& formula) {
    if (formula == "copy") Copy();
    if (formula == "norm") Norm();
    if (formula == "product") Product();
    if (formula == "rotate") Rotate();
    if (formula == "scores") Scores();
    if (formula == "softmax") Add("x", Head(0));
    if (formula == "context") Context();
    if (formula == "add") Sum();
    if (formula == "activate") Activate();
    Add("expected", Picked(expected_.output));
    return std::move(fields_);
  }
  // Inputs that are the arbiter's and no engine's.
  const std::vector<std::string>& recomputed() const { return recomputed_; }

 private:
  void Add(const char* name, std::string text) { fields_.emplace_back(name, std::move(text)); }
  void Add(const char* name, const std::vector<float>& values) { fields_.emplace_back(name, Text(values)); }

  std::vector<float> Picked(const diagnose::Recorded& tensor) const {
    return AtFeatures(tensor.values, tensor.shape[0], piece_);
  }
  // Of an input's token row (of row `row`): the part of width / n_parts values, part `part`.
  std::vector<float> Part(const diagnose::Recorded& tensor, int64_t row, int64_t part,
                          int64_t n_parts) const {
    const int64_t width = static_cast<int64_t>(tensor.values.size()) / tensor.shape[0],
                  length = width / n_parts;
    const auto begin = tensor.values.begin() + row * width + part * length;
    return {begin, begin + length};
  }
  std::vector<float> Head(size_t input) const {
    const diagnose::Recorded& tensor = expected_.inputs[input];
    const bool keys = culprit_.place.stage == PB_STAGE_K_ROPE;
    return Part(tensor, piece_.row, piece_.head, keys ? p_.n_kv_heads : p_.n_heads);
  }
  // Keys or values of position j, of the head that this query head reads.
  std::vector<float> KvHead(int64_t j) const {
    return Part(expected_.inputs[1], j, piece_.head / (p_.n_heads / p_.n_kv_heads), p_.n_kv_heads);
  }
  diagnose::OpWeights Weights() const {
    return diagnose::WeightsOf(arbiter_.model(), culprit_.place.stage, culprit_.place.layer);
  }

  void Copy() {
    const WeightView& table = arbiter_.model().token_embedding();
    std::vector<float> row(static_cast<size_t>(table.n_columns)), values;
    DecodeRow(table, token_, row.data());
    for (int64_t f : piece_.features) values.push_back(row[static_cast<size_t>(f)] * p_.embedding_scale);
    Add("weight", values);
  }

  void Norm() {
    std::vector<float> weight;
    for (int64_t f : piece_.features) weight.push_back((*Weights().vector)[static_cast<size_t>(f)]);
    Add("eps", fmt::format("{}", p_.norm_eps.value));
    Add("weight", weight);
    Add("x", Part(expected_.inputs[0], piece_.row, 0, 1));
  }

  void Product() {
    const diagnose::OpWeights w = Weights();
    const WeightView& matrix = *w.matrix;
    const ActScheme rounds = arbiter_.SchemeOf(matrix, culprit_.place.stage);
    // The program's own sums are exact.
    const std::string scheme = ActSchemeName(rounds == ActScheme::kF16Sums ? ActScheme::kF16 : rounds);
    std::vector<float> row(static_cast<size_t>(matrix.n_columns)), weight, minimum;
    for (int64_t f : piece_.features) {
      DecodeRow(matrix, f, row.data());
      weight.insert(weight.end(), row.begin(), row.end());
      if (scheme != "q8_1") continue;
      for (double m : BlockMinima(matrix, f)) minimum.push_back(static_cast<float>(m));
    }
    Add("scheme", scheme);
    const bool logits = culprit_.place.stage == PB_STAGE_LOGITS;
    Add("scale", fmt::format("{}", logits ? w.scale * p_.logit_scale : w.scale));
    if (logits && p_.logit_cap > 0) Add("cap", fmt::format("{}", p_.logit_cap));
    if (!minimum.empty()) Add("minimum", minimum);
    if (w.bias) {
      std::vector<float> bias;
      for (int64_t f : piece_.features) bias.push_back((*w.bias)[static_cast<size_t>(f)]);
      Add("bias", bias);
    }
    Add("weight", weight);
    Add("x", Part(expected_.inputs[0], piece_.row, 0, 1));
  }

  void Rotate() {
    Add("rope_pairing", p_.rope_pairing.value == RopePairing::kAdjacent ? "adjacent" : "halves");
    const int32_t layer = culprit_.place.layer;
    const bool local = p_.is_local(layer);
    Add("rope_base", fmt::format("{}", local ? p_.local_rope_base.value : p_.rope_base.value));
    Add("rope_scale", fmt::format("{}", local ? p_.local_rope_scale.value : p_.rope_scale.value));
    Add("rope_dims", fmt::format("{}", p_.rotates(layer) ? p_.rope_dims : 0));
    if (!p_.rope_factors.empty()) Add("rope_factors", p_.rope_factors);
    Add("x", Head(0));
  }

  // An f16 cache rounds keys and values; with a quantising engine, what meets them too.
  void Precisions() {
    const trace::SessionFacts facts = trace::ReadSessionFacts(arbiter_.session());
    const bool f16 = facts.kv_type.value == "f16", none = facts.act_quant.value == "none";
    Add("attention_precision", f16 && !none ? "f16" : "f32");
    Add("cache_precision", f16 ? "f16" : "f32");
  }

  void Scores() {
    Precisions();
    Add(p_.scale_queries ? "query_scale" : "score_scale", fmt::format("{}", p_.attention_scale));
    if (p_.score_cap > 0) Add("cap", fmt::format("{}", p_.score_cap));
    if (const int64_t window = p_.window_of(culprit_.place.layer); window > 0)
      Add("window", fmt::format("{}", window));
    Add("q", Head(0));
    std::vector<float> keys;
    for (int64_t j : piece_.features) {
      const std::vector<float> key = KvHead(j);
      keys.insert(keys.end(), key.begin(), key.end());
    }
    Add("k", keys);
  }

  void Context() {
    Precisions();
    Add("p", Head(0));
    std::vector<float> values;
    for (int64_t f : piece_.features)
      for (int64_t j = 0; j < expected_.inputs[1].shape[0]; j++)
        values.push_back(KvHead(j)[static_cast<size_t>(f)]);
    Add("v", values);
  }

  void Sum() {
    Add("residual_scale", fmt::format("{}", p_.residual_scale));
    Add("a", Picked(expected_.inputs[0]));
    Add("b", Picked(expected_.inputs[1]));
  }

  // A gated product whose bare activation an engine does not show is computed from the gate.
  void Activate() {
    const bool gated = culprit_.place.stage == PB_STAGE_FFN_GATED;
    const diagnose::Recorded* gate = &expected_.inputs[0];
    bool active = gated;  // the activation is applied already
    auto computed = std::ranges::find(recomputed_, pb_vocabulary[PB_STAGE_FFN_ACT].name);
    const diagnose::Recorded* shown = culprit_.inputs.Output(PB_STAGE_GATE_PROJ, culprit_.place.layer);
    if (gated && computed != recomputed_.end() && shown)
      gate = shown, active = false, recomputed_.erase(computed);
    Add("activation", active || !p_.ffn_activation ? "identity" : ActivationName(p_.ffn_activation->value));
    if (!active && p_.ffn_activation && p_.ffn_activation->value == Activation::kGeluTanh)
      Add("activation_precision",
          trace::ReadSessionFacts(arbiter_.session()).act_quant.value == "none" ? "f32" : "f16");
    Add("gate", Picked(*gate));
    if (gated) Add("up", Picked(expected_.inputs[1]));
  }

  const diagnose::Culprit& culprit_;
  diagnose::FileArbiter& arbiter_;
  const diagnose::Expectation& expected_;
  const Piece& piece_;
  const HyperParameters& p_;
  int32_t token_;
  std::vector<std::string> recomputed_;
  std::vector<std::pair<std::string, std::string>> fields_;
};

const char* FormulaText(std::string_view formula) {
  constexpr std::pair<std::string_view, const char*> kTexts[] = {
      {"copy", "y = x"},
      {"norm", "y = x / sqrt(mean(x^2) + eps) * weight"},
      {"product", "y = scale * W x, x quantised"},
      {"rotate", "pairs of x turned by position * base^(-2i / dims)"},
      {"scores", "y = q.k * scale, -inf beyond the position"},
      {"softmax", "y = exp(x) / sum exp(x)"},
      {"context", "y = sum of p v over the positions"},
      {"add", "y = a * scale + b"},
      {"activate", "y = act(gate) * up"}};
  return std::ranges::find(kTexts, formula, &std::pair<std::string_view, const char*>::first)->second;
}

// How far beyond their bounds the values of a tensor are.
class Ratios {
 public:
  Ratios(const diagnose::Culprit& culprit, const diagnose::Expectation (&expected)[2], double c)
      : culprit_(culprit), expected_(expected), c_(c) {}

  // How clearly a value shows what the blame says; 0: not at all.
  double Score(Blame blame, size_t at) const {
    const double candidate = Of(0, at), reference = Of(1, at);
    switch (blame) {
      case Blame::kCandidate:
        return reference <= 1 ? candidate : 0;
      case Blame::kReference:
        return candidate <= 1 ? reference : 0;
      case Blame::kBoth:
        return std::min(candidate, reference);
      default:
        return candidate <= 1 && reference <= 1 ? Files(at) : 0;
    }
  }

 private:
  double Of(int side, size_t at) const {
    const float given = (side == 0 ? culprit_.candidate : culprit_.reference)[at];
    return Over(given, expected_[side].output.values[at], expected_[side].units[at]);
  }
  double Files(size_t at) const {
    return Over(expected_[0].output.values[at], expected_[1].output.values[at],
                std::max(expected_[0].units[at], expected_[1].units[at]));
  }
  double Over(double a, double b, double unit) const {
    if (a == b || (!std::isfinite(a) && !std::isfinite(b))) return 0;
    const double ratio = std::fabs(a - b) / (c_ * 0x1p-24 * unit);
    return std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio;
  }

  const diagnose::Culprit& culprit_;
  const diagnose::Expectation (&expected_)[2];
  double c_;
};

// Values that a feature brings along.
int64_t ValuesOfFeature(const std::string& formula, const diagnose::Culprit& culprit, const Model& model,
                        const Piece& piece) {
  if (formula == "product")
    return diagnose::WeightsOf(model, culprit.place.stage, culprit.place.layer).matrix->n_columns;
  if (formula == "scores") return model.params().head_dim;
  if (formula == "context") return culprit.first_position + piece.row + 1;
  return 1;
}

// The head of a token row with the value that shows most, and the values of it that show most. No
// features: nothing shows.
Piece Choose(const diagnose::Culprit& culprit, const Ratios& ratios, Blame blame, int64_t n_heads) {
  const int64_t width = static_cast<int64_t>(culprit.candidate.size()) / culprit.shape[0];
  Piece piece;
  piece.width = width / n_heads;
  double most = 1;
  for (size_t i = 0; i < culprit.candidate.size(); i++) {
    const double score = ratios.Score(blame, i);
    if (!(score > most)) continue;
    most = score;
    const auto at = static_cast<int64_t>(i);
    piece.row = at / width, piece.head = at % width / piece.width, piece.first = piece.head * piece.width;
    piece.features = {at % piece.width};
  }
  if (piece.features.empty()) return piece;
  const size_t start = static_cast<size_t>(piece.row * width + piece.first);
  std::vector<std::pair<double, int64_t>> order;
  for (int64_t f = 0; f < piece.width; f++)
    order.emplace_back(-ratios.Score(blame, start + static_cast<size_t>(f)), f);
  std::sort(order.begin(), order.end());
  piece.features.clear();
  for (const auto& [score, f] : order) piece.features.push_back(f);
  return piece;
}

}  // namespace

bool HasRepro(const diagnose::Diagnosis& d) {
  // One file that both read shows nothing beside itself.
  if (d.blame == Blame::kModelFile && d.file_differences.empty()) return false;
  return *FormulaOf(d.place.stage) && d.blame != Blame::kNone && d.blame != Blame::kUndetermined;
}

Result<Repro> BuildRepro(const diagnose::Culprit& culprit, const run::Comparison& comparison,
                         const diagnose::Diagnosis& diagnosis, const drive::EngineSpec& arbiter,
                         const host::Limits& limits) {
  const auto stage = static_cast<pb_stage>(culprit.place.stage);
  const char* formula = FormulaOf(stage);
  const std::string where = diagnose::PlaceText(culprit.place.layer, culprit.place.stage, std::nullopt);
  const Blame blame = diagnosis.blame;
  if (!HasRepro(diagnosis))
    return MakeError(Code::kNotFound, "there is no defect that a program could show: {}", diagnosis.sentence);
  PB_ASSIGN(diagnose::FileArbiters arbiters, diagnose::FileArbiters::Open(arbiter, comparison, limits));
  if (const char* beyond = BeyondProgram(stage, arbiters.of(0).model().params()); *beyond)
    return MakeError(Code::kNotFound, "{}: the small program does not compute {}", where, beyond);
  const std::vector<int32_t> tokens = diagnose::TokensOf(culprit, comparison);
  diagnose::Expectation expected[2];
  for (int side : {0, 1}) {
    PB_ASSIGN(expected[side], arbiters.of(side).Expect(culprit, tokens, ""));
    if (!expected[side].units.empty()) continue;
    for (float value : expected[side].output.values)
      expected[side].units.push_back(std::fabs(value));  // a copy
  }
  const double c = compare::BoundFromUnits(stage, {}).c;
  const int64_t n_heads = HeadsOf(stage, arbiters.of(0).model().params());
  Piece piece = Choose(culprit, Ratios(culprit, expected, c), blame, n_heads);
  if (piece.features.empty())
    return MakeError(Code::kNotFound,
                     "{}: no single value tells the engines apart, so no small program can show it", where);
  const int64_t each = ValuesOfFeature(formula, culprit, arbiters.of(0).model(), piece);
  piece.features.resize(
      static_cast<size_t>(std::min(std::clamp<int64_t>(kMostValues / each, 1, kMostFeatures),
                                   static_cast<int64_t>(piece.features.size()))));
  std::sort(piece.features.begin(), piece.features.end());

  Repro out;
  out.formula = formula;
  out.position = culprit.first_position + static_cast<int32_t>(piece.row);
  if (static_cast<size_t>(piece.row) < tokens.size()) out.token = tokens[static_cast<size_t>(piece.row)];
  for (int64_t f : piece.features) out.features.push_back(piece.first + f);
  out.n_features = piece.width * n_heads;
  out.shows = blame;
  std::vector<std::pair<std::string, std::string>> declared[2];
  for (int side : {0, 1}) {
    Fields fields(culprit, arbiters.of(side), expected[side], piece, out.token);
    declared[side] = fields.Make(out.formula);
    if (side == 0) out.recomputed = fields.recomputed();
  }
  auto add = [&](std::string name, std::string text) {
    out.fields.emplace_back(std::move(name), std::move(text));
  };
  add("op", fmt::format("{}, position {}: {}", where, out.position, FormulaText(out.formula)));
  for (const drive::EngineRecord* engine : {&comparison.candidate, &comparison.reference})
    add(engine->role + "_engine", engine->role + " " + EngineText(*engine));
  add("formula", out.formula);
  add("bound_constant", fmt::format("{}", c));
  add("position", fmt::format("{}", out.position));
  add("first_feature", fmt::format("{}", piece.first));
  add("feature", fmt::format("{}", fmt::join(piece.features, " ")));
  add("candidate", Text(AtFeatures(culprit.candidate, culprit.shape[0], piece)));
  add("reference", Text(AtFeatures(culprit.reference, culprit.shape[0], piece)));
  for (size_t i = 0; i < declared[0].size(); i++) {
    const auto& [name, text] = declared[0][i];
    add(name, text);
    if (declared[1][i].second == text) continue;
    PB_CHECK(declared[1][i].first == name);
    add("reference." + name, declared[1][i].second);
    out.two_files = true;
  }
  return out;
}

}  // namespace pb::repro
