// What an engine showed and delivered over one sequence, on disk: recorded while it runs, and served
// in its place afterwards, the same events with the same bits. An engine that nobody overwrites or
// disturbs computes the same again, so what is on the tape need not be computed twice.
#ifndef PARITYBIT_DRIVE_TAPE_H_
#define PARITYBIT_DRIVE_TAPE_H_

#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/blake3.h"
#include "base/file.h"
#include "host/engine.h"

namespace pb::drive {

// One event of a pass: a point's output, or rows of logits.
struct TapeItem {
  host::Event::Kind kind = host::Event::kPoint;
  host::PointRef point;
  std::vector<int64_t> shape;
  uint64_t offset = 0, n_values = 0;  // where they begin in the data, in values; the product of shape
  // Of values over positions the bits of all that a row has behind its own position, as a mask leaves
  // them: these are not in the data. None: all are.
  std::optional<uint32_t> hidden = std::nullopt;
};

// One evaluation.
struct TapePass {
  int32_t first_position = 0;
  std::vector<int32_t> tokens, stages;  // stages whose outputs were asked for
  std::vector<TapeItem> items;          // in the engine's order
};

// A tape that was read. The data are mapped, not held.
class Tape {
 public:
  // Of a folder, whatever it is of when `provenance` is not. kNotFound: there is none; kMalformed:
  // it is of something else, or its data do not have their digest.
  // `written`: the digest of the data, by who wrote them just now; empty: they are read for it.
  static Result<std::shared_ptr<const Tape>> Open(const std::filesystem::path& folder,
                                                  const nlohmann::json& provenance,
                                                  const std::string& written = {});
  // Removes a tape, whole or begun, from a folder; what stands beside it stays.
  static void Remove(const std::filesystem::path& folder);

  const std::vector<TapePass>& passes() const { return passes_; }
  // Rows of an item as they are in the data.
  std::span<const float> Stored(const TapeItem& item, int64_t first_row, int64_t n_rows) const;
  // The same with what is not in the data, of each the first `width` of the last extent.
  void Expand(const TapeItem& item, int64_t first_row, int64_t n_rows, int64_t width,
              std::vector<float>* values) const;
  // Maps values that are about to be read, at once and not page by page.
  void Prepare(std::span<const float> values) const;
  // Gives back the memory of values that were used; they are read again when they are needed.
  void Release(std::span<const float> values) const;
  // What the recorder noted beside it.
  const nlohmann::json& note() const { return note_; }
  const std::string& data_blake3() const { return data_blake3_; }
  uint64_t n_bytes() const { return data_.bytes().size(); }

  // Whether an evaluation can be served: a pass as it was recorded with at least these stages
  // watched; or logits alone, of the whole prefill or of a step.
  bool Serves(const host::EvalRequest& request) const;
  // The same, and also where the rows asked for are but some of a recorded pass's: what it showed
  // of them there.
  bool ServesPart(const host::EvalRequest& request) const;

 private:
  explicit Tape(MappedFile data) : data_(std::move(data)) {}
  Status ReadPasses(const nlohmann::json& index);

  MappedFile data_;
  std::vector<TapePass> passes_;
  int32_t n_prefill_ = 0;
  nlohmann::json note_;
  std::string data_blake3_;
};

// Writes a tape: events as they come, then Finish. Without it nothing is left of it.
class TapeWriter {
 public:
  // `max_bytes`: what the data may take; beyond, and where the disk is full, it gives up.
  static Result<std::unique_ptr<TapeWriter>> Create(const std::filesystem::path& folder, uint64_t max_bytes);
  ~TapeWriter();

  void BeginPass(const host::EvalRequest& request);
  void Add(const host::Event& event);
  // Why it gave up; empty: it has all so far.
  const std::string& failure() const { return failure_; }
  // Seals it with its provenance and opens it. The prefill's logits, evaluated whole and unwatched,
  // were those that its passes delivered.
  Result<std::shared_ptr<const Tape>> Finish(const nlohmann::json& provenance, const nlohmann::json& note,
                                             int32_t n_prefill);

 private:
  TapeWriter(std::filesystem::path folder, std::FILE* file, uint64_t max_bytes)
      : folder_(std::move(folder)), file_(file), max_bytes_(max_bytes) {}
  bool PlaceLogitsPoints();
  void Write(std::span<const float> values);
  void WriteWithoutHidden(const TapeItem& item, std::span<const float> values);

