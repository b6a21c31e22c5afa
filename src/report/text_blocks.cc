// Lines of models, engines, their facts and last words, places and verdicts.
#include "report/text_blocks.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "base/text.h"
#include "report/escape.h"

namespace pb::report {
namespace {

using compare::Outcome;

const host::Fact* FindIn(const drive::EngineRecord& e, const std::string& key) {
  if (const host::Fact* fact = host::FindFact(e.session, key)) return fact;
  return host::FindFact(e.model, key);
}

// "1e-5" and "1e-05" are the same value.
bool SameValue(const std::string& a, const std::string& b) {
  if (a == b) return true;
  double x, y;
  auto parse = [](const std::string& s, double* v) {
    auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), *v);
    return error == std::errc() && end == s.data() + s.size();
  };
  return parse(a, &x) && parse(b, &y) && x == y;
}

// "yes" and "no" however an engine spells them.
std::string Spelt(const std::string& value) {
  return value == "true" ? "yes" : value == "false" ? "no" : value;
}

// The words of a shell's command line as they stand, with their quotes.
std::vector<std::string_view> ShellWords(std::string_view command) {
  std::vector<std::string_view> words;
  size_t begin = 0;
  for (size_t i = 0; i < command.size(); ++i) {
    if (command[i] == '\'') {
      const bool escapes = i > 0 && command[i - 1] == '$';
      for (++i; i < command.size() && command[i] != '\''; ++i) i += escapes && command[i] == '\\';
    } else if (command[i] == '\\') {
      ++i;
    } else if (command[i] == ' ') {
      words.push_back(command.substr(begin, i - begin));
      begin = i + 1;
    }
  }
  words.push_back(command.substr(begin));
  return words;
}

std::string WrapCommand(const std::string& command, size_t width) {
  std::string out;
  size_t column = kLabel;
  const std::vector<std::string_view> words = ShellWords(command);
  for (size_t i = 0; i < words.size(); ++i) {
    const size_t n = Columns(words[i]), behind = i + 1 < words.size() ? 2 : 0;
    // The program and its command stay together.
    if (i > 1 && column + 1 + n + behind > width) {
      out += fmt::format(" \\\n{:{}}", "", kLabel);
      column = kLabel;
    } else if (i > 0) {
      out += ' ';
      ++column;
    }
    out += words[i];
    column += n;
  }
  return out;
}

}  // namespace

std::string LabelledLine(std::string_view label, const std::string& text, int width) {
  return fmt::format("{:<{}}{}\n", label, kLabel, Wrap(text, static_cast<size_t>(width), kLabel));
}

std::string NextLines(const std::vector<run::NextCommand>& commands, const TextOptions& options,
                      const std::string& in_short) {
  std::string out;
  for (const run::NextCommand& next : commands) {
    if (!out.empty() && !options.details) break;
    const std::string& shown = options.details || in_short.empty() ? next.command : in_short;
    out += fmt::format("{:<{}}{}\n", out.empty() ? "next" : "", kLabel,
                       WrapCommand(EscapeUnsafe(shown), static_cast<size_t>(options.width)));
  }
  return out;
}

std::string ModelLine(const drive::EngineRecord& e) {
  std::string text = Escape(e.model_path.filename().string());
  auto add = [&](const std::string& before, const std::string& value) {
    if (!value.empty()) text += ", " + before + Escape(value);
  };
  const trace::ModelFacts facts = e.model_facts();
  add("", facts.architecture);
  if (facts.n_layers > 0) add("", fmt::format("{} layers", facts.n_layers));
  if (facts.shape.d_model > 0) add("d_model ", std::to_string(facts.shape.d_model));
  add("", facts.weights);
  if (!e.model_sha256.empty()) text += ", sha256:" + e.model_sha256.substr(0, 12);
  return text;
}

