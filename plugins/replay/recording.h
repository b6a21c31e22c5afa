// A stored trace read as what an engine computed: rows of every tracepoint by position, in whatever
// pieces they were recorded. Nothing of the folder is believed: positions, shapes, digests and
// sizes are checked before they are used.
#ifndef PARITYBIT_PLUGINS_REPLAY_RECORDING_H_
#define PARITYBIT_PLUGINS_REPLAY_RECORDING_H_

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "abi/engine.h"
#include "trace/reader.h"

namespace pb::replay {

struct Tensor {
  std::vector<int64_t> shape;  // rows of tokens first, canonical
  std::vector<float> values;
};

struct Shown {
  pb_visibility how = PB_ABSENT;
  std::string reason;
  std::vector<int32_t> layers = {};  // that show it, perhaps apart (abi/engine.h); empty: all do, and none is
};

// Not for use from several threads.
class Recording {
 public:
  // kUnsupported: a trace that cannot stand for an engine (incomplete, without payloads or logits,
  // of the documented system); kMalformed: one that contradicts itself.
  static Result<std::shared_ptr<Recording>> Open(const std::filesystem::path& folder);

  const trace::Manifest& manifest() const { return trace_.manifest(); }
  const std::filesystem::path& folder() const { return trace_.folder(); }
  const std::vector<int32_t>& tokens() const { return manifest().tokens; }
  // sha256 of manifest and records, which hold the digests of all values.
  const std::string& digest() const { return digest_; }
  int64_t n_layers() const { return n_layers_; }
  // Facts of the model as the recorded engine stated them, and those that follow from the shapes of
  // its records.
  const std::vector<trace::Fact>& model_facts() const { return model_facts_; }
  // A stage is shown when every layer and position of it is there, or every position of the layers in
  // which the recorded engine shows it, perhaps apart. One that it could not show has its reason; one that was not
  // recorded is absent, with that as the reason.
  const Shown& stage(int32_t stage) const { return shown_[static_cast<size_t>(stage)]; }

  // Rows of positions first .. first + n - 1 of a stage that is shown. Scores and probabilities
  // have first + n columns, hidden ones filled in as the vocabulary says. The first rows of a
  // record are served after all of it was checked.
  Result<Tensor> Rows(int32_t stage, int32_t layer, int64_t first, int64_t n);

 private:
  struct Piece {
    size_t record;
    int64_t first, n_rows;
  };
  using Key = std::pair<int32_t, int32_t>;  // stage, layer

  explicit Recording(trace::Trace trace) : trace_(std::move(trace)) {}
  Status CheckWhole() const;
  Status CheckSteps() const;
  Status Index();
  Status AddRecord(size_t index);
  Status CheckPieces(const Key& key, std::vector<Piece>& pieces, bool* every_position) const;
  static std::vector<int32_t> WholeLayers(int32_t stage, const std::map<Key, bool>& every_position);
  void DecideStages(const std::map<Key, bool>& every_position);
  Status CheckFacts();
  Status CheckLogits();
  Result<std::vector<float>> RecordRows(size_t index, int64_t first_row, int64_t n_rows);

  trace::Trace trace_;
  std::string digest_;
  int64_t n_layers_ = 0;
  std::vector<trace::Fact> model_facts_;
  std::map<Key, std::vector<Piece>> pieces_;
  std::array<Shown, PB_STAGE_COUNT> shown_;
  std::vector<bool> verified_;  // records whose values have their digest
};

}  // namespace pb::replay

#endif  // PARITYBIT_PLUGINS_REPLAY_RECORDING_H_
