// The tables of the instruction sets beyond the scalar one; private to this room.
#ifndef PARITYBIT_KERNELS_TARGETS_H_
#define PARITYBIT_KERNELS_TARGETS_H_

#include "kernels/kernels.h"

namespace pb {

const Kernels& Avx2Kernels();
const Kernels& Avx512Kernels();

}  // namespace pb

#endif  // PARITYBIT_KERNELS_TARGETS_H_
