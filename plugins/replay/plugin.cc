// A stored trace behind the engine ABI: what another engine computed elsewhere, served as if it
// computed here. Knows one text and its tokens; cannot be overwritten, disturbed or asked to
// compute anything.
#include <algorithm>
#include <charconv>
#include <set>

#include "abi/engine.h"
#include "base/sha256.h"
#include "formats/gguf.h"
#include "plugins/replay/recording.h"
#include "plugins/support/adapter.h"
#include "tokenizer/gguf_keys.h"

namespace pb::replay {
namespace {

constexpr size_t kLogitsBytes = 16 << 20;  // of one block handed over

// Hands on recorded facts, each key once, with an origin that the ABI knows.
void AddFacts(const plugin::FactSink& sink, const std::vector<trace::Fact>& facts,
              std::set<std::string> known) {
  static const std::set<std::string> origins = {"metadata", "config.json", "set", "default", "observed"};
  for (const trace::Fact& f : facts)
    if (known.insert(f.key).second)
      sink.Add(f.key, f.value, origins.contains(f.origin) ? f.origin : "observed");
}

struct Options {
  std::shared_ptr<Recording> recording;  // null: an engine that only describes itself
  int64_t n_ctx = 0;                     // 0: all that was recorded
};

// A recording confirms the settings that it was made with and refuses others.
Status Confirm(const Recording& recording, const std::string& key, const std::string& value) {
  for (const auto* facts : {&recording.manifest().session_facts, &recording.model_facts()}) {
    const trace::Fact* fact = trace::FindFact(*facts, key);
    if (!fact) continue;
    if (fact->value == value) return {};
    return MakeError(Code::kUnsupported, "setting {}: {} was asked for, the trace was recorded with {}", key,
                     value, fact->value);
  }
  return MakeError(Code::kUnsupported,
                   "setting {}: the trace does not tell of it, and a recording cannot change", key);
}

Status Apply(const plugin::Settings& settings, bool session, Options& o) {
  for (const auto& [key, value] : settings) {
    if (key != "trace") continue;
    if (session)
      return MakeError(Code::kUnsupported,
                       "setting trace: belongs to the engine, a session cannot change it");
    auto recording = Recording::Open(value);
    if (!recording.ok()) return std::move(recording).error().In("setting trace");
    o.recording = std::move(recording).value();
  }
  for (const auto& [key, value] : settings) {
    if (key == "trace") continue;
    if (key == "n_ctx") {
      auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), o.n_ctx);
      if (error != std::errc() || end != value.data() + value.size() || o.n_ctx <= 0)
        return MakeError(Code::kUsage, "setting n_ctx: `{}` is not a number of positions", value);
      continue;
    }
    if (!o.recording)
      return MakeError(Code::kUnsupported,
                       "setting {}: there is no trace to confirm it; name one first, trace=FOLDER", key);
    PB_TRY(Confirm(*o.recording, key, value));
  }
  return {};
}

class ReplaySession : public plugin::Session {
 public:
  explicit ReplaySession(Options options) : r_(*options.recording), options_(std::move(options)) {
    const auto n_recorded = static_cast<int64_t>(r_.tokens().size());
    limit_ = options_.n_ctx > 0 ? std::min(options_.n_ctx, n_recorded) : n_recorded;
  }

  void Facts(const plugin::FactSink& f) const override {
    AddFacts(f, r_.manifest().session_facts, {"n_ctx"});
    f.Add("n_ctx", std::to_string(limit_), options_.n_ctx > 0 ? "set" : "observed");
  }

  void Stages(pb_stage_fn fn, void* ctx) const override {
    for (int32_t s = 0; s < PB_STAGE_COUNT; ++s) fn(ctx, s, r_.stage(s).how, r_.stage(s).reason.c_str());
  }

  void Layers(pb_layer_fn fn, void* ctx) const override {
    for (int32_t s = 0; s < PB_STAGE_COUNT; ++s)
      for (const int32_t layer : r_.stage(s).layers) fn(ctx, s, layer, 1);
  }

  Status Eval(const pb_eval& e) override {
    PB_TRY(CheckTokens(e));
    if (e.tap) PB_TRY(ShowPoints(e));
    if (e.logits && e.logits_from < e.n_tokens) PB_TRY(HandLogits(e));
    n_held_ += e.n_tokens;
    return {};
  }

  Status Reset(int32_t n_keep) override {
    n_held_ = std::clamp<int64_t>(n_keep, 0, n_held_);
    return {};
  }

