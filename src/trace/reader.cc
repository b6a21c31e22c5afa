// Reads manifest and records, checks payloads against their digests, and says what a cut-off
// trace still holds.
#include "trace/reader.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <system_error>

#include "base/blake3.h"
#include "base/file.h"

namespace pb::trace {
namespace {

constexpr uint64_t kMaxManifestBytes = 64 << 20;

// Splits a mapped file into lines without copying it.
class Lines {
 public:
  explicit Lines(std::span<const std::byte> bytes)
      : rest_(reinterpret_cast<const char*>(bytes.data()), bytes.size()), size_(bytes.size()) {}
  bool Next(std::string_view* line, uint64_t* offset, bool* terminated) {
    if (rest_.empty()) return false;
    *offset = size_ - rest_.size();
    size_t end = rest_.find('\n');
    *terminated = end != std::string_view::npos;
    *line = rest_.substr(0, end);
    rest_.remove_prefix(*terminated ? end + 1 : rest_.size());
    return true;
  }

 private:
  std::string_view rest_;
  uint64_t size_;
};

bool IsBlank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

}  // namespace

Result<Trace> Trace::Open(const std::filesystem::path& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    return MakeError(Code::kNotFound, "{}: no such folder, so no trace", folder.string());
  }
  Trace trace;
  trace.folder_ = folder;
  if (std::filesystem::exists(folder / kManifestFile, error)) {
    PB_TRY(trace.ReadOurs());
  } else {
    PB_TRY(trace.ReadDocumented());
  }
  return trace;
}

Status Trace::AddLine(std::string_view text, const std::string& where) {
  auto line = ParseLine(text);
  if (!line.ok()) return std::move(line).error().In(where);
  if (line->step) {
    steps_.push_back(std::move(*line->step));
    return {};
  }
  if (steps_.empty() || line->record->seq != steps_.back().seq) {
    return MakeError(Code::kMalformed, "{}: record {} stands outside its step {}", where, line->record->name,
                     line->record->seq);
  }
  line->record->where = where;
  records_.push_back(std::move(*line->record));
  return {};
}

Status Trace::ReadOurs() {
  auto path = folder_ / kManifestFile;
  PB_ASSIGN(std::string text, ReadFile(path, kMaxManifestBytes));
  auto manifest = ParseManifest(text);
  if (!manifest.ok()) return std::move(manifest).error().In(path.string());
  manifest_ = std::move(manifest).value();
  path = folder_ / kRecordsFile;
  auto opened = MappedFile::Open(path);
  if (!opened.ok() && opened.error().code == Code::kNotFound && !manifest_.complete) {
    notes_.push_back("cut off before the first record");
    return {};
  }
  PB_ASSIGN(MappedFile file, std::move(opened));
  Lines lines(file.bytes());
  std::string_view line;
  uint64_t offset = 0;
  bool terminated = true;
  while (lines.Next(&line, &offset, &terminated)) {
    if (!terminated && !manifest_.complete) {
      notes_.push_back(
          fmt::format("{}: cut off within the line at byte {}, which is left out", kRecordsFile, offset));
      break;
    }
    PB_TRY(AddLine(line, fmt::format("{}: byte {}", path.string(), offset)));
  }
  if (manifest_.complete && static_cast<int64_t>(records_.size()) != manifest_.n_records) {
    return MakeError(Code::kMalformed, "{}: {} records, the manifest says {}", path.string(), records_.size(),
                     manifest_.n_records);
  }
  if (!manifest_.complete) {
    notes_.push_back(manifest_.reason.empty() ? "incomplete: the writer was cut off"
                                              : "incomplete: " + manifest_.reason);
    manifest_.tokens.clear();
    for (const Step& s : steps_)
      manifest_.tokens.insert(manifest_.tokens.end(), s.tokens.begin(), s.tokens.end());
    manifest_.n_prompt = steps_.empty() ? 0 : static_cast<int32_t>(steps_[0].tokens.size());
    manifest_.n_records = static_cast<int64_t>(records_.size());
  }
  return {};
}

