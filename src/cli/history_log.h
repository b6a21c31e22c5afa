// Every run that came to a verdict, a sealed line each, in the user's cache.
#ifndef PARITYBIT_CLI_HISTORY_LOG_H_
#define PARITYBIT_CLI_HISTORY_LOG_H_

#include <string>
#include <vector>

#include "base/result.h"
#include "receipt/history.h"
#include "run/record.h"

namespace pb::cli {

// Of two engines, or of the one that was judged alone (`role` of the second is not "reference").
receipt::HistoryEntry EntryOf(const run::Comparison& comparison, const std::string& command,
                              const std::string& call);
// Appends it: in one piece, so that runs beside each other do not mix; the file is kept below 2 MiB by
// leaving out the oldest. A cache that cannot be written is no error.
void AppendHistory(const receipt::HistoryEntry& entry);

struct History {
  std::vector<receipt::HistoryEntry> entries;  // the oldest first
  int64_t n_damaged = 0;                       // lines that are not what was written
};
Result<History> ReadHistory();

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_HISTORY_LOG_H_
