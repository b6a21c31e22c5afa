// Holds the tensors of one run against those of further runs that should be equal to it.
#include "run/repeatability.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>
#include <vector>

#include "compare/verdict.h"
#include "drive/passes.h"

namespace pb::run {
namespace {

constexpr size_t kMostBytes = size_t{256} << 20;  // of the first run that are held

struct Held {
  int32_t stage, layer, position;
  std::vector<float> values;
};

// All points of a run and its logits, in the engine's order, until `on_tensor` has enough.
using OnTensor = std::function<void(int32_t stage, int32_t layer, int32_t position, int64_t n_rows,
                                    std::span<const float> values)>;
Status RunWatched(drive::Participant& engine, const host::Settings& session, std::span<const int32_t> tokens,
                  int32_t n_prefill, const OnTensor& on_tensor) {
  PB_TRY(engine.OpenSession(session));
  PB_ASSIGN(const std::vector<host::StageVisibility> stages, engine.Stages());
  host::EvalRequest request;
  for (int32_t s = 0; s < PB_STAGE_COUNT; s++)
    if (stages[static_cast<size_t>(s)].visibility == PB_OBSERVED) request.tap.stages.push_back(s);
  request.tap.outputs = !request.tap.stages.empty();
  const auto prefill = tokens.first(static_cast<size_t>(n_prefill));
  const std::vector<int32_t> steps(tokens.begin() + n_prefill, tokens.end());
  return drive::ForEachPass(prefill, drive::PassRows({&engine.record()}), drive::StepsOf(steps),
                            [&](const drive::Pass& pass) -> Status {
                              request.tokens.assign(pass.tokens.begin(), pass.tokens.end());
                              request.first_position = pass.position;
                              return engine.Evaluate(request, [&](const host::Event& event) -> Status {
                                const bool logits = event.kind == host::Event::kLogits;
                                if (!logits && event.kind != host::Event::kPoint) return {};
                                const auto& shape = event.tensor.shape;
                                on_tensor(logits ? PB_STAGE_LOGITS : event.point.stage,
                                          logits ? -1 : event.point.layer, event.point.first_position,
                                          shape.empty() ? 1 : shape[0], event.tensor.data);
                                return {};
                              });
                            });
}

void Measure(const Held& before, std::span<const float> now, int64_t n_rows, Unrepeatable* out) {
  out->stage = before.stage, out->layer = before.layer, out->position = -1;
  out->n_values = static_cast<int64_t>(now.size());
  const size_t width = now.size() / static_cast<size_t>(std::max<int64_t>(n_rows, 1));
  double squares = 0;
  for (size_t i = 0; i < now.size(); i++) {
    const double a = before.values[i], b = now[i];
    if (std::isfinite(a)) squares += a * a;
    if (std::memcmp(&before.values[i], &now[i], sizeof(float)) == 0) continue;
    if (out->n_differ++ == 0)
      out->position = before.position + static_cast<int32_t>(i / std::max<size_t>(width, 1));
    out->largest = std::max(out->largest, std::fabs(a - b));
  }
  const double rms = std::sqrt(squares / static_cast<double>(std::max<size_t>(now.size(), 1)));
  if (rms > 0) out->largest /= rms;
}

}  // namespace

std::string Unrepeatable::Text() const {
  return fmt::format(
      "first at {}, position {}: {} of its {} values differ, by up to {:.1e} of their RMS; {} of {} tensors "
      "are others",
      compare::PointName(stage, layer), position, n_differ, n_values, largest, n_different, n_tensors);
}

Result<std::optional<Unrepeatable>> FindUnrepeatable(drive::Participant& engine,
                                                     const host::Settings& session,
                                                     std::span<const int32_t> tokens, int32_t n_prefill,
                                                     int n_runs) {
  std::optional<Unrepeatable> none;
  if (!(engine.engine().capabilities() & PB_CAP_OUTPUTS) || tokens.empty()) return none;
  std::vector<Held> first;
  size_t n_bytes = 0;
  PB_TRY(RunWatched(engine, session, tokens, n_prefill,
                    [&](int32_t stage, int32_t layer, int32_t position, int64_t, std::span<const float> v) {
                      n_bytes += v.size_bytes();
                      if (n_bytes <= kMostBytes)
                        first.push_back({stage, layer, position, {v.begin(), v.end()}});
                    }));
  for (int run = 1; run < n_runs; run++) {
    Unrepeatable found;
    size_t at = 0;
    PB_TRY(RunWatched(
        engine, session, tokens, n_prefill,
        [&](int32_t stage, int32_t layer, int32_t position, int64_t n_rows, std::span<const float> v) {
          if (at >= first.size()) return;
          const Held& before = first[at++];
          found.n_tensors++;
          const bool same_place =
              std::tie(before.stage, before.layer, before.position) == std::tie(stage, layer, position);
          if (!same_place || before.values.size() != v.size()) return;
          if (std::memcmp(before.values.data(), v.data(), v.size_bytes()) == 0) return;
          if (found.n_different++ == 0) Measure(before, v, n_rows, &found);
        }));
    if (found.n_different > 0) return std::optional(found);
  }
  return none;
}

}  // namespace pb::run
