// The faults that `faulty` commits on request, by name.
#ifndef PARITYBIT_PLUGINS_FAULTY_FAULTS_H_
#define PARITYBIT_PLUGINS_FAULTY_FAULTS_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace faulty {

// Things done at a place in the run, rather than said wrongly (faulty.mode).
enum class Deed {
  kCrash,
  kAbort,
  kExit,
  kHang,
  kSpin,
  kOom,
  kThrow,
  kOverflow,
  kGarbage,
  kDisconnect,
  kChatter,
  kError,
  kWork
};

// Things said wrongly during an evaluation or a call.
enum class Lie {
  kNan,            // one logit of the last row
  kInf,            // one logit of the first row
  kWrongVocab,     // logits rows one value wider than n_vocab
  kSkipRows,       // the first row of logits asked for never comes
  kRepeatRows,     // the first row of logits comes twice
  kReverseRows,    // the rows come from the last to the first
  kSkipPoints,     // one observed stage is never handed over
  kRepeatPoints,   // one stage is handed over twice
  kExtraRows,      // a point has one row more than there are tokens
  kHugeShape,      // a point claims 2^62 values
  kNegativeShape,  // a point claims a negative extent
  kNullData,       // a point has no data
  kTokenRange,     // tokenize returns an id outside the vocabulary
  kTokenValue,     // tokenize returns another, valid id
  kTokenCount,     // tokenize announces another count than it gives
  kStageTwice,     // session_stages declares a stage twice
  kLayerTwice,     // session_layers declares a layer twice
  kNoModel,        // model_open reports success without a model
  kSlow,           // nothing wrong, but each point takes its time
  // Wrong results that look right. "Wrong": the gated product of layer 1, by the factor kWrong.
  kWrongUnwatched,  // wrong, unless a tap looks
  // shows the right value and computes with the wrong one, unless it is overwritten
  kShownNotUsed,
  kShownNotUsedABit,    // the same, by so little that the logits hide it
  kIgnoresOverwrites,   // computes on with its own values whatever it is overwritten with
  kOtherLogits,         // shows the right logits and delivers half of them
  kConstantLogits,      // the same logit for every token
  kWrongLate,           // wrong by little, and only from position kLate on
  kHidesPoints,         // declares every stage but the embeddings unobservable
  kWrongBatches,        // wrong in evaluations of more than kSmall tokens
  kNondeterministic,    // wrong by another factor in every session, from position kLate on
  kWrongLongUnwatched,  // wrong in evaluations of more than kLong tokens that nobody watches
};

inline constexpr float kWrong = 1.5f, kABit = 1.0f + 0x1p-21f, kLittle = 1.0f + 0x1p-12f;
inline constexpr int kLate = 6, kSmall = 3, kLong = 200;

enum class Place { kCreate, kModel, kSession, kEval, kPoint };

// What was asked for by faulty.mode and faulty.at.
struct Faults {
  int deed = -1, lie = -1;  // -1: none
  Place at = Place::kEval;
  std::string promise;  // faulty.promise: over which axes it says that its bits are equal

  bool Has(Lie l) const { return lie == static_cast<int>(l); }
};

// Sets one of both keys; false when the value is not known.
bool SetMode(Faults& faults, std::string_view value);
bool SetPlace(Faults& faults, std::string_view value);

// Does the deed when `place` is its place. May return, throw, or not come back. Nonempty: an error
// to report.
std::string Commit(const Faults& faults, Place place);

}  // namespace faulty

#endif  // PARITYBIT_PLUGINS_FAULTY_FAULTS_H_
