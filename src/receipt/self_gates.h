// What the gates ask of receipts that have one engine measured against itself (noise), or paritybit
// itself (self-check).
#ifndef PARITYBIT_RECEIPT_SELF_GATES_H_
#define PARITYBIT_RECEIPT_SELF_GATES_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "receipt/gates.h"

namespace pb::receipt {

bool IsNoise(const nlohmann::json& receipt);
bool IsSelfCheck(const nlohmann::json& receipt);

// Coverage, tokens, logits, determinism of noise: every variation that was run covers all positions;
// its figures, the limits and the floor fit each other; the same again has the same bits.
Gate NoiseCoverage(const nlohmann::json& receipt);
Gate NoiseTokens(const nlohmann::json& receipt);
Gate NoiseLogits(const nlohmann::json& receipt);
Gate NoiseDeterminism(const nlohmann::json& receipt);
// Whether its verdict is what the variations come to.
std::vector<std::string> NoiseContradictions(const nlohmann::json& receipt);

// The same of a self-check: every case was run; harmless changes raise no alarm; cases that were run
// a second time came to the same.
Gate SelfCheckCoverage(const nlohmann::json& receipt);
Gate SelfCheckTokens(const nlohmann::json& receipt);
Gate SelfCheckLogits(const nlohmann::json& receipt);
Gate SelfCheckDeterminism(const nlohmann::json& receipt);
// Whether goals, verdict and exit code are what the cases come to; `saw`: what was found of them.
std::vector<std::string> SelfCheckContradictions(const nlohmann::json& receipt, std::string* saw);

}  // namespace pb::receipt

#endif  // PARITYBIT_RECEIPT_SELF_GATES_H_
