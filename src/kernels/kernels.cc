// Chooses the table of an instruction set.
#include "kernels/kernels.h"

#include "kernels/ref.h"
#include "kernels/targets.h"

namespace pb {
namespace {

const Kernels kScalarKernels = {Isa::kScalar,  RmsNormRef,      RopeRef,      SoftmaxRef,   SiluRef,
                                Relu2Ref,      ReluRef,         GeluRef,      ExpRowRef,    AddRef,
                                MultiplyRef,   RoundF16Ref,     ToF16Ref,     FromF16Ref,   QuantizeRef,
                                DotF32Ref,     DotF16Ref,       ScoresF32Ref, ScoresF16Ref, ContextF32Ref,
                                ContextF16Ref, PackedProductRef};

}  // namespace

const Kernels& GetKernels(Isa isa) {
  PB_CHECK(IsaAvailable(isa));
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return Avx512Kernels();
  if (isa == Isa::kAvx2) return Avx2Kernels();
#endif
  return kScalarKernels;
}

}  // namespace pb
