// The parts that the JSON report and the receipt share. Numbers that are not finite become null and
// are counted.
#ifndef PARITYBIT_REPORT_JSON_H_
#define PARITYBIT_REPORT_JSON_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "run/record.h"

namespace pb::report {

// "next", the commands alone, and "next_for", what each is for, behind what the object has so far.
void PutNext(const std::vector<run::NextCommand>& commands, nlohmann::ordered_json* object);

// null: a value that is not finite.
nlohmann::ordered_json LimitJson(const compare::Limit& limit);

class JsonWriter {
 public:
  using Json = nlohmann::ordered_json;

  Json Number(double value);  // null where not finite
  int64_t non_finite_numbers() const { return non_finite_numbers_; }

  // With the text of a token id where the comparison knows it.
  explicit JsonWriter(const run::Comparison& comparison) : c_(comparison) {}
  Json Engine(const drive::EngineRecord& engine);
  Json Prompt(const run::PromptRecord& prompt);
  Json Position(const compare::LogitsRow& row, bool with_text);
  Json Point(const compare::PointRow& row);
  // of the accumulated error over the layers, beside the reference's own noise there
  Json Growth();
  Json Floor();
  Json Distance();  // from the reference, among its own runs; null where that could not be told
  Json Limits();
  Json Reasons();
  Json CoverageOf();
  Json FirstDivergence();  // null when there is none
  Json Choices();
  Json Effect();  // of two precisions upon the logits; null where no limit comes of it
  Json Paths();   // code paths: the comparisons beside this one, and those that none went through

 private:
  Json TopK(const compare::LogitsRow& row, int side, bool with_text);

  Json PointFloors();

  const run::Comparison& c_;
  int64_t non_finite_numbers_ = 0;
};

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_JSON_H_
