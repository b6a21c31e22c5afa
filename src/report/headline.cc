// Words verdicts: engines by their names, ops by theirs, positions as tokens.
#include "report/headline.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <vector>

#include "compare/verdict.h"
#include "diagnose/stage_text.h"
#include "report/escape.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using compare::Blame;
using compare::LogitsRow;
using compare::Outcome;
using compare::ReasonCode;
using diagnose::Diagnosis;

std::string Plural(int64_t n, const char* one) { return fmt::format("{} {}{}", n, one, n == 1 ? "" : "s"); }

// What the engines are called: by name where that tells them apart, else by role.
struct Names {
  std::string of[2];  // candidate, reference
  explicit Names(const run::Comparison& c) {
    const drive::EngineRecord* records[2] = {&c.candidate, &c.reference};
    for (int side : {0, 1}) of[side] = Escape(records[side]->engine_facts().name);
    if (of[0].empty() || of[1].empty() || of[0] == of[1]) of[0] = "the candidate", of[1] = "the reference";
  }
  const std::string& operator[](std::string_view role) const { return of[role == "reference"]; }
};

// How much of themselves the two sides share.
enum class Kinship { kNone, kRecording, kSameName, kSameBuild, kSameButFile, kSame };
Kinship KinshipOf(const run::Comparison& c) {
  const drive::EngineRecord &a = c.candidate, &b = c.reference;
  const std::string name = a.engine_facts().name, other = b.engine_facts().name;
  if (!name.empty() && (other == "replay of " + name || name == "replay of " + other))
    return Kinship::kRecording;
  if (name.empty() || name != other) return Kinship::kNone;
  if (a.identity.empty() || a.identity != b.identity) return Kinship::kSameName;
  auto sorted = [](host::Settings settings) {
    std::sort(settings.begin(), settings.end());
    return settings;
  };
  if (sorted(a.settings) != sorted(b.settings)) return Kinship::kSameBuild;
  return a.model_sha256 == b.model_sha256 ? Kinship::kSame : Kinship::kSameButFile;
}

int64_t PositionsOf(const run::Comparison& c) {
  int64_t n = 0;
  for (const run::PromptRecord& p : c.prompts) n += static_cast<int64_t>(p.tokens.size() + p.decoded.size());
  return n;
}

// "8 of 15 next-token choices differ"; empty where no logits were compared.
std::string Choices(const run::Comparison& c) {
  int64_t n = 0, n_flips = 0;
  for (const LogitsRow& row : c.rows) {
    if (!row.finite) continue;
    ++n;
    n_flips += row.flipped();
  }
  if (n == 0) return "";
  if (n_flips > 0)
    return fmt::format("{} of {} differ{}", n_flips, Plural(n, "next-token choice"), n_flips == 1 ? "s" : "");
  return n == 1 ? "the one next-token choice is the same"
                : fmt::format("all {} next-token choices are the same", n);
}

std::string Position(const run::Comparison& c, int32_t position, int32_t token) {
  const auto text = c.token_text.find(token);
  return fmt::format("position {} ({})", position,
                     text == c.token_text.end() ? fmt::format("token {}", token)
                                                : fmt::format("\"{}\"", Escape(text->second)));
}

int32_t TokenAt(const run::PromptRecord& p, int32_t position) {
  const auto at = static_cast<size_t>(position);
  if (at < p.tokens.size()) return p.tokens[at];
  return at - p.tokens.size() < p.decoded.size() ? p.decoded[at - p.tokens.size()] : -1;
}

// "from the first token", "from position 3 (" God")", "from decode step 2, position 11 (",")".
std::string When(const run::Comparison& c, int32_t prompt, int32_t position) {
  std::string text = "from the first token";
  if (const auto at = static_cast<size_t>(prompt); position > 0 && at < c.prompts.size()) {
    const auto n_prompt = static_cast<int32_t>(c.prompts[at].tokens.size());
    text = "from ";
    if (position >= n_prompt) text += fmt::format("decode step {}, ", position - n_prompt + 1);
    text += Position(c, position, TokenAt(c.prompts[at], position));
  }
  return c.prompts.size() > 1 ? fmt::format("{} of prompt {}", text, prompt) : text;
}

std::string Blamed(std::string place, Blame blame) {
  if (blame == Blame::kNone) return place;
  if (!place.empty()) place += "; ";
  return place + Together(std::string("blame: ") + compare::BlameName(blame));
}

