// The loops of pair_sums.h with AVX-512. Compiled with its own flags; entered only where the machine has
// them.
#if defined(__x86_64__)
#include "compare/pair_sums.h"

namespace pb::compare {
namespace {

#define PB_VECTOR_BYTES 64
#include "compare/pair_sums_body.h"

}  // namespace

extern const PairSumsTarget kPairSumsAvx512;
const PairSumsTarget kPairSumsAvx512{"avx512", AddFinite, MaskedRun};

}  // namespace pb::compare

#endif  // __x86_64__
