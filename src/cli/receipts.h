// What commands that write or read receipts share.
#ifndef PARITYBIT_CLI_RECEIPTS_H_
#define PARITYBIT_CLI_RECEIPTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cli/flags.h"
#include "receipt/gates.h"
#include "report/receipt.h"

namespace pb::cli {

inline constexpr uint64_t kMaxReceiptBytes = 512ull << 20;

// --receipt.
void AddReceiptArgument(Flags& flags, std::string& receipt);
// Whether a receipt can be written there (empty: none is asked for): known before anything runs.
Status CheckReceiptPath(const std::string& path);
// `words`: the command again, paths absolute.
report::ReceiptHead HeadOf(std::vector<std::string> words);
// Writes it whole. The exit code of a command that ended with `exit_code`: 5 in place of a success
// whose receipt could not be written, which is said on stderr.
int WriteReceipt(const std::string& path, const std::string& text, int exit_code);
// Seconds since 1970, and the same as "2026-11-30T09:01:08Z".
int64_t NowSeconds();
std::string TimeText(int64_t seconds);

// The words that a receipt says it was made by. kMalformed: they are none.
Result<std::vector<std::string>> WordsOf(const nlohmann::json& receipt);

// Fills in what the files of a receipt are here. Where `model` is given, that is the model's file.
void LookForFiles(const std::string& model, std::vector<receipt::FileHere>* files);

// Runs this program with these words and a receipt, in a process of its own. What is returned is
// the receipt; where none was written, why, in the program's own words.
Result<receipt::Opened> RunForReceipt(std::vector<std::string> words);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_RECEIPTS_H_
