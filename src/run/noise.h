// Measures a reference's noise floor: how far its own logits move under random rounding, sequence by
// sequence, each finished run kept in the cache with its provenance so that an interrupted measurement
// resumes and a repeated one costs nothing.
#ifndef PARITYBIT_RUN_NOISE_H_
#define PARITYBIT_RUN_NOISE_H_

#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "compare/logits.h"
#include "compare/noise_floor.h"
#include "run/participant.h"
#include "run/point_store.h"
#include "run/request.h"
#include "run/row_store.h"

namespace pb::run {

// A sequence of tokens as the reference evaluates it: prefill of the first n_prefill, then one step for each
// of the rest.
struct Sequence {
  std::vector<int32_t> tokens;
  int32_t n_prefill = 0;
  int32_t prompt = compare::kCalibration;  // whose tokens they are
};

// Evaluates a sequence from an empty session; a row for every position.
Status EvaluateSequence(Participant& engine, const Sequence& sequence, const RowFn& on_row,
                        const Taps& taps = {});

// The same with a session of its own, all rows kept. kEngine when rows are missing, out of turn or of unequal
// length.
Result<RowStore> EvaluateAll(Participant& engine, const host::Settings& session, const Sequence& sequence,
                             const Taps& taps = {});
// Goes on from there with n_steps greedy tokens, which are appended to the sequence; with fewer where nothing finite is left to
// choose from.
Result<RowStore> EvaluateGreedily(Participant& engine, const host::Settings& session, int32_t n_steps,
                                  Sequence* sequence);

// Evaluates a sequence in a session of its own and hands on every row with its comparison against the one of `undisturbed` at its
// position. kEngine when rows are missing or out of turn.
using ComparedFn = std::function<Status(std::span<const float> row, compare::LogitsRow compared)>;
Status EvaluateAgainst(Participant& engine, const host::Settings& session, const Sequence& sequence,
                       std::span<const compare::ReferenceRow> undisturbed, const ComparedFn& on_row,
                       const Taps& taps = {});

// The first 400 tokens of a text, in sequences no longer than the model was trained for.
Result<std::vector<Sequence>> CalibrationSequences(Participant& engine, std::string_view text);

class NoiseMeter {
 public:
  // n_runs make the floor; the runs from there to n_ranked are of the prompts alone and set no limit.
  // `session` are the overrides that every session of the comparison gets. `with_points`: the noise at tracepoints is
  // measured as well, where the engine shows its points and rounds at random.
  NoiseMeter(Participant& reference, host::Settings session, int32_t n_runs, int64_t n_ranked,
             bool with_points, std::filesystem::path cache, Progress progress);

  // Adds a sequence to every run of the floor. The reference's session is another one afterwards.
  // `undisturbed` holds the sequence's rows, or is null: they are evaluated only if a run is missing in the
  // cache.
  Status Measure(const Sequence& sequence, const RowStore* undisturbed);
  // Adds CalibrationSequences of a text; and the noise at every point over 64 of its tokens at once and 16 more one by one.
  Status Calibrate(std::string_view text);

  // What was measured, with its provenance.
  compare::NoiseFloor Floor() const;
  // KL of every run over the prompts alone, in order of the calls of Measure; those asked for with Rank come last.
  std::vector<std::vector<double>> PromptKl() const;
  const std::vector<compare::NoiseRun>& runs() const { return runs_; }
  bool random_rounding() const { return random_rounding_; }
  // Runs taken from the cache and runs measured now, each summed over sequences.
  int32_t n_cached() const { return n_cached_; }
  int32_t n_measured() const { return n_measured_; }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  // Which points of the runs are measured: those of prompts at the layers' outputs, to stand beside the candidate's errors there;
  // all of them, which takes as long again as the runs do, over a part of the calibration text.
  enum class Watch { kNothing, kLayers, kAll };
  // What disturbed runs are compared with.
  struct Undisturbed {
    std::vector<compare::ReferenceRow> rows;
    std::optional<PointStore> points;
  };

  std::filesystem::path EntryPath(const Sequence& sequence, const compare::NoiseRun& run) const;
  nlohmann::json Provenance(const Sequence& sequence, const compare::NoiseRun& run) const;
  // Fills in the run, which holds its seed. False: the cache does not have it.
  bool Load(const Sequence& sequence, Watch watch, compare::NoiseRun* run) const;
  void Store(const Sequence& sequence, const compare::NoiseRun& measured, Watch watch) const;
  Result<compare::NoiseRun> Disturb(Participant& engine, const Sequence& sequence,
                                    const compare::NoiseRun& run, const Undisturbed& undisturbed) const;
  Result<std::optional<PointStore>> WatchUndisturbed(const Sequence& sequence, const RowStore& rows,
                                                     Watch watch);
  // Adds a sequence to `runs`.
  Status MeasureRuns(const Sequence& sequence, const RowStore* undisturbed, Watch watch,
                     std::vector<compare::NoiseRun>* runs);
  // Measures and stores those runs of `measured`, which hold their seeds, that are `missing`.
  Status MeasureMissing(const Sequence& sequence, const std::vector<size_t>& missing,
                        const RowStore* undisturbed, Watch watch, std::vector<compare::NoiseRun>* measured);
  Status DisturbAll(const Sequence& sequence, const std::vector<size_t>& missing,
                    const Undisturbed& undisturbed, Watch watch, std::vector<compare::NoiseRun>* measured);
  Status CalibratePoints(std::span<const int32_t> ids);
  // How many engines may run side by side.
  size_t Workers(const Sequence& sequence, size_t n_runs) const;

  Participant& reference_;
  host::Settings session_;
  std::filesystem::path folder_;
  Progress progress_;
  bool random_rounding_, with_points_;
  std::vector<compare::NoiseRun> runs_;
  std::vector<compare::NoiseRun> further_;  // of the prompts alone
  int32_t n_cached_ = 0, n_measured_ = 0;
  int64_t n_calibration_ = 0;
  std::string calibration_;  // what was read, and its digest
};

}  // namespace pb::run

#endif  // PARITYBIT_RUN_NOISE_H_
