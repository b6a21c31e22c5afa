// Compiles the llama.cpp adapter (plugins/llama_cpp) against the headers and libraries of one
// reference.
#ifndef PARITYBIT_SETUP_ADAPTER_BUILD_H_
#define PARITYBIT_SETUP_ADAPTER_BUILD_H_

#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.h"
#include "setup/build.h"
#include "setup/setup.h"

namespace pb::setup {

// share/paritybit beside the running executable's bin/: adapter sources, ABI headers, bundled
// models.
std::filesystem::path ShareDir();

// A digest of everything the adapter is made from but the compiler: its sources, the ABI's headers,
// the options, and the reference (BuildDigest).
Result<std::string> AdapterDigest(std::string_view reference_digest);

// Compiles against the build's headers and libraries into `out` (atomically). The adapter loads
// exactly these libraries, whatever LD_LIBRARY_PATH says. kNotFound: no C++ compiler; kIo: it
// failed (its message is in the error).
Status BuildAdapter(const Build& build, const std::filesystem::path& out, const SetupOptions& options);

}  // namespace pb::setup

#endif  // PARITYBIT_SETUP_ADAPTER_BUILD_H_
