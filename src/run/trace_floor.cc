// The noise floor of a recorded engine. What is measured here must be what was recorded: the same
// libraries, model and settings.
#include "run/trace_floor.h"

#include <algorithm>

#include "base/file.h"
#include "drive/participant.h"
#include "noise/floor.h"
#include "noise/meter.h"
#include "noise/noise_file.h"

namespace pb::run {
namespace {

// What decides an engine's numbers, of a session.
constexpr const char* kDeciding[] = {"threads", "ubatch", "act.quant", "kv.type", "attn.flash", "noise.seed"};

// The settings that the recorded engine ran with, whoever chose them; an engine that does not offer
// one here is not asked for it.
host::Settings SettingsOf(const trace::Manifest& m) {
  host::Settings settings;
  for (const trace::Fact& fact : m.session_facts)
    if (std::ranges::find(kDeciding, fact.key) != std::end(kDeciding))
      drive::PutSetting(settings, fact.key, fact.value);
  return settings;
}

Status CheckSameEngine(const drive::EngineRecord& here, const trace::Manifest& m) {
  const std::string identity = trace::FactText(m.engine_facts, drive::kIdentityFact);
  if (identity != here.identity)
    return MakeError(Code::kNotFound,
                     "the reference's trace is of another build of {} than the one that is here", m.engine);
  for (const char* key : kDeciding) {
    const std::string now = host::FactText(here.session, key), then = trace::FactText(m.session_facts, key);
    if (now != then)
      return MakeError(Code::kNotFound, "{} ran with {} {} when it was recorded and runs with {} here",
                       m.engine, key, then, now);
  }
  return {};
}

Result<compare::NoiseFloor> Measure(const trace::Manifest& m, int64_t n_tokens,
                                    const TraceFloorRequest& request) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(m.model_path, error))
    return MakeError(Code::kNotFound,
                     "the reference's model file is not here, so its noise floor cannot be measured: {}",
                     m.model_path);
  PB_ASSIGN(const std::string digest, drive::CachedFileSha256(m.model_path));
  if (digest != m.model_sha256)
    return MakeError(Code::kNotFound, "{} is another file than the one that was recorded", m.model_path);
  drive::EngineRecord record;
  record.role = "reference";
  drive::Participant engine(record, request.limits);
  drive::EngineSpec spec = request.engine;
  // What belongs to the model is told when the engine starts.
  const trace::Fact* activation = trace::FindFact(m.model_facts, "ffn.activation");
  if (activation && activation->origin == "set")
    drive::PutSetting(spec.settings, "ffn.activation", activation->value);
  host::Settings settings = SettingsOf(m);
  PB_TRY(engine.Start(spec));
  PB_TRY(engine.OpenModel(m.model_path));
  drive::PutSetting(settings, "n_ctx", std::to_string(std::max(n_tokens, compare::kMinNoisePositions)));
  PB_ASSIGN(settings, engine.OpenSessionWishing(settings));
  PB_TRY(CheckSameEngine(record, m));
  noise::NoiseMeter meter(engine, settings, compare::kMinNoiseRuns, 0, false, CacheDir() / "noise",
                          request.progress);
  const drive::Sequence sequence{{m.tokens.begin(), m.tokens.begin() + n_tokens},
                                 static_cast<int32_t>(std::min<int64_t>(m.n_prompt, n_tokens)),
                                 0};
  PB_TRY(meter.Measure(sequence, nullptr));
  PB_TRY(meter.Calibrate(request.calibration));
  return meter.Floor();
}

}  // namespace

bool HasKeptFloor(const trace::Trace& trace) {
  std::error_code error;
  return std::filesystem::exists(trace.folder() / noise::kNoiseFile, error);
}

Result<compare::NoiseFloor> FloorOfTrace(const trace::Trace& trace, int64_t n_tokens,
                                         const TraceFloorRequest& request) {
  const trace::Manifest& m = trace.manifest();
  const std::filesystem::path file = trace.folder() / noise::kNoiseFile;
  auto kept = noise::ReadNoiseFloor(file);
  if (!kept.ok() && kept.error().code != Code::kNotFound) return std::move(kept).error();
  if (!kept.ok()) return Measure(m, n_tokens, request);
  const bool same = kept->floor.model_sha256 == m.model_sha256 &&
                    kept->floor.engine_digest == trace::FactText(m.engine_facts, drive::kIdentityFact) &&
                    kept->trace_logits_blake3 == m.logits_blake3;
  if (!same)
    return MakeError(Code::kMalformed,
                     "{}: is of another engine, model or run than the trace that it lies beside",
                     file.string());
  return std::move(kept->floor);
}

}  // namespace pb::run
