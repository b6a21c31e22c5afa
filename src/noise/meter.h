// Measures a reference's noise floor: how far its own logits move under random rounding, sequence
// by sequence, each finished run kept in the cache with its provenance so that an interrupted
// measurement resumes and a repeated one costs nothing.
#ifndef PARITYBIT_NOISE_METER_H_
#define PARITYBIT_NOISE_METER_H_

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "compare/noise_floor.h"
#include "drive/progress.h"
#include "drive/sequence.h"
#include "noise/point_store.h"

namespace pb::noise {

class NoiseMeter {
 public:
  // n_runs make the floor; the runs from there to n_ranked are of the prompts alone and set no
  // limit. `session` are the overrides that every session of the comparison gets. `with_points`:
  // the noise at tracepoints is measured as well, where the engine shows its points and rounds at
  // random.
  NoiseMeter(drive::Participant& reference, host::Settings session, int32_t n_runs, int64_t n_ranked,
             bool with_points, std::filesystem::path cache, drive::Progress progress,
             std::string threads = "");

  // Adds a sequence to every run of the floor. The reference's session is another one afterwards.
  // `undisturbed` holds the sequence's rows, or is null: they are evaluated only if a run is
  // missing in the cache.
  Status Measure(const drive::Sequence& sequence, const drive::RowStore* undisturbed);
  // Adds CalibrationSequences of a text; and the noise at every point over 64 of its tokens at once
  // and 16 more one by one.
  Status Calibrate(std::string_view text);

  // What was measured, with its provenance.
  compare::NoiseFloor Floor() const;
  // KL of every run over the prompts alone, in order of the calls of Measure; those asked for with
  // Rank come last.
  std::vector<std::vector<double>> PromptKl() const;
  const std::vector<compare::NoiseRun>& runs() const { return runs_; }
  bool random_rounding() const { return random_rounding_; }
  // Runs taken from the cache and runs measured now, each summed over sequences.
  int32_t n_cached() const { return n_cached_; }
  int32_t n_measured() const { return n_measured_; }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  // Which points of the runs are measured: those of prompts at the layers' outputs, to stand beside
  // the candidate's errors there; all of them, which takes as long again as the runs do, over a
  // part of the calibration text.
  enum class Watch { kNothing, kLayers, kAll };
  // What disturbed runs are compared with.
  struct Undisturbed {
    std::vector<compare::ReferenceRow> rows;
    std::optional<PointStore> points;
  };

  std::filesystem::path EntryPath(const drive::Sequence& sequence, const compare::NoiseRun& run) const;
  nlohmann::json Provenance(const drive::Sequence& sequence, const compare::NoiseRun& run) const;
  // Fills in the run, which holds its seed. False: the cache does not have it.
  bool Load(const drive::Sequence& sequence, Watch watch, compare::NoiseRun* run) const;
  void Store(const drive::Sequence& sequence, const compare::NoiseRun& measured, Watch watch) const;
  Result<compare::NoiseRun> Disturb(drive::Participant& engine, const drive::Sequence& sequence,
                                    const compare::NoiseRun& run, const Undisturbed& undisturbed) const;
  Result<std::optional<PointStore>> WatchUndisturbed(const drive::Sequence& sequence,
                                                     const drive::RowStore& rows, Watch watch);
  // Adds a sequence to `runs`.
  Status MeasureRuns(const drive::Sequence& sequence, const drive::RowStore* undisturbed, Watch watch,
                     std::vector<compare::NoiseRun>* runs);
  // Measures and stores those runs of `measured`, which hold their seeds, that are `missing`.
  Status MeasureMissing(const drive::Sequence& sequence, const std::vector<size_t>& missing,
                        const drive::RowStore* undisturbed, Watch watch,
                        std::vector<compare::NoiseRun>* measured);
  Status DisturbAll(const drive::Sequence& sequence, const std::vector<size_t>& missing,
                    const Undisturbed& undisturbed, Watch watch, std::vector<compare::NoiseRun>* measured);
  Status CalibratePoints(std::span<const int32_t> ids);
  // How many engines may run side by side.
  size_t Workers(const drive::Sequence& sequence, size_t n_runs) const;

  drive::Participant& reference_;
  host::Settings session_;
  std::string threads_;  // of the noise, where they are not the session's
  std::filesystem::path folder_;
  drive::Progress progress_;
  bool random_rounding_, with_points_;
  std::vector<compare::NoiseRun> runs_;
  std::vector<compare::NoiseRun> further_;  // of the prompts alone
  int32_t n_cached_ = 0, n_measured_ = 0;
  int64_t n_calibration_ = 0;
  std::string calibration_;  // what was read, and its digest
};

}  // namespace pb::noise

#endif  // PARITYBIT_NOISE_METER_H_
