// BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn 2020), the hash function alone: 32 bytes,
// incremental. The portable compression is always there; on x86-64 eight or sixteen chunks are
// hashed side by side where the processor can.
#ifndef PARITYBIT_BASE_BLAKE3_H_
#define PARITYBIT_BASE_BLAKE3_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace pb {

using Blake3Digest = std::array<uint8_t, 32>;

// One implementation of the compression; all give the same digests.
struct Blake3Target {
  std::string_view name;  // "portable" "avx2" "avx512"
  size_t max_lanes;       // inputs hashed side by side
  // Replaces the chaining value by the compression of one 64-byte block (section 2.2).
  void (*compress)(uint32_t cv[8], const uint8_t* block, uint32_t block_bytes, uint64_t counter,
                   uint32_t flags);
  // Chaining values of n inputs (0 < n <= max_lanes), `stride` bytes apart, of n_blocks whole
  // blocks each; out: 32 n bytes. The first block gets flags_first too, the last flags_last; input
  // i has counter + i * counter_step.
  void (*hash_many)(const uint8_t* in, size_t n, size_t stride, size_t n_blocks, uint64_t counter,
                    uint64_t counter_step, uint32_t flags, uint32_t flags_first, uint32_t flags_last,
                    uint8_t* out);
};

// What this machine can run, the fastest first, portable last.
std::span<const Blake3Target* const> Blake3Targets();

// A running hash. Copyable: Finish leaves it as it is, so that a prefix can be hashed on.
class Blake3 {
 public:
  explicit Blake3(const Blake3Target& target = *Blake3Targets()[0]);
  void Update(std::span<const std::byte> bytes);
  Blake3Digest Finish() const;

 private:
  static constexpr size_t kBlock = 64, kChunk = 1024, kBatch = 128;  // bytes, bytes, chunks
  void AppendToChunk(const uint8_t* data, size_t n);
  void AddChunks(const uint8_t* data, size_t n_chunks);
  void PushSubtree(const uint8_t* cv, uint64_t n_chunks);
  void MergeTo(size_t depth);

  const Blake3Target* target_;
  // Chaining values of complete subtrees, the largest first; 2^54 chunks at most.
  std::array<std::array<uint8_t, 32>, 54> stack_;
  size_t depth_ = 0;
  uint64_t n_chunks_ = 0;  // complete
  // The chunk being filled: its last block is held back, because it may be the root. Empty before
  // any input, and after whole chunks that were hashed side by side.
  std::array<uint32_t, 8> chunk_cv_;
  std::array<uint8_t, kBlock> block_;
  size_t block_bytes_ = 0, chunk_blocks_ = 0;
};

Blake3Digest Blake3Of(std::span<const std::byte> bytes);
std::string ToHex(std::span<const uint8_t> bytes);

}  // namespace pb

#endif  // PARITYBIT_BASE_BLAKE3_H_
