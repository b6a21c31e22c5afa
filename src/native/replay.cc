// Replay: one op on given inputs, through the Compute that Forward uses.
#include <algorithm>
#include <optional>
#include <string>

#include "native/session.h"

namespace pb::native {
namespace {

struct InputShape {
  pb_stage stage;
  bool all_positions;
};

// The vocabulary's inputs column for this engine's architectures: the stages a replayed op takes, in order.
std::vector<InputShape> InputsOf(pb_stage stage, bool sub_norms) {
  switch (stage) {
    case PB_STAGE_ATTN_NORM:
    case PB_STAGE_FINAL_NORM:
      return {{PB_STAGE_LAYER_OUT, false}};
    case PB_STAGE_Q_PROJ:
    case PB_STAGE_K_PROJ:
    case PB_STAGE_V_PROJ:
      return {{PB_STAGE_ATTN_NORM, false}};
    case PB_STAGE_Q_ROPE:
      return {{PB_STAGE_Q_PROJ, false}};
    case PB_STAGE_K_ROPE:
      return {{PB_STAGE_K_PROJ, false}};
    case PB_STAGE_ATTN_SCORES:
      return {{PB_STAGE_Q_ROPE, false}, {PB_STAGE_K_ROPE, true}};
    case PB_STAGE_ATTN_SCORES_SOFTMAX:
      return {{PB_STAGE_ATTN_SCORES, false}};
    case PB_STAGE_ATTN_CONTEXT:
      return {{PB_STAGE_ATTN_SCORES_SOFTMAX, false}, {PB_STAGE_V_PROJ, true}};
    case PB_STAGE_ATTN_SUB_NORM:
      return {{PB_STAGE_ATTN_CONTEXT, false}};
    case PB_STAGE_ATTN_OUT:
      return {{sub_norms ? PB_STAGE_ATTN_SUB_NORM : PB_STAGE_ATTN_CONTEXT, false}};
    case PB_STAGE_ATTN_RESIDUAL:
      return {{PB_STAGE_ATTN_OUT, false}, {PB_STAGE_LAYER_OUT, false}};
    case PB_STAGE_FFN_NORM:
      return {{PB_STAGE_ATTN_RESIDUAL, false}};
    case PB_STAGE_GATE_PROJ:
    case PB_STAGE_UP_PROJ:
      return {{PB_STAGE_FFN_NORM, false}};
    case PB_STAGE_FFN_ACT:
      return {{PB_STAGE_GATE_PROJ, false}};
    case PB_STAGE_FFN_GATED:
      return {{PB_STAGE_FFN_ACT, false}, {PB_STAGE_UP_PROJ, false}};
    case PB_STAGE_FFN_SUB_NORM:
      return {{PB_STAGE_FFN_GATED, false}};
    case PB_STAGE_DOWN_PROJ:
      return {{sub_norms ? PB_STAGE_FFN_SUB_NORM : PB_STAGE_FFN_GATED, false}};
    case PB_STAGE_LAYER_OUT:
      return {{PB_STAGE_DOWN_PROJ, false}, {PB_STAGE_ATTN_RESIDUAL, false}};
    case PB_STAGE_LOGITS:
      return {{PB_STAGE_FINAL_NORM, false}};
    default:
      return {};
  }
}

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
  const bool per_layer = pb_vocabulary[stage].per_layer != 0;
  if (per_layer && (r.layer < 0 || r.layer >= h.n_layers)) {
    return MakeError(Code::kUsage, "replay: layer {} of {}", r.layer, h.n_layers);
  }
  const std::vector<InputShape> shapes = InputsOf(stage, h.has_sub_norms);
  if (r.n_inputs != shapes.size() || !r.inputs || r.first_position < 0) {
    return MakeError(Code::kUsage, "replay: {} takes {} inputs, {} were given", pb_vocabulary[stage].name,
                     shapes.size(), r.n_inputs);
  }
  const Span span{r.first_position, r.inputs[0].shape[0]};
  if (span.n <= 0 || span.n_visible() > n_ctx())
    return MakeError(Code::kUsage, "replay: {} rows from position {}", span.n, span.first);
  OpParams params = ops_.params();
  if (r.variation && *r.variation) {
    PB_ASSIGN(params, Vary(params, r.variation));
  }
  PB_ASSIGN(KvCache cache, KvCache::Create({1, h.n_kv_heads, span.n_visible(), h.head_dim}, params.kv_f16));
  std::vector<const float*> rows;
  for (size_t i = 0; i < shapes.size(); i++) {
    const bool all = shapes[i].all_positions;
    PB_TRY(CheckTensor(r.inputs[i], i, all ? span.n_visible() : span.n, ops_.Width(shapes[i].stage, span)));
    rows.push_back(static_cast<const float*>(r.inputs[i].data));
    if (!all) continue;
    if (shapes[i].stage == PB_STAGE_K_ROPE) {
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
