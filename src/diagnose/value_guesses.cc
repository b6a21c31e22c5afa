// What the wrong values of an output are of those that it should be, one relation each; all are
// guesses that are verified afterwards, on values that nothing was fitted to.
#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

#include "base/half.h"
#include "diagnose/transformations.h"

namespace pb::diagnose {
namespace {

constexpr int64_t kLeastValues = 4;     // that a relation is told of
constexpr int64_t kLeastAtPlateau = 3;  // values of one magnitude
constexpr double kSame = 1e-5;          // relative: whether a relation is worth verifying
constexpr double kRounding = 1e-6;      // relative: of a value and of what it was made of

// The wrong values of an output beside those that they should be.
struct Values {
  std::vector<size_t> at;
  std::vector<double> out, should;
};

Values WrongValues(const Subject& s, const WrongPart& part) {
  Values v;
  for (int64_t i : part.rows)
    for (int64_t j : part.features) {
      const auto at = static_cast<size_t>(i * part.n_features + j);
      if (!std::isfinite(s.output[at]) || !std::isfinite(s.declared[at])) continue;
      v.at.push_back(at), v.out.push_back(s.output[at]), v.should.push_back(s.declared[at]);
    }
  return v;
}

class Relations {
 public:
  Relations(const Subject& s, const WrongPart& part) : s_(s), part_(part), v_(WrongValues(s, part)) {}

  std::vector<Guess> Run() {
    const auto n = static_cast<int64_t>(v_.at.size());
    if (n < kLeastValues || n < part_.n_values()) return {};
    Zeros();
    Offset();
    Saturation();
    Rounded();
    EarlierRows();
    MovedFeatures();
    return std::move(guesses_);
  }

 private:
  // Words of the part behind a verb's object: " in feature 3"; nothing where it is all.
  std::string InPartWords() const {
    return part_.region.axis == Axis::kAll || part_.region.axis == Axis::kUnknown
               ? ""
               : " in " + RegionWords(part_.region);
  }
  void Push(Guess guess, WhatKind what, double value, const std::function<double(size_t)>& of) {
    guess.meaning = MeaningOf(guess.name, s_.culprit->place.stage);
    guess.meaning.what = what, guess.meaning.value = value;
    if (part_.region.axis != Axis::kUnknown) guess.meaning.part = part_.region;
    guess.output.assign(s_.declared.begin(), s_.declared.end());
    for (size_t i = 0; i < v_.at.size(); i++) guess.output[v_.at[i]] = static_cast<float>(of(i));
    guesses_.push_back(std::move(guess));
  }
  bool AllOf(const std::function<bool(size_t)>& holds) const {
    for (size_t i = 0; i < v_.at.size(); i++)
      if (!holds(i)) return false;
    return true;
  }

  // All values, or those of some rows; of some features SomeFeatures tells.
  void Zeros() {
    if (!part_.all_features() || !AllOf([&](size_t i) { return v_.out[i] == 0; })) return;
    const std::string which = part_.all_rows() ? "everything" : RegionWords(part_.region);
    Push({part_.all_rows() ? "zero=all" : "zero=rows", fmt::format("leaves {} at zero", which),
          which + " at zero", 0},
         WhatKind::kAbsent, 0, [](size_t) { return 0.0; });
  }

  // One number is added; fitted to every other value, and told where the others have the same: values far
  // larger than it round it off.
  void Offset() {
    double square = 0, sum[2] = {0, 0}, weights[2] = {0, 0};
    for (double y : v_.should) square += y * y;
    const double least_rounded = 1e-3 * std::sqrt(square / static_cast<double>(v_.at.size()));
    for (size_t i = 0; i < v_.at.size(); i++) {
      const double rounded = std::max(std::fabs(v_.should[i]), least_rounded);
      const double weight = rounded > 0 ? 1 / (rounded * rounded) : 1;
      sum[i % 2] += weight * (v_.out[i] - v_.should[i]), weights[i % 2] += weight;
    }
    const double offset = sum[0] / weights[0], other = sum[1] / weights[1];
    const double least = 0.01 * std::fabs(offset);
    if (offset == 0 || std::fabs(other - offset) > least) return;
    if (!AllOf([&](size_t i) {
          return std::fabs(v_.out[i] - v_.should[i] - offset) < least + kRounding * std::fabs(v_.should[i]);
        }))
      return;
    Push({fmt::format("offset={:.6g}", offset), fmt::format("adds {:.5g}{}", offset, InPartWords()),
          fmt::format("{:.5g} taken off", offset), 1},
         WhatKind::kOffset, offset, [&](size_t i) { return v_.should[i] + offset; });
    // A sum is rounded as large as it is.
    std::vector<float>& units = guesses_.back().units;
    units.assign(s_.units.begin(), s_.units.end());
    for (size_t at : v_.at)
      if (!units.empty()) units[at] += static_cast<float>(std::fabs(offset));
  }

  // Magnitudes end at one, which several values have.
  void Saturation() {
    double plateau = 0;
    for (double y : v_.out) plateau = std::max(plateau, std::fabs(y));
    const auto at_plateau = std::ranges::count_if(v_.out, [&](double y) { return std::fabs(y) == plateau; });
    if (plateau == 0 || at_plateau < kLeastAtPlateau ||
        !AllOf([&](size_t i) { return std::fabs(v_.should[i]) > std::fabs(v_.out[i]) - kSame * plateau; }))
      return;
    Push({fmt::format("saturation={:.6g}", plateau),
          fmt::format("lets no magnitude be more than {:.5g}{}", plateau, InPartWords()),
          fmt::format("magnitudes up to {:.5g}", plateau), 1},
         WhatKind::kSaturation, plateau,
         [&](size_t i) { return std::clamp(v_.should[i], -plateau, plateau); });
  }

