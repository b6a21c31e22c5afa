// Chooses tokens from logits and feeds them back until a stop.
#include "drive/generate.h"

#include <algorithm>
#include <chrono>

#include "drive/passes.h"

namespace pb::drive {

namespace {

// In batches of the engine's own size, so that somebody hears how far it is; of the last the last row.
Status EvaluatePrompt(Participant& engine, const GenerateRequest& request, const RowFn& on_last) {
  const auto n = static_cast<int64_t>(request.tokens.size());
  return ForEachPass(request.tokens, PassRows({&engine.record()}), NoSteps(),
                     [&](const Pass& pass) -> Status {
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
  for (int32_t token : request.tokens) sampler.Accept(token);
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
    sampler.Accept(next);
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
