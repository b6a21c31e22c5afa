// The reader: a cursor over the header that checks every count against the bytes that are left
// before it allocates.
#include <algorithm>
#include <bit>

#include "base/bytes.h"
#include "base/shards.h"
#include "formats/gguf.h"

namespace pb {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kMaxKeyBytes = 65535, kMaxNameBytes = 64, kMaxAlignment = 1u << 16;
constexpr uint32_t kMaxDims = 4;
// The fewest bytes that one of them takes in a file.
constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1, kMinTensorBytes = 8 + 1 + 4 + 4 + 8;

// Bytes of one value in the file; strings: of their length field. 0: no such type.
uint64_t MinValueBytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
    case GgufType::kString:
      return 8;
    case GgufType::kArray:
      return 12;
  }
  return 0;
}

// For messages: names come from untrusted files.
std::string Printable(std::string_view s) {
  std::string out;
  for (char c : s.substr(0, kMaxNameBytes)) {
    auto u = static_cast<unsigned char>(c);
    if (u >= 0x20 && u < 0x7f) {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", u);
    }
  }
  return s.size() > kMaxNameBytes ? out + "..." : out;
}

class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : reader_(bytes) {}

  uint64_t offset() const { return reader_.offset(); }
  uint64_t remaining() const { return reader_.remaining(); }
  template <typename T>
  Result<T> Read(std::string_view what) {
    return reader_.Read<T>(what);
  }

  Result<std::string> String(std::string_view what, uint64_t max_bytes) {
    uint64_t at = offset();
    PB_ASSIGN(uint64_t n, Read<uint64_t>(what));
    if (n > max_bytes)
      return MakeError(Code::kMalformed, "byte {}: {} of {} bytes, at most {} are allowed", at, what, n,
                       max_bytes);
    PB_ASSIGN(auto view, reader_.Take(n, what));
    return std::string(reinterpret_cast<const char*>(view.data()), view.size());
  }

  // Refuses a count of things that cannot fit into what is left.
  Status CheckCount(uint64_t at, uint64_t count, uint64_t min_bytes, std::string_view what) const {
    if (count <= remaining() / min_bytes) return {};
    return MakeError(Code::kMalformed, "byte {}: {} {} need at least {} bytes each, {} bytes are left", at,
                     count, what, min_bytes, remaining());
  }

  Result<GgufValue> Value(std::string_view key) {
    PB_ASSIGN(GgufType type, Type(key));
    if (type == GgufType::kArray) return Array(key);
    GgufValue value;
    value.type = type;
    PB_TRY(Scalar(type, key, [&](auto v) { value.value = std::move(v); }));
    return value;
  }

 private:
  Result<GgufType> Type(std::string_view key) {
    uint64_t at = offset();
    PB_ASSIGN(uint32_t raw, Read<uint32_t>("a value type"));
    auto type = static_cast<GgufType>(raw);
    if (MinValueBytes(type) == 0) {
      return MakeError(Code::kMalformed, "byte {}: key {}: unknown value type {}", at, Printable(key), raw);
    }
    return type;
  }

  template <typename Sink>
  Status Scalar(GgufType type, std::string_view key, Sink&& sink) {
    switch (type) {
      case GgufType::kU8:
        return Number<uint8_t, uint64_t>(sink);
      case GgufType::kU16:
        return Number<uint16_t, uint64_t>(sink);
      case GgufType::kU32:
        return Number<uint32_t, uint64_t>(sink);
      case GgufType::kU64:
        return Number<uint64_t, uint64_t>(sink);
      case GgufType::kI8:
        return Number<int8_t, int64_t>(sink);
      case GgufType::kI16:
        return Number<int16_t, int64_t>(sink);
      case GgufType::kI32:
        return Number<int32_t, int64_t>(sink);
      case GgufType::kI64:
        return Number<int64_t, int64_t>(sink);
      case GgufType::kF32:
        return Number<float, double>(sink);
      case GgufType::kF64:
        return Number<double, double>(sink);
      case GgufType::kBool: {
        uint64_t at = offset();
        PB_ASSIGN(uint8_t v, Read<uint8_t>("a bool"));
        if (v > 1)
          return MakeError(Code::kMalformed, "byte {}: key {}: a bool holds {}", at, Printable(key), v);
        sink(v != 0);
        return {};
      }
      case GgufType::kString: {
        PB_ASSIGN(std::string s, String("a string", UINT64_MAX));
        sink(std::move(s));
        return {};
      }
      case GgufType::kArray:
        break;
    }
    PB_CHECK(false);
  }

  template <typename Stored, typename Wide, typename Sink>
  Status Number(Sink&& sink) {
    PB_ASSIGN(Stored v, Read<Stored>("a number"));
    sink(static_cast<Wide>(v));
    return {};
  }

  Result<GgufValue> Array(std::string_view key) {
    uint64_t at = offset();
    GgufValue value;
    value.type = GgufType::kArray;
    PB_ASSIGN(value.element, Type(key));
    if (value.element == GgufType::kArray) {
      return MakeError(Code::kMalformed, "byte {}: key {}: an array of arrays", at, Printable(key));
    }
    PB_ASSIGN(uint64_t n, Read<uint64_t>("an array length"));
    PB_TRY(CheckCount(at, n, MinValueBytes(value.element), "array elements"));
    switch (value.element) {
      case GgufType::kString:
        PB_TRY(Fill<std::string>(value, key, n));
        break;
      case GgufType::kF32:
      case GgufType::kF64:
        PB_TRY(Fill<double>(value, key, n));
        break;
      case GgufType::kI8:
      case GgufType::kI16:
      case GgufType::kI32:
      case GgufType::kI64:
        PB_TRY(Fill<int64_t>(value, key, n));
        break;
      default:
        PB_TRY(Fill<uint64_t>(value, key, n));
    }
    return value;
  }

  template <typename T>
  Status Fill(GgufValue& value, std::string_view key, uint64_t n) {
    std::vector<T> elements;
    elements.reserve(n);
    for (uint64_t i = 0; i < n; ++i) {
      PB_TRY(Scalar(value.element, key, [&](auto v) {
        if constexpr (std::is_convertible_v<decltype(v), T>) elements.push_back(static_cast<T>(std::move(v)));
      }));
    }
    value.value = std::move(elements);
    return {};
  }

  ByteReader reader_;
};

