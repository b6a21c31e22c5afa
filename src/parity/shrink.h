// The smallest text of which something still holds.
#ifndef PARITYBIT_PARITY_SHRINK_H_
#define PARITYBIT_PARITY_SHRINK_H_

#include <functional>
#include <string>

#include "base/result.h"

namespace pb::parity {

struct Shrunk {
  std::string text;
  int n_tried = 0;
};

// Leaves out runs of characters, halving their length (delta debugging: Zeller, Hildebrandt 2002),
// until without any single one `holds` is false, or max_tries were made. A byte that is no UTF-8 is a
// character. `holds` is true of `text`; an error of it ends the search.
Result<Shrunk> ShrinkText(const std::string& text, int max_tries,
                          const std::function<Result<bool>(const std::string& text)>& holds);

}  // namespace pb::parity

#endif  // PARITYBIT_PARITY_SHRINK_H_
