// Which instruction set the kernels run on: what this machine has, and a name for forcing one.
#ifndef PARITYBIT_KERNELS_ISA_H_
#define PARITYBIT_KERNELS_ISA_H_

#include <string_view>

#include "base/result.h"

namespace pb {

// kAvx2 means AVX2 with FMA and F16C; kAvx512 means F, BW, DQ, VL and VNNI.
enum class Isa { kScalar, kAvx2, kAvx512 };
inline constexpr Isa kIsas[] = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512};

const char* IsaName(Isa isa);  // "scalar" "avx2" "avx512"
bool IsaAvailable(Isa isa);    // on this machine
Isa BestIsa();

// "auto" is the best one here. A name that is unknown, or an instruction set that this machine
// lacks, is an error.
Result<Isa> ParseIsa(std::string_view name);

}  // namespace pb

#endif  // PARITYBIT_KERNELS_ISA_H_
