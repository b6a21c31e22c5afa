// Draws defects by a seed.
#include "plugins/mutant/draw.h"

#include <algorithm>
#include <iterator>

#include "base/random.h"

namespace pb::mutant {
namespace {

class Drawer {
 public:
  Drawer(const Model& model, uint64_t seed) : model_(model), random_(seed) {
    for (const FaultKind& kind : FaultKinds())
      if (!kind.drawn)
        continue;
      else if (rows_.empty() || rows_.back().front()->kind != std::string_view(kind.kind))
        rows_.push_back({&kind});
      else
        rows_.back().push_back(&kind);
  }

  Drawn Next() {
    for (;;) {
      // Each kind as often as any other, whatever there is of it.
      const auto& row = rows_[Below(rows_.size())];
      Fault fault{row[Below(row.size())], {}, 0};
      std::vector<pb_stage> stages;
      for (pb_stage s : fault.kind->at)
        if (model_.params().ops.Contains(s)) stages.push_back(s);
      if (stages.empty()) continue;
      Op op;
      op.model = &model_, op.stage = stages[Below(stages.size())];
      const auto n_layers = static_cast<uint64_t>(model_.params().n_layers);
      op.layer = stages::Of(op.stage).per_layer ? static_cast<int32_t>(Below(n_layers)) : -1;
      fault.amount = Amount(fault, op);
      // Parts are drawn where the op has what they are of.
      if (!WithoutPart(fault, op)) continue;
      const bool has_part = fault.kind->needs_part || (fault.kind->axis != FaultAxis::kNone && Below(2) == 0);
      if (has_part) fault.part = Part(fault, op, AxisLength(fault, op));
      if (!Obstacle(fault, op).empty()) continue;
      const std::string when = When(fault);
      return {fault, op.stage, op.layer, when, TruthOf(fault, op, when)};
    }
  }

 private:
  uint64_t Below(uint64_t n) { return random_.Below(n); }
  template <typename T, size_t n>
  T Of(const T (&values)[n]) {
    return values[Below(n)];
  }

  static bool WithoutPart(const Fault& fault, const Op& op) {
    return Obstacle({fault.kind, {}, fault.amount}, op).empty();
  }

  double Amount(const Fault& fault, const Op& op) {
    switch (fault.kind->id) {
      case FaultId::kCodesOff:
        return Of({1.0, -1.0});
      case FaultId::kCodesClamped:
        return Of({63.0, 100.0, 111.0, 120.0, 126.0});
      case FaultId::kLevels:
        return Of({128.0, 126.0, 64.0});
      case FaultId::kLanesLost:
        return Of({4.0, 8.0, 16.0, 32.0});
      case FaultId::kRowsShifted:
        return Of({1.0, -1.0, 4.0, 8.0});
      case FaultId::kOtherPart:
        return Of({1.0, -1.0, 4.0, 32.0});
      case FaultId::kWeightBlock: {
        const Weights w = MatrixOf(*op.model, op.stage, op.layer);
        return w.view ? static_cast<double>(Below(static_cast<uint64_t>(w.n_out()))) : 0;
      }
      case FaultId::kOffset:
        return Of({0.05, -0.25, 0.5, 1.0});
      case FaultId::kSaturated:
        return Of({0.25, 0.5, 1.0, 2.0});
      case FaultId::kMaskShifted:
        return Of({1.0, 2.0, 3.0});
      case FaultId::kWindow:
        return Of({2.0, 3.0, 4.0, 5.0});
      default:
        return Of({0.5, 0.9, 1.01, 1.05, 1.25, 2.0, -1.0});
    }
  }

  FaultPart One(int64_t n) {
    const auto at = static_cast<int64_t>(Below(static_cast<uint64_t>(n)));
    return {at, at, 1};
  }
  FaultPart Tail(int64_t n, int64_t most) {
    const auto length = 1 + static_cast<int64_t>(Below(static_cast<uint64_t>(std::min(n / 2, most))));
    return {n - length, n - 1, 1};
  }
  // A run of so many, where kernels take that many at a time.
  FaultPart Aligned(int64_t n, int64_t width) {
    if (n < 2 * width) return One(n);
    const int64_t at = (1 + static_cast<int64_t>(Below(static_cast<uint64_t>(n / width - 1)))) * width;
    return {at, at + width - 1, 1};
  }
  FaultPart Every(int64_t n) {
    const int64_t every = Of({2, 3, 4, 5, 7, 8, 16, 32});
    if (n <= every) return One(n);
    const auto first = static_cast<int64_t>(Below(static_cast<uint64_t>(every)));
    return {first, first + (n - 1 - first) / every * every, every};
  }

  FaultPart Part(const Fault& fault, const Op& op, int64_t n) {
    constexpr int64_t kLate = 5;  // positions that a short prompt has
    if (fault.kind->axis == FaultAxis::kPositions) return One(kLate);
    if (n < 2) return {0, 0, 1};
    if (fault.kind->id >= FaultId::kShareAbsent) return {n - n / 2, n - 1, 1};
    if (fault.kind->id == FaultId::kAmaxOfPart || fault.kind->id == FaultId::kSumsWithout) {
      // The first or the last half or quarter, or all but a tail.
      const int64_t part = n / Of({2, 4});
      return Below(2) == 0 ? FaultPart{0, n - part - 1, 1} : FaultPart{part, n - 1, 1};
    }
    switch (fault.kind->axis) {
      case FaultAxis::kColumns:
        switch (fault.kind->id == FaultId::kColumnsRepeated ? Below(2) : Below(4)) {
          case 0:
            return Tail(n, 80);
          case 1:
            return Aligned(n, Of({int64_t{8}, int64_t{16}, int64_t{32}, int64_t{64}}));
          case 2:
            return Every(n);
          default:
            return One(n);
        }
      case FaultAxis::kFeatures:
        switch (Below(4)) {
          case 0:
            return Tail(n, 16);
          case 1:
            return Aligned(n, Of({int64_t{4}, int64_t{8}, op.params().head_dim}));
          case 2:
            return fault.kind->id == FaultId::kFeaturesAbsent ? Every(n) : Tail(n, 4);
          default:
            return One(n);
        }
      case FaultAxis::kCode:
        return Below(2) == 0 ? One(n) : Aligned(n, 4);
      default:
        return One(n);
    }
  }

  std::string When(const Fault& fault) {
    if (fault.kind->id >= FaultId::kShareAbsent) return "two_threads";
    const auto number = [this](const char* name, std::initializer_list<int> of) {
      return std::string(name) + ":" + std::to_string(*(of.begin() + Below(of.size())));
    };
    const uint64_t at = Below(100);
    if (at < 46) return "always";
    if (at < 53) return "prefill";
    if (at < 62) return "decode";
    if (at < 72) return number("from_batch", {4, 8, 12, 32});
    if (at < 76) return "up_to_batch:3";
    if (at < 82) return number("odd_batch", {2, 4, 8});
    if (at < 90) return number("from_position", {3, 5, 8, 20, 33, 64, 130});
    if (at < 96) return "two_threads";
    return "not_repeatable";
  }

  const Model& model_;
  Random random_;
  std::vector<std::vector<const FaultKind*>> rows_;  // of one kind each
};

}  // namespace

std::vector<Drawn> Draw(const Model& model, uint64_t seed, int64_t n) {
  Drawer drawer(model, seed);
  std::vector<Drawn> drawn;
  while (static_cast<int64_t>(drawn.size()) < n) drawn.push_back(drawer.Next());
  return drawn;
}

}  // namespace pb::mutant
