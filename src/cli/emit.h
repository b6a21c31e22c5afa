// What a shell reads to find a reference: for programs beside paritybit, which needs none of it.
#ifndef PARITYBIT_CLI_EMIT_H_
#define PARITYBIT_CLI_EMIT_H_

#include <string>
#include <string_view>
#include <vector>

#include "setup/setup.h"

namespace pb::cli {

// sh fish pwsh cmd
const std::vector<std::string>& Shells();

// Lines that set BITNET_CPP_DIR, BITNET_CROSSVAL_LIBDIR and put the libraries in front of
// LD_LIBRARY_PATH (PATH for cmd), where they are not yet. Any path is one word of that shell.
std::string ExportsOf(std::string_view shell, const setup::Reference& reference);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_EMIT_H_
