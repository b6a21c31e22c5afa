// Results of a self-check, a JSON line each, so that one that was interrupted goes on where it
// stood.
#include "selfcheck/store.h"

#include <cerrno>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/kept.h"
#include "base/system_error.h"

namespace pb::selfcheck {
namespace {

using Json = nlohmann::json;
constexpr const char* kSchema = "paritybit.self-check.results/1";
constexpr size_t kMostBytes = 64 << 20;

Json ToJson(const SelfResult& r) {
  Json j = {{"key", r.key},           {"kind", r.kind},   {"defect", r.defect},
            {"benign", r.benign},     {"error", r.error}, {"skipped", r.skipped},
            {"detected", r.detected}, {"exact", r.exact}, {"within_one", r.within_one},
            {"blamed", r.blamed},     {"named", r.named}, {"verdict", r.verdict},
            {"place", r.place},       {"blame", r.blame}, {"named_as", r.named_as}};
  if (r.spot) j["spot"] = *r.spot;
  if (!r.truth.empty()) {
    j["found_by"] = r.found_by, j["truth"] = r.truth, j["said"] = r.said, j["match"] = r.match;
  }
  // Infinite where one side alone is finite.
  if (std::isfinite(r.bound_ratio)) j["bound_ratio"] = r.bound_ratio;
  return j;
}

// None: a line of something else.
std::optional<SelfResult> FromJson(const Json& j) try {
  SelfResult r;
  r.key = j.at("key"), r.kind = j.at("kind"), r.defect = j.at("defect"), r.benign = j.at("benign");
  r.error = j.at("error"), r.skipped = j.at("skipped"), r.detected = j.at("detected"),
  r.exact = j.at("exact");
  r.within_one = j.at("within_one"), r.blamed = j.at("blamed"), r.named = j.at("named"),
  r.verdict = j.at("verdict");
  r.place = j.at("place"), r.blame = j.at("blame"), r.named_as = j.at("named_as");
  if (j.contains("spot")) r.spot = j.at("spot").get<bool>();
  r.bound_ratio = j.value("bound_ratio", INFINITY);
  r.found_by = j.value("found_by", ""), r.truth = j.value("truth", ""), r.said = j.value("said", ""),
  r.match = j.value("match", "");
  return r;
} catch (const Json::exception&) {
  return std::nullopt;
}

// Of lines that are what was written; the last one may be cut.
std::map<std::string, SelfResult> ReadResults(const std::string& text, const std::string& identity) {
  std::map<std::string, SelfResult> known;
  bool first = true;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    if (end == std::string::npos) break;
    const auto line = OpenSealed(std::string_view(text).substr(at, end - at));
    at = end + 1;
    if (first && (!line.ok() || line->value("schema", Json()) != kSchema ||
                  line->value("identity", Json()) != identity))
      return {};
    if (!first && line.ok())
      if (auto r = FromJson(*line)) known[r->key] = std::move(*r);
    first = false;
  }
  return known;
}

}  // namespace

Result<std::unique_ptr<SelfCheckStore>> SelfCheckStore::Open(const std::filesystem::path& path,
                                                             const std::string& identity, bool resume) {
  std::unique_ptr<SelfCheckStore> self(new SelfCheckStore);
  self->path_ = path;
  if (path.empty()) return self;
  if (auto text = ReadFile(path, kMostBytes); resume && text.ok())
    self->known_ = ReadResults(*text, identity);
  std::error_code ignored;
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), ignored);
  // Begun anew, so that a line that was cut is not continued.
  std::string begin = Sealed({{"schema", kSchema}, {"identity", identity}}) + "\n";
  for (const auto& [key, result] : self->known_) begin += Sealed(ToJson(result)) + "\n";
  PB_TRY(WriteFileAtomic(path, begin));
  self->out_.open(path, std::ios::app);
  if (!self->out_) return MakeError(Code::kIo, "{}: cannot be written: {}", path.string(), ErrnoText(errno));
  return self;
}

const SelfResult* SelfCheckStore::Find(const std::string& key) const {
  auto found = known_.find(key);
  return found == known_.end() ? nullptr : &found->second;
}

Status SelfCheckStore::Add(const SelfResult& result) {
  if (path_.empty()) return {};
  std::lock_guard lock(mutex_);
  out_ << Sealed(ToJson(result)) + "\n" << std::flush;
  return out_ ? Status()
              : Status(MakeError(Code::kIo, "{}: cannot be written: {}", path_.string(), ErrnoText(errno)));
}

}  // namespace pb::selfcheck
