// Reads and groups runs.
#include "receipt/history.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "compare/reasons.h"

namespace pb::receipt {
namespace {

using Json = nlohmann::json;

constexpr const char* kSides[] = {"candidate", "reference"};

bool Passed(const HistoryEntry& entry) {
  const auto outcome = compare::FindOutcome(entry.verdict);
  return outcome && compare::ExitCode(*outcome) == 0;
}

std::string ChangedBetween(const HistoryEntry& before, const HistoryEntry& after) {
  bool changed[2];
  for (int side : {0, 1}) {
    const std::string &then = before.engines[side].identity, &now = after.engines[side].identity;
    if (then.empty() || now.empty()) return "";
    changed[side] = then != now;
  }
  return changed[0] && changed[1] ? "both" : changed[0] ? "candidate" : changed[1] ? "reference" : "neither";
}

}  // namespace

Json ToJson(const HistoryEntry& entry) {
  Json out{{"time", entry.time},   {"command", entry.command},
           {"call", entry.call},   {"verdict", entry.verdict},
           {"why", entry.why},     {"place", entry.place},
           {"model", entry.model}, {"model_sha256", entry.model_sha256}};
  for (int side : {0, 1}) {
    const HistoryEngine& e = entry.engines[side];
    out[kSides[side]] =
        Json{{"spec", e.spec}, {"name", e.name}, {"version", e.version}, {"identity", e.identity}};
  }
  return out;
}

std::optional<HistoryEntry> EntryOf(const Json& json) {
  try {
    HistoryEntry entry;
    json.at("time").get_to(entry.time);
    const std::pair<const char*, std::string*> texts[] = {{"command", &entry.command},
                                                          {"call", &entry.call},
                                                          {"verdict", &entry.verdict},
                                                          {"why", &entry.why},
                                                          {"place", &entry.place},
                                                          {"model", &entry.model},
                                                          {"model_sha256", &entry.model_sha256}};
    for (const auto& [key, target] : texts) json.at(key).get_to(*target);
    for (int side : {0, 1}) {
      const Json& e = json.at(kSides[side]);
      HistoryEngine& engine = entry.engines[side];
      e.at("spec").get_to(engine.spec), e.at("name").get_to(engine.name);
      e.at("version").get_to(engine.version), e.at("identity").get_to(engine.identity);
    }
    return entry;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

std::vector<PairHistory> PairsOf(const std::vector<HistoryEntry>& entries) {
  std::vector<PairHistory> pairs;
  for (const HistoryEntry& entry : entries) {
    if (entry.engines[1].spec.empty() || entry.model_sha256.empty()) continue;
    auto pair = std::find_if(pairs.begin(), pairs.end(), [&](const PairHistory& p) {
      return p.candidate == entry.engines[0].spec && p.reference == entry.engines[1].spec &&
             p.model_sha256 == entry.model_sha256;
    });
    if (pair == pairs.end()) {
      PairHistory fresh;
      fresh.candidate = entry.engines[0].spec, fresh.reference = entry.engines[1].spec;
      fresh.model_sha256 = entry.model_sha256;
      pair = pairs.insert(pairs.end(), fresh);
    }
    const bool diverged = entry.verdict == "diverged";
    if (!diverged && !Passed(entry)) continue;  // it says nothing of the two
    pair->model = entry.model;
    pair->last = &entry;
    ++pair->n_runs;
    pair->n_diverged += diverged;
    if (diverged && !pair->first_parted) {
      pair->first_parted = &entry;
      if (pair->last_agreed) pair->changed = ChangedBetween(*pair->last_agreed, entry);
    } else if (!diverged && !pair->first_parted) {
      pair->last_agreed = &entry;
    }
  }
  std::erase_if(pairs, [](const PairHistory& pair) { return pair.n_runs == 0; });
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const PairHistory& a, const PairHistory& b) { return a.last->time > b.last->time; });
  return pairs;
}

}  // namespace pb::receipt
