// What a diagnosis tells: as lines of text and as JSON. Strings out, no printing.
#ifndef PARITYBIT_REPORT_DIAGNOSIS_REPORT_H_
#define PARITYBIT_REPORT_DIAGNOSIS_REPORT_H_

#include <optional>
#include <string>
#include <vector>

#include "diagnose/diagnose.h"
#include "inject/injection.h"
#include "report/crossval_report.h"
#include "report/json.h"

namespace pb::report {

// Perplexity of a held-out text under one setting of one engine.
struct PerplexityRow {
  std::string what;  // "native, ffn.activation=relu2 (declared)"
  double perplexity = 0;
};

// The `diagnose` command's own findings beside the comparison.
struct DiagnosisReport {
  std::optional<diagnose::Diagnosis> diagnosis;
  std::string why_none;  // where there is none: one sentence
  std::vector<PerplexityRow> perplexities;
  std::optional<inject::InjectionResult> injection;
  std::string perplexity_text;  // "8000 tokens of heldout.txt, windows of 256"
};

// Place, blame, sentence, evidence, hypotheses. Part of a report, a receipt and `diagnose`.
JsonWriter::Json DiagnosisJson(const diagnose::Diagnosis& d, JsonWriter* writer);
// What blame rests on, as it stands above a diverged verdict; with options.details what the arbiter
// shares with an engine, too.
std::string EvidenceLines(const diagnose::Diagnosis& d, const TextOptions& options);

std::string RenderDiagnosisText(const run::Comparison& comparison, const DiagnosisReport& report,
                                const Context& context, const TextOptions& options);
// Schema paritybit.diagnose/0.
std::string RenderDiagnosisJson(const run::Comparison& comparison, const DiagnosisReport& report,
                                const Context& context);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_DIAGNOSIS_REPORT_H_
