// Judges the tensors of one engine as they come: each against what the arbiter makes of those
// before it.
#ifndef PARITYBIT_AUDIT_OP_JUDGE_H_
#define PARITYBIT_AUDIT_OP_JUDGE_H_

#include <set>
#include <span>
#include <string>
#include <vector>

#include "audit/audit.h"
#include "codes/precision.h"
#include "diagnose/file_arbiter.h"

namespace pb::audit {

class OpJudge {
 public:
  // `arbiter`: of the file that declares the ops. `own`: of the file that the engine read, where
  // that is another one; else null. Both outlive this.
  // `strict`: the inputs of products are rounded as the engine's settings have it, or it is wrong.
  // Else `seen` has the classes that it was seen to round otherwise in passes of one token or of
  // several.
  OpJudge(diagnose::FileArbiter& arbiter, diagnose::FileArbiter* own, bool strict,
          std::vector<codes::ClassPrecision> seen, Audit* out);

  // Positions count from 0 again.
  void BeginPrompt(int32_t prompt);
  // What follows are tensors of these tokens, from first_position on, in order of execution.
  void BeginPass(int32_t step, int32_t first_position, std::span<const int32_t> tokens);
  // A tensor of all rows of the pass, which is an input of later ones, whether it is judged or not.
  // What cannot be judged is named in missing(); an Error is a failure of the arbiter.
  Status OnPoint(pb_stage stage, int32_t layer, const host::TensorRef& tensor, bool judged);
  // Some rows of logits.
  Status OnLogits(int32_t first_position, const host::TensorRef& rows);

  // Says what each finding comes to, when all passes were judged. `engine`: with an idle session, to
  // tell its codes; may be null.
  void Conclude(host::Engine* engine);

  // Whether the result of a stage is undefined because the model does not declare its activation.
  bool LeavesOpen(int32_t stage, bool activation_is_shown) const;
  const std::vector<compare::PointRow>& rows() const { return rows_; }
  const std::vector<std::string>& missing() const { return missing_; }

 private:
  // Judges the point that `op` describes but for its bound.
  Status Judge(diagnose::Culprit& op, const host::TensorRef& tensor);
  // How an op's input may be rounded that is not as the settings have it, as a variation: a context's
  // probabilities that are not rounded to f16, as its cache is; a product's as was seen of its class.
  // Empty: in no other way.
  std::string OtherRounding(const diagnose::Culprit& op) const;
  // Whether an op that does not agree does so with that; it is judged by it then.
  Result<bool> IsOtherwiseRounded(const diagnose::Culprit& op, std::span<const float> output);
  void Explain(const diagnose::Culprit& op, std::span<const float> output,
               const diagnose::Expectation& declared, const diagnose::Agreement& found);
  // What each token has of it, where that was asked for.
  void KeepTokens(const diagnose::Culprit& op, std::span<const float> output,
                  const diagnose::Expectation& declared, const compare::PointRow& row);
  // Whether an op before this one was found wrong in this prompt.
  bool IsWrongBefore(const diagnose::Culprit& op) const;
  bool IsExplainedAlike(const diagnose::Culprit& op, std::span<const float> output);
  // Who is wrong, and what the engine does instead.
  diagnose::Diagnosis Diagnose(const diagnose::Culprit& op, std::span<const float> output,
                               const diagnose::Expectation& declared);
  diagnose::Subject SubjectOf(const diagnose::Culprit& op, std::span<const float> output,
                              const diagnose::Expectation& declared);
  void CompareQuantisers(host::Engine& engine, const diagnose::Culprit& op,
                         const diagnose::Expectation& declared, diagnose::Diagnosis* d);
  static std::string Sentence(const diagnose::Diagnosis& d);
  std::span<const int32_t> TokensOf(const diagnose::Culprit& op) const;

  // The op of each finding, and what it should have given.
  struct Kept {
    diagnose::Culprit op;
    diagnose::Expectation declared;
  };
  diagnose::FileArbiter& arbiter_;
  diagnose::FileArbiter* own_;
  bool strict_;
  std::vector<codes::ClassPrecision> seen_;
  Audit* out_;
  stages::ModelShape shape_;
  std::vector<int32_t> tokens_;  // of the pass
  diagnose::Culprit op_;         // of the pass; its inputs are the recording
  std::vector<compare::PointRow> rows_;
  std::vector<std::string> missing_;
  std::vector<Kept> kept_;
  std::set<std::string> recomputed_;
  int64_t overflow_ = -1;  // the finding of a cache that cannot hold what it is given
};

}  // namespace pb::audit

#endif  // PARITYBIT_AUDIT_OP_JUDGE_H_
