// The table of activation schemes, and the setting act.quant that chooses among them.
#include "formats/act_scheme.h"

#include <algorithm>
#include <iterator>

namespace pb {
namespace {

constexpr const char* kNames[] = {"none", "f16", "bf16", "f16_sums", "q8_0", "q8_1", "q8_k", "bitnet"};
static_assert(std::size(kNames) == std::size(kActSchemes));

constexpr const char* kOffered =
    "ggml none f16 bf16 f16_sums q8_0 q8_1 q8_k bitnet, with exceptions by weight type as in ggml+F16:none";

struct Row {
  const char* type;
  ActScheme scheme;
};
// ggml-cpu.c of llama.cpp v0.5.0, type_traits_cpu: vec_dot_type. I2_S: bitnet.cpp, int8 for each
// token.
constexpr Row kGgml[] = {
    {"F32", ActScheme::kNone},     {"F16", ActScheme::kF16},     {"BF16", ActScheme::kBF16},
    {"Q4_0", ActScheme::kQ8_0},    {"Q4_1", ActScheme::kQ8_1},   {"Q5_0", ActScheme::kQ8_0},
    {"Q5_1", ActScheme::kQ8_1},    {"Q8_0", ActScheme::kQ8_0},   {"MXFP4", ActScheme::kQ8_0},
    {"IQ4_NL", ActScheme::kQ8_0},  {"Q2_K", ActScheme::kQ8_K},   {"Q3_K", ActScheme::kQ8_K},
    {"Q4_K", ActScheme::kQ8_K},    {"Q5_K", ActScheme::kQ8_K},   {"Q6_K", ActScheme::kQ8_K},
    {"IQ2_XXS", ActScheme::kQ8_K}, {"IQ2_XS", ActScheme::kQ8_K}, {"IQ2_S", ActScheme::kQ8_K},
    {"IQ3_XXS", ActScheme::kQ8_K}, {"IQ3_S", ActScheme::kQ8_K},  {"IQ1_S", ActScheme::kQ8_K},
    {"IQ1_M", ActScheme::kQ8_K},   {"IQ4_XS", ActScheme::kQ8_K}, {"TQ1_0", ActScheme::kQ8_K},
    {"TQ2_0", ActScheme::kQ8_K},   {"NVFP4", ActScheme::kQ8_0},  {"Q1_0", ActScheme::kQ8_0},
    {"Q2_0", ActScheme::kQ8_0},    {"I2_S", ActScheme::kBitnet},
};

// What an exception is for, behind its type.
constexpr std::string_view kRows32 = "/32";
constexpr std::pair<MatrixPlace, std::string_view> kPlaces[] = {{MatrixPlace::kExpert, "/experts"},
                                                                {MatrixPlace::kOutput, "/output"}};

std::string_view Suffix(const ActQuant::Exception& e) {
  for (const auto& [place, suffix] : kPlaces)
    if (e.place == place) return suffix;
  return e.rows_32 ? kRows32 : "";
}

Result<ActQuant::Exception> ParseException(std::string_view whole, std::string_view item) {
  const size_t colon = item.find(':');
  std::string_view type = item.substr(0, colon);
  ActQuant::Exception e{BlockType::kF32, false, std::nullopt, ActScheme::kNone};
  const std::string_view which = type.substr(std::min(type.find('/'), type.size()));
  e.rows_32 = which == kRows32;
  for (const auto& [place, suffix] : kPlaces)
    if (which == suffix) e.place = place;
  if (e.rows_32 || e.place) type.remove_suffix(which.size());
  constexpr uint32_t kMostTypes = 64;
  uint32_t id = 0;
  while (id < kMostTypes && !(GgmlActScheme(id) && BlockTypeName(id) == type)) id++;
  const auto scheme = colon == item.npos ? std::nullopt : FindActScheme(item.substr(colon + 1));
  if (!scheme || id == kMostTypes)
    return MakeError(Code::kUsage, "act.quant={}: \"{}\" is no exception like F16:none; offered are {}",
                     whole, item, kOffered);
  e.weight = static_cast<BlockType>(id), e.scheme = *scheme;
  return e;
}

}  // namespace

const char* ActSchemeName(ActScheme s) { return kNames[static_cast<size_t>(s)]; }

std::optional<ActScheme> FindActScheme(std::string_view name) {
  for (ActScheme s : kActSchemes)
    if (name == ActSchemeName(s)) return s;
  return std::nullopt;
}

int64_t ActBlockValues(ActScheme s, int64_t n_columns) {
  if (!IsIntegerScheme(s)) return 0;
  return s == ActScheme::kBitnet ? n_columns : s == ActScheme::kQ8_K ? 256 : 32;
}

std::optional<ActScheme> GgmlActScheme(std::string_view type_name) {
  for (const Row& row : kGgml)
    if (type_name == row.type) return row.scheme;
  return std::nullopt;
}

std::optional<ActScheme> GgmlActScheme(uint32_t type_id) { return GgmlActScheme(BlockTypeName(type_id)); }

// The type's own scheme in every library; and F16 weights met by inputs that are not rounded, where
// the processor has AMX, or summed in f16, where an ARM processor multiplies vectors of f16 (ggml's
// simd-mappings.h).
bool IsUsualPrecision(BlockType weight, ActScheme s) {
  return GgmlActScheme(static_cast<uint32_t>(weight)) == s ||
         (weight == BlockType::kF16 && (s == ActScheme::kNone || s == ActScheme::kF16Sums));
}

Result<ActQuant> ActQuant::Parse(std::string_view text) {
  ActQuant q;
  std::string_view rest = text;
  const std::string_view base = rest.substr(0, rest.find('+'));
  if (base != "ggml") {
    q.all = FindActScheme(base);
    if (!q.all) return MakeError(Code::kUsage, "act.quant={}: offered are {}", text, kOffered);
  }
  while (rest.find('+') != rest.npos) {
    rest.remove_prefix(rest.find('+') + 1);
    PB_ASSIGN(Exception e, ParseException(text, rest.substr(0, rest.find('+'))));
    q.exceptions.push_back(e);
  }
  return q;
}

std::string ActQuant::Text() const {
  std::string text = all ? ActSchemeName(*all) : "ggml";
  for (const Exception& e : exceptions)
    text += fmt::format("+{}{}:{}", BlockTypeName(static_cast<uint32_t>(e.weight)), Suffix(e),
                        ActSchemeName(e.scheme));
  return text;
}

ActScheme ActQuant::SchemeFor(BlockType weight, int64_t n_rows, MatrixPlace place) const {
  for (auto e = exceptions.rbegin(); e != exceptions.rend(); ++e)
    if (e->weight == weight && (!e->rows_32 || n_rows % 32 == 0) && e->place.value_or(place) == place)
      return e->scheme;
  if (all && place != MatrixPlace::kOutput) return *all;
  if (all && (*all == ActScheme::kNone || *all == ActScheme::kBitnet)) return ActScheme::kNone;
  return GgmlActScheme(static_cast<uint32_t>(weight)).value_or(ActScheme::kNone);
}

}  // namespace pb
