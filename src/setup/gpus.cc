// Asks NVML, Vulkan and the kernel's topology of AMD GPUs, each by the few declarations that are
// needed here, in a child process whose answer comes through a pipe.
#include "setup/gpus.h"

#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/system_error.h"
#include "base/text.h"

namespace pb::setup {
namespace {

using Json = nlohmann::json;

// A symbol of an opened library as a function; null where it has none.
template <typename Function>
Function* Symbol(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

// A library that the drivers bring; null and why in *why_not.
void* OpenDriver(const char* name, std::string* why_not) {
  void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* error = dlerror();
    const std::string text = error ? error : "";
    *why_not = text.find("No such file") != std::string::npos ? fmt::format("{} is not installed", name)
                                                              : fmt::format("{}: {}", name, text);
  }
  return library;
}

// ---- NVML (https://docs.nvidia.com/deploy/nvml-api) ----

struct NvmlMemory {
  unsigned long long total, free, used;
};

void ProbeNvml(Gpus* gpus) {
  void* nvml = OpenDriver("libnvidia-ml.so.1", &gpus->cuda.why_not);
  if (!nvml) return;
  auto* init = Symbol<int()>(nvml, "nvmlInit_v2");
  auto* text_of = Symbol<const char*(int)>(nvml, "nvmlErrorString");
  auto* driver = Symbol<int(char*, unsigned)>(nvml, "nvmlSystemGetDriverVersion");
  auto* cuda = Symbol<int(int*)>(nvml, "nvmlSystemGetCudaDriverVersion_v2");
  auto* count = Symbol<int(unsigned*)>(nvml, "nvmlDeviceGetCount_v2");
  auto* handle = Symbol<int(unsigned, void**)>(nvml, "nvmlDeviceGetHandleByIndex_v2");
  auto* name = Symbol<int(void*, char*, unsigned)>(nvml, "nvmlDeviceGetName");
  auto* memory = Symbol<int(void*, NvmlMemory*)>(nvml, "nvmlDeviceGetMemoryInfo");
  auto* capability = Symbol<int(void*, int*, int*)>(nvml, "nvmlDeviceGetCudaComputeCapability");
  if (!init || !count || !handle || !name) {
    gpus->cuda.why_not = "libnvidia-ml.so.1 lacks functions of NVML";
    return;
  }
  if (const int error = init()) {
    gpus->cuda.why_not = fmt::format("NVML does not start: {}", text_of ? text_of(error) : "no reason told");
    return;
  }
  std::array<char, 128> text{};
  if (driver && driver(text.data(), text.size()) == 0) gpus->cuda.driver = text.data();
  int version = 0;
  if (cuda && cuda(&version) == 0)
    gpus->cuda.version = fmt::format("{}.{}", version / 1000, version % 1000 / 10);
  unsigned n = 0;
  if (count(&n) != 0) n = 0;
  for (unsigned i = 0; i < n; ++i) {
    void* device = nullptr;
    if (handle(i, &device) != 0 || name(device, text.data(), text.size()) != 0) continue;
    Gpu gpu{"cuda", text.data(), "", 0};
    NvmlMemory bytes{};
    if (memory && memory(device, &bytes) == 0) gpu.memory_bytes = bytes.total;
    int major = 0, minor = 0;
    if (capability && capability(device, &major, &minor) == 0)
      gpu.capability = fmt::format("{}.{}", major, minor);
    gpus->devices.push_back(std::move(gpu));
    gpus->cuda.usable = true;
  }
  if (!gpus->cuda.usable) gpus->cuda.why_not = "the driver tells of no device";
}

// ---- Vulkan (https://registry.khronos.org/vulkan) ----

struct VkInstanceInfo {
  uint32_t type = 1;  // VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO
  const void* next = nullptr;
  uint32_t flags = 0;
  const void* application = nullptr;
  uint32_t n_layers = 0;
  const char* const* layers = nullptr;
  uint32_t n_extensions = 0;
  const char* const* extensions = nullptr;
};

// VkPhysicalDeviceProperties as far as it is read; the rest, limits and all, is behind it.
struct VkProperties {
  uint32_t api = 0, driver = 0, vendor = 0, device = 0;
  uint32_t type = 0;
  char name[256] = {};
  std::array<char, 4096> rest{};
};

struct VkMemory {
  uint32_t n_types = 0;
  struct {
    uint32_t flags, heap;
  } types[32] = {};
  uint32_t n_heaps = 0;
  struct {
    uint64_t bytes;
    uint32_t flags;
  } heaps[16] = {};
};

std::string VulkanVersion(uint32_t v) {
  return fmt::format("{}.{}.{}", v >> 22 & 0x7F, v >> 12 & 0x3FF, v & 0xFFF);
}

void ProbeVulkan(Gpus* gpus) {
  void* vulkan = OpenDriver("libvulkan.so.1", &gpus->vulkan.why_not);
  if (!vulkan) return;
  auto* create = Symbol<int(const VkInstanceInfo*, const void*, void**)>(vulkan, "vkCreateInstance");
  auto* enumerate = Symbol<int(void*, uint32_t*, void**)>(vulkan, "vkEnumeratePhysicalDevices");
  auto* properties = Symbol<void(void*, VkProperties*)>(vulkan, "vkGetPhysicalDeviceProperties");
  auto* memory = Symbol<void(void*, VkMemory*)>(vulkan, "vkGetPhysicalDeviceMemoryProperties");
  if (!create || !enumerate || !properties) {
    gpus->vulkan.why_not = "libvulkan.so.1 lacks functions of Vulkan";
    return;
  }
  const VkInstanceInfo info;
  void* instance = nullptr;
  if (const int error = create(&info, nullptr, &instance)) {
    gpus->vulkan.why_not = fmt::format("no Vulkan driver is installed (VkResult {})", error);
    return;
  }
  std::array<void*, 64> devices{};
  uint32_t n = devices.size();
  if (enumerate(instance, &n, devices.data()) < 0) n = 0;
  for (uint32_t i = 0; i < std::min<uint32_t>(n, devices.size()); ++i) {
    constexpr uint32_t kCpu = 4, kDeviceLocal = 1;
    VkProperties of;
    properties(devices[i], &of);
    if (of.type == kCpu) continue;  // a renderer in software
    Gpu gpu{"vulkan", std::string(of.name, strnlen(of.name, sizeof of.name)), "", 0};
    VkMemory heaps;
    if (memory) memory(devices[i], &heaps);
    for (uint32_t h = 0; h < std::min<uint32_t>(heaps.n_heaps, 16); ++h)
      if (heaps.heaps[h].flags & kDeviceLocal) gpu.memory_bytes += heaps.heaps[h].bytes;
    gpus->devices.push_back(std::move(gpu));
    gpus->vulkan.usable = true;
    gpus->vulkan.version = VulkanVersion(of.api);
  }
  if (!gpus->vulkan.usable) gpus->vulkan.why_not = "Vulkan tells of no device but software";
}

// ---- AMD: the kernel's own topology (Documentation/gpu/amdgpu in Linux) ----

void ProbeRocm(Gpus* gpus) {
  const std::filesystem::path nodes = "/sys/class/kfd/kfd/topology/nodes";
  std::error_code error;
  gpus->rocm.why_not = "the kernel tells of no AMD GPU";
  for (const auto& node : std::filesystem::directory_iterator(nodes, error)) {
    std::ifstream properties(node.path() / "properties"), name(node.path() / "name");
    uint64_t simd = 0, gfx = 0, value = 0;
    for (std::string key; properties >> key >> value;) {
      if (key == "simd_count") simd = value;
      if (key == "gfx_target_version") gfx = value;
    }
    if (simd == 0) continue;  // a processor
    Gpu gpu{"rocm", "AMD GPU", gfx ? fmt::format("gfx{}", gfx) : "", 0};
    if (std::string text; std::getline(name, text) && !text.empty()) gpu.name = text;
    gpus->devices.push_back(std::move(gpu));
    gpus->rocm.usable = true;
  }
  if (!gpus->rocm.usable) return;
  gpus->rocm.why_not.clear();
  constexpr uint64_t kMaxBytes = 256;
  if (auto version = ReadFile("/opt/rocm/.info/version", kMaxBytes))
    gpus->rocm.version = version->substr(0, version->find('\n'));
}

// ---- The child and its answer ----

Json Written(const GpuApi& api) {
  return {{"usable", api.usable}, {"version", api.version}, {"driver", api.driver}, {"why_not", api.why_not}};
}

GpuApi ReadApi(const Json& json) {
  return {json.at("usable"), json.at("version"), json.at("driver"), json.at("why_not")};
}

std::string Written(const Gpus& gpus) {
  Json json = {{"cuda", Written(gpus.cuda)},
               {"rocm", Written(gpus.rocm)},
               {"vulkan", Written(gpus.vulkan)},
               {"devices", Json::array()}};
  for (const Gpu& gpu : gpus.devices)
    json["devices"].push_back({{"api", gpu.api},
                               {"name", gpu.name},
                               {"capability", gpu.capability},
                               {"memory_bytes", gpu.memory_bytes}});
  return DumpJson(json);
}

// False: it is not what the child writes.
bool Read(const std::string& text, Gpus* gpus) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return false;
  try {
    gpus->cuda = ReadApi(json.at("cuda"));
    gpus->rocm = ReadApi(json.at("rocm"));
    gpus->vulkan = ReadApi(json.at("vulkan"));
    for (const Json& gpu : json.at("devices"))
      gpus->devices.push_back({gpu.at("api"), gpu.at("name"), gpu.at("capability"), gpu.at("memory_bytes")});
  } catch (const Json::exception&) {
    return false;
  }
  return true;
}

[[noreturn]] void Answer(int fd, void (*probe)(Gpus*)) {
  Gpus gpus;
  probe(&gpus);
  const std::string text = Written(gpus);
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = write(fd, text.data() + at, text.size() - at);
    if (n < 0 && errno != EINTR) break;
    if (n > 0) at += static_cast<size_t>(n);
  }
  _exit(0);
}

