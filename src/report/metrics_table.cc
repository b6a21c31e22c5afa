// Columns and rows of both tables, with those that are beyond a limit marked.
#include "report/metrics_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "report/escape.h"
#include "report/table.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using compare::LogitsRow;

constexpr size_t kRowsShown = 6;
constexpr int kWide = 110;                          // columns from which on all metrics are shown
constexpr const char* kAboveMark = "\xe2\x9c\x97";  // a cross
constexpr const char* kFlipMark = "~";

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
      : c_(c),
        options_(options),
        many_prompts_(c.prompts.size() > 1),
        more_(options.all || options.details || options.width >= kWide),
        table_(ColumnsOf(more_)) {}

  std::string Render() {
    const auto width = static_cast<size_t>(options_.width);
    std::vector<size_t> chosen = ChooseRows(c_.rows, options_.all);
    int32_t prompt = -1;
    for (size_t i : chosen) {
      if (many_prompts_ && c_.rows[i].prompt != prompt) table_.Line(PromptLine(prompt = c_.rows[i].prompt));
      Row(c_.rows[i]);
    }
    std::string out = table_.Render(width);
    if (chosen.size() < c_.rows.size()) out += Omitted(chosen);
    out += Legend(table_.LeftOut(width));
    if (options_.colour && any_above_) Colour(&out);
    return out;
  }

 private:
  static std::vector<Column> ColumnsOf(bool more) {
    std::vector<Column> columns{
        {"pos"}, {"token", true, 0, 10, 6}, {"KL"}, {"limit", false, 1}, {"rel-L2", false, 2}};
    if (more)
      for (const Column& column : {Column{"max abs", false, 4}, {"1-cos", false, 5}, {"top-k", false, 3}})
        columns.push_back(column);
    for (const Column& column :
         {Column{"candidate", true, 0, 10, 6}, {"reference", true, 0, 10, 6}, {"margin", false, 1}, {""}})
      columns.push_back(column);
    return columns;
  }

  std::string PromptLine(int32_t prompt) const {
    std::string text = static_cast<size_t>(prompt) < c_.prompts.size()
                           ? Escape(c_.prompts[static_cast<size_t>(prompt)].text)
                           : "";
    if (Columns(text) > 50) text = Fit(text, 50);
    return fmt::format("prompt {}  \"{}\"", prompt, text);
  }

  std::string Token(int32_t id) const {
    auto it = c_.token_text.find(id);
    if (it != c_.token_text.end()) return "\"" + Escape(it->second) + "\"";
    return id < 0 ? "-" : std::to_string(id);
  }

  void Row(const LogitsRow& row) {
    const compare::Limit *limit = FindLimit(c_.verdict, "kl.worst"),
                         *gap = FindLimit(c_.verdict, "gap.change");
    any_above_ |= row.above_limit;
    // Without a limit of the gap a change of choice is not held against anything.
    const bool tied = !row.above_limit && row.flipped() && gap;
    any_tied_ |= tied;
    std::vector<std::string> cells{std::to_string(row.position), Token(row.token), Number(row.kl),
                                   limit ? Number(limit->value) : "-", Number(row.rel_l2)};
    if (more_)
      for (std::string cell : {Number(row.max_abs), Number(1 - row.cosine),
                               fmt::format("{}/{}", row.top_k_overlap, row.top_k[1].size())})
        cells.push_back(std::move(cell));
    for (int side : {0, 1}) cells.push_back(Token(row.top1[side]));
    cells.push_back(std::isfinite(row.gap_reference) ? fmt::format("{:.2f}", row.gap_reference) : "NaN");
    cells.emplace_back(row.above_limit ? kAboveMark : tied ? kFlipMark : "");
    table_.Row(std::move(cells));
  }

  // What columns and marks mean.
  std::string Legend(const std::vector<std::string>& left_out) const {
    std::vector<std::string> parts{many_prompts_ ? "positions and prompts count from 0"
                                                 : "positions count from 0"};
    auto shown = [&](const char* head) {
      return std::find(left_out.begin(), left_out.end(), head) == left_out.end();
    };
    parts.push_back("candidate, reference: the next token that each chooses");
    if (shown("margin")) parts.push_back("margin: nats from the reference's choice to its second");
    if (any_above_) parts.push_back(fmt::format("{} beyond a limit", kAboveMark));
    if (any_tied_)
      parts.push_back(fmt::format("{} another choice, by less than noise moves them", kFlipMark));
    if (options_.all && !left_out.empty())
      parts.push_back(fmt::format("not enough room for {}", fmt::join(left_out, ", ")));
    return "  " + Wrap(fmt::format("{}", fmt::join(parts, "; ")), static_cast<size_t>(options_.width), 2) +
           "\n";
  }

  // The marks of lines beyond a limit.
  static void Colour(std::string* text) {
    const std::string mark = std::string(kAboveMark), line_end = mark + "\n",
                      red = "\x1b[31m" + mark + "\x1b[0m\n";
    for (size_t at = 0; (at = text->find(line_end, at)) != std::string::npos; at += red.size())
      text->replace(at, line_end.size(), red);
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
  const bool many_prompts_;
  bool any_above_ = false, any_tied_ = false;
  const bool more_;  // columns for whom everything interests
  Table table_;
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

// "15 positions: KL 7.6e-01 on average, 3.5e+00 at worst, at 0; 7 choices of 15 are equal".
std::string PhaseLine(const std::vector<const LogitsRow*>& rows, bool prefill, bool many_prompts) {
  Summary s;
  int64_t n_equal = 0;
  for (const LogitsRow* row : rows) {
    s.Add(*row, row->kl);
    n_equal += row->finite && !row->flipped();
  }
  const char* unit = prefill ? "position" : "step";
  std::string text = fmt::format("{} {}{}: KL {} on average, {} at worst, at {}", rows.size(), unit,
                                 rows.size() == 1 ? "" : "s", Number(s.sum / static_cast<double>(s.n)),
                                 Number(s.worst), s.at->position);
  if (many_prompts) text += fmt::format(" of prompt {}", s.at->prompt);
  return text + fmt::format("; the choice is equal at {} of {}", n_equal, rows.size());
}

}  // namespace

std::string PositionTable(const run::Comparison& comparison, const TextOptions& options) {
  return Positions(comparison, options).Render();
}

std::string MetricsLines(const run::Comparison& comparison, const TextOptions& options) {
  std::string out;
  for (compare::Phase phase : {compare::Phase::kPrefill, compare::Phase::kDecode}) {
    std::vector<const LogitsRow*> rows;
    for (const LogitsRow& row : comparison.rows)
      if (row.phase == phase) rows.push_back(&row);
    if (!rows.empty())
      out += LabelledLine(compare::PhaseName(phase),
                          PhaseLine(rows, phase == compare::Phase::kPrefill, comparison.prompts.size() > 1),
                          options.width);
  }
  return out;
}

std::string MetricsTable(const run::Comparison& comparison) { return Metrics(comparison).Render(); }

}  // namespace pb::report
