// Predicts what a difference of precision does to the logits, by the arbiter alone: neither engine
// has a say in it.
#include "run/precision_effect.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <thread>

#include "base/random.h"
#include "compare/logits.h"
#include "drive/lent_weights.h"
#include "drive/participant.h"
#include "noise/meter.h"
#include "stages/stages.h"

namespace pb::run {
namespace {

// Of one evaluation: a quarter of a minute of plain fp64 loops on one processor.
constexpr double kMostMultiplyAdds = 2e10;
constexpr unsigned kMostThreads = 8;

double MultiplyAddsOf(const Model& model) {
  double all = 0;
  for (pb_stage stage : stages::kProducts) {
    const int64_t n_layers = stages::Of(stage).per_layer ? model.params().n_layers : 1;
    for (int64_t layer = 0; layer < n_layers; layer++) {
      const WeightView& w = model.weights(stage, static_cast<int32_t>(layer)).matrix;
      all += double(w.n_rows) * double(w.n_columns);
    }
  }
  return std::max(all, 1.0);
}

Status Open(const Request& request, const drive::EngineRecord& side, const Model& model,
            drive::Participant* arbiter) {
  drive::EngineSpec spec = *request.arbiter;
  drive::PutDecoder(model, &spec.settings);
  for (const char* key : {"hf.config", "ffn.activation"})
    if (const std::string* value = drive::FindSetting(side.settings, key))
      drive::PutSetting(spec.settings, key, *value);
  const unsigned threads = std::clamp(std::thread::hardware_concurrency(), 1u, kMostThreads);
  drive::PutSetting(spec.settings, "threads", std::to_string(threads));
  const std::string kv = side.session_facts().kv_type.value;
  if (!kv.empty()) drive::PutSetting(spec.settings, "kv.type", kv);
  PB_TRY(arbiter->Start(spec));
  return arbiter->OpenModel(side.model_path);
}

// Rounds a context as sums in f16 do: by half a unit of f16 for each position's square root, of a
// row's typical value (docs/numerics.md, "Fused attention": what engines needed).
void DisturbContext(const host::Event& event, Random* random, std::vector<float>* values) {
  values->assign(event.tensor.data.begin(), event.tensor.data.end());
  const auto n_rows = static_cast<size_t>(std::max<int64_t>(event.tensor.shape[0], 1));
  const size_t width = values->size() / n_rows;
  for (size_t i = 0; i < n_rows; i++) {
    const std::span<float> row(values->data() + i * width, width);
    double squares = 0;
    for (float v : row) squares += double(v) * double(v);
    const double n_positions = event.point.first_position + static_cast<double>(i) + 1;
    const double size = 0x1p-12 * std::sqrt(n_positions * squares / static_cast<double>(width));
    for (float& v : row)
      v = static_cast<float>(double(v) + size * (static_cast<double>(random->Below(3)) - 1));
  }
}

// The sequence in one pass, with every layer's context disturbed.
Result<drive::RowStore> EvaluateDisturbed(drive::Participant& arbiter, const host::Settings& session,
                                          const drive::Sequence& sequence) {
  PB_TRY(arbiter.OpenSession(session, false));
  std::optional<drive::RowStore> rows;
  Random random(1);
  std::vector<float> values;
  host::Engine& engine = arbiter.engine();
  host::TapFilter tap;
  tap.stages = {PB_STAGE_ATTN_CONTEXT}, tap.outputs = true;
  PB_TRY(engine.BeginEval({sequence.tokens, 0, 0, tap}));
  for (;;) {
    PB_ASSIGN(const host::Event event, engine.Wait());
    if (event.kind == host::Event::kDone) break;
    if (event.kind == host::Event::kPoint) {
      DisturbContext(event, &random, &values);
      PB_TRY(engine.Overwrite(values));
      continue;
    }
    if (!rows) {
      PB_ASSIGN(rows, drive::RowStore::Create(static_cast<int64_t>(sequence.tokens.size()),
                                              event.tensor.shape.back()));
    }
    PB_TRY(rows->Append(event.tensor.data));
    PB_TRY(engine.Continue());
  }
  if (!rows) return MakeError(Code::kEngine, "the arbiter gave no logits");
  return std::move(*rows);
}

Status Add(drive::Participant& arbiter, const std::string (&act_quant)[2], bool f16_attention,
           bool unrounded_attention, const drive::Sequence& sequence, compare::PrecisionEffect* effect) {
  host::Settings first = {{"act.quant", act_quant[0]}}, second = {{"act.quant", act_quant[1]}};
  if (unrounded_attention) {
    drive::PutSetting(first, "attn.rounded", "no");
    drive::PutSetting(second, "attn.rounded", "yes");
  }
  PB_ASSIGN(drive::RowStore candidate, f16_attention ? EvaluateDisturbed(arbiter, first, sequence)
                                                     : drive::EvaluateAll(arbiter, first, sequence));
  PB_ASSIGN(drive::RowStore reference, drive::EvaluateAll(arbiter, second, sequence));
  for (int64_t i = 0; i < candidate.n_rows(); i++) {
    PB_ASSIGN(compare::LogitsRow row, compare::CompareLogits(candidate.Row(i), reference.Row(i)));
    if (!row.finite) return MakeError(Code::kEngine, "the arbiter's logits are not finite");
    effect->mean_kl += row.kl;
    effect->worst_kl = std::max(effect->worst_kl, row.kl);
    effect->worst_gap = std::max(effect->worst_gap, row.gap_change);
    effect->n_positions++;
  }
  return {};
}

}  // namespace

compare::PrecisionEffect PredictEffect(const Request& request, const Comparison& comparison,
                                       const Model& model, const std::string (&act_quant)[2],
                                       bool f16_attention, bool unrounded_attention) {
  compare::PrecisionEffect effect;
  if (!request.arbiter) return effect.why_none = "there is no arbiter to predict it", effect;
  drive::EngineRecord record;
  record.role = "arbiter";
  drive::Participant arbiter(record, request.limits);
  Status status = Open(request, comparison.candidate, model, &arbiter);
  auto left = std::max<int64_t>(static_cast<int64_t>(kMostMultiplyAdds / MultiplyAddsOf(model)), 1);
  for (const PromptRecord& prompt : comparison.prompts) {
    if (!status.ok() || left <= 0) break;
    drive::Sequence sequence;
    sequence.tokens = prompt.tokens;
    sequence.tokens.insert(sequence.tokens.end(), prompt.decoded.begin(), prompt.decoded.end());
    sequence.tokens.resize(std::min(sequence.tokens.size(), static_cast<size_t>(left)));
    if (sequence.tokens.empty()) continue;
    sequence.n_prefill = static_cast<int32_t>(sequence.tokens.size());
    if (request.progress)
      request.progress("effect of precision", effect.n_positions, effect.n_positions + left);
    status = Add(arbiter, act_quant, f16_attention, unrounded_attention, sequence, &effect);
    left -= sequence.n_prefill;
  }
  if (!status.ok()) effect.why_none = status.error().message;
  if (status.ok() && effect.n_positions == 0) effect.why_none = "there was no position";
  effect.mean_kl /= static_cast<double>(std::max<int64_t>(effect.n_positions, 1));
  return effect;
}

}  // namespace pb::run
