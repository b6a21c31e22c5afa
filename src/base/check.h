// PB_CHECK: states what must hold unless paritybit itself has a bug. Never reachable from input.
#ifndef PARITYBIT_BASE_CHECK_H_
#define PARITYBIT_BASE_CHECK_H_

namespace pb {
// Writes the condition and its place to stderr and exits with the code of a bug in paritybit (70).
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);
}  // namespace pb

#define PB_CHECK(condition) ((condition) ? void(0) : ::pb::CheckFailed(#condition, __FILE__, __LINE__))

#endif  // PARITYBIT_BASE_CHECK_H_