Status CheckVersion(Cursor& cursor, uint32_t* version) {
  PB_ASSIGN(uint32_t magic, cursor.Read<uint32_t>("the magic"));
  if (magic != kMagic) {
    return MakeError(Code::kMalformed, "byte 0: no GGUF file: it begins with {:08x}, not with \"GGUF\"",
                     __builtin_bswap32(magic));
  }
  PB_ASSIGN(*version, cursor.Read<uint32_t>("the version"));
  if (*version == 2 || *version == 3) return {};
  if (*version != 0 && (*version & 0xffff) == 0) {
    return MakeError(Code::kUnsupported, "byte 4: a big-endian GGUF file: convert it to little-endian");
  }
  if (*version == 1)
    return MakeError(Code::kUnsupported,
                     "byte 4: GGUF version 1 (2 and 3 are read): convert the model again");
  return MakeError(Code::kMalformed, "byte 4: GGUF version {}, 2 and 3 are known", *version);
}

Result<std::map<std::string, GgufValue, std::less<>>> ReadMetadata(Cursor& cursor, uint64_t n_keys) {
  std::map<std::string, GgufValue, std::less<>> metadata;
  for (uint64_t i = 0; i < n_keys; ++i) {
    uint64_t at = cursor.offset();
    PB_ASSIGN(std::string key, cursor.String("a metadata key", kMaxKeyBytes));
    if (key.empty()) return MakeError(Code::kMalformed, "byte {}: an empty metadata key", at);
    PB_ASSIGN(GgufValue value, cursor.Value(key));
    value.offset = at;
    auto [it, fresh] = metadata.emplace(key, std::move(value));
    if (!fresh) {
      return MakeError(Code::kMalformed, "byte {}: key {} occurs twice, first at byte {}", at, Printable(key),
                       it->second.offset);
    }
  }
  return metadata;
}

