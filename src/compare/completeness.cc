// Counts prompts, steps, positions and points that were asked for against those that were
// compared.
#include "compare/completeness.h"

#include <algorithm>
#include <cmath>

namespace pb::compare {
namespace {

int64_t ExpectedRows(const PromptEvidence& p) {
  return static_cast<int64_t>(p.tokens[1].size()) + p.n_decode_asked;
}

class CompletenessCheck {
 public:
  CompletenessCheck(const Evidence& evidence, Verdict* verdict) : evidence_(evidence), verdict_(verdict) {}

  void Check() {
    verdict_->coverage.unit = "positions";
    if (evidence_.n_prompts_asked <= 0)
      Add(ReasonCode::kNoPrompts, "there is no prompt, so nothing was compared");
    int64_t n = static_cast<int64_t>(evidence_.prompts.size());
    if (n > evidence_.n_prompts_asked)
      Add(ReasonCode::kExtraPrompts,
          fmt::format("{} prompts were asked for and {} were run", evidence_.n_prompts_asked, n));
    if (n < evidence_.n_prompts_asked && !Explained())
      Add(ReasonCode::kPromptsMissing, fmt::format("{} of {} prompts were not run",
                                                   evidence_.n_prompts_asked - n, evidence_.n_prompts_asked));
    for (const PromptEvidence& p : evidence_.prompts) CheckPrompt(p);
    CheckContent();
    for (; n < evidence_.n_prompts_asked; ++n)
      verdict_->coverage.missing.push_back(fmt::format("prompt {}", n));
    if (verdict_->coverage.compared == 0 && !Explained())
      Add(ReasonCode::kNothingCompared, "no position was compared");
  }

 private:
  // An obstacle is why rows are missing; their absence is then no finding of its own.
  bool Explained() const {
    return std::any_of(evidence_.obstacles.begin(), evidence_.obstacles.end(),
                       [](const Obstacle& o) { return o.outcome >= Outcome::kIncomplete; });
  }

  template <typename... Args>
  void Add(Args&&... reason) {
    verdict_->reasons.emplace_back(std::forward<Args>(reason)...);
  }

  // "prompt 2, decode: " where there are several prompts.
  std::string In(const PromptEvidence& p, const char* phase = nullptr) const {
    std::string prompt = evidence_.n_prompts_asked > 1 ? fmt::format("prompt {}", p.prompt) : "";
    if (!phase) return prompt.empty() ? "" : prompt + ": ";
    return fmt::format("{}{}{}: ", prompt, prompt.empty() ? "" : ", ", phase);
  }

  void CheckPrompt(const PromptEvidence& p) {
    bool never_ran = Explained() && p.rows.empty() && (p.tokens[0].empty() || p.tokens[1].empty());
    int64_t expected =
        never_ran ? static_cast<int64_t>(std::max(p.tokens[0].size(), p.tokens[1].size())) + p.n_decode_asked
                  : ExpectedRows(p);
    Coverage& coverage = verdict_->coverage;
    coverage.expected += expected;
    coverage.compared += static_cast<int64_t>(p.rows.size());
    int64_t n = static_cast<int64_t>(p.rows.size());
    if (n < expected)
      coverage.missing.push_back(fmt::format("prompt {} positions {}-{}", p.prompt, n, expected - 1));
    if (never_ran) return;
    if (!CheckTokens(p)) return;
    CheckShape(p);
    CheckCounts(p, Phase::kPrefill, static_cast<int64_t>(p.tokens[1].size()), p.n_prefill);
    CheckCounts(p, Phase::kDecode, p.n_decode_asked, p.n_decode);
    CheckRows(p);
  }

  bool CheckTokens(const PromptEvidence& p) {
    if (p.tokens[0].empty() && p.tokens[1].empty()) {
      Add(ReasonCode::kEmptyPrompt, In(p) + "the prompt has no tokens, so nothing can be compared");
      return false;
    }
    if (p.tokens[0] == p.tokens[1]) return true;
    size_t shorter = std::min(p.tokens[0].size(), p.tokens[1].size()), i = 0;
    while (i < shorter && p.tokens[0][i] == p.tokens[1][i]) ++i;
    auto id = [&](int side) {
      return i < p.tokens[side].size() ? std::to_string(p.tokens[side][i]) : "none";
    };
    Add(Outcome::kInvalid, ReasonCode::kTokensDiffer,
        fmt::format("{}the engines read different tokens: {} and {}, first at position {}: candidate {}, "
                    "reference {}",
                    In(p), p.tokens[0].size(), p.tokens[1].size(), i, id(0), id(1)));
    return false;
  }

