// Rewrites a model file with its matrices in another block format, everything else kept.
#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "model/generate.h"

namespace pb {
namespace {

// blk.N.NAME.weight with two dimensions: the matrices that quantisers quantise.
bool IsLinear(const GgufTensor& t) {
  return t.shape.size() == 2 && t.name.starts_with("blk.") && t.name.ends_with(".weight");
}

std::string ArchitectureFor(const std::string& architecture, BlockType type) {
  if (architecture != "bitnet" && architecture != "bitnet-b1.58") return architecture;
  return type == BlockType::kI2_S ? "bitnet-b1.58" : "bitnet";
}

void CopyMetadata(const GgufFile& in, const std::string& from, const std::string& to, BlockType type,
                  GgufWriter& out) {
  // In the order of the file.
  std::vector<std::pair<const std::string*, const GgufValue*>> sorted;
  for (const auto& [key, value] : in.metadata()) sorted.emplace_back(&key, &value);
  std::sort(sorted.begin(), sorted.end(),
            [](auto& a, auto& b) { return a.second->offset < b.second->offset; });
  for (const auto& [key, value] : sorted) {
    if (*key == "general.architecture") {
      out.AddString(*key, to);
    } else if (*key == "general.file_type") {
      out.AddUint32(*key, FileTypeOf(type));
    } else if (*key == "general.alignment") {
      continue;  // the writer has its own
    } else if (key->starts_with(from + ".")) {
      out.Add(to + key->substr(from.size()), *value);
    } else {
      out.Add(*key, *value);
    }
  }
}

Result<std::vector<float>> DecodeTensor(const GgufTensor& t) {
  const BlockFormat* format = FindBlockFormat(t.type_id);
  if (!format) {
    return MakeError(Code::kUnsupported, "byte {}: tensor {}: type {} is not supported", t.info_offset,
                     t.name, BlockTypeName(t.type_id));
  }
  float scale = format->type == BlockType::kI2_S ? ScanI2S(t.data).scale : 1.0f;
  std::vector<float> values(t.n_elements());
  format->decode(t.data.data(), values.data(), static_cast<int64_t>(values.size()), scale);
  for (float v : values) {
    if (!std::isfinite(v))
      return MakeError(Code::kMalformed, "byte {}: tensor {}: a weight is not finite", t.offset, t.name);
  }
  return values;
}

// Adds the tensor in the new type and notes what changed.
Status ConvertTensor(const GgufTensor& t, BlockType type, GgufWriter& out, ConvertReport& report) {
  PB_ASSIGN(std::vector<float> values, DecodeTensor(t));
  auto bytes = TensorBytes(static_cast<uint32_t>(type), t.shape);
  if (!bytes.ok()) return MakeError(Code::kUsage, "tensor {}: {}", t.name, bytes.error().message);
  GgufTensor converted = t;
  converted.type_id = static_cast<uint32_t>(type);
  std::vector<std::byte> data(*bytes);
  GetBlockFormat(type).encode(values.data(), data.data(), static_cast<int64_t>(values.size()));
  converted.data = data;
  PB_ASSIGN(std::vector<float> back, DecodeTensor(converted));
  float change = 0;
  for (size_t i = 0; i < values.size(); ++i) change = std::max(change, std::fabs(back[i] - values[i]));
  ++report.n_converted;
  report.n_inexact += change != 0;
  report.max_change = std::max(report.max_change, change);
  out.AddTensor(t.name, converted.type_id, t.shape, std::move(data));
  return {};
}

Status CopyConfigJson(const std::filesystem::path& in, const std::filesystem::path& out) {
  auto config = ReadFile(in.parent_path() / "config.json");
  if (config.ok()) return PlaceConfigJson(out, *config);
  if (config.error().code == Code::kNotFound) return {};
  return std::move(config).error();
}

}  // namespace

Result<ConvertReport> Convert(const std::filesystem::path& in, BlockType type,
                              std::optional<BlockType> embedding, const std::filesystem::path& out) {
  PB_ASSIGN(GgufFile file, GgufFile::Open(in));
  auto architecture = file.String("general.architecture");
  if (!architecture.ok()) return std::move(architecture).error().In(in.string());
  GgufWriter writer;
  CopyMetadata(file, *architecture, ArchitectureFor(*architecture, type), type, writer);
  ConvertReport report;
  for (const GgufTensor& t : file.tensors()) {
    const bool outer = t.name == "token_embd.weight" || t.name == "output.weight";
    const std::optional<BlockType> into = IsLinear(t) ? type : outer ? embedding : std::nullopt;
    if (!into || t.type_id == static_cast<uint32_t>(*into)) {
      writer.AddTensor(t.name, t.type_id, t.shape, {t.data.begin(), t.data.end()});
      continue;
    }
    Status status = ConvertTensor(t, *into, writer, report);
    if (!status.ok()) return std::move(status).error().In(in.string());
  }
  PB_TRY(CopyConfigJson(in, out));
  PB_TRY(writer.Write(out));
  return report;
}

}  // namespace pb
