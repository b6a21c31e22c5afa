// Lays out an audit's text and JSON.
#include "report/audit_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "report/diagnosis_report.h"
#include "report/escape.h"
#include "report/headline.h"
#include "report/json.h"
#include "report/table.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using Json = JsonWriter::Json;

class AuditText {
 public:
  AuditText(const audit::Audit& audit, const Context& context, const TextOptions& options)
      : a_(audit), run_(audit.run), context_(context), options_(options) {}

  std::string Render() {
    Headline headline = AuditHeadline(run_, a_.findings.empty() ? nullptr : &a_.findings[0].diagnosis);
    if (const size_t more = a_.findings.size(); more > 1)
      headline.sentence += fmt::format("; the first of {} findings", more);
    if (options_.quiet) return HeadlineInOne(run_.verdict.outcome, headline, options_);
    Head();
    Ops();
    if (options_.all) Stages();
    Paths();
    for (const std::string& note : context_.notes) Line("note", Escape(note));
    out_ += LastWords(run_.candidate, options_.width);
    out_ += ReasonLines(run_.verdict, headline.tells_reason ? 1 : 0, options_);
    Findings();
    out_ += "\n" + HeadlineBlock(run_.verdict.outcome, headline, options_) + NextLines(run_.next, options_);
    return std::move(out_);
  }

 private:
  void Line(std::string_view label, const std::string& text) {
    out_ += LabelledLine(label, text, options_.width);
  }

  void Head() {
    Line("model", ModelLine(run_.candidate));
    if (run_.reference.model_sha256 != run_.candidate.model_sha256 && !run_.reference.model_sha256.empty())
      Line("judged by", ModelLine(run_.reference));
    Line("engine", EngineLine(run_.candidate));
    const std::string facts = FactsLine(run_.candidate, run_.candidate, run_.reference);
    if (!facts.empty()) Line("", facts);
    const std::string declared = FactsLine(run_.reference, run_.candidate, run_.reference);
    if (!declared.empty()) Line("declared", declared);
    const std::vector<std::string> differing = FactsThatDiffer(run_.candidate, run_.reference);
    bool first = true;
    for (const std::string& fact : differing) {
      // no arithmetic
      if (fact.starts_with("threads") || fact.starts_with("overwrite.exact")) continue;
      Line(first ? "differ" : "", fact);
      first = false;
    }
    size_t n = 0, n_steps = 0;
    for (const run::PromptRecord& p : run_.prompts) n += p.tokens.size(), n_steps += p.decoded.size();
    Line("tokens", fmt::format("{} in {} prompt{}, {} decode steps", n, run_.prompts.size(),
                               run_.prompts.size() == 1 ? "" : "s", n_steps));
  }

  void Ops() {
    if (run_.points.empty()) return;
    std::string text =
        fmt::format("{} tensors judged, each from those that it was made of", run_.verdict.coverage.compared);
    if (const compare::PointRow* worst = WorstPoint(run_.points))
      text += "; the worst in " + WorstText(*worst);
    Line("ops", text);
    for (const std::string& stage : run_.verdict.coverage.unobservable)
      Line("", "not shown: " + Escape(stage));
    if (!a_.recomputed.empty())
      Line("", fmt::format("computed by the arbiter, as the engine does not show it: {}",
                           fmt::join(a_.recomputed, ", ")));
    Names("missing", run_.verdict.coverage.missing);
    Names("no op of the model", run_.verdict.coverage.unmapped);
    bool watched = false, changed = false;
    for (const run::PromptRecord& p : run_.prompts) {
      watched |= !p.tapped_sha256[0].empty();
      changed |= p.observer_effect(0);
    }
    if (watched && (changed || options_.details))
      Line("observer", changed ? "logits CHANGE when the engine is watched"
                               : "logits have the same bits with and without taps");
  }

  // An agreement says nothing of these.
  void Paths() {
    if (run_.points.empty() || compare::ExitCode(run_.verdict.outcome) != 0) return;
    const std::vector<run::Path> left = run::PathsNotTakenAlone(run_);
    if (!left.empty())
      Line("paths", PathsLeftText(left, options_) + "; crossval --paths all runs what it can");
  }

  // Up to a few names; the JSON has all.
  void Names(const char* what, const std::vector<std::string>& names) {
    constexpr size_t kShown = 3;
    for (size_t i = 0; i < std::min(names.size(), kShown); ++i)
      Line("", fmt::format("{}: {}", what, Escape(names[i])));
    if (names.size() > kShown) Line("", fmt::format("{}: {} more", what, names.size() - kShown));
  }

