// How far an engine lies from itself along its natural axes: the same again, in another session or
// process, with other threads, batches and CPU libraries, and fed its prompt token by token.
// Information, or, where the engine promises equal bits, a check of that promise.
#ifndef PARITYBIT_NOISE_AXES_H_
#define PARITYBIT_NOISE_AXES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compare/noise_floor.h"
#include "compare/types.h"
#include "drive/sequence.h"

namespace pb::noise {

inline constexpr const char* kRepeatAxis = "repeat";

// One variation against the engine as it is measured, over all positions of all sequences.
struct AxisRow {
  std::string axis;   // "repeat" "threads" "ubatch" "feed" "cpu.library"
  std::string value;  // "new session" "new process" "2" "one by one" "haswell"
  bool promised = false;
  std::string refused;                   // why the engine does not offer it; empty: it was run
  std::vector<compare::LogitsRow> rows;  // in order of sequences, then positions
  int64_t n_equal = 0;                   // rows with equal bits
  std::optional<size_t> first_other;     // the first of `rows` with other bits
  double mean_kl = 0, worst_kl = 0;      // nats; NaN or infinite where logits are
  double rel_l2 = 0;                     // of a position, the largest
  int64_t n_flips = 0;                   // positions whose top-1 differs
  // Whether crossval would find it within the limits of the noise floor. None: there is no floor
  // that could tell.
  std::optional<bool> inside;
  std::string why;  // why it is not, where that was seen; may be empty
};

// A sequence and what the engine made of it.
struct Evaluated {
  drive::Sequence sequence;
  drive::RowStore rows;
};

// Which variations an engine is asked for: the session that is open in `record` tells what it runs
// with already. Values that change nothing for sequences of at most `longest` tokens are left out.
std::vector<AxisRow> PlanAxes(const drive::EngineRecord& record, int64_t longest);

// Runs a planned row and compares it. `engine` has its model open; a row of another process or CPU
// library starts one of its own, whose failure is noted in `engine_failed` (else the engine's own
// record has it). An Error is the engine's failure; what it does not offer is in row->refused. A row
// beyond the limits is handed to `explain` with the engine as it was varied, which may set row->why.
using ExplainAxis = std::function<void(drive::Participant&, const host::Settings&, AxisRow*)>;
Status RunAxis(drive::Participant& engine, const drive::EngineSpec& spec, const host::Settings& session,
               const std::vector<Evaluated>& undisturbed, const compare::NoiseFloor* floor, AxisRow* row,
               drive::EngineRecord* engine_failed, const ExplainAxis& explain);

}  // namespace pb::noise

#endif  // PARITYBIT_NOISE_AXES_H_
