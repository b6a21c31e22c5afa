// What codes, scales and stored sums on a rounding boundary may explain of a product's outputs.
#include "codes/boundary_steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

#include "codes/block_steps.h"

namespace pb::codes {
namespace {

// What is chosen jointly: so many steps of a block; so many effects in all.
constexpr size_t kMostSteps = 6, kMostEffects = size_t{1} << 22;

int CodeOf(float x, const ActBlock& b) { return static_cast<int>(std::nearbyint(x * b.to_code)); }

// From the code chosen here to the other neighbour of a value on a boundary: -1 or +1.
int OtherWay(float x, const ActBlock& b) {
  const double exact = double(x) * double(b.to_code), lower = std::floor(exact);
  return CodeOf(x, b) == lower ? 1 : -1;
}

}  // namespace

std::string StepCounts::Text(int64_t n_codes, int64_t n_blocks) const {
  std::vector<std::string> parts;
  auto add = [&](int64_t n, int64_t of, const char* what) {
    if (n > 0) parts.push_back(fmt::format("{} of {} {}", n, of, what));
  };
  add(codes, n_codes, "activation codes");
  add(scales, n_blocks, "scales of activations");
  add(sums, n_blocks, "stored sums of activations");
  if (parts.size() < 3) return fmt::format("{}", fmt::join(parts, " and "));
  return fmt::format("{}, {} and {}", parts[0], parts[1], parts[2]);
}

BoundarySteps::BoundarySteps(std::span<const float> x, ActScheme scheme, const WeightView& w, double scale)
    : x_(x),
      scheme_(scheme),
      block_(ActBlockValues(scheme, w.n_columns)),
      w_(w),
      scale_(scale),
      row_(x.size()) {
  for (size_t start = 0; start < x.size(); start += static_cast<size_t>(block_)) {
    const auto at = static_cast<int64_t>(blocks_.size());
    const ActBlock& b =
        blocks_.emplace_back(ActBlockOf(x.subspan(start, static_cast<size_t>(block_)), scheme));
    for (size_t k = start; k < start + static_cast<size_t>(block_); k++)
      if (OnBoundary(x[k], b.to_code)) steps_.push_back({Kind::kCode, static_cast<int64_t>(k)});
    if (OtherScale(b)) steps_.push_back({Kind::kScale, at});
    if (scheme == ActScheme::kQ8_1 && OtherSum(b, ValuesOf(at), b.sum)) steps_.push_back({Kind::kSum, at});
  }
  for (size_t i = 0; i < steps_.size(); i++) effects_.push_back({static_cast<int64_t>(i), {}});
}

compare::CodeExplanation BoundarySteps::Explain(std::span<const double> difference, double bound_norm,
                                                std::span<const int64_t> features) {
  for (compare::BoundaryCode& step : effects_) step.effect.resize(difference.size());
  for (size_t i = 0; !steps_.empty() && i < difference.size(); i++) {
    const int64_t j = features.empty() ? static_cast<int64_t>(i) : features[i];
    ReadRow(j);
    for (compare::BoundaryCode& step : effects_) step.effect[i] = Effect(std::array{std::pair(step.id, 1)});
  }
  compare::CodeExplanation found = compare::ExplainByCodes(difference, effects_, bound_norm);
  if (found.remainder_ratio > 1) ExplainJointly(difference, bound_norm, features, &found);
  return found;
}

// Steps of one block do not add up where a stored sum or a scale is rounded. From what was found as if
// they did, every block takes the choice of them that leaves least, in turn.
void BoundarySteps::ExplainJointly(std::span<const double> difference, double bound_norm,
                                   std::span<const int64_t> features, compare::CodeExplanation* found) {
  const auto n = difference.size();
  std::map<int64_t, Steps> of_block;
  for (size_t i = 0; i < steps_.size(); i++)
    of_block[BlockOf(steps_[i])].emplace_back(static_cast<int64_t>(i), 0);
  std::erase_if(of_block, [](const auto& b) { return b.second.size() > kMostSteps; });
  const bool together = std::ranges::any_of(of_block, [](const auto& b) { return b.second.size() > 1; });
  const auto n_choices_of = [](const Steps& own) {
    size_t n_choices = 1;
    for (size_t k = 0; k < own.size(); k++) n_choices *= 3;
    return n_choices;
  };
  size_t n_effects = 0;
  for (const auto& [at, own] : of_block) n_effects += n * n_choices_of(own);
  if (!together || n_effects > kMostEffects) return;
  struct Choices {
    std::vector<Steps> steps;                  // in both engines; one that is 0 is left out
    std::vector<std::vector<double>> effects;  // of each, (n)
    size_t taken = 0;
  };
  std::vector<Choices> blocks;
  Steps rest_steps;  // of all other blocks
  for (const auto& step : found->steps)
    if (!of_block.contains(BlockOf(steps_[static_cast<size_t>(step.first)]))) rest_steps.push_back(step);
  for (const auto& [at, own] : of_block) {
    Choices& c = blocks.emplace_back();
    Steps before;
    for (const auto& step : found->steps)
      if (BlockOf(steps_[static_cast<size_t>(step.first)]) == at) before.push_back(step);
    const size_t n_choices = n_choices_of(own);
    for (size_t choice = 0; choice < n_choices; choice++) {
      Steps& steps = c.steps.emplace_back();
      size_t digits = choice;
      for (const auto& [id, none] : own) {
        if (digits % 3 != 0) steps.emplace_back(id, digits % 3 == 1 ? 1 : -1);
        digits /= 3;
      }
      if (steps == before) c.taken = choice;
    }
    c.effects.assign(n_choices, std::vector<double>(n));
  }
  std::vector<double> rest(difference.begin(), difference.end());
  for (size_t i = 0; i < n; i++) {
    ReadRow(features.empty() ? static_cast<int64_t>(i) : features[i]);
    rest[i] -= Effect(rest_steps);
    for (Choices& c : blocks) {
      for (size_t k = 0; k < c.steps.size(); k++) c.effects[k][i] = Effect(c.steps[k]);
      rest[i] -= c.effects[c.taken][i];
    }
  }
  const auto square_with = [&](const Choices& c, size_t k) {
    double square = 0;
    for (size_t i = 0; i < n; i++) {
      const double value = rest[i] + c.effects[c.taken][i] - c.effects[k][i];
      square += value * value;
    }
    return square;
  };
  for (bool changed = true; changed;) {
    changed = false;
    for (Choices& c : blocks) {
      size_t best = c.taken;
      double least = square_with(c, best);
      for (size_t k = 0; k < c.steps.size(); k++)
        if (const double square = square_with(c, k); square < least * (1 - 1e-12)) least = square, best = k;
      if (best == c.taken) continue;
      for (size_t i = 0; i < n; i++) rest[i] += c.effects[c.taken][i] - c.effects[best][i];
      c.taken = best, changed = true;
    }
  }
  found->steps = rest_steps;
  double square = 0;
  for (const Choices& c : blocks)
    found->steps.insert(found->steps.end(), c.steps[c.taken].begin(), c.steps[c.taken].end());
  for (double value : rest) square += value * value;
  const double norm = std::sqrt(square);
  found->remainder_ratio = norm == 0        ? 0
                           : bound_norm > 0 ? norm / bound_norm
                                            : std::numeric_limits<double>::infinity();
}

void BoundarySteps::Subtract(const Steps& steps, float* outputs) {
  for (int64_t j = 0; !steps.empty() && j < w_.n_rows; j++) {
    ReadRow(j);
    outputs[j] -= static_cast<float>(Effect(steps));
  }
}

StepCounts BoundarySteps::Count(const Steps& steps) const {
  StepCounts counts;
  for (const auto& [id, side] : steps) {
    const Kind kind = steps_[static_cast<size_t>(id)].kind;
    (kind == Kind::kCode ? counts.codes : kind == Kind::kScale ? counts.scales : counts.sums)++;
  }
  return counts;
}

void BoundarySteps::ReadRow(int64_t j) {
  DecodeRow(w_, j, row_.data());
  // Q8_1's blocks are of 32.
  if (scheme_ == ActScheme::kQ8_1) minima_ = BlockMinima(w_, j);
  if (minima_.size() != blocks_.size()) minima_.clear();
}

// What the candidate's output of the row that was read gains where it takes the other neighbour (+1)
// or the reference does (-1). Steps of one block act together.
double BoundarySteps::Effect(std::span<const std::pair<int64_t, int>> steps) const {
  std::map<int64_t, std::array<Stepped, 2>> blocks;  // candidate, reference
  for (const auto& [id, side] : steps) {
    const Step& step = steps_[static_cast<size_t>(id)];
    const int64_t at = BlockOf(step);
    Stepped& stepped = blocks[at][side > 0 ? 0 : 1];
    if (step.kind == Kind::kScale) stepped.scale = true;
    if (step.kind == Kind::kSum) stepped.stored = true;
    if (step.kind != Kind::kCode) continue;
    const auto column = static_cast<size_t>(step.at);
    const int change = OtherWay(x_[column], blocks_[static_cast<size_t>(at)]);
    stepped.sum += change, stepped.weighted += change * (double(row_[column]) - MinimumOf(at));
  }
  double effect = 0;
  for (const auto& [at, sides] : blocks) {
    const bool scales = sides[0].scale || sides[1].scale;
    const double codes_times_weights = scales ? CodesTimesWeights(at) : 0;
    effect += Product(at, sides[0], codes_times_weights) - Product(at, sides[1], codes_times_weights);
  }
  return effect * scale_;
}

// Without the part of a minimum, which meets the stored sum.
double BoundarySteps::CodesTimesWeights(int64_t block) const {
  const ActBlock& b = blocks_[static_cast<size_t>(block)];
  double sum = 0;
  for (int64_t k = block * block_; k < (block + 1) * block_; k++) {
    const auto column = static_cast<size_t>(k);
    sum += CodeOf(x_[column], b) * (double(row_[column]) - MinimumOf(block));
  }
  return sum;
}

double BoundarySteps::Product(int64_t block, const Stepped& stepped, double codes_times_weights) const {
  const ActBlock& b = blocks_[static_cast<size_t>(block)];
  const double d = stepped.scale ? OtherScale(b).value_or(b.from_code) : b.from_code;
  double product = d * (codes_times_weights + stepped.weighted);
  if (minima_.empty()) return product;
  const int sum = b.sum + stepped.sum;
  const double stored = StoredSum(b, sum);
  return product +
         MinimumOf(block) * (stepped.stored ? OtherSum(b, ValuesOf(block), sum).value_or(stored) : stored);
}

}  // namespace pb::codes
