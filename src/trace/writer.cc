// Appends records and payloads in order, and closes a trace as whole or abandoned.
#include "trace/writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/blake3.h"
#include "base/file.h"
#include "base/system_error.h"

namespace pb::trace {
namespace {

// A shard's header is written again after every tensor, so that the file is whole at any time;
// these keep that cheap.
constexpr int32_t kTensorsPerShard = 256;
constexpr uint64_t kShardHeaderBytes = 160 << 10;
constexpr uint64_t kShardBytes = uint64_t{1} << 30;
// Values of a tensor that takes longer to measure than a thread takes to start.
constexpr size_t kLarge = 16384;

bool HoldsTrace(const std::filesystem::path& folder) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    auto name = it->path().filename();
    auto extension = name.extension();
    if (name == kManifestFile || extension == ".jsonl" || extension == ".trace") return true;
  }
  return false;
}

}  // namespace

Writer::Writer(std::filesystem::path folder, Manifest manifest)
    : folder_(std::move(folder)), manifest_(std::move(manifest)), sketcher_(manifest_.sketch_seed) {}

Writer::~Writer() {
  if (pending_.valid()) pending_.wait();
  if (fd_ >= 0) ::close(fd_);
}

Result<std::unique_ptr<Writer>> Writer::Create(const std::filesystem::path& folder, Manifest manifest) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return MakeError(Code::kIo, "{}: cannot make the folder: {}", folder.string(), error.message());
  if (HoldsTrace(folder)) {
    return MakeError(Code::kUsage, "{}: holds a trace already; name another folder or remove it",
                     folder.string());
  }
  manifest.complete = false;
  manifest.reason.clear();
  manifest.n_records = 0;
  manifest.tokens.clear();
  std::unique_ptr<Writer> writer(new Writer(folder, std::move(manifest)));
  PB_TRY(writer->WriteManifest());
  auto path = folder / kRecordsFile;
  writer->fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
  if (writer->fd_ < 0) return MakeError(Code::kIo, "{}: cannot create: {}", path.string(), ErrnoText(errno));
  return writer;
}

Status Writer::WriteManifest() { return WriteFileAtomic(folder_ / kManifestFile, ToJson(manifest_)); }

