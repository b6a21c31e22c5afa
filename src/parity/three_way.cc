// Three comparisons, of which two that agree leave the third alone.
#include "parity/three_way.h"

#include <optional>

namespace pb::parity {
namespace {

// None: it was not decided.
std::optional<bool> Agree(compare::Outcome outcome) {
  switch (outcome) {
    case compare::Outcome::kMatch:
    case compare::Outcome::kNearTie:
    case compare::Outcome::kDrift:
      return true;
    case compare::Outcome::kDiverged:
      return false;
    default:
      return std::nullopt;
  }
}

}  // namespace

const char* AloneName(Alone alone) {
  switch (alone) {
    case Alone::kNobody:
      return "nobody";
    case Alone::kCandidate:
      return "candidate";
    case Alone::kReference:
      return "reference";
    case Alone::kReferenceB:
      return "reference-b";
    case Alone::kAllDiffer:
      return "all differ";
    case Alone::kUndecided:
      return "undecided";
  }
  return "undecided";
}

Alone WhoStandsAlone(compare::Outcome candidate_and_a, compare::Outcome candidate_and_b,
                     compare::Outcome a_and_b) {
  const auto ca = Agree(candidate_and_a), cb = Agree(candidate_and_b), ab = Agree(a_and_b);
  if (!ca || !cb || !ab) return Alone::kUndecided;
  const int n_agree = *ca + *cb + *ab;
  if (n_agree == 3) return Alone::kNobody;
  if (n_agree == 0) return Alone::kAllDiffer;
  if (n_agree == 2) return Alone::kUndecided;
  return *ab ? Alone::kCandidate : *cb ? Alone::kReference : Alone::kReferenceB;
}

}  // namespace pb::parity
