// Replay: one op on given inputs, through the Compute that Forward uses.
#include <algorithm>
#include <optional>
#include <string>

#include "native/session.h"

namespace pb::native {
namespace {

Status CheckTensor(const pb_tensor& t, size_t index, int64_t rows, int64_t width) {
  bool shaped = t.n_dims >= 1 && t.n_dims <= 4 && t.shape[0] == rows;
  int64_t given = 1;
  for (int i = 1; i < 4; i++)
    shaped = shaped && t.shape[i] > 0 && !__builtin_mul_overflow(given, t.shape[i], &given);
  if (t.dtype == PB_F32 && t.data && shaped && given == width) return {};
  return MakeError(Code::kUsage, "replay: input {} must be {} rows of {} float32", index, rows, width);
}

// Hands codes over as the ABI wants them.
void HandOver(const QuantRows& q, int64_t n_outputs, const pb_replay& r) {
  const bool bitnet = q.scheme == ActScheme::kBitnet;
  std::vector<float> scales(q.scales.get(), q.scales.get() + q.n_rows * q.n_blocks);
  for (float& s : scales) s = bitnet ? 1 / s : s;
  const std::string scheme = ActSchemeName(q.scheme), maker = "by the native engine's own quantiser";
  pb_codes codes{sizeof(pb_codes), scheme.c_str(), maker.c_str(), q.n_rows, q.n_columns, 0,
                 n_outputs,        q.codes.get(),  scales.data(), nullptr,  nullptr};
  codes.block = bitnet ? q.n_columns : kSub << SchemeShift(q.scheme);
  if (q.scheme == ActScheme::kQ8_1) codes.sums = q.sums.get();
  r.codes(r.ctx, &codes);
}

}  // namespace

Status Session::Replay(const pb_replay& r) {
  const HyperParameters& h = ops_.hyper();
  const bool known =
      r.stage > PB_STAGE_EMBEDDINGS && r.stage < PB_STAGE_COUNT && HasStage(static_cast<pb_stage>(r.stage));
  if (!known) return MakeError(Code::kUnsupported, "replay: this model has no stage {} to replay", r.stage);
  const pb_stage stage = static_cast<pb_stage>(r.stage);
  const bool per_layer = stages::Of(stage).per_layer;
  if (per_layer && (r.layer < 0 || r.layer >= h.n_layers)) {
    return MakeError(Code::kUsage, "replay: layer {} of {}", r.layer, h.n_layers);
  }
  const std::vector<stages::Input> reads = stages::InputsOf(stage, h.ops);
  if (r.n_inputs != reads.size() || !r.inputs || r.first_position < 0) {
    return MakeError(Code::kUsage, "replay: {} takes {} inputs, {} were given", stages::Of(stage).name,
                     reads.size(), r.n_inputs);
  }
  const TokenRows span{r.first_position, r.inputs[0].shape[0]};
  if (span.n <= 0 || span.n_visible() > n_ctx())
    return MakeError(Code::kUsage, "replay: {} rows from position {}", span.n, span.first);
  OpParams params = ops_.params();
  if (r.variation && *r.variation) {
    PB_ASSIGN(params, Vary(params, r.variation));
  }
  PB_ASSIGN(KvCache cache, KvCache::Create({1, h.n_kv_heads, span.n_visible(), h.head_dim}, params.kv_f16));
  std::vector<const float*> rows;
  for (size_t i = 0; i < reads.size(); i++) {
    const bool all = reads[i].all_positions;
    PB_TRY(CheckTensor(r.inputs[i], i, all ? span.n_visible() : span.n, ops_.Width(reads[i].stage, span)));
    rows.push_back(static_cast<const float*>(r.inputs[i].data));
    if (!all) continue;
    if (reads[i].stage == PB_STAGE_K_ROPE) {
      cache.StoreKeys(ops_.kernels(), 0, 0, span.n_visible(), rows.back());
    } else {
      cache.StoreValues(ops_.kernels(), 0, 0, span.n_visible(), rows.back());
    }
  }
  Ops ops(weights_, ops_.kernels(), pool_, params);
  auto out = MakeAligned<float>(span.n * ops.Width(stage, span));
  PB_TRY(ops.Compute(stage, r.layer, span, rows, cache, 0, out.get()));
  std::optional<QuantRows> codes;
  if (r.codes) {
    PB_ASSIGN(codes, ops.Codes(stage, r.layer, span.n, rows[0]));
  }
  pb_tensor tensor = Describe(stage, span, out.get());
  r.output(r.ctx, &tensor);
  if (codes) HandOver(*codes, ops.Width(stage, span), r);
  return {};
}

}  // namespace pb::native
