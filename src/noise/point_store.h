// The tensors of an undisturbed run, to measure disturbed runs against as they come: their tensors
// are compared and forgotten.
#ifndef PARITYBIT_NOISE_POINT_STORE_H_
#define PARITYBIT_NOISE_POINT_STORE_H_

#include <cstdint>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "compare/point_noise.h"
#include "drive/participant.h"

namespace pb::noise {

inline constexpr int64_t kPointStoreBytes = 256 << 20;  // what the kept tensors may take

class PointStore {
 public:
  // For a sequence of n_positions, of them n_prefill at once, in the open session of `engine`.
  // Where not all rows fit max_bytes, decode steps have up to half of it; the first rows of each
  // kind are kept. `wanted` of the stages that the engine shows, the logits excepted; empty: all.
  static Result<PointStore> Create(drive::Participant& engine, std::span<const int32_t> wanted,
                                   int64_t n_prefill, int64_t n_positions,
                                   int64_t max_bytes = kPointStoreBytes);

  // The stages that are kept.
  const host::TapFilter& tap() const { return tap_; }
  // Keeps the rows of an event of the undisturbed run.
  Status Keep(const host::Event& event);
  // Measures an event of a disturbed run; may be called from several threads. kEngine: it shows
  // other points or shapes than the undisturbed run.
  Status Measure(const host::Event& event, std::vector<compare::PointNoise>* noise) const;

  bool Keeps(int64_t position) const {
    return position < n_prefill_ ? position < n_prefill_kept_ : position - n_prefill_ < n_decode_kept_;
  }

 private:
  using Key = std::tuple<int32_t, int32_t, int32_t>;  // stage, layer, first position
  struct Rows {
    int64_t n_rows = 0, width = 0;
    std::vector<float> values;  // (kept rows, width)
  };
  static Key KeyOf(const host::PointRef& point) { return {point.stage, point.layer, point.first_position}; }

  host::TapFilter tap_;
  int64_t n_prefill_ = 0, n_prefill_kept_ = 0, n_decode_kept_ = 0;
  std::map<Key, Rows> points_;
};

}  // namespace pb::noise

#endif  // PARITYBIT_NOISE_POINT_STORE_H_