// All that comes until the writer ends; what is not there after the limit is waited for no more.
std::string ReadAnswer(int fd) {
  constexpr int kLimitMs = 10'000;
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(kLimitMs);
  std::string text;
  std::array<char, 4096> bytes;
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    pollfd waiting{fd, POLLIN, 0};
    if (left <= 0 || poll(&waiting, 1, static_cast<int>(left)) == 0) return {};
    const ssize_t n = read(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return text;
    text.append(bytes.data(), static_cast<size_t>(n));
  }
}

// What one library tells; `failed`: where the reason goes when it ends its process.
Gpus ProbeApart(void (*probe)(Gpus*), GpuApi Gpus::*failed, const char* name) {
  Gpus gpus;
  auto fail = [&](std::string why) { return (gpus.*failed).why_not = std::move(why), gpus; };
  int ends[2];
  if (pipe(ends) != 0) return fail(ErrnoText(errno));
  const pid_t child = fork();
  if (child < 0) {
    close(ends[0]), close(ends[1]);
    return fail(ErrnoText(errno));
  }
  if (child == 0) {
    // What the drivers print is no part of our output.
    dup2(STDERR_FILENO, STDOUT_FILENO);
    for (int number : {SIGINT, SIGTERM, SIGHUP}) signal(number, SIG_DFL);
    Answer(ends[1], probe);
  }
  close(ends[1]);
  const std::string text = ReadAnswer(ends[0]);
  close(ends[0]);
  if (text.empty()) kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (Read(text, &gpus)) return gpus;
  gpus = {};
  if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
    return fail(fmt::format("{} crashed when it was asked: {}", name, strsignal(WTERMSIG(status))));
  return fail(fmt::format("{} did not answer", name));
}

}  // namespace

Gpus ProbeGpus() {
  Gpus all = ProbeApart(ProbeNvml, &Gpus::cuda, "libnvidia-ml.so.1");
  const Gpus rocm = ProbeApart(ProbeRocm, &Gpus::rocm, "the kernel");
  const Gpus vulkan = ProbeApart(ProbeVulkan, &Gpus::vulkan, "libvulkan.so.1");
  all.rocm = rocm.rocm, all.vulkan = vulkan.vulkan;
  for (const Gpus* of : {&rocm, &vulkan})
    all.devices.insert(all.devices.end(), of->devices.begin(), of->devices.end());
  return all;
}

}  // namespace pb::setup
