// Looks tensors up by name and shape, and remembers which were used: what is left over is a feature
// that nothing here runs.
#ifndef PARITYBIT_MODEL_WEIGHTS_H_
#define PARITYBIT_MODEL_WEIGHTS_H_

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "formats/block.h"
#include "formats/gguf.h"

namespace pb {

class TensorTable {
 public:
  // `decoder`: of types that nothing here decodes; may be null, and outlives the views.
  TensorTable(const GgufFile& file, const LentDecoder* decoder) : file_(file), decoder_(decoder) {}

  bool Has(std::string_view name) const { return file_.FindTensor(name) != nullptr; }
  // A matrix of n_rows x n_columns in a supported block format; I2_S bytes are scanned.
  // A single row may be a vector.
  Result<WeightView> Matrix(const std::string& name, int64_t n_rows, int64_t n_columns);
  // The same of several experts, n_rows each, in a tensor of three dimensions.
  Result<WeightView> Experts(const std::string& name, int64_t n_experts, int64_t n_rows, int64_t n_columns);
  // n values, decoded to float32; `n_rows`: of each of so many rows.
  Result<std::vector<float>> Vector(const std::string& name, int64_t n, int64_t n_rows = 1);
  // One value, 1 when the tensor is absent.
  Result<float> OptionalScale(const std::string& name);
  // Types that the lent decoder was needed for.
  const std::set<uint32_t>& lent() const { return lent_; }
  // kUnsupported with the name of the first tensor that was not asked for.
  Status CheckAllUsed() const;

 private:
  Result<const GgufTensor*> Get(const std::string& name);
  // Tries the lent decoder on a block.
  Status CheckLent(const GgufTensor& t);
  Result<WeightView> View(const std::string& name, const std::vector<uint64_t>& shape);

  const GgufFile& file_;
  const LentDecoder* decoder_;
  std::set<uint32_t> lent_;
  std::set<const GgufTensor*> used_;
};

}  // namespace pb

#endif  // PARITYBIT_MODEL_WEIGHTS_H_
