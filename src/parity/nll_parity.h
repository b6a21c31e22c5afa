// How well two engines predict the same text, and whether the difference is within a limit, at a
// stated confidence (docs/numerics.md, "Difference of the NLL").
#ifndef PARITYBIT_PARITY_NLL_PARITY_H_
#define PARITYBIT_PARITY_NLL_PARITY_H_

#include <optional>
#include <string>
#include <vector>

#include "parity/interval.h"
#include "run/record.h"
#include "run/request.h"

namespace pb::parity {

// |difference of the mean NLL| in nats: the limit of the documented system.
inline constexpr double kNllLimit = 1e-2;
// Tokens of a window where the model's context holds as many: what llama-perplexity takes.
inline constexpr int64_t kWindow = 512;

struct NllRequest {
  run::Request pair;  // engines and models; no prompts
  run::PromptSpec text;
  int64_t window = 0;  // tokens evaluated at once; 0: chosen
  double limit = kNllLimit;
  double confidence = 0.95;
};

struct NllParity {
  // Both engines, the verdict and its limit. No rows.
  run::Comparison run;
  std::string text_sha256;
  int64_t n_tokens = 0;  // of the text, special tokens included
  int64_t window = 0, n_windows = 0;
  int64_t first_scored = 0;    // position in a window whose next token is the first that counts
  bool window_shrunk = false;  // the text is too short for a window of the usual size
  // Of every token that counts, in order of the text: -log p in the candidate, in the reference.
  std::vector<double> nll[2];
  double mean[2] = {0, 0};  // nats
  double perplexity[2] = {0, 0};
  double perplexity_error[2] = {0, 0};  // one standard error, as llama-perplexity prints it
  std::optional<Interval> difference;   // of the candidate's NLL less the reference's, paired
};

// Whatever the engines do is part of the verdict. An Error is what ends the command before there is
// anything to judge, as of run::Crossval.
Result<NllParity> MeasureNll(const NllRequest& request);

// The window and the first position that counts, of a text of n tokens: windows without overlap, the
// second half of each counts, so that every token has half a window before it; at least two windows.
struct Windows {
  int64_t window = 0, n_windows = 0, first_scored = 0;
  bool shrunk = false;
};
// `asked`: 0 for the usual one; `n_context`: of the model, 0 where it is not told. kUsage: fewer than
// two windows of the size that was asked for, or one that the context does not hold.
Result<Windows> PlanWindows(int64_t n_tokens, int64_t asked, int64_t n_context);

}  // namespace pb::parity

#endif  // PARITYBIT_PARITY_NLL_PARITY_H_
