// Writes and reads the records of references as JSON.
#include "setup/record.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"

namespace pb::setup {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
constexpr char kSchema[] = "paritybit.reference/2", kProofSchema[] = "paritybit.reference-proof/1";
constexpr uint64_t kMaxBytes = 4 << 20;

fs::path Base() {
  std::error_code error;
  const fs::path base = fs::canonical(ReferencesDir(), error);
  return error ? fs::absolute(ReferencesDir()) : base;
}

std::string Shorten(const fs::path& path) {
  const fs::path relative = path.lexically_relative(Base());
  return relative.empty() || *relative.begin() == ".." ? path.string() : relative.string();
}
fs::path Lengthen(const std::string& path) { return path.empty() ? fs::path() : Base() / path; }

json Shortened(const std::vector<fs::path>& paths) {
  json list = json::array();
  for (const fs::path& path : paths) list.push_back(Shorten(path));
  return list;
}

std::vector<fs::path> Paths(const json& object, const char* key) {
  std::vector<fs::path> paths;
  const auto at = object.find(key);
  if (at == object.end() || !at->is_array()) return paths;
  for (const json& path : *at)
    if (path.is_string()) paths.push_back(Lengthen(path.get<std::string>()));
  return paths;
}

std::vector<Fingerprint> Prints(const json& object) {
  std::vector<Fingerprint> prints;
  const auto at = object.find("libraries");
  if (at == object.end() || !at->is_array()) return prints;
  for (const json& row : *at) {
    if (!row.is_object()) continue;
    Fingerprint print;
    print.file = Lengthen(Text(row, "file")), print.sha256 = Text(row, "sha256");
    if (const auto n = row.find("bytes"); n != row.end() && n->is_number_unsigned())
      print.bytes = n->get<uint64_t>();
    if (const auto n = row.find("changed_ns"); n != row.end() && n->is_number_integer())
      print.changed_ns = n->get<int64_t>();
    prints.push_back(std::move(print));
  }
  return prints;
}

fs::path RecordFile(std::string_view name) { return ReferencesDir() / name / "reference.json"; }

}  // namespace

fs::path ReferencesDir() { return CacheDir() / "references"; }

Status WriteRecord(const Record& record) {
  json libraries = json::array();
  for (const Fingerprint& print : record.libraries)
    libraries.push_back({{"file", Shorten(print.file)},
                         {"bytes", print.bytes},
                         {"changed_ns", print.changed_ns},
                         {"sha256", print.sha256}});
  const json object = {
      {"schema", kSchema},
      {"name", record.name},
      {"how", record.build.how},
      {"root", Shorten(record.build.root)},
      {"release", record.release},
      {"chosen", record.chosen},
      {"version", record.build.version},
      {"commit", record.commit},
      {"linked", Shortened(record.build.libraries)},
      {"include_dirs", Shortened(record.build.include_dirs)},
      {"vocabulary_dir", record.build.vocabulary_dir.empty() ? "" : Shorten(record.build.vocabulary_dir)},
      {"libraries", libraries},
      {"digest", record.digest}};
  std::error_code ignored;  // of the folder's making the writer tells
  fs::create_directories(RecordFile(record.name).parent_path(), ignored);
  return WriteFileAtomic(RecordFile(record.name), DumpJson(object, 2) + "\n");
}

Result<Record> ReadRecord(std::string_view name) {
  PB_ASSIGN(const std::string text, ReadFile(RecordFile(name), kMaxBytes));
  const json object = json::parse(text, nullptr, false);
  const Error damaged = MakeError(Code::kMalformed, "{}: it is damaged", RecordFile(name).string());
  if (!object.is_object() || Text(object, "schema") != kSchema || Text(object, "name") != name)
    return damaged;
  Record record;
  record.name = name;
  record.build.how = Text(object, "how");
  record.build.root = Lengthen(Text(object, "root"));
  record.build.version = Text(object, "version");
  record.build.libraries = Paths(object, "linked");
  record.build.include_dirs = Paths(object, "include_dirs");
  record.build.vocabulary_dir = Lengthen(Text(object, "vocabulary_dir"));
  record.release = Text(object, "release");
  record.chosen = object.value("chosen", json()) == true;
  record.commit = Text(object, "commit");
  record.libraries = Prints(object);
  record.digest = Text(object, "digest");
  if (record.build.libraries.empty() || record.libraries.empty() || record.digest.empty()) return damaged;
  return record;
}

std::vector<std::string> RecordedNames() {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(ReferencesDir(), error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    std::error_code ignored;
    if (!name.starts_with('.') && fs::exists(RecordFile(name), ignored)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

fs::path AdapterDir(std::string_view name, const std::string& adapter_digest) {
  return ReferencesDir() / name / ("adapter-" + adapter_digest.substr(0, 16));
}

Status WriteProof(std::string_view name, const std::string& adapter_digest, const std::string& proof) {
  const json object = {{"schema", kProofSchema}, {"adapter_digest", adapter_digest}, {"golden_pass", proof}};
  return WriteFileAtomic(AdapterDir(name, adapter_digest) / "proof.json", DumpJson(object, 2) + "\n");
}

Result<std::string> ReadProof(std::string_view name, const std::string& adapter_digest) {
  const fs::path file = AdapterDir(name, adapter_digest) / "proof.json";
  PB_ASSIGN(const std::string text, ReadFile(file, kMaxBytes));
  const json object = json::parse(text, nullptr, false);
  if (!object.is_object() || Text(object, "schema") != kProofSchema ||
      Text(object, "adapter_digest") != adapter_digest)
    return MakeError(Code::kNotFound, "{}: it is damaged", file.string());
  return Text(object, "golden_pass");
}

std::string Text(const json& object, const char* key) {
  if (!object.is_object()) return {};
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
}

}  // namespace pb::setup
