// The oracle behind the engine ABI: fp64, every op observable, overwritable, replayable and
// variable.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "abi/engine.h"
#include "model/model.h"
#include "oracle/forward.h"
#include "plugins/oracle/decoder.h"
#include "plugins/support/adapter.h"

namespace pb::oracle {
namespace {

constexpr int64_t kMaxPositions = 1 << 20;

struct Options {
  ModelOptions model;
  ActQuant act_quant;
  bool kv_f16 = true;
  std::optional<bool> attention_rounded;  // queries and probabilities; nothing: as the cache is
  int threads = 1;
  int64_t n_ctx = 0;  // 0: no limit but memory
  // LongRoPE: which factors count; none: what n_ctx, or the trained context, decides.
  std::optional<bool> long_rope;

  bool LongRope(const HyperParameters& p) const {
    return long_rope.value_or((n_ctx ? n_ctx : p.n_ctx_train) > p.rope_stretch.n_ctx_original);
  }
};

Result<int64_t> Integer(std::string_view key, std::string_view text, int64_t least, int64_t most) {
  int64_t v = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size() || v < least || v > most) {
    return MakeError(Code::kUsage, "{}={}: a whole number from {} to {} is expected", key, text, least, most);
  }
  return v;
}

Status Apply(std::string_view key, std::string_view value, Options& o) {
  PB_ASSIGN(const bool declares, Declare(key, value, &o.model));
  if (declares) return {};
  if (key == "act.quant") {
    PB_ASSIGN(o.act_quant, ActQuant::Parse(value));
  } else if (key == "kv.type") {
    if (value != "f16" && value != "f32")
      return MakeError(Code::kUnsupported, "kv.type={}: f16 and f32 are offered", value);
    o.kv_f16 = value == "f16";
  } else if (key == "attn.rounded") {
    if (value != "yes" && value != "no")
      return MakeError(Code::kUsage, "attn.rounded={}: yes or no is expected", value);
    o.attention_rounded = value == "yes";
  } else if (key == "attn.flash") {
    if (value != "off")
      return MakeError(Code::kUnsupported, "attn.flash={}: this engine computes attention in full", value);
  } else if (key == "threads") {
    PB_ASSIGN(int64_t n, Integer(key, value, 1, 256));
    o.threads = static_cast<int>(n);
  } else if (key == "rope.factors") {
    if (value != "long" && value != "short")
      return MakeError(Code::kUsage, "rope.factors={}: long or short is expected", value);
    o.long_rope = value == "long";
  } else if (key == "n_ctx") {
    PB_ASSIGN(o.n_ctx, Integer(key, value, 1, kMaxPositions));
  } else if (key == "weights.decoder") {
    PB_ASSIGN(o.model.decoder, LoadDecoder(value));
  } else if (key == "ubatch") {
    // every row is computed alone: the batch changes nothing
    PB_TRY(Integer(key, value, 1, kMaxPositions));
  } else {
    return MakeError(Code::kUnsupported, "setting {}: not offered by the oracle", key);
  }
  return {};
}

Status ApplyAll(const plugin::Settings& settings, Options& o) {
  for (const auto& [key, value] : settings) PB_TRY(Apply(key, value, o));
  return {};
}

std::vector<float> ToFloat(const Rows& rows) { return {rows.v.begin(), rows.v.end()}; }

// The canonical shape of a stage's output.
pb_tensor Describe(pb_stage stage, const Rows& rows, const HyperParameters& p, float* data) {
  pb_tensor t{sizeof(pb_tensor), PB_F32, 2, {rows.n, rows.width, 1, 1}, data, pb_vocabulary[stage].name};
  const int64_t heads = stages::RowHeads(stage, p.shape());
  if (stages::Of(stage).row.n_axes == 2) t.n_dims = 3, t.shape[1] = heads, t.shape[2] = rows.width / heads;
  return t;
}

// Codes of rows as the ABI wants them.
void HandOver(const std::vector<Activations>& rows, int64_t n_outputs, const pb_replay& r) {
  const Activations& first = rows.front();
  std::vector<int8_t> codes;
  std::vector<float> scales, sums;
  for (const Activations& a : rows) {
    codes.insert(codes.end(), a.codes.begin(), a.codes.end());
    scales.insert(scales.end(), a.scales.begin(), a.scales.end());
    sums.insert(sums.end(), a.sums.begin(), a.sums.end());
  }
  const char* scheme = ActSchemeName(first.scheme);
  const pb_codes out{sizeof(pb_codes),
                     scheme,
                     "by the oracle's reading of the scheme",
                     static_cast<int64_t>(rows.size()),
                     static_cast<int64_t>(first.codes.size()),
                     first.block,
                     n_outputs,
                     codes.data(),
                     scales.data(),
                     sums.empty() ? nullptr : sums.data(),
                     nullptr};
  r.codes(r.ctx, &out);
}

class OracleSession : public plugin::Session {
 public:
  OracleSession(std::shared_ptr<const Model> model, const Options& o)
      : options_(o), ops_(model, ConfigOf(*model, o), o.threads), sequence_(ops_) {}

