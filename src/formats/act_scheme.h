// How the input of a matrix product is rounded before it meets the weights: the schemes, which of
// them ggml takes for a weight type, and the setting act.quant. The one table of all that; how
// codes are computed stands with each engine.
#ifndef PARITYBIT_FORMATS_ACT_SCHEME_H_
#define PARITYBIT_FORMATS_ACT_SCHEME_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/block.h"

namespace pb {

enum class ActScheme : uint8_t {
  kNone,     // not at all
  kF16,      // to f16
  kBF16,     // to bfloat16
  kF16Sums,  // to f16, and the sums of the product are kept in f16
  kQ8_0,     // 32 codes: d = f16(max|x| / 127), code = rint_half_even(x * (127 / max|x|))
  kQ8_1,     // as Q8_0, and s = f16(d * sum of codes) with d before its rounding
  kQ8_K,     // 256 codes: i = -127 / (the x with the largest |x|), code = min(127, rint_half_even(i * x)),
             // d = 1 / i
  kBitnet,   // a row: s = 127 / max(|x|, 1e-5), code = clamp(rint_half_even(x * s), -128, 127); products are
             // divided by s
};
inline constexpr ActScheme kActSchemes[] = {ActScheme::kNone,    ActScheme::kF16,   ActScheme::kBF16,
                                            ActScheme::kF16Sums, ActScheme::kQ8_0,  ActScheme::kQ8_1,
                                            ActScheme::kQ8_K,    ActScheme::kBitnet};
// Whether it makes integer codes.
inline bool IsIntegerScheme(ActScheme s) { return s >= ActScheme::kQ8_0; }
const char* ActSchemeName(ActScheme s);  // none f16 bf16 f16_sums q8_0 q8_1 q8_k bitnet
std::optional<ActScheme> FindActScheme(std::string_view name);
// Values that one scale covers in a row of n_columns; 0 where no codes are made.
int64_t ActBlockValues(ActScheme s, int64_t n_columns);

// The scheme that ggml takes for a weight type (its type traits' vec_dot_type; I2_S: bitnet.cpp).
// Nothing: the type is not known.
std::optional<ActScheme> GgmlActScheme(uint32_t type_id);
std::optional<ActScheme> GgmlActScheme(std::string_view type_name);

// Whether libraries of llama.cpp multiply weights of this type so, each correct by its own scheme (docs/numerics.md, "Precision of products").
bool IsUsualPrecision(BlockType weight, ActScheme s);

// Where a matrix stands: kernels of one library may multiply each kind otherwise.
enum class MatrixPlace : uint8_t {
  kLayer,
  kExpert,  // one of those that a router chooses from
  kOutput,  // of the logits
};

// The setting act.quant: "ggml", one scheme for the products of all layers, or either with
// exceptions by weight type: "ggml+F16:none", "ggml+F16/32:none" (matrices whose rows are a
// multiple of 32), "ggml+F16:none+F16/output:f16" (the output matrix), "F16/experts:f16". A later
// one goes first.
struct ActQuant {
  struct Exception {
    BlockType weight;
    bool rows_32;                      // only matrices whose rows are a multiple of 32
    std::optional<MatrixPlace> place;  // only matrices there; nothing: all
    ActScheme scheme;
    friend bool operator==(const Exception& a, const Exception& b) = default;
  };
  std::optional<ActScheme> all;  // of the layers' products; nothing: as ggml chooses by weight type
  std::vector<Exception> exceptions;

  // kUsage names what is offered.
  static Result<ActQuant> Parse(std::string_view text);
  std::string Text() const;
  // The scheme of a product with a matrix of n_rows rows. The output matrix stands outside the
  // layers: unrounded where `all` is none or bitnet (BitNet leaves it unquantised), else by its type.
  ActScheme SchemeFor(BlockType weight, int64_t n_rows, MatrixPlace place) const;
  friend bool operator==(const ActQuant& a, const ActQuant& b) {
    return a.all == b.all && a.exceptions == b.exceptions;
  }
};

}  // namespace pb

#endif  // PARITYBIT_FORMATS_ACT_SCHEME_H_
