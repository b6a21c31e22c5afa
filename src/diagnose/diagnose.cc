// Recomputes the op for each side's file, asks both engines for their codes, tries hypotheses,
// and words the result.
#include "diagnose/diagnose.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>

#include "diagnose/blame.h"
#include "diagnose/op_weights.h"
#include "diagnose/probe.h"
#include "diagnose/region.h"
#include "diagnose/stage_text.h"
#include "drive/participant.h"
#include "drive/passes.h"

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

int64_t ThreadsOf(const drive::EngineRecord& engine) {
  const std::string threads = engine.session_facts().threads;
  int64_t n = 1;
  std::from_chars(threads.data(), threads.data() + threads.size(), n);
  return n;
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
  // Scores or context of the one engine that the arbiter finds right if it does not round what it
  // multiplies (docs/numerics.md, "Precision of products"), beside another that is wrong.
  Status AdmitUnrounded();
  void JudgeEachOther();
  void Try(int side, FileArbiter& arbiter, const Expectation& declared);
  void Draw(int side, FileArbiter& arbiter, const Expectation& declared);
  std::vector<Trial*> Rivals(int side);
  bool MeasureWhen(int side, FileArbiter& arbiter, const Expectation& declared);
  bool TryOnMoreRows(int side, FileArbiter& arbiter, const Expectation& declared, const Culprit& rows);
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
      const auto n_positions = static_cast<size_t>(culprit_.first_position + culprit_.shape[0]);
      PB_TRY(engine->OpenSessionWishing(drive::SessionWishes(Record(side).settings, n_positions)));
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
  const Agreement found = arbiter.Compare(culprit_, Output(side), expected.output.values, expected.units);
  out_.findings.push_back(FindingOf(Record(side).role + " against arbiter", found));
  non_finite_[side] = found.row.n_non_finite[1] > 0;
  out_.recomputed = expected.recomputed;
  declared_[side] = std::move(expected);
  return {};
}

