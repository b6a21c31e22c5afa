// How long work tells how far it is.
#ifndef PARITYBIT_DRIVE_PROGRESS_H_
#define PARITYBIT_DRIVE_PROGRESS_H_

#include <cstdint>
#include <functional>
#include <string_view>

namespace pb::drive {

// Says how far the work is: what is being done, units done, units in all.
using Progress = std::function<void(std::string_view what, int64_t done, int64_t total)>;

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_PROGRESS_H_
