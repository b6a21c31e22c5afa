// Decides between the reference's floor, a recorded one and the candidate's, and reads or
// measures it.
#include "noise/floor.h"

#include "base/file.h"
#include "drive/local_scope.h"
#include "noise/noise_file.h"
#include "trace/record.h"

namespace pb::noise {
namespace {

// Bytes of a model with which the whole floor takes some ten seconds or more. No clock decides, so
// that a run tells the same on every machine.
constexpr uint64_t kWorthSparing = 32 << 20;

// Why a floor is not that of the recorded engine on its model; empty: it is.
std::string WhyNotOf(const RecordedFloor& recorded, const drive::EngineRecord& recording,
                     const std::filesystem::path& folder) {
  const compare::NoiseFloor& floor = recorded.floor;
  if (floor.model_sha256 != recording.model_sha256) return "is of another model file";
  const std::string identity = host::FactText(recording.description, drive::kIdentityFact);
  if (identity.empty())
    return "cannot be used, as the trace does not tell the identity of the engine that it was recorded from";
  if (floor.engine_digest != identity)
    return fmt::format(
        "is of another engine ({}, identity {:.12}) than the one that the trace was recorded from (identity "
        "{:.12})",
        floor.engine, floor.engine_digest, identity);
  constexpr uint64_t kMaxManifest = 64 << 20;
  const auto text = ReadFile(folder / trace::kManifestFile, kMaxManifest);
  const auto manifest = text.ok() ? trace::ParseManifest(*text) : Result<trace::Manifest>(text.error());
  if (!manifest.ok() || manifest->logits_blake3 != recorded.trace_logits_blake3)
    return "was measured with another trace than the one that it stands beside";
  return {};
}

}  // namespace

std::filesystem::path ReplayedFolder(const drive::EngineRecord& engine) {
  return host::FactText(engine.description, "path.trace");
}

FloorSource::FloorSource(drive::Participant& candidate, drive::Participant& reference,
                         const host::Settings (&session)[2], FloorRequest request)
    : sides_{&candidate, &reference}, session_{&session[0], &session[1]}, request_(std::move(request)) {}

bool FloorSource::CandidateMayServe() const {
  return request_.local && (sides_[0]->engine().capabilities() & PB_CAP_NOISE) &&
         drive::WhyNoLocalScope(*sides_[0], *sides_[1]).empty();
}

void FloorSource::Decide() {
  decided_ = true;
  const drive::EngineRecord& reference = sides_[1]->record();
  const std::filesystem::path replayed = ReplayedFolder(reference);
  if (!replayed.empty()) {
    file_ = replayed / kNoiseFile;
    auto floor = ReadNoiseFloor(file_);
    if (floor.ok()) {
      why_none_ = WhyNotOf(*floor, reference, replayed);
      if (why_none_.empty())
        recorded_ = std::move(floor->floor);
      else
        why_none_ = fmt::format("{}: {}", file_.string(), why_none_);
      return;
    }
    if (floor.error().code != Code::kNotFound) {
      why_none_ = floor.error().message;
      return;
    }
    if (!CandidateMayServe()) {
      why_none_ = "the reference is a recording that brings no noise floor; give limits of your own";
      return;
    }
    side_ = 0;
    caveat_ = "the reference is a recording without a noise floor, so the candidate was disturbed instead";
  }
  if (request_.n_runs <= 0) {
    why_none_ = "it was not asked for";
    return;
  }
  OpenMeter(!MaySpare());
}

// What a part of the floor shows counts only where the whole one would be as good as any.
bool FloorSource::MaySpare() const {
  std::error_code error;
  const uint64_t n_bytes = std::filesystem::file_size(sides_[side_]->record().model_path, error);
  return request_.sparing && side_ == 1 && !request_.confidence && !error && n_bytes >= kWorthSparing &&
         request_.n_runs >= compare::kMinNoiseRuns && (sides_[side_]->engine().capabilities() & PB_CAP_NOISE);
}

void FloorSource::OpenMeter(bool whole) {
  partial_ = !whole;
  meter_.emplace(*sides_[side_], *session_[side_], whole ? request_.n_runs : 1,
                 request_.confidence ? compare::RunsFor(*request_.confidence) : 0, whole && request_.local,
                 CacheDir() / "noise", request_.progress, request_.threads);
}

Status FloorSource::Add(const drive::Sequence& sequence, const drive::RowStore* reference_rows) {
  if (!decided_) Decide();
  if (partial_) sequences_.push_back(sequence);
  const bool same = side_ == 1 && request_.threads.empty();
  return meter_ ? meter_->Measure(sequence, same ? reference_rows : nullptr) : Status();
}

Status FloorSource::Calibrate(const IsWithin& is_within) {
  if (!decided_) Decide();
  if (!meter_) return {};
  auto is_enough = [&] {
    compare::NoiseFloor floor = meter_->Floor();
    floor.partial = true;
    return compare::CheckNoiseFloor(floor).ok() && is_within && is_within(floor);
  };
  if (partial_) {
    // One run over the prompts shows how far rounding moves these very positions; the calibration
    // text serves where they are few.
    if (is_enough()) return {};
    PB_TRY(meter_->Calibrate(request_.calibration));
    if (is_enough()) return {};
    n_measured_before_ = meter_->n_measured();
    OpenMeter(true);
    for (const drive::Sequence& sequence : sequences_) PB_TRY(meter_->Measure(sequence, nullptr));
  }
  return meter_->Calibrate(request_.calibration);
}

std::optional<compare::NoiseFloor> FloorSource::Take(FloorRecord* record) const {
  using Method = compare::NoiseFloor::Method;
  compare::NoiseFloor floor;
  if (recorded_) {
    floor = *recorded_;
    record->provenance = file_.string();
  } else if (meter_) {
    floor = meter_->Floor();
    floor.caveat = caveat_;
    floor.partial = partial_;
    // What was measured in this run and then read again was not there before.
    record->n_cached = std::max(meter_->n_cached() - n_measured_before_, 0);
    record->n_measured = meter_->n_measured() + n_measured_before_;
    record->provenance = meter_->folder().string();
  } else {
    return std::nullopt;
  }
  record->side = side_ == 0 ? "candidate" : "reference";
  record->method = floor.method == Method::kRandomRounding ? "random rounding" : "natural variations";
  record->partial = floor.partial;
  record->sha256 = floor.Digest();
  record->n_runs = static_cast<int32_t>(floor.runs.size());
  record->n_positions = floor.n_positions();
  record->n_calibration = floor.n_calibration_positions;
  record->weaker = !compare::WeaknessOf(floor).empty();
  if (compare::CheckNoiseFloor(floor).ok()) {
    record->mean_kl = floor.MeanKl();
    record->worst_kl = floor.WorstKl();
    record->worst_gap = floor.WorstGapChange();
    record->points = floor.Points();
  }
  return floor;
}

std::vector<std::vector<double>> FloorSource::NoiseRuns(int64_t n_rows, std::string* why) const {
  std::vector<std::vector<double>> runs;
  if (partial_) {
    *why = "no more of the noise was measured than the limits took";
    return runs;
  }
  if (meter_ && side_ == 1 && meter_->random_rounding()) return meter_->PromptKl();
  if (meter_) {
    *why = side_ == 1 ? "the reference cannot be disturbed"
                      : "the noise is the candidate's, not the reference's";
  } else if (recorded_ && recorded_->method == compare::NoiseFloor::Method::kRandomRounding &&
             recorded_->n_positions() - recorded_->n_calibration_positions == n_rows) {
    for (const compare::NoiseRun& run : recorded_->runs)
      runs.emplace_back(run.kl.begin(), run.kl.begin() + n_rows);
  } else {
    *why = recorded_ ? "the recorded noise is not of this prompt alone" : "no noise was measured";
  }
  return runs;
}

}  // namespace pb::noise