  static OpConfig ConfigOf(const Model& model, const Options& o) {
    OpConfig c = OpConfig::Declare(model.params(), o.act_quant, o.kv_f16, o.LongRope(model.params()));
    c.attention_f16 = o.attention_rounded.value_or(c.attention_f16);
    return c;
  }

  void Facts(const plugin::FactSink& f) const override {
    f.Add("act.quant", options_.act_quant.Text(), "set");
    f.Add("kv.type", options_.kv_f16 ? "f16" : "f32", "set");
    f.Add("attn.flash", "off", "observed");
    if (options_.attention_rounded) f.Add("attn.rounded", *options_.attention_rounded ? "yes" : "no", "set");
    const HyperParameters& p = ops_.model().params();
    if (!p.rope_stretch.long_factors.empty())
      f.Add("rope.factors", options_.LongRope(p) ? "long" : "short", options_.long_rope ? "set" : "default");
    f.Add("threads", std::to_string(options_.threads), "set");
    f.Add("overwrite.exact", "no", "observed");  // f64 inside, f32 in taps
  }

  void Stages(pb_stage_fn fn, void* ctx) const override {
    for (int s = 0; s < PB_STAGE_COUNT; s++) {
      fn(ctx, s, ops_.model().params().ops.Contains(s) ? PB_OBSERVED : PB_ABSENT, "");
    }
  }

  Status Eval(const pb_eval& e) override {
    const int64_t held = sequence_.n_positions();
    if (e.first_position != held) {
      return MakeError(Code::kUsage, "eval at position {}, the session holds {}", e.first_position, held);
    }
    if (options_.n_ctx && held + e.n_tokens > options_.n_ctx) {
      return MakeError(Code::kUsage, "{} positions do not fit n_ctx={}", held + e.n_tokens, options_.n_ctx);
    }
    if (e.n_tokens <= 0) return MakeError(Code::kUsage, "eval of no tokens");
    auto logits = sequence_.Forward({e.tokens, static_cast<size_t>(e.n_tokens)},
                                    [&](pb_stage s, int32_t layer, Rows& y) { return Show(e, s, layer, y); });
    if (!logits.ok()) {
      sequence_.Truncate(held);
      return std::move(logits).error();
    }
    const int64_t n = e.n_tokens - e.logits_from;
    if (n <= 0 || !e.logits) return {};
    std::vector<float> rows(logits->v.begin() + e.logits_from * logits->width, logits->v.end());
    return e.logits(e.logits_ctx, e.first_position + e.logits_from, rows.data(), n, logits->width)
               ? Status(plugin::Cancelled())
               : Status();
  }

