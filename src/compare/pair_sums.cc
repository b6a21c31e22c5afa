// The form that every machine runs, and the choice of the widest that this one has.
#include "compare/pair_sums.h"

namespace pb::compare {

#if defined(__x86_64__)
extern const PairSumsTarget kPairSumsAvx2, kPairSumsAvx512;
#endif

namespace {

#define PB_VECTOR_BYTES 16
#include "compare/pair_sums_body.h"

constexpr PairSumsTarget kPlain{"plain", AddFinite, MaskedRun};

struct TargetList {
  const PairSumsTarget* targets[3];
  size_t n = 0;
  TargetList() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
      targets[n++] = &kPairSumsAvx512;
    if (__builtin_cpu_supports("avx2")) targets[n++] = &kPairSumsAvx2;
#endif
    targets[n++] = &kPlain;
  }
};

}  // namespace

std::span<const PairSumsTarget* const> PairSumsTargets() {
  static const TargetList list;
  return {list.targets, list.n};
}

}  // namespace pb::compare
