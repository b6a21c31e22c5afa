// What a trace holds: a manifest, and one record a tracepoint. docs/format_trace.md is the grammar.
#ifndef PARITYBIT_TRACE_RECORD_H_
#define PARITYBIT_TRACE_RECORD_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "abi/vocabulary.h"
#include "base/result.h"
#include "trace/facts.h"
#include "trace/measure.h"
#include "trace/sketch.h"

namespace pb::trace {

inline constexpr std::string_view kSchema = "paritybit.trace/0";
inline constexpr std::string_view kManifestFile = "manifest.json", kRecordsFile = "records.jsonl";

// What records say of a tensor; each level holds the ones before.
enum class Level { kDigest, kSketch, kFull };
const char* LevelName(Level level);  // "digest" "sketch" "full"
Result<Level> ParseLevel(std::string_view name);

struct Manifest {
  Level level = Level::kSketch;
  bool per_row = false;   // records have row_blake3 and, from level sketch on, row_sketch
  bool complete = false;  // false: the writer was cut, or gave up for `reason`
  std::string reason;
  std::string engine;  // "native", as named by the user
  Facts engine_facts, model_facts, session_facts;
  // Stages that the engine computes inside another op, with its reason: they have no records.
  std::vector<std::pair<std::string, std::string>> unobservable;
  std::string model_path, model_sha256;
  std::string prompt;
  std::vector<int32_t> tokens;  // every id evaluated, prompt first
  int32_t n_prompt = 0;
  uint64_t sketch_seed = kSketchSeed;
  int64_t n_records = 0;
  std::string filter;  // what was asked for (PointFilter::text); empty: every point
  // All logits rows in order of position, f32 little-endian: of the traced run, and of one without
  // taps. Empty: not known.
  std::string logits_blake3, logits_blake3_untapped;
};

// One evaluation: tokens from first_position on.
struct Step {
  int32_t seq = 0, first_position = 0;
  std::vector<int32_t> tokens;
};

// One tracepoint of one step. Documented fields keep their meaning: name shape dtype blake3 rms
// num_elements seq layer stage.
struct Record {
  std::string name;            // "t0/blk3/q_proj", "t0/logits"
  std::vector<int64_t> shape;  // rows (tokens) first
  std::string dtype = "F32";   // of the engine's tensor, before conversion to f32
  std::string blake3;
  double rms = 0;
  int64_t num_elements = 0;
  int32_t seq = 0, layer = -1;
  std::string stage;                     // name in the vocabulary, or the engine's own
  int32_t stage_id = PB_STAGE_UNMAPPED;  // of `stage`
  int32_t first_position = -1;           // of row 0; -1: not known (documented traces)
  std::vector<float> row_rms;            // empty: not known
  int64_t n_nan = 0, n_positive_inf = 0, n_negative_inf = 0;
  std::optional<Sketch> sketch;
  std::vector<TopTokens> row_top;  // of logits; empty: not known
  std::vector<std::string> row_blake3;
  std::vector<Sketch> row_sketch;
  std::string payload_file;     // beside the manifest; empty: no payload
  uint64_t payload_offset = 0;  // of the values in that file
  std::string where;            // "records.jsonl, byte 1234": for messages

  int64_t n_rows() const { return shape.empty() ? 0 : shape[0]; }
};

// "t0/blk3/q_proj"; a tensor that does not begin where its step begins ends in "@POSITION".
std::string PointName(int32_t seq, int32_t layer, std::string_view stage, int32_t first_position,
                      int32_t step_position);

// JSON of records.jsonl, without the newline, and of manifest.json. Parsing checks every type and
// length; errors say which field; the caller adds where.
std::string ToJson(const Record& record);
std::string ToJson(const Step& step);
std::string ToJson(const Manifest& manifest);
// A line: a step (no "name") or a record.
struct Line {
  std::optional<Step> step;
  std::optional<Record> record;
};
Result<Line> ParseLine(std::string_view json);
Result<Manifest> ParseManifest(std::string_view json);
// The documented system's record: seq, layer and stage may be absent and are then taken from the
// name, where it has them.
Result<Record> ParseDocumentedRecord(std::string_view json);

}  // namespace pb::trace

#endif  // PARITYBIT_TRACE_RECORD_H_
