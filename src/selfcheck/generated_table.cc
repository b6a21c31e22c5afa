// Truths against what was said, and what the results of generated defects count as.
#include <fmt/format.h>

#include <cmath>
#include <map>

#include "selfcheck/generated.h"

namespace pb::selfcheck {
namespace {

using diagnose::Conclusion, diagnose::Match;

// A true name stands for all that begin with it.
Conclusion WithFullName(Conclusion truth, const Conclusion& said) {
  const bool begins = truth.what == diagnose::WhatKind::kVariation && truth.name.ends_with("=") &&
                      said.what == diagnose::WhatKind::kVariation && said.name.starts_with(truth.name);
  if (begins) truth.name = said.name;
  return truth;
}

void Count(const SelfResult& r, GeneratedRow* row) {
  if (!r.error.empty()) {
    row->failed++;
    return;
  }
  if (!r.skipped.empty()) {
    row->skipped++;
    return;
  }
  row->n++;
  row->plain += r.found_by == "plain", row->found += r.detected;
  row->placed += r.exact, row->blamed += r.blamed, row->both += r.exact && r.blamed;
  row->right += r.match == "right", row->partial += r.match == "partial", row->wrong += r.match == "wrong";
  row->nothing += r.match == "nothing" || r.match.empty();
}

bool IsMiss(const SelfResult& r) {
  if (!r.error.empty()) return true;
  if (r.benign) return r.detected;
  return r.skipped.empty() && !(r.detected && r.exact && r.blamed && r.match == "right");
}

std::string Share(int64_t x, int64_t n) {
  const double share = n > 0 ? 100 * static_cast<double>(x) / static_cast<double>(n) : 0;
  return fmt::format("{} of {} ({:.1f} %)", x, n, share);
}

// The log of the probability of x of n with a share of p.
double LogBinomial(int64_t x, int64_t n, double p) {
  const auto a = static_cast<double>(x), b = static_cast<double>(n);
  return std::lgamma(b + 1) - std::lgamma(a + 1) - std::lgamma(b - a + 1) + a * std::log(p) +
         (b - a) * std::log1p(-p);
}

void Judge(GeneratedTable* t) {
  const GeneratedRow& all = t->total;
  const auto at_least = [&](int64_t x, double goal) {
    return all.n > 0 && static_cast<double>(x) >= goal * static_cast<double>(all.n);
  };
  auto none = [](int64_t x, int64_t n) {
    return fmt::format("{} of {}, at most {:.1f} % with 95 % confidence", x, n, 100 * UpperLimit(x, n));
  };
  t->goals = {
      {fmt::format("all are found with --paths all: {}", Share(all.found, all.n)), at_least(all.found, 1)},
      {fmt::format("98 % are placed and blamed right: {}", Share(all.both, all.n)), at_least(all.both, 0.98)},
      {fmt::format("80 % of the conclusions are right: {}", Share(all.right, all.n)),
       at_least(all.right, 0.8)},
      {fmt::format("no conclusion is wrong: {}", none(all.wrong, all.n)), all.n > 0 && all.wrong == 0},
      {fmt::format("no harmless change raises an alarm: {}", none(t->n_alarms, t->n_benign)),
       t->n_benign > 0 && t->n_alarms == 0},
  };
}

}  // namespace

Result<std::vector<Conclusion>> ParseTruth(const std::string& text) {
  constexpr std::string_view kOr = " | ";
  std::vector<Conclusion> truths;
  for (std::string_view rest = text;;) {
    const size_t end = rest.find(kOr);
    // One that says nothing would accept all that is said.
    if (rest.substr(0, end).empty()) return MakeError(Code::kUsage, "\"{}\" is no truth", text);
    PB_ASSIGN(Conclusion truth, diagnose::ParseConclusion(rest.substr(0, end)));
    truths.push_back(std::move(truth));
    if (end == std::string_view::npos) return truths;
    rest = rest.substr(end + kOr.size());
  }
}

Match MatchTruth(const Conclusion& said, const std::vector<Conclusion>& truths) {
  // From best to worst, as they are declared.
  Match best = Match::kWrong;
  for (const Conclusion& truth : truths) best = std::min(best, Compare(said, WithFullName(truth, said)));
  return best;
}

const char* MatchName(Match match) {
  switch (match) {
    case Match::kRight:
      return "right";
    case Match::kPartial:
      return "partial";
    case Match::kNothing:
      return "nothing";
    case Match::kWrong:
      return "wrong";
  }
  return "";
}

double UpperLimit(int64_t x, int64_t n) {
  if (x >= n) return 1;
  // The share at which x or fewer of n have a probability of 5 %.
  double low = 0, high = 1;
  constexpr int kSteps = 60;
  for (int i = 0; i < kSteps; i++) {
    const double p = (low + high) / 2;
    double sum = 0;
    for (int64_t k = 0; k <= x; k++) sum += std::exp(LogBinomial(k, n, p));
    (sum > 0.05 ? low : high) = p;
  }
  return high;
}

GeneratedTable CountGenerated(const std::vector<SelfResult>& results) {
  GeneratedTable t;
  t.total.kind = "all";
  std::map<std::string, GeneratedRow> rows;
  for (const SelfResult& r : results) {
    if (IsMiss(r)) t.misses.push_back(&r);
    if (!r.benign) {
      Count(r, &rows[r.kind]);
      Count(r, &t.total);
    } else if (!r.error.empty()) {
      t.n_benign_failed++;
    } else if (r.detected || r.skipped.empty()) {
      t.n_benign++, t.n_alarms += r.detected;
    } else {
      t.n_unchanged++;
    }
  }
  for (auto& [kind, row] : rows) {
    row.kind = kind;
    t.rows.push_back(row);
  }
  Judge(&t);
  return t;
}

}  // namespace pb::selfcheck
