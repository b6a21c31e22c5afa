// Who is wrong: from both engines' local errors against the arbiter, and from what two model files
// hold.
#ifndef PARITYBIT_DIAGNOSE_BLAME_H_
#define PARITYBIT_DIAGNOSE_BLAME_H_

#include <string>
#include <vector>

#include "compare/types.h"
#include "model/model.h"

namespace pb::diagnose {

// Whether each engine's output is what the arbiter gives on the file that this engine read.
struct BlameEvidence {
  bool candidate_agrees = false, reference_agrees = false;
  bool files_differ_here = false;  // in what this op reads
  bool equal = false;              // the engines agree with each other
  // Whether the arbiter gives NaN or infinite values on the file.
  bool candidate_file_non_finite = false, reference_file_non_finite = false;
};
struct BlameFinding {
  compare::Blame blame = compare::Blame::kUndetermined;
  std::string why_undetermined;
};
BlameFinding FindBlame(const BlameEvidence& evidence);

// What two files are called.
struct FileNames {
  std::string first = "the candidate's file", second = "the reference's";
};
// What two files hold differently of what an op reads: its tensors, and the hyper-parameters that
// decide it. One sentence each:
// "blk.3.ffn_up.weight of the candidate's file is 1.05 times the reference's".
std::vector<std::string> FileDifferences(const Model& first, const Model& second, int32_t stage,
                                         int32_t layer, const FileNames& names = {});

// "blk.4.attn_norm.weight holds NaN or infinite values in 1 of 576 channels, first 17". Empty: what
// the op reads is finite.
std::string NonFiniteWeights(const Model& model, int32_t stage, int32_t layer);

// How ids that differ from the expected ones do so: a half sentence, and its name: bos=doubled
// bos=missing bos=added tokens.
std::string HowTokensPart(const std::vector<int32_t>& ids, const std::vector<int32_t>& expected, int32_t bos,
                          std::string* name);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_BLAME_H_
