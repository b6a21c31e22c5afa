// Finds, records and keeps tapes of the reference in the cache, and says in the record of a prompt
// which one was used.
#include "run/reference_part.h"

#include <gnu/libc-version.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/file.h"
#include "base/kept.h"
#include "base/processors.h"
#include "base/sha256.h"
#include "base/text.h"
#include "drive/passes.h"
#include "stages/stages.h"

namespace pb::run {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr uint64_t kMostBytes = 2ull << 30;   // of one recording
constexpr uint64_t kCacheBytes = 4ull << 30;  // of all; those longest not used go first
// Bytes of the model times positions, of what takes a second or so. Less is not worth the disk,
// unless it is asked for. No clock decides, so that a run tells the same on every machine.
constexpr double kWorthWork = 1e10;
// Beside a recording, small, and left where it goes.
constexpr const char* kDefaultFile = "default.json";
constexpr const char* kProofFile = "proof.json";
constexpr uint64_t kMaxEntryBytes = 1 << 20;
constexpr size_t kMostEntries = 4096;

fs::path CacheFolder() { return CacheDir() / "reference"; }

Json FactsJson(const host::Facts& facts) {
  Json out = Json::array();
  for (const host::Fact& fact : facts) out.push_back({fact.key, fact.value, fact.origin});
  return out;
}

// What an engine may read beside its settings and files: variables of the mathematical libraries and
// of the loader, and the C library, which computes exponentials.
Json Surroundings() {
  Json out = {std::string("libc ") + gnu_get_libc_version()};
  std::vector<std::string> variables;
  for (char** v = environ; *v; ++v)
    for (const char* prefix : {"GGML_", "LLAMA_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "LD_"})
      if (std::string_view(*v).starts_with(prefix)) variables.emplace_back(*v);
  std::ranges::sort(variables);
  for (std::string& v : variables) out.push_back(std::move(v));
  return out;
}

uint64_t BytesIn(const fs::path& folder) {
  uint64_t n = 0;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code of_file;
    const auto bytes = it->file_size(of_file);
    n += of_file ? 0 : bytes;
  }
  return n;
}

// Removes the recordings that were not used for the longest time, but for `kept`, until the rest
// fits; what stands beside them stays.
void MakeRoom(const fs::path& kept) {
  struct Entry {
    fs::file_time_type used;
    fs::path folder;
    uint64_t n_bytes;
  };
  std::vector<Entry> entries;
  uint64_t n_bytes = 0;
  std::error_code error;
  for (fs::directory_iterator it(CacheFolder(), error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    entries.push_back({fs::last_write_time(it->path(), ignored), it->path(), BytesIn(it->path())});
    n_bytes += entries.back().n_bytes;
  }
  std::ranges::sort(entries, {}, &Entry::used);
  for (size_t i = 0; i + kMostEntries < entries.size(); ++i)
    if (entries[i].folder != kept) fs::remove_all(entries[i].folder, error);
  for (const Entry& entry : entries) {
    if (n_bytes <= kCacheBytes) return;
    if (entry.folder == kept) continue;
    drive::Tape::Remove(entry.folder);
    n_bytes -= entry.n_bytes;
  }
}

}  // namespace

ReferencePart::ReferencePart(drive::Participant& candidate, drive::Participant& reference,
                             const host::Settings& session, const Request& request)
    : candidate_(candidate), reference_(reference), session_(session), request_(request) {
  if (request_.reuse == Reuse::kNever) return;
  reference_.Wrap([&](std::unique_ptr<host::Engine> live) {
    auto taped = std::make_unique<drive::TapedEngine>(std::move(live));
    engine_ = taped.get();
    return taped;
  });
}

Json ReferencePart::Provenance(const PromptRecord& prompt) const {
  const drive::EngineRecord& r = reference_.record();
  // The config.json that it reads, if any, by its content.
  const std::string* config = drive::FindSetting(r.settings, "hf.config");
  const auto config_sha256 =
      drive::CachedFileSha256(config ? fs::path(*config) : r.model_path.parent_path() / "config.json");
  return {{"engine", r.spec},
          {"engine_identity", r.identity},
          {"description", FactsJson(r.description)},
          {"settings", r.settings},
          {"session_settings", session_},
          {"session", FactsJson(r.session)},
          {"model_sha256", r.model_sha256},
          {"model", FactsJson(r.model)},
          {"pass_rows", drive::PassRows({&candidate_.record(), &r})},
          {"tokens", prompt.tokens},
          {"steps", prompt.steps_asked},
          {"config_sha256", config_sha256.ok() ? *config_sha256 : std::string("none")},
          {"surroundings", Surroundings()},
          {"processor", ProcessorText()}};
}

fs::path ReferencePart::FolderOf(const PromptRecord& prompt) const {
  return CacheFolder() / Sha256Hex(DumpJson(Provenance(prompt))).substr(0, 24);
}

void ReferencePart::Find(PromptRecord* prompt) {
  served_ = false;
  if (!engine_) return;
  engine_->Play(nullptr, {});
  if (!request_.keep.folder.empty()) return;  // its traces are to be those of this run
  const fs::path folder = FolderOf(*prompt);
  auto tape = drive::Tape::Open(folder, Provenance(*prompt));
  if (!tape.ok()) return;
  engine_->Play(*tape, session_);
  served_ = true;
  std::error_code ignored;
  fs::last_write_time(folder, fs::file_time_type::clock::now(), ignored);
  const Json recorded = (*tape)->note().value("recorded", Json());
  prompt->reference_part =
      KeptPart{folder, (*tape)->data_blake3(), recorded.is_number_integer() ? recorded.get<int64_t>() : 0,
               (*tape)->n_bytes()};
}

uint64_t ReferencePart::EstimatedBytes(const PromptRecord& prompt) const {
  const trace::ModelFacts model = reference_.record().model_facts();
  const auto n_positions = static_cast<int64_t>(prompt.tokens.size() + prompt.decoded.size());
  int64_t row_values = 0;
  // Input norms are few models'.
  for (pb_stage stage : stages::kAll - (stages::kInputNorms - stages::kSubNorms))
    row_values += stages::RowWidth(stage, model.shape, n_positions) *
                  (stages::Of(stage).per_layer ? model.n_layers : 1);
  return static_cast<uint64_t>(row_values * n_positions) * sizeof(float);
}

bool ReferencePart::IsMuchWork(const PromptRecord& prompt) const {
  std::error_code error;
  const uint64_t n_bytes = fs::file_size(reference_.record().model_path, error);
  return !error &&
         static_cast<double>(n_bytes) * static_cast<double>(prompt.tokens.size() + prompt.decoded.size()) >=
             kWorthWork;
}

bool ReferencePart::IsWorthRecording(const PromptRecord& prompt) const {
  if (static_cast<int32_t>(prompt.decoded.size()) != prompt.steps_asked) return false;
  if (request_.reuse == Reuse::kAlways) return true;
  if (!IsMuchWork(prompt)) return false;
  const uint64_t n_bytes = EstimatedBytes(prompt);
  std::error_code error;
  const fs::space_info disk = fs::space(CacheDir(), error);
  return n_bytes <= kMostBytes && !error && disk.available / 2 > n_bytes;
}

bool ReferencePart::BeginRecording(const PromptRecord& prompt) {
  if (!engine_ || served_ || !request_.keep.folder.empty() || !IsWorthRecording(prompt)) return false;
  auto writer = drive::TapeWriter::Create(FolderOf(prompt), kMostBytes);
  if (!writer.ok()) return false;
  writer_ = std::move(writer).value();
  engine_->Record(writer_.get());
  return true;
}

void ReferencePart::EndRecording(const PromptRecord& prompt, const std::string& logits_sha256,
                                 bool shown_is_delivered) {
  if (!writer_) return;
  engine_->Record(nullptr);
  const std::unique_ptr<drive::TapeWriter> writer = std::move(writer_);
  if (logits_sha256 != prompt.logits_sha256[1] || !shown_is_delivered) return;
  const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  auto tape = writer->Finish(
      Provenance(prompt),
      {{"recorded", now}, {"decoded", prompt.decoded}, {"logits_sha256", prompt.logits_sha256[1]}},
      static_cast<int32_t>(prompt.tokens.size()));
  if (!tape.ok()) return;
  MakeRoom(FolderOf(prompt));
  if (!prompt.reference_proof) {
    WriteCacheEntry(FolderOf(prompt) / kProofFile, {{"provenance", Provenance(prompt)},
                                                    {"decoded", prompt.decoded},
                                                    {"logits_sha256", prompt.logits_sha256[1]},
                                                    {"recorded", now}});
  }
  engine_->Play(std::move(tape).value(), session_);
  served_ = true;
}

std::string ReferencePart::ServedSha256() const {
  if (!served_ || !engine_->playing()) return "";
  const Json digest = engine_->tape()->note().value("logits_sha256", Json());
  return digest.is_string() ? digest.get<std::string>() : "";
}

std::optional<KeptProof> ReferencePart::FindProof(const PromptRecord& prompt) const {
  if (!engine_ || served_ || !request_.keep.folder.empty()) return std::nullopt;
  const auto entry = ReadCacheEntry(FolderOf(prompt) / kProofFile, kMaxEntryBytes);
  if (!entry || entry->value("provenance", Json()) != Provenance(prompt)) return std::nullopt;
  try {
    return KeptProof{entry->at("decoded"), entry->at("logits_sha256"), entry->at("recorded")};
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

bool ReferencePart::FindDefault(const PromptRecord& prompt, DefaultConfiguration* row) const {
  if (!engine_) return false;
  const auto entry = ReadCacheEntry(FolderOf(prompt) / kDefaultFile, kMaxEntryBytes);
  if (!entry || entry->value("provenance", Json()) != Provenance(prompt) ||
      entry->value("logits_sha256", Json()) != prompt.logits_sha256[1])
    return false;
  try {
    *row = {entry->at("flash"),
            entry->at("mean_kl"),
            entry->at("worst_kl"),
            entry->at("rel_l2"),
            entry->at("n_positions"),
            entry->at("n_top1_differs"),
            {},
            true};
  } catch (const Json::exception&) {
    return false;
  }
  return true;
}

void ReferencePart::KeepDefault(const PromptRecord& prompt, const DefaultConfiguration& row) const {
  const bool worth = request_.reuse == Reuse::kAlways || IsMuchWork(prompt);
  if (!engine_ || !worth || !row.error.empty()) return;
  WriteCacheEntry(FolderOf(prompt) / kDefaultFile, {{"provenance", Provenance(prompt)},
                                                    {"logits_sha256", prompt.logits_sha256[1]},
                                                    {"flash", row.flash},
                                                    {"mean_kl", row.mean_kl},
                                                    {"worst_kl", row.worst_kl},
                                                    {"rel_l2", row.rel_l2},
                                                    {"n_positions", row.n_positions},
                                                    {"n_top1_differs", row.n_top1_differs}});
}

}  // namespace pb::run
