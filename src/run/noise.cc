#include "run/noise.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/sha256.h"
#include "compare/logits.h"
#include "run/row_store.h"

namespace pb::run {
namespace {

using Json = nlohmann::json;

std::string TextSha256(std::string_view text) {
  return Sha256Hex(std::as_bytes(std::span(text.data(), text.size())));
}

// What an engine that cannot be disturbed is asked to vary instead.
constexpr const char* kVariations[] = {"threads=2", "threads=3", "ubatch=1", "ubatch=32"};

host::Settings WithVariation(host::Settings settings, std::string_view variation) {
  size_t equals = variation.find('=');
  PutSetting(settings, std::string(variation.substr(0, equals)), std::string(variation.substr(equals + 1)));
  return settings;
}

// An array of n numbers, finite and not negative: what a noise run may hold.
bool ReadSeries(const Json& entry, const char* key, size_t n, std::vector<double>* out) {
  auto found = entry.find(key);
  if (found == entry.end() || !found->is_array() || found->size() != n) return false;
  for (const Json& value : *found) {
    if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() < 0) return false;
    out->push_back(value.get<double>());
  }
  return true;
}

}  // namespace

Status EvaluateSequence(Participant& engine, const Sequence& sequence, const RowFn& on_row) {
  std::span<const int32_t> tokens = sequence.tokens;
  size_t n_prefill = static_cast<size_t>(sequence.n_prefill);
  if (n_prefill > 0) PB_TRY(engine.Evaluate(tokens.first(n_prefill), 0, on_row));
  for (size_t i = n_prefill; i < tokens.size(); ++i)
    PB_TRY(engine.Evaluate(tokens.subspan(i, 1), static_cast<int32_t>(i), on_row));
  return {};
}

Result<RowStore> EvaluateAll(Participant& engine, const host::Settings& session, const Sequence& sequence) {
  PB_TRY(engine.OpenSession(session, false));
  std::optional<RowStore> rows;
  PB_TRY(EvaluateSequence(engine, sequence, [&](int32_t position, std::span<const float> row) -> Status {
    if (!rows) {
      PB_ASSIGN(RowStore store, RowStore::Create(static_cast<int64_t>(sequence.tokens.size()),
                                                 static_cast<int64_t>(row.size())));
      rows.emplace(std::move(store));
    }
    if (position != rows->n_rows())
      return MakeError(Code::kEngine, "logits of position {} came where {} was due", position,
                       rows->n_rows());
    return rows->Append(row);
  }));
  if (!rows || rows->n_rows() != static_cast<int64_t>(sequence.tokens.size()))
    return MakeError(Code::kEngine, "{} rows of logits for {} positions", rows ? rows->n_rows() : 0,
                     sequence.tokens.size());
  return std::move(*rows);
}

NoiseMeter::NoiseMeter(Participant& reference, host::Settings session, int32_t n_runs,
                       std::filesystem::path cache, Progress progress)
    : reference_(reference),
      session_(std::move(session)),
      progress_(std::move(progress)),
      random_rounding_((reference.engine().capabilities() & PB_CAP_NOISE) != 0) {
  const EngineRecord& record = reference.record();
  folder_ = std::move(cache) / fmt::format("{:.16}-{:.16}", record.model_sha256, record.identity);
  if (random_rounding_) {
    for (int32_t seed = 1; seed <= n_runs; ++seed)
      runs_.push_back({static_cast<uint64_t>(seed), fmt::format("noise.seed={}", seed), {}, {}});
    return;
  }
  for (const char* variation : kVariations)
    if (reference_.engine().OpenSession(WithVariation(session_, variation)).ok())
      runs_.push_back({0, variation, {}, {}});
}

std::string NoiseMeter::Provenance(const Sequence& sequence, const compare::NoiseRun& run) const {
  const EngineRecord& record = reference_.record();
  Json settings = Json::object();
  for (const host::Fact& fact : record.session)
    if (fact.key != "n_ctx" && fact.key != "noise.seed") settings[fact.key] = fact.value;
  std::span tokens(sequence.tokens);
  Json provenance = {{"model_sha256", record.model_sha256},
                     {"engine", record.spec},
                     {"engine_identity", record.identity},
                     {"settings", settings},
                     {"variation", run.variation},
                     {"n_prefill", sequence.n_prefill},
                     {"n_positions", sequence.tokens.size()},
                     {"tokens_sha256", Sha256Hex(std::as_bytes(tokens))}};
  return provenance.dump();
}

