// Whether a prompt fits into a context, asked before anything is evaluated.
#ifndef PARITYBIT_DRIVE_CONTEXT_ROOM_H_
#define PARITYBIT_DRIVE_CONTEXT_ROOM_H_

#include <cstddef>
#include <string_view>

#include "base/result.h"
#include "drive/engine_record.h"

namespace pb::drive {

// kUsage: a prompt of so many tokens is longer than the context of the model that the engine has
// opened, or than the n_ctx that the user gives it. `origin` names the prompt.
Status CheckRoom(const EngineRecord& engine, size_t n_tokens, std::string_view origin);

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_CONTEXT_ROOM_H_
