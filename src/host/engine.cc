// Finds paritybit-host and starts an engine in it; looks facts up by key.
#include "host/engine.h"

#include <algorithm>
#include <cstdlib>
#include <system_error>

#include "base/file.h"
#include "host/remote_engine.h"

namespace pb::host {
namespace {

Result<std::filesystem::path> FindHost() {
  const char* variable = std::getenv("PARITYBIT_HOST");
  std::filesystem::path path = variable && *variable
                                   ? variable
                                   : ExecutableDir().parent_path() / "lib" / "paritybit" / "paritybit-host";
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path, ignored)) return path;
  return MakeError(
      Code::kNotFound,
      "{}: not there; engines run in it. It belongs into the installation, or where $PARITYBIT_HOST says",
      path.string());
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Start(const std::filesystem::path& plugin, const Settings& settings,
                                              const Limits& limits) {
  PB_ASSIGN(std::filesystem::path host, FindHost());
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(plugin, ignored)) {
    return MakeError(Code::kNotFound, "{}: no such engine plugin", plugin.string());
  }
  PB_ASSIGN(SharedMemory memory, SharedMemory::Create());
  PB_ASSIGN(auto child, ChildProcess::Start(host, std::filesystem::absolute(plugin), limits, memory));
  auto engine =
      std::make_unique<RemoteEngine>(plugin.stem().string(), limits, std::move(memory), std::move(child));
  PB_TRY(engine->Create(settings));
  return std::unique_ptr<Engine>(std::move(engine));
}

Status Engine::Eval(const EvalRequest& request, const std::function<Status(const Event&)>& on_event) {
  PB_TRY(BeginEval(request));
  return Finish(on_event);
}

Status Engine::Finish(const std::function<Status(const Event&)>& on_event) {
  for (;;) {
    PB_ASSIGN(Event event, Wait());
    if (event.kind == Event::kDone) return {};
    if (Status status = on_event(event); !status.ok()) {
      static_cast<void>(Stop());  // an engine that broke says so at the next call
      return status;
    }
    PB_TRY(Continue());
  }
}

}  // namespace pb::host
