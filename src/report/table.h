// Tables for a terminal: columns as wide as their cells, fewer of them where the width is small.
#ifndef PARITYBIT_REPORT_TABLE_H_
#define PARITYBIT_REPORT_TABLE_H_

#include <cstddef>
#include <string>
#include <vector>

namespace pb::report {

struct Column {
  std::string head;
  bool left = false;  // else cells stand at the right, as numbers do
  // 0: always shown. Where the width does not hold all, columns of the largest rank are left out
  // first, of equal ones the last; then cells are cut, then columns of rank 1 are left out.
  int rank = 0;
  size_t most = 40;  // columns of a terminal that a cell may take
  size_t least = 0;  // how far its cells may be cut, but not below the head; 0: they may not
};

class Table {
 public:
  explicit Table(std::vector<Column> columns, size_t indent = 0)
      : columns_(std::move(columns)), indent_(indent) {}

  // One cell a column; a cell that is cut keeps its quotation marks.
  void Row(std::vector<std::string> cells) { rows_.push_back({std::move(cells), ""}); }
  // A line of its own between rows.
  void Line(std::string text) { rows_.push_back({{}, std::move(text)}); }
  // Heads, then the rows, each line within `width` and without blanks at its end.
  std::string Render(size_t width) const;
  // Heads of the columns that such a width leaves out.
  std::vector<std::string> LeftOut(size_t width) const;

 private:
  struct RowOrLine {
    std::vector<std::string> cells;
    std::string line;
  };
  // Of each column: columns of the terminal; 0: left out.
  std::vector<size_t> Widths(size_t width) const;

  std::vector<Column> columns_;
  size_t indent_;
  std::vector<RowOrLine> rows_;
};

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_TABLE_H_
