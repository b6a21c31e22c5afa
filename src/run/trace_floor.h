// The noise floor of a recorded engine: the one that was kept beside its trace, else measured anew
// with the engine itself.
#ifndef PARITYBIT_RUN_TRACE_FLOOR_H_
#define PARITYBIT_RUN_TRACE_FLOOR_H_

#include <string>

#include "compare/noise_floor.h"
#include "drive/engine_spec.h"
#include "host/engine.h"
#include "run/request.h"
#include "trace/reader.h"

namespace pb::run {

struct TraceFloorRequest {
  // by the name that the trace gives it; its settings are those of the trace
  drive::EngineSpec engine;
  host::Limits limits;
  std::string calibration;
  drive::Progress progress;  // may be empty
};

// Whether a floor lies beside the trace.
bool HasKeptFloor(const trace::Trace& trace);
// The floor over the first n_tokens tokens of a trace. An error says why there is none, kNotFound
// where the engine that computed the trace, or its model file, is not here.
Result<compare::NoiseFloor> FloorOfTrace(const trace::Trace& trace, int64_t n_tokens,
                                         const TraceFloorRequest& request);

}  // namespace pb::run

#endif  // PARITYBIT_RUN_TRACE_FLOOR_H_
