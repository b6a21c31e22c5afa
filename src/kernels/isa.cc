// Asks the processor, and reads names of instruction sets.
#include "kernels/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace pb {

#if defined(__x86_64__)
namespace {
// clang 14 does not know "f16c" as a feature name: CPUID leaf 1, ECX bit 29.
bool HasF16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1u);
}
}  // namespace
#endif

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "scalar";
}

bool IsaAvailable(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
    case Isa::kAvx512:
      return IsaAvailable(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  }
  return false;
#else
  return isa == Isa::kScalar;
#endif
}

Isa BestIsa() {
  if (IsaAvailable(Isa::kAvx512)) return Isa::kAvx512;
  return IsaAvailable(Isa::kAvx2) ? Isa::kAvx2 : Isa::kScalar;
}

Result<Isa> ParseIsa(std::string_view name) {
  if (name == "auto") return BestIsa();
  for (Isa isa : kIsas) {
    if (name != IsaName(isa)) continue;
    if (!IsaAvailable(isa)) return MakeError(Code::kUnsupported, "this machine has no {}", name);
    return isa;
  }
  return MakeError(Code::kUsage, "unknown instruction set '{}': one of auto, scalar, avx2, avx512", name);
}

}  // namespace pb
