// paritybit check-features: what this build contains, asked of the build itself.
#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/output.h"
#include "drive/participant.h"
#include "formats/block.h"

namespace pb::cli {
namespace {

constexpr uint32_t kMaxTypeId = 63;

int CheckFeatures(const OutputArguments& output) {
  auto object = Envelope("paritybit.features/0", "ok", kExitOk);
  object["version"] = PB_VERSION;
  std::string text = fmt::format("paritybit {}\nweights   ", PB_VERSION);
  object["weight_types"] = nlohmann::ordered_json::array();
  for (uint32_t id = 0; id <= kMaxTypeId; ++id) {
    if (!FindBlockFormat(id)) continue;
    object["weight_types"].push_back(BlockTypeName(id));
    text += " " + BlockTypeName(id);
  }
  text += "\n";
  object["engines"] = nlohmann::ordered_json::array();
  for (const std::filesystem::path& plugin : BundledPlugins()) {
    std::string name = plugin.stem().string();
    nlohmann::ordered_json engine = {{"name", name}, {"plugin", plugin.string()}};
    text += fmt::format("engine     {:<10}", name);
    auto facts = drive::DescribeEngine({name, plugin, {}});
    if (!facts) {
      engine["error"] = facts.error().message;
      text += " does not start: " + facts.error().message;
    } else {
      for (const host::Fact& fact : *facts) {
        engine[fact.key] = fact.value;
        if (!fact.key.starts_with("digest.") && !fact.key.starts_with("path.") && fact.key != "name")
          text += fmt::format(" {}={}", fact.key, fact.value);
      }
    }
    text += "\n";
    object["engines"].push_back(std::move(engine));
  }
  if (output.json())
    PrintJson(object);
  else
    PrintText(text);
  return kExitOk;
}

}  // namespace

Action DeclareCheckFeatures(Flags& flags) {
  auto output = std::make_shared<OutputArguments>();
  AddOutputArguments(flags, *output, nullptr);
  return [output] { return CheckFeatures(*output); };
}

}  // namespace pb::cli
