// BLAKE3 in bytes per second: every target this machine has, and the official C library where it is
// installed.
#include <benchmark/benchmark.h>

#include <vector>

#include "base/blake3.h"

#ifdef PB_OFFICIAL_BLAKE3
#include <blake3.h>
#endif

namespace pb {
namespace {

std::vector<std::byte> Input(int64_t n) {
  std::vector<std::byte> bytes(static_cast<size_t>(n));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i % 251);
  return bytes;
}

void Ours(benchmark::State& state, const Blake3Target* target) {
  auto input = Input(state.range(0));
  for (auto _ : state) {
    Blake3 hash(*target);
    hash.Update(input);
    benchmark::DoNotOptimize(hash.Finish());
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

#ifdef PB_OFFICIAL_BLAKE3
void Official(benchmark::State& state) {
  auto input = Input(state.range(0));
  for (auto _ : state) {
    blake3_hasher hasher;
    blake3_hasher_init(&hasher);
    blake3_hasher_update(&hasher, input.data(), input.size());
    uint8_t digest[BLAKE3_OUT_LEN];
    blake3_hasher_finalize(&hasher, digest, sizeof digest);
    benchmark::DoNotOptimize(digest);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
#endif

int Register() {
  auto sizes = [](auto* bench) {
    for (int64_t n : {64, 1024, 9 * 1024, 64 * 1024, 1 << 20, 16 << 20}) bench->Arg(n);
  };
  for (const Blake3Target* target : Blake3Targets()) {
    sizes(benchmark::RegisterBenchmark(("Blake3/" + std::string(target->name)).c_str(), Ours, target));
  }
#ifdef PB_OFFICIAL_BLAKE3
  sizes(benchmark::RegisterBenchmark("Blake3/official", Official));
#endif
  return 0;
}
const int registered = Register();

}  // namespace
}  // namespace pb
