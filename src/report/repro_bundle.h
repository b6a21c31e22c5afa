// The files of a bundle that shows one wrong op: README.md, repro.cc, data.txt. Strings out;
// nothing of the user's machine in them.
#ifndef PARITYBIT_REPORT_REPRO_BUNDLE_H_
#define PARITYBIT_REPORT_REPRO_BUNDLE_H_

#include <string>
#include <string_view>

#include "report/crossval_report.h"
#include "repro/repro.h"

namespace pb::report {

// For a bug report: the finding, engines, model, op; how to compile the program and what it prints.
std::string RenderReproReadme(const run::Comparison& comparison, const diagnose::Diagnosis& diagnosis,
                              const repro::Repro& repro, const Context& context);
// One field a line, as the program reads them.
std::string RenderReproData(const repro::Repro& repro);
// The program (src/repro/program_main.cc) without the lines that other formulas need. A line "//:
// NAMES" says whose the lines below it are, "all" for everybody's.
std::string CutReproProgram(std::string_view source, const repro::Repro& repro);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_REPRO_BUNDLE_H_
