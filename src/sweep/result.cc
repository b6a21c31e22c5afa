// States of cells and their order, and results as sealed files.
#include "sweep/result.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/kept.h"
#include "base/sha256.h"
#include "compare/reasons.h"
#include "receipt/fields.h"

namespace pb::sweep {
namespace {

using compare::Outcome;
using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr uint64_t kMaxBytes = 16 << 20;
constexpr const char* kSchema = "paritybit.sweep-cell/1";

// The largest (or, of a limit below which values must not fall, the smallest) of a figure over all
// positions. Null: one is not finite, or there are none.
Json Extreme(const Json& positions, const char* key, bool largest) {
  std::optional<double> extreme;
  for (const Json& position : positions) {
    const auto value = receipt::Number(position[key]);
    if (!value) return nullptr;
    if (!extreme || (largest ? *value > *extreme : *value < *extreme)) extreme = value;
  }
  return extreme ? Json(*extreme) : Json(nullptr);
}

Json Mean(const Json& positions, const char* key) {
  double sum = 0;
  for (const Json& position : positions) {
    const auto value = receipt::Number(position[key]);
    if (!value) return nullptr;
    sum += *value;
  }
  return positions.empty() ? Json(nullptr) : Json(sum / static_cast<double>(positions.size()));
}

// "prompt 0, position 3, layer 1, ffn_gated"; null: they do not part.
Json PlaceOf(const Json& first) {
  if (!first.is_object()) return nullptr;
  std::string place =
      fmt::format("prompt {}, position {}", first.value("prompt", 0), first.value("position", 0));
  if (first["stage"].is_string()) {
    const int layer = first["layer"].is_number_integer() ? first["layer"].get<int>() : -1;
    if (layer >= 0) place += fmt::format(", layer {}", layer);
    place += ", " + first["stage"].get<std::string>();
  }
  return place;
}

CellResult FromJson(const Json& json) {
  CellResult r;
  json.at("name").get_to(r.name);
  json.at("key").get_to(r.key);
  json.at("state").get_to(r.state);
  json.at("why").get_to(r.why);
  json.at("exit_code").get_to(r.exit_code);
  json.at("command").get_to(r.command);
  json.at("started").get_to(r.started);
  json.at("host").get_to(r.host);
  json.at("wall_seconds").get_to(r.wall_seconds);
  json.at("peak_mib").get_to(r.peak_mib);
  json.at("timeout").get_to(r.timeout);
  json.at("stall").get_to(r.stall);
  r.figures = json.at("figures");
  json.at("files").get_to(r.files);
  return r;
}

bool FilesAreThere(const Folder& folder, const CellResult& result) {
  return std::all_of(result.files.begin(), result.files.end(), [&](const auto& file) {
    const auto digest = Sha256File(folder.cell(result.name) / file.first);
    return digest.ok() && *digest == file.second;
  });
}

}  // namespace

int Badness(const std::string& state) {
  // A cell that came to no end says less than one that diverged, and an engine that failed is worse
  // than either.
  constexpr const char* kOrder[] = {"match", "near-tie", "drift",  "incomplete",    kTimedOut, kNotRun,
                                    kError,  "diverged", kStalled, "engine-failed", "invalid"};
  const auto* found = std::find(std::begin(kOrder), std::end(kOrder), state);
  return static_cast<int>(found - std::begin(kOrder));
}

int ExitCodeOfState(const std::string& state, int code) {
  if (state == kTimedOut || state == kNotRun) return compare::ExitCode(Outcome::kIncomplete);
  if (state == kStalled) return compare::ExitCode(Outcome::kEngineFailed);
  if (const auto outcome = compare::FindOutcome(state)) return compare::ExitCode(*outcome);
  return code;
}

const CellResult* Worst(std::span<const CellResult> results) {
  const auto worst = std::max_element(results.begin(), results.end(), [](const auto& a, const auto& b) {
    return Badness(a.state) < Badness(b.state);
  });
  return worst == results.end() ? nullptr : &*worst;
}

CellResult NotRun(const Cell& cell, std::string why) {
  CellResult result;
  result.name = cell.name, result.key = cell.key, result.state = kNotRun, result.why = std::move(why);
  result.exit_code = ExitCodeOfState(kNotRun, 0);
  result.command = cell.words;
  return result;
}

Json FiguresOf(const Json& r) {
  const Json& positions = r["positions"];
  Json digests = Json::array();
  bool tokens_equal = !r["prompts"].empty();
  for (const Json& prompt : r["prompts"]) {
    tokens_equal = tokens_equal && prompt["tokens_equal"] == true;
    digests.push_back(prompt["logits_sha256"]);
  }
  return {{"scope", r["scope"]},
          {"tokens_equal", tokens_equal},
          {"n_positions", positions.size()},
          {"compared", r["coverage"]["compared"]},
          {"expected", r["coverage"]["expected"]},
          {"unit", r["coverage"]["unit"]},
          {"mean_kl", Mean(positions, "kl")},
          {"worst_kl", Extreme(positions, "kl", true)},
          {"worst_rel_l2", Extreme(positions, "rel_l2", true)},
          {"max_abs", Extreme(positions, "max_abs", true)},
          {"least_cosine", Extreme(positions, "cosine", false)},
          {"first_divergence", PlaceOf(r["first_divergence"])},
          {"blame", r["blame"]},
          {"model_sha256", r["model"]["sha256"]},
          {"engines", Json::array({r["engines"][0]["identity"],
                                   r["engines"].size() > 1 ? r["engines"][1]["identity"] : Json(nullptr)})},
          {"logits_sha256", digests},
          {"reasons", r["reasons"]}};
}

Status WriteResult(const Folder& folder, const CellResult& r) {
  const fs::path path = folder.result(r.name);
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  return WriteSealed(path, {{"schema", kSchema},
                            {"name", r.name},
                            {"key", r.key},
                            {"state", r.state},
                            {"why", r.why},
                            {"exit_code", r.exit_code},
                            {"command", r.command},
                            {"started", r.started},
                            {"host", r.host},
                            {"wall_seconds", r.wall_seconds},
                            {"peak_mib", r.peak_mib},
                            {"timeout", r.timeout},
                            {"stall", r.stall},
                            {"figures", r.figures},
                            {"files", r.files}});
}

std::optional<CellResult> ReadResult(const Folder& folder, const Cell& cell, double timeout, double stall) {
  const auto kept = ReadSealed(folder.result(cell.name), kMaxBytes);
  if (!kept.ok()) return std::nullopt;
  try {
    if (kept->at("schema") != kSchema) return std::nullopt;
    CellResult result = FromJson(*kept);
    if (result.name != cell.name || result.key != cell.key) return std::nullopt;
    if (result.state == kTimedOut && timeout > result.timeout) return std::nullopt;
    if (result.state == kStalled && stall > result.stall) return std::nullopt;
    if (!FilesAreThere(folder, result)) return std::nullopt;
    return result;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

}  // namespace pb::sweep
