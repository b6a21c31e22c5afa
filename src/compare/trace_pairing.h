// Lines the points of two traces up: by stage, layer and position, so that the rows of a prefill
// meet those of decode steps.
#ifndef PARITYBIT_COMPARE_TRACE_PAIRING_H_
#define PARITYBIT_COMPARE_TRACE_PAIRING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "trace/filter.h"
#include "trace/reader.h"

namespace pb::compare {

// Records of both sides that cover the same rows, as few as line up.
struct TraceSpan {
  const trace::Record* first = nullptr;          // of the reference: names the point
  std::vector<const trace::Record*> records[2];  // candidate, reference; by position
  int32_t first_position = 0;                    // of the rows that both have
  int64_t n_rows = 0;
  bool whole = true;   // every record lies within those rows
  bool placed = true;  // positions are known; else one record each, paired by step
};

// A record that shares no row with the other side.
struct TraceGap {
  int side = 0;  // that lacks it: 0 candidate, 1 reference
  const trace::Record* record = nullptr;
};

struct TracePairing {
  std::vector<TraceSpan> spans;  // layer by layer in dependency order, whatever the step
  std::vector<TraceGap> gaps;
  std::vector<std::string> repeated;  // points that one trace holds twice
  std::vector<std::string> outside;   // records whose rows are not among the tokens
};

// Records that end beyond `n_positions` are left out.
TracePairing PairTraces(const trace::Trace& candidate, const trace::Trace& reference,
                        const trace::PointFilter& filter, int64_t n_positions = INT64_MAX);

// Rank of a record's stage: outer stages around the layers, then dependency level; unknown stages
// last in their layer.
bool StageComesBefore(const trace::Record& a, const trace::Record& b);

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_TRACE_PAIRING_H_
