// The noise floor point by point: how far a disturbed run has moved from the undisturbed one at
// every tracepoint. It describes how noise grows on its way through the layers; nothing is judged
// by it. Definitions: docs/numerics.md, "Noise at the points".
#ifndef PARITYBIT_COMPARE_POINT_NOISE_H_
#define PARITYBIT_COMPARE_POINT_NOISE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace pb::compare {

// kFirst is position 0, whose row is often far larger than all others; kPrefill are all rows of a
// prefill, that one among them; kDecode are the steps after it.
enum class PositionClass { kFirst, kPrefill, kDecode };
inline constexpr PositionClass kPositionClasses[] = {PositionClass::kFirst, PositionClass::kPrefill,
                                                     PositionClass::kDecode};
const char* PositionClassName(PositionClass c);  // "first" "prefill" "decode"

// PointNoise::prompt of tokens that belong to no prompt
inline constexpr int32_t kCalibration = -1;

// One disturbed run at one tracepoint, over rows of one class.
struct PointNoise {
  int32_t prompt = kCalibration, stage = 0, layer = -1;
  PositionClass positions = PositionClass::kPrefill;
  int64_t n_rows = 0;
  // sums over the rows: ||disturbed - undisturbed||^2, ||undisturbed||^2
  double error2 = 0, norm2 = 0;
  double worst_row = 0;  // largest ||disturbed - undisturbed|| / ||undisturbed|| of a row

  // Adds a row. -inf in both is equal (hidden scores); any other value that is not finite makes the
  // error infinite.
  void AddRow(std::span<const float> disturbed, std::span<const float> undisturbed);
  double rel_l2() const;  // over all rows
};

// The same over runs.
struct PointFloor {
  std::optional<int32_t> prompt;  // none: the calibration
  int32_t stage = 0, layer = -1;
  PositionClass positions = PositionClass::kPrefill;
  int64_t n_runs = 0, n_rows = 0;  // rows of one run
  double median = 0, largest = 0;  // of the runs' rel-L2
  double worst_row = 0;            // of any run
};

// By prompt, class, stage and layer, the calibration first; what one prompt has in several
// sequences is pooled. One span of noise a run; points that not every run has are left out.
std::vector<PointFloor> PointFloors(std::span<const std::span<const PointNoise>> runs);

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_POINT_NOISE_H_