  Status Reset(int32_t n_keep) override { return sequence_.Truncate(n_keep), Status(); }

  Status Replay(const pb_replay& r) override {
    if (r.stage < 0 || r.stage >= PB_STAGE_COUNT)
      return MakeError(Code::kUsage, "replay: there is no stage {}", r.stage);
    std::vector<Rows> inputs;
    for (size_t i = 0; i < r.n_inputs; i++) {
      const pb_tensor& t = r.inputs[i];
      if (t.dtype != PB_F32) return MakeError(Code::kUsage, "replay: input {} is not float32", i);
      inputs.emplace_back(t.shape[0], t.shape[1] * t.shape[2] * t.shape[3]);
      const float* from = static_cast<const float*>(t.data);
      std::copy_n(from, inputs.back().v.size(), inputs.back().v.begin());
    }
    OpConfig config = ops_.config();
    if (r.variation && *r.variation) {
      PB_ASSIGN(config, Vary(config, r.variation));
    }
    std::vector<const Rows*> pointers;
    for (const Rows& x : inputs) pointers.push_back(&x);
    const auto stage = static_cast<pb_stage>(r.stage);
    Rows units;
    PB_ASSIGN(Rows y,
              ops_.Compute(stage, r.layer, r.first_position, pointers, config, r.units ? &units : nullptr));
    std::vector<Activations> codes;
    if (r.codes) {
      PB_ASSIGN(codes, ops_.Codes(stage, r.layer, inputs[0], config));
    }
    auto hand_over = [&](const Rows& rows, void (*to)(void*, const pb_tensor*)) {
      std::vector<float> values = ToFloat(rows);
      const pb_tensor t = Describe(stage, rows, ops_.model().params(), values.data());
      to(r.ctx, &t);
    };
    hand_over(y, r.output);
    // A value that is not finite is judged by that alone.
    for (double& unit : units.v)
      if (!std::isfinite(unit)) unit = 0;
    if (r.units) hand_over(units, r.units);
    if (r.codes) HandOver(codes, y.width, r);
    return {};
  }

 private:
  // Lets the tap see an output and takes what it wrote.
  Status Show(const pb_eval& e, pb_stage stage, int32_t layer, Rows& y) {
    if (!e.tap) return {};
    const pb_point point{sizeof(pb_point),         stage, layer,
                         e.first_position,         0,     pb_vocabulary[stage].name,
                         pb_vocabulary[stage].name};
    if (!(e.tap->want(e.tap->ctx, &point) & PB_WANT_OUTPUT)) return {};
    std::vector<float> values = ToFloat(y);
    pb_tensor t = Describe(stage, y, ops_.model().params(), values.data());
    switch (e.tap->output(e.tap->ctx, &point, &t)) {
      case PB_OVERWRITTEN:
        std::copy(values.begin(), values.end(), y.v.begin());
        return {};
      case PB_STOP:
        return plugin::Cancelled();
      default:
        return {};
    }
  }

  Options options_;
  Ops ops_;
  Sequence sequence_;
};

class OracleModel : public plugin::Model {
 public:
  OracleModel(std::shared_ptr<const pb::Model> model, plugin::FileTokenizer tokenizer, Options options)
      : model_(std::move(model)), tokenizer_(std::move(tokenizer)), options_(std::move(options)) {}

