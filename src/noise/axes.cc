// The variations that an engine is measured along against itself: planned from what it says of
// itself, run, and compared.
#include "noise/axes.h"

#include <algorithm>
#include <cstring>
#include <sstream>

#include "compare/logits_judge.h"

namespace pb::noise {
namespace {

constexpr const char *kThreads = "threads", *kUbatch = "ubatch", *kFeed = "feed", *kLibrary = "cpu.library",
                     *kNewSession = "new session", *kNewProcess = "new process", *kOneByOne = "one by one";

std::vector<std::string> Words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

bool IsRefusal(const Error& error) { return error.code == Code::kUsage || error.code == Code::kUnsupported; }

void Summarise(AxisRow* row) {
  for (const compare::LogitsRow& r : row->rows) {
    row->mean_kl += r.kl;
    // NaN is the largest of all.
    if (!(r.kl <= row->worst_kl)) row->worst_kl = r.kl;
    if (!(r.rel_l2 <= row->rel_l2)) row->rel_l2 = r.rel_l2;
    row->n_flips += r.flipped();
  }
  row->mean_kl /= static_cast<double>(std::max<size_t>(row->rows.size(), 1));
}

// As crossval judges a candidate's logits by this floor; every sequence stands for a prompt.
std::optional<bool> IsInside(const AxisRow& row, const std::vector<Evaluated>& undisturbed,
                             const compare::NoiseFloor* floor) {
  if (!floor || !compare::CheckNoiseFloor(*floor).ok()) return std::nullopt;
  compare::Evidence evidence;
  evidence.n_prompts_asked = static_cast<int64_t>(undisturbed.size());
  evidence.floor = *floor;
  size_t at = 0;
  for (const Evaluated& u : undisturbed) {
    const size_t n = u.sequence.tokens.size();
    compare::PromptEvidence& prompt = evidence.prompts.emplace_back();
    prompt.prompt = u.sequence.prompt;
    prompt.rows.assign(row.rows.begin() + static_cast<ptrdiff_t>(at),
                       row.rows.begin() + static_cast<ptrdiff_t>(at + n));
    at += n;
  }
  compare::Verdict verdict;
  verdict.coverage.expected = verdict.coverage.compared = static_cast<int64_t>(at);
  compare::CheckLogits(&evidence, compare::Outcome::kDiverged, &verdict);
  compare::Settle(&verdict);
  // A floor of zeros cannot tell.
  if (verdict.outcome == compare::Outcome::kIncomplete) return std::nullopt;
  return compare::ExitCode(verdict.outcome) == 0;
}

Status CompareAll(drive::Participant& engine, const host::Settings& session,
                  const std::vector<Evaluated>& undisturbed, AxisRow* row) {
  for (const Evaluated& u : undisturbed) {
    std::vector<compare::ReferenceRow> references;
    for (int64_t i = 0; i < u.rows.n_rows(); ++i) references.emplace_back(u.rows.Row(i));
    drive::Sequence sequence = u.sequence;
    if (row->axis == kFeed) sequence.n_prefill = 1;
    auto add = [&](std::span<const float> values, compare::LogitsRow compared) -> Status {
      const std::span<const float> before = u.rows.Row(compared.position);
      if (std::memcmp(values.data(), before.data(), before.size_bytes()) == 0)
        ++row->n_equal;
      else if (!row->first_other)
        row->first_other = row->rows.size();
      compared.top_k[0].clear(), compared.top_k[1].clear();
      // However it was fed, a position of the prompt is held against the limits of a prefill.
      compared.phase =
          compared.position < u.sequence.n_prefill ? compare::Phase::kPrefill : compare::Phase::kDecode;
      row->rows.push_back(std::move(compared));
      return {};
    };
    PB_TRY(drive::EvaluateAgainst(engine, session, sequence, references, add));
  }
  return {};
}

}  // namespace

std::vector<AxisRow> PlanAxes(const drive::EngineRecord& record, int64_t longest) {
  const std::vector<std::string> promised = Words(host::FactText(record.description, drive::kPromiseFact));
  const trace::SessionFacts facts = record.session_facts();
  std::vector<AxisRow> rows;
  auto plan = [&](const char* axis, std::string value) {
    AxisRow& row = rows.emplace_back();
    row.axis = axis, row.value = std::move(value);
    row.promised = std::find(promised.begin(), promised.end(), axis) != promised.end();
  };
  plan(kRepeatAxis, kNewSession);
  plan(kRepeatAxis, kNewProcess);
  for (const char* threads : {"1", "2"})
    if (facts.threads != threads) plan(kThreads, threads);
  // Of sequences that are shorter than a batch the size of the batch changes nothing.
  const int64_t own = facts.ubatch > 0 ? std::min(longest, facts.ubatch) : longest;
  for (const int64_t ubatch : {1, 32, 512})
    if (std::min(longest, ubatch) != own) plan(kUbatch, std::to_string(ubatch));
  // Each token in a call of its own: any engine can be asked for that, whatever it offers.
  if (longest > 1) plan(kFeed, kOneByOne);
  for (const std::string& library : Words(host::FactText(record.description, drive::kLibrariesFact)))
    if (library != record.engine_facts().isa) plan(kLibrary, library);
  return rows;
}

Status RunAxis(drive::Participant& engine, const drive::EngineSpec& spec, const host::Settings& session,
               const std::vector<Evaluated>& undisturbed, const compare::NoiseFloor* floor, AxisRow* row,
               drive::EngineRecord* engine_failed, const ExplainAxis& explain) {
  host::Settings varied = session;
  drive::EngineSpec other = spec;
  if (row->axis == kLibrary) drive::PutSetting(other.settings, kLibrary, row->value);
  if (row->axis == kThreads || row->axis == kUbatch) drive::PutSetting(varied, row->axis, row->value);
  const bool of_its_own = row->axis == kLibrary || row->value == kNewProcess;
  drive::EngineRecord record;
  record.role = engine.record().role;
  drive::Participant fresh(record, engine.limits());
  drive::Participant& varies = of_its_own ? fresh : engine;
  auto run = [&]() -> Status {
    if (of_its_own) {
      PB_TRY(fresh.Start(other));
      PB_TRY(fresh.OpenModel(engine.record().model_path));
    }
    // A setting that it does not take is no failure, so it is not noted as one.
    auto opened = varies.engine().OpenSession(varied);
    if (!opened.ok())
      return IsRefusal(opened.error()) ? std::move(opened).error() : varies.Noted(std::move(opened).error());
    return CompareAll(varies, varied, undisturbed, row);
  };
  Status status = run();
  if (!status.ok() && IsRefusal(status.error()) && row->rows.empty()) {
    row->refused = status.error().message;
    return {};
  }
  if (!status.ok() && of_its_own) *engine_failed = record;
  if (!status.ok()) return std::move(status).error().In(fmt::format("{} {}", row->axis, row->value));
  Summarise(row);
  row->inside = IsInside(*row, undisturbed, floor);
  if (row->inside == false) explain(varies, varied, row);
  return {};
}

}  // namespace pb::noise
