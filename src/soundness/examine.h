// Examines a model file without running it: what its bytes, its declarations, its values, its
// tokeniser and the checkpoint that it was made from say of it.
#ifndef PARITYBIT_SOUNDNESS_EXAMINE_H_
#define PARITYBIT_SOUNDNESS_EXAMINE_H_

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/model.h"
#include "soundness/finding.h"

namespace pb::soundness {

struct Request {
  std::filesystem::path model;
  ModelOptions options;                             // --hf-config and settings
  std::optional<std::filesystem::path> tokenizer;   // a tokeniser that the model's own should be
  std::optional<std::filesystem::path> checkpoint;  // a folder of safetensors files
  int n_threads = 1;
  // What is done now, of how much; may be empty.
  std::function<void(std::string_view what, int64_t done, int64_t total)> progress;
};

// One part of the examination: what it covered, in a few words.
struct Part {
  std::string name, text;
  bool done = false;  // false: it was not asked for, or could not be; the text says which
};

struct Examination {
  std::vector<Part> parts;
  Findings findings;
};

// kNotFound, kIo: a file that was named is not there or cannot be read. What is wrong with the
// model itself is never an error but a finding.
Result<Examination> Examine(const Request& request);

}  // namespace pb::soundness

#endif  // PARITYBIT_SOUNDNESS_EXAMINE_H_
