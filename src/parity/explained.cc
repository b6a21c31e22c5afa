// One comparison of one prompt, whose worst reason is what explains.
#include "parity/explained.h"

#include "run/crossval.h"

namespace pb::parity {

Result<std::optional<compare::Reason>> WhatExplains(run::Request pair, const run::PromptSpec& prompt,
                                                    int32_t max_tokens) {
  pair.prompts = {prompt};
  pair.max_tokens = max_tokens;
  pair.scope = compare::Scope::kLogitsOnly;
  pair.default_row = false;
  pair.keep = {};
  if (pair.n_noise_runs <= 0) pair.n_noise_runs = compare::kMinNoiseRuns;
  PB_ASSIGN(const run::Comparison compared, run::Crossval(pair));
  const compare::Verdict& verdict = compared.verdict;
  const std::optional<compare::Reason> none;
  if (verdict.reasons.empty()) return none;
  switch (verdict.outcome) {
    case compare::Outcome::kDrift:
    case compare::Outcome::kIncomplete:
      return std::optional(verdict.reasons[0]);
    default:
      return none;
  }
}

}  // namespace pb::parity
