// The native engine behind the engine ABI: every op observable, overwritable, disturbable,
// replayable and variable.
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>

#include "abi/engine.h"
#include "base/file.h"
#include "base/sha256.h"
#include "model/model.h"
#include "native/session.h"
#include "native/weights.h"
#include "plugins/support/adapter.h"

#if defined(__clang__)
#define PB_COMPILER "clang " __clang_version__
#else
#define PB_COMPILER "gcc " __VERSION__
#endif

namespace pb::native {
namespace {

struct Options {
  Config config;
  ModelOptions model;
  std::vector<std::string> set;  // keys the user gave

  const char* Origin(std::string_view key) const {
    return std::find(set.begin(), set.end(), key) != set.end() ? "set" : "default";
  }
};

// What is known when a model is open may no longer change for a session.
Status Apply(const plugin::Settings& settings, bool model_is_open, Options& o) {
  for (const auto& [key, value] : settings) {
    PB_ASSIGN(bool mine, ApplySetting(key, value, o.config));
    if (!mine && model_is_open) {
      return MakeError(Code::kUnsupported, "setting {}: belongs to the engine, a session cannot change it",
                       key);
    }
    if (!mine) PB_TRY(Declare(key, value, &o.model));
    o.set.push_back(key);
  }
  return {};
}

// Gives back the memory of a matrix that stands in packed form too: its bytes in the file, which
// OpenModel has mapped. Who needs them after all (embeddings, float schemes) has them read again.
void ReleaseFilePages(const Matrix& matrix) {
  if (!matrix.packed) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<uintptr_t>(matrix.view.data);
  const uintptr_t begin = (first + page - 1) / page * page;
  const uintptr_t end =
      (first + static_cast<uint64_t>(matrix.view.n_rows) * matrix.view.row_bytes) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

class NativeSession : public plugin::Session {
 public:
  NativeSession(std::unique_ptr<native::Session> session, Options options)
      : session_(std::move(session)), options_(std::move(options)) {}

  void Facts(const plugin::FactSink& f) const override {
    const Config& c = session_->config();
    auto add = [&](const char* key, std::string_view value) { f.Add(key, value, options_.Origin(key)); };
    add("act.quant", c.act_quant.Text());
    add("kv.type", c.kv_f16 ? "f16" : "f32");
    add("attn.flash", "off");
    if (session_->has_long_rope())
      f.Add("rope.factors", session_->long_rope() ? "long" : "short", c.long_rope ? "set" : "default");
    add("threads", std::to_string(c.threads));
    add("ubatch", std::to_string(c.ubatch));
    add("n_ctx", std::to_string(c.n_ctx));
    add("cpu.library", IsaName(c.isa));
    add("noise.seed", c.noise_seed ? std::to_string(*c.noise_seed) : "none");
  }

  void Stages(pb_stage_fn fn, void* ctx) const override {
    for (int s = 0; s < PB_STAGE_COUNT; s++) {
      fn(ctx, s, session_->HasStage(static_cast<pb_stage>(s)) ? PB_OBSERVED : PB_ABSENT, "");
    }
  }

  Status Eval(const pb_eval& eval) override { return session_->Eval(eval); }
  Status Reset(int32_t n_keep) override { return session_->Reset(n_keep); }
  Status Replay(const pb_replay& replay) override { return session_->Replay(replay); }

 private:
  std::unique_ptr<native::Session> session_;
  Options options_;
};

class NativeModel : public plugin::Model {
 public:
  NativeModel(std::shared_ptr<const pb::Model> model, plugin::FileTokenizer tokenizer, Options options)
      : model_(std::move(model)), tokenizer_(std::move(tokenizer)), options_(std::move(options)) {}

  void Facts(const plugin::FactSink& f) const override {
    const HyperParameters& p = model_->params();
    auto number = [&](const char* key, int64_t v) { f.Add(key, std::to_string(v), "metadata"); };
    f.Add("architecture", p.architecture, "metadata");
    number("n_layers", p.n_layers), number("d_model", p.d_model), number("d_ff", p.d_ff);
    number("n_heads", p.n_heads), number("n_kv_heads", p.n_kv_heads), number("head_dim", p.head_dim);
    number("n_vocab", p.n_vocab), number("n_ctx_train", p.n_ctx_train), number("rope.dims", p.rope_dims);
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

  // Weights are repacked when the first session opens, and shared by all.
  Result<std::unique_ptr<plugin::Session>> OpenSession(const plugin::Settings& settings) override {
    Options o = options_;
    PB_TRY(Apply(settings, true, o));
    if (!weights_) {
      ThreadPool pool(o.config.threads);
      weights_ = Weights::Load(model_, pool);
      ReleaseFilePages(weights_->output);
      for (const auto& layer : weights_->layers)
        for (const Matrix& matrix : layer) ReleaseFilePages(matrix);
      for (const auto& layer : weights_->experts)
        for (const auto& [stage, matrices] : layer)
          for (const Matrix& matrix : matrices) ReleaseFilePages(matrix);
    }
    PB_ASSIGN(auto session, native::Session::Open(weights_, o.config));
    return std::unique_ptr<plugin::Session>(
        std::make_unique<NativeSession>(std::move(session), std::move(o)));
  }

 private:
  std::shared_ptr<const pb::Model> model_;
  plugin::FileTokenizer tokenizer_;
  Options options_;
  std::shared_ptr<const Weights> weights_;
};

// The file this code was loaded from.
std::string OwnPath() {
  Dl_info info;
  return dladdr(reinterpret_cast<const void*>(&pb_engine_get), &info) && info.dli_fname ? info.dli_fname : "";
}

class NativeEngine : public plugin::Engine {
 public:
  explicit NativeEngine(Options options) : options_(std::move(options)) {}

  void Describe(const plugin::FactSink& f) const override {
    f.Add("name", "native", "observed");
    f.Add("version", "0.1.0", "observed");
    f.Add("commit", "", "observed");
    f.Add("build", PB_COMPILER " " PB_BUILD_FLAGS, "observed");
    f.Add("isa", IsaName(options_.config.isa), options_.Origin("cpu.library"));
    f.Add("threads", std::to_string(options_.config.threads), options_.Origin("threads"));
    std::string libraries;
    for (Isa isa : kIsas)
      if (IsaAvailable(isa)) libraries += std::string(libraries.empty() ? "" : " ") + IsaName(isa);
    f.Add("cpu.libraries", libraries, "observed");
    // docs/numerics.md, "The promise".
    f.Add("promise.equal_bits", "repeat threads ubatch feed cpu.library", "default");
    const std::string path = OwnPath();
    f.Add("path.native", path, "observed");
    if (auto bytes = MappedFile::Open(path); bytes.ok())
      f.Add("digest.native", Sha256Hex(bytes->bytes()), "observed");
  }

  Result<std::unique_ptr<plugin::Model>> OpenModel(const std::string& path) override {
    PB_ASSIGN(auto model, pb::Model::Open(path, options_.model));
    PB_ASSIGN(auto tokenizer, plugin::FileTokenizer::Open(model->file()));
    return std::unique_ptr<plugin::Model>(
        std::make_unique<NativeModel>(std::move(model), std::move(tokenizer), options_));
  }

 private:
  Options options_;
};

Result<std::unique_ptr<plugin::Engine>> Create(const plugin::Settings& settings) {
  Options o;
  PB_TRY(Apply(settings, false, o));
  return std::unique_ptr<plugin::Engine>(std::make_unique<NativeEngine>(std::move(o)));
}

}  // namespace
}  // namespace pb::native

extern "C" PB_EXPORT const pb_engine_api* pb_engine_get(void) {
  return pb::plugin::MakeApi(PB_CAP_TOKENIZE | PB_CAP_OUTPUTS | PB_CAP_INPUTS | PB_CAP_OVERWRITE |
                                 PB_CAP_NOISE | PB_CAP_REPLAY | PB_CAP_VARY | PB_CAP_CODES,
                             pb::native::Create);
}
