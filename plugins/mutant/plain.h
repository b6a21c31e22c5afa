// Plain readings of the ops, for computing them wrongly: double sums, no kernels, shared with
// neither the engine that is wrapped nor the arbiter but for block decoding and model reading.
#ifndef PARITYBIT_PLUGINS_MUTANT_PLAIN_H_
#define PARITYBIT_PLUGINS_MUTANT_PLAIN_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "abi/engine.h"
#include "base/random.h"
#include "formats/act_scheme.h"
#include "model/model.h"
#include "stages/stages.h"

namespace pb::mutant {

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// One op that ran: its inputs, in the vocabulary's order, and what it gave. A fault changes `out`.
struct Op {
  pb_stage stage = PB_STAGE_UNMAPPED;
  int32_t layer = -1;
  int64_t first = 0;                // position of row 0
  int64_t n = 0, width = 0;         // token rows, values a row
  float* out = nullptr;             // (n, width)
  std::vector<Tensor> inputs;       // where all earlier positions count: rows from position 0
  const int32_t* tokens = nullptr;  // of the rows; embeddings alone
  const Model* model = nullptr;
  ActQuant act_quant;  // as set
  bool kv_f16 = true;
  bool long_rope = false;  // LongRoPE: the long factors count
  uint64_t seed = 1;       // of random choices

  const HyperParameters& params() const { return model->params(); }
  float* row(int64_t i) const { return out + i * width; }
  const float* in(size_t input, int64_t i) const {
    const Tensor& t = inputs[input];
    return t.values.data() + i * static_cast<int64_t>(t.values.size()) / t.shape[0];
  }
  int64_t in_width(size_t input) const {
    return static_cast<int64_t>(inputs[input].values.size()) / inputs[input].shape[0];
  }
  int64_t n_visible() const { return first + n; }  // positions that the last row sees
};

// The matrix that a product reads, of this or another stage or layer.
struct Weights {
  const WeightView* view = nullptr;  // null: the stage reads none
  float scale = 1;
  std::span<const float> bias = {};  // of each output; may be empty
  int64_t n_out() const { return view->n_rows; }
  int64_t n_in() const { return view->n_columns; }
  std::vector<float> Row(int64_t r) const;  // without the scale
  double BiasOf(int64_t r) const { return bias.empty() ? 0 : double(bias[static_cast<size_t>(r)]); }
};
Weights MatrixOf(const Model& model, pb_stage stage, int32_t layer);
// The weight of a norm; null: the stage is none.
const std::vector<float>* NormWeight(const Model& model, pb_stage stage, int32_t layer);

// What may go wrong in a quantiser.
struct QuantiserFault {
  bool truncate = false;
  int clamp = 0;      // 0: the scheme's own
  int64_t block = 0;  // 0: the scheme's own
  // The scheme in other arithmetic, which is no fault: scales by the reciprocal of 127, ties away
  // from zero, Q8_1's sum term by term in float32.
  bool other_arithmetic = false;
};
// A row as a product sees it, as codes.
struct RowCodes {
  int64_t block = 0;
  std::vector<int8_t> codes;
  std::vector<double> scales;  // one a block: a code's value is code x scale
  std::vector<float> sums;     // of Q8_1, as the format stores them
};
// By a scheme that makes codes.
RowCodes CodesOf(const float* x, int64_t n, ActScheme scheme, const QuantiserFault& fault);
// The same as values: codes times scale, or what else the scheme makes of them.
std::vector<double> Rounded(const float* x, int64_t n, ActScheme scheme, const QuantiserFault& fault);

// A product's value as the op gives it: of logits scaled, and capped unless that is forgotten.
float Finished(const Op& op, double value, bool capped = true);

// out = activations x weights^T, written over op.out. `change` may alter a decoded row of weights
// before it is used.
template <typename Change>
void ProductWith(Op& op, const Weights& w, ActScheme scheme, const QuantiserFault& fault, Change change,
                 bool capped = true) {
  std::vector<std::vector<double>> x;
  for (int64_t i = 0; i < op.n; i++) x.push_back(Rounded(op.in(0, i), w.n_in(), scheme, fault));
  for (int64_t r = 0; r < w.n_out(); r++) {
    std::vector<float> row = w.Row(r);
    change(r, row);
    for (int64_t i = 0; i < op.n; i++) {
      double sum = 0;
      for (size_t k = 0; k < row.size(); k++) sum += x[static_cast<size_t>(i)][k] * double(row[k]);
      op.row(i)[r] = Finished(op, sum * double(w.scale) + w.BiasOf(r), capped);
    }
  }
}
void Product(Op& op, const Weights& w, ActScheme scheme, const QuantiserFault& fault);
// The product of F16 weights as a processor computes it whose vectors hold f16: 32 lanes, each sum
// rounded to f16. Other ops stay as they are.
void SumInF16(Op& op);
// Of the op's own stage.
ActScheme OwnScheme(const Op& op);

// Hands each value to `change` with random numbers that depend on seed, op, position, head and
// place alone, so that batches and what else is computed do not matter.
template <typename Change>
void ChangeAtRandom(Op& op, uint64_t seed, Change change) {
  const int64_t parts = stages::kOverPositions.Contains(op.stage) ? op.params().n_heads : 1,
                run = op.width / parts;
  for (int64_t i = 0; i < op.n; i++) {
    for (int64_t part = 0; part < parts; part++) {
      uint64_t key = Random(seed).Next();
      for (int64_t by : {int64_t{op.stage}, int64_t{op.layer}, op.first + i, part})
        key = Random(key ^ static_cast<uint64_t>(by)).Next();
      Random random(key);
      for (int64_t k = 0; k < run; k++) change(random, &op.row(i)[part * run + k]);
    }
  }
}

float RoundF16(float x);
// Whether attention rounds queries and probabilities to f16, as with an f16 cache.
bool RoundsAttention(const Op& op);

}  // namespace pb::mutant

#endif  // PARITYBIT_PLUGINS_MUTANT_PLAIN_H_
