// What one comparison of two engines did and found: pure data for verdicts, reports and receipts.
#ifndef PARITYBIT_RUN_RECORD_H_
#define PARITYBIT_RUN_RECORD_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "compare/point_noise.h"
#include "compare/types.h"
#include "host/engine.h"
#include "model/doubt.h"

namespace pb::run {

// One side of the comparison and what it said of itself.
struct EngineRecord {
  std::string role;              // "candidate" "reference"
  std::string spec;              // as named by the user: "llama.cpp", "./libmine.so,threads=2"
  std::filesystem::path plugin;  // empty: never found
  std::string plugin_sha256;
  host::Settings settings;  // in force: the set-up's own, then the user's
  host::Facts description;  // name version commit build isa digest.* (abi/engine.h: describe)
  host::Facts model;        // what it understood of the model file
  host::Facts session;      // settings as they took effect
  std::string identity;     // sha256 over plugin and library digests, version and instruction set
  std::filesystem::path model_path;
  std::string model_sha256;
  std::string error;       // why it failed; empty when it did not
  std::string last_words;  // its last stderr lines when it failed

  // The facts in types.
  trace::EngineFacts engine_facts() const { return trace::ReadEngineFacts(description); }
  trace::ModelFacts model_facts() const { return trace::ReadModelFacts(model); }
  trace::SessionFacts session_facts() const { return trace::ReadSessionFacts(session); }
};

// A trace that was kept.
struct KeptTrace {
  std::filesystem::path folder;
  std::string level;           // "full"
  std::string records_blake3;  // of its records.jsonl, which holds the digest of every tensor
  std::string logits_blake3;   // as its manifest tells it
  int64_t n_records = 0;
  uint64_t n_bytes = 0;
};

struct PromptRecord {
  std::string text;
  std::string origin;                 // "--prompt", "prompts.txt:3", "stdin"
  std::vector<int32_t> tokens;        // ids fed to both
  std::vector<int32_t> tokens_of[2];  // as candidate and reference tokenised it
  int32_t steps_asked = 0;            // decode steps
  std::vector<int32_t> decoded;       // ids fed in decode: the reference's greedy choices
  std::string logits_sha256[2];  // candidate, reference: all rows in order of position, f32 little-endian
  std::string logits_blake3[2];  // the same bytes as a trace digests them
  std::string tapped_sha256[2];  // the same with tracepoints watched, nothing overwritten; empty: not run
  // What that is held against: logits_sha256; where the other engine's smaller batch cut the watched passes, the same passes
  // unwatched, as an engine's bits may depend on its batches.
  std::string untapped_sha256[2];
  bool observer_effect(int side) const {
    return !tapped_sha256[side].empty() && tapped_sha256[side] != untapped_sha256[side];
  }
  double wall_seconds[2] = {0, 0};     // candidate, reference: prefill and decode together
  std::optional<KeptTrace> traces[2];  // candidate, reference: of the free run; none: not kept
};

// A value in force and who set it. Flag beats variable beats configuration file beats default.
struct Choice {
  std::string key, value, origin;  // origin: "flag --threads", "variable CROSSVAL_TIMEOUT_SECS", "default"
};

// The reference in its default configuration (flash attention as it likes) against the reference as compared.
// For information; decides nothing.
struct DefaultConfiguration {
  std::string flash;  // what it did: the session fact attn.flash
  double mean_kl = 0, worst_kl = 0, rel_l2 = 0;
  int64_t n_positions = 0, n_top1_differs = 0;
  std::string error;  // why there is no figure
};

// Where the noise floor comes from.
struct FloorRecord {
  std::string side =
      "reference";      // whose it is: "candidate" where the reference can be neither disturbed nor varied
  std::string method;   // "random rounding" or what was varied instead
  bool weaker = false;  // the engine cannot be disturbed: natural variations only
  int32_t n_runs = 0;
  int64_t n_positions = 0;  // of one run: prompts and calibration
  int64_t n_calibration = 0;
  int32_t n_cached = 0,
          n_measured = 0;  // runs taken from the cache and runs measured now, summed over sequences
  double mean_kl = 0, worst_kl = 0, worst_gap = 0;
  std::vector<compare::PointFloor> points;  // empty: it has none
  std::string provenance;                   // cache folder, or the file that came with a recorded reference
  std::string sha256;                       // NoiseFloor::Digest
};

struct Comparison {
  EngineRecord candidate, reference;
  std::vector<PromptRecord> prompts;
  std::vector<compare::LogitsRow> rows;        // in order of prompt, then position
  std::vector<compare::PointRow> accumulated;  // errors as they arrived, in a free run (CondensePoints)
  std::vector<compare::PointRow> points;  // local errors, in dependency order (scope local; CondensePoints)
  std::map<int32_t, std::string> token_text;  // of every id in prompts and rows
  std::string
      why_logits_only;  // why points were not compared though asked for; empty: they were, or were not asked for
  FloorRecord floor;
  std::optional<DefaultConfiguration> reference_default;
  std::vector<Choice> choices;
  std::vector<Doubt> doubts;       // about the model files
  std::vector<std::string> notes;  // of them, and of the prompts' tokens: what decides nothing
  compare::Verdict verdict;
  double wall_seconds = 0;
};

}  // namespace pb::run

#endif  // PARITYBIT_RUN_RECORD_H_
