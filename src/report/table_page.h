// The page of a command whose result is many verdicts: a sentence over all of them, tables, and
// what is folded away of each. What stands in it is data, so a further table is a further entry of
// `tables`.
#ifndef PARITYBIT_REPORT_TABLE_PAGE_H_
#define PARITYBIT_REPORT_TABLE_PAGE_H_

#include <string>
#include <utility>
#include <vector>

#include "run/record.h"

namespace pb::report {

// Any text: nothing of it can become markup.
struct PageCell {
  // Most cells are a text alone.
  PageCell(std::string shown = "", std::string how = "", std::string beside = "", std::string to = "")
      : text(std::move(shown)), tone(std::move(how)), more(std::move(beside)), leads_to(std::move(to)) {}
  PageCell(const char* shown) : text(shown) {}
  std::string text;
  std::string tone;      // a verdict, or "good" "bad" "open" "plain", whose colour it has; empty: none
  std::string more;      // smaller, beside it
  std::string leads_to;  // id of a part
};

struct PageColumn {
  std::string name;
  bool is_number = false;
};

struct PageTable {
  std::string id, title, about;  // id: of letters, of its own in the page
  std::vector<PageColumn> columns;
  std::vector<std::vector<PageCell>> rows;  // the first cell of each heads it
};

// One verdict of many, folded.
struct PagePart {
  std::string id, title;
  PageCell state;
  std::string text;
  std::vector<std::pair<std::string, std::string>> facts;
  std::vector<run::NextCommand> commands;
};

struct TablePage {
  std::string command, tool_version, created;  // created: RFC 3339, UTC; the caller's
  std::string again;                           // the command, as it can be pasted
  std::string word;                            // "DIVERGED"
  std::string sentence, place_name, place;     // "Where", "cell a+b: prompt 0, position 3"
  std::vector<PageTable> tables;
  std::string parts_title, parts_about;
  std::vector<PagePart> parts;
  std::string json;  // of --format json, whose first fields ARCHITECTURE.md has
};

std::string RenderTablePage(const TablePage& page);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_TABLE_PAGE_H_
