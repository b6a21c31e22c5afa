// Sessions: a KV cache with its settings, the warm-up that maps the graph, and evaluation in chunks of one
// ubatch each.
#include <algorithm>
#include <memory>

#include "llama_cpp/adapter.h"

namespace pb::llama_cpp {
namespace {

// A batch over arrays of our own; token i stands at position first + i.
struct Batch {
  std::vector<llama_token> tokens;
  std::vector<llama_pos> positions;
  std::vector<int32_t> n_seq_id;
  std::vector<llama_seq_id*> seq_id;
  std::vector<int8_t> wants_logits;
  llama_seq_id sequence = 0;

  Batch(const int32_t* ids, int32_t n, int32_t first, int32_t logits_from)
      : tokens(ids, ids + n), positions(n), n_seq_id(n, 1), seq_id(n, &sequence), wants_logits(n) {
    for (int32_t i = 0; i < n; ++i) {
      positions[i] = first + i;
      wants_logits[i] = i >= logits_from;
    }
  }
  Batch(const Batch&) = delete;

  llama_batch View() {
    return {static_cast<int32_t>(tokens.size()),
            tokens.data(),
            nullptr,
            positions.data(),
            n_seq_id.data(),
            seq_id.data(),
            wants_logits.data()};
  }
};

llama_context_params ContextParams(const Settings& s, pb_session* session) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(s.n_ctx);
  params.n_batch = params.n_ubatch = static_cast<uint32_t>(s.ubatch);
  params.n_seq_max = 1;
  params.n_threads = params.n_threads_batch = s.threads;
  SetFlash(&params, static_cast<int>(s.flash));
  params.type_k = params.type_v = s.kv_type;
  SetNoPerf(&params);
  SetUnfused(&params);
  using Answer = decltype(params.cb_eval(nullptr, false, nullptr));
  params.cb_eval = [](ggml_tensor* t, bool ask, void* user) { return Answer(EvalCallback(t, ask, user)); };
  params.cb_eval_user_data = session;
  return params;
}

// Quantised values are read by fused attention alone (llama_init_from_model), which is then turned on where nobody says otherwise.
pb_error* ChooseFlash(Settings* s) {
  if (!ggml_is_quantized(s->kv_type) || s->flash == Flash::kOn) return nullptr;
  if (s->given.count("attn.flash") && s->flash == Flash::kOff) {
    return NewError(PB_UNSUPPORTED, std::string("kv.type=") + ggml_type_name(s->kv_type) +
                                        ": llama.cpp reads quantised values with fused attention alone: "
                                        "it needs attn.flash=on");
  }
  s->flash = Flash::kOn;
  return nullptr;
}

// Keys and values of a head are whole blocks of the cache's type.
pb_error* CheckBlocks(const Settings& s, const Dims& dims) {
  const int64_t block = ggml_blck_size(s.kv_type);
  if (dims.head_dim % block == 0) return nullptr;
  return NewError(PB_UNSUPPORTED, std::string("kv.type=") + ggml_type_name(s.kv_type) + ": its blocks have " +
                                      std::to_string(block) + " values, and a head of this model has " +
                                      std::to_string(dims.head_dim));
}

// Evaluates one token to see the graph, then forgets it.
pb_error* WarmUp(pb_session* session) {
  GraphRecorder recorder;
  session->recorder = &recorder;
  const llama_token bos = llama_vocab_bos(session->model->vocab);
  const int32_t token = bos >= 0 && bos < session->model->n_vocab ? bos : 0;
  Batch batch(&token, 1, 0, 0);
  const int32_t status = llama_decode(session->ctx, batch.View());
  session->recorder = nullptr;
  if (status != 0)
    return NewError(PB_INTERNAL, "llama_decode of one token failed with " + std::to_string(status));
  session->map = MapGraph(recorder, session->model->dims);
  llama_memory_clear(llama_get_memory(session->ctx), true);
  return nullptr;
}

pb_error* Open(pb_model* model, const pb_setting* settings, size_t n_settings,
               std::unique_ptr<pb_session>* out) {
  if (model->facts.front().value.empty())
    return NewError(PB_UNSUPPORTED, "this file has a vocabulary and no weights");
  auto made = std::make_unique<pb_session>();
  made->model = model;
  made->settings = model->engine->settings;
  if (pb_error* error = made->settings.Apply(settings, n_settings)) return error;
  if (made->settings.declared != model->engine->settings.declared)
    return NewError(PB_UNSUPPORTED,
                    "norm.eps, rope.base, rope.scale: belong to the engine, a session cannot change them");
  if (made->settings.cpu_library != model->engine->settings.cpu_library) {
    return NewError(PB_UNSUPPORTED, "cpu.library: belongs to the engine, not to a session");
  }
  if (pb_error* error = ChooseFlash(&made->settings)) return error;
  if (pb_error* error = CheckBlocks(made->settings, model->dims)) return error;
  if (made->settings.n_ctx == 0)
    made->settings.n_ctx = std::min(llama_model_n_ctx_train(model->model), kDefaultContext);
  TakeLogLine();
  made->ctx = llama_init_from_model(model->model, ContextParams(made->settings, made.get()));
  if (!made->ctx) return NewError(PB_INTERNAL, "llama.cpp opens no context: " + TakeLogLine());
  if (pb_error* error = WarmUp(made.get())) return error;
  *out = std::move(made);
  return nullptr;
}

pb_error* CheckEval(const pb_session* s, const pb_eval* e) {
  const auto number = [](int64_t v) { return std::to_string(v); };
  if (e->n_tokens <= 0) return NewError(PB_INVALID_ARGUMENT, "no tokens to evaluate");
  if (e->first_position != s->n_past) {
    return NewError(PB_INVALID_ARGUMENT, "first_position " + number(e->first_position) +
                                             ", but the session holds " + number(s->n_past) + " positions");
  }
  const int64_t end = static_cast<int64_t>(e->first_position) + e->n_tokens;
  if (const uint32_t batch = llama_n_ubatch(s->ctx); !llama_get_memory(s->ctx) && end > std::min<int64_t>(e->n_tokens, batch)) {
    return NewError(PB_UNSUPPORTED, "llama.cpp keeps nothing of earlier tokens for architecture \"" + s->model->architecture +
                                        "\", whose tokens all see each other: a prompt of up to " + number(batch) +
                                        " tokens (ubatch), evaluated at once, and no decode steps");
  }
  if (const int64_t n_ctx = s->settings.n_ctx; end > n_ctx) {
    return NewError(PB_INVALID_ARGUMENT, number(end) + " positions, but the session has room for " +
                                             number(n_ctx) + ": open it with n_ctx=" + number(end) +
                                             " or more");
  }
  for (int32_t i = 0; i < e->n_tokens; ++i) {
    if (e->tokens[i] >= 0 && e->tokens[i] < s->model->n_vocab) continue;
    return NewError(PB_INVALID_ARGUMENT, "token " + number(e->tokens[i]) + " at position " +
                                             number(e->first_position + i) +
                                             " is outside the vocabulary of " + number(s->model->n_vocab));
  }
  return nullptr;
}

// Hands over the logits of rows from..n of a chunk.
pb_error* SendLogits(pb_session* s, const pb_eval* e, int32_t first, int32_t n, int32_t from) {
  if (!e->logits || from >= n) return nullptr;
  const float* rows = llama_get_logits_ith(s->ctx, from);
  const float* last = llama_get_logits_ith(s->ctx, n - 1);
  if (!rows || last != rows + static_cast<int64_t>(n - 1 - from) * s->model->n_vocab) {
    return NewError(PB_INTERNAL,
                    "llama.cpp gave no logits in order for positions from " + std::to_string(first + from));
  }
  if (e->logits(e->logits_ctx, first + from, rows, n - from, s->model->n_vocab) != 0) {
    return NewError(PB_CANCELLED, "stopped at logits");
  }
  return nullptr;
}

// Evaluates rows begin..begin+n. With a tap every row is an output, so that the last layer's points have all
// rows.
pb_error* EvalChunk(pb_session* s, const pb_eval* e, int32_t begin, int32_t n, bool need_inputs) {
  const int32_t first = e->first_position + begin;
  const int32_t from = std::clamp(e->logits_from - begin, 0, n);
  s->pass = Pass{};
  s->pass.tap = e->tap;
  s->pass.need_all = need_inputs;
  s->pass.first_position = first;
  s->pass.n_rows = n;
  Batch batch(e->tokens + begin, n, first, e->tap ? 0 : from);
  TakeLogLine();
  const int32_t status = llama_decode(s->ctx, batch.View());
  if (s->pass.stopped) {
    if (s->pass.failure.empty()) return NewError(PB_CANCELLED, "stopped at a tracepoint");
    return NewError(PB_INTERNAL, s->pass.failure);
  }
  if (status != 0) {
    return NewError(PB_INTERNAL, "llama_decode failed with " + std::to_string(status) + ": " + TakeLogLine());
  }
  return SendLogits(s, e, first, n, from);
}

// Whether the tap wants the inputs of any point: asked beforehand, because nodes between two hand-overs run
// together.
bool WantsInputs(const pb_session* s, const pb_tap* tap) {
  if (!tap || !tap->inputs) return false;
  for (const auto& [key, rules] : s->map.rules) {
    for (const PointRule& rule : rules) {
      const pb_point point = {sizeof(pb_point), rule.stage,  rule.layer, s->n_past,
                              rule.occurrence,  key.c_str(), ""};
      if (!rule.inputs.empty() && (tap->want(tap->ctx, &point) & PB_WANT_INPUTS)) return true;
    }
  }
  return false;
}

pb_error* Forget(pb_session* s, int32_t n_keep) {
  llama_memory_t memory = llama_get_memory(s->ctx);
  if (n_keep == 0) {
    llama_memory_clear(memory, true);  // data too: a NaN left in a padded cell would come back as 0 x NaN
  } else if (!llama_memory_seq_rm(memory, 0, n_keep, -1)) {
    return NewError(PB_UNSUPPORTED, "this model's memory cannot forget a part of its positions");
  }
  s->n_past = n_keep;
  return nullptr;
}

}  // namespace