Status Explanation::AdmitUnrounded() {
  const int32_t stage = culprit_.place.stage;
  if (IsNonFinite() || (stage != PB_STAGE_ATTN_SCORES && stage != PB_STAGE_ATTN_CONTEXT) ||
      out_.findings[0].agrees || out_.findings[1].agrees)
    return {};
  for (int side : {0, 1}) {
    FileArbiter& arbiter = arbiters_.of(side);
    if (host::FactText(arbiter.session(), "kv.type") != "f16") continue;
    PB_ASSIGN(Expectation expected,
              arbiter.Expect(culprit_, TokensOf(culprit_, comparison_), "attn.rounded=0"));
    const Agreement found = arbiter.Compare(culprit_, Output(side), expected.output.values, expected.units);
    if (!found.agrees) continue;
    Finding& finding = out_.findings[static_cast<size_t>(side)];
    finding = FindingOf(Record(side).role + " against arbiter", found);
    finding.note = "what it multiplies is not rounded to f16";
    declared_[side] = std::move(expected);
    break;
  }
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

Subject SubjectOf(const std::string& side, const Culprit& culprit, FileArbiter& arbiter,
                  std::span<const float> output, const Expectation& declared) {
  Subject subject{side, &culprit, &arbiter, output, declared.output.values, declared.units, {}};
  for (const std::string& name : declared.recomputed)
    if (const pb_stage stage = stages::Find(name); stages::IsStage(stage))
      subject.recomputed.push_back(stage);
  return subject;
}

void Explanation::Try(int side, FileArbiter& arbiter, const Expectation& declared) {
  std::vector<Trial> trials =
      TryHypotheses(SubjectOf(Record(side).role, culprit_, arbiter, Output(side), declared));
  out_.trials.insert(out_.trials.end(), trials.begin(), trials.end());
  std::stable_sort(out_.trials.begin(), out_.trials.end(),
                   [](const Trial& a, const Trial& b) { return a.restores && !b.restores; });
}

constexpr size_t kEnoughPasses = 8;  // of those that a probe makes

// What explains the op of a side, the best first.
std::vector<Trial*> Explanation::Rivals(int side) {
  std::vector<Trial*> rivals;
  for (Trial& t : out_.trials)
    if (t.restores && t.side == Record(side).role) rivals.push_back(&t);
  return rivals;
}

// Where nothing explains a product of the run, as a few rows may be too little to solve for its terms:
// what explains more of them, from other passes, and the run's as well.
bool Explanation::TryOnMoreRows(int side, FileArbiter& arbiter, const Expectation& declared,
                                const Culprit& rows) {
  const auto of_rows = arbiter.Expect(rows, {}, "");
  if (!of_rows.ok() || rows.shape[0] <= culprit_.shape[0]) return false;
  const std::string role = Record(side).role;
  for (Trial& t : TryHypotheses(SubjectOf(role, rows, arbiter, rows.reference, *of_rows))) {
    if (!t.restores || !t.replay) continue;
    const auto here = t.replay(culprit_);
    if (!here.ok()) continue;
    const Subject own = SubjectOf(role, culprit_, arbiter, Output(side), declared);
    const std::vector<float> in_rows = InRows(own, FindWrongPart(own), here->output.values);
    const Agreement found = arbiter.Compare(culprit_, Output(side), in_rows, own.units);
    if (!found.agrees) continue;
    t.error = found.error(), t.bound_ratio = found.row.bound_ratio, t.n_rows = t.of_rows = culprit_.shape[0];
    std::erase_if(out_.trials,
                  [&](const Trial& known) { return known.side == role && known.name == t.name; });
    out_.trials.insert(out_.trials.begin(), std::move(t));
    return true;
  }
  return false;
}

// Passes of other sizes than the run had: those of a run are too few to say when the op is wrong.
// What explains the run, but not these, gives way to what explains all. Whether there is such.
bool Explanation::MeasureWhen(int side, FileArbiter& arbiter, const Expectation& declared) {
  if (culprit_.place.stage != out_.place.stage) return false;
  const auto prompt = static_cast<size_t>(culprit_.place.prompt);
  std::vector<int32_t> tokens = comparison_.prompts[prompt].tokens;
  const std::vector<int32_t>& decoded = comparison_.prompts[prompt].decoded;
  tokens.insert(tokens.end(), decoded.begin(), decoded.end());
  // A right pass of the run may be one in which the mistake does not show.
  std::vector<SeenPass> wrong = out_.passes;
  std::erase_if(wrong, [](const SeenPass& pass) { return !pass.wrong; });
  const std::vector<Trial*> rivals = Rivals(side);
  const Probe probe{&Record(side), &arbiter, &culprit_, tokens, wrong, {rivals.begin(), rivals.end()},
                    limits_};
  if (!IsCheap(probe)) return false;
  Probed found = ProbePasses(probe);
  std::vector<SeenPass>& probed = found.passes;
  if (probed.empty()) return false;
  if (rivals.empty() && found.rows && TryOnMoreRows(side, arbiter, declared, *found.rows)) return true;
  const auto best = std::ranges::find(found.explains, true) - found.explains.begin();
  if (best > 0 && best < static_cast<ptrdiff_t>(rivals.size())) {
    for (ptrdiff_t k = 0; k < best; k++) rivals[static_cast<size_t>(k)]->restores = false;
    std::ranges::stable_partition(out_.trials, &Trial::restores);
    return true;
  }
  for (SeenPass& pass : probed) pass.threads = ThreadsOf(Record(side));
  // The run's own, where it was made again and it is known in which of its rows the mistake would show.
  std::erase_if(wrong, [&](const SeenPass& run) {
    return std::ranges::any_of(probed, [&](const SeenPass& again) {
      return again.shows && !again.other_tokens && again.n_tokens == run.n_tokens &&
             again.first_position == run.first_position && run.n_tokens > kProbedTokens;
    });
  });
  out_.passes = wrong;
  AddPasses(probed, &out_);
  // What does not show with a single token is there always, where it is at every size that was tried.
  const auto right = [](const SeenPass& pass) { return !pass.wrong || pass.n_tokens == 1; };
  if (out_.conclusion.when.kind == WhenKind::kUnknown && probed.size() >= kEnoughPasses &&
      std::ranges::none_of(out_.passes, right))
    out_.conclusion.when = {WhenKind::kAlways};
  return false;
}

void Explanation::Draw(int side, FileArbiter& arbiter, const Expectation& declared) {
  std::vector<SeenPass> passes = culprit_.passes;
  for (SeenPass& pass : passes) pass.threads = ThreadsOf(Record(side));
  do {
    DrawConclusion({SubjectOf(Record(side).role, culprit_, arbiter, Output(side), declared), out_.trials,
                    out_.codes ? &*out_.codes : nullptr, passes},
                   &out_);
  } while (MeasureWhen(side, arbiter, declared));
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
      if (out_.blame == Blame::kBoth && IsNonFinite())
        out_.sentence = place + ": each engine gives NaN or infinite values where the arbiter gives numbers";
      else
        out_.sentence =
            fmt::format("{}: {}the {} {}{}", place,
                        out_.blame == Blame::kBoth && !named ? "neither engine is right: " : "", out_.side,
                        CauseText(out_), named ? "; agreement restored with " + named->short_text : "");
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
  PB_TRY(AdmitUnrounded());
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
  if (found.blame == Blame::kModelFile) {
    std::string why = arbiters_.of(0).WhyWithheld(culprit_.place.stage, culprit_.place.layer);
    if (why.empty()) why = arbiters_.of(1).WhyWithheld(culprit_.place.stage, culprit_.place.layer);
    if (!why.empty()) found = {Blame::kUndetermined, std::move(why)};
  }
  out_.blame = found.blame, out_.why_undetermined = found.why_undetermined;
  if (!IsNonFinite()) {  // no variation explains NaN
    if (!evidence.candidate_agrees) Try(0, arbiters_.of(0), declared_[0]);
    if (!evidence.reference_agrees) Try(1, arbiters_.of(1), declared_[1]);
    if (out_.blame == Blame::kModelFile) Try(0, arbiters_.of(1), declared_[1]);
  }
  const bool by_files = out_.blame == Blame::kModelFile && !non_finite_[1];
  const bool named_second = out_.Named() && out_.Named()->side == Record(1).role;
  if (!evidence.candidate_agrees && !named_second)
    Draw(0, arbiters_.of(0), declared_[0]);
  else if (!evidence.reference_agrees)
    Draw(1, arbiters_.of(1), declared_[1]);
  else if (by_files)
    Draw(0, arbiters_.of(1), declared_[1]);
  const bool unsaid = out_.conclusion.where == Where::kUnknown || out_.conclusion.where == Where::kProduct;
  if (by_files && unsaid && stages::kProducts.Contains(out_.place.stage))
    out_.conclusion.where = out_.grounds.conclusion.where = Where::kWeights;
  for (Trial& trial : out_.trials) trial.replay = {};  // of an arbiter that ends with this
  Tell();
  return std::move(out_);
}

}  // namespace

