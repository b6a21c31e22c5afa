// What one comparison of two engines did and found: pure data for verdicts, reports and receipts.
#ifndef PARITYBIT_RUN_RECORD_H_
#define PARITYBIT_RUN_RECORD_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "compare/token_grid.h"
#include "compare/types.h"
#include "compare/verdict.h"
#include "drive/engine_record.h"
#include "model/doubt.h"
#include "noise/floor_record.h"
#include "run/paths.h"

namespace pb::run {

// A trace that was kept.
struct KeptTrace {
  std::filesystem::path folder;
  std::string level;           // "full"
  std::string records_blake3;  // of its records.jsonl, which holds the digest of every tensor
  std::string logits_blake3;   // as its manifest tells it
  int64_t n_records = 0;
  uint64_t n_bytes = 0;
};

// A recording of the reference that stood for it.
struct KeptPart {
  std::filesystem::path folder;
  std::string data_blake3;  // of its tensors and logits
  int64_t recorded = 0;     // seconds since 1970
  uint64_t n_bytes = 0;
};

// An earlier run over a prompt that showed of the reference that watching changes nothing.
struct KeptProof {
  std::vector<int32_t> decoded;  // its greedy choices
  std::string logits_sha256;     // unwatched
  int64_t recorded = 0;          // seconds since 1970
};

// Where a part of a prompt is enough for a proof: positions of one pass, and steps of one after it.
inline constexpr int64_t kWatchedPass = 128, kWatchedSteps = 2;
inline constexpr int64_t kWatchedPositions = kWatchedPass + kWatchedSteps;

struct PromptRecord {
  std::string text;
  std::string origin;                 // "--prompt", "prompts.txt:3", "stdin"
  std::vector<int32_t> tokens;        // ids fed to both
  std::vector<int32_t> tokens_of[2];  // as candidate and reference tokenised it
  int32_t steps_asked = 0;            // decode steps
  std::vector<int32_t> decoded;       // ids fed in decode: the reference's greedy choices
  // candidate, reference: all rows in order of position, f32 little-endian
  std::string logits_sha256[2];
  std::string logits_blake3[2];  // the same bytes as a trace digests them
  // the same with tracepoints watched, nothing overwritten; empty: not run
  std::string tapped_sha256[2];
  // What that is held against: logits_sha256; where the other engine's smaller batch cut the
  // watched passes, the same passes unwatched, as an engine's bits may depend on its batches.
  std::string untapped_sha256[2];
  bool observer_effect(int side) const {
    return !tapped_sha256[side].empty() && tapped_sha256[side] != untapped_sha256[side];
  }
  // Candidate, reference: the same in a second session, where nothing was watched (Request::repeat);
  // of a kept reference what was recorded, which the engine gave twice then; empty: not run.
  std::string repeated_sha256[2];
  // Positions that the candidate's watched free run went over, the first of the prompt; 0: all, and
  // the decode steps. Of fewer, its tapped_sha256 and untapped_sha256 are of these positions.
  int64_t n_watched = 0;
  // The candidate's logits at the first kWatchedPositions, unwatched; empty: there are fewer.
  std::string first_sha256;
  // The reference did not run over this prompt: its logits and tensors are of an earlier run.
  std::optional<KeptPart> reference_part;
  // The reference ran over this prompt watched alone: its logits have the bits that it gave
  // unwatched in an earlier run.
  std::optional<KeptProof> reference_proof;
  double wall_seconds[2] = {0, 0};     // candidate, reference: prefill and decode together
  std::optional<KeptTrace> traces[2];  // candidate, reference: of the free run; none: not kept
};

// A value in force and who set it. Flag beats variable beats configuration file beats default.
struct Choice {
  // origin: "flag --threads", "variable CROSSVAL_TIMEOUT_SECS", "default"
  std::string key, value, origin;
};

// The reference in its default configuration (flash attention as it likes) against the reference as
// compared. For information; decides nothing.
struct DefaultConfiguration {
  std::string flash;  // what it did: the session fact attn.flash
  double mean_kl = 0, worst_kl = 0, rel_l2 = 0;
  int64_t n_positions = 0, n_top1_differs = 0;
  std::string error;  // why there is no figure
  bool cached = false;
};

// A command to go on with: whole, as it can be pasted into a shell, and what it is for.
struct NextCommand {
  std::string command, purpose;
};

struct Comparison {
  drive::EngineRecord candidate, reference;
  std::vector<PromptRecord> prompts;
  std::vector<compare::LogitsRow> rows;  // in order of prompt, then position
  // errors as they arrived, in a free run (CondensePoints)
  std::vector<compare::PointRow> accumulated;
  // local errors, in dependency order (scope local; CondensePoints)
  std::vector<compare::PointRow> points;
  // of every token, where they were asked for and points were compared
  std::optional<compare::TokenErrors> token_errors;
  std::map<int32_t, std::string> token_text;  // of every id in prompts and rows
  // why points were not compared though asked for; empty: they were, or were not asked for
  std::string why_logits_only;
  noise::FloorRecord floor;
  std::optional<DefaultConfiguration> reference_default;
  std::vector<Choice> choices;
  std::vector<Doubt> doubts;       // about the model files
  std::vector<std::string> notes;  // of them, and of the prompts' tokens: what decides nothing
  // Comparisons of the same engines over other code paths, made beside this one, and the paths that
  // those went through which found nothing.
  std::vector<PathRun> path_runs;
  std::set<Path> paths_beside;
  // What two precisions make of the logits, where limits come of it.
  std::optional<compare::PrecisionEffect> effect;
  compare::Verdict verdict;
  std::vector<NextCommand> next;  // the most useful first
  double wall_seconds = 0;
};

}  // namespace pb::run

#endif  // PARITYBIT_RUN_RECORD_H_
