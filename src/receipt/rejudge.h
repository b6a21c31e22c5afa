// The verdict of a receipt worked out again from its own figures and limits, apart from the judge
// that gave it: what a receipt says of itself counts for nothing.
#ifndef PARITYBIT_RECEIPT_REJUDGE_H_
#define PARITYBIT_RECEIPT_REJUDGE_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace pb::receipt {

// What a part of a receipt comes to. The receipt must be valid by the schema.
struct Judged {
  // What makes it invalid: values that are not finite, figures that contradict each other or the
  // limits, as no run writes them. One sentence each.
  std::vector<std::string> contradictions;
  std::vector<std::string> unjudged;  // what has no limit to be judged by, one sentence each
  std::vector<std::string> beyond;    // what is beyond its limit, one sentence each
  std::string saw;                    // the figures, for a person
};

// The logits of a comparison of two engines, position by position and by means.
Judged JudgeLogitsAgain(const nlohmann::json& receipt);
// Whether each limit of noise's is what the floor makes of it; a sentence for each that is not.
std::vector<std::string> JudgeLimitsAgain(const nlohmann::json& receipt);
// Every op that was compared on equal inputs.
Judged JudgeOpsAgain(const nlohmann::json& receipt);
// Whether verdict, exit code and reasons are those that logits, ops and coverage come to.
std::vector<std::string> VerdictContradictions(const nlohmann::json& receipt);

}  // namespace pb::receipt

#endif  // PARITYBIT_RECEIPT_REJUDGE_H_
