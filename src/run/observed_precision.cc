// Watches products where the lock-step does not, looks for the setting that makes two engines round
// alike, and turns both into evidence and facts.
#include "run/observed_precision.h"

#include <algorithm>

namespace pb::run {

bool SameWeightTypes(const drive::EngineRecord& candidate, const drive::EngineRecord& reference) {
  return candidate.model_sha256 == reference.model_sha256 ||
         host::FactText(candidate.model, "weights") == host::FactText(reference.model, "weights");
}

Result<std::shared_ptr<const Model>> OpenProducts(drive::Participant& side) {
  const trace::ModelFacts facts = side.record().model_facts();
  HyperParameters told;
  told.architecture = facts.architecture;
  told.n_layers = facts.n_layers;
  told.d_model = facts.shape.d_model, told.d_ff = facts.shape.d_ff, told.n_vocab = facts.shape.n_vocab;
  told.n_heads = facts.shape.n_heads, told.n_kv_heads = facts.shape.n_kv_heads;
  told.head_dim = facts.shape.head_dim, told.norms_rows = facts.shape.norms_rows;
  told.experts.n = facts.shape.n_experts, told.experts.n_used = facts.shape.n_experts_used;
  told.experts.d_ff = facts.shape.d_ff_expert;
  if (auto activation = ParseActivation(facts.activation.value); activation.ok())
    told.ffn_activation = Declared<Activation>{*activation};
  PB_ASSIGN(const std::vector<host::StageVisibility> seen, side.Stages());
  for (const stages::Stage& stage : stages::kTable)
    if (seen[static_cast<size_t>(stage.id)].visibility != PB_ABSENT) told.ops |= stage.id;
  return Model::OpenProducts(side.record().model_path, std::move(told));
}

ObservedPrecision ObserveBoth(drive::Participant* (&sides)[2], const host::Settings (&session)[2],
                              const std::shared_ptr<const Model>& model, const PromptRecord& prompt) {
  ObservedPrecision observed;
  std::vector<int32_t> tokens = prompt.tokens;
  tokens.insert(tokens.end(), prompt.decoded.begin(), prompt.decoded.end());
  for (int side : {0, 1}) {
    auto classes = codes::ObservePrecision(*sides[side], session[side], model, tokens);
    if (!classes.ok()) return {};
    observed.classes[side] = std::move(classes).value();
  }
  observed.differences = codes::Differences(observed.classes[0], observed.classes[1]);
  for (codes::PrecisionDifference& d : observed.differences)
    for (const codes::ClassPrecision& c : observed.classes[0])
      if (c.of == d.of) d.n_products = c.n_products;
  return observed;
}

std::string FindRemedy(drive::Participant* (&sides)[2], const host::Settings (&session)[2],
                       const ObservedPrecision& observed) {
  // No setting has a scheme for passes of several tokens alone.
  if (observed.differences.empty() ||
      std::ranges::any_of(observed.differences,
                          [](const codes::PrecisionDifference& d) { return d.one_row.has_value(); }))
    return "";
  for (int side : {0, 1}) {
    const int other = 1 - side;
    auto declared = ActQuant::Parse(sides[other]->record().session_facts().act_quant.value);
    if (!declared.ok() || sides[side]->failed()) continue;
    const std::string act_quant = codes::Observed(*declared, observed.classes[other]).Text();
    // What it says already, and does not do, it will not do when told.
    if (act_quant == sides[side]->record().session_facts().act_quant.value) continue;
    host::Settings settings = session[side];
    drive::PutSetting(settings, "act.quant", act_quant);
    const auto facts = sides[side]->engine().OpenSession(settings);
    if (facts.ok() && trace::ReadSessionFacts(*facts).act_quant.value == act_quant)
      return fmt::format("{} act.quant={}", side == 0 ? "--set" : "--set-reference", act_quant);
  }
  return "";
}

void TellPrecision(const ObservedPrecision& observed, bool same_weights, const std::string& remedy,
                   compare::Evidence* evidence) {
  evidence->precision.clear();
  for (const codes::PrecisionDifference& d : observed.differences)
    evidence->precision.push_back({d.of.weight,
                                   codes::ClassName(observed.classes[0], d.of),
                                   {d.scheme[0], d.scheme[1]},
                                   d.n_matrices,
                                   d.n_products,
                                   d.bound ? d.bound->Origin() : "",
                                   remedy});
  auto all_known = [](const std::vector<codes::ClassPrecision>& classes) {
    return !classes.empty() &&
           std::ranges::all_of(classes, [](const codes::ClassPrecision& c) { return c.scheme.has_value(); });
  };
  evidence->precision_is_observed =
      same_weights && all_known(observed.classes[0]) && all_known(observed.classes[1]);
}

void NoteObserved(const std::vector<codes::ClassPrecision>& classes, bool strict,
                  drive::EngineRecord* record) {
  auto declared = ActQuant::Parse(record->session_facts().act_quant.value);
  if (classes.empty() || !declared.ok()) return;
  for (host::Fact& fact : record->session)
    if (fact.key == "act.quant" && !strict)
      fact = {fact.key, codes::Observed(*declared, classes).Text(), "observed"};
  record->session.push_back({"act.products", codes::PrecisionText(classes), "observed"});
}

}  // namespace pb::run