std::string EngineLine(const drive::EngineRecord& e) {
  const trace::EngineFacts facts = e.engine_facts();
  const std::string version = facts.version.empty() ? "" : " " + facts.version;
  std::string text = facts.name.empty() ? Escape(e.spec) : Escape(facts.name + version);
  const std::string of_session = e.session_facts().threads,
                    threads = of_session.empty() ? facts.threads : of_session;
  std::string detail = Escape(facts.isa);
  if (!threads.empty())
    detail += (detail.empty() ? "" : ", ") + Escape(threads) + (threads == "1" ? " thread" : " threads");
  if (!detail.empty()) text += " (" + detail + ")";
  return text;
}

std::string FactsLine(const drive::EngineRecord& e, const drive::EngineRecord& candidate,
                      const drive::EngineRecord& reference) {
  struct Shown {
    const char *key, *label;
  };
  static constexpr Shown kShown[] = {
      {"ffn.activation", "ffn "}, {"rope.pairing", "rope "}, {"rope.base", ""},       {"norm.eps", "eps "},
      {"act.quant", "act "},      {"kv.type", "kv "},        {"attn.flash", "flash "}};
  std::string text;
  bool any = false;
  for (const Shown& s : kShown) {
    const host::Fact *c = FindIn(candidate, s.key), *r = FindIn(reference, s.key);
    // In the same spelling where they are the same; what the user put in the place of a declaration
    // is marked.
    const bool same = c && r && SameValue(c->value, r->value);
    auto shown = [&](const drive::EngineRecord& of) {
      const host::Fact* own = FindIn(of, s.key);
      if (!own) return std::string("-");
      const host::Fact* declared = host::FindFact(of.model, s.key);
      return Escape(same ? c->value : own->value) + (declared && declared->origin == "set" ? " [set]" : "");
    };
    size_t columns = std::max(c ? Columns(shown(candidate)) : 0, r ? Columns(shown(reference)) : 0);
    if (columns == 0) continue;
    any |= FindIn(e, s.key) != nullptr;
    if (!text.empty()) text += *s.label ? "  " : std::string(kNoBreak);
    text += Together(s.label + Fit(shown(e), columns));
  }
  while (text.ends_with(' ') || text.ends_with(kNoBreak))
    text.resize(text.size() - (text.ends_with(' ') ? 1 : kNoBreak.size()));
  return any ? text : "";
}

std::vector<std::string> FactsThatDiffer(const drive::EngineRecord& candidate,
                                         const drive::EngineRecord& reference) {
  std::set<std::string> keys;
  for (const host::Facts* facts : {&candidate.model, &candidate.session})
    for (const host::Fact& f : *facts)
      if (f.key != "findings" && f.key != "unheard") keys.insert(f.key);  // of one engine: they are notes
  std::vector<std::string> differing;
  for (const std::string& key : keys) {
    const host::Fact *c = FindIn(candidate, key), *r = FindIn(reference, key);
    // room, not arithmetic
    if (!c || !r || SameValue(Spelt(c->value), Spelt(r->value)) || key == "n_ctx") continue;
    auto side = [](const host::Fact& f) {
      std::string value = Escape(Spelt(f.value));
      if (Columns(value) > 40) value = Fit(value, 40);
      return fmt::format("{} [{}]", value, Escape(f.origin));
    };
    differing.push_back(fmt::format("{}: {} | {}", Escape(key), side(*c), side(*r)));
  }
  return differing;
}

std::string PathsLeftText(std::span<const run::Path> left, const TextOptions& options) {
  constexpr size_t kTold = 3;
  const size_t n = options.details ? left.size() : std::min(left.size(), kTold);
  std::string text = "not gone through: ";
  for (size_t i = 0; i < n; ++i) text += fmt::format("{}{}", i == 0 ? "" : "; ", PathText(left[i]));
  if (n < left.size()) text += fmt::format("; and {} more (-v)", left.size() - n);
  return text;
}

