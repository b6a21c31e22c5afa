// The loops of pair_sums.h with AVX-512. Compiled with its own flags; entered only where the machine has
// them.
#if defined(__x86_64__)
#include <immintrin.h>

#include "compare/pair_sums.h"

namespace pb::compare {
namespace {

#define PB_VECTOR_BYTES 64
// All of them: the form without a mask begins with what g++ 12 calls uninitialised.
#define PB_DOUBLES(floats) (Doubles) _mm512_maskz_cvtps_pd(0xff, (__m256)(floats))
#include "compare/pair_sums_body.h"

}  // namespace

extern const PairSumsTarget kPairSumsAvx512;
const PairSumsTarget kPairSumsAvx512{"avx512", AddFinite, MaskedRun};

}  // namespace pb::compare

#endif  // __x86_64__