// Every *.trace file is one object (pretty-printed over many lines); every *.jsonl file has one a
// line.
Status Trace::ReadDocumented() {
  documented_ = true;
  manifest_.level = Level::kDigest;
  manifest_.complete = true;
  std::set<std::filesystem::path> files;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder_, error), end; !error && it != end;
       it.increment(error)) {
    auto extension = it->path().extension();
    if (extension == ".trace" || extension == ".jsonl") files.insert(it->path());
  }
  if (error) return MakeError(Code::kIo, "{}: cannot list: {}", folder_.string(), error.message());
  for (const auto& path : files) {
    PB_ASSIGN(MappedFile file, MappedFile::Open(path));
    std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    if (path.extension() == ".trace" && ParseDocumentedRecord(text).ok()) {
      records_.push_back(std::move(ParseDocumentedRecord(text)).value());
      records_.back().where = path.string();
      continue;
    }
    Lines lines(file.bytes());
    std::string_view line;
    uint64_t offset = 0;
    bool terminated = true;
    if (IsBlank(text)) return MakeError(Code::kMalformed, "{}: empty, no record in it", path.string());
    while (lines.Next(&line, &offset, &terminated)) {
      if (IsBlank(line)) continue;
      std::string where = fmt::format("{}: byte {}", path.string(), offset);
      auto record = ParseDocumentedRecord(line);
      if (!record.ok() && path.extension() == ".trace")
        record = ParseDocumentedRecord(text);  // says why the whole is wrong
      if (!record.ok()) return std::move(record).error().In(where);
      record->where = where;
      records_.push_back(std::move(record).value());
    }
  }
  notes_.push_back("of the documented system: positions and settings are not recorded");
  manifest_.n_records = static_cast<int64_t>(records_.size());
  return {};
}

Result<std::span<const std::byte>> Trace::PayloadBytes(const MappedFile& file,
                                                       const std::filesystem::path& path,
                                                       const Record& record) {
  uint64_t n_bytes = static_cast<uint64_t>(record.num_elements) * sizeof(float);
  if (record.payload_offset > file.bytes().size() || n_bytes > file.bytes().size() - record.payload_offset) {
    return MakeError(Code::kMalformed, "{}: tensor {} needs bytes {} to {}, the file has {}: cut off?",
                     path.string(), record.name, record.payload_offset, record.payload_offset + n_bytes,
                     file.bytes().size());
  }
  return file.bytes().subspan(record.payload_offset, n_bytes);
}

Result<std::vector<float>> Trace::Payload(const Record& record) const {
  if (record.payload_file.empty())
    return MakeError(Code::kNotFound, "{}: record has no payload", record.name);
  auto path = folder_ / record.payload_file;
  PB_ASSIGN(MappedFile file, MappedFile::Open(path));
  PB_ASSIGN(auto bytes, PayloadBytes(file, path, record));
  if (ToHex(Blake3Of(bytes)) != record.blake3) {
    return MakeError(Code::kMalformed, "{}: the {} bytes of tensor {} at byte {} do not have its digest",
                     path.string(), bytes.size(), record.name, record.payload_offset);
  }
  std::vector<float> values(static_cast<size_t>(record.num_elements));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

Result<std::vector<float>> Trace::PayloadRows(const Record& record, int64_t first_row, int64_t n_rows) const {
  if (record.payload_file.empty())
    return MakeError(Code::kNotFound, "{}: record has no payload", record.name);
  if (first_row < 0 || n_rows < 0 || first_row > record.n_rows() || n_rows > record.n_rows() - first_row) {
    return MakeError(Code::kUsage, "{}: {} rows from row {} on, of {}", record.name, n_rows, first_row,
                     record.n_rows());
  }
  auto path = folder_ / record.payload_file;
  PB_ASSIGN(MappedFile file, MappedFile::Open(path));
  PB_ASSIGN(auto bytes, PayloadBytes(file, path, record));
  const size_t width = n_rows > 0 ? static_cast<size_t>(record.num_elements / record.n_rows()) : 0;
  std::vector<float> values(static_cast<size_t>(n_rows) * width);
  if (!values.empty()) {
    std::memcpy(values.data(), bytes.data() + static_cast<size_t>(first_row) * width * sizeof(float),
                values.size() * sizeof(float));
  }
  return values;
}

}  // namespace pb::trace