const Trial* Diagnosis::Named() const {
  return !trials.empty() && trials.front().restores ? &trials.front() : nullptr;
}

void DrawConclusion(const Evidence& evidence, Diagnosis* d) {
  const WrongPart part = FindWrongPart(evidence.subject);
  d->grounds = FindGrounds(evidence, part);
  const Culprit& culprit = *evidence.subject.culprit;
  if (d->grounds.conclusion.where == Where::kWeights &&
      !evidence.subject.arbiter->WhyWithheld(culprit.place.stage, culprit.place.layer).empty())
    d->grounds.conclusion.where = Where::kUnknown;
  d->passes.assign(evidence.passes.begin(), evidence.passes.end());
  for (SeenPass& pass : d->passes)
    if (pass.first_position == culprit.first_position && pass.n_tokens == culprit.shape[0])
      pass.mixed |= !part.rows.empty() && !part.rows_are_last();
  // What explains all rows of a pass shows in none that is right.
  const auto explains = [&](const Trial& t) {
    return t.restores && t.side == evidence.subject.side && !t.in_part && t.replay;
  };
  if (!d->trials.empty() && explains(d->trials.front()))
    for (SeenPass& pass : d->passes) pass.last_right = -1, pass.mixed = false;
  d->conclusion = Conclude(d->grounds, d->passes);
  d->side = evidence.subject.side;
  d->cause = CauseWords(evidence, part, d->conclusion), d->nearest = NearestWords(evidence, d->conclusion);
  const auto named =
      std::ranges::find_if(d->trials, [&](const Trial& t) { return t.restores && t.side == d->side; });
  if (named != d->trials.end() && named->stage >= 0) d->place.stage = named->stage, d->feature.reset();
}

std::string CauseText(const Diagnosis& d) {
  const std::string when = WhenWords(d.conclusion.when);
  const bool named = d.Named() && d.Named()->side == d.side;
  std::string rows;
  if (named && d.conclusion.part.axis == Axis::kRows) {
    const std::string which = " in " + RegionWords(d.conclusion.part);
    rows = d.cause.ends_with(which) ? " alone" : which + " alone";
  }
  const char* share = d.conclusion.where == Where::kThread ? ", in the share of one thread" : "";
  return d.cause + rows + share + (when.empty() ? "" : ", " + when) + d.nearest;
}

std::vector<SeenPass> RightPasses(const run::Comparison& c) {
  std::vector<SeenPass> passes;
  const int64_t threads = std::max<int64_t>(std::min(ThreadsOf(c.candidate), ThreadsOf(c.reference)), 1);
  const int64_t most = drive::PassRows({&c.candidate, &c.reference});
  for (const run::PromptRecord& prompt : c.prompts) {
    const auto n = static_cast<int64_t>(prompt.tokens.size());
    const auto n_all = n + static_cast<int64_t>(prompt.decoded.size());
    for (int64_t at = 0; at < n; at += most)
      passes.push_back({std::min(most, n - at), at, false, -1, threads});
    for (int64_t at = n; at < n_all; at++) passes.push_back({1, at, false, -1, threads});
  }
  return passes;
}

void AddPasses(std::span<const SeenPass> passes, Diagnosis* d) {
  if (d->side.empty()) return;
  const std::string before = CauseText(*d);
  d->passes.insert(d->passes.end(), passes.begin(), passes.end());
  d->conclusion = Conclude(d->grounds, d->passes);
  if (const size_t at = d->sentence.find(before); at != std::string::npos)
    d->sentence.replace(at, before.size(), CauseText(*d));
}

Result<Diagnosis> Explain(const Culprit& culprit, const run::Comparison& comparison,
                          const drive::EngineSpec& arbiter, const host::Limits& limits) {
  return Explanation(culprit, comparison, arbiter, limits).Run();
}

}  // namespace pb::diagnose