// Reads one description; `offset` stays relative to the data.
Result<GgufTensor> ReadTensorInfo(Cursor& cursor) {
  GgufTensor t;
  t.info_offset = cursor.offset();
  PB_ASSIGN(t.name, cursor.String("a tensor name", kMaxNameBytes));
  if (t.name.empty()) return MakeError(Code::kMalformed, "byte {}: an empty tensor name", t.info_offset);
  uint64_t at = cursor.offset();
  PB_ASSIGN(uint32_t n_dims, cursor.Read<uint32_t>("a number of dimensions"));
  if (n_dims > kMaxDims) {
    return MakeError(Code::kMalformed, "byte {}: tensor {}: {} dimensions, at most {} are allowed", at,
                     Printable(t.name), n_dims, kMaxDims);
  }
  for (uint32_t d = 0; d < n_dims; ++d) {
    at = cursor.offset();
    PB_ASSIGN(uint64_t size, cursor.Read<uint64_t>("a dimension"));
    if (size == 0)
      return MakeError(Code::kMalformed, "byte {}: tensor {}: dimension {} is 0", at, Printable(t.name), d);
    t.shape.push_back(size);
  }
  PB_ASSIGN(t.type_id, cursor.Read<uint32_t>("a tensor type"));
  PB_ASSIGN(t.offset, cursor.Read<uint64_t>("a tensor offset"));
  return t;
}

using Kind = GgufFault::Kind;
using Faults = std::vector<GgufFault>;

// Checks size, alignment and end of one tensor and points `data` at its bytes.
void PlaceTensor(GgufTensor& t, uint64_t data_start, uint64_t alignment, std::span<const std::byte> file,
                 Faults* faults) {
  auto where = [&] { return fmt::format("byte {}: tensor {}", t.info_offset, Printable(t.name)); };
  auto fault = [&](Kind kind, Error error) { faults->push_back({kind, t.name, std::move(error)}); };
  uint64_t elements = 1;
  for (uint64_t d : t.shape) {
    if (__builtin_mul_overflow(elements, d, &elements) || elements > (1ull << 62))
      return fault(Kind::kType,
                   MakeError(Code::kMalformed, "{}: the product of its dimensions overflows", where()));
  }
  auto bytes = TensorBytes(t.type_id, t.shape);
  if (!bytes.ok()) return fault(Kind::kType, std::move(bytes).error().In(where()));
  if (t.offset % alignment != 0)
    return fault(Kind::kAlignment,
                 MakeError(Code::kMalformed, "{}: offset {} is no multiple of the alignment {}", where(),
                           t.offset, alignment));
  uint64_t begin, end;
  if (__builtin_add_overflow(data_start, t.offset, &begin) || __builtin_add_overflow(begin, *bytes, &end))
    return fault(Kind::kExtent, MakeError(Code::kMalformed, "{}: offset {} overflows", where(), t.offset));
  if (end > file.size())
    return fault(
        Kind::kExtent,
        MakeError(Code::kMalformed,
                  "tensor {}: data ends at byte {}, the file has {} ({} missing): truncated download?",
                  Printable(t.name), end, file.size(), end - file.size()));
  t.offset = begin;
  t.data = file.subspan(begin, *bytes);
}

// Type number 36 names layouts of several programs. All of them that are I2_S have n/4 + 32 bytes;
// another size shows in the distance to what follows.
void CheckI2SSpace(const GgufTensor& t, uint64_t next, uint64_t alignment, Faults* faults) {
  uint64_t space = next - t.offset;
  if (t.type_id != static_cast<uint32_t>(BlockType::kI2_S) || space < t.data.size() + alignment) return;
  faults->push_back(
      {Kind::kSpace, t.name,
       MakeError(Code::kUnsupported,
                 "byte {}: tensor {}: type 36 as I2_S has {} bytes for this shape, but {} lie before what "
                 "follows: another "
                 "layout under the same type number; convert the model again",
                 t.info_offset, Printable(t.name), t.data.size(), space)});
}

