// A run as Markdown that can be pasted into an issue. Whatever comes from outside - names, tokens,
// what engines say - stays text: it makes no markup, mentions nobody and links to nothing.
#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "report/ci_report.h"
#include "report/escape.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

std::string Md(std::string_view text) {
  std::string out;
  for (const char c : EscapeInvalid(text)) {
    if (c == '<' || c == '>' || c == '&' || c == '@' || c == '#' || c == '|' || c == '`' || c == '*' ||
        c == '_' || c == '[' || c == ']' || c == '~' || c == '\\' || c == '$')
      out += fmt::format("&#{};", static_cast<int>(c));
    else
      out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out;
}

// Without the marks that keep words together in a terminal.
std::string Plain(std::string_view text) { return Md(Wrap(text, std::string::npos, 0)); }

// A block that no backtick of the text ends.
std::string Fenced(const std::string& text) {
  size_t longest = 2, run = 0;
  for (const char c : text) run = c == '`' ? run + 1 : 0, longest = std::max(longest, run);
  const std::string fence(longest + 1, '`');
  return fence + "sh\n" + EscapeUnsafe(text) + "\n" + fence + "\n";
}

std::string Folded(const std::string& title, const std::string& text) {
  return "\n<details><summary>" + title + "</summary>\n\n" + text + "\n</details>\n";
}

std::string List(const std::vector<std::string>& items) {
  std::string out;
  for (const std::string& item : items) out += "- " + Md(item) + "\n";
  return out;
}

std::string Head(const Summary& s) {
  std::string out = fmt::format("### paritybit {}: {}\n\n**{}**\n", s.command,
                                VerdictWord(s.verdict->outcome, false), Plain(s.headline.sentence));
  if (!s.headline.place.empty()) out += "\n" + Plain(s.headline.place) + "\n";
  out += "\n| | |\n|---|---|\n";
  for (const auto& [label, text] : s.facts) out += fmt::format("| {} | {} |\n", Md(label), Plain(text));
  const compare::Coverage& c = s.verdict->coverage;
  out += fmt::format("| compared | {} of {} {} |\n| exit code | {} |\n", c.compared, c.expected,
                     c.unit.empty() ? "points" : c.unit, s.exit_code);
  return out;
}

// Beyond their bounds first, then the nearest to them.
std::string Points(const Summary& s) {
  constexpr size_t kMost = 20;
  std::vector<const compare::PointRow*> points;
  for (const compare::PointRow& p : s.points) points.push_back(&p);
  std::stable_sort(points.begin(), points.end(), [](const auto* a, const auto* b) {
    return std::pair(a->is_defect(), a->bound_ratio) > std::pair(b->is_defect(), b->bound_ratio);
  });
  std::string out = "| op | error | bound | of bound |\n|---|---|---|---|\n";
  for (size_t i = 0; i < std::min(points.size(), kMost); i++) {
    const compare::PointRow& p = *points[i];
    const bool zeros = IsBoundOfZeros(p.bound);
    out +=
        fmt::format("| {} | {:.1e} | {} | {}{} |\n", Md(PointName(p)), std::max(p.worst_row, p.worst_feature),
                    p.bound == 0 ? ""
                    : zeros      ? "exact zeros"
                                 : fmt::format("{:.1e}", p.bound),
                    zeros && p.above_bound() ? "beyond" : fmt::format("{:.2g}", p.bound_ratio),
                    p.above_bound() && !p.is_defect() ? ", explained" : "");
  }
  return out;
}

std::string Positions(const Summary& s) {
  constexpr size_t kMost = 20;
  std::string out = "| prompt | position | token | KL | first choices |\n|---|---|---|---|---|\n";
  auto text = [&](int32_t id) {
    if (s.token_text)
      if (const auto at = s.token_text->find(id); at != s.token_text->end())
        return Md("\"" + Escape(at->second) + "\"");
    return fmt::format("{}", id);
  };
  size_t n = 0;
  for (const compare::LogitsRow& row : *s.rows) {
    if (!row.above_limit || n++ >= kMost) continue;
    out += fmt::format("| {} | {} | {} | {:.1e} | {} / {} |\n", row.prompt, row.position, text(row.token),
                       row.kl, text(row.top1[0]), text(row.top1[1]));
  }
  return n == 0 ? "" : Folded(fmt::format("Positions beyond a limit ({})", n), out);
}

}  // namespace

std::string RenderMarkdown(const Summary& s) {
  std::string out = Head(s);
  if (!s.evidence.empty()) out += "\n" + List(s.evidence);
  if (!s.again.empty()) out += "\n" + Fenced(s.again);
  std::vector<std::string> reasons, limits;
  for (const compare::Reason& r : s.verdict->reasons)
    reasons.push_back(std::string(compare::ReasonName(r.code)) + ": " + r.text);
  for (const compare::Limit& l : s.verdict->limits)
    limits.push_back(fmt::format("{} {:.3g} {}: {}", l.name, l.value, l.unit, l.origin));
  if (!reasons.empty()) out += Folded(fmt::format("Reasons ({})", reasons.size()), List(reasons));
  if (!s.differing.empty()) out += Folded("What the engines understood differently", List(s.differing));
  if (!s.points.empty()) out += Folded("Worst ops", Points(s));
  if (s.rows) out += Positions(s);
  if (!limits.empty()) out += Folded("Limits", List(limits));
  if (!s.notes.empty()) out += Folded("Notes", List(s.notes));
  if (!s.next.empty()) {
    std::string commands;
    for (const run::NextCommand& next : s.next)
      commands += Md(next.purpose) + ":\n\n" + Fenced(next.command) + "\n";
    out += Folded("Next", commands);
  }
  return out + fmt::format("\nparitybit {}, {}\n", s.tool_version, s.created);
}

}  // namespace pb::report
