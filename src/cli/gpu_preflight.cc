// paritybit gpu-preflight: which GPUs are usable here, found at run time.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/output.h"
#include "setup/gpus.h"

namespace pb::cli {
namespace {

nlohmann::ordered_json TextOrNull(const std::string& text) {
  return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
}

nlohmann::ordered_json JsonOf(const setup::Gpus& gpus, int exit_code) {
  auto object = Envelope("paritybit.gpu-preflight/0", exit_code == kExitOk ? "ok" : "error", exit_code);
  if (exit_code != kExitOk)
    object["reasons"].push_back({{"code", "not-found"}, {"text", "no GPU is usable here"}});
  object["cuda"] = gpus.cuda.usable;
  object["cuda_version"] = TextOrNull(gpus.cuda.version);
  object["metal"] = false;  // of macOS alone
  object["rocm"] = gpus.rocm.usable;
  object["rocm_version"] = TextOrNull(gpus.rocm.version);
  object["wgpu"] = gpus.vulkan.usable;  // what runs on Vulkan
  object["any_available"] = gpus.any();
  object["vulkan_version"] = TextOrNull(gpus.vulkan.version);
  object["driver"] = TextOrNull(gpus.cuda.driver);
  object["devices"] = nlohmann::ordered_json::array();
  for (const setup::Gpu& gpu : gpus.devices)
    object["devices"].push_back({{"api", gpu.api},
                                 {"name", gpu.name},
                                 {"capability", TextOrNull(gpu.capability)},
                                 {"memory_bytes", gpu.memory_bytes}});
  object["missing"] = {{"cuda", TextOrNull(gpus.cuda.why_not)},
                       {"rocm", TextOrNull(gpus.rocm.why_not)},
                       {"vulkan", TextOrNull(gpus.vulkan.why_not)}};
  return object;
}

std::string TextOf(const setup::Gpus& gpus) {
  std::string text =
      gpus.any() ? "GPUs are usable here.\n" : "No GPU is usable here, and paritybit needs none.\n";
  const std::pair<const char*, const setup::GpuApi*> kApis[] = {
      {"CUDA", &gpus.cuda}, {"ROCm", &gpus.rocm}, {"Vulkan", &gpus.vulkan}};
  for (const auto& [name, api] : kApis) {
    std::string detail = api->why_not;
    if (api->usable) detail = fmt::format("version {}", api->version.empty() ? "not told" : api->version);
    if (!api->driver.empty()) detail += fmt::format(", driver {}", api->driver);
    text += fmt::format("{}  {:<8} {}\n", api->usable ? "ok     " : "none   ", name, detail);
  }
  constexpr double kGib = 1 << 30;
  for (const setup::Gpu& gpu : gpus.devices)
    text += fmt::format("device   {:<8} {}{}{}\n", gpu.api, gpu.name,
                        gpu.memory_bytes ? fmt::format(", {:.1f} GiB", double(gpu.memory_bytes) / kGib) : "",
                        gpu.capability.empty() ? "" : ", capability " + gpu.capability);
  return text;
}

int GpuPreflight(const OutputArguments& output, bool require) {
  const setup::Gpus gpus = setup::ProbeGpus();
  const int exit_code = require && !gpus.any() ? kExitEnvironment : kExitOk;
  if (output.json()) {
    PrintJson(JsonOf(gpus, exit_code));
    return exit_code;
  }
  PrintText(TextOf(gpus));
  if (exit_code != kExitOk) PrintError("error: no GPU is usable here, and --require asks for one\n");
  return exit_code;
}

}  // namespace

Action DeclareGpuPreflight(Flags& flags) {
  struct Arguments {
    OutputArguments output;
    bool require = false;
  };
  auto args = std::make_shared<Arguments>();
  flags.Switch("--require", args->require, "exit 5 when no GPU is usable").Group("Verdict");
  AddOutputArguments(flags, args->output, nullptr, {"text", "json", "human"});
  return [args] { return GpuPreflight(args->output, args->require); };
}

}  // namespace pb::cli