std::string LastWords(const drive::EngineRecord& e, int width) {
  if (e.last_words.empty()) return "";
  std::vector<std::string> lines;
  std::string_view rest = e.last_words;
  while (!rest.empty()) {
    size_t end = std::min(rest.find('\n'), rest.size());
    if (end > 0) lines.push_back(Escape(rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  constexpr size_t kShown = 8;
  std::string out = fmt::format("{:<{}}last words of the {}:\n", "stderr", kLabel, e.role);
  for (size_t i = lines.size() > kShown ? lines.size() - kShown : 0; i < lines.size(); ++i)
    out += LabelledLine("", lines[i], width);
  return out;
}

std::string OpName(int32_t stage, int32_t layer, std::optional<int64_t> feature) {
  std::string text = layer >= 0 ? fmt::format("layer {}, ", layer) : "";
  text += stage >= 0 && stage < PB_STAGE_COUNT ? pb_vocabulary[stage].name : "an unmapped op";
  if (feature) text += fmt::format(", feature {}", *feature);
  return text;
}

bool IsBoundOfZeros(double bound) {
  constexpr double kUnderflow = 1e-30;  // far above what underflow allows, far below any rounding
  return bound < kUnderflow;
}

std::string ErrorText(double error, double bound) {
  if (!IsBoundOfZeros(bound)) return fmt::format("error {:.1e}, bound {:.1e}", error, bound);
  return error == 0 ? "exact zeros, as expected"
                    : fmt::format("error {:.1e} where exact zeros are expected", error);
}

std::string WorstText(const compare::PointRow& p) {
  const double error = std::max(p.worst_row, p.worst_feature);
  const std::string place = OpName(p.stage, p.layer, std::nullopt) + ": ";
  if (!p.above_bound()) return place + fmt::format("error {:.1e}, {:.2g} of its bound", error, p.bound_ratio);
  return place + ErrorText(error, p.bound);
}

const compare::PointRow* WorstPoint(std::span<const compare::PointRow> points) {
  const compare::PointRow* worst = nullptr;
  for (const compare::PointRow& p : points) {
    const bool explained = p.above_bound() && !p.is_defect();
    if (!explained && (!worst || !(p.bound_ratio <= worst->bound_ratio))) worst = &p;
  }
  return worst;
}

std::string VerdictWord(Outcome outcome, bool colour) {
  std::string word = compare::OutcomeName(outcome);
  std::transform(word.begin(), word.end(), word.begin(),
                 [](char ch) { return ch >= 'a' ? ch - 'a' + 'A' : ch; });
  if (!colour) return word;
  const char* code = outcome == Outcome::kMatch                                        ? "\x1b[1;32m"
                     : outcome == Outcome::kNearTie || outcome == Outcome::kDrift      ? "\x1b[1;33m"
                     : outcome == Outcome::kIncomplete || outcome == Outcome::kInvalid ? "\x1b[1;35m"
                                                                                       : "\x1b[1;31m";
  return code + word + "\x1b[0m";
}

std::string ReasonLines(const compare::Verdict& verdict, size_t skip, const TextOptions& options) {
  std::string out;
  for (size_t i = skip; i < verdict.reasons.size(); ++i)
    out += fmt::format(
        "{:<{}}- {}\n", out.empty() ? "reasons" : "", kLabel,
        Wrap(EscapeLines(verdict.reasons[i].text), static_cast<size_t>(options.width), kLabel + 2));
  return out;
}

std::string EscapeLines(std::string_view text) {
  std::string out;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find_first_of(" \n", begin), text.size());
    std::string word = Escape(text.substr(begin, end - begin));
    for (size_t at; (at = word.find("\\\"")) != std::string::npos;)
      word.erase(at, 1);  // quotes do no harm here
    if (!word.empty()) out += (out.empty() ? "" : " ") + word;
    begin = end + 1;
  }
  return out;
}

}  // namespace pb::report
