// The activation codes of a product, by ggml's own type traits: the quantiser and the scalar product that the loaded CPU library
// names for a weight's type. Its matrix kernels (repacked, or of several rows at once) may be other code.
#include <dlfcn.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>

#include "llama_cpp/adapter.h"

namespace pb::llama_cpp {
namespace {

// Blocks as ggml-common.h publishes them; sizes are checked against what the library says.
struct Q8_0 {
  ggml_fp16_t d;
  int8_t qs[32];
};
struct Q8_1 {
  ggml_fp16_t d, s;
  int8_t qs[32];
};
struct Q8_K {
  float d;
  int8_t qs[256];
  int16_t bsums[16];
};

pb_error* Unsupported(const PointRule& rule, const std::string& why) {
  return NewError(PB_UNSUPPORTED, std::string(pb_vocabulary[rule.stage].name) + ": " + why);
}

template <typename Block>
bool HasLayout(ggml_type type) {
  return ggml_type_size(type) == sizeof(Block) && ggml_blck_size(type) == int64_t{sizeof(Block::qs)};
}

float Scale(const Q8_0& b) { return ggml_fp16_to_fp32(b.d); }
float Scale(const Q8_1& b) { return ggml_fp16_to_fp32(b.d); }
float Scale(const Q8_K& b) { return b.d; }

// Takes a row of blocks apart.
template <typename Block>
void ReadBlocks(const std::vector<char>& row, ActivationCodes* out) {
  for (size_t at = 0; at + sizeof(Block) <= row.size(); at += sizeof(Block)) {
    Block b;
    std::memcpy(&b, &row[at], sizeof b);
    out->codes.insert(out->codes.end(), b.qs, b.qs + sizeof b.qs);
    out->scales.push_back(Scale(b));
    if constexpr (std::is_same_v<Block, Q8_1>) out->sums.push_back(ggml_fp16_to_fp32(b.s));
  }
}

// Opens the file of a set that holds a tensor, where its bytes begin. False: none holds it as it is in memory.
bool OpenAt(const std::vector<std::string>& files, const ggml_tensor& weight, std::ifstream* in) {
  for (const std::string& path : files) {
    const File file(path);
    const ggml_tensor* held = file.header ? ggml_get_tensor(file.tensors.get(), weight.name) : nullptr;
    if (!held) continue;
    if (held->type != weight.type || held->ne[0] != weight.ne[0] || held->ne[1] != weight.ne[1] ||
        ggml_nbytes(held) != ggml_row_size(weight.type, weight.ne[0]) * static_cast<size_t>(weight.ne[1]))
      return false;
    in->open(path, std::ios::binary);
    in->seekg(static_cast<std::streamoff>(
        gguf_get_data_offset(file.header.get()) +
        gguf_get_tensor_offset(file.header.get(), gguf_find_tensor(file.header.get(), weight.name))));
    return in->good();
  }
  return false;
}

// The scalar products of the weight rows of these columns, as the file holds them; what is in memory may be repacked. Empty where the file has no such
// tensor.
std::vector<float> Products(const std::string& path, const ggml_tensor& weight, const Columns& columns,
                            ggml_vec_dot_t dot, const std::vector<std::vector<char>>& rows) {
  const size_t row_bytes = ggml_row_size(weight.type, weight.ne[0]), n_outputs = columns.n;
  std::ifstream in;
  if (!OpenAt(ModelFiles(path), weight, &in)) return {};
  in.seekg(static_cast<std::streamoff>(row_bytes * static_cast<size_t>(columns.first)), std::ios::cur);
  std::vector<float> products(rows.size() * n_outputs);
  std::vector<char> bytes(row_bytes);
  for (size_t r = 0; r < n_outputs; ++r) {
    if (!in.read(bytes.data(), static_cast<std::streamsize>(row_bytes))) return {};
    for (size_t i = 0; i < rows.size(); ++i) {
      dot(static_cast<int>(weight.ne[0]), &products[i * n_outputs + r], 0, bytes.data(), 0, rows[i].data(), 0,
          1);
    }
  }
  return products;
}

// How a type takes part in products.
struct Traits {
  ggml_from_float_t from_float = nullptr;
  ggml_vec_dot_t vec_dot = nullptr;
  ggml_type vec_dot_type = GGML_TYPE_COUNT;
};

// Those of the library that this process computes with, where they are a table of its own, which it may not export: nothing; else
// those of all types.
template <typename Cpu = ggml_type_traits_cpu>
std::optional<Traits> TraitsOf(const std::string& cpu_path, ggml_type type) {
  if constexpr (requires { sizeof(Cpu); }) {
    const std::unique_ptr<void, int (*)(void*)> library(dlopen(cpu_path.c_str(), RTLD_NOW | RTLD_NOLOAD),
                                                        dlclose);
    auto* traits_of = library ? reinterpret_cast<const Cpu* (*)(ggml_type)>(
                                    dlsym(library.get(), "ggml_get_type_traits_cpu"))
                              : nullptr;
    if (!traits_of) return std::nullopt;
    const Cpu* traits = traits_of(type);
    return Traits{traits->from_float, traits->vec_dot, traits->vec_dot_type};
  } else {
    const auto read = [](const auto* all) { return Traits{all->from_float, all->vec_dot, all->vec_dot_type}; };
    return read(ggml_get_type_traits(type));
  }
}

// bitnet.cpp's own rounding of a row, which no table of types has: codes, the factor that made them, and their sum.
using RowOfI8S = void(const float*, void*, int64_t, float*, int32_t*);
RowOfI8S* FindI8S(const std::string& cpu_path, ggml_type type) {
  if (std::string_view(ggml_type_name(type)) != "i8_s") return nullptr;
  const std::unique_ptr<void, int (*)(void*)> library(dlopen(cpu_path.c_str(), RTLD_NOW | RTLD_NOLOAD),
                                                      dlclose);
  return library ? reinterpret_cast<RowOfI8S*>(dlsym(library.get(), "quantize_row_i8_s")) : nullptr;
}

void ReadI8S(RowOfI8S* quantise, const pb_tensor& input, ActivationCodes* out) {
  out->scheme = "bitnet", out->block = out->n_columns;
  for (int64_t i = 0; i < out->n_rows; ++i) {
    std::vector<int8_t> row(static_cast<size_t>(out->n_columns));
    float factor = 0;
    int32_t sum = 0;
    quantise(static_cast<const float*>(input.data) + i * out->n_columns, row.data(), out->n_columns, &factor, &sum);
    out->codes.insert(out->codes.end(), row.begin(), row.end());
    out->scales.push_back(1 / factor);
  }
}

}  // namespace

pb_error* CodesOf(const pb_session* session, const PointRule& rule, const pb_tensor& input,
                  ActivationCodes* out) {
  const ggml_tensor& product = rule.steps.front();
  const ggml_tensor* weight = product.src[0];
  const bool is_product = product.op == GGML_OP_MUL_MAT && rule.stage != PB_STAGE_ATTN_SCORES &&
                          rule.stage != PB_STAGE_ATTN_CONTEXT;
  if (!is_product || !weight) return Unsupported(rule, "not a product, so its input has no codes");
  const std::string& cpu_path = session->model->engine->cpu_path;
  const std::string library = std::filesystem::path(cpu_path).filename().string();
  const std::optional<Traits> traits = TraitsOf(cpu_path, weight->type);
  if (!traits) return Unsupported(rule, library + " exports no ggml_get_type_traits_cpu");
  const ggml_type type = traits->vec_dot_type;
  const auto quantise = TraitsOf(cpu_path, type)->from_float;
  void (*read)(const std::vector<char>&, ActivationCodes*) = nullptr;
  if (type == GGML_TYPE_Q8_0 && HasLayout<Q8_0>(type)) read = ReadBlocks<Q8_0>, out->scheme = "q8_0";
  if (type == GGML_TYPE_Q8_1 && HasLayout<Q8_1>(type)) read = ReadBlocks<Q8_1>, out->scheme = "q8_1";
  if (type == GGML_TYPE_Q8_K && HasLayout<Q8_K>(type)) read = ReadBlocks<Q8_K>, out->scheme = "q8_k";
  RowOfI8S* i8_s = FindI8S(cpu_path, type);
  if (!i8_s && (!read || !quantise || !traits->vec_dot)) {
    return Unsupported(rule, std::string(ggml_is_quantized(type) ? "its input's codes are not known here"
                                                                 : "its input is not quantised") +
                                 ": the type traits give " + ggml_type_name(type) + " for weights of " +
                                 ggml_type_name(weight->type));
  }
  out->maker = i8_s ? "recomputed with the library's own quantize_row_i8_s (" + library + ")"
                    : "recomputed with the library's own type traits (" + library + ")";
  const Columns columns = rule.shape.columns.n > 0 ? rule.shape.columns : Columns{0, weight->ne[1]};
  out->n_rows = input.shape[0], out->n_columns = weight->ne[0], out->n_outputs = columns.n;
  if (i8_s) return ReadI8S(i8_s, input, out), nullptr;
  out->block = ggml_blck_size(type);
  std::vector<std::vector<char>> rows(out->n_rows, std::vector<char>(ggml_row_size(type, out->n_columns)));
  for (int64_t i = 0; i < out->n_rows; ++i) {
    quantise(static_cast<const float*>(input.data) + i * out->n_columns, rows[i].data(), out->n_columns);
    read(rows[i], out);
  }
  out->products = Products(session->model->path, *weight, columns, traits->vec_dot, rows);
  return nullptr;
}

}  // namespace pb::llama_cpp
