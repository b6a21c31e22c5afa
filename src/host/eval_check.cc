// What a child may hand over in an evaluation: the points and rows that were asked for, in
// order, once.
#include <algorithm>

#include "host/remote_engine.h"

namespace pb::host {

EvalCheck::EvalCheck(const EvalRequest& request, std::optional<int64_t> n_vocab)
    : tap_(request.tap),
      first_(request.first_position),
      end_(first_ + static_cast<int64_t>(request.tokens.size())),
      next_logits_(first_ + request.logits_from),
      n_vocab_(n_vocab) {}

Status EvalCheck::Logits(int64_t first_position, int64_t n_rows, int64_t n_vocab) {
  if (first_position != next_logits_ || n_rows > end_ - next_logits_) {
    return MakeError(Code::kEngine,
                     "lied about the logits: rows {} to {} came where {} was due of the rows up to {}",
                     first_position, first_position + n_rows - 1, next_logits_, end_ - 1);
  }
  if (n_vocab_ && *n_vocab_ != n_vocab) {
    return MakeError(Code::kEngine, "lied about the logits: rows of {} values, where n_vocab is {}", n_vocab,
                     *n_vocab_);
  }
  n_vocab_ = n_vocab;
  next_logits_ += n_rows;
  return {};
}

Status EvalCheck::Point(const PointRef& point, const TensorRef* output) const {
  auto allowed = [](const std::vector<int32_t>& list, int32_t value) {
    return list.empty() || std::ranges::find(list, value) != list.end();
  };
  bool mapped = point.stage != PB_STAGE_UNMAPPED;
  if ((mapped && !allowed(tap_.stages, point.stage)) || (!mapped && !tap_.unmapped) ||
      !allowed(tap_.layers, point.layer)) {
    return MakeError(Code::kEngine, "handed over stage {} of layer {}, which nobody asked for", point.stage,
                     point.layer);
  }
  if (!mapped || !output) return {};
  int64_t rows = output->shape[0];
  if (point.first_position >= first_ && rows <= end_ - point.first_position) return {};
  return MakeError(
      Code::kEngine,
      "lied about {} of layer {}: {} rows from position {}, where positions {} to {} are evaluated",
      pb_vocabulary[point.stage].name, point.layer, rows, point.first_position, first_, end_ - 1);
}

Status EvalCheck::Done() const {
  if (next_logits_ == end_) return {};
  return MakeError(Code::kEngine,
                   "lied about the logits: {} of the rows asked for never came (from position {})",
                   end_ - next_logits_, next_logits_);
}

}  // namespace pb::host
