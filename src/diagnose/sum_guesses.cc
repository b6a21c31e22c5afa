// Sums that a quantiser stores beside its codes and that no engine tells (Q8_K): solved for from half of
// the outputs, freely in each token row. That these few numbers make the other half as well is the
// evidence; that they are whole numbers of the row's scale, and no others of its sums, that they are sums.
#include <algorithm>
#include <cmath>
#include <optional>

#include "base/cholesky.h"
#include "diagnose/product_terms.h"
#include "diagnose/region.h"
#include "diagnose/transformations.h"
#include "diagnose/wrong_part.h"

namespace pb::diagnose {
namespace {

constexpr int64_t kMostSums = 512;          // of a row
constexpr int64_t kLeastPerSum = 2;         // outputs for each that it is fitted to
constexpr double kWhole = 0.1, kOff = 0.5;  // of a code, from a whole number; from the right sum

class SumSearch {
 public:
  SumSearch(const Subject& s, const WrongPart& part, const ProductTerms& product)
      : s_(s), part_(part), product_(product) {}

  std::optional<Guess> Run() {
    // Groups that meet one minimum are one sum.
    const auto n_own = static_cast<int64_t>(BlockMinima(*product_.weights().matrix, 0).size() +
                                            BlockOffsets(*product_.weights().matrix, 0).size());
    n_ = std::min(n_own, product_.n_groups());
    if (n_ < 1 || n_ > kMostSums || product_.n_groups() % n_ != 0) return std::nullopt;
    per_ = product_.n_groups() / n_;
    if (product_.n_outputs() < 2 * kLeastPerSum * n_ || !Fit()) return std::nullopt;
    Guess g;
    for (int64_t i = 0; i < product_.n_rows(); i++)
      for (int64_t j = 0; j < product_.n_outputs(); j++) {
        double more = 0;
        for (int64_t g = 0; g < n_; g++) more += Minimum(j, g) * off_[At(i, g)];
        const auto at = static_cast<size_t>(i * product_.n_outputs() + j);
        g.output.push_back(
            static_cast<float>(double(s_.declared[at]) + more * double(product_.weights().scale)));
      }
    const char* minima = product_.has_minima() ? "minima" : "offsets";
    g.name = "sums=other", g.n_fitted = static_cast<int>(std::ssize(part_.rows) * n_);
    g.text = fmt::format("multiplies {} with sums that are not those of its codes", minima);
    g.short_text = "the sums of its codes";
    g.meaning.part = PartOfAll();
    g.tells_part = true;
    if (AreSums()) {
      g.meaning.where = Where::kSums;
      if (const double end = Saturation(); end > 0) {
        g.meaning.part = {Axis::kAll}, g.meaning.what = WhatKind::kSaturation, g.meaning.value = end;
        g.text += fmt::format(": they end at {:g}", end);
      }
    } else {
      // Sums that are these of others, or so many times their own, may as well be minima that are.
      g.text += fmt::format(", or its sums with {} that are not the file's", minima);
      g.short_text += fmt::format(" and the file's {}", minima);
    }
    return g;
  }

 private:
  size_t At(int64_t i, int64_t g) const { return static_cast<size_t>(i * n_ + g); }
  double Minimum(int64_t j, int64_t g) const { return minima_[static_cast<size_t>(j * n_ + g)]; }
  // In codes.
  double Sum(int64_t i, int64_t g) const {
    double sum = 0;
    for (int64_t k = g * per_; k < (g + 1) * per_; k++) sum += OfGroup(i, k);
    return sum;
  }
  double OfGroup(int64_t i, int64_t k) const {
    const double scale = Scale(i, k);
    return scale == 0 ? 0 : std::round(product_.StoredSums(i)[static_cast<size_t>(k)] / scale);
  }
  double Scale(int64_t i, int64_t group) const {
    const int64_t block = group * product_.group() / product_.block();
    return codes::ActBlockOf(product_.Raw(i).subspan(static_cast<size_t>(block * product_.block()),
                                                     static_cast<size_t>(product_.block())),
                             product_.scheme())
        .from_code;
  }
  double Off(int64_t i, int64_t g) const { return codes_off_[At(i, g)]; }

  // The sums' changes, from every other output.
  bool Fit() {
    const int64_t n_outputs = product_.n_outputs();
    for (int64_t j = 0; j < n_outputs; j++) {
      const std::vector<double> of_groups = product_.GroupMinima(j);
      for (int64_t g = 0; g < n_; g++) minima_.push_back(of_groups[static_cast<size_t>(g * per_)]);
    }
    const auto n = static_cast<size_t>(n_);
    std::vector<double> gram(n * n);
    for (int64_t j = 0; j < n_outputs; j += 2)
      for (size_t a = 0; a < n; a++)
        for (size_t b = 0; b <= a; b++)
          gram[a * n + b] += Minimum(j, static_cast<int64_t>(a)) * Minimum(j, static_cast<int64_t>(b));
    if (!Factorise(n, &gram)) return false;
    off_.assign(static_cast<size_t>(product_.n_rows()) * n, 0), codes_off_ = off_;
    for (const int64_t i : part_.rows) {
      std::vector<double> y(n);
      for (int64_t j = 0; j < n_outputs; j += 2) {
        const auto at = static_cast<size_t>(i * n_outputs + j);
        const double more =
            (double(s_.output[at]) - double(s_.declared[at])) / double(product_.weights().scale);
        for (size_t g = 0; g < n; g++) y[g] += Minimum(j, static_cast<int64_t>(g)) * more;
      }
      const std::vector<double> off = Solve(gram, std::move(y));
      for (int64_t g = 0; g < n_; g++) {
        const double scale = Scale(i, g * per_);
        off_[At(i, g)] = off[static_cast<size_t>(g)];
        codes_off_[At(i, g)] = scale == 0 ? 0 : off[static_cast<size_t>(g)] / scale;
      }
    }
    return true;
  }

