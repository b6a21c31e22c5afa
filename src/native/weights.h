// A model's weights as the engine multiplies by them.
#ifndef PARITYBIT_NATIVE_WEIGHTS_H_
#define PARITYBIT_NATIVE_WEIGHTS_H_

#include <array>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "stages/stages.h"

namespace pb::native {

// One matrix: the file's own bytes, and its codes repacked where the integer kernels can take them.
struct Matrix {
  WeightView view;
  std::unique_ptr<const PackedMatrix> packed;  // null: a float type
  float post_scale = 1;
  std::span<const float> bias;  // (n_rows), added to every output row; may be empty
};

// Immutable; shared by sessions. Keeps the model alive.
struct Weights {
  std::shared_ptr<const Model> model;
  std::vector<std::array<Matrix, PB_STAGE_COUNT>> layers;  // by stage
  // By layer and stage, a matrix for each expert.
  std::vector<std::map<pb_stage, std::vector<Matrix>>> experts;
  Matrix output;

  const Matrix& Of(pb_stage product, int64_t layer) const {
    return product == PB_STAGE_LOGITS ? output
                                      : layers[static_cast<size_t>(layer)][static_cast<size_t>(product)];
  }
  static std::shared_ptr<const Weights> Load(std::shared_ptr<const Model> model, ThreadPool& pool);
};

// Rows of activations x (n, w.n_columns) as codes, by a scheme that IsIntegerScheme; errors as of
// Product.
Result<QuantRows> Quantise(const Kernels& k, ThreadPool& pool, const Matrix& w, ActScheme scheme,
                           const float* x, int64_t n);

// out (n, w.n_rows) = x (n, w.n_columns) times w, the activations rounded by `scheme`. Integer
// schemes need n_columns to be a multiple of the scheme's block: an error names both.
Status Product(const Kernels& k, ThreadPool& pool, const Matrix& w, ActScheme scheme, const float* x,
               int64_t n, float* out);

}  // namespace pb::native

#endif  // PARITYBIT_NATIVE_WEIGHTS_H_
