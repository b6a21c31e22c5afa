// Whose token ids are wrong, and how.
#include <algorithm>

#include "diagnose/blame.h"
#include "diagnose/diagnose.h"
#include "diagnose/file_arbiter.h"

namespace pb::diagnose {
namespace {

using compare::Blame;
using Ids = std::vector<int32_t>;

}  // namespace

std::string HowTokensPart(const Ids& ids, const Ids& expected, int32_t bos, std::string* name) {
  auto with_bos = [bos](Ids rest) { return rest.insert(rest.begin(), bos), rest; };
  const bool begins = !expected.empty() && expected.front() == bos;
  if (begins && ids == with_bos(expected)) return *name = "bos=doubled", "begins with BOS twice";
  if (begins && with_bos(ids) == expected) return *name = "bos=missing", "leaves BOS out";
  if (!begins && ids == with_bos(expected))
    return *name = "bos=added", "begins with BOS, which the model does not ask for";
  *name = "tokens";
  const size_t at = static_cast<size_t>(std::ranges::mismatch(ids, expected).in1 - ids.begin());
  if (at == ids.size() || at == expected.size())
    return fmt::format("gives {} ids, the model's rules {}; the first {} are equal", ids.size(),
                       expected.size(), at);
  return fmt::format("gives id {} at place {}, the model's rules {}", ids[at], at, expected[at]);
}

Result<Diagnosis> ExplainTokens(const run::Comparison& comparison, const drive::EngineSpec& arbiter,
                                const host::Limits& limits) {
  auto prompt = std::ranges::find_if(
      comparison.prompts, [](const run::PromptRecord& p) { return p.tokens_of[0] != p.tokens_of[1]; });
  if (prompt == comparison.prompts.end()) return MakeError(Code::kNotFound, "all token ids are equal");
  Diagnosis d;
  d.place.prompt = static_cast<int32_t>(prompt - comparison.prompts.begin());
  PB_ASSIGN(auto engine, host::Engine::Start(arbiter.plugin, arbiter.settings, limits));
  bool agrees[2];
  for (int side : {0, 1}) {
    const drive::EngineRecord& record = side == 0 ? comparison.candidate : comparison.reference;
    PB_ASSIGN(host::Facts facts, engine->OpenModel(record.model_path));
    PB_ASSIGN(Ids expected, engine->Tokenize(prompt->text, PB_ADD_SPECIAL | PB_PARSE_SPECIAL));
    Trial trial;
    trial.side = record.role;
    trial.text =
        HowTokensPart(prompt->tokens_of[side], expected, trace::ReadModelFacts(facts).bos, &trial.name);
    trial.restores = agrees[side] = prompt->tokens_of[side] == expected;
    d.findings.push_back(
        {record.role + " against arbiter", agrees[side] ? 0.0 : 1.0, 0, agrees[side] ? 0.0 : 2.0,
         agrees[side],
         fmt::format("{} ids, the arbiter gives {}", prompt->tokens_of[side].size(), expected.size())});
    if (agrees[side]) continue;
    trial.restores = trial.name != "tokens";
    trial.short_text = "that";
    d.trials.push_back(std::move(trial));
  }
  d.conclusion.where = Where::kTokens;
  if (d.Named()) d.conclusion.what = WhatKind::kVariation, d.conclusion.name = d.Named()->name;
  d.blame = agrees[0] && agrees[1] ? Blame::kModelFile
            : agrees[0]            ? Blame::kReference
            : agrees[1]            ? Blame::kCandidate
                                   : Blame::kBoth;
  for (const drive::EngineRecord* record : {&comparison.candidate, &comparison.reference}) {
    if (record->engine_facts().name == "native")
      d.shared.push_back(
          fmt::format("the arbiter tokenises with the same code as the {} (native)", record->role));
  }
  if (d.trials.empty())
    d.sentence = "tokens: each engine tokenises as its own file says, and the files' tokenisers differ";
  else
    d.sentence = fmt::format("tokens: the {} {}", d.trials.front().side, d.trials.front().text);
  return d;
}

}  // namespace pb::diagnose
