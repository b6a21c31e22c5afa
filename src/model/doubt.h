// What is in doubt about a model's declarations, as data.
#ifndef PARITYBIT_MODEL_DOUBT_H_
#define PARITYBIT_MODEL_DOUBT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace pb {

// Something declared that is not plainly heard.
struct Doubt {
  enum class Kind {
    kContradiction,  // two files say different things
    kUnheard,        // a key that nothing here knows, or that decides what is not offered
    kNote,           // decides nothing of what is computed, or the user decided it
  };
  Kind kind = Kind::kNote;
  std::string key;   // as its file spells it
  std::string text;  // a sentence with the files and the values
  std::vector<std::string> choices =
      {};                      // settings of which each decides a contradiction: "rope.base=500000"
  int64_t beyond = 0;          // it matters only in sequences of more positions
  std::string flag = "--set";  // what takes those settings
};

}  // namespace pb

#endif  // PARITYBIT_MODEL_DOUBT_H_
