// The traces that a comparison keeps: a folder for each engine and prompt, written while both
// engines run free and are watched.
#ifndef PARITYBIT_RUN_KEPT_TRACES_H_
#define PARITYBIT_RUN_KEPT_TRACES_H_

#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "drive/capture.h"
#include "drive/participant.h"
#include "host/engine.h"
#include "run/record.h"
#include "run/request.h"

namespace pb::run {

// FOLDER/candidate and FOLDER/reference; with several prompts FOLDER/prompt-N before them, N
// counting from 0 as reports do.
std::filesystem::path KeptFolder(const std::filesystem::path& folder, size_t n_prompts, int32_t prompt,
                                 int side);
// kUsage when the folder holds anything already: traces are never mixed.
Status CheckKeepFolder(const std::filesystem::path& folder);

// Both traces of one prompt. Streams: holds no tensor. Whatever cuts it off leaves two readable,
// incomplete traces.
class KeptPair {
 public:
  // The engines have their sessions open.
  static Result<std::unique_ptr<KeptPair>> Create(const KeepRequest& keep,
                                                  drive::Participant* const (&sides)[2],
                                                  const PromptRecord& prompt, size_t n_prompts,
                                                  int32_t index);

  // Opens the next step in both: an evaluation of these tokens, in one call or several.
  Status BeginStep(int32_t first_position, std::span<const int32_t> tokens);
  // Takes what an engine hands over; side 0 is the candidate.
  Status OnEvent(int side, const host::Event& event);
  // States that both are whole, and notes them in the prompt.
  Status Finish(PromptRecord* prompt);
  // States why they are not.
  void Abandon(const std::string& reason);

 private:
  struct Side {
    std::filesystem::path folder;
    std::unique_ptr<trace::Writer> writer;
    std::unique_ptr<drive::TraceCapture> capture;
  };
  Side sides_[2];
  trace::PointFilter everything_;
};

}  // namespace pb::run

#endif  // PARITYBIT_RUN_KEPT_TRACES_H_
