#include "base/blake3.h"

#include <bit>
#include <cstring>

#include "base/blake3_lanes.h"
#include "base/bytes.h"

namespace pb {

#if defined(__x86_64__)
extern const Blake3Target kBlake3Avx2, kBlake3Avx512;
#endif

namespace {

struct Scalar {
  using V = uint32_t;
  static V Add(V a, V b) { return a + b; }
  static V Xor(V a, V b) { return a ^ b; }
  static V Rotate16(V a) { return std::rotr(a, 16); }
  static V Rotate12(V a) { return std::rotr(a, 12); }
  static V Rotate8(V a) { return std::rotr(a, 8); }
  static V Rotate7(V a) { return std::rotr(a, 7); }
};

void CompressPortable(uint32_t cv[8], const uint8_t* block, uint32_t block_bytes, uint64_t counter,
                      uint32_t flags) {
  uint32_t m[16];
  for (int i = 0; i < 16; ++i) m[i] = LoadLe<uint32_t>(block + 4 * i);
  uint32_t v[16] = {cv[0],
                    cv[1],
                    cv[2],
                    cv[3],
                    cv[4],
                    cv[5],
                    cv[6],
                    cv[7],
                    kBlake3Iv[0],
                    kBlake3Iv[1],
                    kBlake3Iv[2],
                    kBlake3Iv[3],
                    static_cast<uint32_t>(counter),
                    static_cast<uint32_t>(counter >> 32),
                    block_bytes,
                    flags};
  Blake3Rounds<Scalar>(v, m);
  for (int i = 0; i < 8; ++i) cv[i] = v[i] ^ v[i + 8];
}

void HashManyPortable(const uint8_t* in, size_t n, size_t stride, size_t n_blocks, uint64_t counter,
                      uint64_t counter_step, uint32_t flags, uint32_t flags_first, uint32_t flags_last,
                      uint8_t* out) {
  for (size_t i = 0; i < n; ++i) {
    uint32_t cv[8];
    std::memcpy(cv, kBlake3Iv, sizeof cv);
    for (size_t block = 0; block < n_blocks; ++block) {
      uint32_t f = flags | (block == 0 ? flags_first : 0u) | (block + 1 == n_blocks ? flags_last : 0u);
      CompressPortable(cv, in + i * stride + 64 * block, 64, counter + i * counter_step, f);
    }
    std::memcpy(out + 32 * i, cv, 32);
  }
}

constexpr Blake3Target kPortable{"portable", 1, CompressPortable, HashManyPortable};

std::array<uint32_t, 8> LoadIv() {
  std::array<uint32_t, 8> cv;
  std::memcpy(cv.data(), kBlake3Iv, sizeof kBlake3Iv);
  return cv;
}

struct TargetList {
  std::array<const Blake3Target*, 3> targets{};
  size_t n = 0;
  TargetList() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
      targets[n++] = &kBlake3Avx512;
    if (avx2) targets[n++] = &kBlake3Avx2;
#endif
    targets[n++] = &kPortable;
  }
};

}  // namespace

std::span<const Blake3Target* const> Blake3Targets() {
  static const TargetList list;
  return {list.targets.data(), list.n};
}

Blake3::Blake3(const Blake3Target& target) : target_(&target), chunk_cv_(LoadIv()) {}

void Blake3::AppendToChunk(const uint8_t* data, size_t n) {
  while (n > 0) {
    if (block_bytes_ == kBlock) {
      target_->compress(chunk_cv_.data(), block_.data(), kBlock, n_chunks_,
                        chunk_blocks_ == 0 ? kChunkStart : 0);
      ++chunk_blocks_;
      block_bytes_ = 0;
    }
    size_t take = std::min(n, kBlock - block_bytes_);
    std::memcpy(block_.data() + block_bytes_, data, take);
    block_bytes_ += take;
    data += take;
    n -= take;
  }
}

// Merges pairs from the top until `depth` subtrees are left.
void Blake3::MergeTo(size_t depth) {
  while (depth_ > depth) {
    uint8_t pair[kBlock];
    std::memcpy(pair, stack_[depth_ - 2].data(), 32);
    std::memcpy(pair + 32, stack_[depth_ - 1].data(), 32);
    auto cv = LoadIv();
    target_->compress(cv.data(), pair, kBlock, 0, kParent);
    std::memcpy(stack_[depth_ - 2].data(), cv.data(), 32);
    --depth_;
  }
}

