// Pieces that text reports share.
#ifndef PARITYBIT_REPORT_TEXT_BLOCKS_H_
#define PARITYBIT_REPORT_TEXT_BLOCKS_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "report/crossval_report.h"
#include "run/record.h"

namespace pb::report {

constexpr size_t kLabel = 11;  // columns before the text of a line
// A line of text behind its label, wrapped to `width` columns.
std::string LabelledLine(std::string_view label, const std::string& text, int width);
// The commands to go on with, each whole, to be pasted.
std::string NextLines(const std::vector<run::NextCommand>& commands);

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
std::string LastWords(const drive::EngineRecord& e);

// "layer 3, ffn_gated, feature 7".
std::string OpName(int32_t stage, int32_t layer, std::optional<int64_t> feature);
// "position 0 ("And"), layer 0, ffn_gated" of the first divergence, which the verdict has.
std::string WhereDiverged(const run::Comparison& comparison);
// "DIVERGED", in its colour where colour is on.
std::string VerdictWord(compare::Outcome outcome, bool colour);
// The word with a sentence and the exit code, then every reason.
std::string VerdictBlock(const compare::Verdict& verdict, const std::string& sentence,
                         const TextOptions& options);
// Text of an engine on one line.
std::string EscapeLines(std::string_view text);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_TEXT_BLOCKS_H_
