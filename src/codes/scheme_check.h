// Whether engines quantise as their setting act.quant says, by the codes that they give themselves
// (abi/engine.h: pb_codes): what a library does not do must not explain its differences.
#ifndef PARITYBIT_CODES_SCHEME_CHECK_H_
#define PARITYBIT_CODES_SCHEME_CHECK_H_

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>

#include "codes/act_scheme.h"
#include "host/engine.h"
#include "model/model.h"

namespace pb::codes {

// What is made of each output y of a product at its end, of logits alone: cap x tanh(factor x y / cap),
// factor x y where there is no cap (0).
struct Finish {
  double factor = 1, cap = 0;
  bool any() const { return factor != 1 || cap > 0; }
  double Of(double y) const;
  // The y of a value; of one at the cap or beyond, what lies a float32's roundoff below it.
  double Undo(double value) const;
  // What rounding of the finish itself moves a value by, in units of float32's roundoff and of y; as
  // the arbiter has it (docs/numerics.md, "Units").
  double UnitsAt(double y) const;
};

// A product of the vocabulary: its matrix, the factor beside it, and the stage that is its input.
struct ProductWeights {
  const WeightView* weights = nullptr;  // null: the stage is no product
  double scale = 1;
  pb_stage input = PB_STAGE_UNMAPPED;
  std::span<const float> bias = {};  // of each output; may be empty
  Finish finish = {};                // after scale and bias
};
ProductWeights ProductOf(const Model& model, int32_t stage, int32_t layer);
// One expert of a product of experts.
struct ExpertWeights {
  WeightView matrix;  // no data: the stage is none of these
  double scale = 1;
  pb_stage input = PB_STAGE_UNMAPPED;
  std::span<const float> bias = {};
};
// `id`: as a router's point has it.
ExpertWeights ExpertOf(const Model& model, int32_t stage, int32_t layer, float id);

class SchemeCheck {
 public:
  // `other`: the second engine's; a product that they round by different schemes has none.
  SchemeCheck(std::shared_ptr<const Model> model, const ActQuant& act_quant, const ActQuant& other)
      : model_(std::move(model)), act_quant_{act_quant, other} {}
  SchemeCheck(std::shared_ptr<const Model> model, const ActQuant& act_quant)
      : SchemeCheck(std::move(model), act_quant, act_quant) {}

  // The scheme of a product; nothing: its input is not rounded to codes, or is no multiple of its
  // blocks.
  std::optional<ActScheme> SchemeOf(int32_t stage, const WeightView& weights) const;
  // Asks an engine with an idle session for its codes of a made-up row, once for every kind of
  // product (weight type, width, output matrix or not), and holds them against the scheme: equal
  // codes, scales and stored sums but where they lie on a rounding boundary. `who`: "candidate".
  // An engine that tells no codes is noted; an Error means that it failed.
  Status Ask(host::Engine& engine, const std::string& who);
  // Of a product's kind: how an engine's codes part from the scheme; empty: none was seen to.
  std::string Contradiction(int32_t stage, const WeightView& weights) const;
  // Half a sentence: "codes as candidate and reference make them", or whose codes are assumed.
  std::string Basis(int32_t stage, const WeightView& weights) const;

 private:
  struct Kind {
    std::string contradiction;
    std::string told, untold;  // engines: "candidate and reference"
  };
  using Key = std::tuple<BlockType, int64_t, bool>;
  static Key KeyOf(int32_t stage, const WeightView& w) {
    return {w.type, w.n_columns, stage == PB_STAGE_LOGITS};
  }
  Status AskFor(host::Engine& engine, const std::string& who, int32_t stage, int32_t layer);

  std::shared_ptr<const Model> model_;
  ActQuant act_quant_[2];
  std::map<Key, Kind> kinds_;
};

// How codes of rows x (n, K) part from a scheme; empty: they do not.
std::string PartsFrom(ActScheme scheme, const host::Codes& codes, std::span<const float> x);

}  // namespace pb::codes

#endif  // PARITYBIT_CODES_SCHEME_CHECK_H_
