// Whose noise floor a comparison is judged by: the reference's, measured or brought along by a
// recording, else the candidate's.
#ifndef PARITYBIT_NOISE_FLOOR_H_
#define PARITYBIT_NOISE_FLOOR_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "compare/noise_floor.h"
#include "drive/participant.h"
#include "noise/floor_record.h"
#include "noise/meter.h"

namespace pb::noise {

// What floor a comparison asks for.
struct FloorRequest {
  // ops are judged by their own errors, so the noise at tracepoints is measured too
  bool local = true;
  int32_t n_runs = 8;  // 0: no floor is measured
  // further runs over the prompts, enough to rank the candidate among
  std::optional<double> confidence;
  // Where measuring it is much work: no more of it than shows that all is within its limits.
  bool sparing = false;
  std::string calibration;   // text whose tokens join the floor
  drive::Progress progress;  // may be empty
  // With how many threads noise is measured, where that is not the comparison's own; empty: it is.
  // Rounding does not depend on them, and what was measured with the others serves then.
  std::string threads = "";
};

// The folder of the trace that an engine replays; empty: it computes by itself.
std::filesystem::path ReplayedFolder(const drive::EngineRecord& engine);

// A reference is measured by random rounding, or by what it can vary. A recording can do neither:
// its floor is the one that was kept beside it. Where there is none and every op is judged by its
// own error, the candidate's own floor limits the logits, and the verdict says that this is weaker;
// an engine judged by its logits alone never sets its own limits.
class FloorSource {
 public:
  // Engines and settings outlive this.
  FloorSource(drive::Participant& candidate, drive::Participant& reference,
              const host::Settings (&session)[2], FloorRequest request);

  // Whether all that was compared is within the limits of a floor.
  using IsWithin = std::function<bool(const compare::NoiseFloor&)>;

  // Adds a sequence that was compared; `reference_rows` are the reference's over it. The engine's
  // session is another one afterwards.
  Status Add(const drive::Sequence& sequence, const drive::RowStore* reference_rows);
  // Adds the calibration text, after all sequences. Where the floor was asked for sparingly it
  // stays a part of itself if that is enough for `is_within`, and else is measured whole.
  Status Calibrate(const IsWithin& is_within = nullptr);
  // There is to be no floor: Add and Calibrate do nothing from here on.
  void GiveUp(std::string why) {
    decided_ = true, meter_.reset(), recorded_.reset(), why_none_ = std::move(why);
  }

  // The floor, and what the report says of it. None: why_none() says why.
  std::optional<compare::NoiseFloor> Take(FloorRecord* record) const;
  const std::string& why_none() const { return why_none_; }
  // The reference's own runs over the prompts, n_rows in all: KL by position. Empty, and why: there
  // are none of it.
  std::vector<std::vector<double>> NoiseRuns(int64_t n_rows, std::string* why) const;

 private:
  void Decide();
  bool CandidateMayServe() const;
  bool MaySpare() const;
  void OpenMeter(bool whole);

  drive::Participant* sides_[2];
  const host::Settings* session_[2];
  FloorRequest request_;
  bool decided_ = false;
  int side_ = 1;
  std::string caveat_, why_none_;
  std::filesystem::path file_;  // of a recorded floor
  std::optional<compare::NoiseFloor> recorded_;
  std::optional<NoiseMeter> meter_;
  bool partial_ = false;                    // it measures less than was asked for
  std::vector<drive::Sequence> sequences_;  // of a partial floor
  int32_t n_measured_before_ = 0;           // runs, when it was partial
};

}  // namespace pb::noise

#endif  // PARITYBIT_NOISE_FLOOR_H_
