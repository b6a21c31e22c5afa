// safetensors: a bounded reader over a memory map, and a writer that streams tensors to disk.
// Layout: https://huggingface.co/docs/safetensors (a u64 length, that many bytes of JSON, the
// tensors' bytes without holes).
#ifndef PARITYBIT_FORMATS_SAFETENSORS_H_
#define PARITYBIT_FORMATS_SAFETENSORS_H_

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"

namespace pb {

enum class SafeDtype { kF32, kF16, kBF16, kI64, kI32, kU8 };
const char* SafeDtypeName(SafeDtype dtype);  // "F32", as in the file
uint64_t SafeDtypeBytes(SafeDtype dtype);

struct SafeTensor {
  std::string name;
  SafeDtype dtype = SafeDtype::kF32;
  std::vector<uint64_t> shape;      // row-major, shape[0] is the slowest axis; empty: one value
  uint64_t offset = 0;              // of the data, from the start of the file
  std::span<const std::byte> data;  // no alignment is promised

  uint64_t n_elements() const;
  // The values of an F32, F16 or BF16 tensor as float32; kUnsupported for the integers.
  Result<std::vector<float>> Floats() const;
};

// A parsed file. Owns the map (or the bytes given); views live as long as it does. Immutable. The
// whole data area must be covered without holes or overlaps, as the format demands, so a cut or
// extended file is refused.
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> Open(const std::filesystem::path& path);
  static Result<SafetensorsFile> Parse(std::vector<std::byte> bytes);  // for tests and fuzzing

  const std::vector<SafeTensor>& tensors() const { return tensors_; }  // in the order of their data
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }
  const SafeTensor* Find(std::string_view name) const;  // nullptr: not there

 private:
  SafetensorsFile() = default;
  Status ReadHeader();
  Status PlaceTensors(uint64_t data_start);

  std::optional<MappedFile> map_;
  std::vector<std::byte> owned_;
  std::span<const std::byte> bytes_;
  std::vector<SafeTensor> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
  std::map<std::string, size_t, std::less<>> index_;
};

// Appends tensors to a file whose header was given room in advance, so that tensors go to disk as
// they come. After Flush or Finish the file is valid and holds every tensor added so far. Not for
// use from several threads.
class SafetensorsWriter {
 public:
  static constexpr uint64_t kDefaultHeaderBytes = 1 << 20;  // about 8000 tensors

  // Creates or truncates the file. `metadata` is text by key.
  static Result<SafetensorsWriter> Create(const std::filesystem::path& path,
                                          const std::map<std::string, std::string>& metadata,
                                          uint64_t header_bytes = kDefaultHeaderBytes);
  // Whether the header can hold one more tensor of this name (up to eight dimensions).
  bool HasRoom(std::string_view name) const;
  // Appends one tensor. `data` must have the bytes that dtype and shape imply. A name used before,
  // one that is no UTF-8, or a full header is kUsage.
  Status Add(std::string_view name, SafeDtype dtype, std::span<const uint64_t> shape,
             std::span<const std::byte> data);
  Status Flush();
  // Flushes and closes; nothing may follow.
  Status Finish();
  // Size of the file, and so where the next tensor's data begin.
  uint64_t file_bytes() const { return 8 + header_bytes_ + data_bytes_; }

 private:
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  SafetensorsWriter() = default;
  Status WriteAt(uint64_t offset, std::string_view bytes);

  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
  uint64_t header_bytes_ = 0;
  uint64_t data_bytes_ = 0;
  std::string entries_;  // the header's JSON without the closing brace
  std::set<std::string, std::less<>> names_;
};

}  // namespace pb

#endif  // PARITYBIT_FORMATS_SAFETENSORS_H_
