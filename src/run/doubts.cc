// Finds what is in doubt about a model file and a text before an engine computes anything, and says
// what follows.
#include "run/doubts.h"

#include <fmt/format.h>

#include <algorithm>

#include "drive/engine_spec.h"
#include "model/declared.h"

namespace pb::run {
namespace {

void AddOnce(std::string text, std::vector<std::string>* notes) {
  if (std::find(notes->begin(), notes->end(), text) == notes->end()) notes->push_back(std::move(text));
}

}  // namespace

ModelOptions DeclaredBy(const host::Settings& settings) {
  ModelOptions options;
  for (const auto& [key, value] : settings) (void)Declare(key, value, &options).ok();
  return options;
}

Status CheckModelFile(const std::filesystem::path& path, const host::Settings& settings,
                      std::vector<Doubt>* doubts) {
  return FindDoubts(path, DeclaredBy(settings), doubts);
}

void TellDoubts(const std::vector<Doubt>& doubts, int64_t n_positions, bool judged_by_declaration,
                std::vector<compare::Obstacle>* obstacles, std::vector<std::string>* notes) {
  for (const Doubt& doubt : doubts) {
    if (doubt.kind == Doubt::Kind::kContradiction && (doubt.beyond == 0 || n_positions > doubt.beyond)) {
      obstacles->push_back(compare::Contradicted(
          fmt::format("the config.json contradicts the model file in {}; say which counts: {}", doubt.text,
                      fmt::join(WaysToDecide({doubt}), " or "))));
    } else if (doubt.kind == Doubt::Kind::kContradiction) {
      AddOnce(fmt::format("{}; it matters beyond {} positions alone", doubt.text, doubt.beyond), notes);
    } else if (doubt.kind == Doubt::Kind::kUnheard && judged_by_declaration) {
      obstacles->push_back(compare::Unheard("what the model declares is not all heard: " + doubt.text));
    } else {
      AddOnce(doubt.text, notes);
    }
  }
}

std::vector<std::string> WaysToDecide(const std::vector<Doubt>& doubts) {
  for (const Doubt& doubt : doubts) {
    if (doubt.kind != Doubt::Kind::kContradiction) continue;
    std::vector<std::string> ways;
    for (const std::string& choice : doubt.choices) ways.push_back(doubt.flag + " " + choice);
    if (ways.empty())
      ways.push_back(doubt.flag == "--set" ? "--hf-config none" : doubt.flag + " hf.config=none");
    return ways;
  }
  return {};
}

std::vector<std::string> NotesOnModel(const std::filesystem::path& path, const host::Settings& settings,
                                      int64_t n_positions) {
  std::vector<Doubt> doubts;
  std::vector<std::string> notes;
  std::vector<compare::Obstacle> obstacles;
  if (!CheckModelFile(path, settings, &doubts).ok()) return notes;
  TellDoubts(doubts, n_positions, true, &obstacles, &notes);
  for (compare::Obstacle& obstacle : obstacles) AddOnce(std::move(obstacle.text), &notes);
  return notes;
}

bool ReadsAsDeclared(const drive::EngineRecord& engine) {
  return host::FindFact(engine.model, "unheard") != nullptr;
}

void NoteTokens(const drive::EngineRecord& engine, const std::vector<int32_t>& ids, const std::string& origin,
                std::vector<std::string>* notes) {
  const trace::ModelFacts facts = trace::ReadModelFacts(engine.model);
  const int32_t bos = facts.bos, eos = facts.eos;
  const bool adds = facts.adds_bos;
  if (ids.size() > 1 && bos >= 0 && ids[0] == bos && ids[1] == bos)
    AddOnce(fmt::format("the prompt ({}) begins with BOS twice (id {}): {}", origin, bos,
                        adds ? "the text has it, and the tokeniser adds one" : "the text has it twice"),
            notes);
  if (ids.size() > 1 && eos >= 0 && eos != bos && ids.back() == eos)
    AddOnce(
        fmt::format("the prompt ({}) ends with EOS (id {}), so what follows it is asked for after the end",
                    origin, eos),
        notes);
}

}  // namespace pb::run
