// Measures the columns of a table, leaves out and cuts what does not fit, and lays out the rest.
#include "report/table.h"

#include <algorithm>
#include <numeric>

#include "report/escape.h"

namespace pb::report {
namespace {

constexpr size_t kBetween = 2;  // blanks between columns

std::string Cell(const std::string& text, size_t columns, bool left) {
  const size_t n = Columns(text);
  if (n > columns && columns > 2 && text.front() == '"' && text.back() == '"')
    return "\"" + Fit(text.substr(1, text.size() - 2), columns - 2) + "\"";
  if (n >= columns || left) return Fit(text, columns);
  return std::string(columns - n, ' ') + text;
}

}  // namespace

std::vector<size_t> Table::Widths(size_t width) const {
  std::vector<size_t> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    size_t widest = Columns(columns_[i].head);
    for (const RowOrLine& row : rows_)
      if (!row.cells.empty()) widest = std::max(widest, std::min(Columns(row.cells[i]), columns_[i].most));
    widths.push_back(widest);
  }
  auto total = [&] {
    const auto shown = std::count_if(widths.begin(), widths.end(), [](size_t w) { return w > 0; });
    return indent_ + std::accumulate(widths.begin(), widths.end(), size_t{0}) +
           kBetween * static_cast<size_t>(std::max<ptrdiff_t>(shown - 1, 0));
  };
  while (total() > width) {
    size_t last = columns_.size(), cut = columns_.size();
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (widths[i] == 0) continue;
      if (columns_[i].rank > 0 && (last == columns_.size() || columns_[i].rank >= columns_[last].rank))
        last = i;
      if (columns_[i].least > 0 && widths[i] > std::max(columns_[i].least, Columns(columns_[i].head)) &&
          (cut == columns_.size() || widths[i] > widths[cut]))
        cut = i;
    }
    const bool can_drop = last < columns_.size(), can_cut = cut < columns_.size();
    if (can_drop && (columns_[last].rank > 1 || !can_cut))
      widths[last] = 0;
    else if (can_cut)
      --widths[cut];
    else
      break;
  }
  return widths;
}

std::string Table::Render(size_t width) const {
  const std::vector<size_t> widths = Widths(width);
  std::string out;
  auto add = [&](const std::vector<std::string>& cells) {
    std::string line(indent_, ' ');
    for (size_t i = 0; i < cells.size(); ++i) {
      if (widths[i] == 0) continue;
      if (line.size() > indent_) line.append(kBetween, ' ');
      line += Cell(cells[i], widths[i], columns_[i].left);
    }
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  };
  std::vector<std::string> heads;
  for (const Column& column : columns_) heads.push_back(column.head);
  add(heads);
  for (const RowOrLine& row : rows_) {
    if (row.cells.empty())
      out += row.line + "\n";
    else
      add(row.cells);
  }
  return out;
}

std::vector<std::string> Table::LeftOut(size_t width) const {
  const std::vector<size_t> widths = Widths(width);
  std::vector<std::string> heads;
  for (size_t i = 0; i < columns_.size(); ++i)
    if (widths[i] == 0 && !columns_[i].head.empty()) heads.push_back(columns_[i].head);
  return heads;
}

}  // namespace pb::report
