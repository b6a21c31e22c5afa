// Loads an engine plugin into this process and adapts its table to the ABI this program was built
// with.
#ifndef PARITYBIT_HOST_PLUGIN_H_
#define PARITYBIT_HOST_PLUGIN_H_

#include <string>

#include "abi/engine.h"
#include "base/result.h"

namespace pb::host {

// Loads the library for good and returns a copy of its table. Another major version, a struct_size
// that cannot be, or a missing function that every engine must have is an error. What an older
// table lacks (replay) is null here.
Result<pb_engine_api> LoadPlugin(const std::string& path);
// The checks of LoadPlugin on a table already found.
Result<pb_engine_api> AdaptTable(const pb_engine_api* table);

// Turns what a call of the plugin returned into a Status, and destroys it.
Status TakeError(const pb_engine_api& api, pb_error* error);

}  // namespace pb::host

#endif  // PARITYBIT_HOST_PLUGIN_H_