// Of an op that was diagnosed, else of the first divergence, if there is one; and blame.
std::string PlaceOf(const run::Comparison& c, const Diagnosis* d) {
  const compare::Verdict& v = c.verdict;
  if (d && d->place.stage >= 0)
    return Blamed("at " + diagnose::PlaceText(d->place.layer, d->place.stage, d->feature) + ", " +
                      When(c, d->place.prompt, d->position),
                  d->blame);
  if (!v.first_divergence || (d && d->place.stage < 0)) return Blamed("", v.blame);
  const compare::FirstDivergence& first = *v.first_divergence;
  std::string text = When(c, first.prompt, first.position);
  if (first.stage) text = "at " + diagnose::PlaceText(first.layer, *first.stage, first.feature) + ", " + text;
  return Blamed(std::move(text), v.blame);
}

std::string AndChoices(std::string sentence, const run::Comparison& c) {
  const std::string choices = Choices(c);
  return choices.empty() ? sentence : sentence + "; " + choices;
}

// The first line of a reason, without what the report tells besides.
std::string ReasonText(const compare::Verdict& v) {
  std::string text = v.reasons.empty() ? "nothing was compared" : v.reasons[0].text;
  text = text.substr(0, text.find('\n'));
  text = text.substr(0, text.find("; last words: "));
  while (text.ends_with('.')) text.pop_back();
  if (const auto& d = v.first_divergence; d && d->stage) {
    const std::string place = compare::PointName(*d->stage, d->layer) + ": ";
    if (text.starts_with(place)) text.erase(0, place.size());
  }
  return EscapeLines(text);
}

// What was put in the place of what the model declares: ", with ffn.activation=silu set".
std::string Overrides(const run::Comparison& c) {
  std::vector<std::string> set;
  for (const drive::EngineRecord* e : {&c.candidate, &c.reference})
    for (const host::Fact& fact : e->model) {
      const std::string text = Escape(fact.key + "=" + fact.value);
      if (fact.origin == "set" && std::find(set.begin(), set.end(), text) == set.end()) set.push_back(text);
    }
  return set.empty() ? "" : fmt::format(", with {} set", fmt::join(set, " and "));
}

// In what two engines agree: in ops, where most kinds of them could be compared, else in the logits before all.
std::string Agreement(const run::Comparison& c) {
  const int64_t n = c.verdict.coverage.compared;
  const std::string odds = Choices(c) + " and their odds differ by no more than noise; ";
  if (c.verdict.scope != compare::Scope::kLocal) return odds + "no op was compared";
  std::set<std::string> hidden, judged;  // kinds of tensors
  for (const std::string& text : c.verdict.coverage.unobservable)
    hidden.insert(text.substr(0, text.find(':')));
  for (const compare::PointRow& point : c.points)
    if (const char* name = pb_vocabulary[point.stage].name; !hidden.contains(name)) judged.insert(name);
  if (judged.size() >= hidden.size())
    return fmt::format("all {} agree on equal inputs, {}", Plural(n, "tensor"), Choices(c));
  return odds + fmt::format("of {} kinds of ops only {} could be judged by their own errors",
                            judged.size() + hidden.size(), judged.size());
}

// What a match shows, and what it does not.
Headline OfMatch(const run::Comparison& c) {
  const Names names(c);
  const std::string name = Escape(c.candidate.engine_facts().name);
  const std::string agree = Agreement(c);
  const std::string over = "over " + Plural(PositionsOf(c), "token") + Overrides(c);
  const char* alone = "; a mistake that both make does not show (audit judges one engine alone)";
  switch (KinshipOf(c)) {
    case Kinship::kSame:
      return {
          name + " gives the same twice: " + agree,
          over +
              "; it was compared with itself, which shows that it repeats itself and not that it is right"};
    case Kinship::kSameButFile:
      return {fmt::format("{} computes the same from both files: {}", name, agree), over + alone};
    case Kinship::kSameBuild:
      return {fmt::format("{} computes the same with both settings: {}", name, agree), over + alone};
    case Kinship::kSameName:
      return {fmt::format("two builds of {} compute the same: {}", name, agree), over + alone};
    case Kinship::kRecording:
      return {fmt::format("{} gives again what was recorded of it: {}", name, agree), over + alone};
    case Kinship::kNone:
      break;
  }
  const bool one_file = c.candidate.model_sha256 == c.reference.model_sha256;
  return {fmt::format("{} computes what {} computes: {}", names.of[0], names.of[1], agree),
          over + (one_file ? "; both read one file, so a mistake in the file does not show" : "")};
}

