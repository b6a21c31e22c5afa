// Opens a checkpoint's files, and reads rows of its tensors the way a converter writes them.
#include "soundness/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/bytes.h"
#include "base/check.h"
#include "base/half.h"
#include "base/json_text.h"

namespace pb::soundness {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxIndexBytes = 64 << 20;

Result<nlohmann::json> ReadObject(const fs::path& path) {
  PB_ASSIGN(const std::string text, ReadFile(path, kMaxIndexBytes));
  auto json = ParseJson(text);
  if (!json.ok()) return std::move(json).error().In(path.string());
  if (!json->is_object()) return MakeError(Code::kMalformed, "{}: no JSON object", path.string());
  return json;
}

// File names without folders: an index names files beside itself and nothing else.
Result<std::set<std::string>> FilesOf(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / "model.safetensors", error)) return std::set<std::string>{"model.safetensors"};
  const fs::path index = folder / "model.safetensors.index.json";
  if (!fs::exists(index, error))
    return MakeError(Code::kNotFound,
                     "{}: neither model.safetensors nor model.safetensors.index.json is there",
                     folder.string());
  PB_ASSIGN(const nlohmann::json json, ReadObject(index));
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object())
    return MakeError(Code::kMalformed, "{}: it has no weight_map", index.string());
  std::set<std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || file.get<std::string>().find('/') != std::string::npos)
      return MakeError(Code::kMalformed, "{}: the file of tensor {:.80} is no plain name", index.string(),
                       tensor);
    files.insert(file.get<std::string>());
  }
  return files;
}

// Rows of four codes a byte, as transformers packs them: byte row r holds rows r, r + n, r + 2 n, r + 3 n.
bool IsPacked(const SafeTensor& t) { return t.dtype == SafeDtype::kU8; }

float Value(const SafeTensor& t, int64_t at) {
  const std::byte* p = t.data.data() + static_cast<uint64_t>(at) * SafeDtypeBytes(t.dtype);
  switch (t.dtype) {
    case SafeDtype::kF32:
      return LoadLe<float>(p);
    case SafeDtype::kF16:
      return F16ToF32(LoadLe<uint16_t>(p));
    case SafeDtype::kBF16:
      return Bf16ToF32(LoadLe<uint16_t>(p));
    default:
      return 0;
  }
}

int64_t Columns(const SafeTensor& t) { return t.shape.empty() ? 1 : static_cast<int64_t>(t.shape.back()); }

void RowOf(const Recipe::Part& part, int64_t row, int64_t n_columns, float* out) {
  const SafeTensor& t = *part.tensor;
  row += part.first;
  if (!IsPacked(t)) {
    for (int64_t c = 0; c < n_columns; ++c) out[c] = Value(t, row * n_columns + c);
    return;
  }
  const int64_t packed_rows = static_cast<int64_t>(t.shape[0]);
  const auto shift = static_cast<int>(2 * (row / packed_rows));
  const std::byte* bytes = t.data.data() + row % packed_rows * n_columns;
  for (int64_t c = 0; c < n_columns; ++c)
    out[c] = static_cast<float>((static_cast<int>(bytes[c]) >> shift & 3) - 1) * part.scale;
}

}  // namespace

Result<Checkpoint> Checkpoint::Open(const fs::path& folder) {
  Checkpoint checkpoint;
  PB_ASSIGN(const std::set<std::string> files, FilesOf(folder));
  for (const std::string& name : files) {
    PB_ASSIGN(SafetensorsFile file, SafetensorsFile::Open(folder / name));
    checkpoint.files_.push_back(std::make_unique<SafetensorsFile>(std::move(file)));
    for (const SafeTensor& t : checkpoint.files_.back()->tensors())
      if (!checkpoint.tensors_.emplace(t.name, &t).second)
        return MakeError(Code::kMalformed, "{}: tensor {:.80} stands in two files", (folder / name).string(),
                         t.name);
  }
  std::error_code error;
  if (fs::exists(folder / "config.json", error)) {
    PB_ASSIGN(const nlohmann::json config, ReadObject(folder / "config.json"));
    const auto quantised = config.find("quantization_config");
    if (quantised != config.end() && quantised->is_object())
      checkpoint.scales_divide_ = quantised->value("linear_class", nlohmann::json()) != "autobitlinear";
  }
  return checkpoint;
}

const SafeTensor* Checkpoint::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : found->second;
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors_) names.push_back(name);
  return names;
}

int64_t Recipe::n_rows() const {
  int64_t n = 0;
  for (const Part& part : parts) n += part.n_rows;
  return n;
}

void Recipe::Row(int64_t row, float* out) const {
  if (transposed) {
    const int64_t columns = Columns(*parts[0].tensor);
    for (int64_t c = 0; c < n_columns; ++c) out[c] = Value(*parts[0].tensor, c * columns + row);
  } else {
    if (permuted_heads > 0) {
      const int64_t head = n_rows() / permuted_heads, in_head = row % head;
      row = row - in_head + in_head % 2 * (head / 2) + in_head / 2;
    }
    auto part = parts.begin();
    while (row >= part->n_rows) row -= (part++)->n_rows;
    RowOf(*part, row, n_columns, out);
  }
  for (int64_t c = 0; c < n_columns; ++c) {
    if (ternary != 0) out[c] = std::clamp(std::nearbyint(out[c] / ternary), -1.0f, 1.0f) * ternary;
    out[c] += add;
  }
}

float MeanMagnitude(const Recipe& recipe) {
  std::vector<float> row(static_cast<size_t>(recipe.n_columns));
  double sum = 0;
  for (int64_t r = 0; r < recipe.n_rows(); ++r) {
    recipe.Row(r, row.data());
    for (float v : row) sum += std::fabs(v);
  }
  const double n = static_cast<double>(recipe.n_rows()) * static_cast<double>(recipe.n_columns);
  return std::max(static_cast<float>(sum / n), 1e-5f);
}

bool IsTernary(const Recipe& recipe) {
  std::vector<float> row(static_cast<size_t>(recipe.n_columns));
  float scale = 0;
  for (int64_t r = 0; r < recipe.n_rows(); ++r) {
    recipe.Row(r, row.data());
    for (float v : row) {
      if (v == 0) continue;
      if (scale == 0) scale = std::fabs(v);
      if (std::fabs(v) != scale) return false;
    }
  }
  return true;
}

}  // namespace pb::soundness
