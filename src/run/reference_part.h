// The reference's part of a comparison, kept: what it showed and delivered over a prompt is recorded
// while it runs, takes its place in the pass that needs the same again, and serves later
// comparisons of changed candidates.
//
// A kept part is believed only if it is what was written (base/kept.h, and a digest over its data)
// and of the very same computation: engine, libraries, model file, all settings and facts as the
// running engine tells them now, tokens, batches and processor. Else the engine computes.
#ifndef PARITYBIT_RUN_REFERENCE_PART_H_
#define PARITYBIT_RUN_REFERENCE_PART_H_

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "drive/lock_step.h"
#include "drive/participant.h"
#include "drive/tape.h"
#include "run/record.h"
#include "run/request.h"

namespace pb::run {

class ReferencePart {
 public:
  // Both have a model open. All outlive this.
  ReferencePart(drive::Participant& candidate, drive::Participant& reference, const host::Settings& session,
                const Request& request);

  // Before the reference runs over a prompt with the session of the comparison: looks for a kept
  // part, which is then served, and noted in the prompt.
  void Find(PromptRecord* prompt);
  // What an earlier run of the very same computation showed of it, where it is worth recording.
  std::optional<KeptProof> FindProof(const PromptRecord& prompt) const;
  // Before the reference's watched pass over that prompt: begins to record, where nothing is served
  // and it is worth it. Whether it does.
  bool BeginRecording(const PromptRecord& prompt);
  // After the pass. What was recorded is served from here on and kept, if the reference showed and
  // delivered, watched, what it delivered unwatched. `logits_sha256`: of what it delivered; empty: the
  // pass did not come to its end. `shown_is_delivered`: whether it showed the same.
  void EndRecording(const PromptRecord& prompt, const std::string& logits_sha256, bool shown_is_delivered);
  // Whether the prompt at hand is served.
  bool served() const { return served_; }
  // Whether passes of some of its rows are, too.
  void ServeParts(bool parts) { engine_->ServeParts(parts); }
  // SHA-256 of the logits of the whole sequence where the last evaluation over it was served, as it was
  // when they were recorded (what is served has its digest); else empty.
  std::string ServedSha256() const;
  // What is served of it, or null.
  const drive::Tape* tape() const { return served_ ? engine_->tape() : nullptr; }

  // What the reference in its default configuration gave over a prompt, from the cache.
  bool FindDefault(const PromptRecord& prompt, DefaultConfiguration* row) const;
  void KeepDefault(const PromptRecord& prompt, const DefaultConfiguration& row) const;

 private:
  nlohmann::json Provenance(const PromptRecord& prompt) const;
  std::filesystem::path FolderOf(const PromptRecord& prompt) const;
  // What a recording of the prompt would take.
  uint64_t EstimatedBytes(const PromptRecord& prompt) const;
  bool IsMuchWork(const PromptRecord& prompt) const;
  bool IsWorthRecording(const PromptRecord& prompt) const;

  drive::Participant& candidate_;
  drive::Participant& reference_;
  const host::Settings& session_;
  const Request& request_;
  drive::TapedEngine* engine_ = nullptr;  // the reference's
  std::unique_ptr<drive::TapeWriter> writer_;
  bool served_ = false;  // the prompt at hand
};

}  // namespace pb::run

#endif  // PARITYBIT_RUN_REFERENCE_PART_H_
