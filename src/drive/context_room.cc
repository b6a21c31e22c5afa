// Holds a prompt's length against the model's context, which n_ctx may widen or narrow.
#include "drive/context_room.h"

#include <cstdlib>

#include "drive/engine_spec.h"

namespace pb::drive {

Status CheckRoom(const EngineRecord& engine, size_t n_tokens, std::string_view origin) {
  const auto n = static_cast<int64_t>(n_tokens);
  if (const std::string* set = FindSetting(engine.settings, "n_ctx")) {
    const int64_t room = std::strtoll(set->c_str(), nullptr, 10);
    if (room <= 0 || n <= room) return {};
    return MakeError(Code::kUsage, "the prompt ({}) has {} tokens, and n_ctx={} leaves room for {}", origin,
                     n, *set, room);
  }
  const int64_t trained = engine.model_facts().n_ctx_train;
  if (trained <= 0 || n <= trained) return {};
  return MakeError(Code::kUsage,
                   "the prompt ({}) has {} tokens, and the model's context has {}: shorten it, or set "
                   "n_ctx={} in each engine to run it beyond what the model was made for",
                   origin, n, trained, n);
}

}  // namespace pb::drive
