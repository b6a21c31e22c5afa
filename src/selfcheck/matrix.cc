// What the results of a self-check come to, and whether its goals hold.
#include <set>

#include "selfcheck/self_check.h"

namespace pb::selfcheck {
namespace {

constexpr double kExactGoal = 0.98, kBlameGoal = 0.95;
constexpr int64_t kLeastNames = 60, kLeastBenign = 200;

bool IsPlaced(const SelfResult& r) { return r.exact && r.spot.value_or(true); }

void CountDefect(const SelfResult& r, SelfRow* row) {
  if (!r.error.empty()) {
    row->failed++;
  } else if (!r.skipped.empty()) {
    row->skipped++;
  } else {
    row->n++;
    row->detected += r.detected, row->exact += IsPlaced(r), row->within_one += r.within_one;
    row->spots += r.spot.has_value(), row->spots_right += r.spot.value_or(false);
    row->blamed += r.blamed, row->named += r.named;
  }
}

void CountBenign(const SelfResult& r, SelfMatrix* m) {
  if (!r.error.empty()) {
    m->n_benign_failed++;
  } else if (r.detected) {  // also of what changed nothing
    m->n_benign++, m->n_alarms++;
  } else if (!r.skipped.empty()) {
    m->n_unchanged++;
  } else {
    m->n_benign++;
  }
}

bool IsMiss(const SelfResult& r) {
  if (!r.error.empty()) return true;
  if (r.benign) return r.detected;
  return r.skipped.empty() && !(r.detected && IsPlaced(r) && r.blamed && r.named);
}

void CheckGoals(bool whole, SelfMatrix* m) {
  const SelfRow& t = m->total;
  auto least = [&](const char* what, int64_t n, double goal) {
    if (static_cast<double>(n) < goal * static_cast<double>(t.n))
      m->broken_goals.push_back(
          fmt::format("{} of {} defects are {}, the goal is {:.0f} %", n, t.n, what, 100 * goal));
  };
  if (t.n == 0 && m->n_benign == 0) m->broken_goals.push_back("nothing was checked");
  least("detected", t.detected, 1);
  least("placed at the exact op, with its row or head", t.exact, kExactGoal);
  least("blamed on the engine that has them", t.blamed, kBlameGoal);
  if (m->n_alarms > 0)
    m->broken_goals.push_back(
        fmt::format("{} of {} harmless changes raise an alarm, the goal is none", m->n_alarms, m->n_benign));
  if (t.failed + m->n_benign_failed > 0)
    m->broken_goals.push_back(fmt::format("{} cases could not be run", t.failed + m->n_benign_failed));
  if (!whole) return;
  if (m->n_names < kLeastNames)
    m->broken_goals.push_back(
        fmt::format("{} different defects count, at least {} should", m->n_names, kLeastNames));
  if (m->n_benign < kLeastBenign)
    m->broken_goals.push_back(
        fmt::format("{} harmless changes change bits, at least {} should", m->n_benign, kLeastBenign));
}

}  // namespace

SelfMatrix CountSelfCheck(const std::vector<SelfResult>& results, bool whole) {
  SelfMatrix m;
  m.total.kind = "all";
  std::map<std::string, SelfRow> rows;
  std::set<std::string> names;
  for (const SelfResult& r : results) {
    if (IsMiss(r)) m.misses.push_back(&r);
    if (r.benign) {
      CountBenign(r, &m);
      continue;
    }
    CountDefect(r, &rows[r.kind]);
    CountDefect(r, &m.total);
    if (r.error.empty() && r.skipped.empty()) names.insert(r.defect);
    if (r.error.empty() && !r.skipped.empty()) m.unseen[r.defect + ": " + r.skipped]++;
  }
  for (auto& [kind, row] : rows) {
    row.kind = kind;
    m.rows.push_back(row);
  }
  m.n_names = static_cast<int64_t>(names.size());
  CheckGoals(whole, &m);
  return m;
}

}  // namespace pb::selfcheck