// Of tensors that have a place.
void CheckOverlaps(const std::vector<GgufTensor>& tensors, uint64_t file_bytes, uint64_t alignment,
                   Faults* faults) {
  std::vector<const GgufTensor*> sorted;
  sorted.reserve(tensors.size());
  for (const GgufTensor& t : tensors)
    if (!t.data.empty()) sorted.push_back(&t);
  std::sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
  for (size_t i = 0; i < sorted.size(); ++i) {
    const GgufTensor& t = *sorted[i];
    uint64_t next = i + 1 < sorted.size() ? sorted[i + 1]->offset : file_bytes;
    if (t.offset + t.data.size() > next) {
      faults->push_back(
          {Kind::kOverlap, t.name,
           MakeError(Code::kMalformed,
                     "byte {}: tensors {} and {} overlap: one ends at byte {}, the other begins at byte {}",
                     t.info_offset, Printable(t.name), Printable(sorted[i + 1]->name),
                     t.offset + t.data.size(), next)});
    } else {
      CheckI2SSpace(t, next, alignment, faults);
    }
  }
}

}  // namespace

uint64_t GgufTensor::n_elements() const {
  uint64_t n = 1;
  for (uint64_t d : shape) n *= d;
  return n;
}

uint64_t GgufTensor::n_rows() const {
  uint64_t n = 1;
  for (size_t i = 1; i < shape.size(); ++i) n *= shape[i];
  return n;
}

Result<GgufFile> GgufFile::Open(const std::filesystem::path& path) {
  PB_ASSIGN(GgufFile file, Survey(path, nullptr));
  PB_TRY(file.AddShards());
  return file;
}

Status GgufFile::AddShards() {
  const GgufValue* declared = Find("split.count");
  const Result<uint64_t> count = Uint("split.count");
  if (!count.ok() || *count <= 1) return {};
  const Result<uint64_t> no = Uint("split.no");
  const ShardName name = ParseShardName(path_.filename().string());
  if (name.count != *count)
    return MakeError(
        Code::kUnsupported,
        "{}: byte {}: split.count is {}, and the name is not that of a shard (NAME-00001-of-{:05}.gguf), "
        "so the others are not found",
        path_.string(), declared->offset, *count, *count);
  if (name.no != 1 || (no.ok() && *no != 0))
    return MakeError(Code::kUnsupported, "{}: shard {} of {}: name the first, {}", path_.string(),
                     no.ok() ? *no + 1 : name.no, *count, name.File(1));
  for (size_t i = 2; i <= name.count; ++i) {
    const std::filesystem::path path = path_.parent_path() / name.File(i);
    auto opened = Survey(path, nullptr);
    if (!opened.ok()) return std::move(opened).error().In(fmt::format("shard {} of {}", i, name.count));
    const Result<uint64_t> its_no = opened->Uint("split.no"), its_count = opened->Uint("split.count");
    if (!its_no.ok() || *its_no + 1 != i || !its_count.ok() || *its_count != *count)
      return MakeError(Code::kMalformed,
                       "{}: it does not say that it is shard {} of {} (split.no, split.count)", path.string(),
                       i, name.count);
    for (GgufTensor& t : opened->tensors_) {
      const auto [it, fresh] = index_.emplace(t.name, tensors_.size());
      if (!fresh)
        return MakeError(Code::kMalformed, "{}: byte {}: tensor {} stands in an earlier shard, too",
                         path.string(), t.info_offset, Printable(t.name));
      tensors_.push_back(std::move(t));
    }
    shards_.push_back(std::move(*opened->map_));
  }
  if (const auto total = Uint("split.tensors.count"); total.ok() && *total != tensors_.size())
    return MakeError(Code::kMalformed, "{}: split.tensors.count is {}, the shards have {} tensors",
                     path_.string(), *total, tensors_.size());
  return {};
}

Result<GgufFile> GgufFile::Survey(const std::filesystem::path& path, std::vector<GgufFault>* faults) {
  PB_ASSIGN(MappedFile map, MappedFile::Open(path));
  GgufFile file;
  file.path_ = path;
  file.bytes_ = map.bytes();
  file.map_ = std::move(map);
  Status status = file.ReadHeader(faults);
  if (!status.ok()) return std::move(status).error().In(path.string());
  return file;
}

Result<GgufFile> GgufFile::Parse(std::vector<std::byte> bytes) {
  GgufFile file;
  file.owned_ = std::move(bytes);
  file.bytes_ = file.owned_;
  PB_TRY(file.ReadHeader());
  return file;
}

