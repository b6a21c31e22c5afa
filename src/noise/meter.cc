// Runs the disturbed sequences, several engines at once where that pays, and caches each with
// its provenance.
#include "noise/meter.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>

#include "base/kept.h"
#include "base/processors.h"
#include "base/sha256.h"
#include "base/text.h"
#include "noise/noise_file.h"

namespace pb::noise {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxEntryBytes = 1 << 30;

// What an engine that cannot be disturbed is asked to vary instead.
constexpr const char* kVariations[] = {"threads=2", "threads=3", "ubatch=1", "ubatch=32"};

const char* PointsKey(bool all) { return all ? "points" : "layer_points"; }

host::Settings WithVariation(host::Settings settings, std::string_view variation) {
  size_t equals = variation.find('=');
  drive::PutSetting(settings, std::string(variation.substr(0, equals)),
                    std::string(variation.substr(equals + 1)));
  return settings;
}

}  // namespace

NoiseMeter::NoiseMeter(drive::Participant& reference, host::Settings session, int32_t n_runs,
                       int64_t n_ranked, bool with_points, std::filesystem::path cache,
                       drive::Progress progress, std::string threads)
    : reference_(reference),
      session_(std::move(session)),
      threads_(std::move(threads)),
      progress_(std::move(progress)),
      random_rounding_((reference.engine().capabilities() & PB_CAP_NOISE) != 0),
      with_points_(with_points && random_rounding_ &&
                   (reference.engine().capabilities() & PB_CAP_OUTPUTS) != 0) {
  if (!threads_.empty()) drive::PutSetting(session_, "threads", threads_);
  const drive::EngineRecord& record = reference.record();
  folder_ = std::move(cache) / fmt::format("{:.16}-{:.16}", record.model_sha256, record.identity);
  if (random_rounding_) {
    for (int64_t seed = 1; seed <= std::max<int64_t>(n_runs, n_ranked); ++seed)
      (seed <= n_runs ? runs_ : further_)
          .push_back({static_cast<uint64_t>(seed), fmt::format("noise.seed={}", seed), {}, {}, {}});
    return;
  }
  for (const char* variation : kVariations)
    if (reference_.engine().OpenSession(WithVariation(session_, variation)).ok())
      runs_.push_back({0, variation, {}, {}, {}});
}

Json NoiseMeter::Provenance(const drive::Sequence& sequence, const compare::NoiseRun& run) const {
  const drive::EngineRecord& record = reference_.record();
  Json settings = Json::object();
  for (const host::Fact& fact : record.session)
    if (fact.key != "n_ctx" && fact.key != "noise.seed") settings[fact.key] = fact.value;
  if (!threads_.empty()) settings["threads"] = threads_;
  // What the model declares beside the file, or the user instead of it.
  for (const char* key : {"ffn.activation", "norm.eps", "rope.base", "rope.scale", "rope.pairing"})
    if (const host::Fact* fact = host::FindFact(record.model, key)) settings[key] = fact->value;
  std::span tokens(sequence.tokens);
  // Escaped as it will be where it is kept, to be held against that.
  return EscapeInvalidIn(Json{{"model_sha256", record.model_sha256},
                              {"engine", record.spec},
                              {"engine_identity", record.identity},
                              {"settings", settings},
                              {"variation", run.variation},
                              {"n_prefill", sequence.n_prefill},
                              {"n_positions", sequence.tokens.size()},
                              {"tokens_sha256", Sha256Hex(std::as_bytes(tokens))}});
}

std::filesystem::path NoiseMeter::EntryPath(const drive::Sequence& sequence,
                                            const compare::NoiseRun& run) const {
  const std::string provenance = DumpJson(Provenance(sequence, run));
  return folder_ / fmt::format("{:.24}.json", Sha256Hex(provenance));
}

