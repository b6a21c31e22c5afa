// Which precision an engine uses for the input of each product, observed on the engine: the one
// scheme under which its products come out of its own inputs within their bounds (docs/numerics.md,
// "Precision of products").
#ifndef PARITYBIT_CODES_PRECISION_H_
#define PARITYBIT_CODES_PRECISION_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "codes/scheme_check.h"
#include "compare/local.h"
#include "drive/held_values.h"
#include "drive/participant.h"
#include "formats/act_scheme.h"
#include "model/model.h"

namespace pb::codes {

// Keeps the tensors that products of the layer at hand read.
class ProductInputs {
 public:
  explicit ProductInputs(const Model& model);
  // `lasting`: see host::TensorRef.
  void OnPoint(const host::PointRef& point, std::span<const float> values,
               const std::shared_ptr<const void>& lasting = nullptr);
  // Rows from first_position on of what enters a product; empty: they were not seen.
  std::span<const float> Find(const ProductWeights& product, int32_t first_position, int64_t n_rows) const;
  // What was held of a stage, from first_position on: n_rows of this width; empty: not all of it.
  std::span<const float> Rows(int32_t stage, int32_t first_position, int64_t n_rows, int64_t width) const;

 private:
  struct Held {
    int32_t first_position = 0;
    drive::HeldValues values;
  };
  stages::Set read_;              // what this model's products read, and the router's logits
  std::map<int32_t, Held> held_;  // by stage
};

// Products that an engine is taken to compute alike.
struct ProductClass {
  BlockType weight = BlockType::kF32;
  MatrixPlace place = MatrixPlace::kLayer;
  bool rows_32 = false;  // the matrix has a multiple of 32 rows
  friend auto operator<=>(const ProductClass& a, const ProductClass& b) = default;
};
// `matrix`: of experts, one of them.
inline ProductClass ClassOf(int32_t stage, const WeightView& matrix) {
  return {matrix.type, PlaceOf(stage), matrix.n_rows % 32 == 0};
}
// Nothing: the stage is no product, or has no matrix in this layer.
std::optional<ProductClass> ClassAt(const Model& model, int32_t stage, int32_t layer);

// What was observed of a class in one engine.
struct ClassPrecision {
  ProductClass of;
  int64_t n_matrices = 0;
  int64_t n_products = 0;           // evaluations that were looked at
  std::optional<ActScheme> scheme;  // nothing: why_not
  std::string why_not;              // "prefill f16, decode none"
  // Of passes of several tokens, and of one; both known where they are two usual schemes.
  std::optional<ActScheme> of_rows[2];
};

// Whether an engine may multiply by one scheme where a pass has several tokens and by another where it
// has one: llama.cpp alone, whose matrix kernels (llamafile's) are others than its vector kernels. In
// any other engine that is a defect.
bool MayGoByRows(const drive::EngineRecord& engine);

// Watches one engine's points in order of execution and looks at one row of every product of some
// evaluations.
class PrecisionObserver {
 public:
  // `declared`: what the engine says; tried first. The model is the file that the engine read.
  // `by_rows`: MayGoByRows of the engine.
  PrecisionObserver(std::shared_ptr<const Model> model, ActQuant declared, bool by_rows)
      : model_(std::move(model)), declared_(std::move(declared)), by_rows_(by_rows), inputs_(*model_) {}

  // All rows of an evaluation's point; `decode`: it is a step of decoding.
  void OnPoint(const host::PointRef& point, const std::vector<int64_t>& shape, std::span<const float> values,
               bool decode);
  // Classes in order; what holds for more than half of a class's products, in prefill and decode
  // alike, or in each.
  std::vector<ClassPrecision> Classes() const;

 private:
  // One row of a product; no input: it was not seen.
  void LookAt(const host::PointRef& point, const ProductWeights& product, std::span<const float> input,
              std::span<const float> output, bool decode);
  struct Seen {
    std::set<std::pair<int32_t, int32_t>> matrices;  // (stage, layer)
    int64_t n[2] = {0, 0};                           // products of prefill, decode
    std::map<ActScheme, int64_t> held[2];            // of those, how many a scheme held for
    bool departs = false;                            // a product does not follow what is declared
  };

  std::shared_ptr<const Model> model_;
  ActQuant declared_;
  bool by_rows_;
  ProductInputs inputs_;
  std::map<ProductClass, Seen> seen_;
};

// Runs an engine over the first tokens of a sequence, as a prefill and a decode step, and watches.
// The session is another one afterwards. Empty: the engine shows no products, or the file is not
// read here.
Result<std::vector<ClassPrecision>> ObservePrecision(drive::Participant& engine,
                                                     const host::Settings& session,
                                                     std::shared_ptr<const Model> model,
                                                     std::span<const int32_t> tokens);

// "F16"; "F16 (a multiple of 32 rows)", "F16 (layers)", "F16 (experts)" or "F16 (output)" where there
// are others that are computed otherwise.
std::string ClassName(const std::vector<ClassPrecision>& classes, const ProductClass& of);

// A class that two engines were observed to compute by different schemes.
struct PrecisionDifference {
  ProductClass of;
  // Experts or the output matrix, classes of their own, that differ by the same schemes.
  std::vector<MatrixPlace> with;
  ActScheme scheme[2];  // candidate, reference
  // Of passes of one token alone, or of several alone; nothing: of all.
  std::optional<bool> one_row;
  int64_t n_matrices = 0;
  int64_t n_products = 0;  // whose difference is that of the schemes
  // Where sums are kept in f16: what the longest of these products was held against.
  std::optional<compare::LocalBound> bound;
};
std::vector<PrecisionDifference> Differences(const std::vector<ClassPrecision>& candidate,
                                             const std::vector<ClassPrecision>& reference);
// Of a product in a pass of so many rows. nullptr: the engines compute it alike, as far as was
// observed.
PrecisionDifference* FindDifference(std::vector<PrecisionDifference>& differences, const ProductClass& of,
                                    int64_t n_rows);

// "F16 none (42 products of 7 matrices), Q8_0 q8_0 (...)", or why a class was not observed.
std::string PrecisionText(const std::vector<ClassPrecision>& classes);
// A class that is not computed as was declared: as it is, and as it was said.
struct Departure {
  ClassPrecision of;
  ActScheme said;
};
std::vector<Departure> Departures(const ActQuant& declared, const std::vector<ClassPrecision>& classes);
// act.quant with what was observed where that departs from what is declared.
ActQuant Observed(const ActQuant& declared, const std::vector<ClassPrecision>& classes);
// The same, a class that goes by the rows of a pass as it is with several.
ActQuant ObservedOfPrefill(const ActQuant& declared, std::vector<ClassPrecision> classes);

// What rounding the same input by two schemes makes of a product: candidate's output less
// reference's, (n_rows, n_out); input (n_rows, K).
std::vector<float> SchemeDifference(const WeightView& w, double scale, std::span<const float> input,
                                    ActScheme candidate, ActScheme reference);

}  // namespace pb::codes

#endif  // PARITYBIT_CODES_PRECISION_H_
