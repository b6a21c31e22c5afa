// Whether two engines can be compared op by op.
#ifndef PARITYBIT_DRIVE_LOCAL_SCOPE_H_
#define PARITYBIT_DRIVE_LOCAL_SCOPE_H_

#include <string>

#include "drive/participant.h"

namespace pb::drive {

// Why two engines cannot be compared point by point; empty: they can. Both have an open session.
std::string WhyNoLocalScope(Participant& of_candidate, Participant& of_reference);

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_LOCAL_SCOPE_H_
