// Reports a bug of our own with its place, and ends the program with exit code 70.
#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace pb {

void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "paritybit: internal error: %s does not hold at %s:%d; please report it\n", condition,
               file, line);
  std::_Exit(70);
}

}  // namespace pb
