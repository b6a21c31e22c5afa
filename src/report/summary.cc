// Gathers what the files of --report have in common.
#include "report/summary.h"

#include <fmt/format.h>

#include "base/text.h"
#include "report/audit_report.h"
#include "report/escape.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

void Take(const diagnose::Diagnosis& d, Summary* s) {
  for (const diagnose::Finding& f : d.findings)
    s->evidence.push_back(fmt::format("{}: {}{}{}", f.what, f.agrees ? "agrees" : "differs",
                                      d.place.stage >= 0 ? ", " + ErrorText(f.error, f.bound) : "",
                                      f.note.empty() ? "" : ", " + EscapeLines(f.note)));
  if (const diagnose::Trial* named = d.Named())
    s->evidence.push_back(fmt::format("agreement is restored with {} ({}), of {} variations tried",
                                      Escape(named->short_text), Escape(named->name), d.trials.size()));
  else if (!d.trials.empty())
    s->evidence.push_back(
        fmt::format("none of {} variations that were tried restores agreement", d.trials.size()));
}

std::string TokensText(const run::Comparison& c) {
  size_t n = 0, n_steps = 0;
  for (const run::PromptRecord& p : c.prompts) n += p.tokens.size(), n_steps += p.decoded.size();
  return fmt::format("{} in {} prompt{}, {} decode steps", n, c.prompts.size(),
                     c.prompts.size() == 1 ? "" : "s", n_steps);
}

// What a comparison and an audit have alike.
Summary Base(const run::Comparison& c, const Context& context) {
  Summary s;
  s.command = context.command, s.tool_version = context.tool_version;
  s.exit_code = ExitCodeOf(c, context);
  s.verdict = &c.verdict;
  if (!c.candidate.model_path.empty()) s.facts.emplace_back("model", ModelLine(c.candidate));
  for (const drive::EngineRecord* e : {&c.candidate, &c.reference})
    if (!e->description.empty()) s.facts.emplace_back(e->role, EngineLine(*e));
  s.facts.emplace_back("tokens", TokensText(c));
  s.differing = FactsThatDiffer(c.candidate, c.reference);
  s.model = c.candidate.model_path.string();
  s.points = c.points;
  s.next = c.next, s.notes = context.notes;
  s.token_text = &c.token_text;
  if (c.token_errors) s.token_errors = &*c.token_errors;
  s.wall_seconds = c.wall_seconds;
  return s;
}

std::string TraceLine(const TraceDiffContext& traces, int side) {
  const trace::Manifest& m = traces.manifests[side];
  const trace::EngineFacts facts = trace::ReadEngineFacts(m.engine_facts);
  return fmt::format("{}: {} {} {}", Escape(traces.folders[side]), Escape(m.engine), Escape(facts.version),
                     Escape(facts.isa));
}

}  // namespace

std::string PointName(const compare::PointRow& point) { return OpName(point.stage, point.layer, {}); }

Summary SummaryOf(const run::Comparison& comparison, const Context& context) {
  Summary s = Base(comparison, context);
  s.headline = HeadlineOf(comparison, context.diagnosis);
  if (context.diagnosis) Take(*context.diagnosis, &s);
  s.rows = &comparison.rows;
  s.json = RenderJson(comparison, context);
  return s;
}

Summary SummaryOf(const audit::Audit& audit, const Context& context) {
  Summary s = Base(audit.run, context);
  s.headline = AuditHeadline(audit.run, audit.findings.empty() ? nullptr : &audit.findings[0].diagnosis);
  for (const audit::AuditFinding& finding : audit.findings) Take(finding.diagnosis, &s);
  s.json = RenderAuditJson(audit, context);
  return s;
}

Summary SummaryOf(const compare::TraceDiff& diff, const TraceDiffContext& traces, const Context& context) {
  Summary s;
  s.command = context.command, s.tool_version = context.tool_version;
  s.exit_code = compare::ExitCode(diff.verdict.outcome);
  s.headline = HeadlineOf(diff, traces);
  s.verdict = &diff.verdict;
  s.facts = {{"candidate", TraceLine(traces, 0)}, {"reference", TraceLine(traces, 1)}};
  s.model = traces.manifests[1].model_path;
  for (const compare::TracePoint& point : diff.points) {
    compare::PointRow row = point.row;
    // Of two traces an op's own error is judged where its inputs have equal bits.
    row.bound = point.own_bound;
    row.bound_ratio = point.own == compare::OwnError::kAbove ? point.own_error / point.own_bound : 0;
    s.points.push_back(std::move(row));
  }
  s.rows = diff.logits.empty() ? nullptr : &diff.logits;
  s.next = traces.next, s.notes = diff.notes;
  s.json = RenderJson(diff, traces);
  return s;
}

}  // namespace pb::report
