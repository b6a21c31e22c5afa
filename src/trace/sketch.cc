// Hashes, signs and sums; distances from two sketches; sketches as bytes.
#include "trace/sketch.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/bytes.h"
#include "base/random.h"

namespace pb::trace {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that mixes every bit into
// every other.
uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

constexpr double kCodeMax = 32767;

}  // namespace

std::vector<uint8_t> Sketch::Bytes() const {
  std::vector<uint8_t> bytes(4 + 2 * kSketchValues);
  StoreLe(bytes.data(), scale);
  for (int i = 0; i < kSketchValues; ++i) StoreLe(bytes.data() + 4 + 2 * i, codes[i]);
  return bytes;
}

Result<Sketch> SketchFromBytes(std::span<const uint8_t> bytes) {
  constexpr size_t kBytes = 4 + 2 * kSketchValues;
  if (bytes.size() != kBytes) {
    return MakeError(Code::kMalformed, "a sketch has {} bytes, not {}", kBytes, bytes.size());
  }
  Sketch sketch;
  sketch.scale = LoadLe<float>(bytes.data());
  if (!std::isfinite(sketch.scale) || sketch.scale < 0) {
    return MakeError(Code::kMalformed, "the scale of a sketch is {}", sketch.scale);
  }
  for (int i = 0; i < kSketchValues; ++i) sketch.codes[i] = LoadLe<int16_t>(bytes.data() + 4 + 2 * i);
  return sketch;
}

void SketchSum::Add(const Sketch& sketch, double factor) {
  for (int i = 0; i < kSketchValues; ++i) values_[i] += factor * sketch.scale * sketch.codes[i];
  double step = factor * sketch.scale;
  // a uniform rounding error has variance step^2 / 12
  rounding_ += step * step / 12 * kSketchBuckets;
}

double SketchSum::SquaredNorm() const {
  double sum = 0;
  for (double v : values_) sum += v * v;
  return std::max(0.0, sum / kSketchTables - rounding_);
}

Sketcher::Sketcher(uint64_t seed) : seed_(Mix(seed)) {
  Random random(seed);
  for (int p = 0; p < kPatterns / 2; ++p) {
    uint64_t bits = random.Next();
    for (int i = 0; i < kBlock; ++i) {
      signs_[p][i] = (bits >> i & 1) != 0 ? 0x80000000u : 0u;
      signs_[p + kPatterns / 2][i] = signs_[p][i] ^ 0x80000000u;
    }
  }
  std::memset(sums_, 0, sizeof sums_);
}

// Each table takes 12 bits of the hash: by how much the block is rotated over the buckets, and its
// pattern of signs.
void Sketcher::AddBlock(uint64_t hash, const float* values) {
  // Apart from the sums, which the compiler cannot know to lie elsewhere.
  alignas(64) uint32_t finite[kBlock];
  uint32_t any = 0;
  for (int i = 0; i < kBlock; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(values[i]);
    finite[i] = (bits & 0x7f800000u) == 0x7f800000u ? 0u : bits;
    any |= finite[i] << 1;
  }
  if (any == 0) return;  // hidden scores and probabilities
  for (int t = 0; t < kSketchTables; ++t) {
    float* sums = sums_[t][hash & (kSketchBuckets - 1)];
    const uint32_t* signs = signs_[hash >> 4 & (kPatterns - 1)];
    hash >>= 12;
    for (int i = 0; i < kBlock; ++i) sums[i] += std::bit_cast<float>(finite[i] ^ signs[i]);
  }
}

void Sketcher::Add(int64_t position, int64_t head, std::span<const float> values) {
  uint64_t key = Mix(Mix(seed_ + static_cast<uint64_t>(position)) + static_cast<uint64_t>(head));
  size_t i = 0;
  for (; i + kBlock <= values.size(); i += kBlock) AddBlock(Mix(key + i), values.data() + i);
  if (i < values.size()) {
    float rest[kBlock] = {};
    std::copy(values.begin() + static_cast<ptrdiff_t>(i), values.end(), rest);
    AddBlock(Mix(key + i), rest);
  }
}

Sketch Sketcher::Take() {
  float values[kSketchValues] = {};
  float largest = 0;
  for (int t = 0; t < kSketchTables; ++t) {
    for (int r = 0; r < kSketchBuckets; ++r) {
      for (int i = 0; i < kBlock; ++i)
        values[t * kSketchBuckets + (i + r) % kSketchBuckets] += sums_[t][r][i];
    }
  }
  std::memset(sums_, 0, sizeof sums_);
  for (float v : values) largest = std::max(largest, std::abs(v));
  Sketch sketch;
  sketch.scale = static_cast<float>(largest / kCodeMax);
  // Finite values may still sum to infinity, and tiny ones have no scale: then nothing can be told.
  if (!std::isnormal(sketch.scale)) return {};
  for (int i = 0; i < kSketchValues; ++i) {
    double code = std::nearbyint(static_cast<double>(values[i]) / sketch.scale);
    sketch.codes[i] = static_cast<int16_t>(std::clamp(code, -kCodeMax, kCodeMax));
  }
  return sketch;
}

}  // namespace pb::trace
