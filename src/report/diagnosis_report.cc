// Lays out blame, evidence, trials and the search by injection.
#include "report/diagnosis_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "report/escape.h"
#include "report/headline.h"
#include "report/injection_report.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using Json = JsonWriter::Json;
using diagnose::Diagnosis;

constexpr size_t kMisses = 2;  // variations shown that do not restore agreement

// Lines under one label.
class Block {
 public:
  Block(const char* label, int width, std::string* out) : label_(label), width_(width), out_(out) {}
  void Add(const std::string& text) {
    *out_ += LabelledLine(first_ ? label_ : "", text, width_);
    first_ = false;
  }

 private:
  const char* label_;
  int width_;
  std::string* out_;
  bool first_ = true;
};

// `of_op`: else of tokens, which have no error.
std::string FindingText(const diagnose::Finding& f, bool of_op) {
  std::string text = fmt::format("{:<27}  ", f.what);
  if (of_op) text += ErrorText(f.error, f.bound) + ": ";
  text += f.bound_ratio <= 1 ? "agrees" : f.agrees ? "agrees, by codes" : "DIFFERS";
  return f.note.empty() ? text : text + ", " + EscapeLines(f.note);
}

// What of the sentence the headline leaves out, and the comparisons that blame rests on.
void Evidence(const Diagnosis& d, int width, std::string* out) {
  Block evidence("evidence", width, out);
  for (const diagnose::Finding& f : d.findings) evidence.Add(FindingText(f, d.place.stage >= 0));
  if (const diagnose::Trial* named = d.Named(); named && named->short_text != "that")
    evidence.Add(fmt::format("with {} the {} agrees, of {} variations tried", Escape(named->short_text),
                             named->side, d.trials.size()));
  if (!d.recomputed.empty())
    evidence.Add(fmt::format("computed by the arbiter, as an engine does not show it: {}",
                             fmt::join(d.recomputed, ", ")));
  for (const std::string& difference : d.file_differences) evidence.Add("files: " + Escape(difference));
}

// The codes of a quantised product.
void CodeLines(const Diagnosis& d, int width, std::string* out) {
  if (!d.codes) return;
  Block codes("codes", width, out);
  for (const std::string& sentence : d.codes->Sentences()) codes.Add(Escape(sentence));
}

void TrialLines(const Diagnosis& d, int width, std::string* out) {
  if (d.trials.empty()) return;
  Block tried("tried", width, out);
  const auto n = std::count_if(d.trials.begin(), d.trials.end(), [](const auto& t) { return t.restores; });
  tried.Add(n == 0 ? fmt::format("{} variations; none restores agreement, nearest:", d.trials.size())
                   : fmt::format("{} variations; {} agreement:", d.trials.size(),
                                 n == 1 ? "one restores" : fmt::format("{} restore", n)));
  size_t misses = 0;
  for (const diagnose::Trial& t : d.trials) {
    if (!t.restores && ++misses > kMisses) continue;
    tried.Add(
        fmt::format("{} {:.1e}  {}: {}{}{}", t.restores ? "+" : "-", t.error, t.side, Escape(t.text),
                    t.n_fitted > 0 ? fmt::format(" ({} fitted)", t.n_fitted) : "",
                    t.n_rows < t.of_rows ? fmt::format(" (on {} of {} rows)", t.n_rows, t.of_rows) : ""));
  }
}

Json FindingJson(const diagnose::Finding& f, JsonWriter* writer) {
  return Json{{"what", f.what},
              {"error", writer->Number(f.error)},
              {"bound", writer->Number(f.bound)},
              {"bound_ratio", writer->Number(f.bound_ratio)},
              {"agrees", f.agrees},
              {"note", f.note}};
}

