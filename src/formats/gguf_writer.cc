// The writer: collects, then lays out header and data in one pass.
#include "base/bytes.h"
#include "formats/gguf.h"

namespace pb {
namespace {

constexpr uint64_t kAlignment = 32;

class Sink {
 public:
  template <typename T>
  void Put(T v) {
    const auto* p = reinterpret_cast<const std::byte*>(&v);
    bytes_.insert(bytes_.end(), p, p + sizeof v);
  }
  void Put(std::string_view s) {
    Put<uint64_t>(s.size());
    Append(std::as_bytes(std::span(s)));
  }
  void Append(std::span<const std::byte> b) { bytes_.insert(bytes_.end(), b.begin(), b.end()); }
  void Pad() { bytes_.resize((bytes_.size() + kAlignment - 1) / kAlignment * kAlignment); }
  void Reserve(uint64_t n) { bytes_.reserve(n); }
  std::vector<std::byte> Take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

// Writes one number in the width that `type` has in the file.
template <typename Wide>
void PutNumber(Sink& out, GgufType type, Wide v) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kBool:
      return out.Put(static_cast<uint8_t>(v));
    case GgufType::kI8:
      return out.Put(static_cast<int8_t>(v));
    case GgufType::kU16:
      return out.Put(static_cast<uint16_t>(v));
    case GgufType::kI16:
      return out.Put(static_cast<int16_t>(v));
    case GgufType::kU32:
      return out.Put(static_cast<uint32_t>(v));
    case GgufType::kI32:
      return out.Put(static_cast<int32_t>(v));
    case GgufType::kU64:
      return out.Put(static_cast<uint64_t>(v));
    case GgufType::kI64:
      return out.Put(static_cast<int64_t>(v));
    case GgufType::kF32:
      return out.Put(static_cast<float>(v));
    case GgufType::kF64:
      return out.Put(static_cast<double>(v));
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  PB_CHECK(false);
}

struct ValueVisitor {
  Sink& out;
  const GgufValue& value;

  void operator()(const std::string& s) const { out.Put(std::string_view(s)); }
  template <typename T>
  void operator()(const std::vector<T>& elements) const {
    out.Put(static_cast<uint32_t>(value.element));
    out.Put<uint64_t>(elements.size());
    for (const T& e : elements) {
      if constexpr (std::is_same_v<T, std::string>) {
        out.Put(std::string_view(e));
      } else {
        PutNumber(out, value.element, e);
      }
    }
  }
  template <typename T>
  void operator()(const T& number) const {
    PutNumber(out, value.type, number);
  }
};

uint64_t Padded(uint64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

void GgufWriter::Add(std::string key, GgufValue value) {
  metadata_.emplace_back(std::move(key), std::move(value));
}

void GgufWriter::AddUint32(std::string key, uint32_t v) {
  Add(std::move(key), {GgufType::kU32, {}, uint64_t{v}, 0});
}

void GgufWriter::AddFloat32(std::string key, float v) {
  Add(std::move(key), {GgufType::kF32, {}, double{v}, 0});
}

void GgufWriter::AddBool(std::string key, bool v) { Add(std::move(key), {GgufType::kBool, {}, v, 0}); }

void GgufWriter::AddString(std::string key, std::string v) {
  Add(std::move(key), {GgufType::kString, {}, std::move(v), 0});
}

void GgufWriter::AddStrings(std::string key, std::vector<std::string> v) {
  Add(std::move(key), {GgufType::kArray, GgufType::kString, std::move(v), 0});
}

void GgufWriter::AddInts(std::string key, std::vector<int32_t> v) {
  Add(std::move(key), {GgufType::kArray, GgufType::kI32, std::vector<int64_t>(v.begin(), v.end()), 0});
}

void GgufWriter::AddTensor(std::string name, uint32_t type_id, std::vector<uint64_t> shape,
                           std::vector<std::byte> data) {
  auto bytes = TensorBytes(type_id, shape);
  PB_CHECK(bytes.ok() && *bytes == data.size());
  tensors_.push_back({std::move(name), type_id, std::move(shape), std::move(data)});
}

std::vector<std::byte> GgufWriter::Serialise() const {
  Sink out;
  uint64_t total = 1 << 16;
  for (const Tensor& t : tensors_) total += Padded(t.data.size());
  out.Reserve(total);
  out.Append(std::as_bytes(std::span("GGUF", 4)));
  out.Put<uint32_t>(3);
  out.Put<uint64_t>(tensors_.size());
  out.Put<uint64_t>(metadata_.size());
  for (const auto& [key, value] : metadata_) {
    out.Put(std::string_view(key));
    out.Put(static_cast<uint32_t>(value.type));
    std::visit(ValueVisitor{out, value}, value.value);
  }
  uint64_t offset = 0;
  for (const Tensor& t : tensors_) {
    out.Put(std::string_view(t.name));
    out.Put(static_cast<uint32_t>(t.shape.size()));
    for (uint64_t d : t.shape) out.Put<uint64_t>(d);
    out.Put<uint32_t>(t.type_id);
    out.Put<uint64_t>(offset);
    offset += Padded(t.data.size());
  }
  for (const Tensor& t : tensors_) {
    out.Pad();
    out.Append(t.data);
  }
  return out.Take();
}

Status GgufWriter::Write(const std::filesystem::path& path) const {
  std::vector<std::byte> bytes = Serialise();
  return WriteFileAtomic(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

}  // namespace pb
