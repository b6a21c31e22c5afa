// Which points of a trace are wanted: patterns for stage, layer, step and position.
#ifndef PARITYBIT_TRACE_FILTER_H_
#define PARITYBIT_TRACE_FILTER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pb::trace {

// A point row is wanted when one of the rules takes it; without rules every one is. A rule is
// written
//   stage=q_*|k_*,layer=0-3,step=0,position=5-
// Each field has alternatives (|): globs for stages, and for numbers globs, N, N-M or N-. Layer -1
// stands outside the layers. A field that is left out takes all. Step 0 is the prefill.
class PointFilter {
 public:
  // Adds a rule. kUsage names the part that is not understood.
  Status Add(std::string_view rule);

  bool empty() const { return rules_.empty(); }
  bool Wants(std::string_view stage, int32_t layer, int32_t step, int32_t position) const;
  // Whether any row of such a stage or layer, or any point of the step, can be wanted.
  bool MayWantStage(std::string_view stage, int32_t step) const;
  bool MayWantLayer(int32_t layer, int32_t step) const;
  // The rules as written, "; " between them.
  const std::string& text() const { return text_; }

 private:
  using Patterns = std::vector<std::string>;  // alternatives; none: all
  struct Rule {
    Patterns stage, layer, step, position;
  };
  std::vector<Rule> rules_;
  std::string text_;
};

}  // namespace pb::trace

#endif  // PARITYBIT_TRACE_FILTER_H_