  // The worst place of every stage.
  void Stages() {
    std::map<int32_t, const compare::PointRow*> worst;
    std::map<int32_t, int> n_by_codes;
    for (const compare::PointRow& p : run_.points) {
      n_by_codes[p.stage] += p.explained_by_codes;
      if (p.explained_by_codes) continue;
      auto [at, fresh] = worst.try_emplace(p.stage, &p);
      if (!fresh && !(p.bound_ratio <= at->second->bound_ratio)) at->second = &p;
    }
    Table table(
        {{"stage", true}, {"layer"}, {"error"}, {"bound", false, 2}, {"of bound"}, {"by codes", false, 1}},
        kLabel);
    for (const auto& [stage, p] : worst)
      table.Row({pb_vocabulary[stage].name, p->layer < 0 ? "-" : std::to_string(p->layer),
                 fmt::format("{:.1e}", std::max(p->worst_row, p->worst_feature)),
                 IsBoundOfZeros(p->bound) ? "zeros" : fmt::format("{:.1e}", p->bound),
                 IsBoundOfZeros(p->bound) && p->above_bound() ? "-" : fmt::format("{:.2g}", p->bound_ratio),
                 n_by_codes[stage] > 0 ? fmt::format("{} more", n_by_codes[stage]) : ""});
    std::string text = table.Render(static_cast<size_t>(options_.width));
    out_ += "stages" + text.substr(std::string_view("stages").size());
  }

  void Findings() {
    for (const audit::AuditFinding& f : a_.findings) {
      Line("finding", EscapeLines(f.diagnosis.sentence));
      out_ += EvidenceLines(f.diagnosis, options_);
      if (!f.also.empty()) Line("", "the same explains " + AlsoText(f.also));
    }
  }

  // "layers 1, 2, 3", or how many points.
  static std::string AlsoText(const std::vector<diagnose::Place>& places) {
    std::vector<int32_t> layers;
    for (const diagnose::Place& p : places)
      if (std::find(layers.begin(), layers.end(), p.layer) == layers.end()) layers.push_back(p.layer);
    constexpr size_t kShown = 40;
    std::string text = fmt::format("{} more point{}", places.size(), places.size() == 1 ? "" : "s");
    if (layers.size() <= kShown && layers.front() >= 0)
      text += fmt::format(", in layer{} {}", layers.size() == 1 ? "" : "s", fmt::join(layers, ", "));
    return text;
  }

  const audit::Audit& a_;
  const run::Comparison& run_;
  const Context& context_;
  const TextOptions& options_;
  std::string out_;
};

}  // namespace

std::string RenderAuditText(const audit::Audit& audit, const Context& context, const TextOptions& options) {
  return AuditText(audit, context, options).Render();
}

Json AuditFindingJson(const audit::AuditFinding& f, JsonWriter* writer) {
  Json finding = DiagnosisJson(f.diagnosis, writer);
  finding["also"] = Json::array();
  for (const diagnose::Place& p : f.also)
    finding["also"].push_back(Json{
        {"prompt", p.prompt}, {"step", p.step}, {"layer", p.layer}, {"stage", pb_vocabulary[p.stage].name}});
  return finding;
}

Json AuditedPromptJson(const run::PromptRecord& p) {
  return Json{{"text", p.text},
              {"origin", p.origin},
              {"tokens", p.tokens},
              {"tokens_by_the_model", p.tokens_of[1]},
              {"steps_asked", p.steps_asked},
              {"decoded", p.decoded},
              {"logits_sha256", p.logits_sha256[0]},
              {"logits_sha256_tapped", p.tapped_sha256[0]}};
}

std::string RenderAuditJson(const audit::Audit& audit, const Context& context) {
  const run::Comparison& run = audit.run;
  JsonWriter writer(run);
  const compare::Verdict& v = run.verdict;
  Json out{{"schema", "paritybit.audit/0"},
           {"verdict", compare::OutcomeName(v.outcome)},
           {"scope", compare::ScopeName(v.scope)},
           {"exit_code", compare::ExitCode(v.outcome)},
           {"reasons", writer.Reasons()}};
  PutNext(run.next, &out);
  out["engines"] = Json::array({writer.Engine(run.candidate), writer.Engine(run.reference)});
  out["model"] = Json{{"path", run.candidate.model_path.string()}, {"sha256", run.candidate.model_sha256}};
  out["coverage"] = writer.CoverageOf();
  out["first_divergence"] = writer.FirstDivergence();
  out["blame"] = compare::BlameName(v.blame);
  out["findings"] = Json::array();
  for (const audit::AuditFinding& f : audit.findings) out["findings"].push_back(AuditFindingJson(f, &writer));
  out["recomputed"] = audit.recomputed;
  out["points"] = Json::array();
  for (const compare::PointRow& p : run.points) out["points"].push_back(writer.Point(p));
  out["prompts"] = Json::array();
  for (const run::PromptRecord& p : run.prompts) out["prompts"].push_back(AuditedPromptJson(p));
  out["paths"]["not_taken"] = Json::array();
  for (const run::Path path : run::PathsNotTakenAlone(run))
    out["paths"]["not_taken"].push_back(PathText(path));
  out["choices"] = writer.Choices();
  out["notes"] = context.notes;
  out["command"] = context.command;
  out["tool_version"] = context.tool_version;
  out["host"] =
      Json{{"os", context.os}, {"cpu", context.cpu}, {"isa", context.isa}, {"n_cpus", context.n_cpus}};
  out["wall_seconds"] = writer.Number(run.wall_seconds);
  out["non_finite_numbers"] = writer.non_finite_numbers();
  return DumpJson(out, 2) + "\n";
}

}  // namespace pb::report
