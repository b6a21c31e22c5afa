// One side of a comparison: an engine started, its model and session opened, evaluated over a
// sequence; every failure noted in its record with the engine's last words.
#ifndef PARITYBIT_DRIVE_PARTICIPANT_H_
#define PARITYBIT_DRIVE_PARTICIPANT_H_

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compare/verdict.h"
#include "drive/engine_record.h"
#include "drive/engine_spec.h"

namespace pb::drive {

// Receives one logits row, (n_vocab), of a position. Its error ends the evaluation.
using RowFn = std::function<Status(int32_t position, std::span<const float> row)>;

// Tracepoints to watch while rows come. An error of on_point ends the evaluation.
struct Taps {
  host::TapFilter filter;
  std::function<Status(const host::Event&)> on_point;
};

// Hands on the rows of an event that brings logits, one by one; of any other nothing.
Status ForEachRow(const host::Event& event, const RowFn& on_row);

// An error that its calls return is the engine's where failed() says so afterwards; else it is of a
// callback or a file.
class Participant {
 public:
  Participant(EngineRecord& record, const host::Limits& limits) : record_(record), limits_(limits) {}

  // Starts the engine and fills the record: settings, digests, identity. A setting it does not know
  // is kUsage.
  Status Start(const EngineSpec& spec);
  Status OpenModel(const std::filesystem::path& model);
  // Replaces the session; its facts go to the record when `keep_facts`.
  Status OpenSession(const host::Settings& settings, bool keep_facts = true);
  // The same with wishes of paritybit's own: a key that the engine says it does not know is left
  // out. Returns what was taken.
  Result<host::Settings> OpenSessionWishing(host::Settings wishes);
  Result<std::vector<int32_t>> Tokenize(std::string_view text);
  Result<std::string> Detokenize(std::span<const int32_t> ids);
  // Evaluates tokens at first_position in one call; rows come for every token.
  Status Evaluate(std::span<const int32_t> tokens, int32_t first_position, const RowFn& on_row,
                  const Taps& taps = {});
  // The same with the rows from the index-th token on.
  Status EvaluateFrom(std::span<const int32_t> tokens, int32_t first_position, int32_t index,
                      const RowFn& on_row);
  // The same with the row of the last token alone.
  Status EvaluateLast(std::span<const int32_t> tokens, int32_t first_position, const RowFn& on_row);
  // Evaluates and hands everything over as it comes. An error of on_event that is kEngine is this
  // engine's: what came was not what was asked for.
  Status Evaluate(const host::EvalRequest& request,
                  const std::function<Status(const host::Event&)>& on_event);
  Result<std::vector<host::StageVisibility>> Stages();
  Status Reset();
  // Takes an error that this engine gave elsewhere for its own.
  Status Noted(Status status);
  // What a failure of this engine makes of the comparison or measurement at hand. None: this engine
  // has not failed, or the call made no sense; the error ends the command.
  std::optional<compare::Obstacle> ObstacleOf(const Error& error);

  // Puts an engine in front of the one that was started.
  void Wrap(const std::function<std::unique_ptr<host::Engine>(std::unique_ptr<host::Engine>)>& with) {
    engine_ = with(std::move(engine_));
  }
  // Begins an evaluation that the next call of Evaluate asks for with the same tokens at the same
  // position, without taps: the engine computes meanwhile.
  Status Begin(std::span<const int32_t> tokens, int32_t first_position);
  // Gives up an evaluation that was begun and that nobody asked for.
  void GiveUpBegun();

  host::Engine& engine() { return *engine_; }
  const EngineRecord& record() const { return record_; }
  const host::Limits& limits() const { return limits_; }
  bool failed() const { return !record_.error.empty(); }

 private:
  // Keeps what it says and the engine's last words.
  Error Note(Error error);
  Status Run(const host::EvalRequest& request, const RowFn& on_row, const Taps& taps);

  EngineRecord& record_;
  host::Limits limits_;
  std::unique_ptr<host::Engine> engine_;
  std::optional<host::EvalRequest> begun_;
};

// Settings of a session whose results are comparable with another engine's, where the user gave
// none: one thread, an f16 KV cache, no flash attention; and room for n_ctx positions.
host::Settings SessionWishes(const host::Settings& by_user, size_t n_ctx);
// Starts an engine to ask what it says of itself.
Result<host::Facts> DescribeEngine(const EngineSpec& spec);
// sha256 of what decides an engine's numbers: plugin and library digests, version, instruction set.
std::string EngineIdentity(const EngineRecord& record);
// Under this key a trace tells it of the engine that it was recorded from, and so does the
// recording as an engine.
inline constexpr std::string_view kIdentityFact = "identity";
// Facts of an engine's description (abi/engine.h, describe): over which axes it promises equal
// bits, as "repeat threads ubatch feed cpu.library", and what cpu.library may be on this processor,
// as "haswell x64".
inline constexpr std::string_view kPromiseFact = "promise.equal_bits", kLibrariesFact = "cpu.libraries";
// What the engine found that the model file leaves open or contradicts: "native: metadata key ...
// is missing", one each; and that it evaluated more positions than the model was trained for, or
// ran more threads than there are processors.
std::vector<std::string> FindingsOf(const EngineRecord& record, int64_t n_positions = 0);
// What to expect of more threads than there are processors; empty where there are enough.
std::string TooManyThreads(int64_t n_threads, int n_processors);
// Whether both engines may compute at the same time: there are processors for the threads of both.
bool MayRunSideBySide(const EngineRecord& one, const EngineRecord& other);
// sha256 of a file, remembered in the cache by path, size and time of change. Of a set of shards: the
// sha256 of all their digests, each a line in hexadecimal digits.
Result<std::string> CachedFileSha256(const std::filesystem::path& path);
// The id of the largest value, the lowest of equals; -1 when no value is finite.
int32_t Greedy(std::span<const float> row);

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_PARTICIPANT_H_
