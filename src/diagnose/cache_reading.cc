// Spoils the cache as a reading of it has it, and words what was done.
#include "diagnose/cache_reading.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"
#include "diagnose/part.h"
#include "trace/facts.h"

namespace pb::diagnose {
namespace {

// Towards zero.
float CutToF16(float x) {
  const uint16_t near = F32ToF16(x);
  if (std::fabs(F16ToF32(near)) <= std::fabs(x)) return F16ToF32(near);
  return F16ToF32(static_cast<uint16_t>(near - 1));
}

// Keys as they were before their rotation, of positions from 0 on.
Result<std::vector<float>> Unrotated(FileArbiter& arbiter, const Culprit& c, const Recorded& keys,
                                     bool computed) {
  const HyperParameters& p = arbiter.model().params();
  const bool local = p.is_local(c.place.layer);
  const std::string back =
      fmt::format("rope.scale={:.17g}", -double(local ? p.local_rope_scale.value : p.rope_scale.value));
  Recorded read = keys;
  if (trace::ReadSessionFacts(arbiter.session()).kv_type.value == "f16")
    for (float& x : read.values) x = F16ToF32(F32ToF16(x));
  PB_ASSIGN(Expectation e, arbiter.Replay(PB_STAGE_K_ROPE, c.place.layer, 0, {std::move(read)}, back));
  std::vector<float> values = std::move(e.output.values);
  const Recorded* own = c.inputs.Output(PB_STAGE_K_NORM, c.place.layer);
  if (!own) own = c.inputs.Output(PB_STAGE_K_PROJ, c.place.layer);
  if (computed && (!own || own->values.size() > values.size()))
    return MakeError(Code::kNotFound, "keys before their rotation were not recorded");
  if (computed) std::ranges::copy(own->values, values.end() - static_cast<ptrdiff_t>(own->values.size()));
  return values;
}

}  // namespace

Result<std::vector<float>> Spoiled(FileArbiter& arbiter, const Culprit& c, const Recorded& cache,
                                   const Reading& r) {
  const auto n = cache.shape[0], width = static_cast<int64_t>(cache.values.size()) / n;
  const int64_t d = arbiter.model().params().head_dim, n_kv = width / d;
  std::vector<float> unrotated;
  if (r.what == Other::kUnrotated) {
    PB_ASSIGN(unrotated, Unrotated(arbiter, c, cache, r.computed));
  }
  std::vector<float> out = cache.values;
  if (r.what == Other::kCut)
    for (float& x : out) x = CutToF16(x);
  const auto copy = [&](const std::vector<float>& values, int64_t from, int64_t to, int64_t size) {
    std::copy_n(values.begin() + from, size, out.begin() + to);
  };
  for (int64_t j = 0; j < n; j++) {
    if (r.part.axis == Axis::kPositions && !Holds(r.part, j)) continue;
    for (int64_t k = 0; r.columns.axis == Axis::kColumns && k < width; k++)
      if (Holds(r.columns, k % d)) out[static_cast<size_t>(j * width + k)] = 0;
    if (r.what == Other::kNothing && r.columns.axis == Axis::kUnknown)
      std::fill_n(out.begin() + j * width, width, 0.0f);
    if (r.what == Other::kBefore && j > 0) copy(cache.values, (j - 1) * width, j * width, width);
    if (r.what == Other::kNext && j + 1 < n) copy(cache.values, (j + 1) * width, j * width, width);
    if (r.what == Other::kUnrotated) copy(unrotated, j * width, j * width, width);
    for (int64_t h = 0; r.what == Other::kHead && h < n_kv; h++)
      copy(cache.values, j * width + (h + r.by) % n_kv * d, j * width + h * d, d);
  }
  return out;
}

std::string ReadingName(const Reading& r) {
  constexpr const char* kNames[] = {"kv.zero",       "kv.before",    "kv.next",
                                    "kv.other_head", "kv.unrotated", "kv.cut"};
  const std::string name = kNames[static_cast<size_t>(r.what)];
  if (r.columns.axis == Axis::kColumns) return fmt::format("kv.columns@{}", PartText(r.columns));
  return r.part.axis == Axis::kAll ? name : name + "@" + PartText(r.part);
}

std::string ReadingWords(const Reading& r, const std::string& noun, const Region& part) {
  const std::string at = part.axis == Axis::kAll ? "" : " in " + RegionWords(part);
  if (r.columns.axis == Axis::kColumns)
    return fmt::format("leaves out {} of each head of the {}{}", RegionWords(r.columns), noun,
                       r.part.axis == Axis::kHeads ? " in " + RegionWords(r.part) : "");
  switch (r.what) {
    case Other::kCut:
      return fmt::format("cuts {} off to f16{}", noun, at);
    case Other::kNothing:
      return fmt::format("reads zeros in place of {}{}", noun, at);
    case Other::kBefore:
      return fmt::format("reads the {} of the position before{}", noun, at);
    case Other::kNext:
      return fmt::format("reads the {} of the position behind{}", noun, at);
    case Other::kHead:
      return fmt::format("reads the {} of another KV head{}", noun, at);
    case Other::kUnrotated:
      return (r.computed ? "keeps keys that are not rotated" : "takes the rotation of keys back") + at;
  }
  return "";
}

}  // namespace pb::diagnose
