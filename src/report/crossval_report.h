// What a comparison tells: one struct, filled by the command, and its renderings as text, JSON and receipt.
// Strings out; no printing, no file, no clock.
#ifndef PARITYBIT_REPORT_CROSSVAL_REPORT_H_
#define PARITYBIT_REPORT_CROSSVAL_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "compare/noise_floor.h"
#include "compare/types.h"
#include "compare/verdict.h"

namespace pb::report {

// An engine as it described itself and what it understood of the model.
struct EngineReport {
  std::string role;                           // "candidate" "reference"
  std::string spec;                           // NAME|PATH[,key=value...] as given
  std::vector<compare::Setting> description;  // name version commit build isa threads digest.* path.*
  std::vector<compare::Setting> facts;        // of model and session, with origin
  std::string model_path, model_sha256;
};

struct PromptReport {
  std::string text;
  std::vector<int32_t> tokens[2];  // candidate, reference
  int64_t n_decode = 0;
  std::vector<compare::LogitsRow> rows;  // all positions, as judged
  std::string logits_sha256[2];          // of all rows in order, f32 little-endian
};

// The text of one token id as the reference (else the candidate) writes it; raw bytes, escaped by the
// renderings.
struct TokenText {
  int32_t id = 0;
  std::string text;
};

struct HostReport {
  std::string os, cpu, isa;
  int n_cpus = 0;
};

// A row that informs and never decides: the reference's default configuration.
struct Informational {
  std::string what;  // "reference's default configuration (flash attention auto)"
  double rel_l2 = 0, mean_kl = 0, worst_kl = 0;
  bool equal_bits = false;
};

struct CrossvalReport {
  std::string command = "crossval";
  std::string tool_version;
  std::string model_path, model_sha256, model_summary;  // "bitnet, 6 layers, d_model 256, TQ2_0"
  std::vector<EngineReport> engines;                    // candidate, reference
  std::vector<PromptReport> prompts;
  std::vector<TokenText> token_texts;  // every id that a row names; any order
  std::optional<compare::NoiseFloor> floor;
  std::vector<Informational> informational;
  std::vector<compare::PointRow> points;  // scope local: local errors
  compare::Verdict verdict;
  std::vector<std::string> next;   // commands that work when pasted
  std::vector<std::string> notes;  // what could loosen a limit, what is not shown
  HostReport host;
  double wall_seconds = 0;
};

struct TextOptions {
  bool colour = false;
  bool all = false;    // every position; else the first few beyond the limit and the extremes
  bool quiet = false;  // one line
  int width = 80;
};

// For people; ends with the verdict and the next commands. Ends with a newline.
std::string RenderText(const CrossvalReport& report, const TextOptions& options);
// One JSON object, pretty-printed, schema paritybit.crossval/0 (ARCHITECTURE.md). Non-finite numbers are null
// and counted in "non_finite_numbers".
std::string RenderJson(const CrossvalReport& report);
// The evidence of a run in canonical JSON (RFC 8785 ordering: keys sorted, no spaces), schema
// paritybit.receipt/0, with "sha256" over the object without that field.
std::string RenderReceipt(const CrossvalReport& report);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_CROSSVAL_REPORT_H_
