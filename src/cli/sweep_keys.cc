// Digests models, engines, files that words name, and the program itself.
#include "cli/sweep_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/sha256.h"
#include "base/text.h"
#include "cli/arguments.h"
#include "cli/commit.h"
#include "cli/crossval_common.h"
#include "drive/participant.h"
#include "setup/setup.h"

namespace pb::cli {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

// Of a file; of a stored trace that of what describes it. Null: it is neither.
Json DigestAt(const std::string& path) {
  std::error_code ignored;
  const fs::path described = fs::path(path) / "manifest.json";
  const auto digest = drive::CachedFileSha256(fs::is_directory(path, ignored) ? described : fs::path(path));
  return digest.ok() ? Json(*digest) : Json(nullptr);
}

// A word, and what it names where it names a file, by itself or behind a key.
Json WordJson(const std::string& word) {
  Json object{{"word", word}};
  for (const std::string& path : {word, word.substr(word.find('=') + 1)})
    if (Json digest = path.empty() ? Json(nullptr) : DigestAt(path); !digest.is_null())
      object["sha256"] = std::move(digest);
  return object;
}

// config.json beside a model says what the file does not.
Json ConfigBeside(const std::string& model) {
  return DigestAt((fs::path(model).parent_path() / "config.json").string());
}

// Both engines map the file, and each may hold its weights in another form besides.
double MemoryEstimate(const std::string& model) {
  constexpr double kTimesModel = 3, kBeside = 256, kMiB = 1 << 20;
  std::error_code error;
  const uintmax_t size = fs::file_size(model, error);
  return kBeside + (error ? 0 : kTimesModel * static_cast<double>(size) / kMiB);
}

std::string Absolute(const std::string& path) {
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error);
  return error ? path : absolute.lexically_normal().string();
}

Status CheckWords(const sweep::Cell& cell) {
  auto args = std::make_shared<CrossvalArguments>();
  const Status read = ReadWords(cell.words, [&](Flags& flags) { AddCrossvalArguments(flags, *args); });
  if (!read.ok()) return Error(read.error()).In(cell.name);
  for (const auto& [settings, flag] :
       {std::pair{&args->engines.set, "--set"}, std::pair{&args->engines.set_reference, "--set-reference"}})
    if (auto parsed = ParseSettings(*settings, flag); !parsed.ok())
      return std::move(parsed).error().In(cell.name);
  if (auto policy = PolicyOf(args->precision); !policy.ok()) return std::move(policy).error().In(cell.name);
  if (auto prompts = ReadPrompts(args->prompts); !prompts.ok())
    return std::move(prompts).error().In(cell.name);
  return {};
}

}  // namespace

const Json& CellInputs::Tool() {
  if (!tool_.is_null()) return tool_;
  const fs::path folder = ExecutableDir();
  tool_ = {{"version", PB_VERSION},
           {"commit", Commit()},
           {"paritybit", DigestAt((folder / "paritybit").string())},
           {"host", DigestAt((folder.parent_path() / "lib/paritybit/paritybit-host").string())}};
  return tool_;
}

Result<Json> CellInputs::Engine(const std::string& text) {
  if (const auto known = engines_.find(text); known != engines_.end()) return known->second;
  Json engine{{"text", text}};
  auto spec = ResolveEngine(text, {});
  if (!spec.ok() && spec.error().code != Code::kNotFound) return std::move(spec).error();
  if (!spec.ok()) {
    engine["absent"] = true;
  } else {
    engine["plugin"] = DigestAt(spec->plugin.string());
    for (const auto& [key, value] : spec->settings) engine["settings"].push_back({key, WordJson(value)});
    PB_ASSIGN(const drive::EngineName name, drive::ParseEngineName(text));
    const auto references = setup::KnownReferences();
    const bool is_reference = std::find(references.begin(), references.end(), name.name) != references.end();
    if (const auto reference = is_reference ? setup::FindReference(name.name)
                                            : Result<setup::Reference>(MakeError(Code::kNotFound, "none"));
        reference.ok())
      for (const auto& [path, digest] : reference->libraries)
        engine["libraries"].push_back({path.filename().string(), digest});
  }
  return engines_[text] = engine;
}

Status CellInputs::Complete(sweep::Cell* cell) {
  PB_TRY(CheckWords(*cell));
  if (auto found = FindModelFile(cell->model_path); found.ok()) cell->model_path = Absolute(*found);
  const auto model = std::find(cell->words.begin(), cell->words.end(), "--model") + 1;
  *model = cell->model_path;
  Json inputs{{"tool", Tool()}, {"trace_level", cell->trace_level}};
  inputs["model"] = DigestAt(cell->model_path);
  inputs["config"] = ConfigBeside(cell->model_path);
  PB_ASSIGN(inputs["candidate"], Engine(cell->candidate));
  PB_ASSIGN(inputs["reference"], Engine(cell->reference));
  for (auto word = cell->words.begin(); word != cell->words.end(); ++word)
    if (word != model) inputs["words"].push_back(WordJson(*word));
  cell->key = Sha256Hex(DumpJson(inputs));
  if (cell->memory_mib <= 0) cell->memory_mib = MemoryEstimate(cell->model_path);
  return {};
}

}  // namespace pb::cli
