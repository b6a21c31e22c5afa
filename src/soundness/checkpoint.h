// A Hugging Face checkpoint on disk: safetensors files by tensor, and rows of what a conversion has
// to make of them.
#ifndef PARITYBIT_SOUNDNESS_CHECKPOINT_H_
#define PARITYBIT_SOUNDNESS_CHECKPOINT_H_

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/safetensors.h"

namespace pb::soundness {

class Checkpoint {
 public:
  // model.safetensors, else the files of model.safetensors.index.json.
  static Result<Checkpoint> Open(const std::filesystem::path& folder);

  const SafeTensor* Find(std::string_view name) const;  // nullptr: not there
  std::vector<std::string> names() const;
  // The scales that stand beside packed ternary weights divide them (transformers' BitLinear), else
  // they multiply (AutoBitLinear).
  bool scales_divide() const { return scales_divide_; }

 private:
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const SafeTensor*, std::less<>> tensors_;
  bool scales_divide_ = true;
};

// A matrix (a vector: one row) as a converter makes it: rows of checkpoint tensors one below the
// other, and what is done to them.
struct Recipe {
  struct Part {
    const SafeTensor* tensor = nullptr;
    int64_t first = 0, n_rows = 0;  // rows of it
    float scale = 1;                // packed ternary codes are multiplied by it
  };
  std::vector<Part> parts;
  int64_t n_columns = 0;
  // Rows of each head reordered, for a rotation of adjacent pairs; 0: as they are.
  int64_t permuted_heads = 0;
  float add = 0;
  bool transposed = false;  // of one part
  float ternary = 0;        // rounded to -1, 0, +1 times this; 0: not
  int64_t n_rows() const;
  // Puts row `row` into out[0, n_columns).
  void Row(int64_t row, float* out) const;
};

// The mean magnitude of a tensor, at least 1e-5: what BitNet's training rounds by.
float MeanMagnitude(const Recipe& recipe);
// Whether a tensor holds -s, 0 and +s alone.
bool IsTernary(const Recipe& recipe);

}  // namespace pb::soundness

#endif  // PARITYBIT_SOUNDNESS_CHECKPOINT_H_