  void Facts(const plugin::FactSink& f) const override {
    const HyperParameters& p = model_->params();
    auto number = [&](const char* key, int64_t v) { f.Add(key, std::to_string(v), "metadata"); };
    f.Add("architecture", p.architecture, "metadata");
    number("n_layers", p.n_layers), number("d_model", p.d_model), number("d_ff", p.d_ff),
        number("n_heads", p.n_heads);
    number("n_kv_heads", p.n_kv_heads), number("head_dim", p.head_dim), number("n_vocab", p.n_vocab);
    number("n_ctx_train", p.n_ctx_train), number("rope.dims", p.rope_dims);
    f.Add("rope.pairing", p.rope_pairing.value == RopePairing::kHalves ? "halves" : "adjacent",
          OriginName(p.rope_pairing.origin));
    f.Add("rope.base", fmt::format("{}", p.rope_base.value), OriginName(p.rope_base.origin));
    if (!p.local.empty() && p.local_rope_base.value != p.rope_base.value)
      f.Add("rope.base.local", fmt::format("{}", p.local_rope_base.value),
            OriginName(p.local_rope_base.origin));
    if (p.norms_rows) f.Add("norms.rows", "yes", "default");
    if (p.experts.n > 0)
      number("n_experts", p.experts.n), number("n_experts_used", p.experts.n_used),
          number("d_ff_expert", p.experts.d_ff);
    f.Add("norm.eps", fmt::format("{}", p.norm_eps.value), OriginName(p.norm_eps.origin));
    f.Add("ffn.activation", p.ffn_activation ? ActivationName(p.ffn_activation->value) : "undeclared",
          p.ffn_activation ? OriginName(p.ffn_activation->origin) : "default");
    f.Add("output.tied", p.output_tied ? "yes" : "no", "metadata");
    f.Add("weights", model_->WeightTypes(), "metadata");
    if (model_->lent()) f.Add("weights.decoder", model_->lent()->lender(), "set");
    tokenizer_.AddFacts(f);
    f.Add("unheard", UnheardKeys(*model_), "observed");
  }
  Result<std::vector<int32_t>> Tokenize(std::string_view text,
                                        const TokenizeOptions& options) const override {
    return tokenizer_.Encode(text, options);
  }
  Result<std::string> Detokenize(std::span<const int32_t> ids) const override {
    return tokenizer_.Decode(ids);
  }
  Result<std::unique_ptr<plugin::Session>> OpenSession(const plugin::Settings& settings) override {
    Options o = options_;
    PB_TRY(ApplyAll(settings, o));
    return std::unique_ptr<plugin::Session>(std::make_unique<OracleSession>(model_, o));
  }

 private:
  std::shared_ptr<const pb::Model> model_;
  plugin::FileTokenizer tokenizer_;
  Options options_;
};

class OracleEngine : public plugin::Engine {
 public:
  explicit OracleEngine(Options options) : options_(std::move(options)) {}
  void Describe(const plugin::FactSink& f) const override {
    f.Add("name", "oracle", "observed");
    f.Add("version", "0.1.0", "observed");
    f.Add("commit", "", "observed");
    f.Add("build", "fp64, " __VERSION__, "observed");
    f.Add("isa", "portable", "observed");
    f.Add("threads", std::to_string(options_.threads), "set");
  }
  Result<std::unique_ptr<plugin::Model>> OpenModel(const std::string& path) override {
    PB_ASSIGN(auto model, pb::Model::Open(path, options_.model));
    PB_ASSIGN(auto tokenizer, plugin::FileTokenizer::Open(model->file()));
    return std::unique_ptr<plugin::Model>(
        std::make_unique<OracleModel>(std::move(model), std::move(tokenizer), options_));
  }

 private:
  Options options_;
};

Result<std::unique_ptr<plugin::Engine>> Create(const plugin::Settings& settings) {
  Options o;
  PB_TRY(ApplyAll(settings, o));
  return std::unique_ptr<plugin::Engine>(std::make_unique<OracleEngine>(std::move(o)));
}

}  // namespace
}  // namespace pb::oracle

extern "C" PB_EXPORT const pb_engine_api* pb_engine_get(void) {
  return pb::plugin::MakeApi(PB_CAP_TOKENIZE | PB_CAP_OUTPUTS | PB_CAP_OVERWRITE | PB_CAP_REPLAY |
                                 PB_CAP_VARY | PB_CAP_UNITS | PB_CAP_CODES,
                             pb::oracle::Create);
}
