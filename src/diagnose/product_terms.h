// A product taken apart into what goes into it: the rounded input, stored sums, weights and their
// minima. What its terms, taken otherwise, add to the output.
#ifndef PARITYBIT_DIAGNOSE_PRODUCT_TERMS_H_
#define PARITYBIT_DIAGNOSE_PRODUCT_TERMS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "codes/act_scheme.h"
#include "diagnose/hypotheses.h"
#include "diagnose/op_weights.h"
#include "diagnose/terms.h"

namespace pb::diagnose {

// What goes with a column of K that is taken otherwise, where weights have a minimum, which meets
// sums of codes that are stored: so too, under Q8_K, where codes of weights are stored from 0 on and
// lowered by a constant (BlockOffsets). The same for all weights that have neither.
enum class TermRule {
  kWhole,   // its whole term
  kCodes,   // its code alone; the sums stay
  kGroups,  // its code; a sum goes with all columns that it is of
};

class ProductTerms {
 public:
  // Nothing: the op is no product, or its input is not at hand. Not beyond the life of `s`.
  static std::optional<ProductTerms> Of(const Subject& s);

  int64_t width() const { return width_; }
  int64_t n_rows() const { return n_rows_; }
  int64_t n_outputs() const { return n_outputs_; }
  int64_t block() const { return block_; }  // values that one scale of the input covers; 0: no codes
  // Values that one stored sum is of; 0: the weights have no minimum and no offset, or the input no
  // sums.
  int64_t group() const { return group_; }
  bool has_minima() const { return has_minima_; }  // of the weights; false: offsets, where there are sums
  int64_t n_groups() const { return group_ > 0 ? width_ / group_ : 0; }
  ActScheme scheme() const { return scheme_; }
  const OpWeights& weights() const { return weights_; }
  std::span<const float> Raw(int64_t row) const;             // its input
  std::span<const double> Values(int64_t row) const;         // as it is rounded
  const std::vector<double>& StoredSums(int64_t row) const;  // as the product takes them
  // Of an output: its weights without the minimum, and the minimum that each stored sum meets.
  std::vector<double> CodeWeights(int64_t output) const;
  std::vector<double> GroupMinima(int64_t output) const;

  // For FitChanges: whole terms, codes alone, or stored sums alone.
  Terms Take(TermRule rule, std::span<const int64_t> rows, std::span<const int64_t> outputs) const;
  Terms TakeSums(std::span<const int64_t> rows, std::span<const int64_t> outputs) const;
  // Columns by kWhole or kCodes, and stored sums, of the values of these rows and outputs.
  TermTable Table(TermRule rule, std::span<const int64_t> rows, std::span<const int64_t> outputs) const;
  TermTable SumsTable(std::span<const int64_t> rows, std::span<const int64_t> outputs) const;
  // What the engine gave beyond what it should, without the factor beside the weights.
  std::vector<double> Residual(std::span<const int64_t> rows, std::span<const int64_t> outputs) const;
  // What rounding makes of one value of it, as a root mean square.
  double Noise() const;

  // What each output has more, (n_rows, n_outputs), where column k is taken 1 + change[k] times.
  std::vector<double> Effect(TermRule rule, std::span<const double> change) const;
  // Where value k of row i, as it is rounded, is more by more[i][k], and stored sums with it.
  std::vector<double> EffectOfInput(const std::vector<std::vector<double>>& more) const;
  // Where stored sum g of row i is more by more[i][g].
  std::vector<double> EffectOfSums(const std::vector<std::vector<double>>& more) const;

 private:
  explicit ProductTerms(const Subject& s) : s_(&s) {}
  std::vector<double> WholeWeights(int64_t output) const;
  std::vector<double> OwnMinima(int64_t output) const;  // of each of the format's blocks

  const Subject* s_;
  OpWeights weights_;
  ActScheme scheme_ = ActScheme::kNone;
  int64_t width_ = 0, n_rows_ = 0, n_outputs_ = 0, block_ = 0, group_ = 0;
  bool has_minima_ = false;
  std::vector<float> raw_;
  std::vector<codes::RoundedRow> rounded_;
  std::vector<std::vector<double>> sums_;
};

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_PRODUCT_TERMS_H_