// One write a line, straight to the file: a process that is killed loses no line that was written.
Status Writer::WriteLine(std::string line) {
  line += '\n';
  std::string_view rest = line;
  while (!rest.empty()) {
    ssize_t n = ::write(fd_, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return MakeError(Code::kIo, "{}: cannot write: {}", (folder_ / kRecordsFile).string(),
                       ErrnoText(errno));
    }
    rest.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

Status Writer::BeginStep(int32_t first_position, std::span<const int32_t> tokens) {
  PB_TRY(Settle());
  ++seq_;
  step_position_ = first_position;
  manifest_.tokens.insert(manifest_.tokens.end(), tokens.begin(), tokens.end());
  if (seq_ == 0) manifest_.n_prompt = static_cast<int32_t>(tokens.size());
  return WriteLine(ToJson(Step{seq_, first_position, {tokens.begin(), tokens.end()}}));
}

// What is known of a tensor without looking at its values.
Record Writer::Name(const Point& point, std::span<const int64_t> shape) const {
  Record r;
  r.stage_id = point.stage;
  r.stage = point.stage >= 0 ? pb_vocabulary[point.stage].name : std::string(point.native_name);
  r.name = PointName(seq_, point.layer, r.stage, point.first_position, step_position_);
  r.shape.assign(shape.begin(), shape.end());
  r.dtype = point.dtype;
  r.seq = seq_;
  r.layer = point.layer;
  r.first_position = point.first_position;
  return r;
}

void Writer::Describe(std::span<const float> values, Record* record) {
  Record& r = *record;
  const int64_t n_rows = r.shape[0], n_heads = SketchHeads(r.stage_id, r.shape);
  Measures m = Measure(values, n_rows);
  r.blake3 = std::move(m.blake3);
  r.rms = m.rms;
  r.num_elements = static_cast<int64_t>(values.size());
  r.row_rms = std::move(m.row_rms);
  r.n_nan = m.n_nan;
  r.n_positive_inf = m.n_positive_inf;
  r.n_negative_inf = m.n_negative_inf;
  const size_t width = values.size() / static_cast<size_t>(n_rows);
  if (r.stage_id == PB_STAGE_LOGITS && manifest_.level != Level::kDigest)
    for (int64_t i = 0; i < n_rows; ++i)
      r.row_top.push_back(TopTokensOf(values.subspan(static_cast<size_t>(i) * width, width)));
  const bool sketched = manifest_.level != Level::kDigest;
  if (sketched) r.sketch = SketchOf(sketcher_, values, n_rows, n_heads, r.first_position);
  if (!manifest_.per_row) return;
  for (int64_t i = 0; i < n_rows; ++i) {
    auto row = values.subspan(static_cast<size_t>(i) * width, width);
    r.row_blake3.push_back(ToHex(Blake3Of(std::as_bytes(row))));
    if (sketched) r.row_sketch.push_back(SketchOf(sketcher_, row, 1, n_heads, r.first_position + i));
  }
}

Status Writer::Write(Record record, std::span<const float> values) {
  Describe(values, &record);
  if (manifest_.level == Level::kFull) PB_TRY(WritePayload(values, &record));
  PB_TRY(WriteLine(ToJson(record)));
  if (told_) told_(record);
  ++manifest_.n_records;
  return {};
}

Status Writer::Settle() { return pending_.valid() ? pending_.get() : Status(); }

Status Writer::WritePayload(std::span<const float> values, Record* record) {
  bool full = shard_ && (n_in_shard_ >= kTensorsPerShard || !shard_->HasRoom(record->name) ||
                         shard_->file_bytes() + values.size_bytes() > kShardBytes);
  if (full) {
    PB_TRY(shard_->Finish());
    shard_.reset();
  }
  if (!shard_) {
    shard_name_ = fmt::format("payload-{:05}.safetensors", n_shards_++);
    n_in_shard_ = 0;
    PB_ASSIGN(shard_, SafetensorsWriter::Create(folder_ / shard_name_, {{"schema", std::string(kSchema)}},
                                                kShardHeaderBytes));
  }
  record->payload_file = shard_name_;
  record->payload_offset = shard_->file_bytes();
  std::vector<uint64_t> shape(record->shape.begin(), record->shape.end());
  PB_TRY(shard_->Add(record->name, SafeDtype::kF32, shape, std::as_bytes(values)));
  ++n_in_shard_;
  return shard_->Flush();
}

Status Writer::Append(const Point& point, std::span<const int64_t> shape, std::span<const float> values) {
  if (seq_ < 0) return MakeError(Code::kInternal, "a tensor was appended before the first step");
  uint64_t n = 1;
  for (int64_t d : shape) {
    if (d <= 0)
      return MakeError(Code::kEngine, "tracepoint {} has a shape with {} in it", point.native_name, d);
    n *= static_cast<uint64_t>(d);
  }
  if (shape.empty() || n != values.size()) {
    return MakeError(Code::kEngine, "tracepoint {}: {} values do not fill shape ({})", point.native_name,
                     values.size(), fmt::join(shape, ", "));
  }
  PB_TRY(Settle());
  if (values.size() < kLarge) return Write(Name(point, shape), values);
  if (held_.capacity() < values.size()) held_ = {};  // never two
  held_.assign(values.begin(), values.end());
  pending_ = std::async(std::launch::async, [this, record = Name(point, shape)]() mutable {
    return Write(std::move(record), held_);
  });
  return {};
}

Status Writer::Finish(std::string logits_blake3, std::string logits_blake3_untapped) {
  PB_TRY(Settle());
  if (shard_) PB_TRY(shard_->Finish());
  shard_.reset();
  manifest_.logits_blake3 = std::move(logits_blake3);
  manifest_.logits_blake3_untapped = std::move(logits_blake3_untapped);
  manifest_.complete = true;
  return WriteManifest();
}

Status Writer::Abandon(std::string reason) {
  (void)Settle().ok();  // the trace is given up for a reason that came before
  if (shard_) PB_TRY(shard_->Finish());
  shard_.reset();
  manifest_.reason = std::move(reason);
  return WriteManifest();
}

}  // namespace pb::trace
