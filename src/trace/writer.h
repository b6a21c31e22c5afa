// Writes a trace as it comes: crash-safe, in bounded memory.
#ifndef PARITYBIT_TRACE_WRITER_H_
#define PARITYBIT_TRACE_WRITER_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/safetensors.h"
#include "trace/measure.h"
#include "trace/record.h"
#include "trace/sketch.h"

namespace pb::trace {

// A tensor to record. shape[0] are token rows; values stand row-major.
struct Point {
  int32_t stage = PB_STAGE_UNMAPPED;  // pb_stage
  std::string_view native_name;       // names the point where the stage is unmapped
  int32_t layer = -1;
  int32_t first_position = 0;
  std::string_view dtype = "F32";
};

// One trace folder. Whatever cuts the process off, what was appended before is readable but for a
// large tensor that is just being measured, and the manifest says "incomplete" until Finish. Holds
// one tensor at most, measured and written by a thread of its own while the engine goes on: memory
// does not grow with the model. Not for use from several threads.
class Writer {
 public:
  // Makes the folder (and its parents). One that holds a trace already is kUsage: traces are never
  // mixed. `manifest` gives level, per_row, engine, model, prompt and settings; the rest is filled
  // in here.
  static Result<std::unique_ptr<Writer>> Create(const std::filesystem::path& folder, Manifest manifest);
  ~Writer();

  // Opens the next step: an evaluation of these tokens from first_position on. The first is the
  // prompt.
  Status BeginStep(int32_t first_position, std::span<const int32_t> tokens);
  // Told of every record as it is written, by the thread that writes it; set before the first step.
  void OnRecord(std::function<void(const Record&)> told) { told_ = std::move(told); }
  // Records one tensor of the step. What goes wrong with a large one is told by the next call.
  Status Append(const Point& point, std::span<const int64_t> shape, std::span<const float> values);
  // States that the trace is whole. Digests of all logits rows (Manifest), empty where not known.
  Status Finish(std::string logits_blake3, std::string logits_blake3_untapped);
  // States why it is not. The trace stays incomplete.
  Status Abandon(std::string reason);

  const Manifest& manifest() const { return manifest_; }

 private:
  Writer(std::filesystem::path folder, Manifest manifest);
  Status WriteManifest();
  Status WriteLine(std::string line);
  Status Settle();
  Record Name(const Point& point, std::span<const int64_t> shape) const;
  void Describe(std::span<const float> values, Record* record);
  Status Write(Record record, std::span<const float> values);
  Status WritePayload(std::span<const float> values, Record* record);

  std::filesystem::path folder_;
  Manifest manifest_;
  Sketcher sketcher_;
  std::function<void(const Record&)> told_;  // may be empty
  int fd_ = -1;                              // records.jsonl
  int32_t seq_ = -1, step_position_ = 0;
  std::optional<SafetensorsWriter> shard_;
  std::string shard_name_;
  int32_t n_shards_ = 0, n_in_shard_ = 0;
  std::vector<float> held_;      // the tensor that pending_ measures
  std::future<Status> pending_;  // last: its thread uses the members above
};

}  // namespace pb::trace

#endif  // PARITYBIT_TRACE_WRITER_H_
