// Do two engines rank the next tokens alike? Kendall's tau-b over the union of both top k at every
// step along the reference's greedy path, and whether the reference's own noise explains what is
// exchanged (docs/numerics.md, "Order of the next tokens").
#ifndef PARITYBIT_PARITY_LOGIT_PARITY_H_
#define PARITYBIT_PARITY_LOGIT_PARITY_H_

#include <optional>
#include <string>
#include <vector>

#include "parity/kendall.h"
#include "run/record.h"
#include "run/request.h"

namespace pb::parity {

// Defaults of the documented system: TAU_STEPS, LOGIT_TOPK, TAU_MIN, TAU_TIE_EPS.
struct TauSettings {
  int steps = 32, top_k = 10;
  double least_median = 0.60, tie = 1e-6;
  int min_informative = 0;  // 0: as documented, the smaller of 8 and a third of the steps
  int least_informative() const {
    return min_informative > 0 ? min_informative : std::max(1, std::min(8, steps / 3));
  }
};

struct LogitParityRequest {
  run::Request pair;  // its prompts; n_noise_runs: 0: the limit alone decides
  TauSettings tau;
};

// One step: the row after `position`, which chooses the next token.
struct OrderRow {
  int32_t prompt = 0, position = 0;
  int32_t top1[2] = {-1, -1};  // candidate, reference
  Order order;
  bool beyond_noise = false;  // an exchange that noise does not explain
};

// The reference against itself under random rounding.
struct OrderNoise {
  int32_t n_runs = 0;
  int64_t n_positions = 0;            // of one run: steps and calibration text
  std::vector<double> median, least;  // of each run, over the steps alone
  double worst_spread = 0;            // of any pair, position and run
  double mean_disorder = 0;           // 1 - tau, the largest window mean of any run
  std::string why_none;               // empty: it was measured
};

struct LogitParity {
  run::Comparison run;  // prompts with their greedy path; no rows
  std::vector<OrderRow> rows;
  OrderNoise noise;
  int64_t n_informative = 0, n_exchanges = 0, n_beyond = 0;
  std::optional<double> median, least, mean_disorder;
  // Prompts where fewer steps were informative than asked.
  int64_t n_poor_prompts = 0;
};

Result<LogitParity> CompareOrders(const LogitParityRequest& request);

}  // namespace pb::parity

#endif  // PARITYBIT_PARITY_LOGIT_PARITY_H_
