// Which members of an axis are wrong, told as one region of it.
#ifndef PARITYBIT_DIAGNOSE_REGION_H_
#define PARITYBIT_DIAGNOSE_REGION_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "diagnose/conclusion.h"

namespace pb::diagnose {

// What is known of a member. kOpen: it would look the same either way.
enum class Mark : uint8_t { kRight, kWrong, kOpen };

// What an axis is, and what it falls into.
struct AxisLayout {
  Axis axis = Axis::kFeatures;
  int64_t block = 0;                 // members of a block; 0: there are none
  Axis block_axis = Axis::kUnknown;  // what whole blocks are called; unknown: nothing of their own
  Axis code_axis = Axis::kUnknown;   // what a place in each block is called
};

// The region that holds all wrong members and no right one: all, a range, blocks, every nth, or the
// same places of each block; open members count as either. Nothing: there is no such region, or
// nothing is wrong.
std::optional<Region> FindRegion(std::span<const Mark> marks, const AxisLayout& layout);

// Whether a place is in a region of its axis.
bool Holds(const Region& part, int64_t at);

// "the last 3 of 256 columns of K", "features 296 to 299", "code 7 of each block of 32".
std::string RegionWords(const Region& part);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_REGION_H_