bool NoiseMeter::Load(const drive::Sequence& sequence, Watch watch, compare::NoiseRun* run) const {
  const std::optional<Json> entry = ReadCacheEntry(EntryPath(sequence, *run), kMaxEntryBytes);
  if (!entry || entry->value("provenance", Json()) != Provenance(sequence, *run)) return false;
  compare::NoiseRun read{run->seed, run->variation, {}, {}, {}};
  if (!ReadSeries(*entry, "kl", sequence.tokens.size(), &read.kl) ||
      !ReadSeries(*entry, "gap_change", sequence.tokens.size(), &read.gap_change) ||
      (watch != Watch::kNothing &&
       !ReadPoints(*entry, PointsKey(watch == Watch::kAll), sequence.prompt, &read.points)))
    return false;
  *run = std::move(read);
  return true;
}

void NoiseMeter::Store(const drive::Sequence& sequence, const compare::NoiseRun& measured,
                       Watch watch) const {
  Json entry = {{"schema", "paritybit.noise/0"},
                {"provenance", Provenance(sequence, measured)},
                {"kl", measured.kl},
                {"gap_change", measured.gap_change}};
  if (watch != Watch::kNothing) entry[PointsKey(watch == Watch::kAll)] = PointsJson(measured.points);
  WriteCacheEntry(EntryPath(sequence, measured), entry);
}

Result<compare::NoiseRun> NoiseMeter::Disturb(drive::Participant& engine, const drive::Sequence& sequence,
                                              const compare::NoiseRun& run,
                                              const Undisturbed& undisturbed) const {
  compare::NoiseRun measured{run.seed, run.variation, {}, {}, {}};
  auto add = [&](std::span<const float>, const compare::LogitsRow& compared) -> Status {
    if (!compared.finite)
      return MakeError(Code::kEngine, "logits of position {} are not finite", compared.position);
    measured.Add(compared);
    return {};
  };
  drive::Taps taps;
  if (undisturbed.points)
    taps = {undisturbed.points->tap(),
            [&](const host::Event& event) { return undisturbed.points->Measure(event, &measured.points); }};
  Status evaluated = drive::EvaluateAgainst(engine, WithVariation(session_, run.variation), sequence,
                                            undisturbed.rows, add, taps);
  if (!evaluated.ok()) return std::move(evaluated).error().In(run.variation);
  for (compare::PointNoise& point : measured.points) point.prompt = sequence.prompt;
  return measured;
}

