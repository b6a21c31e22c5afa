// Generated defects: planned as the mutant's generator draws them, and run as a user would: plain
// first, then, where that finds nothing, over the code paths that it left out.
#include "selfcheck/generated.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "run/path_trials.h"
#include "selfcheck/cases.h"

namespace pb::selfcheck {
namespace {

// What the diagnosis comes to. The one place that reads it.
diagnose::Conclusion ConclusionOf(const diagnose::Diagnosis& diagnosis) { return diagnosis.conclusion; }

// Each model has a stream of its own: the seed's, and its place among the models.
Result<host::Facts> AskGenerator(const SelfCheckRequest& request, size_t at, int64_t n) {
  constexpr uint64_t kMostModels = 100;
  const std::string seed = std::to_string(request.generated.seed * kMostModels + at);
  const host::Settings settings{{"mutant.draw", std::to_string(n)}, {"mutant.seed", seed}};
  PB_ASSIGN(auto engine, host::Engine::Start(request.mutant.plugin, With(request.mutant, settings).settings,
                                             request.limits));
  return engine->OpenModel(request.models[at].path);
}

// "kind|op|layer|when|its spelling|truth"
Result<SelfCase> CaseOf(const SelfCheckRequest& request, const std::filesystem::path& model,
                        const host::Fact& fact) {
  constexpr size_t kParts = 5;
  std::vector<std::string> parts;
  std::string rest = fact.value;
  for (size_t i = 0; i < kParts; i++) {
    const size_t end = rest.find('|');
    if (end == std::string::npos)
      return MakeError(Code::kEngine, "{}: \"{}\" is no generated defect", fact.key, fact.value);
    parts.push_back(rest.substr(0, end));
    rest = rest.substr(end + 1);
  }
  const std::string &stage = parts[1], &layer = parts[2], &when = parts[3], &fault = parts[4];
  SelfCase c;
  c.kind = parts[0], c.defect = fault, c.model = model, c.truth = rest;
  c.reference = request.native, c.stage = StageOf(stage);
  if (c.stage < 0) return MakeError(Code::kEngine, "{}: no op is named {}", fact.key, stage);
  std::from_chars(layer.data(), layer.data() + layer.size(), c.layer);
  if (auto truth = ParseTruth(c.truth); !truth.ok()) return std::move(truth).error();
  host::Settings settings{{"mutant.fault", fault}, {"mutant.when", when}, {"mutant.stage", stage}};
  if (c.layer >= 0) settings.emplace_back("mutant.layer", layer);
  c.candidate = With(request.mutant, settings);
  const std::string place = c.layer >= 0 ? fmt::format("layer {} {}", layer, stage) : stage;
  c.key = fmt::format("{} seed {} {} {} {} {}", model.stem().string(), request.generated.seed, fact.key,
                      place, fault, when);
  return c;
}

// What a run shows of the defect. Whether it was found.
bool Look(const SelfCase& c, const std::string& name, const diagnose::ExplainedRun& run, SelfResult* r) {
  const compare::Verdict& verdict = run.comparison.verdict;
  if (const compare::PointRow* own = OwnPoint(c, run.comparison))
    r->bound_ratio = std::max(r->bound_ratio, own->bound_ratio);
  r->verdict = compare::OutcomeName(verdict.outcome);
  // What could not be compared is no finding.
  if (compare::ExitCode(verdict.outcome) == 0 || verdict.outcome == compare::Outcome::kIncomplete)
    return false;
  r->detected = true, r->found_by = name;
  JudgePlace(c, run.comparison, r);
  diagnose::Conclusion said;
  if (run.diagnosis) {
    r->blamed = run.diagnosis->blame == compare::Blame::kCandidate;
    r->blame = compare::BlameName(run.diagnosis->blame);
    said = ConclusionOf(*run.diagnosis);
    if (const diagnose::Trial* named = run.diagnosis->Named()) r->named_as = named->name;
  } else {
    r->blame = run.why_none.empty() && !verdict.reasons.empty() ? verdict.reasons.front().text : run.why_none;
  }
  r->said = ConclusionText(said);
  if (auto truths = ParseTruth(c.truth); truths.ok()) {
    const diagnose::Match match = MatchTruth(said, *truths);
    r->match = MatchName(match), r->named = match == diagnose::Match::kRight;
  }
  return true;
}

Result<diagnose::ExplainedRun> RunTrial(const SelfCheckRequest& request, const SelfCase& c,
                                        const run::PathTrial& trial) {
  run::Request compared = RequestOf(request, c);
  compared.prompts = {{trial.prompt, trial.name}};
  compared.max_tokens = trial.steps;
  if (!trial.key.empty())
    for (drive::EngineSpec* engine : {&compared.candidate, &compared.reference})
      *engine = With(*engine, {{trial.key, trial.value}});
  return diagnose::CompareAndExplain(std::move(compared), request.arbiter, std::nullopt);
}

// Those of --paths all, until one finds something. The error of one that could not be run.
std::string LookOnPaths(const SelfCheckRequest& request, const SelfCase& c, const run::Comparison& plain,
                        SelfResult* r) {
  std::vector<diagnose::SeenPass> right = diagnose::RightPasses(plain);
  for (const run::PathTrial& trial : run::PathTrials(plain, request.calibration)) {
    auto run = RunTrial(request, c, trial);
    const auto shorter = run::Shorter(trial);
    if (!run.ok() && run.error().code == Code::kUsage && shorter) run = RunTrial(request, c, *shorter);
    if (!run.ok() && run.error().code == Code::kUsage) continue;  // what the engines do not take
    if (!run.ok()) return run.error().message;
    if (run->diagnosis) diagnose::AddPasses(right, &*run->diagnosis);
    if (Look(c, trial.name, *run, r)) return "";
    const std::vector<diagnose::SeenPass> more = diagnose::RightPasses(run->comparison);
    right.insert(right.end(), more.begin(), more.end());
  }
  return "";
}

// Whether the defect is one at all: committed always, it is seen by its own op.
void Weigh(const SelfCheckRequest& request, const SelfCase& c, SelfResult* r) {
  if (r->bound_ratio >= kLeastRatio) return;
  SelfCase always = c;
  always.candidate = With(c.candidate, {{"mutant.when", "always"}});
  auto run = diagnose::CompareAndExplain(RequestOf(request, always), request.arbiter, std::nullopt);
  if (!run.ok()) return static_cast<void>(r->error = run.error().message);
  const compare::PointRow* own = OwnPoint(always, run->comparison);
  if (!own || (own->rel_l2 == 0 && own->bound_ratio == 0))
    r->skipped = "the op gives the same values on this model";
  else if (own->bound_ratio < kLeastRatio)
    r->skipped = fmt::format("its local error is less than {:g} times its bound", kLeastRatio);
}

}  // namespace

Result<int64_t> GeneratorVersion(const SelfCheckRequest& request) {
  PB_ASSIGN(const host::Facts facts, AskGenerator(request, 0, 1));
  const host::Fact* version = host::FindFact(facts, "generator.version");
  int64_t number = 0;
  if (version) std::from_chars(version->value.data(), version->value.data() + version->value.size(), number);
  if (number < 1)
    return MakeError(Code::kEngine, "{}: the engine tells no version of a generator of defects",
                     request.mutant.text);
  return number;
}

Result<std::vector<SelfCase>> PlanGenerated(const SelfCheckRequest& request) {
  const auto n_models = static_cast<int64_t>(request.models.size());
  std::vector<SelfCase> cases;
  for (int64_t i = 0; i < n_models; i++) {
    const int64_t n =
        request.generated.n_cases / n_models + (i < request.generated.n_cases % n_models ? 1 : 0);
    if (n == 0) continue;
    const std::filesystem::path& model = request.models[static_cast<size_t>(i)].path;
    PB_ASSIGN(const host::Facts facts, AskGenerator(request, static_cast<size_t>(i), n));
    for (const host::Fact& fact : facts) {
      if (!fact.key.starts_with("fault.")) continue;
      PB_ASSIGN(SelfCase c, CaseOf(request, model, fact));
      if (request.filter.empty() || c.key.find(request.filter) != std::string::npos)
        cases.push_back(std::move(c));
    }
  }
  return cases;
}

SelfResult RunGenerated(const SelfCheckRequest& request, const SelfCase& c) {
  SelfResult r;
  r.key = c.key, r.kind = c.kind, r.defect = c.defect, r.truth = c.truth;
  auto plain = diagnose::CompareAndExplain(RequestOf(request, c), request.arbiter, std::nullopt);
  if (!plain.ok()) return r.error = plain.error().message, r;
  if (plain->comparison.verdict.outcome == compare::Outcome::kEngineFailed)
    return r.error = plain->comparison.verdict.reasons.front().text, r;
  if (Look(c, "plain", *plain, &r)) return r;
  if (compare::ExitCode(plain->comparison.verdict.outcome) == 0)
    r.error = LookOnPaths(request, c, plain->comparison, &r);
  if (!r.error.empty() || r.detected) return r;
  Weigh(request, c, &r);
  return r;
}

}  // namespace pb::selfcheck