Status GgufFile::ReadHeader(std::vector<GgufFault>* faults) {
  Cursor cursor(bytes_);
  PB_TRY(CheckVersion(cursor, &version_));
  PB_ASSIGN(uint64_t n_tensors, cursor.Read<uint64_t>("the number of tensors"));
  PB_ASSIGN(uint64_t n_keys, cursor.Read<uint64_t>("the number of metadata keys"));
  PB_TRY(cursor.CheckCount(8, n_tensors, kMinTensorBytes, "tensors"));
  PB_TRY(cursor.CheckCount(16, n_keys, kMinKeyBytes, "metadata keys"));
  PB_ASSIGN(metadata_, ReadMetadata(cursor, n_keys));
  PB_TRY(ReadAlignment());
  PB_TRY(cursor.CheckCount(8, n_tensors, kMinTensorBytes, "tensors"));
  tensors_.reserve(n_tensors);
  for (uint64_t i = 0; i < n_tensors; ++i) {
    PB_ASSIGN(GgufTensor t, ReadTensorInfo(cursor));
    auto [it, fresh] = index_.emplace(t.name, i);
    if (!fresh) {
      return MakeError(Code::kMalformed, "byte {}: tensor {} occurs twice, first at byte {}", t.info_offset,
                       Printable(t.name), tensors_[it->second].info_offset);
    }
    tensors_.push_back(std::move(t));
  }
  data_start_ = (cursor.offset() + alignment_ - 1) / alignment_ * alignment_;
  Faults found;
  for (GgufTensor& t : tensors_) {
    PlaceTensor(t, data_start_, alignment_, bytes_, &found);
    if (!faults && !found.empty()) return std::move(found.front().error);
  }
  CheckOverlaps(tensors_, bytes_.size(), alignment_, &found);
  if (faults)
    *faults = std::move(found);
  else if (!found.empty())
    return std::move(found.front().error);
  return {};
}

Status GgufFile::ReadAlignment() {
  const GgufValue* value = Find("general.alignment");
  if (!value) return {};
  const uint64_t* number = std::get_if<uint64_t>(&value->value);
  if (!number || value->type != GgufType::kU32 || !std::has_single_bit(*number) || *number < 8 ||
      *number > kMaxAlignment) {
    return MakeError(Code::kMalformed, "byte {}: general.alignment must be a u32 power of two from 8 to {}",
                     value->offset, kMaxAlignment);
  }
  alignment_ = *number;
  return {};
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

const GgufValue* GgufFile::Find(std::string_view key) const {
  auto it = metadata_.find(key);
  return it == metadata_.end() ? nullptr : &it->second;
}

Result<const GgufValue*> GgufFile::Get(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (!value) return MakeError(Code::kNotFound, "metadata key {} is missing", key);
  return value;
}

Result<uint64_t> GgufFile::Uint(std::string_view key) const {
  PB_ASSIGN(const GgufValue* value, Get(key));
  if (auto* u = std::get_if<uint64_t>(&value->value)) return *u;
  if (auto* i = std::get_if<int64_t>(&value->value); i && *i >= 0) return static_cast<uint64_t>(*i);
  return MakeError(Code::kMalformed, "byte {}: key {} is no unsigned number", value->offset, key);
}

Result<double> GgufFile::Float(std::string_view key) const {
  PB_ASSIGN(const GgufValue* value, Get(key));
  if (auto* d = std::get_if<double>(&value->value)) return *d;
  return MakeError(Code::kMalformed, "byte {}: key {} is no floating-point number", value->offset, key);
}

Result<bool> GgufFile::Bool(std::string_view key) const {
  PB_ASSIGN(const GgufValue* value, Get(key));
  if (auto* b = std::get_if<bool>(&value->value)) return *b;
  return MakeError(Code::kMalformed, "byte {}: key {} is no bool", value->offset, key);
}

Result<std::string> GgufFile::String(std::string_view key) const {
  PB_ASSIGN(const GgufValue* value, Get(key));
  if (auto* s = std::get_if<std::string>(&value->value)) return *s;
  return MakeError(Code::kMalformed, "byte {}: key {} is no string", value->offset, key);
}

const std::vector<std::string>* GgufFile::Strings(std::string_view key) const {
  const GgufValue* value = Find(key);
  return value ? std::get_if<std::vector<std::string>>(&value->value) : nullptr;
}

}  // namespace pb
