// What a measurement of speed tells: text, JSON, receipt; and what two of them tell together. Strings
// out, no printing.
#ifndef PARITYBIT_REPORT_BENCHMARK_REPORT_H_
#define PARITYBIT_REPORT_BENCHMARK_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "drive/engine_record.h"
#include "drive/speed.h"
#include "receipt/speeds.h"
#include "report/crossval_report.h"
#include "report/receipt.h"

namespace pb::report {

struct Benchmark {
  drive::EngineRecord engine;
  drive::SpeedRequest asked;
  drive::Speed speed;
  drive::ReadSpeed memory;
  uint64_t weights_bytes = 0;  // read for a decoded token; 0: not known
  int64_t threads = 1;
  std::vector<run::Choice> choices;

  // Whether every repeat generated the same tokens.
  bool repeats() const;
};

std::string RenderText(const Benchmark& benchmark, const Context& context, const std::string& receipt,
                       const TextOptions& options);
// Schema paritybit.benchmark/0.
std::string RenderJson(const Benchmark& benchmark, const Context& context, const std::string& receipt);
std::string RenderReceipt(const Benchmark& benchmark, const Context& context, const ReceiptHead& head);

// Two receipts of benchmarks.
struct BenchComparison {
  std::string current, baseline;  // paths
  receipt::SpeedComparison speeds;
  compare::Outcome outcome = compare::Outcome::kMatch;
};
std::string RenderText(const BenchComparison& comparison, const TextOptions& options);
std::string RenderJson(const BenchComparison& comparison);
std::string RenderJunit(const BenchComparison& comparison);
std::string RenderMarkdown(const BenchComparison& comparison);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_BENCHMARK_REPORT_H_
