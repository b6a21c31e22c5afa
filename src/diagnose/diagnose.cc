// Recomputes the op for each side's file, asks both engines for their codes, tries hypotheses,
// and words the result.
#include "diagnose/diagnose.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "diagnose/blame.h"
#include "diagnose/op_weights.h"
#include "diagnose/stage_text.h"
#include "drive/participant.h"

namespace pb::diagnose {
namespace {

using compare::Blame;

// Where an output and the expected values are NaN or infinite at the same places, the finite values
// alone decide.
Finding FindingOf(std::string what, const Agreement& found) {
  if (!found.finite_part)
    return {std::move(what),       found.error(), found.row.bound,
            found.row.bound_ratio, found.agrees,  found.row.explanation};
  const compare::PointRow& rest = *found.finite_part;
  return {std::move(what),
          std::max(rest.worst_row, rest.worst_feature),
          rest.bound,
          rest.bound_ratio,
          rest.bound_ratio <= 1,
          fmt::format("NaN or infinite in the same {} places", found.row.n_non_finite[0])};
}

// Explains one captured point.
class Explanation {
 public:
  Explanation(const Culprit& culprit, const run::Comparison& comparison, const drive::EngineSpec& arbiter,
              const host::Limits& limits)
      : culprit_(culprit), comparison_(comparison), spec_(arbiter), limits_(limits) {}

  Result<Diagnosis> Run();

 private:
  const drive::EngineRecord& Record(int side) const {
    return side == 0 ? comparison_.candidate : comparison_.reference;
  }
  const std::vector<float>& Output(int side) const {
    return side == 0 ? culprit_.candidate : culprit_.reference;
  }
  void OpenEngines();
  Result<host::Codes> CodesOfEngine(int side);
  void CompareQuantisers();
  Status Judge(int side);
  void JudgeEachOther();
  void Try(int side, FileArbiter& arbiter, const Expectation& declared);
  bool IsNonFinite() const { return culprit_.row.n_non_finite[0] + culprit_.row.n_non_finite[1] > 0; }
  bool LeftOpen();
  void NameShared();
  void Tell();

