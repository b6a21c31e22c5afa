// Why two engines differ at an op, and whose fault it is: both are judged by the arbiter on the
// same inputs, then named hypotheses are tried on the engine that is wrong.
#ifndef PARITYBIT_DIAGNOSE_DIAGNOSE_H_
#define PARITYBIT_DIAGNOSE_DIAGNOSE_H_

#include <optional>
#include <string>
#include <vector>

#include "compare/types.h"
#include "diagnose/capture.h"
#include "diagnose/code_evidence.h"
#include "diagnose/conclude.h"
#include "diagnose/hypotheses.h"
#include "run/record.h"

namespace pb::diagnose {

// One comparison that blame rests on.
struct Finding {
  // "candidate against arbiter", "reference against arbiter", "candidate against reference"
  std::string what;
  // the larger of the worst row's and the worst feature's (docs/numerics.md)
  double error = 0;
  double bound = 0;        // what it may reach
  double bound_ratio = 0;  // of the place that is furthest beyond its bound
  bool agrees = false;     // within the bound, or explained by codes
  std::string note;        // how codes explain it; empty: they do not, or need not
};

struct Diagnosis {
  Place place;
  int32_t position = -1;           // first row beyond its bound
  std::optional<int64_t> feature;  // the one output column concerned
  compare::Blame blame = compare::Blame::kNone;
  std::string sentence;          // for a person: where, who, what
  std::string why_undetermined;  // where blame is undetermined
  // What the finding comes to, of the side that is wrong; of two the one that has a name.
  Conclusion conclusion;
  std::string side;  // "candidate" "reference" "engine"; empty: there is no conclusion
  // Half a sentence behind its name, and what is nearest where nothing explains it: "leaves out the
  // last 3 of 256 columns of K in the product" (CauseText).
  std::string cause, nearest;
  Grounds grounds;                // what the conclusion rests on, beside
  std::vector<SeenPass> passes;   // of the op, which tell when
  std::vector<Finding> findings;  // the evidence
  // of a quantised product whose engines or arbiter tell codes
  std::optional<CodeEvidence> codes;
  std::vector<Trial> trials;  // those that restore agreement first, best first
  // inputs that an engine does not show; the arbiter computed them
  std::vector<std::string> recomputed;
  // what an engine and the arbiter share, so that it is not judged
  std::vector<std::string> shared;
  std::vector<std::string> file_differences;  // two model files: what differs of what this op reads

  // The best trial of a side that restores agreement; nullptr: none does.
  const Trial* Named() const;
};

// Draws the conclusion of a side from its evidence, and puts an op before this one in its place where
// that is the one that is wrong.
void DrawConclusion(const Evidence& evidence, Diagnosis* diagnosis);
// Half a sentence: cause, when, nearest.
std::string CauseText(const Diagnosis& diagnosis);
// The passes of a comparison that found nothing.
std::vector<SeenPass> RightPasses(const run::Comparison& comparison);
// Concludes `when` from more passes of the op.
void AddPasses(std::span<const SeenPass> passes, Diagnosis* diagnosis);

// Explains a point that was captured while this comparison ran; one replay for each side and each
// hypothesis. Of the comparison: both engines' records, tokens.
Result<Diagnosis> Explain(const Culprit& culprit, const run::Comparison& comparison,
                          const drive::EngineSpec& arbiter, const host::Limits& limits);

// Where the engines' token ids differ: which of them are the arbiter's, by the model's own rules,
// and how the others part from those (BOS missing or doubled, or the first place).
Result<Diagnosis> ExplainTokens(const run::Comparison& comparison, const drive::EngineSpec& arbiter,
                                const host::Limits& limits);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_DIAGNOSE_H_
