// What it costs to hand a point to another process and wait for its answer: plugins/faulty, whose
// own arithmetic is next to nothing.
#include <benchmark/benchmark.h>

#include "base/file.h"
#include "host/engine.h"

namespace {

// One token: 15 points of at most 257 values.
void BM_Eval(benchmark::State& state) {
  const bool tapped = state.range(0) != 0;
  auto engine = pb::host::Engine::Start(pb::ExecutableDir() / "../lib/paritybit/faulty.so", {}, {});
  if (!engine.ok()) return state.SkipWithError(engine.error().message.c_str());
  if (!(*engine)->OpenModel("/proc/self/exe").ok() || !(*engine)->OpenSession({}).ok()) {
    return state.SkipWithError("the engine does not open");
  }
  pb::host::EvalRequest request;
  request.tokens = {65};
  request.logits_from = 1;
  request.tap.outputs = tapped;
  int64_t points = 0;
  for (auto _ : state) {
    auto on_event = [&](const pb::host::Event&) { return ++points, pb::Status(); };
    if (!(*engine)->Eval(request, on_event).ok() || !(*engine)->Reset(0).ok())
      return state.SkipWithError("eval failed");
  }
  state.SetItemsProcessed(points);
}
BENCHMARK(BM_Eval)->ArgName("tapped")->Arg(0)->Arg(1)->UseRealTime();

}  // namespace
