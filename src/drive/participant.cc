// Starts engines, opens models and sessions, notes facts and failures in the record, and caches
// digests of files.
#include "drive/participant.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/kept.h"
#include "base/processors.h"
#include "base/sha256.h"
#include "base/shards.h"
#include "base/suggest.h"

namespace pb::drive {
namespace {

// The settings that the ABI names (docs/plugin_abi.md); an engine may have its own besides.
const std::vector<std::string>& KnownSettings() {
  static const std::vector<std::string> known = {
      "ffn.activation", "act.quant", "kv.type", "attn.flash",  "hf.config", "norm.eps",  "rope.base",
      "rope.scale",     "threads",   "ubatch",  "cpu.library", "n_ctx",     "noise.seed"};
  return known;
}

// The setting in force that a message is about; nullptr: about none. A key may be a common word, so
// what is said to be a setting goes before what only occurs.
const std::string* NamedIn(const std::string& message, const host::Settings& settings) {
  constexpr std::pair<const char*, const char*> kAround[] = {{"setting ", ""}, {"", "="}, {"", ""}};
  for (const auto& [before, after] : kAround)
    for (const auto& [key, value] : settings)
      if (message.find(before + key + after) != std::string::npos) return &key;
  return nullptr;
}

bool IsKnownSetting(const std::string& key) {
  return std::find(KnownSettings().begin(), KnownSettings().end(), key) != KnownSettings().end();
}

}  // namespace

Error Participant::Note(Error error) {
  if (record_.error.empty()) {
    record_.error = error.message;
    if (engine_) record_.last_words = engine_->LastWords();
  }
  if (error.code == Code::kUnsupported)
    error.message = fmt::format("{} cannot do what was asked: {}", record_.spec, error.message);
  else if (!error.message.starts_with(record_.role + ": "))  // where it is called what it is
    error = std::move(error).In(record_.role);
  return error;
}

Status Participant::Noted(Status status) {
  return status.ok() ? Status() : Status(Note(std::move(status).error()));
}

namespace {

// Libraries that an engine names by their path alone are told by what is in them, too.
void DigestLibraries(host::Facts* description) {
  constexpr std::string_view kPath = "path.";
  host::Facts digests;
  for (const host::Fact& fact : *description) {
    if (!fact.key.starts_with(kPath)) continue;
    const std::string key = "digest." + fact.key.substr(kPath.size());
    if (host::FindFact(*description, key)) continue;
    if (auto digest = CachedFileSha256(fact.value); digest.ok())
      digests.push_back({key, *digest, "observed"});
  }
  description->insert(description->end(), digests.begin(), digests.end());
}

}  // namespace

Status Participant::Start(const EngineSpec& spec) {
  record_.spec = spec.text;
  record_.plugin = spec.plugin;
  record_.settings = spec.settings;
  auto digest = CachedFileSha256(spec.plugin);
  if (!digest) return Note(std::move(digest).error());
  record_.plugin_sha256 = *digest;
  auto engine = host::Engine::Start(spec.plugin, spec.settings, limits_);
  if (!engine) {
    Error error = std::move(engine).error();
    // A key that no engine knows is a slip of the command line; one that this engine understands
    // and does not offer it refuses.
    const std::string* named = NamedIn(error.message, spec.settings);
    if (error.code == Code::kUnsupported && !(named && IsKnownSetting(*named))) error.code = Code::kUsage;
    const bool unknown =
        named && !IsKnownSetting(*named) && error.message.find(*named + "=") == std::string::npos;
    if (error.code == Code::kUsage && unknown)
      error.message += fmt::format("{}\n       settings that engines may offer: {}",
                                   DidYouMean(*named, KnownSettings()), fmt::join(KnownSettings(), " "));
    return Note(std::move(error));
  }
  engine_ = std::move(engine).value();
  record_.description = engine_->description();
  DigestLibraries(&record_.description);
  record_.identity = EngineIdentity(record_);
  return {};
}

Status Participant::OpenModel(const std::filesystem::path& model) {
  record_.model_path = model;
  PB_ASSIGN(record_.model_sha256, CachedFileSha256(model));
  auto facts = engine_->OpenModel(model);
  if (!facts) return Note(std::move(facts).error());
  record_.model = std::move(facts).value();
  return {};
}

Status Participant::OpenSession(const host::Settings& settings, bool keep_facts) {
  auto facts = engine_->OpenSession(settings);
  if (!facts) return Note(std::move(facts).error());
  if (keep_facts) record_.session = std::move(facts).value();
  return {};
}

Result<host::Settings> Participant::OpenSessionWishing(host::Settings wishes) {
  for (;;) {
    auto facts = engine_->OpenSession(wishes);
    if (facts.ok()) {
      record_.session = std::move(facts).value();
      return wishes;
    }
    const Error& error = facts.error();
    bool refused = error.code == Code::kUsage || error.code == Code::kUnsupported;
    auto named = std::find_if(wishes.begin(), wishes.end(), [&](const auto& wish) {
      return error.message.find(wish.first) != std::string::npos;
    });
    if (!refused || named == wishes.end()) return Note(std::move(facts).error());
    wishes.erase(named);
  }
}

Result<std::vector<int32_t>> Participant::Tokenize(std::string_view text) {
  auto ids = engine_->Tokenize(text, PB_ADD_SPECIAL | PB_PARSE_SPECIAL);
  if (!ids) return Note(std::move(ids).error());
  return ids;
}

Result<std::string> Participant::Detokenize(std::span<const int32_t> ids) {
  auto text = engine_->Detokenize(ids);
  if (!text) return Note(std::move(text).error());
  return text;
}

Status Participant::Reset() { return Noted(engine_->Reset(0)); }

Result<std::vector<host::StageVisibility>> Participant::Stages() {
  auto stages = engine_->Stages();
  if (!stages) return Note(std::move(stages).error());
  return stages;
}

Status Participant::Evaluate(std::span<const int32_t> tokens, int32_t first_position, const RowFn& on_row,
                             const Taps& taps) {
  return Run({{tokens.begin(), tokens.end()}, first_position, 0, taps.filter}, on_row, taps);
}

Status Participant::EvaluateFrom(std::span<const int32_t> tokens, int32_t first_position, int32_t index,
                                 const RowFn& on_row) {
  return Run({{tokens.begin(), tokens.end()}, first_position, index, {}}, on_row, {});
}

Status Participant::EvaluateLast(std::span<const int32_t> tokens, int32_t first_position,
                                 const RowFn& on_row) {
  return EvaluateFrom(tokens, first_position, static_cast<int32_t>(tokens.size()) - 1, on_row);
}

Status Participant::Evaluate(const host::EvalRequest& request,
                             const std::function<Status(const host::Event&)>& on_event) {
  bool taken = true;
  auto take = [&](const host::Event& event) -> Status {
    Status of_caller = on_event(event);
    taken = of_caller.ok();
    return of_caller;
  };
  const bool begun = begun_ && begun_->tokens == request.tokens &&
                     begun_->first_position == request.first_position && request.logits_from == 0 &&
                     !request.tap.outputs && !request.tap.inputs;
  if (!begun) GiveUpBegun();
  begun_.reset();
  Status status = begun ? engine_->Finish(take) : engine_->Eval(request, take);
  if (status.ok() || (!taken && status.error().code != Code::kEngine)) return status;
  return Noted(std::move(status));
}

Status ForEachRow(const host::Event& event, const RowFn& on_row) {
  if (event.kind != host::Event::kLogits) return {};
  const host::TensorRef& rows = event.tensor;
  if (rows.shape.size() != 2 || rows.shape[0] < 0 || rows.shape[1] <= 0 ||
      static_cast<size_t>(rows.shape[0]) * static_cast<size_t>(rows.shape[1]) != rows.data.size())
    return MakeError(Code::kEngine, "logits came without the shape (rows, vocabulary)");
  size_t n_vocab = static_cast<size_t>(rows.shape[1]);
  for (int64_t i = 0; i < rows.shape[0]; ++i)
    PB_TRY(on_row(event.point.first_position + static_cast<int32_t>(i),
                  rows.data.subspan(static_cast<size_t>(i) * n_vocab, n_vocab)));
  return {};
}

Status Participant::Run(const host::EvalRequest& request, const RowFn& on_row, const Taps& taps) {
  return Evaluate(request, [&](const host::Event& event) -> Status {
    return event.kind == host::Event::kPoint ? taps.on_point(event) : ForEachRow(event, on_row);
  });
}

Status Participant::Begin(std::span<const int32_t> tokens, int32_t first_position) {
  host::EvalRequest request{{tokens.begin(), tokens.end()}, first_position, 0, {}};
  PB_TRY(Noted(engine_->BeginEval(request)));
  begun_ = std::move(request);
  return {};
}

void Participant::GiveUpBegun() {
  if (!begun_) return;
  begun_.reset();
  auto event = engine_->Wait();  // what is wrong with the engine it says again
  if (event.ok() && event->kind != host::Event::kDone) (void)engine_->Stop().ok();
}

std::optional<compare::Obstacle> Participant::ObstacleOf(const Error& error) {
  if (!failed()) return std::nullopt;
  switch (error.code) {
    case Code::kUndeclared:
      return compare::Undeclared(error.message);
    case Code::kUnsupported:
      return compare::Unsupported(error.message);  // it says what is missing: nobody's fault
    case Code::kEngine:
    case Code::kTimeout:
    case Code::kMalformed:  // our reader accepted the file: the engine refuses a well-formed model
    case Code::kInternal:
      return compare::EngineFailed(record_.role, record_.error);
    default:
      return std::nullopt;
  }
}

host::Settings SessionWishes(const host::Settings& by_user, size_t n_ctx) {
  host::Settings wishes;
  for (const auto& [key, value] : host::Settings{{"threads", "1"}, {"kv.type", "f16"}, {"attn.flash", "off"}})
    if (!FindSetting(by_user, key)) wishes.emplace_back(key, value);
  wishes.emplace_back("n_ctx", std::to_string(n_ctx));
  return wishes;
}

Result<host::Facts> DescribeEngine(const EngineSpec& spec) {
  PB_ASSIGN(auto engine, host::Engine::Start(spec.plugin, spec.settings, {}));
  return engine->description();
}

std::string EngineIdentity(const EngineRecord& record) {
  std::string all = "plugin=" + record.plugin_sha256 + "\n";
  for (const host::Fact& fact : record.description) {
    if (fact.key == "name" || fact.key == "version" || fact.key == "commit" || fact.key == "isa" ||
        fact.key == "build" || fact.key.starts_with("digest."))
      all += fact.key + "=" + fact.value + "\n";
  }
  return Sha256Hex(all);
}

std::vector<std::string> FindingsOf(const EngineRecord& record, int64_t n_positions) {
  const host::Fact* findings = host::FindFact(record.model, "findings");
  const std::string name = record.engine_facts().name;
  std::vector<std::string> found;
  std::string_view rest;
  if (findings) rest = findings->value;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    if (end > 0)
      found.push_back(fmt::format("{}: {}", name.empty() ? record.spec : name, rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const auto n_trained = record.model_facts().n_ctx_train;
  if (n_trained > 0 && n_positions > n_trained)
    found.push_back(
        fmt::format("{} positions were evaluated, and the model's trained context has {}: what an engine "
                    "computes beyond it can be compared, but the model was not made for it",
                    n_positions, n_trained));
  const std::string threads =
      TooManyThreads(host::FactNumber(record.session, "threads", 1), ProcessorCount());
  if (!threads.empty()) found.push_back(fmt::format("{}: {}", name.empty() ? record.spec : name, threads));
  return found;
}

std::string TooManyThreads(int64_t n_threads, int n_processors) {
  if (n_threads <= n_processors) return {};
  return fmt::format(
      "{} threads on {} processor{}: threads that spin while they wait for each other keep the processor "
      "from those that have work, which may take a hundred times as long or end in a timeout; --threads {} "
      "is as many as there are",
      n_threads, n_processors, n_processors == 1 ? "" : "s", n_processors);
}

bool MayRunSideBySide(const EngineRecord& one, const EngineRecord& other) {
  return host::FactNumber(one.session, "threads", 1) + host::FactNumber(other.session, "threads", 1) <=
         ProcessorCount();
}

namespace {

Result<std::string> CachedSha256OfOne(const std::filesystem::path& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return MakeError(Code::kNotFound, "{}: no such file", path.string());
  if (!S_ISREG(info.st_mode)) return MakeError(Code::kIo, "{}: not a regular file", path.string());
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::canonical(path, error);
  if (error) return MakeError(Code::kIo, "{}: {}", path.string(), error.message());
  std::string stamp =
      fmt::format("{} {} {}.{:09} {}.{:09} {}", absolute.string(), info.st_size, info.st_mtim.tv_sec,
                  info.st_mtim.tv_nsec, info.st_ctim.tv_sec, info.st_ctim.tv_nsec, info.st_ino);
  const std::filesystem::path entry = CacheDir() / "sha256" / (Sha256Hex(stamp) + ".json");
  constexpr uint64_t kMaxBytes = 1 << 16;
  if (const auto known = ReadCacheEntry(entry, kMaxBytes);
      known && known->value("file", nlohmann::json()) == stamp && known->contains("file_sha256") &&
      known->at("file_sha256").is_string())
    return known->at("file_sha256").get<std::string>();
  PB_ASSIGN(std::string digest, Sha256File(path));
  WriteCacheEntry(entry, {{"file", stamp}, {"file_sha256", digest}});
  return digest;
}

}  // namespace

Result<std::string> CachedFileSha256(const std::filesystem::path& path) {
  const ShardName shard = ParseShardName(path.filename().string());
  if (shard.count <= 1) return CachedSha256OfOne(path);
  std::string digests;
  for (size_t no = 1; no <= shard.count; ++no) {
    PB_ASSIGN(const std::string digest, CachedSha256OfOne(path.parent_path() / shard.File(no)));
    digests += digest + "\n";
  }
  return Sha256Hex(digests);
}

int32_t Greedy(std::span<const float> row) {
  int32_t best = -1;
  for (size_t i = 0; i < row.size(); ++i) {
    if (!std::isfinite(row[i])) continue;
    if (best < 0 || row[i] > row[static_cast<size_t>(best)]) best = static_cast<int32_t>(i);
  }
  return best;
}

}  // namespace pb::drive
