// Encodes and decodes frames, with every length checked against what has arrived.
#include "host/wire.h"

#include <fmt/format.h>

namespace pb::host {
namespace {

struct Header {
  uint32_t magic;
  uint32_t type;
  uint64_t size;
};
static_assert(sizeof(Header) == 16);

// Length of the valid UTF-8 sequence at the head of text (Unicode 15, table 3-7), or 0.
size_t Utf8Length(std::string_view text) {
  auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  auto tail = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return tail(1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    if ((lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xed && byte(1) > 0x9f)) return 0;
    return tail(1) && tail(2) ? 3 : 0;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    if ((lead == 0xf0 && byte(1) < 0x90) || (lead == 0xf4 && byte(1) > 0x8f)) return 0;
    return tail(1) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

// Reads a count whose items take at least item_bytes each: a count that cannot fit is refused
// before anything is allocated.
Result<uint64_t> ReadCount(ByteReader& in, uint64_t item_bytes, std::string_view what) {
  PB_ASSIGN(uint64_t n, in.Read<uint64_t>(what));
  if (n > in.remaining() / item_bytes) return in.Truncated(what, n);
  return n;
}

}  // namespace

Result<std::optional<Frame>> FrameBuffer::Next() {
  if (bytes_.size() < sizeof(Header)) return std::optional<Frame>();
  auto header = LoadLe<Header>(bytes_.data());
  if (header.magic != kWireMagic)
    return MakeError(Code::kEngine, "bytes that are no message: {:08x}", header.magic);
  if (header.type < static_cast<uint32_t>(MessageType::kCreate) ||
      header.type > static_cast<uint32_t>(MessageType::kLogits)) {
    return MakeError(Code::kEngine, "a message of unknown type {}", header.type);
  }
  if (header.size > kMaxBodyBytes)
    return MakeError(Code::kEngine, "a message that claims {} bytes", header.size);
  if (bytes_.size() - sizeof(Header) < header.size) return std::optional<Frame>();
  Frame frame{static_cast<MessageType>(header.type), bytes_.substr(sizeof(Header), header.size)};
  bytes_.erase(0, sizeof(Header) + header.size);
  return std::optional<Frame>(std::move(frame));
}

FrameWriter::FrameWriter(MessageType type) { Put(Header{kWireMagic, static_cast<uint32_t>(type), 0}); }

std::string FrameWriter::Finish() && {
  StoreLe<uint64_t>(bytes_.data() + offsetof(Header, size), bytes_.size() - sizeof(Header));
  return std::move(bytes_);
}

void FrameWriter::PutString(std::string_view text) {
  Put<uint64_t>(text.size());
  bytes_.append(text);
}

void FrameWriter::PutInts(std::span<const int32_t> values) {
  Put<uint64_t>(values.size());
  if (!values.empty()) bytes_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}

void FrameWriter::PutFacts(const Facts& facts) {
  Put<uint64_t>(facts.size());
  for (const Fact& fact : facts) {
    PutString(fact.key);
    PutString(fact.value);
    PutString(fact.origin);
  }
}

void FrameWriter::PutSettings(const Settings& settings) {
  Put<uint64_t>(settings.size());
  for (const auto& [key, value] : settings) {
    PutString(key);
    PutString(value);
  }
}

void FrameWriter::PutFilter(const TapFilter& filter) {
  PutInts(filter.stages);
  PutInts(filter.layers);
  Put<uint32_t>((filter.outputs ? 1u : 0u) | (filter.inputs ? 2u : 0u) | (filter.unmapped ? 4u : 0u));
}

void FrameWriter::PutPoint(const PointRef& point) {
  Put(point.stage);
  Put(point.layer);
  Put(point.first_position);
  Put(point.occurrence);
  PutString(point.native_name);
  PutString(point.op);
}

Result<std::string> ReadString(ByteReader& in, std::string_view what) {
  PB_ASSIGN(uint64_t n, ReadCount(in, 1, what));
  PB_ASSIGN(auto bytes, in.Take(n, what));
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Result<std::vector<int32_t>> ReadInts(ByteReader& in, std::string_view what) {
  PB_ASSIGN(uint64_t n, ReadCount(in, sizeof(int32_t), what));
  PB_ASSIGN(auto bytes, in.Take(n * sizeof(int32_t), what));
  std::vector<int32_t> values(n);
  if (n > 0) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

Result<Facts> ReadFacts(ByteReader& in) {
  PB_ASSIGN(uint64_t n, ReadCount(in, 3 * sizeof(uint64_t), "facts"));
  Facts facts;
  for (uint64_t i = 0; i < n; ++i) {
    PB_ASSIGN(std::string key, ReadString(in, "fact key"));
    PB_ASSIGN(std::string value, ReadString(in, "fact value"));
    PB_ASSIGN(std::string origin, ReadString(in, "fact origin"));
    facts.push_back(
        {Printable(key), Printable(value, true), Printable(origin)});  // chat templates have returns
  }
  return facts;
}

Result<Settings> ReadSettings(ByteReader& in) {
  PB_ASSIGN(uint64_t n, ReadCount(in, 2 * sizeof(uint64_t), "settings"));
  Settings settings;
  for (uint64_t i = 0; i < n; ++i) {
    PB_ASSIGN(std::string key, ReadString(in, "setting key"));
    PB_ASSIGN(std::string value, ReadString(in, "setting value"));
    settings.emplace_back(std::move(key), std::move(value));
  }
  return settings;
}

Result<TapFilter> ReadFilter(ByteReader& in) {
  TapFilter filter;
  PB_ASSIGN(filter.stages, ReadInts(in, "tap stages"));
  PB_ASSIGN(filter.layers, ReadInts(in, "tap layers"));
  PB_ASSIGN(uint32_t bits, in.Read<uint32_t>("tap bits"));
  filter.outputs = bits & 1;
  filter.inputs = bits & 2;
  filter.unmapped = bits & 4;
  return filter;
}

Result<PointRef> ReadPoint(ByteReader& in) {
  PointRef point;
  PB_ASSIGN(point.stage, in.Read<int32_t>("stage"));
  PB_ASSIGN(point.layer, in.Read<int32_t>("layer"));
  PB_ASSIGN(point.first_position, in.Read<int32_t>("first position"));
  PB_ASSIGN(point.occurrence, in.Read<int32_t>("occurrence"));
  PB_ASSIGN(std::string native_name, ReadString(in, "native name"));
  PB_ASSIGN(std::string op, ReadString(in, "op"));
  if (point.stage < PB_STAGE_UNMAPPED || point.stage >= PB_STAGE_COUNT) {
    return MakeError(Code::kEngine, "a point of unknown stage {}", point.stage);
  }
  point.native_name = Printable(native_name);
  point.op = Printable(op);
  return point;
}

Status ExpectEnd(const ByteReader& in) {
  if (in.remaining() == 0) return {};
  return MakeError(Code::kEngine, "byte {}: {} stray bytes at the end of a message", in.offset(),
                   in.remaining());
}

std::span<const std::byte> BodyBytes(const Frame& frame) {
  return std::as_bytes(std::span(frame.body.data(), frame.body.size()));
}

std::optional<uint64_t> CountValues(std::span<const int64_t> shape) {
  if (shape.empty() || shape.size() > 4) return std::nullopt;
  uint64_t n = 1;
  for (int64_t extent : shape) {
    if (extent <= 0 || static_cast<uint64_t>(extent) > kMaxTensorValues / n) return std::nullopt;
    n *= static_cast<uint64_t>(extent);
  }
  return n;
}

void PutPlaced(FrameWriter& out, const Placed& tensor) {
  out.PutString(tensor.name);
  out.Put<uint32_t>(tensor.shape.size());
  for (int64_t extent : tensor.shape) out.Put(extent);
  out.Put(tensor.offset);
}

Result<Placed> ReadPlaced(ByteReader& in, uint64_t memory_bytes) {
  Placed tensor;
  PB_ASSIGN(std::string name, ReadString(in, "tensor name"));
  tensor.name = Printable(name);
  PB_ASSIGN(uint32_t n_dims, in.Read<uint32_t>("tensor dimensions"));
  if (n_dims > 4) return MakeError(Code::kEngine, "a tensor of {} dimensions", n_dims);
  for (uint32_t i = 0; i < n_dims; ++i) {
    PB_ASSIGN(int64_t extent, in.Read<int64_t>("tensor extent"));
    tensor.shape.push_back(extent);
  }
  PB_ASSIGN(tensor.offset, in.Read<uint64_t>("tensor place"));
  auto n = CountValues(tensor.shape);
  if (!n) return MakeError(Code::kEngine, "a tensor of shape ({})", fmt::join(tensor.shape, ", "));
  tensor.n_values = *n;
  if (tensor.offset % 64 != 0 || tensor.offset > memory_bytes ||
      memory_bytes - tensor.offset < *n * sizeof(float)) {
    return MakeError(Code::kEngine, "a tensor of {} values at byte {} of {} shared bytes", *n, tensor.offset,
                     memory_bytes);
  }
  return tensor;
}

void PutCodes(FrameWriter& out, const PlacedCodes& codes) {
  out.PutString(codes.scheme);
  out.PutString(codes.maker);
  out.Put(codes.block);
  PutPlaced(out, codes.codes);
  PutPlaced(out, codes.scales);
  out.Put<uint32_t>((codes.sums ? 1u : 0u) | (codes.products ? 2u : 0u));
  if (codes.sums) PutPlaced(out, *codes.sums);
  if (codes.products) PutPlaced(out, *codes.products);
}

Result<PlacedCodes> ReadCodes(ByteReader& in, uint64_t memory_bytes) {
  PlacedCodes c;
  PB_ASSIGN(std::string scheme, ReadString(in, "scheme"));
  PB_ASSIGN(std::string maker, ReadString(in, "maker"));
  c.scheme = Printable(scheme), c.maker = Printable(maker);
  PB_ASSIGN(c.block, in.Read<int64_t>("block"));
  PB_ASSIGN(c.codes, ReadPlaced(in, memory_bytes));
  PB_ASSIGN(c.scales, ReadPlaced(in, memory_bytes));
  PB_ASSIGN(uint32_t bits, in.Read<uint32_t>("codes bits"));
  if (bits & 1) {
    PB_ASSIGN(Placed sums, ReadPlaced(in, memory_bytes));
    c.sums = std::move(sums);
  }
  if (bits & 2) {
    PB_ASSIGN(Placed products, ReadPlaced(in, memory_bytes));
    c.products = std::move(products);
  }
  const std::vector<int64_t>& shape = c.codes.shape;
  if (shape.size() != 2 || c.block < 1 || c.block > shape[1])
    return MakeError(Code::kEngine, "lied about codes: blocks of {} in rows of shape ({})", c.block,
                     fmt::join(shape, ", "));
  const std::vector<int64_t> blocks = {shape[0], (shape[1] + c.block - 1) / c.block};
  if (c.scales.shape != blocks || (c.sums && c.sums->shape != blocks) ||
      (c.products && (c.products->shape.size() != 2 || c.products->shape[0] != shape[0])))
    return MakeError(Code::kEngine, "lied about codes: scales, sums or products of another shape");
  return c;
}

std::string Printable(std::string_view text, bool keep_returns) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    size_t n = Utf8Length(text);
    auto c = static_cast<unsigned char>(text[0]);
    bool kept = c == '\n' || c == '\t' || (c == '\r' && keep_returns);
    if (n == 0 || c == 0x7f || (c < 0x20 && !kept)) {
      out += '?';
      n = 1;
    } else {
      out += text.substr(0, n);
    }
    text.remove_prefix(n);
  }
  return out;
}

}  // namespace pb::host
