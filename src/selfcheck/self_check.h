// How much paritybit sees: known defects are committed in an engine (plugins/mutant), one at a
// time, and each must be detected, placed, blamed on the engine that has it and named; harmless
// changes must raise no alarm. Every case is a whole comparison with its diagnosis
// (CompareAndExplain), as a user's.
#ifndef PARITYBIT_SELFCHECK_SELF_CHECK_H_
#define PARITYBIT_SELFCHECK_SELF_CHECK_H_

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "diagnose/explained_run.h"

namespace pb::selfcheck {

// A defect, or a harmless change, committed once.
struct SelfCase {
  std::string key;     // unique: "tiny-bitnet-silu layer 2 down_proj weight_flipped"
  std::string kind;    // row of the matrix: "rotation"
  std::string defect;  // its name; of a harmless change what was changed
  bool benign = false;
  std::filesystem::path model;
  drive::EngineSpec candidate, reference;
  int32_t stage = PB_STAGE_UNMAPPED, layer = -1;  // where it is; unmapped: in no single op
  // names of hypotheses that are right, by their beginning
  std::vector<std::string> truths;
  // Of a generated defect: what is true of it, in the words of a conclusion; alternatives stand between
  // " | ". Of others empty.
  std::string truth;
};

// What became of it. All but the key and the texts is what the matrix counts.
struct SelfResult {
  std::string key, kind, defect;
  bool benign = false;
  std::string error;  // why it could not be run; nothing else then counts
  // why it does not count: what it changes is too small, or nothing
  std::string skipped;
  double bound_ratio = 0;                  // of the local error at the op, over its bound
  bool detected = false;                   // of a harmless change: a false alarm
  bool exact = false, within_one = false;  // the verdict's first divergence
  std::optional<bool> spot;                // its row or head, where the defect is at one
  bool blamed = false, named = false;
  std::string verdict, place, blame, named_as;  // as reported
  // Of a generated defect. Which run found it: "plain", or the path's name; empty: none did.
  std::string found_by;
  std::string truth, said;  // what is true of it, and the conclusion of its diagnosis
  std::string match;        // the one against the other: "right" "partial" "nothing" "wrong"
};

// The prompt of every defect.
const char* SelfCheckPrompt();

// A defect counts where its local error is at least this many times its bound.
inline constexpr double kLeastRatio = 10;

struct SelfModel {
  std::filesystem::path path;
  bool foreign = false;  // whether the foreign engine computes what this model declares
  bool rest = false;     // of it alone what no model before it has: a defect at an op
};

// Generated defects in the place of the catalogue's.
struct GeneratedRequest {
  int64_t n_cases = 0;  // over all models; 0: the catalogue
  uint64_t seed = 1;    // of the generator
};

struct SelfCheckRequest {
  std::vector<SelfModel> models;
  drive::EngineSpec mutant, native, arbiter;   // without settings of the case
  std::optional<drive::EngineSpec> reference;  // a foreign engine for more harmless changes
  std::string calibration;                     // text, as for crossval
  double share = 1;                            // of the cases of each kind, in (0, 1]
  uint64_t seed = 1;                           // which ones
  GeneratedRequest generated;
  std::string filter;             // only cases whose key holds this text
  std::filesystem::path results;  // a line for each case as it ends; empty: none
  bool resume = false;            // cases that stand there already are not run again
  int n_jobs = 1;
  host::Limits limits;
  drive::Progress progress;
};

// The version of the mutant's generator.
Result<int64_t> GeneratorVersion(const SelfCheckRequest& request);
// The cases asked for, in the order of models. Starts the mutant on each model to ask what it can
// do wrong there.
Result<std::vector<SelfCase>> PlanSelfCheck(const SelfCheckRequest& request);
// Runs them; results in the order of the cases. An engine that fails is a case's error.
Result<std::vector<SelfResult>> RunSelfCheck(const SelfCheckRequest& request,
                                             const std::vector<SelfCase>& cases);

// One line of the matrix. Counts are of defects that count, `skipped` and `failed` beside them.
struct SelfRow {
  std::string kind;
  int64_t n = 0, detected = 0, exact = 0, within_one = 0, spots = 0, spots_right = 0, blamed = 0, named = 0;
  int64_t skipped = 0, failed = 0;
};
struct SelfMatrix {
  std::vector<SelfRow> rows;  // by kind, then all
  SelfRow total;
  int64_t n_names = 0;  // different defects among those that count
  int64_t n_benign = 0, n_unchanged = 0, n_alarms = 0, n_benign_failed = 0;
  std::vector<const SelfResult*>
      misses;  // not detected, not placed, not blamed, not named, failed, false alarms
  std::map<std::string, int64_t> unseen;  // why defects do not count, with how many
  std::vector<std::string> broken_goals;  // a sentence each; empty: all hold
};
// `results` outlive it. `whole`: nothing was left out by share or filter, so the catalogue's own
// size is a goal too.
SelfMatrix CountSelfCheck(const std::vector<SelfResult>& results, bool whole);

}  // namespace pb::selfcheck

#endif  // PARITYBIT_SELFCHECK_SELF_CHECK_H_
