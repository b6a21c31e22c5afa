// Small ops for tests, written out by hand.
#ifndef PARITYBIT_ORACLE_OPS_FOR_TESTS_H_
#define PARITYBIT_ORACLE_OPS_FOR_TESTS_H_

#include <utility>
#include <vector>

#include "oracle/ops.h"

namespace pb::oracle {

inline Rows RowOf(std::vector<double> values) {
  Rows x(1, static_cast<int64_t>(values.size()));
  x.v = std::move(values);
  return x;
}

// One query head on one KV head, base 10000, activations as they are.
inline OpConfig OneHead(int64_t head_dim) {
  OpConfig c;
  c.n_heads = c.n_kv_heads = 1, c.head_dim = c.rope_dims = head_dim;
  c.rope_base = 10000;
  c.act_quant.all = ActScheme::kNone;
  return c;
}

}  // namespace pb::oracle

#endif  // PARITYBIT_ORACLE_OPS_FOR_TESTS_H_