  Status Replay(const pb_replay&) override {
    return MakeError(Code::kUnsupported, "a recording cannot compute an op on other inputs");
  }

 private:
  Status CheckTokens(const pb_eval& e) const {
    if (e.first_position != n_held_)
      return MakeError(Code::kUsage, "eval at position {}, the session holds {}", e.first_position, n_held_);
    if (e.n_tokens <= 0 || e.logits_from < 0) return MakeError(Code::kUsage, "eval of no tokens");
    for (int32_t i = 0; i < e.n_tokens; ++i) {
      const int64_t position = n_held_ + i;
      if (position >= limit_) {
        return MakeError(
            Code::kUnsupported, "position {} is beyond the {} that {}", position, limit_,
            limit_ < static_cast<int64_t>(r_.tokens().size()) ? "n_ctx allows" : "were recorded");
      }
      const int32_t recorded = r_.tokens()[static_cast<size_t>(position)];
      if (e.tokens[i] != recorded) {
        return MakeError(Code::kUnsupported, "token {} at position {}, where token {} was recorded",
                         e.tokens[i], position, recorded);
      }
    }
    return {};
  }

  // All layers in dependency order, as far as the trace holds them.
  Status ShowPoints(const pb_eval& e) {
    bool layers = false;
    for (int32_t s = 0; s < PB_STAGE_COUNT; ++s)
      layers |= pb_vocabulary[s].per_layer && r_.stage(s).how == PB_OBSERVED;
    PB_TRY(Show(e, PB_STAGE_EMBEDDINGS, -1));
    for (int32_t layer = 0; layers && layer < r_.n_layers(); ++layer)
      for (int32_t s = 0; s < PB_STAGE_COUNT; ++s)
        if (pb_vocabulary[s].per_layer) PB_TRY(Show(e, s, layer));
    PB_TRY(Show(e, PB_STAGE_FINAL_NORM, -1));
    return Show(e, PB_STAGE_LOGITS, -1);
  }

  Status Show(const pb_eval& e, int32_t stage, int32_t layer) {
    const Shown& shown = r_.stage(stage);
    if (shown.how != PB_OBSERVED || (!shown.layers.empty() && std::ranges::count(shown.layers, layer) == 0))
      return {};
    const char* name = pb_vocabulary[stage].name;
    const pb_point point{sizeof(pb_point), stage, layer, e.first_position, 0, name, "recorded"};
    if (!e.tap->want || !e.tap->output || !(e.tap->want(e.tap->ctx, &point) & PB_WANT_OUTPUT)) return {};
    PB_ASSIGN(Tensor tensor, r_.Rows(stage, layer, n_held_, e.n_tokens));
    pb_tensor t{sizeof(pb_tensor),    PB_F32, static_cast<int32_t>(tensor.shape.size()), {1, 1, 1, 1},
                tensor.values.data(), nullptr};
    std::copy(tensor.shape.begin(), tensor.shape.end(), t.shape);
    switch (e.tap->output(e.tap->ctx, &point, &t)) {
      case PB_CONTINUE:
        return {};
      case PB_OVERWRITTEN:
        return MakeError(Code::kUnsupported, "{}: a recording cannot be overwritten", name);
      default:
        return plugin::Cancelled();
    }
  }

  Status HandLogits(const pb_eval& e) {
    const int64_t end = n_held_ + e.n_tokens;
    const trace::Fact* fact = trace::FindFact(r_.model_facts(), "n_vocab");
    size_t n_vocab = 1;
    std::from_chars(fact->value.data(), fact->value.data() + fact->value.size(), n_vocab);
    const auto block = static_cast<int64_t>(std::max<size_t>(1, kLogitsBytes / (n_vocab * sizeof(float))));
    for (int64_t first = n_held_ + e.logits_from; first < end; first += block) {
      PB_ASSIGN(Tensor rows, r_.Rows(PB_STAGE_LOGITS, -1, first, std::min(block, end - first)));
      if (e.logits(e.logits_ctx, static_cast<int32_t>(first), rows.values.data(), rows.shape[0],
                   rows.shape[1]))
        return plugin::Cancelled();
    }
    return {};
  }

  Recording& r_;
  Options options_;
  int64_t n_held_ = 0, limit_ = 0;
};

// The model file's own tokeniser, for showing what tokens say; null where it cannot be read.
std::unique_ptr<const Tokenizer> OpenTokenizer(const std::string& path) {
  auto file = GgufFile::Open(path);
  if (!file.ok()) return nullptr;
  auto data = ReadTokenizerData(*file);
  if (!data.ok()) return nullptr;
  auto tokenizer = Tokenizer::Create(std::move(data).value());
  return tokenizer.ok() ? std::move(tokenizer).value() : nullptr;
}

