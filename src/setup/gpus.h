// The GPUs of this machine, asked of the drivers' own libraries where these are installed: NVML and
// Vulkan, opened at run time, and what Linux tells of AMD's. Nothing is needed to build this, and
// none is a clean answer.
#ifndef PARITYBIT_SETUP_GPUS_H_
#define PARITYBIT_SETUP_GPUS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace pb::setup {

struct Gpu {
  std::string api;  // "cuda" "rocm" "vulkan": who tells of it
  std::string name, capability;
  uint64_t memory_bytes = 0;  // 0: not told
};

// One way to a GPU.
struct GpuApi {
  bool usable = false;
  std::string version;  // of the API, as the driver tells it; may be empty
  std::string driver;   // version of the driver; may be empty
  std::string why_not;  // in a few words; empty: usable
};

struct Gpus {
  GpuApi cuda, rocm, vulkan;
  std::vector<Gpu> devices;  // in order of API, then as the driver counts them
  bool any() const { return cuda.usable || rocm.usable || vulkan.usable; }
};

// Asks in a child process: a driver that crashes or hangs is a reason, no end of ours.
Gpus ProbeGpus();

}  // namespace pb::setup

#endif  // PARITYBIT_SETUP_GPUS_H_