pb_error* SessionOpen(pb_model* model, const pb_setting* settings, size_t n_settings, pb_session** session) {
  return Guarded([&]() -> pb_error* {
    *session = nullptr;
    std::unique_ptr<pb_session> made;
    if (pb_error* error = Open(model, settings, n_settings, &made)) return error;
    *session = made.release();
    return nullptr;
  });
}

void SessionClose(pb_session* session) { delete session; }

pb_error* SessionFacts(pb_session* session, pb_fact_fn fact, void* ctx) {
  return Guarded([&]() -> pb_error* {
    const Settings& s = session->settings;
    const std::string& factors = session->map.observed.rope_factors;
    if (!factors.empty()) SendFacts({{"rope.factors", factors, "observed"}}, fact, ctx);
    SendFacts(
        {
            {"threads", std::to_string(s.threads), s.OriginOf("threads")},
            {"ubatch", std::to_string(llama_n_ubatch(session->ctx)), s.OriginOf("ubatch")},
            {"n_ctx", std::to_string(s.n_ctx), s.OriginOf("n_ctx")},
            {"kv.type", ggml_type_name(s.kv_type), s.OriginOf("kv.type")},
            {"attn.flash", session->map.observed.flash ? "on" : "off", "observed"},
            {"act.quant", "ggml", s.OriginOf("act.quant")},
            {"noise.seed", s.noise_seed ? std::to_string(*s.noise_seed) : "none", s.OriginOf("noise.seed")},
        },
        fact, ctx);
    return nullptr;
  });
}

