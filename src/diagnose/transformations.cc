#include "diagnose/transformations.h"

#include <cmath>

namespace pb::diagnose {
namespace {

// Least squares: the side's output is `factor` times what the op should give.
void Factor(const Subject& s, std::vector<Guess>* guesses) {
  double dot = 0, square = 0;
  for (size_t i = 0; i < s.output.size(); i++) {
    if (!std::isfinite(s.output[i]) || !std::isfinite(s.declared[i])) continue;
    dot += double(s.output[i]) * double(s.declared[i]);
    square += double(s.declared[i]) * double(s.declared[i]);
  }
  if (!(square > 0) || dot == 0) return;
  const double factor = dot / square;
  Guess g;
  g.name = fmt::format("factor={:.6g}", factor);
  g.text = fmt::format("gives {:.6g} times what the model declares", factor);
  g.short_text = fmt::format("factor {:.6g}", factor);
  g.n_fitted = 1;
  for (float v : s.declared) g.output.push_back(static_cast<float>(factor * double(v)));
  for (float u : s.units) g.units.push_back(static_cast<float>(std::fabs(factor) * double(u)));
  guesses->push_back(std::move(g));
}

}  // namespace

std::vector<Guess> Transformations(const Subject& subject) {
  std::vector<Guess> guesses;
  Factor(subject, &guesses);
  return guesses;
}

}  // namespace pb::diagnose
