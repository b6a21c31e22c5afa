// What a comparison op by op asks of both engines.
#include "drive/local_scope.h"

namespace pb::drive {

std::string WhyNoLocalScope(Participant& of_candidate, Participant& of_reference) {
  host::Engine &candidate = of_candidate.engine(), &reference = of_reference.engine();
  if (!(candidate.capabilities() & PB_CAP_OUTPUTS)) return "the candidate shows no tracepoints";
  if (!(candidate.capabilities() & PB_CAP_OVERWRITE)) return "the candidate cannot be overwritten";
  if (!(reference.capabilities() & PB_CAP_OUTPUTS)) return "the reference shows no tracepoints";
  // Every op must lie before a point that is compared: the last one is the logits.
  for (host::Engine* engine : {&candidate, &reference}) {
    auto stages = engine->Stages();
    if (stages.ok() && (*stages)[PB_STAGE_LOGITS].visibility != PB_OBSERVED)
      return fmt::format("the {} does not show its logits as a tracepoint",
                         engine == &candidate ? "candidate" : "reference");
  }
  // An op of one shape has no counterpart in the other; what follows it would be fed other inputs.
  // Of one file a shape that differs is an engine's mistake, and shows.
  const EngineRecord &c = of_candidate.record(), &r = of_reference.record();
  const trace::ModelFacts ours = c.model_facts(), theirs = r.model_facts();
  std::string why;
  auto hold = [&](const char* key, int64_t a, int64_t b) {
    if (c.model_sha256 != r.model_sha256 && a > 0 && b > 0 && a != b && why.empty())
      why = fmt::format(
          "the files are of models of different shape ({} {} and {}), so their ops have no counterparts", key,
          a, b);
  };
  hold("n_layers", ours.n_layers, theirs.n_layers);
  for (const auto& [key, size] : trace::kShapeKeys)
    if (key != std::string_view("n_vocab")) hold(key, ours.shape.*size, theirs.shape.*size);
  return why;
}

}  // namespace pb::drive