pb_error* SessionStages(pb_session* session, pb_stage_fn stage, void* ctx) {
  return Guarded([&]() -> pb_error* {
    for (int i = 0; i < PB_STAGE_COUNT; ++i) {
      const Visibility& v = session->map.stages[i];
      stage(ctx, i, v.visibility, v.reason.empty() ? nullptr : v.reason.c_str());
    }
    return nullptr;
  });
}

pb_error* SessionLayers(pb_session* session, pb_layer_fn layer, void* ctx) {
  return Guarded([&]() -> pb_error* {
    for (int stage = 0; stage < PB_STAGE_COUNT; ++stage)
      for (const Visibility::Layer& at : session->map.stages[stage].layers) layer(ctx, stage, at.layer, at.apart);
    return nullptr;
  });
}

pb_error* Eval(pb_session* session, const pb_eval* eval) {
  return Guarded([&]() -> pb_error* {
    if (pb_error* error = CheckEval(session, eval)) return error;
    const int32_t chunk = static_cast<int32_t>(llama_n_ubatch(session->ctx));
    const int32_t before = session->n_past;
    const bool need_inputs = WantsInputs(session, eval->tap);
    for (int32_t begin = 0; begin < eval->n_tokens; begin += chunk) {
      const int32_t n = std::min(chunk, eval->n_tokens - begin);
      if (pb_error* error = EvalChunk(session, eval, begin, n, need_inputs)) {
        if (pb_error* second = Forget(session, before)) delete second;
        return error;
      }
      session->n_past += n;
    }
    session->pass = Pass{};
    return nullptr;
  });
}

pb_error* Reset(pb_session* session, int32_t n_keep) {
  return Guarded([&]() -> pb_error* {
    if (n_keep < 0 || n_keep > session->n_past) {
      return NewError(PB_INVALID_ARGUMENT, "cannot keep " + std::to_string(n_keep) + " of " +
                                               std::to_string(session->n_past) + " positions");
    }
    return Forget(session, n_keep);
  });
}

}  // namespace pb::llama_cpp
