// The data types of judgement: what was compared, against which limits, with what outcome. Pure
// data; no engine in sight.
#ifndef PARITYBIT_COMPARE_TYPES_H_
#define PARITYBIT_COMPARE_TYPES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "abi/vocabulary.h"
#include "compare/noise_rank.h"
#include "compare/reasons.h"

namespace pb::compare {

enum class Scope { kLogitsOnly, kLocal };
const char* ScopeName(Scope s);  // "logits-only" "local"

// kEngine: the one engine that was judged (audit).
enum class Blame { kNone, kCandidate, kReference, kBoth, kEngine, kModelFile, kUndetermined };
const char* BlameName(Blame b);

// A limit in force. Nothing decides without one of these being printed.
struct Limit {
  std::string name;  // "kl.prefill.mean"
  double value = 0;
  std::string unit;    // "nats"
  std::string origin;  // "2 x the largest mean of any 9-position window over 8 runs of random rounding of the
                       // reference, 409 positions"
  bool by_user = false;
  int64_t window = 0;  // of a mean: over so many positions; 0: over any number
};

enum class Phase { kPrefill, kDecode };
const char* PhaseName(Phase p);  // "prefill" "decode"

// One position's logits, candidate against reference. Definitions in docs/numerics.md.
struct LogitsRow {
  int32_t prompt = 0, position = 0;
  int32_t token = -1;  // the input token at this position
  Phase phase = Phase::kPrefill;
  bool finite = true;                // both rows
  int64_t n_non_finite[2] = {0, 0};  // candidate, reference
  double rel_l2 = 0, max_abs = 0, cosine = 0;
  double mse = 0;              // mean of (candidate - reference)^2 over the vocabulary, logits as they are
  double kl = 0;               // KL(reference || candidate), nats, full vocabulary
  int32_t top1[2] = {-1, -1};  // candidate, reference; ties: lowest id
  double gap_reference =
      0;  // log p(top-1) - log p(top-2) of the reference's two best tokens, in the reference
  double gap_candidate = 0;  // the same two tokens' difference in the candidate
  double gap_change =
      0;  // |change of a gap|: of the two top-1 tokens where they differ, else of the reference's two best
  int32_t top_k_overlap = 0;      // of k
  std::vector<int32_t> top_k[2];  // candidate, reference
  std::vector<double> top_k_logp[2];
  bool flipped() const { return top1[0] != top1[1]; }
  // set by the judge: this position is beyond a limit of a single position
  bool above_limit = false;
};

// One local or accumulated error of a tracepoint (lock-step or trace comparison). Definitions in
// docs/numerics.md.
struct PointRow {
  int32_t prompt = 0, step = 0, stage = PB_STAGE_UNMAPPED, layer = -1;  // step 0: prefill
  int32_t first_position = 0;
  int64_t n_rows = 0, n_features = 0;
  double rel_l2 = 0;     // over the tensor
  double worst_row = 0;  // over the token rows; at worst_row_position
  int32_t worst_row_position = -1;
  int32_t first_row_above = -1;  // position of the first row above its bound; -1: none is
  double worst_feature = 0;      // over the output columns; at worst_feature_index
  int64_t worst_feature_index = -1;
  // Beyond the bound, most of the error in worst_feature_index, and no other column with a tenth of
  // that.
  bool feature_alone = false;
  // what worst_row and worst_feature may reach; origin in docs/numerics.md; 0: not judged
  double bound = 0;
  // the largest error over its bound; infinite where one side alone is not finite
  double bound_ratio = 0;
  double max_abs = 0, cosine = 0, scale = 1, offset = 0;  // candidate ~ scale * reference + offset
  int64_t n_non_finite[2] = {
      // candidate, reference; hidden scores that are -inf on both sides are not counted
      0, 0};
  double largest = 0;  // magnitude of a finite value, of either side
  // above the bound, and explained by differently rounded activation codes
  bool explained_by_codes = false;
  // above the bound, by the schemes that the engines round inputs by
  bool explained_by_precision = false;
  // of chosen experts: above the bound, where the router's logits lie within rounding of each other
  bool explained_by_tie = false;
  std::string explanation;
  bool above_bound() const { return !(bound_ratio <= 1); }
  bool is_defect() const {
    return above_bound() && !explained_by_codes && !explained_by_precision && !explained_by_tie;
  }
};

// What was compared of what should have been.
struct Coverage {
  std::string unit;  // "positions" or "points"
  int64_t expected = 0, compared = 0;
  std::vector<std::string> missing, unmapped, unobservable;  // named; unobservable with reason
};

// A setting on which two engines part, so that their results are not comparable; of act.quant the
// scheme of the layers' products.
struct SettingDifference {
  std::string key, values[2], origins[2];  // candidate, reference
};

struct FirstDivergence {
  int32_t prompt = 0, position = 0, token = -1, layer = -1;
  std::optional<int32_t> stage;    // pb_stage; none in scope logits-only
  std::optional<int64_t> feature;  // output column, where one is concerned
};

struct Verdict {
  Scope scope = Scope::kLogitsOnly;
  Outcome outcome = Outcome::kInvalid;  // of no reasons at all: nothing was compared
  std::vector<Reason> reasons;          // worst first
  std::vector<Limit> limits;
  Coverage coverage;
  std::vector<SettingDifference> differing;
  std::optional<FirstDivergence> first_divergence;
  std::optional<NoiseRank> rank;  // none: it could not be told
  Blame blame = Blame::kNone;
  bool Has(ReasonCode code) const { return HasReason(reasons, code); }
};

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_TYPES_H_
