// Runs an engine over chosen passes, watches one op and its inputs, and lets the arbiter judge it.
#include "diagnose/probe.h"

#include <algorithm>
#include <filesystem>
#include <memory>

#include "drive/participant.h"
#include "drive/passes.h"

namespace pb::diagnose {
namespace {

// Tokens at once, sequence by sequence: below, at and above the sizes at which engines change their
// code; a single token at position 0 shows little, and goes before others.
const std::vector<std::vector<int64_t>> kSequences = {
    {1, 1, 1}, {2, 1}, {3}, {4}, {5, 1}, {7}, {8}, {12}, {15}, {16}, {17}, {24}, {31}, {32}, {33, 1}};
constexpr int64_t kMostTokens = 34;
constexpr uint64_t kCheapBytes = 256 << 20;  // of a model file

class Prober {
 public:
  explicit Prober(const Probe& probe) : probe_(probe), engine_(record_, probe.limits) {
    for (int64_t i = 0; i < kMostTokens; i++)
      tokens_.push_back(probe.tokens[static_cast<size_t>(i) % probe.tokens.size()]);
  }

  Status Run() {
    const drive::EngineRecord& side = *probe_.engine;
    PB_TRY(engine_.Start({side.spec, side.plugin, side.settings}));
    PB_TRY(engine_.OpenModel(side.model_path));
    PB_TRY(engine_.OpenSessionWishing(drive::SessionWishes(side.settings, static_cast<size_t>(kMostTokens))));
    const Place& place = probe_.culprit->place;
    watched_ = {place.stage};
    for (const stages::Input& input : probe_.arbiter->ReplayInputs(static_cast<pb_stage>(place.stage)))
      watched_.push_back(input.stage);
    if (std::ranges::count(watched_, PB_STAGE_LAYER_OUT)) watched_.push_back(PB_STAGE_EMBEDDINGS);
    const int64_t most = drive::PassRows({&record_});
    for (const std::vector<int64_t>& sequence : kSequences) {
      if (*std::ranges::max_element(sequence) > most) continue;
      PB_TRY(RunSequence(sequence));
    }
    return {};
  }

  std::vector<SeenPass> passes;

 private:
  Status RunSequence(const std::vector<int64_t>& sequence) {
    PB_TRY(engine_.Reset());
    inputs_.Clear();
    int64_t at = 0;
    for (const int64_t n : sequence) {
      PB_TRY(RunPass(at, n));
      at += n;
    }
    return {};
  }

  Status RunPass(int64_t first, int64_t n) {
    host::EvalRequest request;
    request.tokens.assign(tokens_.begin() + first, tokens_.begin() + first + n);
    request.first_position = static_cast<int32_t>(first);
    request.logits_from = static_cast<int32_t>(n);
    request.tap.stages = watched_;
    request.tap.outputs = true;
    inputs_.BeginPass(static_cast<int32_t>(first));
    return engine_.Evaluate(request, [&](const host::Event& event) -> Status {
      if (event.kind != host::Event::kPoint || event.point.layer > probe_.culprit->place.layer) return {};
      const auto stage = static_cast<pb_stage>(event.point.stage);
      const bool whole = !event.tensor.shape.empty() && event.tensor.shape[0] == n;
      if (!whole) return MakeError(Code::kUnsupported, "its points come in pieces");
      inputs_.Add(stage, event.point.layer,
                  {event.tensor.shape, {event.tensor.data.begin(), event.tensor.data.end()}});
      const Place& place = probe_.culprit->place;
      const bool here = event.point.stage == place.stage && event.point.layer == place.layer;
      return here && first + n > 1 ? Judge(first, event.tensor) : Status();
    });
  }

  Status Judge(int64_t first, const host::TensorRef& output) {
    Culprit op;
    op.place = probe_.culprit->place, op.bound = probe_.culprit->bound;
    op.first_position = static_cast<int32_t>(first), op.shape = output.shape;
    op.reference.assign(output.data.begin(), output.data.end());
    op.inputs = inputs_;
    PB_ASSIGN(const Agreement declared, Against(op, ""));
    SeenPass pass{output.shape[0], first, !declared.agrees, -1, 1};
    pass.first_wrong = declared.row.first_row_above;
    if (declared.agrees && !probe_.variation.empty()) {
      const auto varied = Against(op, probe_.variation);
      if (varied.ok() && varied->agrees) return {};
    }
    passes.push_back(pass);
    return {};
  }

  Result<Agreement> Against(const Culprit& op, const std::string& variation) {
    PB_ASSIGN(const Expectation expected, probe_.arbiter->Expect(op, {}, variation));
    return probe_.arbiter->Compare(op, op.reference, expected.output.values, expected.units);
  }

  const Probe& probe_;
  drive::EngineRecord record_;
  drive::Participant engine_;
  std::vector<int32_t> tokens_, watched_;
  PassTensors inputs_;
};

}  // namespace

bool IsCheap(const Probe& probe) {
  std::error_code error;
  const auto size = std::filesystem::file_size(probe.engine->model_path, error);
  const int32_t stage = probe.culprit->place.stage;
  // Of the logits some rows are asked for; embeddings are not computed from tensors.
  return !error && size <= kCheapBytes && !probe.tokens.empty() && stage != PB_STAGE_LOGITS &&
         stage != PB_STAGE_EMBEDDINGS;
}

std::vector<SeenPass> ProbePasses(const Probe& probe) {
  Prober prober(probe);
  return prober.Run().ok() ? std::move(prober.passes) : std::vector<SeenPass>{};
}

}  // namespace pb::diagnose
