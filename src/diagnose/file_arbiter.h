// The arbiter on one model file: what an op should give from captured inputs, and whether an
// engine's output is that.
#ifndef PARITYBIT_DIAGNOSE_FILE_ARBITER_H_
#define PARITYBIT_DIAGNOSE_FILE_ARBITER_H_

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "codes/scheme_check.h"
#include "diagnose/arbiter.h"
#include "diagnose/capture.h"
#include "drive/engine_spec.h"
#include "model/model.h"
#include "run/record.h"

namespace pb::diagnose {

// An output against what it should be.
struct Agreement {
  compare::PointRow row;
  bool agrees = false;  // within the bound, or explained by codes
  // Where both are NaN or infinite at the same places: the finite values alone, against the same
  // bound.
  std::optional<compare::PointRow> finite_part;
  double error() const;
};

// What an arbiter takes over from the side that it judges: the settings that decide what is
// declared (hf.config), and those that are settings and no defect (act.quant, kv.type).
host::Settings SettingsOf(const drive::EngineRecord& side);

class FileArbiter {
 public:
  // Starts `arbiter` on the file that `side` read, under SettingsOf(side). An activation that the
  // file leaves open is the one that the side was told. `lenders`: plugins that may decode weights
  // which nothing here decodes.
  static Result<std::unique_ptr<FileArbiter>> Open(const drive::EngineSpec& arbiter,
                                                   const drive::EngineRecord& side,
                                                   std::span<const std::filesystem::path> lenders,
                                                   const host::Limits& limits);

  // The captured op as the model declares it; `variation` as in Arbiter::Expect. `tokens`: ids of
  // the rows, for embeddings.
  Result<Expectation> Expect(const Culprit& culprit, std::span<const int32_t> tokens,
                             const std::string& variation);
  // The op on other inputs, or another op or layer on the captured ones; rows as the inputs'.
  // Another op of the captured layer from what was captured.
  Result<Expectation> ExpectOf(pb_stage stage, const Culprit& culprit, const std::string& variation) {
    return arbiter_->Expect(culprit.inputs, stage, culprit.place.layer, variation);
  }
  // Output and units alone.
  Result<Expectation> Replay(pb_stage stage, int32_t layer, int32_t first_position,
                             std::vector<Recorded> inputs, const std::string& variation);
  // What its replay of an op takes; the captured values of that. kNotFound: not recorded.
  std::vector<stages::Input> ReplayInputs(pb_stage stage) const { return arbiter_->ReplayInputs(stage); }
  Result<std::vector<Recorded>> Inputs(const Culprit& culprit) const;

  // The codes that an engine with an idle session makes of the captured op's input, and those that
  // the arbiter does.
  Result<host::Codes> CodesOf(host::Engine& engine, const Culprit& culprit) const;
  Result<host::Codes> Codes(const Culprit& culprit) { return CodesOf(*engine_, culprit); }
  // Lets an engine with an idle session say how it quantises: what it does not do will explain
  // nothing.
  Status AskForSchemes(host::Engine& engine, const std::string& who) {
    return scheme_check_->Ask(engine, who);
  }

  // Against the bound that `units` (of `expected`) give; where they are empty, against the
  // culprit's.
  Agreement Compare(const Culprit& culprit, std::span<const float> output, std::span<const float> expected,
                    std::span<const float> units) const;

  // Ids of a text by the model's own rules, special tokens and all.
  Result<std::vector<int32_t>> Tokenize(std::string_view text) {
    return engine_->Tokenize(text, PB_ADD_SPECIAL | PB_PARSE_SPECIAL);
  }
  Result<std::string> Detokenize(int32_t id) { return engine_->Detokenize({&id, 1}); }

  const Model& model() const { return *model_; }
  // Why no blame falls on the file, or on the weights that a stage reads: an engine lent the decoder
  // of them. Empty where nothing was lent.
  std::string WhyWithheld(int32_t stage, int32_t layer) const;
  const host::Facts& facts() const { return facts_; }      // of the model
  const host::Facts& session() const { return session_; }  // settings in force: act.quant, kv.type
  // The scheme under which it computes a product (formats/act_scheme.h).
  ActScheme SchemeOf(const WeightView& w, int32_t stage) const {
    return act_quant_.SchemeFor(w.type, w.n_rows, PlaceOf(stage));
  }
  const host::Facts& description() const { return engine_->description(); }
  const std::vector<host::StageVisibility>& stages() const { return stages_; }

 private:
  FileArbiter() = default;
  Result<Expectation> Embeddings(std::span<const int32_t> tokens);
  void ExplainByCodes(const Culprit& culprit, std::span<const float> output, std::span<const float> expected,
                      const compare::LocalBound& bound, Agreement* agreement) const;

  std::unique_ptr<host::Engine> engine_;
  std::shared_ptr<const Model> model_;
  std::unique_ptr<Arbiter> arbiter_;
  ActQuant act_quant_;
  std::optional<codes::SchemeCheck> scheme_check_;
  std::vector<host::StageVisibility> stages_;
  host::Facts facts_, session_;
};

// An arbiter for each side of a comparison; one serves both where they read the same file under the
// same settings.
class FileArbiters {
 public:
  static Result<FileArbiters> Open(const drive::EngineSpec& arbiter, const run::Comparison& comparison,
                                   const host::Limits& limits);
  // 0 candidate, 1 reference
  FileArbiter& of(int side) { return apart() ? *own_[side] : *own_[0]; }
  bool apart() const { return own_[1] != nullptr; }

 private:
  std::unique_ptr<FileArbiter> own_[2];
};

// Ids of the captured point's token rows.
std::vector<int32_t> TokensOf(const Culprit& culprit, const run::Comparison& comparison);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_FILE_ARBITER_H_
