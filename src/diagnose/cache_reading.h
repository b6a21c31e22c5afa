// What a cell of the cache may hold in place of its own key or value, and the cache with such cells.
#ifndef PARITYBIT_DIAGNOSE_CACHE_READING_H_
#define PARITYBIT_DIAGNOSE_CACHE_READING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "diagnose/hypotheses.h"
#include "diagnose/region.h"

namespace pb::diagnose {

enum class Other { kNothing, kBefore, kNext, kHead, kUnrotated, kCut };

// The cells of a part hold, or its heads read, something else.
struct Reading {
  Other what = Other::kNothing;
  int64_t by = 0;         // kHead: the KV head so many further on
  bool computed = false;  // kUnrotated: of this pass as the product gave them, and not rotated back
  Region part = {};       // positions, query heads, or all
  Region columns = {};    // kNothing: of each head, where it is some of them; else unknown
};

// Keys or values of all positions as the reading has them, in these cells alone where its part is of
// positions. kNotFound: keys before their rotation were not recorded.
Result<std::vector<float>> Spoiled(FileArbiter& arbiter, const Culprit& culprit, const Recorded& cache,
                                   const Reading& reading);

// "kv.before@positions:3", stable; "reads the keys of the position before in position 3". `noun`: what is
// read; `part`: as it is to be told.
std::string ReadingName(const Reading& reading);
std::string ReadingWords(const Reading& reading, const std::string& noun, const Region& part);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_CACHE_READING_H_