size_t NoiseMeter::Workers(const drive::Sequence& sequence, size_t n_runs) const {
  constexpr size_t kWorthAnEngine = 128;  // positions; opening a model costs about as much
  constexpr size_t kMost = 4;
  const drive::EngineRecord& record = reference_.record();
  std::error_code error;
  uint64_t model_bytes = std::filesystem::file_size(record.model_path, error);
  const auto threads_each = static_cast<size_t>(host::FactNumber(record.session, "threads", 1));
  if (error || sequence.tokens.size() < kWorthAnEngine) return 1;
  uint64_t free_bytes =
      static_cast<uint64_t>(sysconf(_SC_AVPHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  size_t by_cores = static_cast<size_t>(ProcessorCount()) / threads_each;
  size_t by_memory = 1 + free_bytes / 2 / (2 * model_bytes + (256ull << 20));
  return std::clamp<size_t>(std::min({by_cores, by_memory, n_runs}), 1, kMost);
}

Status NoiseMeter::DisturbAll(const drive::Sequence& sequence, const std::vector<size_t>& missing,
                              const Undisturbed& undisturbed, Watch watch,
                              std::vector<compare::NoiseRun>* measured) {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  bool of_twin = false;  // the failure is that of another process of the same engine
  Status failure;
  auto work = [&](drive::Participant& engine, bool reports) {
    for (size_t i; (i = next++) < missing.size();) {
      if (reports && progress_)
        progress_("noise floor: runs of random rounding", static_cast<int64_t>(i),
                  static_cast<int64_t>(missing.size()));
      auto run = Disturb(engine, sequence, (*measured)[missing[i]], undisturbed);
      if (!run.ok()) {
        std::lock_guard lock(mutex);
        if (failure.ok()) {
          failure = std::move(run).error();
          of_twin = &engine != &reference_ && engine.failed();
        }
        next = missing.size();
        return;
      }
      Store(sequence, *run, undisturbed.points ? watch : Watch::kNothing);
      (*measured)[missing[i]] = std::move(run).value();
    }
  };
  // Memory that is missing in one thread ends the work of all, and then the command.
  std::exception_ptr no_memory;
  auto guarded = [&](auto&& body) {
    try {
      body();
    } catch (const std::bad_alloc&) {
      std::lock_guard lock(mutex);
      no_memory = std::current_exception();
      next = missing.size();
    }
  };
  // An engine belongs to the thread that starts it. One that does not start leaves its share to the
  // others.
  auto start_and_work = [&] {
    drive::EngineRecord record;
    const drive::EngineRecord& twin = reference_.record();
    record.role = twin.role;
    drive::Participant engine(record, reference_.limits());
    if (engine.Start({twin.spec, twin.plugin, twin.settings}).ok() && record.identity == twin.identity &&
        engine.OpenModel(twin.model_path).ok())
      work(engine, false);
  };
  std::vector<std::thread> helpers;
  try {
    for (size_t i = 1; i < Workers(sequence, missing.size()); ++i)
      helpers.emplace_back([&] { guarded(start_and_work); });
  } catch (const std::system_error&) {  // those that there are do the work
  }
  guarded([&] { work(reference_, true); });
  for (std::thread& helper : helpers) helper.join();
  if (no_memory) std::rethrow_exception(no_memory);
  return of_twin ? reference_.Noted(std::move(failure)) : failure;
}

// The tensors of an undisturbed run. None where watching changes the engine's logits: its runs are
// then not watched at all, so that its floor is that of the engine as it is judged.
Result<std::optional<PointStore>> NoiseMeter::WatchUndisturbed(const drive::Sequence& sequence,
                                                               const drive::RowStore& rows, Watch watch) {
  static constexpr int32_t kLayerOut = PB_STAGE_LAYER_OUT;
  const std::span<const int32_t> layers(&kLayerOut, 1);
  PB_TRY(reference_.OpenSession(session_, false));
  PB_ASSIGN(PointStore store,
            PointStore::Create(reference_, watch == Watch::kLayers ? layers : std::span<const int32_t>(),
                               sequence.n_prefill, static_cast<int64_t>(sequence.tokens.size())));
  const drive::Taps taps{store.tap(), [&](const host::Event& event) { return store.Keep(event); }};
  PB_ASSIGN(const drive::RowStore watched, drive::EvaluateAll(reference_, session_, sequence, taps));
  for (int64_t r = 0; r < rows.n_rows(); ++r)
    if (std::memcmp(watched.Row(r).data(), rows.Row(r).data(), rows.Row(r).size_bytes()) != 0)
      return std::optional<PointStore>();
  return std::optional(std::move(store));
}

Status NoiseMeter::MeasureMissing(const drive::Sequence& sequence, const std::vector<size_t>& missing,
                                  const drive::RowStore* rows, Watch watch,
                                  std::vector<compare::NoiseRun>* measured) {
  std::optional<drive::RowStore> own;
  if (!rows) {
    PB_ASSIGN(drive::RowStore store, drive::EvaluateAll(reference_, session_, sequence));
    rows = &own.emplace(std::move(store));
  }
  Undisturbed undisturbed;
  if (watch != Watch::kNothing) {
    PB_ASSIGN(undisturbed.points, WatchUndisturbed(sequence, *rows, watch));
    with_points_ = undisturbed.points.has_value();
  }
  for (int64_t r = 0; r < rows->n_rows(); ++r) undisturbed.rows.emplace_back(rows->Row(r));
  return DisturbAll(sequence, missing, undisturbed, watch, measured);
}

Status NoiseMeter::MeasureRuns(const drive::Sequence& sequence, const drive::RowStore* undisturbed,
                               Watch watch, std::vector<compare::NoiseRun>* runs) {
  std::vector<compare::NoiseRun> measured(runs->size());
  std::vector<size_t> missing;
  for (size_t i = 0; i < runs->size(); ++i) {
    measured[i].seed = (*runs)[i].seed, measured[i].variation = (*runs)[i].variation;
    if (Load(sequence, watch, &measured[i]))
      ++n_cached_;
    else
      missing.push_back(i);
  }
  n_measured_ += static_cast<int32_t>(missing.size());
  if (!missing.empty()) PB_TRY(MeasureMissing(sequence, missing, undisturbed, watch, &measured));
  for (size_t i = 0; i < runs->size(); ++i) {
    auto append = [&](auto member) {
      auto &all = (*runs)[i].*member, &more = measured[i].*member;
      all.insert(all.end(), more.begin(), more.end());
    };
    append(&compare::NoiseRun::kl), append(&compare::NoiseRun::gap_change),
        append(&compare::NoiseRun::points);
  }
  return {};
}

Status NoiseMeter::Measure(const drive::Sequence& sequence, const drive::RowStore* undisturbed) {
  const bool calibration = sequence.prompt == compare::kCalibration;
  PB_TRY(MeasureRuns(sequence, undisturbed, with_points_ && !calibration ? Watch::kLayers : Watch::kNothing,
                     &runs_));
  return calibration ? Status() : MeasureRuns(sequence, undisturbed, Watch::kNothing, &further_);
}

std::vector<std::vector<double>> NoiseMeter::PromptKl() const {
  std::vector<std::vector<double>> all;
  for (const compare::NoiseRun& run : runs_)
    all.emplace_back(run.kl.begin(), run.kl.end() - static_cast<ptrdiff_t>(n_calibration_));
  for (const compare::NoiseRun& run : further_) all.push_back(run.kl);
  return all;
}

Status NoiseMeter::Calibrate(std::string_view text) {
  PB_ASSIGN(const std::vector<drive::Sequence> sequences, drive::CalibrationSequences(reference_, text));
  calibration_ = "calibration.txt " + Sha256Hex(text);
  for (const drive::Sequence& sequence : sequences) {
    PB_TRY(Measure(sequence, nullptr));
    n_calibration_ += static_cast<int64_t>(sequence.tokens.size());
  }
  return with_points_ && !sequences.empty() ? CalibratePoints(sequences.front().tokens) : Status();
}

// Apart from the floor of the logits, whose limits these runs do not move.
Status NoiseMeter::CalibratePoints(std::span<const int32_t> ids) {
  constexpr size_t kTokens = 80;
  ids = ids.first(std::min(ids.size(), kTokens));
  const drive::Sequence sequence{
      {ids.begin(), ids.end()}, static_cast<int32_t>((ids.size() * 4 + 4) / 5), compare::kCalibration};
  std::vector<compare::NoiseRun> runs;
  for (const compare::NoiseRun& run : runs_) runs.push_back({run.seed, run.variation, {}, {}, {}});
  PB_TRY(MeasureRuns(sequence, nullptr, Watch::kAll, &runs));
  for (size_t i = 0; i < runs.size(); ++i)
    runs_[i].points.insert(runs_[i].points.end(), runs[i].points.begin(), runs[i].points.end());
  return {};
}

compare::NoiseFloor NoiseMeter::Floor() const {
  const drive::EngineRecord& record = reference_.record();
  compare::NoiseFloor floor;
  floor.method = random_rounding_ ? compare::NoiseFloor::Method::kRandomRounding
                                  : compare::NoiseFloor::Method::kVariations;
  floor.engine = record.spec;
  const trace::EngineFacts engine = record.engine_facts();
  if (!engine.version.empty()) floor.engine += " " + engine.version;
  floor.isa = engine.isa;
  floor.threads = threads_.empty() ? record.session_facts().threads : threads_;
  floor.engine_digest = record.identity;
  floor.model_sha256 = record.model_sha256;
  floor.calibration = calibration_;
  floor.n_calibration_positions = n_calibration_;
  floor.runs = runs_;
  return floor;
}

}  // namespace pb::noise
