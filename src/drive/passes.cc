// Where the passes of a sequence begin and end.
#include "drive/passes.h"

#include <algorithm>

namespace pb::drive {

int64_t PassRows(std::initializer_list<const EngineRecord*> engines) {
  int64_t rows = 512;  // a tap holds the tensors of a pass in memory
  for (const EngineRecord* engine : engines)
    if (const int64_t ubatch = engine->session_facts().ubatch; ubatch > 0) rows = std::min(rows, ubatch);
  return rows;
}

NextToken StepsOf(const std::vector<int32_t>& tokens, size_t first) {
  return [&tokens, first](size_t index) -> Result<std::optional<int32_t>> {
    const size_t at = first + index;
    return at < tokens.size() ? std::optional(tokens[at]) : std::nullopt;
  };
}

NextToken NoSteps() {
  return [](size_t) -> Result<std::optional<int32_t>> { return std::optional<int32_t>(); };
}

Status ForEachPass(std::span<const int32_t> prefill, int64_t rows, const NextToken& next,
                   const std::function<Status(const Pass&)>& evaluate) {
  const size_t most = static_cast<size_t>(rows), n = prefill.size();
  for (size_t at = 0, count = 0; at < n; at += count) {
    count = std::min(most, n - at);
    PB_TRY(evaluate({0, static_cast<int32_t>(at), prefill.subspan(at, count)}));
  }
  for (size_t index = 0;; ++index) {
    // A copy: the vector that it comes from may grow.
    PB_ASSIGN(const std::optional<int32_t> token, next(index));
    if (!token) return {};
    PB_TRY(evaluate({static_cast<int32_t>(index) + 1, static_cast<int32_t>(n + index), {&*token, 1}}));
  }
}

}  // namespace pb::drive
