// How many processors this process may use.
#ifndef PARITYBIT_BASE_PROCESSORS_H_
#define PARITYBIT_BASE_PROCESSORS_H_

#include <string>
#include <string_view>

namespace pb {

// The processors that the scheduler gives this process: those of its affinity mask, or fewer where
// its control group has a quota of processor time, as containers do. At least 1.
int ProcessorCount();

// What processor this is and what it can do, as the kernel tells it: code may choose its arithmetic
// by that. One line.
std::string ProcessorText();

// Processors that a control group's quota comes to, rounded up: "150000 100000" (microseconds of
// each period) is 2. 0: there is no quota ("max 100000"), or the text says something else.
int ProcessorsOfQuota(std::string_view cpu_max);

}  // namespace pb

#endif  // PARITYBIT_BASE_PROCESSORS_H_
