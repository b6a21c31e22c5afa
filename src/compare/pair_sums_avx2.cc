// The loops of pair_sums.h with AVX2. Compiled with its own flags; entered only where the machine has
// them.
#if defined(__x86_64__)
#include "compare/pair_sums.h"

namespace pb::compare {
namespace {

#define PB_VECTOR_BYTES 32
#include "compare/pair_sums_body.h"

}  // namespace

extern const PairSumsTarget kPairSumsAvx2;
const PairSumsTarget kPairSumsAvx2{"avx2", AddFinite, MaskedRun};

}  // namespace pb::compare

#endif  // __x86_64__
