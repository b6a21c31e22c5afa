// The tracepoint passes of a comparison: lock-step for local errors, and a pass in which the
// candidate gets back what it shows for accumulated ones. Together they prove that watching changes
// nothing, that overwriting reaches the logits, and that the candidate computes with what it shows:
// without that, points that agree say nothing about the logits.
#ifndef PARITYBIT_RUN_LOCAL_RUN_H_
#define PARITYBIT_RUN_LOCAL_RUN_H_

#include <string>
#include <vector>

#include "codes/precision.h"
#include "codes/scheme_check.h"
#include "compare/verdict.h"
#include "drive/lock_step.h"
#include "drive/participant.h"
#include "model/model.h"
#include "run/kept_traces.h"
#include "run/observed_precision.h"
#include "run/reference_part.h"
#include "run/request.h"

namespace pb::run {

class LocalRun {
 public:
  // The sessions of both sides are replaced by every pass. `model`: the candidate's file, for
  // explaining codes; may be null. `request` outlives this: what to keep, and how to tell of
  // progress. `part` records the reference, and serves it.
  LocalRun(drive::Participant& candidate, drive::Participant& reference, const host::Settings (&session)[2],
           std::shared_ptr<const Model> (&models)[2], const Request& request, ReferencePart& part);

  // Lets the reference run over a prompt by itself, to be recorded; without an error even where it is
  // not recorded then.
  Status Record(const PromptRecord& prompt);
  // Runs one prompt with its decode steps, in lock-step and on its own; keeps the errors, and the
  // digests of the logits as they came with taps in prompt.tapped_sha256.
  // Of a long prompt the part is watched that shows how the candidate rounds and that watching
  // changes nothing; all of it where an op then lies beyond its bound.
  Status Add(PromptRecord& prompt, int32_t index);
  // Watches the whole of a prompt of which a part was watched.
  Status WatchWhole(PromptRecord& prompt, int32_t index);

  const ObservedPrecision& precision() const { return precision_; }
  compare::TokenErrors&& TakeTokenErrors() { return std::move(token_errors_); }

  // What was found, after the last prompt. Engines whose logits change when they are watched become
  // reasons.
  void Finish(const std::vector<PromptRecord>& prompts, compare::LocalEvidence* evidence,
              std::vector<compare::PointRow>* accumulated, std::vector<compare::Obstacle>* obstacles);

 private:
  // Tokens to run over: one prefill, then steps.
  struct Walk {
    std::vector<int32_t> prefill, steps;
    int64_t n_positions() const { return static_cast<int64_t>(prefill.size() + steps.size()); }
  };
  static Walk WholeOf(const PromptRecord& prompt) { return {prompt.tokens, prompt.decoded}; }

  // `keeps`: this is the pass whose traces are kept, where that was asked for.
  Result<drive::LockStepResult> Pass(const Walk& walk, PromptRecord& prompt, int32_t index,
                                     drive::Overwrite overwrite, bool keeps);
  // Whether a part of the prompt may be watched instead of all.
  bool MayWatchPart(const PromptRecord& prompt) const;
  void BeginObserving(int32_t index);
  Result<drive::LockStepResult> InLockStep(PromptRecord& prompt, int32_t index);
  void AddLocal(const PromptRecord& prompt, const drive::LockStepResult& result);
  Status AddAccumulated(PromptRecord& prompt, int32_t index);
  Status AddPart(PromptRecord& prompt, int32_t index);
  // Shows the observer of the reference's products what the tape has of the first pass and step.
  void ObserveTape(const drive::Tape& tape);
  // Takes what was observed of both engines' products in the first prompt's free run.
  void TakePrecision();
  // What each token has of it.
  void KeepTokens(const drive::PointPair& pair, bool in_lock_step);
  // For who waits: the pass at hand.
  bool HaveF16Caches() const;
  std::string WhatIsDone(drive::Overwrite overwrite, int32_t index) const;
  // Asks both engines, once, how they quantise, where they say that they do so alike: codes may
  // then explain differences.
  Status AskForSchemes();
  // Opens both sessions anew and plans which points to expect of them.
  Result<drive::PointPlan> OpenSessions();
  // Evaluates tokens; `kept` may be null.
  Status Steps(drive::LockStep& lock_step, const Walk& walk, int32_t index, KeptPair* kept);
  // Token rows of one pass: both engines get the same, so it is as long as the shorter of their
  // batches.
  int64_t Rows() const;
  // Where watching changed the logits of a side: whether running it again does, too.
  Status Repeat(const Walk& walk, const PromptRecord& prompt);
  // The digest of a side's logits in these passes, with nobody watching.
  Result<std::string> Unwatched(int side, const Walk& walk);

  drive::Participant* sides_[2];
  const host::Settings* session_[2];
  std::shared_ptr<const Model> models_[2];
  std::optional<codes::PrecisionObserver> observers_[2];  // while they watch
  bool part_only_ = false;  // while they do: a part of the prompt, the reference's from its tape
  ObservedPrecision precision_;
  std::optional<codes::SchemeCheck> scheme_check_;  // once both engines were asked
  const Request& request_;
  ReferencePart& part_;
  compare::LocalEvidence evidence_;
  std::vector<compare::PointRow> accumulated_;
  compare::TokenErrors token_errors_;  // empty where nobody asked for them
  int64_t n_expected_ = 0;             // points of the prompt at hand
  bool overwrite_ignored_ = false;
  bool shown_not_used_[2] = {false, false};
  std::string not_repeatable_[2];  // how two equal runs of a side differ; empty: not seen to
};

// Rows for a report: every point of a prefill, and of all decode steps of a prompt the worst row of
// each point (a judged one by its bound, else by rel-L2); of judged rows those beyond their bound
// are all kept.
std::vector<compare::PointRow> CondensePoints(const std::vector<compare::PointRow>& rows, bool judged);

}  // namespace pb::run

#endif  // PARITYBIT_RUN_LOCAL_RUN_H_
