// Columns and rows of both tables, with those that are beyond a limit marked.
#include "report/metrics_table.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "report/escape.h"

namespace pb::report {
namespace {

using compare::LogitsRow;

constexpr size_t kRowsShown = 6;
constexpr int kWide = 110;

std::string Number(double v) {
  return std::isfinite(v) ? fmt::format("{:.1e}", v) : std::isnan(v) ? "NaN" : "inf";
}

const compare::Limit* FindLimit(const compare::Verdict& verdict, std::string_view name) {
  for (const compare::Limit& limit : verdict.limits)
    if (limit.name == name) return &limit;
  return nullptr;
}

// How bad a row is, for choosing which to show; NaN is worst.
double Badness(const LogitsRow& row) { return std::isnan(row.kl) ? HUGE_VAL : row.kl; }

// Indices of the rows to show, in order.
std::vector<size_t> ChooseRows(const std::vector<LogitsRow>& rows, bool all) {
  std::vector<size_t> chosen(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) chosen[i] = i;
  if (all || rows.size() <= kRowsShown) return chosen;
  bool any_above = std::any_of(rows.begin(), rows.end(), [](const LogitsRow& r) { return r.above_limit; });
  if (any_above)
    std::stable_sort(chosen.begin(), chosen.end(),
                     [&](size_t a, size_t b) { return rows[a].above_limit > rows[b].above_limit; });
  else
    std::stable_sort(chosen.begin(), chosen.end(), [&](size_t a, size_t b) {
      auto key = [&](size_t i) { return std::pair(rows[i].flipped(), Badness(rows[i])); };
      return key(a) > key(b);
    });
  chosen.resize(kRowsShown);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

class Positions {
 public:
  Positions(const run::Comparison& c, const TextOptions& options)
      : c_(c), options_(options), many_prompts_(c.prompts.size() > 1), wide_(options.width >= kWide) {}

  std::string Render() const {
    std::string out = Heading();
    std::vector<size_t> chosen = ChooseRows(c_.rows, options_.all);
    int32_t prompt = -1;
    for (size_t i : chosen) {
      if (many_prompts_ && c_.rows[i].prompt != prompt) out += PromptLine(prompt = c_.rows[i].prompt);
      out += Row(c_.rows[i]);
    }
    if (chosen.size() < c_.rows.size()) out += Omitted(chosen);
    return out;
  }

 private:
  std::string Heading() const {
    return fmt::format("{:>5}  {:<10}  {:>7}  {:>7}  {:>7}  {}{:<23} {:>6}\n", "pos", "token", "KL", "limit",
                       "rel-L2", wide_ ? "max abs    1-cos  top-k  " : "", "top-1 cand. | reference",
                       "margin");
  }

  std::string PromptLine(int32_t prompt) const {
    std::string text = static_cast<size_t>(prompt) < c_.prompts.size()
                           ? Escape(c_.prompts[static_cast<size_t>(prompt)].text)
                           : "";
    if (Columns(text) > 50) text = Fit(text, 50);
    return fmt::format("prompt {}  \"{}\"\n", prompt, text);
  }

  std::string Token(int32_t id, bool quoted, size_t columns) const {
    auto it = c_.token_text.find(id);
    std::string text = it == c_.token_text.end() ? (id < 0 ? "-" : std::to_string(id)) : Escape(it->second);
    if (!quoted || it == c_.token_text.end()) return Fit(text, columns);
    if (Columns(text) + 2 > columns) {
      std::string cut = Fit(text, columns - 2);
      return "\"" + cut + "\"";
    }
    return Fit("\"" + text + "\"", columns);
  }

  std::string Row(const LogitsRow& row) const {
    const compare::Limit* limit = FindLimit(c_.verdict, "kl.worst");
    std::string line =
        fmt::format("{:>5}  {}  {:>7}  {:>7}  {:>7}  ", row.position, Token(row.token, true, 10),
                    Number(row.kl), limit ? Number(limit->value) : "-", Number(row.rel_l2));
    if (wide_)
      line += fmt::format("{:>7}  {:>7}  {:>5}  ", Number(row.max_abs), Number(1 - row.cosine),
                          fmt::format("{}/{}", row.top_k_overlap, row.top_k[1].size()));
    line += fmt::format("{} | {} {:>6}", Token(row.top1[0], true, 10), Token(row.top1[1], true, 10),
                        std::isfinite(row.gap_reference) ? fmt::format("{:.2f}", row.gap_reference) : "NaN");
    if (row.above_limit)
      line += options_.colour ? " \x1b[31m\xe2\x9c\x97\x1b[0m" : " \xe2\x9c\x97";
    else if (row.flipped())
      line += " ~";
    return line + "\n";
  }

  std::string Omitted(const std::vector<size_t>& chosen) const {
    auto n_above = [](auto begin, auto end, auto row) { return std::count_if(begin, end, row); };
    auto all = n_above(c_.rows.begin(), c_.rows.end(), [](const LogitsRow& r) { return r.above_limit; });
    auto shown = n_above(chosen.begin(), chosen.end(), [&](size_t i) { return c_.rows[i].above_limit; });
    return fmt::format("  ...  ({} more, {} of them beyond a limit; --all shows them)\n",
                       c_.rows.size() - chosen.size(), all - shown);
  }

  const run::Comparison& c_;
  const TextOptions& options_;
  const bool many_prompts_, wide_;
};

// Mean and worst of one metric over some rows.
struct Summary {
  double sum = 0, worst = 0;
  int64_t n = 0;
  const LogitsRow* at = nullptr;
  void Add(const LogitsRow& row, double value) {
    sum += value;
    ++n;
    if (!at || !(value <= worst)) worst = value, at = &row;
  }
};

class Metrics {
 public:
  explicit Metrics(const run::Comparison& c) : c_(c) {}

  std::string Render() {
    for (compare::Phase phase : {compare::Phase::kPrefill, compare::Phase::kDecode}) RenderPhase(phase);
    return std::move(out_);
  }

 private:
  template <typename Value>
  void Line(const char* name, Value value) {
    Summary s;
    for (const LogitsRow* row : rows_) s.Add(*row, value(*row));
    std::string at = std::to_string(s.at->position);
    if (c_.prompts.size() > 1) at += fmt::format(" of prompt {}", s.at->prompt);
    out_ += fmt::format("  {:<22} {:>7}  {:>7}  at {}\n", name, Number(s.sum / static_cast<double>(s.n)),
                        Number(s.worst), at);
  }

  void RenderPhase(compare::Phase phase) {
    rows_.clear();
    for (const LogitsRow& row : c_.rows)
      if (row.phase == phase) rows_.push_back(&row);
    if (rows_.empty()) return;
    bool prefill = phase == compare::Phase::kPrefill;
    out_ += fmt::format(
        "\n{:<24} {:>7}  {:>7}\n",
        fmt::format("{}, {} {}", compare::PhaseName(phase), rows_.size(), prefill ? "positions" : "steps"),
        "mean", "worst");
    Line("KL (nats)", [](const LogitsRow& r) { return r.kl; });
    Line("rel-L2", [](const LogitsRow& r) { return r.rel_l2; });
    Line("max |change of log p|", [](const LogitsRow& r) { return r.max_abs; });
    Line("1 - cosine", [](const LogitsRow& r) { return 1 - r.cosine; });
    TopLine();
  }

  void TopLine() {
    int64_t equal = 0, overlap = 0, least = INT32_MAX, k = 0;
    for (const LogitsRow* row : rows_) {
      if (!row->finite) return;  // what is not finite has no order
      equal += !row->flipped();
      overlap += row->top_k_overlap;
      least = std::min<int64_t>(least, row->top_k_overlap);
      k = std::max<int64_t>(k, static_cast<int64_t>(row->top_k[1].size()));
    }
    out_ +=
        fmt::format("  top-1 equal at {} of {}; of the best {}, {:.2f} in common, {} at worst\n", equal,
                    rows_.size(), k, static_cast<double>(overlap) / static_cast<double>(rows_.size()), least);
  }

  const run::Comparison& c_;
  std::vector<const LogitsRow*> rows_;
  std::string out_;
};

}  // namespace

std::string PositionTable(const run::Comparison& comparison, const TextOptions& options) {
  return Positions(comparison, options).Render();
}

std::string MetricsTable(const run::Comparison& comparison) { return Metrics(comparison).Render(); }

}  // namespace pb::report