  std::filesystem::path folder_;
  std::FILE* file_;
  uint64_t max_bytes_, n_values_ = 0;
  Blake3 digest_;
  std::vector<TapePass> passes_;
  std::string failure_;
};

// An engine whose evaluations can be recorded and served from a tape. All else is the engine's, so
// what it is, tells and replays is always its own.
class TapedEngine : public host::Engine {
 public:
  explicit TapedEngine(std::unique_ptr<host::Engine> live);
  ~TapedEngine() override;

  // Evaluations of the sessions to come, from position 0 on, go to `writer` as well; null: no
  // longer. It outlives that.
  void Record(TapeWriter* writer) { writer_ = writer; }
  // Serves the evaluations to come of sessions with these settings from a tape, as far as it holds
  // them; null: none.
  void Play(std::shared_ptr<const Tape> tape, host::Settings session);
  // Whether passes of some rows are served from a longer one that was recorded.
  void ServeParts(bool parts) { parts_ = parts; }
  const Tape* tape() const { return tape_.get(); }
  // Whether all that was evaluated in the open session was served.
  bool playing() const { return playing_; }

  uint64_t capabilities() const override { return live_->capabilities(); }
  const host::Facts& description() const override { return live_->description(); }
  Result<host::Facts> OpenModel(const std::filesystem::path& path) override { return live_->OpenModel(path); }
  Result<std::vector<int32_t>> Tokenize(std::string_view text, uint32_t flags) override {
    return live_->Tokenize(text, flags);
  }
  Result<std::string> Detokenize(std::span<const int32_t> ids) override { return live_->Detokenize(ids); }
  Result<host::Facts> OpenSession(const host::Settings& overrides) override;
  Result<std::vector<host::StageVisibility>> Stages() override;
  Status Reset(int32_t n_keep) override;
  Result<host::TensorRef> Replay(const host::ReplayRequest& request) override;
  Status Decode(uint32_t type_id, std::span<const std::byte> blocks, std::span<float> values) override {
    return live_->Decode(type_id, blocks, values);
  }
  Status BeginEval(const host::EvalRequest& request) override;
  Result<host::Event> Wait() override;
  Status Continue() override;
  Status Overwrite(std::span<const float> values) override;
  Status Stop() override;
  int ready_fd() const override { return playing_ ? always_ready_ : live_->ready_fd(); }
  std::string LastWords() const override { return live_->LastWords(); }

 private:
  bool Serves(const host::EvalRequest& request) const {
    return parts_ ? tape_->ServesPart(request) : tape_->Serves(request);
  }
  // Opens the engine's own session now, where that was put off and the one that it has was used.
  Status OpenLive();
  void Queue(const host::EvalRequest& request);
  // An event of the tape with its values, which last.
  struct Queued {
    host::Event event;               // its values, where they are as in the data
    const TapeItem* item = nullptr;  // else: whose rows are to be expanded
    int64_t first_row = 0;
  };
  host::Event Take(const Queued& queued);
  // What a queued event has in the data.
  std::span<const float> StoredOf(const Queued& queued) const;

  std::unique_ptr<host::Engine> live_;
  int always_ready_;
  TapeWriter* writer_ = nullptr;
  std::shared_ptr<const Tape> tape_;
  host::Settings tape_session_;
  // Of the engine's own session: its settings and what was told of it; a session with the same that is
  // served needs no other, until something is asked of it.
  std::optional<std::pair<host::Settings, host::Facts>> told_;
  bool put_off_ = false;    // the open session is not the engine's own, but for what it was told
  bool used_ = false;       // the engine's own is no longer as it was opened
  bool from_tape_ = false;  // the session has the tape's settings
  bool playing_ = false;    // and what was evaluated in it came from the tape
  bool parts_ = false;
  std::vector<Queued> queue_;
  // Of events whose rows are not as they lie in the data; those that nobody holds are used again.
  std::vector<std::shared_ptr<std::vector<float>>> expanded_;
  size_t next_ = 0;
  int32_t n_positions_ = 0;  // of a session that is played
};

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_TAPE_H_