Json CodesJson(const diagnose::CodeEvidence& e, JsonWriter* writer) {
  Json out{{"sentences", e.Sentences()},
           {"summed_rows", e.rows},
           {"engines", Json::array()},
           {"pairs", Json::array()}};
  for (const diagnose::CodeSide& s : e.sides) {
    Json side{{"role", s.role}, {"why_none", s.codes ? Json(nullptr) : Json(s.why_none)}};
    side["scheme"] = s.codes ? Json(s.codes->scheme) : Json(nullptr);
    side["maker"] = s.codes ? Json(s.codes->maker) : Json(nullptr);
    side["block"] = s.codes ? Json(s.codes->block) : Json(nullptr);
    const bool summed = s.sum_bound_ratio >= 0;
    side["output_follows"] = summed ? Json(s.FollowsFromCodes()) : Json(nullptr);
    side["sum_error"] = summed ? Json(writer->Number(s.sum_error)) : Json(nullptr);
    side["sum_bound_ratio"] = summed ? Json(writer->Number(s.sum_bound_ratio)) : Json(nullptr);
    side["products"] = Json{{"n", s.n_products}, {"n_equal_bits", s.n_products_equal}};
    side["products"]["bound_ratio"] =
        s.n_products > 0 ? Json(writer->Number(s.product_bound_ratio)) : Json(nullptr);
    out["engines"].push_back(std::move(side));
  }
  for (const diagnose::CodePair& p : e.pairs) {
    out["pairs"].push_back(Json{{"what", p.first + " against " + p.second},
                                {"blocks", {p.block[0], p.block[1]}},
                                {"comparable", p.comparable},
                                {"n_codes", p.n_codes},
                                {"n_differ", p.n_differ},
                                {"n_on_boundary", p.n_on_boundary},
                                {"largest_step", p.largest_step},
                                {"n_scales", p.n_scales},
                                {"n_scales_equal", p.n_scales_equal},
                                {"n_scales_on_boundary", p.n_scales_on_boundary},
                                {"n_stored_sums", p.n_stored},
                                {"n_stored_sums_equal", p.n_stored_equal},
                                {"n_stored_sums_on_boundary", p.n_stored_on_boundary},
                                {"n_int_sums", p.n_sums},
                                {"n_int_sums_differ", p.n_sums_differ}});
  }
  return out;
}

Json TrialJson(const diagnose::Trial& t, JsonWriter* writer) {
  return Json{{"name", t.name},
              {"side", t.side},
              {"text", t.text},
              {"restores", t.restores},
              {"n_fitted", t.n_fitted},
              {"n_rows", t.n_rows},
              {"of_rows", t.of_rows},
              {"error", writer->Number(t.error)},
              {"bound_ratio", writer->Number(t.bound_ratio)}};
}

Json ConclusionJson(const diagnose::Conclusion& c, JsonWriter* writer) {
  return Json{{"where", diagnose::WhereName(c.where)},
              {"part", diagnose::PartText(c.part)},
              {"when", diagnose::WhenText(c.when)},
              {"what", diagnose::WhatName(c.what)},
              {"value", c.value == 0 ? Json(nullptr) : Json(writer->Number(c.value))},
              {"name", c.name.empty() ? Json(nullptr) : Json(c.name)},
              {"nearest", c.nearest.empty() ? Json(nullptr) : Json(c.nearest)},
              {"nearest_ratio", c.nearest.empty() ? Json(nullptr) : Json(writer->Number(c.nearest_ratio))},
              {"text", diagnose::ConclusionText(c)}};
}

}  // namespace

Json DiagnosisJson(const Diagnosis& d, JsonWriter* writer) {
  Json out{{"sentence", d.sentence}, {"blame", compare::BlameName(d.blame)}};
  out["conclusion"] = ConclusionJson(d.conclusion, writer);
  const bool op = d.place.stage >= 0 && d.place.stage < PB_STAGE_COUNT;
  out["place"] = Json{{"prompt", d.place.prompt},
                      {"step", d.place.step},
                      {"position", d.position},
                      {"layer", d.place.layer},
                      {"stage", op ? Json(pb_vocabulary[d.place.stage].name) : Json(nullptr)},
                      {"feature", d.feature ? Json(*d.feature) : Json(nullptr)}};
  out["why_undetermined"] = d.why_undetermined.empty() ? Json(nullptr) : Json(d.why_undetermined);
  out["named"] = d.Named() ? Json(d.Named()->name) : Json(nullptr);
  for (const char* list : {"evidence", "hypotheses"}) out[list] = Json::array();
  for (const diagnose::Finding& f : d.findings) out["evidence"].push_back(FindingJson(f, writer));
  for (const diagnose::Trial& t : d.trials) out["hypotheses"].push_back(TrialJson(t, writer));
  out["codes"] = d.codes ? CodesJson(*d.codes, writer) : Json(nullptr);
  out["recomputed"] = d.recomputed;
  out["file_differences"] = d.file_differences;
  out["shared"] = d.shared;
  return out;
}

