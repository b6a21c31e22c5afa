// paritybit check-features: what this build contains, asked of the build itself, and its engines of each.
#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/version.h"
#include "drive/participant.h"

namespace pb::cli {
namespace {

int CheckFeatures(const OutputArguments& output) {
  auto object = Envelope("paritybit.features/0", "ok", kExitOk);
  const auto facts_of_build = BuildFacts();
  object.update(facts_of_build);
  std::string text = BuildText(facts_of_build);
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
