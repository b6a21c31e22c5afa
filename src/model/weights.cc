// Checks each tensor's type, shape and scales, and lists those that nobody asked for.
#include "model/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace pb {
namespace {

std::string ShapeText(const std::vector<uint64_t>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

Error NotDecoded(const GgufTensor& t) {
  return MakeError(Code::kUnsupported, "byte {}: weight type {} of {} is not supported", t.info_offset,
                   BlockTypeName(t.type_id), t.name);
}

// Refuses what no I2_S layout can hold.
Result<float> CheckI2S(const GgufTensor& t) {
  I2SScan scan = ScanI2S(t.data);
  if (scan.code3_count > 0) {
    return MakeError(Code::kMalformed,
                     "byte {}: tensor {}: code 3 occurs {} times, I2_S has 0, 1 and 2: damaged, or another "
                     "layout under type 36",
                     t.offset + scan.first_code3_byte, t.name, scan.code3_count);
  }
  if (!scan.scale_finite) {
    return MakeError(Code::kMalformed, "byte {}: tensor {}: its I2_S scale is not finite",
                     t.offset + t.data.size() - kI2STail, t.name);
  }
  return scan.scale;
}

}  // namespace

Result<const GgufTensor*> TensorTable::Get(const std::string& name) {
  const GgufTensor* t = file_.FindTensor(name);
  if (!t) return MakeError(Code::kMalformed, "tensor {} is missing", name);
  used_.insert(t);
  return t;
}

Status TensorTable::CheckLent(const GgufTensor& t) {
  const auto layout = FindBlockLayout(t.type_id);
  if (!decoder_ || !layout || t.data.size() < layout->block_bytes) return NotDecoded(t);
  if (lent_.count(t.type_id)) return {};
  std::vector<float> block(layout->block_values);
  Status decoded = decoder_->Decode(t.type_id, t.data.first(layout->block_bytes), block);
  if (!decoded.ok()) {
    Error error = NotDecoded(t);
    error.message += "; " + decoded.error().message;
    return error;
  }
  lent_.insert(t.type_id);
  return {};
}

Result<WeightView> TensorTable::View(const std::string& name, const std::vector<uint64_t>& shape) {
  PB_ASSIGN(const GgufTensor* t, Get(name));
  std::vector<uint64_t> there = t->shape;
  there.resize(std::max(there.size(), shape.size()), 1);
  if (there != shape)
    return MakeError(Code::kMalformed, "byte {}: tensor {} has shape {}, the metadata imply {}",
                     t->info_offset, name, ShapeText(t->shape), ShapeText(shape));
  WeightView view;
  if (!FindBlockFormat(t->type_id)) {
    PB_TRY(CheckLent(*t));
    view.decoder = decoder_;
  }
  view.type = static_cast<BlockType>(t->type_id);
  view.data = t->data.data();
  view.n_columns = static_cast<int64_t>(shape[0]);
  view.n_rows = static_cast<int64_t>(shape.size() > 2 ? shape[1] * shape[2] : shape[1]);
  const BlockLayout layout = *FindBlockLayout(t->type_id);  // the reader knows none without
  view.row_bytes = shape[0] / layout.block_values * layout.block_bytes;
  if (view.type == BlockType::kI2_S) {
    PB_ASSIGN(view.scale, CheckI2S(*t));
  }
  return view;
}

Result<WeightView> TensorTable::Matrix(const std::string& name, int64_t n_rows, int64_t n_columns) {
  return View(name, {static_cast<uint64_t>(n_columns), static_cast<uint64_t>(n_rows)});
}

Result<WeightView> TensorTable::Experts(const std::string& name, int64_t n_experts, int64_t n_rows,
                                        int64_t n_columns) {
  return View(name, {static_cast<uint64_t>(n_columns), static_cast<uint64_t>(n_rows),
                     static_cast<uint64_t>(n_experts)});
}

Result<std::vector<float>> TensorTable::Vector(const std::string& name, int64_t n, int64_t n_rows) {
  PB_ASSIGN(const GgufTensor* t, Get(name));
  std::vector<uint64_t> shape = {static_cast<uint64_t>(n)};
  if (n_rows > 1) shape.push_back(static_cast<uint64_t>(n_rows));
  if (t->shape != shape) {
    return MakeError(Code::kMalformed, "byte {}: tensor {} has shape {}, the metadata imply {}",
                     t->info_offset, name, ShapeText(t->shape), ShapeText(shape));
  }
  const BlockFormat* format = FindBlockFormat(t->type_id);
  if (!format) return NotDecoded(*t);
  if (format->block_values != 1) {
    return MakeError(Code::kUnsupported, "byte {}: tensor {}: a vector of type {} is not supported",
                     t->info_offset, name, format->name);
  }
  std::vector<float> values(static_cast<size_t>(n * n_rows));
  format->decode(t->data.data(), values.data(), n * n_rows, 1.0f);
  return values;
}

Result<float> TensorTable::OptionalScale(const std::string& name) {
  if (!Has(name)) return 1.0f;
  PB_ASSIGN(std::vector<float> value, Vector(name, 1));
  if (!std::isfinite(value[0])) return MakeError(Code::kMalformed, "tensor {} is not finite", name);
  return value[0];
}

Status TensorTable::CheckAllUsed() const {
  for (const GgufTensor& t : file_.tensors()) {
    if (used_.count(&t)) continue;
    return MakeError(Code::kUnsupported,
                     "byte {}: {} {} is not supported: no op of the architecture reads it", t.info_offset,
                     t.name.ends_with(".bias") ? "the bias" : "tensor", t.name);
  }
  return {};
}

}  // namespace pb
