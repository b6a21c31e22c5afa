// The tensor that an op of the vocabulary reads.
#ifndef PARITYBIT_DIAGNOSE_OP_WEIGHTS_H_
#define PARITYBIT_DIAGNOSE_OP_WEIGHTS_H_

#include <string>
#include <vector>

#include "model/model.h"

namespace pb::diagnose {

// Exactly one of matrix and vector is set; neither where the op reads no tensor.
struct OpWeights {
  std::string name;  // "blk.3.ffn_up.weight"
  // (n_out, n_in); of the embeddings: (n_vocab, d_model)
  const WeightView* matrix = nullptr;
  float scale = 1;                             // a factor of its own beside the matrix
  const std::vector<float>* vector = nullptr;  // a norm's weight
  const std::vector<float>* bias = nullptr;    // beside a matrix
};
// A layer that the model does not have reads nothing.
OpWeights WeightsOf(const Model& model, int32_t stage, int32_t layer);
// The magnitude of ternary weights, without the factor beside the matrix; 0 where they are not
// ternary.
float TernaryStep(const OpWeights& weights);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_OP_WEIGHTS_H_
