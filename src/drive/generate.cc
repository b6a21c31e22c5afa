// Chooses tokens from logits and feeds them back until a stop.
#include "drive/generate.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "drive/passes.h"

namespace pb::drive {

int32_t Sampler::Choose(std::span<const float> row) {
  if (sampling_.temperature <= 0 || sampling_.top_k == 1) return Greedy(row);
  candidates_.clear();
  for (size_t i = 0; i < row.size(); ++i)
    if (std::isfinite(row[i])) candidates_.emplace_back(row[i], static_cast<int32_t>(i));
  if (candidates_.empty()) return -1;
  auto likelier = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  size_t k = sampling_.top_k > 0 ? std::min(candidates_.size(), static_cast<size_t>(sampling_.top_k))
                                 : candidates_.size();
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(k), candidates_.end(),
                    likelier);
  candidates_.resize(k);
  double top = candidates_[0].first, total = 0;
  std::vector<double> weights;
  weights.reserve(k);
  for (const auto& candidate : candidates_)
    total += weights.emplace_back(std::exp((candidate.first - top) / sampling_.temperature));
  double left = random_.Uniform() * total;
  for (size_t i = 0; i < k; ++i) {
    left -= weights[i];
    if (left < 0) return candidates_[i].second;
  }
  return candidates_.back().second;
}

namespace {

// In batches of the engine's own size, so that somebody hears how far it is; of the last the last row.
Status EvaluatePrompt(Participant& engine, const GenerateRequest& request, const RowFn& on_last) {
  const auto n = static_cast<int64_t>(request.tokens.size());
  return ForEachPass(request.tokens, PassRows({&engine.record()}), NoSteps(), [&](const Pass& pass) -> Status {
    if (request.progress) request.progress("prompt", pass.position, n);
    return engine.EvaluateLast(pass.tokens, pass.position, on_last);
  });
}

}  // namespace

Result<GenerateSummary> Generate(Participant& engine, const GenerateRequest& request,
                                 const std::function<Status(int32_t id)>& on_token) {
  using Clock = std::chrono::steady_clock;
  auto seconds = [](Clock::time_point a, Clock::time_point b) {
    return std::chrono::duration<double>(b - a).count();
  };
  GenerateSummary summary;
  summary.n_prompt = static_cast<int32_t>(request.tokens.size());
  Sampler sampler(request.sampling);
  int32_t next = -1;
  auto choose = [&](int32_t, std::span<const float> row) -> Status {
    next = sampler.Choose(row);
    return {};
  };
  auto start = Clock::now();
  PB_TRY(EvaluatePrompt(engine, request, choose));
  auto prompt_end = Clock::now();
  summary.prompt_seconds = seconds(start, prompt_end);
  for (int32_t position = summary.n_prompt; summary.n_generated < request.max_tokens; ++position) {
    if (next < 0) return MakeError(Code::kEngine, "no finite logit after position {}", position - 1);
    if (std::find(request.stop.begin(), request.stop.end(), next) != request.stop.end()) {
      summary.stopped = true;
      break;
    }
    ++summary.n_generated;
    PB_TRY(on_token(next));
    if (summary.n_generated == request.max_tokens) break;
    int32_t token = std::exchange(next, -1);
    PB_TRY(engine.EvaluateLast(std::span(&token, 1), position, choose));
  }
  summary.decode_seconds = seconds(prompt_end, Clock::now());
  return summary;
}

size_t CompleteUtf8(std::string_view bytes) {
  // The start of an unfinished sequence is at most three bytes from the end.
  for (size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    unsigned char c = static_cast<unsigned char>(bytes[bytes.size() - back]);
    if ((c & 0xc0u) == 0x80u) continue;
    size_t length = c >= 0xf0u && c < 0xf8u   ? 4
                    : c >= 0xe0u && c < 0xf0u ? 3
                    : c >= 0xc0u && c < 0xe0u ? 2
                                              : 1;
    return length > back ? bytes.size() - back : bytes.size();
  }
  return bytes.size();
}

}  // namespace pb::drive
