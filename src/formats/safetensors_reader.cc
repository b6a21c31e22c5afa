// Reads safetensors files: the header with every offset checked, and tensors as float32.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/bytes.h"
#include "base/half.h"
#include "formats/safetensors.h"

namespace pb {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr int kMaxDepth = 3;                       // header, tensor, shape
constexpr size_t kMaxDims = 8;

struct DtypeRow {
  SafeDtype dtype;
  const char* name;
  uint64_t bytes;
};
constexpr DtypeRow kDtypes[] = {
    {SafeDtype::kF32, "F32", 4}, {SafeDtype::kF16, "F16", 2}, {SafeDtype::kBF16, "BF16", 2},
    {SafeDtype::kI64, "I64", 8}, {SafeDtype::kI32, "I32", 4}, {SafeDtype::kU8, "U8", 1},
};

const DtypeRow& RowOf(SafeDtype dtype) {
  for (const DtypeRow& row : kDtypes) {
    if (row.dtype == dtype) return row;
  }
  PB_CHECK(false);
}

// Parses the header. The values of deeper or repeated things are dropped as they come, so they cost
// no memory.
Result<Json> ParseHeader(std::string_view text) {
  std::string problem;
  std::set<std::string> seen;
  auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) problem = "nested deeper than a tensor's description";
    if (event == Json::parse_event_t::key && depth == 1) {
      const auto& name = parsed.get_ref<const std::string&>();
      if (!seen.insert(name).second) problem = fmt::format("tensor {} occurs twice", name.substr(0, 64));
    }
    return problem.empty();
  };
  try {
    Json json = Json::parse(text.begin(), text.end(), watch);
    if (!problem.empty()) return MakeError(Code::kMalformed, "byte 8: header: {}", problem);
    if (!json.is_object()) return MakeError(Code::kMalformed, "byte 8: the header is no JSON object");
    return json;
  } catch (const Json::exception& e) {
    auto* parse = dynamic_cast<const Json::parse_error*>(&e);
    return MakeError(Code::kMalformed, "byte {}: the header is not valid JSON",
                     8 + (parse ? parse->byte : 0));
  }
}

Error Bad(const std::string& name, std::string_view what) {
  return MakeError(Code::kMalformed, "byte 8: header: tensor {}: {}", name.substr(0, 64), what);
}

// The unsigned numbers of an array field, at most kMaxDims of them.
Result<std::vector<uint64_t>> Numbers(const std::string& name, const Json& entry, const char* field) {
  auto it = entry.find(field);
  if (it == entry.end() || !it->is_array() || it->size() > kMaxDims)
    return Bad(name, fmt::format("{} is no list of numbers", field));
  std::vector<uint64_t> numbers;
  for (const Json& n : *it) {
    if (!n.is_number_unsigned()) return Bad(name, fmt::format("{} is no list of numbers", field));
    numbers.push_back(n.get<uint64_t>());
  }
  return numbers;
}

// One tensor; `offset` and the size of `data` are still to be checked against the file:
// data_offsets are returned in `end`.
Result<SafeTensor> ReadEntry(const std::string& name, const Json& entry, uint64_t* end) {
  if (!entry.is_object()) return Bad(name, "no JSON object");
  SafeTensor t;
  t.name = name;
  auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string()) return Bad(name, "dtype is missing");
  auto row = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                          [&](auto& r) { return r.name == dtype->get<std::string>(); });
  if (row == std::end(kDtypes)) {
    return MakeError(Code::kUnsupported, "tensor {}: dtype {} is not supported", name.substr(0, 64),
                     dtype->get<std::string>().substr(0, 16));
  }
  t.dtype = row->dtype;
  PB_ASSIGN(t.shape, Numbers(name, entry, "shape"));
  PB_ASSIGN(auto offsets, Numbers(name, entry, "data_offsets"));
  if (offsets.size() != 2 || offsets[0] > offsets[1]) return Bad(name, "data_offsets are no range");
  uint64_t bytes = row->bytes;
  for (uint64_t d : t.shape) {
    if (__builtin_mul_overflow(bytes, d, &bytes)) return Bad(name, "the product of its dimensions overflows");
  }
  if (offsets[1] - offsets[0] != bytes) {
    return Bad(name, fmt::format("dtype and shape need {} bytes, data_offsets span {}", bytes,
                                 offsets[1] - offsets[0]));
  }
  t.offset = offsets[0];
  *end = offsets[1];
  return t;
}

}  // namespace

