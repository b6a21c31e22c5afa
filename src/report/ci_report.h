// What a run tells in the formats that CI systems and other tools read.
#ifndef PARITYBIT_REPORT_CI_REPORT_H_
#define PARITYBIT_REPORT_CI_REPORT_H_

#include <string>

#include "report/summary.h"

namespace pb::report {

// JUnit's XML: one test case for the verdict, for the tokens' coverage, for each prompt's logits,
// and for each op. Whatever is no pass has a case that failed.
std::string RenderJunit(const Summary& summary);
// SARIF 2.1.0: a result for each reason, at the model file and the op.
std::string RenderSarif(const Summary& summary);
// For an issue or a pull request: verdict, table, the command, details folded.
std::string RenderMarkdown(const Summary& summary);
// GitHub's workflow commands, one line for each reason: errors of what is no pass, else a notice.
std::string RenderAnnotations(const Summary& summary);
// For Model Explorer: the ops that were compared as a graph, with nodes named as
// layer_3/ffn_gated, and node data of it: of each op of each layer its worst error over its bound.
std::string RenderNodeGraph(const Summary& summary);
std::string RenderNodeData(const Summary& summary);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_CI_REPORT_H_
