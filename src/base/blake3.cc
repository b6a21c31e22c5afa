// The tree of BLAKE3 over chunks, its portable compression, and the choice of the widest lanes
// that the processor has.
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
  auto compress = [this](const uint8_t* block) {
    target_->compress(chunk_cv_.data(), block, kBlock, n_chunks_, chunk_blocks_ == 0 ? kChunkStart : 0);
    ++chunk_blocks_;
  };
  while (n > 0) {
    if (block_bytes_ == kBlock) {
      compress(block_.data());
      block_bytes_ = 0;
    }
    size_t take = std::min(n, kBlock - block_bytes_);
    if (take == kBlock && n > kBlock) {
      compress(data);
    } else {
      std::memcpy(block_.data() + block_bytes_, data, take);
      block_bytes_ += take;
    }
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

// Adds a complete subtree behind n_chunks_ chunks. Those before it merge only now, when it is
// certain that more follows: the last merge of all is the root and needs its flag.
void Blake3::PushSubtree(const uint8_t* cv, uint64_t n_chunks) {
  MergeTo(static_cast<size_t>(std::popcount(n_chunks_)));
  std::memcpy(stack_[depth_++].data(), cv, 32);
  n_chunks_ += n_chunks;
}

// Hashes n_chunks whole chunks level by level, side by side. At most kBatch, and n_chunks_ is a
// multiple of the largest power of two in it. They may be all there is: then the last pair, which
// would be the root, stays two.
void Blake3::AddChunks(const uint8_t* data, size_t n_chunks) {
  uint8_t a[kBatch * 32], b[kBatch * 32], alone[9][32];
  size_t n_alone = 0, sizes[9];  // subtrees that have no sibling yet, the last first
  for (size_t i = 0; i < n_chunks; i += target_->max_lanes) {
    target_->hash_many(data + i * kChunk, std::min(target_->max_lanes, n_chunks - i), kChunk, kChunk / kBlock,
                       n_chunks_ + i, 1, 0, kChunkStart, kChunkEnd, a + 32 * i);
  }
  uint8_t *from = a, *to = b;
  size_t n = n_chunks, size = 1;
  auto set_last_aside = [&] {
    std::memcpy(alone[n_alone], from + 32 * --n, 32);
    sizes[n_alone++] = size;
  };
  while (n > 0) {
    bool may_be_root = n == 2 && n_alone == 0 && n_chunks_ == 0;
    if (n % 2 != 0 || may_be_root) set_last_aside();
    if (may_be_root) set_last_aside();
    for (size_t i = 0; i < n / 2; i += target_->max_lanes) {
      target_->hash_many(from + kBlock * i, std::min(target_->max_lanes, n / 2 - i), kBlock, 1, 0, 0, kParent,
                         0, 0, to + 32 * i);
    }
    std::swap(from, to);
    n /= 2;
    size *= 2;
  }
  while (n_alone-- > 0) PushSubtree(alone[n_alone], sizes[n_alone]);
}

void Blake3::Update(std::span<const std::byte> bytes) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  size_t n = bytes.size();
  while (n > 0) {
    size_t filled = chunk_blocks_ * kBlock + block_bytes_;
    if (filled == kChunk) {
      target_->compress(chunk_cv_.data(), block_.data(), kBlock, n_chunks_, kChunkEnd);
      uint8_t cv[32];
      std::memcpy(cv, chunk_cv_.data(), 32);
      PushSubtree(cv, 1);
      chunk_cv_ = LoadIv();
      filled = block_bytes_ = chunk_blocks_ = 0;
    }
    // As many whole chunks as fit into complete subtrees here.
    size_t most = n_chunks_ == 0 ? kBatch : std::min<uint64_t>(kBatch, n_chunks_ & (~n_chunks_ + 1));
    size_t n_whole = filled == 0 ? std::min(most, n / kChunk) : 0;
    size_t take = n_whole > 1 ? n_whole * kChunk : std::min(n, kChunk - filled);
    if (n_whole > 1) {
      AddChunks(data, n_whole);
    } else {
      AppendToChunk(data, take);
    }
    data += take;
    n -= take;
  }
}

Blake3Digest Blake3::Finish() const {
  Blake3 rest = *this;
  std::array<uint8_t, kBlock> block{};
  auto cv = LoadIv();
  if (block_bytes_ > 0 || depth_ == 0) {
    rest.MergeTo(static_cast<size_t>(std::popcount(n_chunks_)));
    cv = chunk_cv_;
    if (block_bytes_ > 0) std::memcpy(block.data(), block_.data(), block_bytes_);
    uint32_t flags = kChunkEnd | (chunk_blocks_ == 0 ? kChunkStart : 0u) | (rest.depth_ == 0 ? kRoot : 0u);
    target_->compress(cv.data(), block.data(), static_cast<uint32_t>(block_bytes_), n_chunks_, flags);
  } else {
    std::memcpy(cv.data(), rest.stack_[--rest.depth_].data(), 32);
  }
  for (size_t i = rest.depth_; i-- > 0;) {
    std::memcpy(block.data(), rest.stack_[i].data(), 32);
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
