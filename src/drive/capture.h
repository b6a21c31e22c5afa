// Records an engine's tracepoints as they come: an evaluation's events in, trace records out. Holds
// no tensor.
#ifndef PARITYBIT_DRIVE_CAPTURE_H_
#define PARITYBIT_DRIVE_CAPTURE_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/blake3.h"
#include "drive/participant.h"
#include "drive/progress.h"
#include "trace/filter.h"
#include "trace/writer.h"

namespace pb::drive {

// What a manifest says of an engine with its model and session open: names, facts, model. The
// caller adds level, per_row, prompt and filter.
Result<trace::Manifest> DescribeTrace(Participant& engine);

// Writes the points of one sequence, step by step. The writer, and the filter, outlive it. The
// logits are recorded as the engine delivers them, in blocks of rows, so that no tensor of all rows
// is needed; their tap is not asked for.
class TraceCapture {
 public:
  TraceCapture(trace::Writer& writer, const trace::PointFilter& filter) : writer_(writer), filter_(filter) {}

  // Opens a step: tokens at first_position, evaluated in one call or several. Step 0 is the
  // prefill.
  Status BeginStep(int32_t first_position, std::span<const int32_t> tokens);
  // What an evaluation of the step has to show.
  host::TapFilter Tap(const host::Engine& engine) const;
  // Records a point or a block of logits, as far as the filter wants it.
  Status OnEvent(const host::Event& event);
  // blake3 of all logits rows so far, f32 little-endian.
  std::string LogitsDigest() const { return ToHex(logits_.Finish()); }

 private:
  Status AppendRows(const trace::Point& point, const host::TensorRef& tensor);

  trace::Writer& writer_;
  const trace::PointFilter& filter_;
  int32_t step_ = -1;
  Blake3 logits_;
};

struct TraceRequest {
  std::vector<int32_t> tokens;  // of the prompt, and of decode steps that are known already
  int32_t n_prefill = 0;        // tokens evaluated at once, then one by one; 0: all
  int32_t max_tokens = 0;       // greedy decode steps after them
  Progress progress;            // may be empty
};

struct TraceSummary {
  std::string logits_blake3, logits_blake3_untapped;
  double seconds = 0, seconds_untapped = 0;
};

// Evaluates the request twice in an open session: without taps, which also chooses the greedy
// tokens, then with `capture`'s points recorded, and finishes the trace. What goes wrong is written
// into the trace as the reason that it is incomplete.
Result<TraceSummary> RecordTrace(Participant& engine, const TraceRequest& request, trace::Writer& writer,
                                 const trace::PointFilter& filter);

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_CAPTURE_H_
