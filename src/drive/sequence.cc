// Prefill and decode of token sequences, their rows kept in order or held against others.
#include "drive/sequence.h"

#include <algorithm>
#include <optional>

#include "drive/passes.h"

namespace pb::drive {
namespace {

// Takes an engine's logits rows in order of position.
class Rows {
 public:
  Rows(Participant& engine, int64_t n_rows) : engine_(engine), n_rows_(n_rows) {}

  // Of an event whose rows last, as of a recording, those themselves.
  Status KeepOf(const host::Event& event) {
    if (!event.tensor.lasting) return ForEachRow(event, Keep());
    const std::vector<int64_t>& shape = event.tensor.shape;
    if (event.point.first_position != (store_ ? store_->n_rows() : 0) || shape.size() != 2)
      return MakeError(Code::kEngine, "logits of position {} came out of turn", event.point.first_position);
    if (!store_) store_.emplace(RowStore::OfLasting(shape[1]));
    return store_->AppendLasting(event.tensor.data, event.tensor.lasting);
  }
  RowFn Keep() {
    return [this](int32_t position, std::span<const float> row) -> Status {
      if (!store_) {
        PB_ASSIGN(RowStore store, RowStore::Create(n_rows_, static_cast<int64_t>(row.size())));
        store_.emplace(std::move(store));
      }
      if (position != store_->n_rows())
        return MakeError(Code::kEngine, "logits of position {} came where {} was due", position,
                         store_->n_rows());
      return store_->Append(row);
    };
  }
  // The greedy token after the last row; -1: there is none.
  int32_t Next() const { return store_ ? Greedy(store_->Row(store_->n_rows() - 1)) : -1; }
  Result<RowStore> Take(int64_t n_due) {
    if (!store_ || store_->n_rows() != n_due)
      PB_TRY(engine_.Noted(MakeError(Code::kEngine, "{} rows of logits for {} positions",
                                     store_ ? store_->n_rows() : 0, n_due)));
    return std::move(*store_);
  }

 private:
  Participant& engine_;
  int64_t n_rows_;
  std::optional<RowStore> store_;
};

}  // namespace

Status EvaluateSequence(Participant& engine, const Sequence& sequence, const RowFn& on_row,
                        const Taps& taps) {
  const auto n_prefill = static_cast<size_t>(sequence.n_prefill);
  return ForEachPass(
      std::span(sequence.tokens).first(n_prefill), kWholePrefill, StepsOf(sequence.tokens, n_prefill),
      [&](const Pass& pass) { return engine.Evaluate(pass.tokens, pass.position, on_row, taps); });
}

Result<RowStore> EvaluateAll(Participant& engine, const host::Settings& session, const Sequence& sequence,
                             const Taps& taps) {
  PB_TRY(engine.OpenSession(session, false));
  Rows rows(engine, static_cast<int64_t>(sequence.tokens.size()));
  PB_TRY(EvaluateSequence(engine, sequence, rows.Keep(), taps));
  return rows.Take(static_cast<int64_t>(sequence.tokens.size()));
}

Result<RowStore> EvaluateGreedily(Participant& engine, const host::Settings& session, int32_t n_steps,
                                  Sequence* sequence) {
  PB_TRY(engine.OpenSession(session, false));
  const auto n_prefill = static_cast<size_t>(sequence->n_prefill);
  const size_t n_all = sequence->tokens.size() + static_cast<size_t>(n_steps);
  Rows rows(engine, static_cast<int64_t>(n_all));
  auto next = [&](size_t index) -> Result<std::optional<int32_t>> {
    std::vector<int32_t>& tokens = sequence->tokens;
    const size_t at = n_prefill + index;
    if (at == tokens.size() && at < n_all && rows.Next() >= 0) tokens.push_back(rows.Next());
    return at < tokens.size() ? std::optional(tokens[at]) : std::nullopt;
  };
  const auto keep = [&](const host::Event& event) { return rows.KeepOf(event); };
  PB_TRY(
      ForEachPass(std::span(sequence->tokens).first(n_prefill), kWholePrefill, next, [&](const Pass& pass) {
        return engine.Evaluate({{pass.tokens.begin(), pass.tokens.end()}, pass.position, 0, {}}, keep);
      }));
  return rows.Take(static_cast<int64_t>(sequence->tokens.size()));
}

Status EvaluateAgainst(Participant& engine, const host::Settings& session, const Sequence& sequence,
                       std::span<const compare::ReferenceRow> undisturbed, const ComparedFn& on_row,
                       const Taps& taps) {
  PB_TRY(engine.OpenSession(session, false));
  size_t n_rows = 0;
  auto compare_row = [&](int32_t position, std::span<const float> row) -> Status {
    if (static_cast<size_t>(position) != n_rows || n_rows >= undisturbed.size())
      return MakeError(Code::kEngine, "logits of position {} came out of turn", position);
    PB_ASSIGN(compare::LogitsRow compared, compare::CompareLogits(row, undisturbed[n_rows++]));
    compared.prompt = sequence.prompt;
    compared.position = position;
    compared.token = sequence.tokens[static_cast<size_t>(position)];
    compared.phase = position < sequence.n_prefill ? compare::Phase::kPrefill : compare::Phase::kDecode;
    return on_row(row, std::move(compared));
  };
  PB_TRY(EvaluateSequence(engine, sequence, compare_row, taps));
  if (n_rows != sequence.tokens.size())
    return engine.Noted(
        MakeError(Code::kEngine, "{} rows of logits for {} positions", n_rows, sequence.tokens.size()));
  return {};
}

Result<std::vector<Sequence>> CalibrationSequences(Participant& engine, std::string_view text) {
  PB_ASSIGN(const std::vector<int32_t> ids, engine.Tokenize(text));
  const int64_t trained = engine.record().model_facts().n_ctx_train;
  const auto window = static_cast<size_t>(trained > 0 ? std::min(compare::kMinNoisePositions, trained)
                                                      : compare::kMinNoisePositions);
  const size_t n = std::min<size_t>(ids.size(), compare::kMinNoisePositions);
  std::vector<Sequence> sequences;
  for (size_t begin = 0; begin < n; begin += window) {
    const size_t length = std::min(window, n - begin);
    const auto first = ids.begin() + static_cast<ptrdiff_t>(begin);
    sequences.push_back({{first, first + static_cast<ptrdiff_t>(length)}, static_cast<int32_t>(length)});
  }
  return sequences;
}

}  // namespace pb::drive
