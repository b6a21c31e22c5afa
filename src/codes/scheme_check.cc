// Makes up a row for each kind of product, asks the engine for its codes, and holds them against
// the scheme.
#include "codes/scheme_check.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <span>
#include <vector>

#include "base/random.h"
#include "codes/block_steps.h"

namespace pb::codes {
namespace {

void Name(std::string* list, const std::string& who) { *list += (list->empty() ? "" : " and ") + who; }

// One block of codes against what the scheme makes of its values.
std::string BlockParts(ActScheme scheme, const host::Codes& codes, size_t first, size_t block,
                       std::span<const float> x) {
  const ActBlock b = ActBlockOf(x, scheme);
  const float scale = codes.scales[block];
  if (!MayBeScale(b, scale))
    return fmt::format("block {} has the scale {:.9g}, {} gives {:.9g}", block, scale, ActSchemeName(scheme),
                       b.from_code);
  int sum = 0;
  for (size_t k = 0; k < x.size(); k++) {
    const int code = codes.codes[first + k], expected = static_cast<int>(std::nearbyint(x[k] * b.to_code));
    sum += code;
    if (code == expected || (std::abs(code - expected) == 1 && OnBoundary(x[k], b.to_code))) continue;
    return fmt::format("{:.9g} in block {} has the code {}, {} gives {}", x[k], block, code,
                       ActSchemeName(scheme), expected);
  }
  if (scheme == ActScheme::kQ8_1 && !MayBeSum(b, x, sum, codes.sums[block]))
    return fmt::format("block {} stores the sum {:.9g}, {} gives {:.9g}", block, codes.sums[block],
                       ActSchemeName(scheme), StoredSum(b, sum));
  return "";
}

}  // namespace

ProductWeights ProductOf(const Model& model, int32_t stage, int32_t layer) {
  const StageWeights& w = model.weights(stage, layer);
  if (!stages::kProducts.Contains(stage) || !w.matrix.data) return {};
  const HyperParameters& p = model.params();
  ProductWeights product{&w.matrix, w.scale,
                         stages::InputsOf(static_cast<pb_stage>(stage), p.ops).front().stage, w.bias};
  if (stage == PB_STAGE_LOGITS) product.finish = {p.logit_scale, p.logit_cap};
  return product;
}

double Finish::Of(double y) const { return cap > 0 ? cap * std::tanh(factor * y / cap) : factor * y; }
double Finish::Undo(double value) const {
  constexpr double kMost = 1 - 0x1p-24;
  return (cap > 0 ? cap * std::atanh(std::clamp(value / cap, -kMost, kMost)) : value) / factor;
}
double Finish::UnitsAt(double y) const {
  if (!any()) return 0;
  const double value = Of(y), slope = cap > 0 ? 1 - value * value / (cap * cap) : 1;
  return (std::fabs(factor * y) + (cap > 0 ? 3 * std::fabs(value) : 0)) / std::fabs(factor * slope);
}

ExpertWeights ExpertOf(const Model& model, int32_t stage, int32_t layer, float id) {
  const StageWeights& w = model.weights(stage, layer);
  if (!stages::kExpertProducts.Contains(stage) || !(id >= 0 && id < static_cast<float>(w.n_experts)))
    return {};
  const auto expert = static_cast<int64_t>(id);
  return {w.MatrixOf(expert), w.scale,
          stages::InputsOf(static_cast<pb_stage>(stage), model.params().ops).front().stage, w.BiasOf(expert)};
}

std::string PartsFrom(ActScheme scheme, const host::Codes& codes, std::span<const float> x) {
  const int64_t size = ActBlockValues(scheme, codes.n_columns);
  if (codes.block != size)
    return fmt::format("blocks of {} values, {} has {}", codes.block, ActSchemeName(scheme), size);
  if (codes.codes.size() != x.size() || codes.n_columns % codes.block != 0) return "codes of another input";
  if (scheme == ActScheme::kQ8_1 && codes.sums.empty()) return "no stored sums";
  const auto block = static_cast<size_t>(size);
  for (size_t first = 0; first < x.size(); first += block) {
    std::string parts = BlockParts(scheme, codes, first, first / block, x.subspan(first, block));
    if (!parts.empty()) return parts;
  }
  return "";
}

std::optional<ActScheme> SchemeCheck::SchemeOf(int32_t stage, const WeightView& w) const {
  const MatrixPlace place = PlaceOf(stage);
  const ActScheme scheme = act_quant_[0].SchemeFor(w.type, w.n_rows, place);
  if (scheme != act_quant_[1].SchemeFor(w.type, w.n_rows, place)) return std::nullopt;
  if (!IsIntegerScheme(scheme) || w.n_columns % ActBlockValues(scheme, w.n_columns) != 0) return std::nullopt;
  return scheme;
}

Status SchemeCheck::Ask(host::Engine& engine, const std::string& who) {
  std::set<Key> asked;
  for (pb_stage stage : stages::kProducts) {
    const int32_t layer = stages::Of(stage).per_layer ? 0 : -1;
    const WeightView* w = ProductOf(*model_, stage, layer).weights;
    if (!w || !SchemeOf(stage, *w) || !asked.insert(KeyOf(stage, *w)).second) continue;
    PB_TRY(AskFor(engine, who, stage, layer));
  }
  return {};
}

Status SchemeCheck::AskFor(host::Engine& engine, const std::string& who, int32_t stage, int32_t layer) {
  const WeightView& w = *ProductOf(*model_, stage, layer).weights;
  Kind& kind = kinds_[KeyOf(stage, w)];
  if (!(engine.capabilities() & PB_CAP_CODES)) return Name(&kind.untold, who), Status();
  host::ReplayRequest request;
  request.stage = stage, request.layer = layer, request.codes = true;
  std::vector<float> row(static_cast<size_t>(w.n_columns));
  Random random(static_cast<uint64_t>(w.n_columns));
  for (float& v : row) v = static_cast<float>(random.Normal());
  request.inputs = {{{1, w.n_columns}, row}};
  auto told = engine.Replay(request);
  if (!told.ok()) {
    if (told.error().code != Code::kUnsupported && told.error().code != Code::kUsage)
      return std::move(told).error();
    kind.contradiction = fmt::format("the {} gives no codes: {}", who, told.error().message);
    return {};
  }
  const std::string parts = PartsFrom(*SchemeOf(stage, w), *told->codes, row);
  if (!parts.empty()) kind.contradiction = fmt::format("the {} makes other codes: {}", who, parts);
  Name(&kind.told, who);
  return {};
}

std::string SchemeCheck::Contradiction(int32_t stage, const WeightView& w) const {
  const auto kind = kinds_.find(KeyOf(stage, w));
  return kind == kinds_.end() ? "" : kind->second.contradiction;
}

std::string SchemeCheck::Basis(int32_t stage, const WeightView& w) const {
  const auto kind = kinds_.find(KeyOf(stage, w));
  const std::string scheme = ActSchemeName(*SchemeOf(stage, w));
  if (kind == kinds_.end()) return scheme + " is assumed";
  std::string text;
  if (!kind->second.told.empty())
    text = fmt::format("{}, as {} quantised a row when asked", scheme, kind->second.told);
  if (!kind->second.untold.empty())
    text += fmt::format("{}{} assumed for {}, which tells no codes", text.empty() ? "" : "; ", scheme,
                        kind->second.untold);
  return text;
}

}  // namespace pb::codes