  // Logits that are the same for every token, everywhere, are no result that another could agree
  // with.
  void CheckContent() {
    int64_t n_rows = 0;
    for (const PromptEvidence& p : evidence_.prompts) {
      const double uniform = -std::log(static_cast<double>(std::max<int64_t>(p.n_vocab[1], 1)));
      for (const LogitsRow& row : p.rows) {
        ++n_rows;
        // The largest probability is never below the mean, and equals it only where all are equal.
        constexpr double kRounding = 1e-9;
        if (row.top_k_logp[1].empty() || row.top_k_logp[1][0] > uniform + kRounding) return;
      }
    }
    if (n_rows > 0)
      Add(ReasonCode::kConstantLogits,
          fmt::format(
              "the reference gives every token the same logit at all {} positions: nothing was computed",
              n_rows));
  }

  void CheckShape(const PromptEvidence& p) {
    if (p.n_vocab[0] != p.n_vocab[1] && p.n_vocab[0] > 0 && p.n_vocab[1] > 0)
      Add(ReasonCode::kShapeMismatch,
          fmt::format("{}the candidate's logits have {} values a row, the reference's {}", In(p),
                      p.n_vocab[0], p.n_vocab[1]));
    if (p.n_vocab[1] == 1)
      Add(ReasonCode::kOneTokenVocabulary,
          In(p) + "the vocabulary has one token, whose probability is 1 whatever is computed");
  }

  void CheckCounts(const PromptEvidence& p, Phase phase, int64_t expected, const int64_t (&n)[2]) {
    const char* name = PhaseName(phase);
    for (int side : {0, 1})
      if (n[side] > expected)
        Add(ReasonCode::kExtraOutput,
            fmt::format("{}the {} delivered {} rows, {} were asked for", In(p, name),
                        side ? "reference" : "candidate", n[side], expected));
    if (Explained() || (n[0] >= expected && n[1] >= expected)) return;
    for (int side : {0, 1})
      if (n[side] == 0 && n[1 - side] > 0)
        Add(ReasonCode::kMissingOutput,
            fmt::format("{}the {} delivered no logits, the {} {} rows", In(p, name),
                        side ? "reference" : "candidate", side ? "candidate" : "reference", n[1 - side]));
    if (n[0] != n[1])
      Add(ReasonCode::kUnequalSteps,
          fmt::format("{}the candidate delivered {} rows, the reference {}", In(p, name), n[0], n[1]));
    else
      Add(ReasonCode::kPositionsMissing,
          fmt::format("{}{} of {} positions were run", In(p, name), n[0], expected));
  }

  void CheckRows(const PromptEvidence& p) {
    int64_t n_prefill = std::min({p.n_prefill[0], p.n_prefill[1], static_cast<int64_t>(p.tokens[1].size())});
    int64_t n_decode = std::min({p.n_decode[0], p.n_decode[1], p.n_decode_asked});
    int64_t n = static_cast<int64_t>(p.rows.size());
    if (n < n_prefill + n_decode && !Explained())
      Add(ReasonCode::kPositionsNotCompared,
          fmt::format("{}{} positions were run by both engines and {} compared", In(p), n_prefill + n_decode,
                      n));
    if (n > ExpectedRows(p))
      Add(ReasonCode::kExtraOutput,
          fmt::format("{}{} rows were compared, {} were asked for", In(p), n, ExpectedRows(p)));
    for (int64_t i = 0; i < n; ++i) {
      const LogitsRow& row = p.rows[static_cast<size_t>(i)];
      Phase phase = i < static_cast<int64_t>(p.tokens[1].size()) ? Phase::kPrefill : Phase::kDecode;
      if (row.prompt == p.prompt && row.position == i && row.phase == phase) continue;
      Add(ReasonCode::kRowsOutOfOrder, fmt::format("{}row {} claims to be position {} of prompt {}, {}",
                                                   In(p), i, row.position, row.prompt, PhaseName(row.phase)));
      return;
    }
  }

  const Evidence& evidence_;
  Verdict* verdict_;
};

}  // namespace

void CheckCompleteness(const Evidence& evidence, Verdict* verdict) {
  CompletenessCheck(evidence, verdict).Check();
}

}  // namespace pb::compare
