// Opens the oracle as a side is configured, feeds it captured inputs, and compares outputs
// within the op's bound.
#include "diagnose/file_arbiter.h"

#include <algorithm>
#include <cmath>

#include "base/processors.h"
#include "codes/code_steps.h"
#include "drive/lent_weights.h"
#include "model/declared.h"
#include "run/doubts.h"

namespace pb::diagnose {
namespace {

constexpr int kMaxThreads = 8;

// Of what a side is told about its model the arbiter takes over what decides between files that
// contradict each other, and nothing besides: an engine that is told to compute something else than
// is declared is wrong.
void TakeDecisions(const drive::EngineRecord& side, host::Settings* settings) {
  const auto file = GgufFile::Open(side.model_path);
  if (!file.ok()) return;  // who opens it next says why
  const auto declared = ReadDeclarations(*file, run::DeclaredBy(*settings));
  if (!declared.ok()) return;
  for (const Doubt& doubt : declared->doubts) {
    if (doubt.kind != Doubt::Kind::kContradiction || doubt.choices.empty()) continue;
    const std::string key = doubt.choices[0].substr(0, doubt.choices[0].find('='));
    if (const std::string* value = drive::FindSetting(side.settings, key))
      drive::PutSetting(*settings, key, *value);
  }
}

}  // namespace

double Agreement::error() const { return std::max(row.worst_row, row.worst_feature); }

host::Settings SettingsOf(const drive::EngineRecord& side) {
  host::Settings settings;
  if (const std::string* config = drive::FindSetting(side.settings, "hf.config"))
    drive::PutSetting(settings, "hf.config", *config);
  const trace::SessionFacts facts = side.session_facts();
  for (const trace::Fact& fact : {facts.act_quant, facts.kv_type, facts.rope_factors})
    if (!fact.value.empty()) drive::PutSetting(settings, fact.key, fact.value);
  return settings;
}

Result<std::unique_ptr<FileArbiter>> FileArbiter::Open(const drive::EngineSpec& arbiter,
                                                       const drive::EngineRecord& side,
                                                       std::span<const std::filesystem::path> lenders,
                                                       const host::Limits& limits) {
  std::unique_ptr<FileArbiter> self(new FileArbiter);
  host::Settings settings = arbiter.settings;
  const int threads = std::min(ProcessorCount(), kMaxThreads);
  drive::PutSetting(settings, "threads", std::to_string(threads));
  for (const auto& [key, value] : SettingsOf(side)) drive::PutSetting(settings, key, value);
  TakeDecisions(side, &settings);
  auto open = [&] { return drive::OpenModel(side.model_path, run::DeclaredBy(settings), lenders, limits); };
  auto model = open();
  if (model.ok()) drive::PutDecoder(**model, &settings);
  for (bool told : {false, true}) {
    PB_ASSIGN(self->engine_, host::Engine::Start(arbiter.plugin, settings, limits));
    PB_ASSIGN(self->facts_, self->engine_->OpenModel(side.model_path));
    const std::string* activation = drive::FindSetting(side.settings, "ffn.activation");
    if (told || !activation || !trace::ReadModelFacts(self->facts_).activation_undeclared()) break;
    drive::PutSetting(settings, "ffn.activation", *activation);
    model = open();
  }
  PB_ASSIGN(self->session_, self->engine_->OpenSession({}));
  PB_ASSIGN(self->stages_, self->engine_->Stages());
  self->arbiter_ = std::make_unique<Arbiter>(*self->engine_, self->stages_);
  PB_ASSIGN(self->model_, std::move(model));
  PB_ASSIGN(self->act_quant_, ActQuant::Parse(trace::ReadSessionFacts(self->session_).act_quant.value));
  self->scheme_check_.emplace(self->model_, self->act_quant_);
  return self;
}

Result<Expectation> FileArbiter::Embeddings(std::span<const int32_t> tokens) {
  PB_TRY(engine_->Reset(0));
  host::EvalRequest request;
  request.tokens.assign(tokens.begin(), tokens.end());
  request.logits_from = static_cast<int32_t>(tokens.size());
  request.tap.stages = {PB_STAGE_EMBEDDINGS};
  request.tap.outputs = true;
  PB_TRY(engine_->BeginEval(request));
  PB_ASSIGN(host::Event event, engine_->Wait());
  if (event.kind != host::Event::kPoint) return MakeError(Code::kEngine, "the arbiter showed no embeddings");
  Expectation e;
  e.output = {event.tensor.shape, {event.tensor.data.begin(), event.tensor.data.end()}};
  PB_TRY(engine_->Stop());
  return e;
}

Result<Expectation> FileArbiter::Expect(const Culprit& culprit, std::span<const int32_t> tokens,
                                        const std::string& variation) {
  const auto stage = static_cast<pb_stage>(culprit.place.stage);
  auto expected = stage == PB_STAGE_EMBEDDINGS && variation.empty()
                      ? Embeddings(tokens)
                      : arbiter_->Expect(culprit.inputs, stage, culprit.place.layer, variation);
  PB_ASSIGN(Expectation e, std::move(expected));
  if (e.output.values.size() != culprit.reference.size()) {
    return MakeError(Code::kUsage, "{}: the arbiter gives {} values, the engine {}",
                     pb_vocabulary[stage].name, e.output.values.size(), culprit.reference.size());
  }
  // Of attention as one op, or of sums in f16, the arbiter's units, those of float32 sums, say nothing: the
  // bound of such an op holds.
  if (culprit.bound.roundoff > compare::kF32Roundoff) e.units.clear();
  return e;
}

Result<Expectation> FileArbiter::Replay(pb_stage stage, int32_t layer, int32_t first_position,
                                        std::vector<Recorded> inputs, const std::string& variation) {
  host::ReplayRequest request;
  request.stage = stage, request.layer = layer, request.first_position = first_position;
  request.variation = variation;
  request.units = (engine_->capabilities() & PB_CAP_UNITS) != 0;
  for (Recorded& input : inputs) request.inputs.emplace_back(std::move(input.shape), std::move(input.values));
  PB_ASSIGN(host::TensorRef out, engine_->Replay(request));
  Expectation e;
  e.output = {out.shape, {out.data.begin(), out.data.end()}};
  e.units.assign(out.units.begin(), out.units.end());
  return e;
}

std::string FileArbiter::WhyWithheld(int32_t stage, int32_t layer) const {
  const WeightView& w = model_->weights(stage, layer).matrix;
  if (!w.decoder) return "";
  return fmt::format(
      "its weights ({}) are decoded by the code of {}, so a wrong file is not told from a wrong decoder",
      BlockTypeName(static_cast<uint32_t>(w.type)), w.decoder->lender());
}

Result<host::Codes> FileArbiter::CodesOf(host::Engine& engine, const Culprit& culprit) const {
  if (!(engine.capabilities() & PB_CAP_CODES)) return MakeError(Code::kUnsupported, "it does not tell them");
  PB_ASSIGN(std::vector<Recorded> inputs, Inputs(culprit));
  host::ReplayRequest request;
  request.stage = culprit.place.stage, request.layer = culprit.place.layer, request.codes = true;
  request.first_position = culprit.first_position;
  for (Recorded& input : inputs) request.inputs.emplace_back(std::move(input.shape), std::move(input.values));
  PB_ASSIGN(host::TensorRef told, engine.Replay(request));
  if (!told.codes)
    return MakeError(Code::kEngine, "{} gave no codes", pb_vocabulary[culprit.place.stage].name);
  return std::move(*told.codes);
}

Result<std::vector<Recorded>> FileArbiter::Inputs(const Culprit& culprit) const {
  std::vector<Recorded> inputs;
  const auto stage = static_cast<pb_stage>(culprit.place.stage);
  for (const stages::Input& input : ReplayInputs(stage)) {
    const Recorded* found = culprit.inputs.Find(input, culprit.place.layer);
    if (!found) return MakeError(Code::kNotFound, "{}: an input was not recorded", pb_vocabulary[stage].name);
    inputs.push_back(*found);
  }
  return inputs;
}

void FileArbiter::ExplainByCodes(const Culprit& culprit, std::span<const float> output,
                                 std::span<const float> expected, const compare::LocalBound& bound,
                                 Agreement* agreement) const {
  const auto stage = static_cast<pb_stage>(culprit.place.stage);
  const std::vector<stages::Input> reads = ReplayInputs(stage);
  auto inputs = Inputs(culprit);
  const bool of_experts = stages::kExpertProducts.Contains(stage);
  if ((reads.size() != 1 && !of_experts) || !inputs.ok()) return;
  codes::CodeExplainer explainer(model_, &*scheme_check_);
  host::PointRef point;
  point.layer = culprit.place.layer, point.first_position = culprit.first_position;
  compare::PointRow ignored;
  for (size_t i = 0; i < reads.size(); i++) {
    const Recorded& input = (*inputs)[i];
    point.stage = reads[i].stage;
    explainer.OnPair({point, input.shape, input.values, input.values, &ignored, &bound});
  }
  point.stage = stage;
  explainer.OnPair({point, culprit.shape, output, expected, &agreement->row, &bound});
  agreement->agrees = agreement->row.explained_by_codes;
}

namespace {

// Takes out what is finite in neither. False: something is so in one of them alone.
bool DropNonFinite(pb_stage stage, std::vector<float>* a, std::vector<float>* b) {
  for (size_t i = 0; i < a->size(); i++) {
    float &x = (*a)[i], &y = (*b)[i];
    const bool hidden = stage == PB_STAGE_ATTN_SCORES && x == -INFINITY && y == -INFINITY;
    if (hidden || (std::isfinite(x) && std::isfinite(y))) continue;
    if (std::isfinite(x) || std::isfinite(y)) return false;
    x = y = 0;
  }
  return true;
}

}  // namespace

Agreement FileArbiter::Compare(const Culprit& culprit, std::span<const float> output,
                               std::span<const float> expected, std::span<const float> units) const {
  Agreement agreement;
  const auto stage = static_cast<pb_stage>(culprit.place.stage);
  const int64_t n_rows = culprit.shape[0], n_features = static_cast<int64_t>(output.size()) / n_rows;
  const compare::PointPlace place{culprit.place.prompt, culprit.place.step, culprit.place.stage,
                                  culprit.place.layer, culprit.first_position};
  const compare::LocalBound bound = units.empty() ? culprit.bound : compare::BoundFromUnits(stage, units);
  auto row =
      compare::ComparePoint({output, n_rows, n_features}, {expected, n_rows, n_features}, place, bound);
  PB_CHECK(row.ok());
  agreement.row = std::move(row).value();
  agreement.agrees = agreement.row.bound_ratio <= 1;
  if (agreement.row.n_non_finite[0] > 0 && agreement.row.n_non_finite[1] > 0) {
    std::vector<float> a(output.begin(), output.end()), b(expected.begin(), expected.end());
    if (!DropNonFinite(stage, &a, &b)) return agreement;
    // Units of what is not finite are none.
    auto rest = compare::ComparePoint({a, n_rows, n_features}, {b, n_rows, n_features}, place, culprit.bound);
    PB_CHECK(rest.ok());
    agreement.finite_part = std::move(rest).value();
    return agreement;
  }
  if (!agreement.agrees) ExplainByCodes(culprit, output, expected, bound, &agreement);
  return agreement;
}

Result<FileArbiters> FileArbiters::Open(const drive::EngineSpec& arbiter, const run::Comparison& comparison,
                                        const host::Limits& limits) {
  const drive::EngineRecord &c = comparison.candidate, &r = comparison.reference;
  const std::filesystem::path lenders[] = {r.plugin, c.plugin};
  FileArbiters self;
  PB_ASSIGN(self.own_[0], FileArbiter::Open(arbiter, c, lenders, limits));
  const trace::SessionFacts ours = c.session_facts(), theirs = r.session_facts();
  const bool same =
      c.model_sha256 == r.model_sha256 && c.model_path.parent_path() == r.model_path.parent_path() &&
      ours.act_quant.value == theirs.act_quant.value && ours.kv_type.value == theirs.kv_type.value;
  if (!same) {
    PB_ASSIGN(self.own_[1], FileArbiter::Open(arbiter, r, lenders, limits));
  }
  return self;
}

std::vector<int32_t> TokensOf(const Culprit& culprit, const run::Comparison& comparison) {
  const run::PromptRecord& prompt = comparison.prompts[static_cast<size_t>(culprit.place.prompt)];
  std::vector<int32_t> all = prompt.tokens;
  all.insert(all.end(), prompt.decoded.begin(), prompt.decoded.end());
  const auto begin = std::min(all.size(), static_cast<size_t>(culprit.first_position));
  const auto n = std::min(all.size() - begin, static_cast<size_t>(culprit.shape[0]));
  return {all.begin() + static_cast<ptrdiff_t>(begin), all.begin() + static_cast<ptrdiff_t>(begin + n)};
}

}  // namespace pb::diagnose
