// Evaluates windows of a text and adds up the log-probabilities of its tokens.
#include "drive/perplexity.h"

#include <algorithm>
#include <cmath>

namespace pb::drive {

double NegativeLogProbability(std::span<const float> row, int32_t token) {
  if (token < 0 || static_cast<size_t>(token) >= row.size()) return NAN;
  const double largest = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (float v : row) sum += std::exp(double(v) - largest);
  return largest + std::log(sum) - double(row[static_cast<size_t>(token)]);
}

double Perplexity::value() const { return std::exp(nll); }

Result<Perplexity> MeasurePerplexity(Participant& engine, std::span<const int32_t> tokens, int32_t window,
                                     const Progress& progress) {
  if (tokens.size() < 2 || window < 2)
    return MakeError(Code::kUsage, "perplexity needs two tokens, {} were given", tokens.size());
  Perplexity p;
  double sum = 0;
  for (size_t begin = 0; begin + 1 < tokens.size(); begin += static_cast<size_t>(window)) {
    if (progress) progress("perplexity", static_cast<int64_t>(begin), static_cast<int64_t>(tokens.size()));
    const auto ids = tokens.subspan(begin, std::min(static_cast<size_t>(window), tokens.size() - begin));
    PB_TRY(engine.Reset());
    int64_t n_rows = 0;
    PB_TRY(engine.Evaluate(ids, 0, [&](int32_t position, std::span<const float> row) -> Status {
      n_rows++;
      if (static_cast<size_t>(position) + 1 >= ids.size()) return {};
      const double nll = NegativeLogProbability(row, ids[static_cast<size_t>(position) + 1]);
      if (!std::isfinite(nll))
        return MakeError(Code::kEngine, "the logits of position {} give no probability", position);
      sum += nll, p.n_predicted++;
      return {};
    }));
    if (n_rows != static_cast<int64_t>(ids.size()))
      return MakeError(Code::kEngine, "{} rows of logits came for {} tokens", n_rows, ids.size());
    p.n_windows++;
  }
  p.nll = sum / static_cast<double>(p.n_predicted);
  return p;
}

}  // namespace pb::drive
