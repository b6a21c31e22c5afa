// A verdict in plain words, for somebody who has never heard of its figures: what came out, where
// and from when on, whose fault.
#ifndef PARITYBIT_REPORT_HEADLINE_H_
#define PARITYBIT_REPORT_HEADLINE_H_

#include <string>

#include "diagnose/diagnose.h"
#include "report/crossval_report.h"
#include "run/record.h"

namespace pb::report {

struct Headline {
  // "llama.cpp runs SiLU, the model declares squared ReLU; 8 of 15 next-token choices differ"
  std::string sentence;
  // "at layer 0, gated product (ffn_gated), from the first token; blame: reference", or what a pass
  // does not show; may be empty.
  std::string place;
  // Whether the sentence is the first reason's: then that need not be told again.
  bool tells_reason = false;
};

// Of two engines; `diagnosis` may be null.
Headline HeadlineOf(const run::Comparison& comparison, const diagnose::Diagnosis* diagnosis);
// Of one engine that was judged by itself; `diagnosis`: the first finding, may be null.
Headline AuditHeadline(const run::Comparison& run, const diagnose::Diagnosis* diagnosis);
// Of one engine against itself; a measurement that was made has none.
Headline NoiseHeadline(const run::Comparison& run);

// Word, sentence, exit code and place on lines of their own, as the last of a report. The exit code
// is left out where it is 0.
std::string HeadlineBlock(compare::Outcome outcome, const Headline& headline, const TextOptions& options);
// The same in one line.
std::string HeadlineInOne(compare::Outcome outcome, const Headline& headline, const TextOptions& options);

// What is wrong, its place left out: "llama.cpp runs SiLU, the model declares squared ReLU".
std::string CauseOf(const run::Comparison& comparison, const diagnose::Diagnosis& diagnosis);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_HEADLINE_H_