  // Whether they are whole numbers, and neither a row's sums in another order nor so many times their own:
  // which of these two it is one row does not tell.
  bool AreSums() const {
    bool ordered = true;
    for (int64_t g = 0; g < n_; g++) {
      bool wrong = false;
      for (const int64_t i : part_.rows) {
        if (std::fabs(Off(i, g) - std::round(Off(i, g))) > kWhole) return false;
        wrong |= std::fabs(Off(i, g)) > kOff;
      }
      if (wrong) ordered &= IsScaled(g) || IsAnother(g);
    }
    return !ordered;
  }
  // By a factor that code has: minima that differ by output are all multiplied by no other.
  bool IsScaled(int64_t g) const {
    std::optional<double> factor;
    for (const int64_t i : part_.rows) {
      const double sum = Sum(i, g);
      if (sum == 0) continue;
      if (!factor) factor = 1 + Off(i, g) / sum;
      if (std::fabs(Off(i, g) - (*factor - 1) * sum) > kOff) return false;
    }
    constexpr double kLargest = 16, kNear = 1e-3;
    const auto near = [](double x) {
      return std::fabs(x - std::round(x)) <= kNear && std::fabs(x) <= kLargest;
    };
    return !factor || near(*factor) || near(1 / *factor);
  }
  bool IsAnother(int64_t g) const {
    for (int64_t other = 0; other < n_; other++)
      if (std::ranges::all_of(part_.rows, [&](int64_t i) {
            return std::fabs(Sum(i, g) + Off(i, g) - Sum(i, other)) <= kOff;
          }))
        return true;
    return false;
  }

  // Columns whose sums are wrong in each of several rows: of one row, or where they differ, it may be what
  // the values are.
  Region PartOfAll() const {
    std::vector<Mark> marks(static_cast<size_t>(product_.width()), Mark::kRight);
    if (part_.rows.size() < 2) return {};
    for (int64_t g = 0; g < n_; g++) {
      const auto n_wrong =
          std::ranges::count_if(part_.rows, [&](int64_t i) { return std::fabs(Off(i, g)) > kOff; });
      if (n_wrong > 0 && n_wrong < std::ssize(part_.rows)) return {};
      const int64_t columns = product_.width() / n_;
      std::fill_n(marks.begin() + g * columns, n_wrong > 0 ? columns : 0, Mark::kWrong);
    }
    return FindRegion(marks, {Axis::kColumns, product_.block(), Axis::kBlocks, Axis::kCode})
        .value_or(Region{});
  }

  // Where stored sums of groups end, in codes; 0: that is not what is wrong. Two that do tell it.
  double Saturation() const {
    for (const int64_t i : part_.rows)
      for (int64_t g = 0; g < n_; g++) {
        const double off = std::fabs(std::round(Off(i, g)));
        if (off == 0) continue;
        double largest = 0;
        for (int64_t k = g * per_; k < (g + 1) * per_; k++)
          largest = std::max(largest, std::fabs(OfGroup(i, k)));
        // Of this sum one group alone is beyond it: of others it is verified.
        if (largest > off && EndsAt(largest - off)) return largest - off;
      }
    return 0;
  }
  bool EndsAt(double end) const {
    int64_t n_ended = 0;
    for (const int64_t i : part_.rows)
      for (int64_t g = 0; g < n_; g++) {
        double off = 0;
        for (int64_t k = g * per_; k < (g + 1) * per_; k++) {
          const double sum = OfGroup(i, k);
          off += std::clamp(sum, -end, end) - sum;
        }
        if (std::fabs(off - Off(i, g)) > kOff) return false;
        n_ended += off != 0;
      }
    return n_ended > 1;
  }

  const Subject& s_;
  const WrongPart& part_;
  const ProductTerms& product_;
  int64_t n_ = 0, per_ = 1;              // sums of a row; groups of each
  std::vector<double> minima_;           // (n_outputs, n_)
  std::vector<double> off_, codes_off_;  // (n_rows, n_): as the product takes them, in codes
};

}  // namespace

std::vector<Guess> OtherSums(const Subject& subject, const WrongPart& part) {
  const auto product = ProductTerms::Of(subject);
  if (!product || product->scheme() != ActScheme::kQ8_K || product->n_groups() == 0 || part.rows.empty())
    return {};
  if (part.region.axis == Axis::kFeatures || part.region.axis == Axis::kHeads) return {};
  std::vector<Guess> guesses;
  if (auto guess = SumSearch(subject, part, *product).Run()) guesses.push_back(std::move(*guess));
  return guesses;
}

}  // namespace pb::diagnose