std::filesystem::path NoiseMeter::EntryPath(const Sequence& sequence, const compare::NoiseRun& run) const {
  return folder_ / fmt::format("{:.24}.json", TextSha256(Provenance(sequence, run)));
}

bool NoiseMeter::Load(const Sequence& sequence, const compare::NoiseRun& run,
                      compare::NoiseRun* found) const {
  auto text = ReadFile(EntryPath(sequence, run));
  if (!text) return false;
  Json entry = Json::parse(*text, nullptr, false);
  if (!entry.is_object() || entry.value("provenance", Json()) != Json::parse(Provenance(sequence, run)))
    return false;
  found->seed = run.seed;
  found->variation = run.variation;
  return ReadSeries(entry, "kl", sequence.tokens.size(), &found->kl) &&
         ReadSeries(entry, "gap_change", sequence.tokens.size(), &found->gap_change);
}

Status NoiseMeter::Store(const Sequence& sequence, const compare::NoiseRun& measured) const {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  Json entry = {{"schema", "paritybit.noise/0"},
                {"provenance", Json::parse(Provenance(sequence, measured))},
                {"kl", measured.kl},
                {"gap_change", measured.gap_change}};
  return WriteFileAtomic(EntryPath(sequence, measured), entry.dump() + "\n");
}

Result<compare::NoiseRun> NoiseMeter::Disturb(const Sequence& sequence, const compare::NoiseRun& run,
                                              const std::vector<compare::ReferenceRow>& undisturbed) {
  PB_TRY(reference_.OpenSession(WithVariation(session_, run.variation), false));
  compare::NoiseRun measured{run.seed, run.variation, {}, {}};
  PB_TRY(EvaluateSequence(reference_, sequence, [&](int32_t position, std::span<const float> row) -> Status {
    size_t i = static_cast<size_t>(position);
    if (i >= undisturbed.size() || i != measured.kl.size())
      return MakeError(Code::kEngine, "{}: logits of position {} came out of turn", run.variation, position);
    PB_ASSIGN(compare::LogitsRow compared, compare::CompareLogits(row, undisturbed[i]));
    if (!compared.finite)
      return MakeError(Code::kEngine, "{}: logits of position {} are not finite", run.variation, position);
    measured.Add(compared);
    return {};
  }));
  if (measured.kl.size() != sequence.tokens.size())
    return MakeError(Code::kEngine, "{}: {} rows of logits for {} positions", run.variation,
                     measured.kl.size(), sequence.tokens.size());
  return measured;
}

Status NoiseMeter::Measure(const Sequence& sequence, const RowStore* undisturbed) {
  std::optional<RowStore> own;
  std::vector<compare::ReferenceRow> rows;
  for (size_t i = 0; i < runs_.size(); ++i) {
    compare::NoiseRun measured;
    if (Load(sequence, runs_[i], &measured)) {
      ++n_cached_;
    } else {
      if (progress_)
        progress_("noise floor: runs of random rounding", static_cast<int64_t>(i),
                  static_cast<int64_t>(runs_.size()));
      if (rows.empty()) {
        if (!undisturbed) {
          PB_ASSIGN(RowStore store, EvaluateAll(reference_, session_, sequence));
          undisturbed = &own.emplace(std::move(store));
        }
        for (int64_t r = 0; r < undisturbed->n_rows(); ++r) rows.emplace_back(undisturbed->Row(r));
      }
      PB_ASSIGN(measured, Disturb(sequence, runs_[i], rows));
      (void)Store(sequence, measured).ok();  // without a writable cache it is measured again next time
    }
    runs_[i].kl.insert(runs_[i].kl.end(), measured.kl.begin(), measured.kl.end());
    runs_[i].gap_change.insert(runs_[i].gap_change.end(), measured.gap_change.begin(),
                               measured.gap_change.end());
  }
  return {};
}

}  // namespace pb::run
