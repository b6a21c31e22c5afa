// Two engines that read the same text: started as a crossval starts them, tokenised, and asked for
// logits. What keeps them from being compared becomes a reason of the verdict.
#ifndef PARITYBIT_PARITY_PAIR_H_
#define PARITYBIT_PARITY_PAIR_H_

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "drive/participant.h"
#include "run/record.h"
#include "run/request.h"

namespace pb::parity {

class Pair {
 public:
  static constexpr int kCandidate = 0, kReference = 1;

  // Both outlive the pair. Of the request: engines, models, limits.
  Pair(const run::Request& request, run::Comparison* out)
      : request_(request),
        out_(*out),
        sides_{{out->candidate, request.limits}, {out->reference, request.limits}} {}

  // Starts both and opens their models. What stands in the way is a reason: see failed().
  Status Open();
  // Sessions with room for so many positions, with the settings that make results comparable.
  Status OpenSessions(size_t n_ctx);
  // The ids that both engines read. None: they differ, there are none, or an engine failed; which is
  // a reason.
  Result<std::optional<std::vector<int32_t>>> Tokenize(std::string_view text, std::string_view origin);

  // An engine's failure becomes a reason; anything else is passed on.
  Status Absorb(Status status);
  // Adds a reason of the verdict.
  template <typename... Args>
  void Add(Args&&... reason) {
    out_.verdict.reasons.emplace_back(std::forward<Args>(reason)...);
  }
  // Whether something keeps the rest from being done.
  bool failed() const { return failed_; }

  drive::Participant& side(int side) { return sides_[side]; }
  drive::Participant& candidate() { return sides_[kCandidate]; }
  drive::Participant& reference() { return sides_[kReference]; }
  const host::Settings& session(int side) const { return session_[side]; }
  const run::Request& request() const { return request_; }
  const drive::EngineSpec& spec(int side) const {
    return side == kCandidate ? request_.candidate : request_.reference;
  }

  // Doubts about the model files, and what both engines were seen to leave open, as reasons and
  // notes; then the verdict is that of its worst reason.
  void Finish(int64_t n_positions);

 private:
  // Once, and not where there is nothing to say.
  void Note(std::string note) {
    if (!note.empty() && std::find(out_.notes.begin(), out_.notes.end(), note) == out_.notes.end())
      out_.notes.push_back(std::move(note));
  }

  const run::Request& request_;
  run::Comparison& out_;
  drive::Participant sides_[2];
  host::Settings session_[2];
  std::vector<compare::Obstacle> obstacles_;
  bool failed_ = false;
};

}  // namespace pb::parity

#endif  // PARITYBIT_PARITY_PAIR_H_