// Nats by which the reference prefers its own choice to the candidate's.
std::optional<double> MarginOf(const LogitsRow& row) {
  for (size_t i = 0; i < row.top_k[1].size() && i < row.top_k_logp[1].size(); ++i)
    if (row.top_k[1][i] == row.top1[0]) return row.top_k_logp[1][0] - row.top_k_logp[1][i];
  return std::nullopt;
}

Headline OfNearTie(const run::Comparison& c) {
  Headline h{"every difference lies within the noise; " + Choices(c) + ", by less than rounding moves them",
             ""};
  const auto flip =
      std::find_if(c.rows.begin(), c.rows.end(), [](const LogitsRow& r) { return r.finite && r.flipped(); });
  if (flip == c.rows.end()) return h;
  const Names names(c);
  auto token = [&](int32_t id) {
    const auto text = c.token_text.find(id);
    return text == c.token_text.end() ? fmt::format("token {}", id)
                                      : fmt::format("\"{}\"", Escape(text->second));
  };
  h.place = fmt::format("after {}: {} in {}, {} in {}", Position(c, flip->position, flip->token),
                        token(flip->top1[0]), names.of[0], token(flip->top1[1]), names.of[1]);
  if (const auto margin = MarginOf(*flip))
    h.place += fmt::format(", which prefers it by {:.2g} nats", *margin);
  h.place += fmt::format("; the gap moved by {:.2g}", flip->gap_change);
  if (c.floor.worst_gap > 0)
    h.place += fmt::format(", and rounding alone moves gaps by up to {:.2g}", c.floor.worst_gap);
  return h;
}

Headline OfDrift(const run::Comparison& c) {
  const compare::Verdict& v = c.verdict;
  const Names names(c);
  std::string why;
  if (v.Has(ReasonCode::kFusedAttention))
    why += c.candidate.session_facts().flash.value == c.reference.session_facts().flash.value
               ? "; the engines sum in other precision where attention is one op"
               : "; one engine computes attention as one op, the other step by step";
  if (v.Has(ReasonCode::kPrecisionDiffers)) why += "; the engines round the inputs of products differently";
  if (v.first_divergence)
    why += fmt::format("; what rounding adds up to is more than the noise of {}", names.of[1]);
  const bool by_logits = v.scope == compare::Scope::kLogitsOnly;
  const char* what = by_logits ? "the logits differ by no more than both ways of rounding make of them"
                               : "every op that both show agrees on equal inputs";
  Headline h{AndChoices(what + why, c), PlaceOf(c, nullptr)};
  if (h.place.empty())
    h.place = "over " + Plural(PositionsOf(c), "token") + "; the logits are within their limits";
  return h;
}

// Two engines that part, as far as the logits tell.
std::string PartingLogits(const run::Comparison& c) {
  const auto n =
      std::count_if(c.rows.begin(), c.rows.end(), [](const LogitsRow& r) { return r.above_limit; });
  const bool by_user = std::any_of(c.verdict.limits.begin(), c.verdict.limits.end(),
                                   [](const compare::Limit& l) { return l.by_user; });
  const char* than = by_user ? "the limits allow" : "noise explains";
  return n == 0 ? fmt::format("the logits differ by more than {}", than)
                : fmt::format("the logits differ by more than {} at {} of {}", than, n,
                              Plural(static_cast<int64_t>(c.rows.size()), "position"));
}

std::string PartingOps(const run::Comparison& c, int32_t stage) {
  const Names names(c);
  return fmt::format("given the same inputs, {} and {} do not agree on the {}", names.of[0], names.of[1],
                     diagnose::StageText(stage));
}

Headline OfDivergence(const run::Comparison& c, const Diagnosis* d) {
  const auto& first = c.verdict.first_divergence;
  std::string text = first && first->stage ? PartingOps(c, *first->stage) : PartingLogits(c);
  switch (d ? d->blame : Blame::kNone) {
    case Blame::kNone:
      break;
    case Blame::kUndetermined:
      text = PartingOps(c, d->place.stage) + "; " + CauseOf(c, *d);
      break;
    case Blame::kBoth:
      text = "neither engine computes what the model declares: " + CauseOf(c, *d);
      break;
    default:
      text = CauseOf(c, *d);
  }
  return {AndChoices(text, c), PlaceOf(c, d)};
}

Headline OfReason(const run::Comparison& c, const char* before) {
  return {before + ReasonText(c.verdict), PlaceOf(c, nullptr), true};
}

}  // namespace

