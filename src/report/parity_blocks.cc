// Head and tail of the reports on one question of two engines.
#include "report/parity_blocks.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "compare/types.h"
#include "report/escape.h"
#include "report/headline.h"
#include "report/text_blocks.h"

namespace pb::report {

std::string PairHead(const run::Comparison& run, const TextOptions& options) {
  std::string out;
  const auto line = [&](std::string_view label, const std::string& text) {
    if (!text.empty()) out += LabelledLine(label, text, options.width);
  };
  if (run.candidate.description.empty() && run.reference.description.empty()) return out;
  line("model", ModelLine(run.candidate));
  if (run.reference.model_sha256 != run.candidate.model_sha256 && !run.reference.model_sha256.empty())
    line("", "reference: " + ModelLine(run.reference));
  for (const drive::EngineRecord* engine : {&run.candidate, &run.reference}) {
    line(engine->role, EngineLine(*engine));
    line("", FactsLine(*engine, run.candidate, run.reference));
  }
  std::string_view label = "differ";
  for (const std::string& fact : FactsThatDiffer(run.candidate, run.reference)) line(label, fact), label = "";
  return out;
}

std::string PairTail(const run::Comparison& run, const Context& context, const TextOptions& options,
                     const std::string& sentence) {
  std::string out;
  std::string_view label = "limits";
  for (const compare::Limit& limit : run.verdict.limits) {
    const std::string origin =
        options.details ? limit.origin : limit.origin.substr(0, limit.origin.find(" in "));
    out += LabelledLine(label,
                        fmt::format("{} {:.2g}{}{}: {}", limit.name, limit.value,
                                    limit.unit.empty() ? "" : " ", limit.unit, origin),
                        options.width);
    label = "";
  }
  for (const std::string& note : context.notes) out += LabelledLine("note", Escape(note), options.width);
  for (const drive::EngineRecord* engine : {&run.candidate, &run.reference})
    out += LastWords(*engine, options.width);
  const compare::Verdict& verdict = run.verdict;
  const bool passes = compare::ExitCode(verdict.outcome) == 0;
  Headline headline;
  headline.tells_reason = !passes || sentence.empty();
  headline.sentence = !headline.tells_reason    ? sentence
                      : verdict.reasons.empty() ? "nothing was compared"
                                                : verdict.reasons[0].text;
  out += ReasonLines(verdict, headline.tells_reason ? 1 : 0, options);
  out += HeadlineBlock(verdict.outcome, headline, options);
  return out + NextLines(run.next, options);
}

nlohmann::ordered_json PairJson(const char* schema, const run::Comparison& run, JsonWriter* writer) {
  const compare::Verdict& v = run.verdict;
  nlohmann::ordered_json out{{"schema", schema},
                             {"verdict", compare::OutcomeName(v.outcome)},
                             {"scope", nullptr},
                             {"exit_code", compare::ExitCode(v.outcome)},
                             {"reasons", writer->Reasons()}};
  PutNext(run.next, &out);
  out["engines"] = {writer->Engine(run.candidate), writer->Engine(run.reference)};
  out["model"] = {{"path", run.candidate.model_path.string()}, {"sha256", run.candidate.model_sha256}};
  return out;
}

void FinishPairJson(const run::Comparison& run, const Context& context, JsonWriter* writer,
                    nlohmann::ordered_json* out) {
  (*out)["limits"] = writer->Limits();
  (*out)["first_divergence"] = writer->FirstDivergence();
  (*out)["choices"] = writer->Choices();
  (*out)["notes"] = context.notes;
  (*out)["command"] = context.command;
  (*out)["tool_version"] = context.tool_version;
  (*out)["host"] = {{"os", context.os}, {"cpu", context.cpu}, {"n_cpus", context.n_cpus}};
  (*out)["wall_seconds"] = writer->Number(run.wall_seconds);
  (*out)["non_finite_numbers"] = writer->non_finite_numbers();
}

std::string TokenName(const run::Comparison& run, int32_t id) {
  const auto text = run.token_text.find(id);
  return text == run.token_text.end() ? fmt::format("token {}", id)
                                      : fmt::format("\"{}\"", Escape(text->second));
}

}  // namespace pb::report
