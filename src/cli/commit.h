// Which sources this program was built from.
#ifndef PARITYBIT_CLI_COMMIT_H_
#define PARITYBIT_CLI_COMMIT_H_

namespace pb::cli {

// The commit's 40 digits, "+changes" behind them where files differed from it; empty: not known.
const char* Commit();
// The last one that changed what a diagnosis looks for, and the generator of defects, alike.
const char* CommitOfVariations();
const char* CommitOfDefects();

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_COMMIT_H_
