#include "trace/writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>

#include "base/blake3.h"
#include "base/file.h"

namespace pb::trace {
namespace {

// A shard's header is written again after every tensor, so that the file is whole at any time; these keep that cheap.
constexpr int32_t kTensorsPerShard = 256;
constexpr uint64_t kShardHeaderBytes = 160 << 10;
constexpr uint64_t kShardBytes = uint64_t{1} << 30;

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
  if (writer->fd_ < 0)
    return MakeError(Code::kIo, "{}: cannot create: {}", path.string(), std::strerror(errno));
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
                       std::strerror(errno));
    }
    rest.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

Status Writer::BeginStep(int32_t first_position, std::span<const int32_t> tokens) {
  ++seq_;
  step_position_ = first_position;
  manifest_.tokens.insert(manifest_.tokens.end(), tokens.begin(), tokens.end());
  if (seq_ == 0) manifest_.n_prompt = static_cast<int32_t>(tokens.size());
  return WriteLine(ToJson(Step{seq_, first_position, {tokens.begin(), tokens.end()}}));
}

// The hash of a large tensor is taken beside its sizes and sketch: the engine waits for them.
void Writer::MeasureTensor(std::span<const int64_t> shape, std::span<const float> values, int64_t n_heads,
                           int32_t first_position, Measures* measures, Sketch* sketch) {
  constexpr size_t kLarge = 16384;  // values
  auto task = [&](int64_t begin, int64_t end, int) {
    if (begin == 0) measures->blake3 = ToHex(Blake3Of(std::as_bytes(values)));
    if (end < 2) return;
    MeasureSizes(values, shape[0], measures);
    if (manifest_.level == Level::kDigest) return;
    *sketch = SketchOf(sketcher_, values, shape[0], n_heads, first_position);
  };
  constexpr int64_t kTasks = 2;
  if (values.size() < kLarge) return task(0, kTasks, 0);
  if (!threads_) {
    const int n = std::min(static_cast<int>(kTasks), static_cast<int>(std::thread::hardware_concurrency()));
    threads_ = std::make_unique<ThreadPool>(n);
  }
  threads_->For(kTasks, 1, task);
}

Record Writer::Describe(const Point& point, std::span<const int64_t> shape, std::span<const float> values) {
  const int64_t n_heads = SketchHeads(point.stage, shape);
  Measures m;
  Sketch sketch;
  MeasureTensor(shape, values, n_heads, point.first_position, &m, &sketch);
  Record r;
  r.stage_id = point.stage;
  r.stage = point.stage >= 0 ? pb_vocabulary[point.stage].name : std::string(point.native_name);
  r.name = PointName(seq_, point.layer, r.stage, point.first_position, step_position_);
  r.shape.assign(shape.begin(), shape.end());
  r.dtype = point.dtype;
  r.blake3 = std::move(m.blake3);
  r.rms = m.rms;
  r.num_elements = static_cast<int64_t>(values.size());
  r.seq = seq_;
  r.layer = point.layer;
  r.first_position = point.first_position;
  r.row_rms = std::move(m.row_rms);
  r.n_nan = m.n_nan;
  r.n_positive_inf = m.n_positive_inf;
  r.n_negative_inf = m.n_negative_inf;
  const bool sketched = manifest_.level != Level::kDigest;
  if (sketched) r.sketch = sketch;
  if (manifest_.per_row) {
    size_t width = values.size() / static_cast<size_t>(shape[0]);
    for (int64_t i = 0; i < shape[0]; ++i) {
      auto row = values.subspan(static_cast<size_t>(i) * width, width);
      r.row_blake3.push_back(ToHex(Blake3Of(std::as_bytes(row))));
      if (sketched) r.row_sketch.push_back(SketchOf(sketcher_, row, 1, n_heads, point.first_position + i));
    }
  }
  return r;
}

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
  Record record = Describe(point, shape, values);
  if (manifest_.level == Level::kFull) PB_TRY(WritePayload(values, &record));
  PB_TRY(WriteLine(ToJson(record)));
  ++manifest_.n_records;
  return {};
}

Status Writer::Finish(std::string logits_blake3, std::string logits_blake3_untapped) {
  if (shard_) PB_TRY(shard_->Finish());
  shard_.reset();
  manifest_.logits_blake3 = std::move(logits_blake3);
  manifest_.logits_blake3_untapped = std::move(logits_blake3_untapped);
  manifest_.complete = true;
  return WriteManifest();
}

Status Writer::Abandon(std::string reason) {
  if (shard_) PB_TRY(shard_->Finish());
  shard_.reset();
  manifest_.reason = std::move(reason);
  return WriteManifest();
}

}  // namespace pb::trace
