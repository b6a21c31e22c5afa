// What every comparison of two engines begins with.
#include "run/open_side.h"

#include "model/declared.h"
#include "run/doubts.h"

namespace pb::run {
namespace {

// Whether neither the file nor a config.json says which activation the model runs.
bool LeavesActivationOpen(const std::filesystem::path& path, const host::Settings& settings) {
  const auto file = GgufFile::Open(path);
  if (!file.ok()) return false;
  const auto declared = ReadDeclarations(*file, DeclaredBy(settings));
  return declared.ok() && declared->params && !declared->params->ffn_activation;
}

}  // namespace

Status OpenSide(const Request& request, int side, drive::Participant& engine, drive::EngineRecord* record,
                std::vector<Doubt>* doubts, std::vector<compare::Obstacle>* obstacles) {
  const bool candidate = side == 0;
  const drive::EngineSpec& spec = candidate ? request.candidate : request.reference;
  const bool own_model = !candidate && !request.reference_model.empty();
  record->role = candidate ? "candidate" : "reference";
  const std::filesystem::path& model = own_model ? request.reference_model : request.model;
  // One file is looked at once; the settings of the candidate say what counts.
  const size_t n_doubts = doubts->size();
  if (candidate || own_model) PB_TRY(CheckModelFile(model, spec.settings, doubts));
  for (size_t i = n_doubts; i < doubts->size() && !candidate; ++i) (*doubts)[i].flag = "--set-reference";
  record->model_path = model;
  PB_TRY(engine.Start(spec));
  PB_TRY(engine.OpenModel(model));
  const trace::ModelFacts facts = record->model_facts();
  bool undeclared = facts.activation_undeclared();
  // Whatever the engine runs: if nobody says what is right, agreement shows nothing.
  if (candidate && !drive::FindSetting(spec.settings, "ffn.activation"))
    undeclared |= LeavesActivationOpen(model, spec.settings);
  if (undeclared)
    obstacles->push_back(
        compare::UndeclaredActivation(facts.architecture.empty() ? "of this file" : facts.architecture,
                                      candidate ? "--set" : "--set-reference"));
  return {};
}

}  // namespace pb::run
