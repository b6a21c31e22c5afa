// The judge: evidence in, verdict out. It fails closed: what was asked is counted against what was
// delivered, and every way to compare nothing is a verdict of its own that fails (ARCHITECTURE.md,
// "Verdicts").
#ifndef PARITYBIT_COMPARE_VERDICT_H_
#define PARITYBIT_COMPARE_VERDICT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "compare/noise_floor.h"
#include "compare/types.h"
#include "formats/act_scheme.h"

namespace pb::compare {

// Which differences of precision a user accepts or refuses (docs/numerics.md, "Precision of
// products").
struct PrecisionPolicy {
  bool strict = false;  // none: products are judged by what the engines declare
  std::vector<std::pair<BlockType, ActScheme>> accepted;  // besides what is usual
};

// Limits given by the user. Those on KL and gap replace the floor's; the others are enforced in
// addition. Each is enforced at every position, kl_mean over each prompt's prefill and decode
// apart.
struct UserLimits {
  std::optional<double> kl_mean, kl_worst;  // nats
  std::optional<double> gap_change;         // nats
  std::optional<double> min_cosine;         // --cos-tolerance
  std::optional<double> rel_l2, max_abs;
  // A candidate that can be told from the reference's own noise at this confidence has diverged.
  std::optional<double> confidence;
  PrecisionPolicy precision;
  // Where each comes from, for its Limit: "--cos-tolerance".
  std::string origin = "given by the user";
  bool any() const { return kl_mean || kl_worst || gap_change || min_cosine || rel_l2 || max_abs; }
};

// How far an arbiter's logits under the two engines' schemes lie apart, over positions of the
// prompts.
struct PrecisionEffect {
  double mean_kl = 0, worst_kl = 0, worst_gap = 0;  // nats
  int64_t n_positions = 0;
  std::string why_none;  // why it is not known; empty: it is
};

// Something an engine executes or was told, with where it comes from ("set", "default", "observed",
// ...).
struct Setting {
  std::string key, value, origin;
};

// What one prompt was to give and what it gave. Index 0: candidate, 1: reference.
struct PromptEvidence {
  int32_t prompt = 0;
  std::vector<int32_t> tokens[2];  // as each engine tokenised it, special tokens included
  int64_t n_decode_asked = 0;      // decode steps after the prompt
  int64_t n_prefill[2] = {0, 0};   // logits rows each engine delivered
  int64_t n_decode[2] = {0, 0};
  int64_t n_vocab[2] = {0, 0};  // length of a row
  // one for each position compared: prefill 0 .. T-1, then decode T .. T+n-1
  std::vector<LogitsRow> rows;
};

// What kept the comparison from being done or from meaning something; it explains why rows are
// missing. Use the constructors below where one fits: their codes are stable.
using Obstacle = Reason;
Obstacle NoReference(const std::string& text);  // incomplete, "no-reference"
// `role`: "candidate" "reference" "engine". Engine-failed, "candidate-failed" and so on.
Obstacle EngineFailed(const std::string& role, const std::string& text);
Obstacle Undeclared(const std::string& text);  // incomplete, "undeclared": logits are not judged
// The same, of a model that leaves its FFN activation open; `flag`: what declares it, as "--set".
Obstacle UndeclaredActivation(const std::string& architecture, const char* flag);
// incomplete, "unsupported": an engine says what it does not offer
Obstacle Unsupported(const std::string& text);
Obstacle Contradicted(const std::string& text);  // incomplete, "contradicted": two files disagree
Obstacle Unheard(const std::string& text);       // incomplete, "unheard": a key that nobody reads
Obstacle Interrupted(const std::string& text);   // incomplete, "interrupted"

// A class of products that two engines compute by different schemes, both observed.
struct PrecisionRow {
  BlockType weight = BlockType::kF32;
  std::string weights;  // "F16", "F16 of a multiple of 32 rows"
  ActScheme scheme[2];  // candidate (or engine), reference (or what is declared)
  int64_t n_matrices = 0;
  // Differences that are within their bound but for the schemes; where ops are not compared,
  // products that were seen to follow them.
  int64_t n_products = 0;
  std::string bound;   // sums kept in f16: the wider bound (LocalBound::Origin); else empty
  std::string remedy;  // "--set act.quant=none": what makes both round alike; empty: nothing known
};

struct Evidence {
  int64_t n_prompts_asked = 0;
  std::vector<PromptEvidence> prompts;
  // Facts of model and session of both engines. act.quant and kv.type must agree where both tell
  // them; where attn.flash does not, limits from the noise floor are wider (kFusedAttentionKl).
  std::vector<Setting> settings[2];
  std::vector<Obstacle> obstacles;
  std::optional<NoiseFloor> floor;  // of the reference
  std::string no_floor_reason;      // why there is none
  // The reference against itself at every row above, in order: KL of each run of random rounding.
  // Empty: no_runs_reason.
  std::vector<std::vector<double>> noise_runs;
  std::string no_runs_reason;
  // How far the two schemes move the logits, where engines round differently; nothing: it was not
  // asked for.
  std::optional<PrecisionEffect> effect;
  std::vector<PrecisionRow> precision;
  // Whether all classes of products were observed in both engines: then what they say of act.quant
  // decides nothing.
  bool precision_is_observed = false;
  UserLimits user;
};

// Judges by logits (scope logits-only). Marks rows beyond a limit of a single position
// (LogitsRow::above_limit).
Verdict JudgeLogits(Evidence* evidence);

// What a lock-step run gave: every expected tracepoint's local error.
struct LocalEvidence {
  // any order; a point may come in pieces of its token rows, and counts once
  std::vector<PointRow> points;
  // points that should have been compared; unobservable ones are not among them
  int64_t n_expected = 0;
  int64_t n_compared = 0;  // points that the run claims to have compared
  // Whether the candidate is shown to compute with what its points show; without that no logits are
  // called drift.
  bool shown_is_used = true;
  // By name ("layer 3, ffn_act: why"). Unmapped points are among the expected.
  std::vector<std::string> missing, unmapped, unobservable;
};

// Judges by local errors first and by logits second (scope local). Logits beyond the floor without
// any local error above its bound are drift, unless a point was unmapped or unobservable, or
// something kept the points from saying what the engine computes. Coverage counts points.
Verdict JudgeLocal(Evidence* evidence, const LocalEvidence& local);

// Judges one engine by what the arbiter makes of its own tensors; in points index 0 is the engine,
// 1 the arbiter. Of the evidence counts: prompts asked and their tokens (tokens[1]), rows that the
// engine delivered (n_prefill[0], n_decode[0]), obstacles.
Verdict JudgeAudit(const Evidence& evidence, const LocalEvidence& local);

// "layer 3, ffn_gated"; "logits" outside the layers.
std::string PointName(int32_t stage, int32_t layer);

// `precision_is_observed`: the schemes of products were, so of act.quant only what holds for all
// types counts.
std::vector<SettingDifference> DifferingSettings(const std::vector<Setting>& candidate,
                                                 const std::vector<Setting>& reference,
                                                 bool precision_is_observed);
// "settings-differ", one sentence.
Reason ReasonOf(const SettingDifference& difference);

// Whether one engine computes attention as one op and the other does not, as far as both tell
// (attn.flash).
bool AttentionDiffers(const std::vector<Setting>& candidate, const std::vector<Setting>& reference);
// Whether scores or contexts are right but for queries or probabilities that one engine rounds to f16.
bool AttentionRoundsDifferently(const LocalEvidence& local);
// What rounding of fused attention may add: so many times the limits on KL, and the root of it
// times that on gaps. Measured:
// docs/numerics.md, "Fused attention".
inline constexpr double kFusedAttentionKl = 4;

// Sorts reasons worst first (stable) and sets the outcome to the worst; no reason at all is
// invalid.
void Settle(Verdict* verdict);

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_VERDICT_H_