  const Culprit& culprit_;
  const run::Comparison& comparison_;
  const drive::EngineSpec& spec_;
  const host::Limits& limits_;
  Diagnosis out_;
  FileArbiters arbiters_;
  drive::EngineRecord records_[2];  // of the engines started here
  // at a product: to tell their codes; null: not started
  std::unique_ptr<drive::Participant> engines_[2];
  std::string why_not_started_[2];
  Expectation declared_[2];              // what each side's file says the op gives
  bool non_finite_[2] = {false, false};  // whether that is NaN or infinite
};

// Starts both engines once more where the op is a product, so that they can tell their codes.
// Diagnosis goes on without.
void Explanation::OpenEngines() {
  const pb_stage stage = static_cast<pb_stage>(culprit_.place.stage);
  if (stage == PB_STAGE_EMBEDDINGS || !WeightsOf(arbiters_.of(0).model(), stage, culprit_.place.layer).matrix)
    return;
  for (int side : {0, 1}) {
    auto open = [&]() -> Status {
      auto engine = std::make_unique<drive::Participant>(records_[side], limits_);
      PB_TRY(engine->Start({Record(side).spec, Record(side).plugin, Record(side).settings}));
      PB_TRY(engine->OpenModel(Record(side).model_path));
      const auto n_rows = static_cast<size_t>(culprit_.shape[0]);
      PB_TRY(engine->OpenSessionWishing(drive::SessionWishes(Record(side).settings, n_rows)));
      PB_TRY(arbiters_.of(side).AskForSchemes(engine->engine(), Record(side).role));
      engines_[side] = std::move(engine);
      return {};
    };
    if (Status status = open(); !status.ok()) why_not_started_[side] = status.error().message;
  }
}

Result<host::Codes> Explanation::CodesOfEngine(int side) {
  if (!engines_[side]) return MakeError(Code::kEngine, "{}", why_not_started_[side]);
  return arbiters_.of(side).CodesOf(engines_[side]->engine(), culprit_);
}

// Compares the codes. Where a finding rests on codes that may go either way, and the engine's own
// ones part from the other's by more, it does not agree.
void Explanation::CompareQuantisers() {
  auto inputs = arbiters_.of(0).Inputs(culprit_);
  if ((!engines_[0] && !engines_[1]) || !inputs.ok()) return;
  std::vector<CodeSubject> subjects;
  for (int side : {0, 1})
    subjects.push_back({Record(side).role, CodesOfEngine(side), &arbiters_.of(side).model(), Output(side),
                        declared_[side].units});
  subjects.push_back({"arbiter", arbiters_.of(0).Codes(culprit_), &arbiters_.of(0).model(),
                      declared_[0].output.values, declared_[0].units});
  out_.codes = CompareCodes(culprit_, inputs->front().values, subjects);
  if (!out_.codes) return;
  for (const CodePair& pair : out_.codes->pairs) {
    for (Finding& f : out_.findings) {
      if (f.what != pair.first + " against " + pair.second || !f.agrees || f.bound_ratio <= 1 ||
          pair.OnlyBoundaries())
        continue;
      f.agrees = false;
      f.note += "; but their own codes differ at values on no boundary";
    }
  }
}

Status Explanation::Judge(int side) {
  FileArbiter& arbiter = arbiters_.of(side);
  PB_ASSIGN(Expectation expected, arbiter.Expect(culprit_, TokensOf(culprit_, comparison_), ""));
  // Of attention as one op the arbiter's units, those of float32 sums, say nothing: the bound of
  // such an op holds.
  if (culprit_.bound.roundoff > 0x1p-24) expected.units.clear();
  const Agreement found = arbiter.Compare(culprit_, Output(side), expected.output.values, expected.units);
  out_.findings.push_back(FindingOf(Record(side).role + " against arbiter", found));
  non_finite_[side] = found.row.n_non_finite[1] > 0;
  out_.recomputed = expected.recomputed;
  declared_[side] = std::move(expected);
  return {};
}

void Explanation::JudgeEachOther() {
  const compare::PointRow& row = culprit_.row;
  if (row.n_non_finite[0] > 0 && row.n_non_finite[1] > 0) {
    const Agreement found = arbiters_.of(0).Compare(culprit_, Output(0), Output(1), {});
    out_.findings.push_back(FindingOf("candidate against reference", found));
    return;
  }
  out_.findings.push_back({"candidate against reference", std::max(row.worst_row, row.worst_feature),
                           row.bound, row.bound_ratio, !row.is_defect(), row.explanation});
}

void Explanation::Try(int side, FileArbiter& arbiter, const Expectation& declared) {
  Subject subject{Record(side).role,      &culprit_,     &arbiter, Output(side),
                  declared.output.values, declared.units};
  std::vector<Trial> trials = TryHypotheses(subject);
  out_.trials.insert(out_.trials.end(), trials.begin(), trials.end());
  std::stable_sort(out_.trials.begin(), out_.trials.end(),
                   [](const Trial& a, const Trial& b) { return a.restores && !b.restores; });
}

// Whether the model does not say what the op has to give.
bool Explanation::LeftOpen() {
  const int32_t stage = culprit_.place.stage;
  if (!(stages::kActivations | stages::kGated).Contains(stage)) return false;
  for (int side : {0, 1})
    if (trace::ReadModelFacts(arbiters_.of(side).facts()).activation_undeclared()) return true;
  return false;
}

void Explanation::NameShared() {
  for (int side : {0, 1}) {
    if (Record(side).engine_facts().name != "native") continue;
    out_.shared.push_back(
        fmt::format("the arbiter reads the model file, decodes its blocks and tokenises with the same code "
                    "as the {} (native); the block "
                    "decoders are tested against the reference library's own",
                    Record(side).role));
  }
}

void Explanation::Tell() {
  const std::string place = PlaceText(out_.place.layer, out_.place.stage, out_.feature);
  const Trial* named = out_.Named();
  switch (out_.blame) {
    case Blame::kCandidate:
    case Blame::kReference:
    case Blame::kBoth: {
      const std::string who = out_.blame == Blame::kBoth
                                  ? "neither engine"
                                  : "the " + std::string(compare::BlameName(out_.blame));
      if (IsNonFinite())
        out_.sentence = fmt::format("{}: {} gives NaN or infinite values where the arbiter gives numbers",
                                    place, out_.blame == Blame::kBoth ? "each engine" : who);
      else if (named)
        out_.sentence = fmt::format("{}: the {} {}; agreement restored with {}", place, named->side,
                                    named->text, named->short_text);
      else
        out_.sentence =
            fmt::format("{}: {} {} what the model declares; none of {} variations explains it", place, who,
                        out_.blame == Blame::kBoth ? "computes" : "does not compute", out_.trials.size());
      return;
    }
    case Blame::kModelFile:
      if (non_finite_[0] && non_finite_[1]) {
        out_.sentence =
            place + ": the numbers of the model file make NaN or infinite values of finite inputs";
        const std::string weights =
            NonFiniteWeights(arbiters_.of(0).model(), out_.place.stage, out_.place.layer);
        if (!weights.empty()) out_.sentence += ": " + weights;
        return;
      }
      out_.sentence = fmt::format("{}: each engine computes what its own file says, and the files differ: {}",
                                  place, out_.file_differences.front());
      if (named) out_.sentence += fmt::format("; by the reference's file, the candidate {}", named->text);
      return;
    case Blame::kNone:
      out_.sentence = place + ": nothing is wrong: both engines agree with the arbiter and with each other";
      return;
    default:
      out_.sentence = fmt::format("{}: it stays open who is wrong: {}", place, out_.why_undetermined);
  }
}

Result<Diagnosis> Explanation::Run() {
  const compare::PointRow& row = culprit_.row;
  out_.place = culprit_.place;
  out_.position =
      row.first_row_above >= 0 ? row.first_row_above : std::max(row.worst_row_position, row.first_position);
  if (row.feature_alone) out_.feature = row.worst_feature_index;
  NameShared();
  PB_ASSIGN(arbiters_, FileArbiters::Open(spec_, comparison_, limits_));
  OpenEngines();
  PB_TRY(Judge(0));
  PB_TRY(Judge(1));
  JudgeEachOther();
  CompareQuantisers();
  BlameEvidence evidence;
  evidence.candidate_agrees = out_.findings[0].agrees, evidence.reference_agrees = out_.findings[1].agrees;
  if (arbiters_.apart())
    out_.file_differences = FileDifferences(arbiters_.of(0).model(), arbiters_.of(1).model(),
                                            culprit_.place.stage, culprit_.place.layer);
  evidence.equal = out_.findings.back().agrees;
  evidence.files_differ_here = !out_.file_differences.empty();
  evidence.candidate_file_non_finite = non_finite_[0], evidence.reference_file_non_finite = non_finite_[1];
  BlameFinding found = FindBlame(evidence);
  if (LeftOpen()) found = {Blame::kUndetermined, "the model does not declare its activation"};
  out_.blame = found.blame, out_.why_undetermined = found.why_undetermined;
  if (!IsNonFinite()) {  // no variation explains NaN
    if (!evidence.candidate_agrees) Try(0, arbiters_.of(0), declared_[0]);
    if (!evidence.reference_agrees) Try(1, arbiters_.of(1), declared_[1]);
    if (out_.blame == Blame::kModelFile) Try(0, arbiters_.of(1), declared_[1]);
  }
  Tell();
  return std::move(out_);
}

}  // namespace

const Trial* Diagnosis::Named() const {
  return !trials.empty() && trials.front().restores ? &trials.front() : nullptr;
}

Result<Diagnosis> Explain(const Culprit& culprit, const run::Comparison& comparison,
                          const drive::EngineSpec& arbiter, const host::Limits& limits) {
  return Explanation(culprit, comparison, arbiter, limits).Run();
}

}  // namespace pb::diagnose
