// Text of tokens and engines made safe to print: control characters and bytes that are no UTF-8
// become visible escapes.
#ifndef PARITYBIT_REPORT_ESCAPE_H_
#define PARITYBIT_REPORT_ESCAPE_H_

#include <string>
#include <string_view>

namespace pb::report {

// Control characters (C0, DEL, C1), quotation marks, backslashes, bidirectional overrides and
// invalid UTF-8 are escaped as in C (\n, \x1b, \u202e); the rest is kept.
std::string Escape(std::string_view text);
// Code points of valid UTF-8: columns, as near as it gets without a font.
size_t Columns(std::string_view text);
// Cut to `columns` with an ellipsis, or padded with blanks on the right.
std::string Fit(std::string_view text, size_t columns);
// Stands for a blank at which Wrap ends no line.
inline constexpr std::string_view kNoBreak = "\xc2\xa0";
// With kNoBreak for every blank.
std::string Together(std::string_view text);
// Breaks at blanks into lines of at most `width` columns; every line but the first begins with
// `indent` blanks. kNoBreak becomes a blank.
std::string Wrap(std::string_view text, size_t width, size_t indent);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_ESCAPE_H_
