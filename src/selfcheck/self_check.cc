// Runs each case as a comparison with diagnosis, several at once, and notes what was found of
// the defect.
#include "selfcheck/self_check.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>

#include "base/file.h"
#include "diagnose/stage_text.h"
#include "drive/participant.h"
#include "selfcheck/cases.h"
#include "selfcheck/store.h"

namespace pb::selfcheck {
namespace {

// Place among all ops in dependency order, siblings alike.
int64_t OpOrder(int32_t stage, int32_t layer, int64_t n_layers) {
  const int64_t level = pb_vocabulary[stage].level, last = pb_vocabulary[PB_STAGE_LAYER_OUT].level;
  if (pb_vocabulary[stage].per_layer) return layer * last + level;
  return stage == PB_STAGE_EMBEDDINGS ? 0 : (n_layers - 1) * last + level;
}

}  // namespace

// The point at which the defect is, of all passes the one furthest beyond its bound; nullptr: it
// was not compared.
const compare::PointRow* OwnPoint(const SelfCase& c, const run::Comparison& comparison) {
  const compare::PointRow* own = nullptr;
  for (const compare::PointRow& row : comparison.points)
    if (row.stage == c.stage && row.layer == c.layer && (!own || row.bound_ratio > own->bound_ratio))
      own = &row;
  return own;
}

void JudgePlace(const SelfCase& c, const run::Comparison& comparison, SelfResult* r) {
  const auto& first = comparison.verdict.first_divergence;
  if (c.stage < 0) {
    r->exact = r->within_one = comparison.verdict.Has(compare::ReasonCode::kTokensDiffer);
    r->place = r->exact ? "tokens" : "";
    return;
  }
  if (!first || !first->stage) return;
  r->place = diagnose::PlaceText(first->layer, *first->stage, first->feature);
  const int64_t n_layers = std::max<int64_t>(comparison.candidate.model_facts().n_layers, 1);
  r->exact = *first->stage == c.stage && first->layer == c.layer;
  r->within_one =
      std::abs(OpOrder(*first->stage, first->layer, n_layers) - OpOrder(c.stage, c.layer, n_layers)) <= 1;
}

namespace {

// Short, and long enough for keys of the past, a decode step, and three rows for whatever is
// fitted.
constexpr const char* kPrompt = "And God said, Let there be light";
constexpr int32_t kDecodeSteps = 2;

}  // namespace

const char* SelfCheckPrompt() { return kPrompt; }

namespace {

bool ChangesBits(const run::Comparison& comparison) {
  for (const run::PromptRecord& prompt : comparison.prompts)
    if (prompt.logits_sha256[0] != prompt.logits_sha256[1]) return true;
  auto differs = [](const compare::PointRow& row) { return row.rel_l2 != 0; };
  return std::ranges::any_of(comparison.points, differs) ||
         std::ranges::any_of(comparison.accumulated, differs);
}

// Whether the worst output column is the defect's own, or in its head.
std::optional<bool> SpotFound(const compare::PointRow& row, const run::Comparison& comparison) {
  const host::Facts& session = comparison.candidate.session;
  if (const std::string feature = host::FactText(session, "mutant.feature"); !feature.empty())
    return (" " + feature + " ").find(fmt::format(" {} ", row.worst_feature_index)) != std::string::npos;
  const host::Fact* head = host::FindFact(session, "mutant.head");
  if (!head) return std::nullopt;
  const int64_t width = std::max<int64_t>(comparison.candidate.model_facts().shape.head_dim, 1);
  return std::to_string(row.worst_feature_index / width) == head->value;
}

bool IsNamed(const SelfCase& c, const std::string& name) {
  return std::ranges::any_of(c.truths, [&](const std::string& truth) { return name.starts_with(truth); });
}

void JudgeDefect(const SelfCase& c, const diagnose::ExplainedRun& run, SelfResult* r) {
  const compare::PointRow* own = OwnPoint(c, run.comparison);
  if (own) r->bound_ratio = own->bound_ratio;
  if (own && own->rel_l2 == 0 && own->bound_ratio == 0) {
    r->skipped = "the op gives the same values on this model";
  } else if (own && own->bound_ratio < kLeastRatio) {
    r->skipped = fmt::format("its local error is less than {:g} times its bound", kLeastRatio);
  }
  if (!r->skipped.empty()) return;
  JudgePlace(c, run.comparison, r);
  if (own) r->spot = SpotFound(*own, run.comparison);
  if (!run.diagnosis) {
    r->blame = run.why_none;
    return;
  }
  r->blamed = run.diagnosis->blame == compare::Blame::kCandidate;
  r->blame = compare::BlameName(run.diagnosis->blame);
  if (const diagnose::Trial* named = run.diagnosis->Named())
    r->named_as = named->name, r->named = IsNamed(c, named->name);
}

}  // namespace

run::Request RequestOf(const SelfCheckRequest& request, const SelfCase& c) {
  run::Request compared;
  compared.candidate = c.candidate, compared.reference = c.reference, compared.model = c.model;
  compared.prompts = {{kPrompt, "self-check"}};
  // Codes and sums lie on a rounding boundary in few places: a longer text has some.
  constexpr size_t kLonger = 400;
  if (c.benign && request.generated.n_cases > 0)
    compared.prompts[0].text = request.calibration.substr(0, kLonger);
  compared.max_tokens = kDecodeSteps, compared.default_row = false;
  compared.limits = request.limits, compared.calibration = request.calibration;
  // A defect is what departs from what is declared; the engines are one and the same but for that.
  compared.user.precision.strict = !c.benign;
  return compared;
}

namespace {

SelfResult RunCase(const SelfCheckRequest& request, const SelfCase& c) {
  if (!c.truth.empty()) return RunGenerated(request, c);
  SelfResult r;
  r.key = c.key, r.kind = c.kind, r.defect = c.defect, r.benign = c.benign;
  auto run = diagnose::CompareAndExplain(RequestOf(request, c), request.arbiter, std::nullopt);
  if (!run.ok()) return r.error = run.error().message, r;
  const compare::Verdict& verdict = run->comparison.verdict;
  r.verdict = compare::OutcomeName(verdict.outcome);
  if (verdict.outcome == compare::Outcome::kEngineFailed)
    return r.error = verdict.reasons.empty() ? r.verdict : verdict.reasons.front().text, r;
  r.detected = compare::ExitCode(verdict.outcome) != 0;
  if (!c.benign) return JudgeDefect(c, *run, &r), r;
  if (!ChangesBits(run->comparison)) r.skipped = "changes no bit";
  if (r.detected && !verdict.reasons.empty()) r.place = verdict.reasons.front().text;
  return r;
}

Result<std::string> IdentityOf(const SelfCheckRequest& request) {
  std::string identity;
  std::error_code ignored;
  for (const std::filesystem::path& part :
       {std::filesystem::read_symlink("/proc/self/exe", ignored), request.mutant.plugin,
        request.native.plugin, request.arbiter.plugin,
        request.reference ? request.reference->plugin : std::filesystem::path()}) {
    if (part.empty()) continue;
    PB_ASSIGN(std::string digest, drive::CachedFileSha256(part));
    identity += digest.substr(0, 16);
  }
  return identity;
}

}  // namespace

Result<std::vector<SelfResult>> RunSelfCheck(const SelfCheckRequest& request,
                                             const std::vector<SelfCase>& cases) {
  PB_ASSIGN(const std::string identity, IdentityOf(request));
  PB_ASSIGN(auto store, SelfCheckStore::Open(request.results, identity, request.resume));
  std::vector<SelfResult> results(cases.size());
  std::atomic<size_t> next = 0, done = 0;
  std::mutex mutex;
  Status failure;
  auto work = [&](bool reports) {
    for (size_t i; (i = next++) < cases.size(); done++) {
      if (reports && request.progress)
        request.progress(cases[i].key, static_cast<int64_t>(done), static_cast<int64_t>(cases.size()));
      if (const SelfResult* known = store->Find(cases[i].key)) {
        results[i] = *known;
        continue;
      }
      results[i] = RunCase(request, cases[i]);
      Status stored = store->Add(results[i]);
      if (stored.ok()) continue;
      std::lock_guard lock(mutex);
      failure = std::move(stored), next = cases.size();
    }
  };
  std::vector<std::thread> helpers;
  try {
    for (int i = 1; i < request.n_jobs; i++) helpers.emplace_back(work, false);
  } catch (const std::system_error&) {  // those that there are do the work
  }
  work(true);
  for (std::thread& helper : helpers) helper.join();
  if (!failure.ok()) return std::move(failure).error();
  return results;
}

}  // namespace pb::selfcheck
