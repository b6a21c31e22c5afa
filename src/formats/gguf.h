// GGUF (versions 2 and 3): a bounded reader over a memory map, and a writer.
// Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and docs/format_gguf.md here.
#ifndef PARITYBIT_FORMATS_GGUF_H_
#define PARITYBIT_FORMATS_GGUF_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "formats/block.h"

namespace pb {

// Metadata value types, as numbered in the file.
enum class GgufType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
};

// A metadata value, widened: unsigned types are uint64_t, signed int64_t, floats double; arrays of
// bool are vector<uint64_t>. Arrays hold elements of one type; nested arrays are refused.
struct GgufValue {
  GgufType type = GgufType::kU32;
  GgufType element = GgufType::kU32;  // of an array
  std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<uint64_t>, std::vector<int64_t>,
               std::vector<double>, std::vector<std::string>>
      value;
  uint64_t offset = 0;  // of the key, in the file
};

// A tensor as the file describes it. Dimensions are in ggml order: shape[0] is the contiguous one
// (the row length).
struct GgufTensor {
  std::string name;
  uint32_t type_id = 0;  // ggml type number, as in the file
  std::vector<uint64_t> shape;
  uint64_t offset = 0;       // of the data, from the start of the file (the shard's)
  uint64_t info_offset = 0;  // of this description, from the start of the file
  std::span<const std::byte> data;

  uint64_t n_columns() const { return shape.empty() ? 0 : shape[0]; }
  uint64_t n_rows() const;
  uint64_t n_elements() const;
};

// What is wrong with the place of one tensor in a file whose header can be read.
struct GgufFault {
  enum class Kind {
    kType,       // a type, or a shape of it, whose size is not known
    kAlignment,  // an offset that is no multiple of the alignment
    kExtent,     // data beyond the end of the file
    kOverlap,    // bytes that are another tensor's, too
    kSpace,      // more bytes than an I2_S tensor has
  };
  Kind kind = Kind::kType;
  std::string tensor;
  Error error;
};

// A parsed file. Owns the map (or the bytes given); tensors' data views live as long as it does.
// Immutable, so shared between threads freely. Every count, length and offset is checked against
// the file before anything is allocated.
class GgufFile {
 public:
  // The first of a set of shards stands for all of them: their tensors follow its own. kUnsupported:
  // another of the set, whose first is named. kNotFound: a shard that is missing.
  static Result<GgufFile> Open(const std::filesystem::path& path);
  static Result<GgufFile> Parse(std::vector<std::byte> bytes);  // for tests and fuzzing
  // Opens a file of which only the header has to be sound: what is wrong with tensors goes to
  // `faults`, in the order of the file, and those that have no place have no data.
  static Result<GgufFile> Survey(const std::filesystem::path& path, std::vector<GgufFault>* faults);

  const std::filesystem::path& path() const { return path_; }  // empty after Parse
  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }
  uint64_t file_bytes() const { return bytes_.size(); }  // of shards, the first's
  uint64_t data_start() const { return data_start_; }  // where the tensors' bytes may begin
  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // in the order of the file

  const GgufTensor* FindTensor(std::string_view name) const;
  const GgufValue* Find(std::string_view key) const;
  // Typed look-ups: kNotFound when absent, kMalformed (key and offset named) when of another type.
  // Any integer type that holds the value serves for Uint.
  Result<uint64_t> Uint(std::string_view key) const;
  Result<double> Float(std::string_view key) const;
  Result<bool> Bool(std::string_view key) const;
  Result<std::string> String(std::string_view key) const;
  // nullptr when absent or of another type.
  const std::vector<std::string>* Strings(std::string_view key) const;

 private:
  GgufFile() = default;
  // Without `faults` the first of them is the error.
  Status ReadHeader(std::vector<GgufFault>* faults = nullptr);
  Status ReadAlignment();
  Status AddShards();
  Result<const GgufValue*> Get(std::string_view key) const;

  std::filesystem::path path_;
  std::optional<MappedFile> map_;
  std::vector<MappedFile> shards_;  // those behind the first
  std::vector<std::byte> owned_;
  std::span<const std::byte> bytes_;  // of map_ or owned_
  uint32_t version_ = 0;
  uint64_t alignment_ = 32, data_start_ = 0;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
};

// Collects metadata and tensors in order and writes a version 3 file (32-byte alignment)
// atomically. Nothing is padded behind the last tensor, so that every cut of the file is noticed.
class GgufWriter {
 public:
  void Add(std::string key, GgufValue value);
  void AddUint32(std::string key, uint32_t v);
  void AddFloat32(std::string key, float v);
  void AddBool(std::string key, bool v);
  void AddString(std::string key, std::string v);
  void AddStrings(std::string key, std::vector<std::string> v);
  void AddInts(std::string key, std::vector<int32_t> v);  // an i32 array
  // `data` must have the bytes that type and shape imply.
  void AddTensor(std::string name, uint32_t type_id, std::vector<uint64_t> shape,
                 std::vector<std::byte> data);
  std::vector<std::byte> Serialise() const;
  Status Write(const std::filesystem::path& path) const;

 private:
  struct Tensor {
    std::string name;
    uint32_t type_id;
    std::vector<uint64_t> shape;
    std::vector<std::byte> data;
  };
  std::vector<std::pair<std::string, GgufValue>> metadata_;
  std::vector<Tensor> tensors_;
};

}  // namespace pb

#endif  // PARITYBIT_FORMATS_GGUF_H_
