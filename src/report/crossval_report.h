// What a comparison tells: renderings of run::Comparison as text and JSON. Strings out; no
// printing, no file, no clock. Escapes control characters of token texts; numbers that are not
// finite become null in JSON and are counted.
#ifndef PARITYBIT_REPORT_CROSSVAL_REPORT_H_
#define PARITYBIT_REPORT_CROSSVAL_REPORT_H_

#include <string>
#include <vector>

#include "diagnose/diagnose.h"
#include "run/record.h"

namespace pb::report {

// What the command knows beside the comparison itself.
struct Context {
  std::string command = "crossval";
  std::string tool_version;
  // Of the first command to go on with a form that is shorter and, after this run, the same; may be
  // empty.
  std::string next_in_short;
  std::vector<std::string> notes;  // what could loosen a limit, what is left out: one sentence each
  std::string explains;            // of which earlier run diagnose and repro speak; empty: of this one
  std::string os, cpu, isa;        // the host
  int n_cpus = 0;
  // of a divergence that was placed at an op; may be null
  const diagnose::Diagnosis* diagnosis = nullptr;
  std::string not_written;  // why the receipt that was asked for is not there: no success
};

// Of the verdict; 5 in place of a success whose receipt is not written.
int ExitCodeOf(const run::Comparison& comparison, const Context& context);

struct TextOptions {
  bool colour = false;
  bool all = false;    // every position; else the worst few and those beyond a limit
  bool quiet = false;  // one line
  int width = 80;      // columns; tables have as many as fit
  // What else is known: other measures, where limits come from, all commands to go on with.
  bool details = false;
};

// For people; ends with the verdict in plain words, the place, and one command to go on with. Ends
// with a newline.
std::string RenderText(const run::Comparison& comparison, const Context& context, const TextOptions& options);
// One JSON object, indented, schema paritybit.crossval/0 (ARCHITECTURE.md). Numbers that are not
// finite are null and counted in "non_finite_numbers".
std::string RenderJson(const run::Comparison& comparison, const Context& context);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_CROSSVAL_REPORT_H_
