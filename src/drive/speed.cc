// Times generation and reading of memory.
#include "drive/speed.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <new>

#include "base/thread_pool.h"
#include "drive/generate.h"

namespace pb::drive {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Result<GenerateSummary> Once(Participant& engine, const SpeedRequest& request, int32_t n_decode,
                             std::vector<int32_t>* tokens) {
  PB_TRY(engine.Reset());
  GenerateRequest generate;
  generate.tokens = request.prompt;
  generate.max_tokens = n_decode + 1;  // the first is the prompt's own
  return Generate(engine, generate, [tokens](int32_t id) -> Status {
    tokens->push_back(id);
    return {};
  });
}

uint64_t Sum(const uint64_t* values, int64_t n) {
  uint64_t sum[4] = {0, 0, 0, 0};  // so that one addition does not wait for the one before
  for (int64_t i = 0; i + 4 <= n; i += 4)
    for (int64_t j = 0; j < 4; ++j) sum[j] += values[i + j];
  return sum[0] + sum[1] + sum[2] + sum[3];
}

}  // namespace

Result<Speed> MeasureSpeed(Participant& engine, const SpeedRequest& request) {
  Speed speed;
  if (request.n_warmup > 0) {
    std::vector<int32_t> ignored;
    PB_ASSIGN([[maybe_unused]] GenerateSummary warm,
              Once(engine, request, std::min(request.n_warmup, request.n_decode), &ignored));
  }
  for (int32_t i = 0; i < request.n_repeats; ++i) {
    if (request.progress) request.progress("repeats", i, request.n_repeats);
    std::vector<int32_t> tokens;
    PB_ASSIGN(const GenerateSummary summary, Once(engine, request, request.n_decode, &tokens));
    if (static_cast<int32_t>(tokens.size()) != request.n_decode + 1)
      return MakeError(Code::kEngine, "{} tokens were generated, {} were asked for", tokens.size(),
                       request.n_decode + 1);
    speed.prompt_seconds.push_back(summary.prompt_seconds);
    speed.decode_seconds.push_back(summary.decode_seconds);
    speed.tokens.push_back(std::move(tokens));
  }
  return speed;
}

double ReadSpeed::bytes_per_second() const {
  const auto fastest = std::min_element(seconds.begin(), seconds.end());
  return fastest == seconds.end() || *fastest <= 0 ? 0 : static_cast<double>(n_bytes) / *fastest;
}

ReadSpeed MeasureReadSpeed(int n_threads, uint64_t n_bytes, int n_repeats) {
  ReadSpeed speed;
  const auto n = static_cast<int64_t>(n_bytes / sizeof(uint64_t));
  const std::unique_ptr<uint64_t[]> values(new (std::nothrow) uint64_t[static_cast<size_t>(n)]);
  if (!values) return speed;
  speed.n_bytes = static_cast<uint64_t>(n) * sizeof(uint64_t);
  ThreadPool pool(n_threads);
  constexpr int64_t kPage = 4096 / sizeof(uint64_t);
  // Each thread's pages are first touched by it.
  pool.For(n, kPage, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] = static_cast<uint64_t>(i);
  });
  std::atomic<uint64_t> sum{0};  // what is read is used, or it would not be read
  for (int i = 0; i < n_repeats; ++i) {
    const auto start = Clock::now();
    pool.For(n, kPage, [&](int64_t begin, int64_t end, int) {
      sum += Sum(&values[static_cast<size_t>(begin)], end - begin);
    });
    speed.seconds.push_back(SecondsSince(start));
  }
  return speed;
}

}  // namespace pb::drive
