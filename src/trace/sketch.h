// CountSketch (Charikar, Chen, Farach-Colton 2002) of a tensor: 64 sums of signed values, from
// which the distance of two tensors is told without either of them. Linear: the sketch of a prefill
// is the sum of the sketches of its rows.
#ifndef PARITYBIT_TRACE_SKETCH_H_
#define PARITYBIT_TRACE_SKETCH_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"

namespace pb::trace {

// Every value goes into one bucket of each table, with a sign. ||A - B||^2 is the mean over the
// tables of the sums of squared differences: unbiased, and its standard deviation is at most sqrt(2
// / 64) of it, whatever the tensors. docs/format_trace.md says what that gives.
inline constexpr int kSketchTables = 4, kSketchBuckets = 16, kSketchValues = kSketchTables * kSketchBuckets;
inline constexpr uint64_t kSketchSeed = 0x7061726974796269;  // traces compare only under one seed
// A relative distance above kSketchFloor is told within +-kSketchError in at least
// kSketchConfidence of all cases.
inline constexpr double kSketchFloor = 1e-3, kSketchError = 0.25, kSketchConfidence = 0.99;

// The sums, as stored: each an integer times `scale`.
struct Sketch {
  float scale = 0;
  std::array<int16_t, kSketchValues> codes{};

  bool operator==(const Sketch&) const = default;
  std::vector<uint8_t> Bytes() const;  // f32 scale, 64 i16; little-endian, 132 bytes
};
Result<Sketch> SketchFromBytes(std::span<const uint8_t> bytes);

// The sums of one or several sketches in full precision.
class SketchSum {
 public:
  void Add(const Sketch& sketch, double factor = 1);
  // ||x||^2 of what was added, less what the rounding to integers adds to it on average; not below 0.
  double SquaredNorm() const;
  // What that rounding adds on average: distances below its root are lost in it.
  double RoundingFloor() const { return rounding_; }

 private:
  std::array<double, kSketchValues> values_{};
  double rounding_ = 0;
};

// Makes sketches under one seed. Holds 20 KiB; not for use from several threads.
class Sketcher {
 public:
  explicit Sketcher(uint64_t seed = kSketchSeed);
  // Adds the row of a tensor at a position; `head` tells apart runs of values whose length depends
  // on the engine (the keys of each head in attention scores), 0 elsewhere. NaN and infinity count
  // as 0.
  void Add(int64_t position, int64_t head, std::span<const float> values);
  // The sketch of all that was added since the last call.
  Sketch Take();

 private:
  static constexpr int kBlock = kSketchBuckets;  // values that share one hash: never in one bucket
  static constexpr int kPatterns = 256;

  void AddBlock(uint64_t hash, const float* values);

  uint64_t seed_;
  alignas(64) uint32_t signs_[kPatterns][kBlock];  // sign bits
  // by table and rotation, not yet rotated
  alignas(64) float sums_[kSketchTables][kSketchBuckets][kBlock];
};

}  // namespace pb::trace

#endif  // PARITYBIT_TRACE_SKETCH_H_
