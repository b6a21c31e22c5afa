// Reads trace folders: ours, whole or cut off, and those of the documented system (one JSON object
// a .trace file, or JSONL).
#ifndef PARITYBIT_TRACE_READER_H_
#define PARITYBIT_TRACE_READER_H_

#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "trace/record.h"

namespace pb::trace {

// A trace, read and checked; payloads stay on disk. Immutable.
class Trace {
 public:
  // A folder without a single record opens and has none (who compares must ask); damage is
  // kMalformed with file and byte. The last line of a cut trace may be half: it is left out and
  // `notes` says so.
  static Result<Trace> Open(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  const Manifest& manifest() const { return manifest_; }
  // Of the documented system: no manifest, positions not known.
  bool documented() const { return documented_; }
  // In order of writing.
  const std::vector<Step>& steps() const { return steps_; }
  const std::vector<Record>& records() const { return records_; }
  // What a person should know of this trace, one sentence each.
  const std::vector<std::string>& notes() const { return notes_; }

  // The values of a record, checked against its digest. kNotFound: the record has none; kMalformed:
  // the file is too short or holds other values.
  Result<std::vector<float>> Payload(const Record& record) const;
  // Some of its rows. Lengths are checked and the digest, which is that of the whole, is not. Rows
  // that it has not are kUsage.
  Result<std::vector<float>> PayloadRows(const Record& record, int64_t first_row, int64_t n_rows) const;

 private:
  Trace() = default;
  Status ReadOurs();
  Status ReadDocumented();
  Status AddLine(std::string_view line, const std::string& where);
  // The bytes of a record's values, in a file that is long enough.
  static Result<std::span<const std::byte>> PayloadBytes(const MappedFile& file,
                                                         const std::filesystem::path& path,
                                                         const Record& record);

  std::filesystem::path folder_;
  Manifest manifest_;
  bool documented_ = false;
  std::vector<Step> steps_;
  std::vector<Record> records_;
  std::vector<std::string> notes_;
};

}  // namespace pb::trace

#endif  // PARITYBIT_TRACE_READER_H_
