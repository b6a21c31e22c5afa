// What travels between paritybit and paritybit-host: frames of little-endian values over a socket.
// Bulk data does not: a frame names a place in the shared memory instead. Either side checks every
// length it reads; the other may be anything.
#ifndef PARITYBIT_HOST_WIRE_H_
#define PARITYBIT_HOST_WIRE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "host/engine.h"

namespace pb::host {

inline constexpr uint32_t kWireMagic = 0x31484250;  // "PBH1"
inline constexpr uint64_t kMaxBodyBytes =
    256ull << 20;  // a frame that claims more is refused before anything is allocated
inline constexpr uint64_t kMaxTensorValues = 1ull << 36;

enum class MessageType : uint32_t {
  // paritybit -> paritybit-host, answered by kReply or kError
  kCreate = 1,
  kOpenModel,
  kTokenize,
  kDetokenize,
  kOpenSession,
  kStages,
  kReset,
  kReplay,
  kDecode,
  kEval,
  kQuit,  // not answered
  // paritybit -> paritybit-host while an evaluation stands at kPoint or kLogits
  kContinue,
  kOverwrite,
  kStop,
  // paritybit-host -> paritybit
  kReply,
  kError,
  kPoint,
  kLogits,
};

struct Frame {
  MessageType type = MessageType::kError;
  std::string body;
};

// Collects received bytes and cuts them into frames. Memory follows what arrived, never what a
// header claims.
class FrameBuffer {
 public:
  void Append(const char* bytes, size_t n) { bytes_.append(bytes, n); }
  // The next whole frame, nothing when more bytes are needed, or an error when these are not
  // frames.
  Result<std::optional<Frame>> Next();

 private:
  std::string bytes_;
};

// Builds a frame; Finish() returns it with its header.
class FrameWriter {
 public:
  explicit FrameWriter(MessageType type);
  template <typename T>
  void Put(T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void PutString(std::string_view text);
  void PutInts(std::span<const int32_t> values);
  void PutFacts(const Facts& facts);
  void PutSettings(const Settings& settings);
  void PutFilter(const TapFilter& filter);
  void PutPoint(const PointRef& point);
  std::string Finish() &&;

 private:
  std::string bytes_;
};

Result<std::string> ReadString(ByteReader& in, std::string_view what);
Result<std::vector<int32_t>> ReadInts(ByteReader& in, std::string_view what);
Result<Facts> ReadFacts(ByteReader& in);
Result<Settings> ReadSettings(ByteReader& in);
Result<TapFilter> ReadFilter(ByteReader& in);
Result<PointRef> ReadPoint(ByteReader& in);
// Nothing may follow the last field.
Status ExpectEnd(const ByteReader& in);
// The bytes of a frame's body, for a ByteReader that must not outlive it.
std::span<const std::byte> BodyBytes(const Frame& frame);

// A tensor of f32 in the shared memory.
struct Placed {
  std::string name;
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // bytes from the start of the shared memory, a multiple of 64
  uint64_t n_values = 0;
};
void PutPlaced(FrameWriter& out, const Placed& tensor);
// Refuses shapes without values, products that overflow, and tensors not wholly within
// memory_bytes.
Result<Placed> ReadPlaced(ByteReader& in, uint64_t memory_bytes);
// Codes of a replay; their values stand in the shared memory as f32.
struct PlacedCodes {
  std::string scheme, maker;
  int64_t block = 0;
  Placed codes, scales;
  std::optional<Placed> sums, products;
};
void PutCodes(FrameWriter& out, const PlacedCodes& codes);
// Refuses blocks that are no part of a row, and shapes that do not belong together.
Result<PlacedCodes> ReadCodes(ByteReader& in, uint64_t memory_bytes);
// Product of 1 to 4 positive dimensions up to kMaxTensorValues; nothing otherwise.
std::optional<uint64_t> CountValues(std::span<const int64_t> shape);

// Returns text with every byte that is not part of valid UTF-8, and every control character but
// newline, tab and, where they are kept, carriage return, replaced by '?'.
std::string Printable(std::string_view text, bool keep_returns = false);

}  // namespace pb::host

#endif  // PARITYBIT_HOST_WIRE_H_
