// Pieces that text reports share.
#ifndef PARITYBIT_REPORT_TEXT_BLOCKS_H_
#define PARITYBIT_REPORT_TEXT_BLOCKS_H_

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "report/crossval_report.h"
#include "run/paths.h"
#include "run/record.h"

namespace pb::report {

constexpr size_t kLabel = 11;  // columns before the text of a line
// A line of text behind its label, wrapped to `width` columns.
std::string LabelledLine(std::string_view label, const std::string& text, int width);
// What to go on with: the first command, in short where that is given; with options.details all. A
// command that is too wide goes on behind a backslash, so it can be pasted as it stands.
std::string NextLines(const std::vector<run::NextCommand>& commands, const TextOptions& options,
                      const std::string& in_short = "");

// "tiny.gguf, bitnet, 6 layers, d_model 256, TQ2_0 x42, sha256:0b3e8bc49d01".
std::string ModelLine(const drive::EngineRecord& e);
// "llama.cpp v0.5.0 (zen4, 1 thread)".
std::string EngineLine(const drive::EngineRecord& e);
// The facts of `e` that decide results, in the same columns for both engines: "ffn relu2  rope
// halves 10000 ...".
std::string FactsLine(const drive::EngineRecord& e, const drive::EngineRecord& candidate,
                      const drive::EngineRecord& reference);
// Every fact that both engines tell and do not agree on, with where each has it from:
// "ffn.activation: relu2 [config.json] | silu [observed]".
std::vector<std::string> FactsThatDiffer(const drive::EngineRecord& candidate,
                                         const drive::EngineRecord& reference);

// The last lines that a failed engine wrote, with a heading; empty where it has none.
std::string LastWords(const drive::EngineRecord& e, int width);

// "not gone through: decode; two threads; and 3 more (-v)"
std::string PathsLeftText(std::span<const run::Path> left, const TextOptions& options);

// "layer 3, ffn_gated, feature 7".
std::string OpName(int32_t stage, int32_t layer, std::optional<int64_t> feature);
// Whether nothing but underflow is allowed, because the exact result is 0.
bool IsBoundOfZeros(double bound);
// "error 5.0e+00, bound 9.5e-07"; "error 5.0e+00 where exact zeros are expected".
std::string ErrorText(double error, double bound);
// "layer 0, ffn_gated: error 5.0e+00, bound 9.5e-07"; within the bound its share of that.
std::string WorstText(const compare::PointRow& point);
// The point that WorstText tells of, the one farthest in its bound or beyond it: of those that are not
// beyond it for a reason. Null: there is none.
const compare::PointRow* WorstPoint(std::span<const compare::PointRow> points);
// "DIVERGED", in its colour where colour is on.
std::string VerdictWord(compare::Outcome outcome, bool colour);
// The reasons of a verdict but for the first `skip`, each on lines of its own; empty where there
// are none.
std::string ReasonLines(const compare::Verdict& verdict, size_t skip, const TextOptions& options);
// Text of an engine on one line, with single blanks.
std::string EscapeLines(std::string_view text);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_TEXT_BLOCKS_H_