// Adds a complete subtree behind n_chunks_ chunks and merges those of equal size. More input always follows,
// so none of these merges is the root.
void Blake3::PushSubtree(const uint8_t* cv, uint64_t n_chunks) {
  std::memcpy(stack_[depth_++].data(), cv, 32);
  n_chunks_ += n_chunks;
  MergeTo(static_cast<size_t>(std::popcount(n_chunks_)));
}

// Hashes n_chunks whole chunks, at most kBatch and no more than n_chunks_ is a multiple of, level by level
// side by side.
void Blake3::AddChunks(const uint8_t* data, size_t n_chunks) {
  uint8_t a[kBatch * 32], b[kBatch * 32], odd[8][32];
  size_t n_levels = 0, sizes[8];  // subtrees that have no sibling, the smallest first
  for (size_t i = 0; i < n_chunks; i += target_->max_lanes) {
    target_->hash_many(data + i * kChunk, std::min(target_->max_lanes, n_chunks - i), kChunk, kChunk / kBlock,
                       n_chunks_ + i, 1, 0, kChunkStart, kChunkEnd, a + 32 * i);
  }
  uint8_t *from = a, *to = b;
  for (size_t n = n_chunks, size = 1; n > 0; n /= 2, size *= 2) {
    if (n % 2 != 0) {
      std::memcpy(odd[n_levels], from + 32 * (n - 1), 32);
      sizes[n_levels++] = size;
    }
    for (size_t i = 0; i < n / 2; i += target_->max_lanes) {
      target_->hash_many(from + kBlock * i, std::min(target_->max_lanes, n / 2 - i), kBlock, 1, 0, 0, kParent,
                         0, 0, to + 32 * i);
    }
    std::swap(from, to);
  }
  while (n_levels-- > 0) PushSubtree(odd[n_levels], sizes[n_levels]);
}

void Blake3::Update(std::span<const std::byte> bytes) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  size_t n = bytes.size();
  while (n > 0) {
    size_t filled = chunk_blocks_ * kBlock + block_bytes_;
    if (filled == 0 && n > kChunk) {
      size_t most = n_chunks_ == 0 ? kBatch : std::min<uint64_t>(kBatch, n_chunks_ & (~n_chunks_ + 1));
      size_t n_whole = std::min(most, (n - 1) / kChunk);
      AddChunks(data, n_whole);
      data += n_whole * kChunk;
      n -= n_whole * kChunk;
      continue;
    }
    if (filled == kChunk) {
      target_->compress(chunk_cv_.data(), block_.data(), kBlock, n_chunks_, kChunkEnd);
      uint8_t cv[32];
      std::memcpy(cv, chunk_cv_.data(), 32);
      PushSubtree(cv, 1);
      chunk_cv_ = LoadIv();
      block_bytes_ = chunk_blocks_ = 0;
      continue;
    }
    size_t take = std::min(n, kChunk - filled);
    AppendToChunk(data, take);
    data += take;
    n -= take;
  }
}

Blake3Digest Blake3::Finish() const {
  auto cv = chunk_cv_;
  std::array<uint8_t, kBlock> block{};
  if (block_bytes_ > 0) std::memcpy(block.data(), block_.data(), block_bytes_);
  uint32_t flags = kChunkEnd | (chunk_blocks_ == 0 ? kChunkStart : 0u) | (depth_ == 0 ? kRoot : 0u);
  target_->compress(cv.data(), block.data(), static_cast<uint32_t>(block_bytes_), n_chunks_, flags);
  for (size_t i = depth_; i-- > 0;) {
    std::memcpy(block.data(), stack_[i].data(), 32);
    std::memcpy(block.data() + 32, cv.data(), 32);
    cv = LoadIv();
    target_->compress(cv.data(), block.data(), kBlock, 0, kParent | (i == 0 ? kRoot : 0u));
  }
  Blake3Digest digest;
  std::memcpy(digest.data(), cv.data(), 32);
  return digest;
}

Blake3Digest Blake3Of(std::span<const std::byte> bytes) {
  Blake3 hash;
  hash.Update(bytes);
  return hash.Finish();
}

std::string ToHex(std::span<const uint8_t> bytes) {
  std::string hex;
  hex.reserve(2 * bytes.size());
  for (uint8_t b : bytes) {
    hex += "0123456789abcdef"[b >> 4];
    hex += "0123456789abcdef"[b & 15];
  }
  return hex;
}

}  // namespace pb