const char* SafeDtypeName(SafeDtype dtype) { return RowOf(dtype).name; }
uint64_t SafeDtypeBytes(SafeDtype dtype) { return RowOf(dtype).bytes; }

uint64_t SafeTensor::n_elements() const { return data.size() / SafeDtypeBytes(dtype); }

Result<std::vector<float>> SafeTensor::Floats() const {
  std::vector<float> out(n_elements());
  switch (dtype) {
    case SafeDtype::kF32:
      if (!out.empty()) std::memcpy(out.data(), data.data(), data.size());
      return out;
    case SafeDtype::kF16:
      for (size_t i = 0; i < out.size(); ++i) out[i] = F16ToF32(LoadLe<uint16_t>(data.data() + 2 * i));
      return out;
    case SafeDtype::kBF16:
      for (size_t i = 0; i < out.size(); ++i) out[i] = Bf16ToF32(LoadLe<uint16_t>(data.data() + 2 * i));
      return out;
    default:
      return MakeError(Code::kUnsupported, "tensor {} holds {}, not floating-point numbers", name,
                       SafeDtypeName(dtype));
  }
}

Result<SafetensorsFile> SafetensorsFile::Open(const std::filesystem::path& path) {
  PB_ASSIGN(MappedFile map, MappedFile::Open(path));
  SafetensorsFile file;
  file.bytes_ = map.bytes();
  file.map_ = std::move(map);
  Status status = file.ReadHeader();
  if (!status.ok()) return std::move(status).error().In(path.string());
  return file;
}

Result<SafetensorsFile> SafetensorsFile::Parse(std::vector<std::byte> bytes) {
  SafetensorsFile file;
  file.owned_ = std::move(bytes);
  file.bytes_ = file.owned_;
  PB_TRY(file.ReadHeader());
  return file;
}

Status SafetensorsFile::ReadHeader() {
  ByteReader reader(bytes_);
  PB_ASSIGN(uint64_t n, reader.Read<uint64_t>("the header length"));
  if (n > kMaxHeaderBytes) {
    return MakeError(Code::kMalformed,
                     "byte 0: a header of {} bytes, at most {} are allowed: no safetensors file?", n,
                     kMaxHeaderBytes);
  }
  PB_ASSIGN(auto header, reader.Take(n, "the header"));
  PB_ASSIGN(Json json, ParseHeader({reinterpret_cast<const char*>(header.data()), header.size()}));
  uint64_t data_bytes = reader.remaining();
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return Bad(name, "no JSON object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) return Bad(name, "a value is no string");
        metadata_.emplace(key, value.get<std::string>());
      }
      continue;
    }
    uint64_t end = 0;
    PB_ASSIGN(SafeTensor t, ReadEntry(name, entry, &end));
    if (end > data_bytes) {
      return MakeError(Code::kMalformed,
                       "tensor {}: data ends at byte {}, the file has {} ({} missing): truncated?",
                       name.substr(0, 64), reader.offset() + end, bytes_.size(), end - data_bytes);
    }
    t.data = bytes_.subspan(reader.offset() + t.offset, end - t.offset);
    tensors_.push_back(std::move(t));
  }
  return PlaceTensors(reader.offset());
}

Status SafetensorsFile::PlaceTensors(uint64_t data_start) {
  std::stable_sort(tensors_.begin(), tensors_.end(), [](const SafeTensor& a, const SafeTensor& b) {
    return std::pair(a.offset, a.data.size()) < std::pair(b.offset, b.data.size());
  });
  uint64_t end = 0;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    SafeTensor& t = tensors_[i];
    if (t.offset != end) {
      return MakeError(Code::kMalformed, "tensor {}: begins at byte {}, the data before it end at byte {}",
                       t.name.substr(0, 64), data_start + t.offset, data_start + end);
    }
    end += t.data.size();
    t.offset += data_start;
    index_.emplace(t.name, i);
  }
  if (data_start + end == bytes_.size()) return {};
  return MakeError(Code::kMalformed, "byte {}: {} bytes behind the last tensor belong to none",
                   data_start + end, bytes_.size() - data_start - end);
}

const SafeTensor* SafetensorsFile::Find(std::string_view name) const {
  auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

}  // namespace pb