std::string CauseOf(const run::Comparison& c, const Diagnosis& d) {
  const Names names(c);
  const bool of_a_side = d.blame == Blame::kCandidate || d.blame == Blame::kReference ||
                         d.blame == Blame::kBoth || d.blame == Blame::kEngine;
  if (of_a_side && !d.side.empty()) return names[d.side] + " " + EscapeLines(diagnose::CauseText(d));
  if (const diagnose::Trial* named = d.Named(); named && d.blame != Blame::kModelFile)
    return names[named->side] + " " + Escape(named->text);
  std::string text = EscapeLines(d.sentence);
  const std::string place =
      d.place.stage >= 0 ? diagnose::PlaceText(d.place.layer, d.place.stage, d.feature) : "tokens";
  if (text.starts_with(place + ": ")) text.erase(0, place.size() + 2);
  for (const char* role : {"candidate", "reference", "engine"}) {
    const std::string who = fmt::format("the {} ", role);
    if (text.starts_with(who)) text = names[role] + " " + text.substr(who.size());
  }
  return text;
}

Headline HeadlineOf(const run::Comparison& c, const Diagnosis* d) {
  switch (c.verdict.outcome) {
    case Outcome::kMatch:
      return OfMatch(c);
    case Outcome::kNearTie:
      return OfNearTie(c);
    case Outcome::kDrift:
      return OfDrift(c);
    case Outcome::kDiverged:
      return OfDivergence(c, d);
    case Outcome::kIncomplete:
      return OfReason(c, "not all was judged, so this is not a pass: ");
    case Outcome::kEngineFailed:
      return OfReason(c, "");
    case Outcome::kInvalid:
      if (c.verdict.Has(ReasonCode::kTokensDiffer))
        return {"the engines read the prompt as different tokens" + (d ? ": " + CauseOf(c, *d) : ""),
                PlaceOf(c, d)};
      if (d) return {CauseOf(c, *d), PlaceOf(c, d)};
      return OfReason(c, "not a pass: ");
  }
  return {};
}

Headline AuditHeadline(const run::Comparison& c, const Diagnosis* d) {
  const compare::Verdict& v = c.verdict;
  const std::string name =
      c.candidate.engine_facts().name.empty() ? "the engine" : Escape(c.candidate.engine_facts().name);
  switch (v.outcome) {
    case Outcome::kMatch:
    case Outcome::kNearTie:
    case Outcome::kDrift:
      return {fmt::format("{} computes what the model declares: all {}", name,
                          Plural(v.coverage.compared, "tensor")),
              "over " + Plural(PositionsOf(c), "token")};
    case Outcome::kDiverged:
    case Outcome::kInvalid:
      if (!d)
        return v.outcome == Outcome::kDiverged
                   ? Headline{name + " does not compute what the model declares", PlaceOf(c, d)}
                   : OfReason(c, "not a pass: ");
      return {CauseOf(c, *d), PlaceOf(c, d)};
    case Outcome::kIncomplete:
      return OfReason(c, "not all was judged, so this is not a pass: ");
    case Outcome::kEngineFailed:
      return OfReason(c, "");
  }
  return {};
}

Headline NoiseHeadline(const run::Comparison& c) {
  if (c.verdict.outcome == Outcome::kMatch) return {};
  if (c.verdict.outcome == Outcome::kDiverged)
    return {"the engine does not keep its promise of equal bits", Blamed("", c.verdict.blame)};
  return {"not measured: " + ReasonText(c.verdict), Blamed("", c.verdict.blame), true};
}

std::string HeadlineBlock(Outcome outcome, const Headline& headline, const TextOptions& options) {
  const std::string word = VerdictWord(outcome, false);
  const size_t indent = std::max(word.size() + 1, kLabel);
  const auto width = static_cast<size_t>(options.width);
  const int exit_code = compare::ExitCode(outcome);
  const std::string exit =
      exit_code == 0 ? "" : fmt::format(" {}", Together(fmt::format("(exit {})", exit_code)));
  std::string out = VerdictWord(outcome, options.colour) + std::string(indent - word.size(), ' ') +
                    Wrap(headline.sentence + exit, width, indent) + "\n";
  if (!headline.place.empty()) out += std::string(indent, ' ') + Wrap(headline.place, width, indent) + "\n";
  return out;
}

std::string HeadlineInOne(Outcome outcome, const Headline& headline, const TextOptions& options) {
  std::string text = headline.place;
  if (!text.empty()) text += "; ";
  text += headline.sentence;
  return VerdictWord(outcome, options.colour) + " " + Wrap(text, std::string::npos, 0) + "\n";
}

}  // namespace pb::report