class ReplayModel : public plugin::Model {
 public:
  ReplayModel(Options options, std::unique_ptr<const Tokenizer> tokenizer)
      : options_(std::move(options)), tokenizer_(std::move(tokenizer)) {}

  void Facts(const plugin::FactSink& f) const override { AddFacts(f, options_.recording->model_facts(), {}); }

  Result<std::vector<int32_t>> Tokenize(std::string_view text,
                                        const TokenizeOptions& options) const override {
    const trace::Manifest& m = options_.recording->manifest();
    if (text != m.prompt)
      return MakeError(Code::kUnsupported, "the trace holds one prompt and no other: {}", Quote(m.prompt));
    if (!options.add_special || !options.parse_special)
      return MakeError(Code::kUnsupported, "the prompt was recorded with its special tokens");
    return std::vector<int32_t>(m.tokens.begin(), m.tokens.begin() + m.n_prompt);
  }

  Result<std::string> Detokenize(std::span<const int32_t> ids) const override {
    if (!tokenizer_)
      return MakeError(Code::kUnsupported, "the model file has no tokeniser that can be read here");
    return tokenizer_->Decode(ids, true);
  }

  Result<std::unique_ptr<plugin::Session>> OpenSession(const plugin::Settings& settings) override {
    Options o = options_;
    PB_TRY(Apply(settings, true, o));
    return std::unique_ptr<plugin::Session>(std::make_unique<ReplaySession>(std::move(o)));
  }

 private:
  static std::string Quote(const std::string& text) {
    constexpr size_t kShown = 200;
    return text.size() <= kShown ? fmt::format("\"{}\"", text)
                                 : fmt::format("\"{}...\" ({} bytes)", text.substr(0, kShown), text.size());
  }

  Options options_;
  std::unique_ptr<const Tokenizer> tokenizer_;
};

class ReplayEngine : public plugin::Engine {
 public:
  explicit ReplayEngine(Options options) : options_(std::move(options)) {}

  void Describe(const plugin::FactSink& f) const override {
    if (!options_.recording) {
      f.Add("name", "replay", "observed");
      f.Add("version", "0.1.0", "observed");
      f.Add("threads", "1", "observed");
      return;
    }
    const Recording& r = *options_.recording;
    const auto& facts = r.manifest().engine_facts;
    const trace::Fact* name = trace::FindFact(facts, "name");
    f.Add("name", "replay of " + (name ? name->value : r.manifest().engine), "observed");
    if (!trace::FindFact(facts, "version")) f.Add("version", "unknown", "observed");
    if (!trace::FindFact(facts, "threads")) f.Add("threads", "unknown", "observed");
    AddFacts(f, facts, {"name", "path.trace", "digest.trace"});
    f.Add("path.trace", std::filesystem::absolute(r.folder()).string(), "set");
    f.Add("digest.trace", r.digest(), "observed");
  }

  Result<std::unique_ptr<plugin::Model>> OpenModel(const std::string& path) override {
    if (!options_.recording)
      return MakeError(Code::kUsage, "there is no trace to replay: name one, replay,trace=FOLDER");
    const trace::Manifest& m = options_.recording->manifest();
    if (m.model_sha256.empty())
      return MakeError(Code::kUnsupported, "the trace does not say which model file it is of (sha256)");
    PB_ASSIGN(std::string digest, Sha256File(path));
    if (digest != m.model_sha256) {
      return MakeError(Code::kUnsupported,
                       "{}: has sha256 {:.12}..., and the trace is of another model file: {}, {:.12}...",
                       path, digest, m.model_path, m.model_sha256);
    }
    return std::unique_ptr<plugin::Model>(std::make_unique<ReplayModel>(options_, OpenTokenizer(path)));
  }

 private:
  Options options_;
};

Result<std::unique_ptr<plugin::Engine>> Create(const plugin::Settings& settings) {
  Options o;
  PB_TRY(Apply(settings, false, o));
  return std::unique_ptr<plugin::Engine>(std::make_unique<ReplayEngine>(std::move(o)));
}

}  // namespace
}  // namespace pb::replay

extern "C" PB_EXPORT const pb_engine_api* pb_engine_get(void) {
  return pb::plugin::MakeApi(PB_CAP_TOKENIZE | PB_CAP_OUTPUTS, pb::replay::Create);
}
