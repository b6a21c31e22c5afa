#include "run/participant.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "base/sha256.h"
#include "model/model.h"

namespace pb::run {
namespace {

std::string TextSha256(std::string_view text) {
  return Sha256Hex(std::as_bytes(std::span(text.data(), text.size())));
}

}  // namespace

Error Participant::Note(Error error) {
  if (record_.error.empty()) {
    record_.error = error.message;
    if (engine_) record_.last_words = engine_->LastWords();
  }
  return std::move(error).In(record_.role);
}

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
    if (error.code == Code::kUnsupported) error.code = Code::kUsage;
    return Note(std::move(error));
  }
  engine_ = std::move(engine).value();
  record_.description = engine_->description();
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

Status Participant::Reset() {
  Status status = engine_->Reset(0);
  return status.ok() ? Status() : Status(Note(std::move(status).error()));
}

Status Participant::Evaluate(std::span<const int32_t> tokens, int32_t first_position, const RowFn& on_row,
                             const Taps& taps) {
  return Run({{tokens.begin(), tokens.end()}, first_position, 0, taps.filter}, on_row, taps);
}

Status Participant::EvaluateLast(std::span<const int32_t> tokens, int32_t first_position,
                                 const RowFn& on_row) {
  return Run({{tokens.begin(), tokens.end()}, first_position, static_cast<int32_t>(tokens.size()) - 1, {}},
             on_row, {});
}

Status Participant::Run(const host::EvalRequest& request, const RowFn& on_row, const Taps& taps) {
  bool ours = false;  // the error came from a callback, not from the engine
  Status status = engine_->Eval(request, [&](const host::Event& event) -> Status {
    if (event.kind == host::Event::kPoint) {
      Status point = taps.on_point(event);
      ours = !point.ok();
      return point;
    }
    if (event.kind != host::Event::kLogits) return {};
    const host::TensorRef& rows = event.tensor;
    if (rows.shape.size() != 2 || rows.shape[0] < 0 || rows.shape[1] <= 0 ||
        static_cast<size_t>(rows.shape[0]) * static_cast<size_t>(rows.shape[1]) != rows.data.size())
      return MakeError(Code::kEngine, "logits came without the shape (rows, vocabulary)");
    size_t n_vocab = static_cast<size_t>(rows.shape[1]);
    for (int64_t i = 0; i < rows.shape[0]; ++i) {
      Status row = on_row(event.point.first_position + static_cast<int32_t>(i),
                          rows.data.subspan(static_cast<size_t>(i) * n_vocab, n_vocab));
      if (!row.ok()) return ours = true, row;
    }
    return {};
  });
  if (status.ok() || ours) return status;
  return Note(std::move(status).error());
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
  return TextSha256(all);
}

std::vector<std::string> FindingsOf(const EngineRecord& record, int64_t n_positions) {
  const host::Fact* findings = host::FindFact(record.model, "findings");
  const host::Fact* name = host::FindFact(record.description, "name");
  std::vector<std::string> found;
  std::string_view rest;
  if (findings) rest = findings->value;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    if (end > 0)
      found.push_back(fmt::format("{}: {}", name ? name->value : record.spec, rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const auto n_trained = static_cast<int64_t>(host::FactNumber(record.model, "n_ctx_train", 0));
  if (n_trained > 0 && n_positions > n_trained)
    found.push_back(
        fmt::format("{} positions were evaluated, and the model's trained context has {}: what an engine "
                    "computes beyond it can be compared, but the model was not made for it",
                    n_positions, n_trained));
  return found;
}

std::vector<int32_t> EndOfGeneration(const EngineRecord& record) {
  const host::Fact* ids = host::FindFact(record.model, "eog");
  if (!ids) ids = host::FindFact(record.model, "eos");
  std::vector<int32_t> ends;
  for (const char* at = ids ? ids->value.c_str() : ""; *at;) {
    char* end = nullptr;
    const long id = std::strtol(at, &end, 10);
    if (end == at) break;  // "none"
    if (id >= 0) ends.push_back(static_cast<int32_t>(id));
    at = *end == ',' ? end + 1 : end;
  }
  return ends;
}

Status CheckModelFile(const std::filesystem::path& path, const host::Settings& settings) {
  ModelOptions options;
  if (const std::string* config = FindSetting(settings, "hf.config")) options.hf_config = *config;
  auto model = Model::Open(path, options);
  if (model.ok() || model.error().code == Code::kUnsupported || model.error().code == Code::kUndeclared)
    return {};
  return std::move(model).error();
}

Result<std::string> CachedFileSha256(const std::filesystem::path& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return MakeError(Code::kNotFound, "{}: no such file", path.string());
  if (!S_ISREG(info.st_mode)) return MakeError(Code::kIo, "{}: not a regular file", path.string());
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::canonical(path, error);
  if (error) return MakeError(Code::kIo, "{}: {}", path.string(), error.message());
  std::string stamp =
      fmt::format("{} {} {}.{:09} {}.{:09} {}", absolute.string(), info.st_size, info.st_mtim.tv_sec,
                  info.st_mtim.tv_nsec, info.st_ctim.tv_sec, info.st_ctim.tv_nsec, info.st_ino);
  std::filesystem::path entry = CacheDir() / "sha256" / TextSha256(stamp);
  constexpr size_t kDigits = 64;
  if (auto known = ReadFile(entry, kDigits); known.ok() && known->size() == kDigits) return known;
  PB_ASSIGN(std::string digest, Sha256File(path));
  std::filesystem::create_directories(entry.parent_path(), error);
  (void)WriteFileAtomic(entry, digest).ok();  // without a writable cache it is computed again next time
  return digest;
}

int32_t Greedy(std::span<const float> row) {
  int32_t best = -1;
  for (size_t i = 0; i < row.size(); ++i) {
    if (!std::isfinite(row[i])) continue;
    if (best < 0 || row[i] > row[static_cast<size_t>(best)]) best = static_cast<int32_t>(i);
  }
  return best;
}

}  // namespace pb::run