std::string EvidenceLines(const Diagnosis& d, const TextOptions& options) {
  std::string out;
  Evidence(d, options.width, &out);
  if (!options.details) return out;
  Block shared("not judged", options.width, &out);
  for (const std::string& text : d.shared) shared.Add(Escape(text));
  return out;
}

std::string RenderDiagnosisText(const run::Comparison& comparison, const DiagnosisReport& report,
                                const Context& context, const TextOptions& options) {
  const int width = options.width;
  std::string out;
  Headline headline = HeadlineOf(comparison, report.diagnosis ? &*report.diagnosis : nullptr);
  if (options.quiet) return HeadlineInOne(comparison.verdict.outcome, headline, options);
  if (report.diagnosis) {
    const Diagnosis& d = *report.diagnosis;
    out += Wrap(EscapeLines(d.sentence), static_cast<size_t>(width), 0) + "\n\n";
    Evidence(d, width, &out);
    CodeLines(d, width, &out);
    TrialLines(d, width, &out);
    if (report.injection)
      out += LabelledLine("injection", Escape(InjectionSentence(*report.injection)), width);
    Block perplexity("perplexity", width, &out);
    for (const PerplexityRow& row : report.perplexities)
      perplexity.Add(fmt::format("{:7.2f}  {}", row.perplexity, Escape(row.what)));
    if (!report.perplexities.empty()) perplexity.Add("over " + report.perplexity_text);
    Block shared("not judged", width, &out);
    for (const std::string& text : d.shared) shared.Add(Escape(text));
  } else {
    out += Wrap(EscapeLines(report.why_none), static_cast<size_t>(width), 0) + "\n";
  }
  for (const std::string& note : context.notes) out += LabelledLine("note", Escape(note), width);
  return out + "\n" + HeadlineBlock(comparison.verdict.outcome, headline, options) +
         NextLines(comparison.next, options);
}

std::string RenderDiagnosisJson(const run::Comparison& comparison, const DiagnosisReport& report,
                                const Context& context) {
  JsonWriter writer(comparison);
  const compare::Verdict& v = comparison.verdict;
  Json out{{"schema", "paritybit.diagnose/0"},
           {"verdict", compare::OutcomeName(v.outcome)},
           {"scope", compare::ScopeName(v.scope)},
           {"exit_code", compare::ExitCode(v.outcome)},
           {"reasons", writer.Reasons()}};
  PutNext(comparison.next, &out);
  out["blame"] = compare::BlameName(report.diagnosis ? report.diagnosis->blame : v.blame);
  out["diagnosis"] = report.diagnosis ? DiagnosisJson(*report.diagnosis, &writer) : Json(nullptr);
  out["why_none"] = report.diagnosis ? Json(nullptr) : Json(report.why_none);
  out["injection"] = report.injection ? InjectionJson(*report.injection) : Json(nullptr);
  out["perplexity"] = Json{{"text", report.perplexity_text}, {"rows", Json::array()}};
  for (const PerplexityRow& row : report.perplexities)
    out["perplexity"]["rows"].push_back({{"what", row.what}, {"perplexity", writer.Number(row.perplexity)}});
  out["engines"] = Json::array({writer.Engine(comparison.candidate), writer.Engine(comparison.reference)});
  out["explains"] = context.explains.empty() ? Json(nullptr) : Json(context.explains);
  out["notes"] = context.notes;
  out["tool_version"] = context.tool_version;
  out["non_finite_numbers"] = writer.non_finite_numbers();
  return DumpJson(out, 2) + "\n";
}

}  // namespace pb::report
