// Runs in the order of time, and when two engines first parted. Pure.
#ifndef PARITYBIT_RECEIPT_HISTORY_H_
#define PARITYBIT_RECEIPT_HISTORY_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace pb::receipt {

struct HistoryEngine {
  std::string spec, name, version, identity;  // empty: not told
};

// A run that came to a verdict, or to an error.
struct HistoryEntry {
  int64_t time = 0;          // seconds since 1970
  std::string command;       // "crossval"
  std::string call;          // the whole command line
  std::string verdict, why;  // "error": there was none; why: the worst reason
  std::string place;         // "layer 0, ffn_gated"; empty: none
  HistoryEngine engines[2];  // candidate (or the one engine), reference
  std::string model, model_sha256;
};
nlohmann::json ToJson(const HistoryEntry& entry);
// None: it is no entry.
std::optional<HistoryEntry> EntryOf(const nlohmann::json& json);

// Two engines on a model, over time.
struct PairHistory {
  std::string candidate, reference, model, model_sha256;
  int64_t n_runs = 0, n_diverged = 0;
  const HistoryEntry* last = nullptr;          // the last run that judged
  const HistoryEntry* first_parted = nullptr;  // null: they never did
  const HistoryEntry* last_agreed = nullptr;   // before that; null: they had not agreed before
  // Which was another one than when they last agreed: "candidate", "reference", "both", "neither";
  // empty: not known.
  std::string changed;
};
// Of entries in order of time, which outlive the result; the pair that ran last stands first.
std::vector<PairHistory> PairsOf(const std::vector<HistoryEntry>& entries);

}  // namespace pb::receipt

#endif  // PARITYBIT_RECEIPT_HISTORY_H_
