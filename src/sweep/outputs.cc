// Lays out what a receipt says of each engine.
#include "sweep/outputs.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"
#include "receipt/fields.h"

namespace pb::sweep {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kRoles[] = {"candidate", "reference"};

std::string Tokens(const Json& tokens) {
  return fmt::format("[{}]", fmt::join(tokens.get<std::vector<int64_t>>(), ", "));
}

// "267 (-0.843)  297 (-2.397)".
std::string Best(const Json& top, size_t n) {
  std::string out;
  for (size_t i = 0; i < top.size() && i < n; ++i) {
    const auto logp = receipt::Number(top[i]["logp"]);
    out += fmt::format("  {} ({})", top[i]["token"].get<int64_t>(),
                       logp ? fmt::format("{:.6f}", *logp) : "not finite");
  }
  return out;
}

std::string PromptText(const Json& r, size_t index, const char* role) {
  const Json& prompt = r["prompts"][index];
  std::string out = fmt::format("\nprompt {}   {}\n", index, prompt["text"].dump());
  out += fmt::format("tokens     {}\n", Tokens(prompt[fmt::format("tokens_{}", role)]));
  out += fmt::format("forced     {}\n", Tokens(prompt["decoded"]));
  if (prompt["logits_sha256"].is_object())
    out += fmt::format("logits     sha256 {}\n", prompt["logits_sha256"].value(role, "none"));
  constexpr size_t kBest = 5;
  for (const Json& row : r["positions"]) {
    if (row["prompt"] != index) continue;
    out += fmt::format("  position {} ({}), token {}; next, with log p:{}\n", row["position"].get<int64_t>(),
                       row["phase"].get<std::string>(), row["token"].get<int64_t>(),
                       Best(row["top_k"][role], kBest));
  }
  return out;
}

// A link that works wherever the folder is moved to.
Status Link(const fs::path& target, const fs::path& link) {
  std::error_code error;
  fs::create_directory_symlink(target, link, error);
  if (error) return MakeError(Code::kIo, "{}: cannot be linked: {}", link.string(), error.message());
  return {};
}

Status LinkTraces(const fs::path& folder, size_t n_prompts) {
  std::error_code error;
  for (size_t side : {0u, 1u}) {
    const fs::path link = folder / kTraceFolders[side];
    if (n_prompts == 1) {
      if (fs::exists(folder / kKeptTraces / kRoles[side], error))
        PB_TRY(Link(fs::path(kKeptTraces) / kRoles[side], link));
      continue;
    }
    for (size_t i = 0; i < n_prompts; ++i) {
      const std::string prompt = fmt::format("prompt-{}", i);
      if (!fs::exists(folder / kKeptTraces / prompt / kRoles[side], error)) continue;
      fs::create_directories(link, error);
      PB_TRY(Link(fs::path("..") / kKeptTraces / prompt / kRoles[side], link / prompt));
    }
  }
  return {};
}

}  // namespace

std::string EngineOutput(const Json& r, int side) {
  const char* role = kRoles[side];
  const Json& engine = r["engines"][static_cast<size_t>(side)];
  std::string out =
      fmt::format("engine     {} ({}) {}\nmodel      {}\n", engine["spec"].get<std::string>(), role,
                  receipt::FactOf(engine, "description", "version"), r["model"]["name"].get<std::string>());
  for (size_t i = 0; i < r["prompts"].size(); ++i) out += PromptText(r, i, role);
  return EscapeUnsafe(out);
}

Status WriteOutputs(const fs::path& folder, const Json& r) {
  for (int side : {0, 1})
    if (r["engines"].size() > static_cast<size_t>(side))
      PB_TRY(WriteFileAtomic(folder / kOutputFiles[side], EngineOutput(r, side)));
  return LinkTraces(folder, r["prompts"].size());
}

}  // namespace pb::sweep