  // Fewer bits than float32 has, or whole numbers.
  void Rounded() {
    using Rounding = std::function<double(double)>;
    const Rounding bf16 = [](double x) {
      return double(std::bit_cast<float>(std::bit_cast<uint32_t>(static_cast<float>(x)) & 0xFFFF0000u));
    };
    const Rounding f16 = [](double x) {
      const double near = F16ToF32(F32ToF16(static_cast<float>(x)));
      if (std::fabs(near) <= std::fabs(x)) return near;
      const auto bits = F32ToF16(static_cast<float>(x));
      return double(F16ToF32(static_cast<uint16_t>(bits - 1)));
    };
    const Rounding whole = [](double x) { return std::trunc(x); };
    const Rounding down = [](double x) { return std::floor(x); };
    struct Grid {
      const char *name, *text;
      Rounding round;
    };
    const Grid grids[] = {{"bf16", "cuts values to bfloat16", bf16},
                          {"f16", "cuts values to f16", f16},
                          {"whole", "cuts values to whole numbers", whole},
                          {"floor", "rounds values down to whole numbers", down}};
    if (AllOf([&](size_t i) { return v_.out[i] == 0; })) return;
    for (const Grid& grid : grids) {
      if (!AllOf([&](size_t i) { return grid.round(v_.out[i]) == v_.out[i]; })) continue;
      Push({fmt::format("truncation={}", grid.name), grid.text + InPartWords(), "values rounded", 0},
           WhatKind::kTruncation, 0, [&](size_t i) { return grid.round(v_.should[i]); });
    }
  }

  // Whether a wrong value at `at` equals what it should be at `from`.
  bool Equals(size_t at, size_t from) const {
    const double x = s_.output[at], y = s_.declared[from];
    return x == y || std::fabs(x - y) <= kSame * std::max(std::fabs(x), std::fabs(y));
  }
  // The share of wrong values that stand `by` further on than where they should.
  bool Moved(int64_t by) const {
    int64_t n_equal = 0;
    for (size_t at : v_.at) {
      const int64_t from = static_cast<int64_t>(at) - by;
      if (from < 0 || from >= static_cast<int64_t>(s_.declared.size())) return false;
      n_equal += Equals(at, static_cast<size_t>(from));
    }
    // Values near zero may cancel, and are known less exactly; the bound decides.
    return 10 * n_equal >= 9 * static_cast<int64_t>(v_.at.size());
  }
  void PushMoved(int64_t by, WhatKind what, const std::string& name, const std::string& text) {
    Push({name, text + InPartWords(), "values in their place", 0}, what, 0, [&](size_t i) {
      return double(s_.declared[static_cast<size_t>(static_cast<int64_t>(v_.at[i]) - by)]);
    });
  }

  void EarlierRows() {
    for (int64_t rows = 1; rows < part_.n_rows; rows++) {
      if (Moved(rows * part_.n_features))
        return PushMoved(rows * part_.n_features, WhatKind::kStale, fmt::format("rows.before={}", rows),
                         fmt::format("gives what belongs {} token{} before", rows, rows == 1 ? "" : "s"));
      if (Moved(-rows * part_.n_features))
        return PushMoved(-rows * part_.n_features, WhatKind::kOtherPart, fmt::format("rows.after={}", rows),
                         fmt::format("gives what belongs {} token{} later", rows, rows == 1 ? "" : "s"));
    }
  }

  // Where a value stands in its row that belongs `by` further on; the last are before the first.
  size_t FeatureBefore(size_t at, int64_t by) const {
    const int64_t n = part_.n_features, row = static_cast<int64_t>(at) / n,
                  feature = static_cast<int64_t>(at) % n;
    return static_cast<size_t>(row * n + (feature - by + n) % n);
  }
  bool AreOfFeature(int64_t by) const {
    int64_t n_other = 0;
    for (size_t at : v_.at) {
      n_other += !Equals(at, FeatureBefore(at, by));
      if (10 * n_other > static_cast<int64_t>(v_.at.size())) return false;
    }
    return true;
  }
  void MovedFeatures() {
    for (int64_t by = 1; 2 * by <= part_.n_features; by++)
      for (int64_t signed_by : {by, -by}) {
        if (!AreOfFeature(signed_by)) continue;
        const std::string text =
            fmt::format("gives values of the feature {} {}", by, signed_by > 0 ? "before" : "behind");
        return Push(
            {fmt::format("features.moved={}", signed_by), text + InPartWords(), "values in their place", 0},
            WhatKind::kOtherPart, 0,
            [&, signed_by](size_t i) { return double(s_.declared[FeatureBefore(v_.at[i], signed_by)]); });
      }
  }

  const Subject& s_;
  const WrongPart& part_;
  Values v_;
  std::vector<Guess> guesses_;
};

}  // namespace

std::vector<Guess> OtherValues(const Subject& subject, const WrongPart& part) {
  return Relations(subject, part).Run();
}

}  // namespace pb::diagnose
