// Judges an engine's operations one by one against what the arbiter makes of their inputs, and
// explains those that do not agree.
#include "audit/op_judge.h"

#include <algorithm>
#include <cmath>

#include "diagnose/blame.h"
#include "diagnose/stage_text.h"

namespace pb::audit {
namespace {

using compare::Blame;

bool IsFinite(const compare::PointRow& row) { return row.n_non_finite[0] + row.n_non_finite[1] == 0; }

// Whether an op takes its inputs to codes or f16 first.
bool RoundsItsInputs(pb_stage stage) {
  return (stages::kProducts | stages::kExpertProducts | stages::kAttention).Contains(stage);
}

// Whether an input holds NaN or an infinity other than a hidden score: what an op makes of it is
// not its own doing.
bool HasNonFinite(pb_stage stage, const std::vector<diagnose::Recorded>& inputs) {
  const auto bad = [&](float x) {
    const bool hidden = stage == PB_STAGE_ATTN_SCORES_SOFTMAX && x == -INFINITY;
    return !std::isfinite(x) && !hidden;
  };
  return std::ranges::any_of(inputs,
                             [&](const diagnose::Recorded& r) { return std::ranges::any_of(r.values, bad); });
}

// The largest key or value that attention reads, where an f16 cache cannot hold it; else 0.
float BeyondCache(pb_stage stage, const std::vector<diagnose::Recorded>& inputs, const host::Facts& session) {
  constexpr float kBeyondF16 = 65520;  // the least that rounds to an infinite f16
  const bool reads = stage == PB_STAGE_ATTN_SCORES || stage == PB_STAGE_ATTN_CONTEXT;
  if (!reads || inputs.empty() || host::FactText(session, "kv.type") != "f16") return 0;
  float largest = 0;
  for (float x : inputs.back().values) largest = std::max(largest, std::fabs(x));
  return largest >= kBeyondF16 ? largest : 0;
}

// What is to be said of values that are not finite.
diagnose::Diagnosis TellNonFinite(const diagnose::Culprit& op, const compare::PointRow& row,
                                  const diagnose::FileArbiter& arbiter, float beyond_cache) {
  diagnose::Diagnosis d;
  const std::string place = diagnose::PlaceText(op.place.layer, op.place.stage, std::nullopt);
  if (beyond_cache > 0) {
    d.blame = Blame::kEngine;
    d.sentence = fmt::format(
        "{}: the engine's f16 KV cache overflows: {} are up to {:.3g}, and the largest that f16 holds is "
        "65504; kv.type=f32 "
        "mends it",
        place, op.place.stage == PB_STAGE_ATTN_SCORES ? "keys" : "values", beyond_cache);
  } else if (row.n_non_finite[1] == 0) {
    d.blame = Blame::kEngine;
    d.sentence = place + ": the engine gives NaN or infinite values where the arbiter gives numbers";
  } else if (const std::string why = arbiter.WhyWithheld(op.place.stage, op.place.layer); !why.empty()) {
    d.blame = Blame::kUndetermined;
    d.why_undetermined = why;
    d.sentence = fmt::format("{}: NaN or infinite values come of finite inputs, and {}", place, why);
  } else if (row.n_non_finite[0] > 0) {
    d.blame = Blame::kModelFile;
    d.sentence = place + ": the numbers of the model file make NaN or infinite values of finite inputs";
    const std::string weights = diagnose::NonFiniteWeights(arbiter.model(), op.place.stage, op.place.layer);
    if (!weights.empty()) d.sentence += ": " + weights;
  } else {
    d.blame = Blame::kUndetermined;
    d.why_undetermined = "the model file makes NaN or infinite values, which the engine avoids";
    d.sentence = fmt::format("{}: it stays open who is wrong: {}", place, d.why_undetermined);
  }
  return d;
}

}  // namespace

OpJudge::OpJudge(diagnose::FileArbiter& arbiter, diagnose::FileArbiter* own, bool strict,
                 std::vector<codes::ClassPrecision> seen, Audit* out)
    : arbiter_(arbiter),
      own_(own),
      strict_(strict),
      seen_(std::move(seen)),
      out_(out),
      shape_(arbiter.model().params().shape()) {}

void OpJudge::BeginPrompt(int32_t prompt) {
  op_.inputs.Clear();
  op_.place.prompt = prompt;
}

void OpJudge::BeginPass(int32_t step, int32_t first_position, std::span<const int32_t> tokens) {
  op_.place.step = step;
  op_.first_position = first_position;
  tokens_.assign(tokens.begin(), tokens.end());
  op_.inputs.BeginPass(first_position);
}

bool OpJudge::LeavesOpen(int32_t stage, bool activation_is_shown) const {
  if (!trace::ReadModelFacts(arbiter_.facts()).activation_undeclared()) return false;
  return stage == PB_STAGE_FFN_ACT || (stage == PB_STAGE_FFN_GATED && !activation_is_shown);
}

std::span<const int32_t> OpJudge::TokensOf(const diagnose::Culprit& op) const {
  return std::span(tokens_).subspan(static_cast<size_t>(op.first_position - op_.first_position),
                                    static_cast<size_t>(op.shape[0]));
}

Status OpJudge::OnPoint(pb_stage stage, int32_t layer, const host::TensorRef& tensor, bool judged) {
  op_.place.stage = stage, op_.place.layer = layer;
  op_.shape = tensor.shape;
  const auto n_rows = static_cast<int64_t>(tokens_.size());
  if (tensor.shape.empty() || tensor.shape[0] != n_rows || tensor.data.empty()) {
    missing_.push_back(fmt::format("{}: {} rows were shown of {}", compare::PointName(stage, layer),
                                   tensor.shape.empty() ? 0 : tensor.shape[0], n_rows));
    return {};
  }
  op_.inputs.Add(stage, layer, {tensor.shape, {tensor.data.begin(), tensor.data.end()}});
  return judged ? Judge(op_, tensor) : Status();
}

Status OpJudge::OnLogits(int32_t first_position, const host::TensorRef& rows) {
  const diagnose::Recorded* norm = op_.inputs.Output(PB_STAGE_FINAL_NORM, -1);
  const int64_t begin = first_position - op_.first_position;
  if (!norm || begin < 0 || rows.shape.empty() || begin + rows.shape[0] > norm->shape[0]) {
    missing_.push_back(fmt::format("logits of position {}: {}", first_position,
                                   norm ? "no such rows were evaluated" : "final_norm was not shown"));
    return {};
  }
  // The rows of the norm that these rows of logits are made of.
  const int64_t n = rows.shape[0], width = static_cast<int64_t>(norm->values.size()) / norm->shape[0];
  diagnose::Recorded part{{n, width},
                          {norm->values.begin() + begin * width, norm->values.begin() + (begin + n) * width}};
  diagnose::Culprit op;
  op.place = {op_.place.prompt, op_.place.step, PB_STAGE_LOGITS, -1};
  op.first_position = first_position;
  op.shape = rows.shape;
  op.inputs.BeginPass(first_position);
  op.inputs.Add(PB_STAGE_FINAL_NORM, -1, std::move(part));
  return Judge(op, rows);
}

Status OpJudge::Judge(diagnose::Culprit& op, const host::TensorRef& tensor) {
  const auto stage = static_cast<pb_stage>(op.place.stage);
  op.reference.assign(tensor.data.begin(), tensor.data.end());
  op.bound = compare::BoundOf(stage, shape_, op.first_position + op.shape[0]);
  auto expected = arbiter_.Expect(op, TokensOf(op), "");
  if (!expected.ok()) {
    const Error& error = expected.error();
    const bool refused =
        error.code == Code::kNotFound || error.code == Code::kUsage || error.code == Code::kUnsupported;
    if (!refused) return std::move(expected).error();
    missing_.push_back(
        fmt::format("{}: {}", compare::PointName(op.place.stage, op.place.layer), error.message));
    return {};
  }
  recomputed_.insert(expected->recomputed.begin(), expected->recomputed.end());
  out_->recomputed.assign(recomputed_.begin(), recomputed_.end());
  const diagnose::Agreement found =
      arbiter_.Compare(op, tensor.data, expected->output.values, expected->units);
  // What the arbiter computed in place of a tensor that is not shown may be rounded to another code
  // than the engine's own; so may what it computed of such, on the way here.
  const auto& recomputed = expected->recomputed;
  const bool rounds_on_the_way =
      recomputed.size() > 1 && std::ranges::any_of(recomputed, [](const std::string& name) {
        const pb_stage before = stages::Find(name);
        return stages::IsStage(before) && (RoundsItsInputs(before) || before == PB_STAGE_EXPERT_IDS);
      });
  if (!found.agrees && !recomputed.empty() && (RoundsItsInputs(stage) || rounds_on_the_way)) {
    missing_.push_back(fmt::format("{}: its error cannot be told from rounding, as {} was not shown",
                                   compare::PointName(op.place.stage, op.place.layer), recomputed.front()));
    return {};
  }
  if (!found.agrees) {
    PB_ASSIGN(const bool otherwise, IsOtherwiseRounded(op, tensor.data));
    if (otherwise) return {};
  }
  if (!found.agrees) Explain(op, tensor.data, *expected, found);
  if (out_->run.token_errors) KeepTokens(op, tensor.data, *expected, found.row);
  rows_.push_back(found.row);
  return {};
}

std::string OpJudge::OtherRounding(const diagnose::Culprit& op) const {
  if (strict_) return "";
  if (op.place.stage == PB_STAGE_ATTN_SCORES || op.place.stage == PB_STAGE_ATTN_CONTEXT)
    return host::FactText(arbiter_.session(), "kv.type") == "f16" ? "attn.rounded=0" : "";
  const auto of = codes::ClassAt(arbiter_.model(), op.place.stage, op.place.layer);
  const auto seen = of ? std::ranges::find(seen_, *of, &codes::ClassPrecision::of) : seen_.end();
  if (seen == seen_.end() || seen->scheme || !seen->of_rows[op.shape[0] == 1]) return "";
  return fmt::format("act.quant={}", ActSchemeName(*seen->of_rows[op.shape[0] == 1]));
}

Result<bool> OpJudge::IsOtherwiseRounded(const diagnose::Culprit& op, std::span<const float> output) {
  const std::string rounding = OtherRounding(op);
  if (rounding.empty()) return false;
  PB_ASSIGN(const diagnose::Expectation expected, arbiter_.Expect(op, TokensOf(op), rounding));
  diagnose::Agreement found = arbiter_.Compare(op, output, expected.output.values, expected.units);
  if (!found.agrees) return false;
  if (out_->run.token_errors) KeepTokens(op, output, expected, found.row);
  found.row.explained_by_precision = true;
  found.row.explanation = op.place.stage == PB_STAGE_ATTN_SCORES ? "its queries are not rounded to f16"
                          : op.place.stage == PB_STAGE_ATTN_CONTEXT
                              ? "its probabilities are not rounded to f16"
                              : "its input is rounded by " + rounding;
  rows_.push_back(std::move(found.row));
  return true;
}

void OpJudge::KeepTokens(const diagnose::Culprit& op, std::span<const float> output,
                         const diagnose::Expectation& declared, const compare::PointRow& row) {
  const compare::PointPlace place{row.prompt, row.step, row.stage, row.layer, row.first_position};
  const compare::LocalBound bound =
      declared.units.empty() ? op.bound
                             : compare::BoundFromUnits(static_cast<pb_stage>(op.place.stage), declared.units);
  out_->run.token_errors->local.Add(
      place, compare::ErrorsOfRows({output, row.n_rows, row.n_features},
                                   {declared.output.values, row.n_rows, row.n_features}, place, bound)
                 .over_bound);
}

// Whether the variation that explains an earlier place explains this one too.
bool OpJudge::IsExplainedAlike(const diagnose::Culprit& op, std::span<const float> output) {
  for (AuditFinding& finding : out_->findings) {
    const diagnose::Trial* named = finding.diagnosis.Named();
    if (finding.diagnosis.place.stage != op.place.stage || !named) continue;
    auto varied = arbiter_.Expect(op, TokensOf(op), named->name);
    if (!varied.ok() || !arbiter_.Compare(op, output, varied->output.values, varied->units).agrees) continue;
    finding.also.push_back(op.place);
    return true;
  }
  return false;
}

bool OpJudge::IsWrongBefore(const diagnose::Culprit& op) const {
  return std::ranges::any_of(out_->findings, [&](const AuditFinding& f) {
    return f.diagnosis.place.prompt == op.place.prompt && f.diagnosis.blame == Blame::kEngine;
  });
}

void OpJudge::Explain(const diagnose::Culprit& op, std::span<const float> output,
                      const diagnose::Expectation& declared, const diagnose::Agreement& found) {
  const auto stage = static_cast<pb_stage>(op.place.stage);
  if (IsFinite(found.row) && IsExplainedAlike(op, output)) return;
  // it follows from another op's, or from finite values that the engine got wrong before
  if (!IsFinite(found.row) && HasNonFinite(stage, declared.inputs)) return;
  if (found.row.n_non_finite[1] > 0 && IsWrongBefore(op)) return;
  const float beyond_cache =
      IsFinite(found.row) ? 0 : BeyondCache(stage, declared.inputs, out_->run.candidate.session);
  if (beyond_cache > 0 && overflow_ >= 0) {
    out_->findings[static_cast<size_t>(overflow_)].also.push_back(op.place);
    return;
  }
  if (out_->findings.size() >= kMaxFindings) return;
  diagnose::Diagnosis d = IsFinite(found.row) ? Diagnose(op, output, declared)
                                              : TellNonFinite(op, found.row, arbiter_, beyond_cache);
  if (beyond_cache > 0) overflow_ = static_cast<int64_t>(out_->findings.size());
  d.place = op.place;
  d.position = found.row.first_row_above >= 0 ? found.row.first_row_above
                                              : std::max(found.row.worst_row_position, op.first_position);
  if (found.row.feature_alone) d.feature = found.row.worst_feature_index;
  d.findings.insert(d.findings.begin(), {"engine against arbiter", found.error(), found.row.bound,
                                         found.row.bound_ratio, false, found.row.explanation});
  d.recomputed = declared.recomputed;
  if (out_->run.candidate.engine_facts().name == "native")
    d.shared.push_back(
        "the arbiter reads the model file, decodes its blocks and tokenises with the same code as the "
        "engine (native); the block decoders are tested against the reference library's own");
  kept_.push_back({op, declared});
  kept_.back().op.row = found.row;
  out_->findings.push_back({std::move(d), {}});
}

diagnose::Subject OpJudge::SubjectOf(const diagnose::Culprit& op, std::span<const float> output,
                                     const diagnose::Expectation& declared) {
  diagnose::Subject subject{"engine", &op, &arbiter_, output, declared.output.values, declared.units, {}};
  for (const std::string& name : declared.recomputed)
    if (const pb_stage stage = stages::Find(name); stages::IsStage(stage))
      subject.recomputed.push_back(stage);
  return subject;
}

void OpJudge::Conclude(host::Engine* engine) {
  for (size_t i = 0; i < kept_.size(); i++) {
    diagnose::Diagnosis& d = out_->findings[i].diagnosis;
    if (d.blame != Blame::kEngine && d.blame != Blame::kModelFile) continue;
    const diagnose::Culprit& op = kept_[i].op;
    const diagnose::Expectation& declared = kept_[i].declared;
    std::vector<diagnose::SeenPass> passes;
    const compare::PointRow* last = nullptr;
    for (const compare::PointRow& row : rows_) {
      const bool further = last && row.stage == PB_STAGE_LOGITS && last->stage == row.stage &&
                           last->prompt == row.prompt && last->step == row.step;
      if (row.stage == op.place.stage && row.layer == op.place.layer)
        diagnose::AddSeen(row, further, &passes);
      last = &row;
    }
    if (engine) CompareQuantisers(*engine, op, declared, &d);
    diagnose::DrawConclusion(
        {SubjectOf(op, op.reference, declared), d.trials, d.codes ? &*d.codes : nullptr, passes}, &d);
    if (d.blame == Blame::kModelFile && d.conclusion.where == diagnose::Where::kProduct)
      d.conclusion.where = d.grounds.conclusion.where = diagnose::Where::kWeights;
    // Of values that are not finite what was said is more than a cause.
    if (!d.sentence.empty()) d.side.clear();
    if (d.sentence.empty()) d.sentence = Sentence(d);
  }
}

// What the engine's quantiser makes of the op's input, beside what the arbiter's does.
void OpJudge::CompareQuantisers(host::Engine& engine, const diagnose::Culprit& op,
                                const diagnose::Expectation& declared, diagnose::Diagnosis* d) {
  if (!stages::kProducts.Contains(op.place.stage)) return;
  const auto inputs = arbiter_.Inputs(op);
  if (!inputs.ok()) return;
  const Model& model = arbiter_.model();
  d->codes = diagnose::CompareCodes(
      op, inputs->front().values,
      std::vector<diagnose::CodeSubject>{
          {"engine", arbiter_.CodesOf(engine, op), &model, op.reference, declared.units},
          {"arbiter", arbiter_.Codes(op), &model, declared.output.values, declared.units}});
}

std::string OpJudge::Sentence(const diagnose::Diagnosis& d) {
  const std::string place = diagnose::PlaceText(d.place.layer, d.place.stage, d.feature);
  if (d.blame == Blame::kModelFile)
    return fmt::format("{}: the engine computes what its own file says, and the good file differs: {}", place,
                       d.file_differences.empty() ? "in what this op reads" : d.file_differences.front());
  const diagnose::Trial* named = d.Named();
  return fmt::format("{}: the engine {}{}", place, diagnose::CauseText(d),
                     named ? "; agreement restored with " + named->short_text : "");
}

diagnose::Diagnosis OpJudge::Diagnose(const diagnose::Culprit& op, std::span<const float> output,
                                      const diagnose::Expectation& declared) {
  diagnose::Diagnosis d;
  d.blame = Blame::kEngine;
  if (own_) {
    d.file_differences = diagnose::FileDifferences(own_->model(), arbiter_.model(), op.place.stage,
                                                   op.place.layer, {"the engine's file", "the good file's"});
    auto by_own_file = own_->Expect(op, TokensOf(op), "");
    if (by_own_file.ok()) {
      const diagnose::Agreement own =
          own_->Compare(op, output, by_own_file->output.values, by_own_file->units);
      d.findings.push_back({"engine against its own file", own.error(), own.row.bound, own.row.bound_ratio,
                            own.agrees, own.row.explanation});
      if (own.agrees) d.blame = Blame::kModelFile;
      d.why_undetermined = arbiter_.WhyWithheld(op.place.stage, op.place.layer);
      if (d.why_undetermined.empty()) d.why_undetermined = own_->WhyWithheld(op.place.stage, op.place.layer);
      if (own.agrees && !d.why_undetermined.empty()) {
        d.blame = Blame::kUndetermined;
        d.sentence = fmt::format("{}: it stays open who is wrong: {}",
                                 diagnose::PlaceText(op.place.layer, op.place.stage, std::nullopt),
                                 d.why_undetermined);
      }
    }
  }
  d.trials = diagnose::TryHypotheses(SubjectOf(op, output, declared));
  return d;
}

}  // namespace pb::audit
