// The defects and harmless changes that the mutant can make, one table.
#ifndef PARITYBIT_PLUGINS_MUTANT_CATALOGUE_H_
#define PARITYBIT_PLUGINS_MUTANT_CATALOGUE_H_

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "plugins/mutant/plain.h"

namespace pb::mutant {

// Where in an op's output a defect is, when not everywhere.
enum class Spot { kAll, kFeature, kHead };

// What an op must have for a defect to exist there.
enum class Need {
  kNothing,
  kTernary,
  kCodes,
  kSquare,
  kPartner,
  kTwoLayers,
  kBlocks,
  kQuantised,
  kTwoHeads,
  kGrouped,
  kFactors,  // of the rotation's frequencies
  kBias,
  kWindow,     // the layer has one
  kLocalRope,  // local layers rotate otherwise
  kUnrotated,  // the layer has no rotary embedding
  kScoreCap,
  kLogitCap,
  kResidualScale,
  kEmbeddingScale,
  kSinks,            // each head's softmax has one
  kAttentionFactor,  // of what is rotated
  kYarn,
  kLayerNorm,
  kNormBias,
  kSwigluOai,
  kSoftmaxOfAll,  // the router's, and its order shows
  kSoftmaxOfChosen,
  kNormalised,  // the experts' weights are
  kExpertBias,
  kMoreExperts,  // than a token uses
  kCoded,        // the product's input is rounded to codes
  kSums,         // and sums of them are stored
};

struct Defect {
  const char* name;
  // a row of the published matrix; one that begins with "benign": changes bits and is no defect
  const char* kind;
  stages::Set at;  // ops it can be committed at; none: in the tokeniser
  void (*commit)(Op& op, double parameter);
  double parameter;
  Spot spot;
  const char* truth;  // names of hypotheses that are right, by their beginning, separated by spaces
  Need need;

  // Outputs that a product must have at least: more than a tail that is left out, and several where
  // one is told from the others.
  int64_t LeastRows() const;
};

std::span<const Defect> Catalogue();
const Defect* FindDefect(std::string_view name);
// Why the defect does not exist at this op of this model; empty: it does.
std::string Obstacle(const Defect& defect, const Op& op);
// Stages besides its own that a defect must compute itself, because the wrapped engine would not
// use what it shows: what a mask lets through is ignored by an engine that knows how far it has to
// look.
bool Carries(const Defect& defect, pb_stage stage);
// The output column, or the head, that a defect which is at one chooses in an op.
int64_t SpotFeature(const Op& op);
int64_t SecondRow(const Op& op);  // that rows_exchanged exchanges it with
int64_t SpotHead(const Op& op);

// weight_faults.cc: norms and products.
// The magnitude of a ternary matrix's weights; a scale of its own where it has one.
double TernaryScale(const Weights& w);
// Another matrix of the same layer and, in most models, the same shape; the stage itself where
// there is none.
pb_stage PartnerOf(pb_stage stage);
void NormFault(Op& op, double which);
void NormEps(Op& op, double eps);
void NormOfOtherTensor(Op& op, double which);
void FeatureFactor(Op& op, double factor);
void HeadFactor(Op& op, double factor);
void TailZero(Op& op, double n);
void Factor(Op& op, double factor);
void ScaleFault(Op& op, double power);
void WeightCell(Op& op, double relative);
void ExchangedRows(Op& op, double);
void ShiftedRows(Op& op, double);
void ExchangedHeads(Op& op, double);
void PairedRows(Op& op, double);
void Transposed(Op& op, double);
void CodeOrder(Op& op, double which);
void CodesUncentred(Op& op, double sign);
void OtherMatrix(Op& op, double which);
void TailColumns(Op& op, double n);
void Bias(Op& op, double size);
void NoBias(Op& op, double);
void OtherScheme(Op& op, double scheme);
void QuantiserBlock(Op& op, double block);
void QuantiserTruncates(Op& op, double);
void QuantiserClamps(Op& op, double clamp);
void OtherQuantiser(Op& op, double);
// What a product's input goes through under a defect of the quantiser; nothing: it is none, or does
// not exist at this op.
struct FaultyQuantiser {
  ActScheme scheme;
  QuantiserFault fault;
};
std::optional<FaultyQuantiser> QuantiserOf(const Defect& defect, const Op& op);

// attention_faults.cc: rotation and attention.
enum class RopeFault {
  kPairing,
  kBase,
  kOffset,
  kNone,
  kScale,
  kDims,
  kFromBatch,
  kFactors,
  kExchanged,
  kEverywhere,
  kAttentionFactor,
  kYarn
};
template <RopeFault kind>
void Rope(Op& op, double parameter);
void ScoresScale(Op& op, double power);
void Mask(Op& op, double shift);
void Window(Op& op, double shift);
void Uncapped(Op& op, double);
void StaleCache(Op& op, double which);
void InterleavedHeads(Op& op, double);
void Softmax(Op& op, double scale);
void SoftmaxSink(Op& op, double sink);
void NoSinks(Op& op, double);

// expert_faults.cc: routers, experts and the shared one.
void ExpertsFromRank(Op& op, double rank);
void HighestOfEqual(Op& op, double);
void RouterWeights(Op& op, double which);
void ExpertsExchanged(Op& op, double which);
void ExpertsWithoutBias(Op& op, double);
void SharedUngated(Op& op, double);

// elementwise_faults.cc: activation, gate, residual, embeddings, and what is no defect.
void OtherActivation(Op& op, double which);
void LogitsUncapped(Op& op, double);
void Gate(Op& op, double which);
void NormWithoutBias(Op& op, double);
void Residual(Op& op, double which);
void EmbeddingScale(Op& op, double);
void NextTokensRow(Op& op, double);
void Ulp(Op& op, double);
void OtherSum(Op& op, double which);
void OtherFormula(Op& op, double);

// harmless.cc: arithmetic that compilers and libraries choose.
void OtherRounding(Op& op, double how);  // a Harmless
void FastMath(Op& op, double);
// Queries and probabilities meet an f16 cache as they are.
void AttentionUnrounded(Op& op, double);

}  // namespace pb::mutant

#endif  // PARITYBIT_PLUGINS_MUTANT_CATALOGUE_H_
