// Which keys of a model file's metadata are heard: one table of those that are read, those that
// decide nothing and those of which one value alone is offered. The reader looks keys up through
// it, so that table and code cannot part.
#ifndef PARITYBIT_MODEL_KEYS_H_
#define PARITYBIT_MODEL_KEYS_H_

#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"

namespace pb {

enum class KeyRole {
  kUsed,     // read, and heard
  kNothing,  // decides nothing that is computed
  kRefused,  // decides something that is not offered, but for its neutral value
  kOption,   // used where the architecture has this option, else as kRefused
};

// What some architectures compute and others do not.
enum Option : unsigned {
  kNoOption = 0,
  kWindows = 1,  // layers whose attention sees a window alone
  kScoreCap = 2,
  kLogitCap = 4,
  kScales = 8,  // of embeddings, residual sums, scores and logits
  kMayHaveExperts = 16,
  kMayBeParallel = 32,  // attention and the network read one norm, where a layer has no second one
};

struct KeyRow {
  std::string_view key;  // without the architecture's prefix; a * at the end stands for any rest
  KeyRole role;
  std::string_view decides;  // what; why it decides nothing
  double neutral = 0;        // of kRefused and kOption: the value that changes nothing
  Option option = kNoOption;
};

// Keys below the architecture's name ("llama.rope.freq_base"), and the others ("general.name"), by
// their whole name.
std::span<const KeyRow> ArchitectureKeys();
std::span<const KeyRow> OtherKeys();
// nullptr: no row has it, so what it decides is unknown.
const KeyRow* FindKey(std::span<const KeyRow> rows, std::string_view key);

// Reads keys of one architecture. What is asked for must stand in the table as used, and is
// remembered.
class Keys {
 public:
  Keys(const GgufFile& file, std::string_view architecture)
      : file_(file), prefix_(std::string(architecture) + ".") {}

  const GgufFile& file() const { return file_; }
  const std::string& prefix() const { return prefix_; }
  std::string Full(std::string_view key) const;
  bool Has(std::string_view key) const { return file_.Find(Full(key)) != nullptr; }
  // A number from 1 to 2^24; an array (one number a layer) serves where all are equal.
  Result<int64_t> Count(std::string_view key) const;
  Result<int64_t> CountOr(std::string_view key, int64_t otherwise) const;
  // One truth a layer, from an array of truths or numbers; a single number n stands for itself.
  Result<std::vector<bool>> Flags(std::string_view key) const;
  // A finite number of at least `least`.
  Result<double> Real(std::string_view key, double least) const;
  Result<std::string> String(std::string_view key) const { return file_.String(Full(key)); }
  // What was asked for, in alphabetical order.
  const std::set<std::string, std::less<>>& asked() const { return asked_; }

 private:
  Result<uint64_t> Number(const std::string& full, const GgufValue& value) const;

  const GgufFile& file_;
  std::string prefix_;
  mutable std::set<std::string, std::less<>> asked_;
};

// A metadata value for people: "10000", "true", "relu2", "an array of 2".
std::string ValueText(const GgufValue& value);

}  // namespace pb

#endif  // PARITYBIT_MODEL_KEYS_H_
