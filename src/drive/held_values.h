// Values of an event that are read when it is over.
#ifndef PARITYBIT_DRIVE_HELD_VALUES_H_
#define PARITYBIT_DRIVE_HELD_VALUES_H_

#include <memory>
#include <span>
#include <vector>

namespace pb::drive {

// A copy, unless they last (host::TensorRef).
class HeldValues {
 public:
  void Hold(std::span<const float> values, const std::shared_ptr<const void>& lasting) {
    lasting_ = lasting;
    in_place_ = lasting ? values : std::span<const float>();
    copy_.clear();
    if (!lasting) copy_.assign(values.begin(), values.end());
  }
  std::span<const float> values() const { return lasting_ ? in_place_ : std::span<const float>(copy_); }

 private:
  std::vector<float> copy_;
  std::span<const float> in_place_;
  std::shared_ptr<const void> lasting_;
};

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_HELD_VALUES_H_
