// What somebody meant who made a slip of the fingers.
#ifndef PARITYBIT_BASE_SUGGEST_H_
#define PARITYBIT_BASE_SUGGEST_H_

#include <string>
#include <string_view>
#include <vector>

namespace pb {

// ", did you mean NAME?" of the nearest of these names; empty where none is near.
std::string DidYouMean(std::string_view typed, const std::vector<std::string>& known);

}  // namespace pb

#endif  // PARITYBIT_BASE_SUGGEST_H_
