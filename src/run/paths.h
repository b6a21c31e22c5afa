// Code paths: ways of computing that engines have code of their own for, and which of them a
// comparison went through. An agreement says nothing of the others.
#ifndef PARITYBIT_RUN_PATHS_H_
#define PARITYBIT_RUN_PATHS_H_

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace pb::run {

struct Comparison;

// In the order in which they are told. A path is of both engines.
enum class Path {
  kDecode,        // one token at a time, after a prompt
  kFewRows,       // 2 or 3 tokens at once
  kManyRows,      // 32 or more
  kOddRows,       // more than 4, and no multiple of 4
  kThreads,       // two threads or more
  kPast32,        // positions from 32 on
  kPast512,       // positions from 512 on
  kFlash,         // flash attention, which engines use by default
  kDigits,        // of the tokenisers: text with numbers of several digits
  kContractions,  // I'm, don't
  kBlankLines,
  kCode,            // brackets, operators and indented lines
  kScripts,         // other scripts than Latin
  kSecondSequence,  // another sequence beside the first; the plugin interface has one
};
inline constexpr int kPathCount = static_cast<int>(Path::kSecondSequence) + 1;

// "two threads"
std::string_view PathText(Path path);

// One comparison of those that `--paths all` makes.
struct PathRun {
  std::string name;     // "two threads"
  std::string outcome;  // "match"; empty: it was not run
  std::string text;     // its verdict in a sentence, or why it was not run
  double wall_seconds = 0;
};

// The paths that a comparison's evaluations went through in both engines, of positions that were
// compared.
std::set<Path> PathsTaken(const Comparison& comparison);
// Those that neither it nor the runs beside it (Comparison::paths_beside) went through.
std::vector<Path> PathsNotTaken(const Comparison& comparison);
// Those that the candidate, judged alone, did not go through.
std::vector<Path> PathsNotTakenAlone(const Comparison& comparison);

// The paths of the tokenisers that a text goes through.
std::set<Path> PathsOfText(std::string_view text);
// A text that goes through all of those.
std::string_view TextOfAllPaths();

}  // namespace pb::run

#endif  // PARITYBIT_RUN_PATHS_H_
