// Opens the shared object, checks its version and table, and fills in what an older one lacks.
#include "host/plugin.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "host/wire.h"

namespace pb::host {
namespace {

constexpr size_t kHeadBytes =
    offsetof(pb_engine_api, capabilities);  // size and versions: there in every version of the ABI
constexpr size_t kMaxTableBytes = 1 << 16;

Code FromPlugin(int32_t code) {
  switch (code) {
    case PB_INVALID_ARGUMENT:
      return Code::kUsage;
    case PB_UNSUPPORTED:
      return Code::kUnsupported;
    case PB_MALFORMED:
      return Code::kMalformed;
    case PB_UNDECLARED:
      return Code::kUndeclared;
    case PB_IO:
      return Code::kIo;
    default:
      return Code::kEngine;
  }
}

}  // namespace

Result<pb_engine_api> LoadPlugin(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return MakeError(Code::kEngine, "cannot be loaded: {}", dlerror());
  auto get = reinterpret_cast<decltype(&pb_engine_get)>(dlsym(library, "pb_engine_get"));
  if (!get) return MakeError(Code::kEngine, "exports no pb_engine_get: not an engine plugin");
  return AdaptTable(get());
}

Result<pb_engine_api> AdaptTable(const pb_engine_api* table) {
  if (!table) return MakeError(Code::kEngine, "pb_engine_get returned NULL");
  if (table->struct_size < kHeadBytes || table->struct_size > kMaxTableBytes) {
    return MakeError(Code::kEngine, "its table claims a struct_size of {} bytes", table->struct_size);
  }
  if (table->abi_major != PB_ABI_MAJOR) {
    return MakeError(Code::kEngine,
                     "speaks ABI {}.{}, this program {}.{}: rebuild the plugin with this program's headers",
                     table->abi_major, table->abi_minor, PB_ABI_MAJOR, PB_ABI_MINOR);
  }
  pb_engine_api api{};
  std::memcpy(&api, table, std::min(table->struct_size, sizeof api));
  const std::pair<const char*, bool> required[] = {{"error_code", api.error_code},
                                                   {"error_message", api.error_message},
                                                   {"error_destroy", api.error_destroy},
                                                   {"create", api.create},
                                                   {"destroy", api.destroy},
                                                   {"describe", api.describe},
                                                   {"model_open", api.model_open},
                                                   {"model_close", api.model_close},
                                                   {"model_facts", api.model_facts},
                                                   {"session_open", api.session_open},
                                                   {"session_close", api.session_close},
                                                   {"session_facts", api.session_facts},
                                                   {"session_stages", api.session_stages},
                                                   {"eval", api.eval},
                                                   {"reset", api.reset}};
  for (const auto& [name, present] : required) {
    if (!present) {
      return MakeError(Code::kEngine,
                       "its table (ABI {}.{}, {} bytes) has no {}, which every engine must offer",
                       table->abi_major, table->abi_minor, table->struct_size, name);
    }
  }
  if (!api.tokenize || !api.detokenize) api.capabilities &= ~PB_CAP_TOKENIZE;
  if (!api.replay) api.capabilities &= ~(PB_CAP_REPLAY | PB_CAP_VARY);
  if (!api.decode) api.capabilities &= ~PB_CAP_DECODE;
  return api;
}

Status TakeError(const pb_engine_api& api, pb_error* error) {
  if (!error) return {};
  int32_t code = api.error_code(error);
  const char* message = api.error_message(error);
  std::string text = message && *message ? Printable(message) : "an error without a message";
  api.error_destroy(error);
  if (code == PB_OUT_OF_MEMORY) text = "out of memory: " + text;
  return Error{FromPlugin(code), text};
}

}  // namespace pb::host
