// Collects the figures of token rows by point.
#include "compare/token_grid.h"

#include <limits>

namespace pb::compare {

void TokenGrid::Add(const PointPlace& place, std::span<const double> rows) {
  constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
  if (place.first_position < 0 || rows.empty()) return;
  const auto begin = static_cast<size_t>(place.first_position);
  std::vector<float>& values = points_[{place.prompt, place.stage, place.layer}];
  if (begin + rows.size() > values.size()) {
    const auto more = static_cast<int64_t>(begin + rows.size() - values.size());
    if (n_values_ + more > kMostValues) {
      n_left_out_ += static_cast<int64_t>(rows.size());
      return;
    }
    n_values_ += more;
    values.resize(begin + rows.size(), kNone);
  }
  for (size_t i = 0; i < rows.size(); i++) values[begin + i] = static_cast<float>(rows[i]);
}

}  // namespace pb::compare
