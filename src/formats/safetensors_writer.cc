// Streams tensors to a safetensors file, and writes its header last.
#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/system_error.h"
#include "formats/safetensors.h"

namespace pb {
namespace {

using Json = nlohmann::json;

// The longest description of a tensor beside its name: eight dimensions and two offsets of twenty
// digits.
constexpr uint64_t kMaxEntryBytes = 300;
constexpr size_t kMaxDims = 8;

// JSON text of a string; nothing where it is no UTF-8.
std::optional<std::string> Quoted(std::string_view s) {
  try {
    return Json(std::string(s)).dump();
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

Error Errno(const std::filesystem::path& path, std::string_view doing) {
  return MakeError(Code::kIo, "{}: {}: {}", path.string(), doing, ErrnoText(errno));
}

}  // namespace

Result<SafetensorsWriter> SafetensorsWriter::Create(const std::filesystem::path& path,
                                                    const std::map<std::string, std::string>& metadata,
                                                    uint64_t header_bytes) {
  SafetensorsWriter writer;
  writer.path_ = path;
  writer.header_bytes_ = (header_bytes + 63) / 64 * 64 + 56;  // data begin at a multiple of 64
  writer.entries_ = "{\"__metadata__\":{";
  for (const auto& [key, value] : metadata) {
    auto k = Quoted(key), v = Quoted(value);
    if (!k || !v) return MakeError(Code::kUsage, "{}: metadata must be UTF-8", path.string());
    writer.entries_ += fmt::format("{}{}:{}", writer.entries_.back() == '{' ? "" : ",", *k, *v);
  }
  writer.entries_ += "}";
  if (!writer.HasRoom(""))
    return MakeError(Code::kUsage, "{}: a header of {} bytes is too small", path.string(), header_bytes);
  writer.file_.reset(std::fopen(path.c_str(), "wb"));
  if (!writer.file_) return Errno(path, "cannot create");
  std::string blank(8 + writer.header_bytes_, ' ');
  StoreLe<uint64_t>(blank.data(), writer.header_bytes_);
  PB_TRY(writer.WriteAt(0, blank));
  PB_TRY(writer.Flush());
  return writer;
}

bool SafetensorsWriter::HasRoom(std::string_view name) const {
  // A byte of a name takes at most six in JSON.
  return entries_.size() + 6 * name.size() + kMaxEntryBytes <= header_bytes_;
}

Status SafetensorsWriter::Add(std::string_view name, SafeDtype dtype, std::span<const uint64_t> shape,
                              std::span<const std::byte> data) {
  PB_CHECK(file_ != nullptr && shape.size() <= kMaxDims);
  uint64_t bytes = SafeDtypeBytes(dtype);
  for (uint64_t d : shape) bytes *= d;
  PB_CHECK(bytes == data.size());
  auto quoted = Quoted(name);
  if (!quoted) return MakeError(Code::kUsage, "{}: a tensor's name is no UTF-8", path_.string());
  if (!HasRoom(name))
    return MakeError(Code::kUsage, "{}: the header is full at tensor {}", path_.string(), name);
  if (name == "__metadata__" || !names_.emplace(name).second) {
    return MakeError(Code::kUsage, "{}: the name {} is taken", path_.string(), name);
  }
  if (!data.empty() && std::fwrite(data.data(), 1, data.size(), file_.get()) != data.size())
    return Errno(path_, "cannot write");
  entries_ +=
      fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", *quoted,
                  SafeDtypeName(dtype), fmt::join(shape, ","), data_bytes_, data_bytes_ + data.size());
  data_bytes_ += data.size();
  return {};
}

Status SafetensorsWriter::WriteAt(uint64_t offset, std::string_view bytes) {
  if (std::fseek(file_.get(), static_cast<long>(offset), SEEK_SET) != 0 ||
      std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) != bytes.size()) {
    return Errno(path_, "cannot write");
  }
  return {};
}

Status SafetensorsWriter::Flush() {
  PB_CHECK(file_ != nullptr);
  if (std::fflush(file_.get()) != 0) return Errno(path_, "cannot write");
  PB_TRY(WriteAt(8, entries_ + "}"));
  if (std::fflush(file_.get()) != 0 || std::fseek(file_.get(), 0, SEEK_END) != 0)
    return Errno(path_, "cannot write");
  return {};
}

Status SafetensorsWriter::Finish() {
  PB_TRY(Flush());
  if (std::fclose(file_.release()) != 0) return Errno(path_, "cannot finish");
  return {};
}

}  // namespace pb
