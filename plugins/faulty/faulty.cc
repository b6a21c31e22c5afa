// An engine that works, and misbehaves on request: faulty.mode names the fault, faulty.at where it
// is committed. It is how the host and the verdicts are tested against crashes, hangs and lies.
// Before any setting can arrive, FAULTY_TABLE chooses a table that is wrong.
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>
#include <string>

#include "abi/engine.h"
#include "byte_model.h"
#include "faults.h"

struct pb_error {
  pb_code code;
  std::string message;
};
struct pb_engine {
  faulty::Faults faults;
  uint64_t noise_seed = 0;
};
struct pb_model {
  pb_engine* engine;
};
struct pb_session {
  pb_engine* engine;
  faulty::Faults faults;
  uint64_t noise_seed;
  int32_t n_positions = 0;
  // In no two sessions alike, from 1/2 to 1: Lie::kNondeterministic.
  float jitter = 0.5f + static_cast<float>(std::random_device()() >> 8) * 0x1p-25f;
};

namespace {

using faulty::Lie;
using faulty::Place;

constexpr int32_t kContext = 4096;

pb_error* Fail(pb_code code, std::string message) { return new pb_error{code, std::move(message)}; }

pb_error* Do(const faulty::Faults& faults, Place place) {
  std::string message = faulty::Commit(faults, place);
  return message.empty() ? nullptr : Fail(PB_INTERNAL, message);
}

pb_error* Configure(const pb_setting* settings, size_t n, faulty::Faults& faults, uint64_t& noise_seed) {
  for (size_t i = 0; i < n; ++i) {
    std::string key = settings[i].key, value = settings[i].value;
    bool known = true;
    if (key == "faulty.mode") {
      known = faulty::SetMode(faults, value);
    } else if (key == "faulty.at") {
      known = faulty::SetPlace(faults, value);
    } else if (key == "faulty.promise") {
      faults.promise = value;
    } else if (key == "noise.seed") {
      char* end = nullptr;
      noise_seed = std::strtoull(value.c_str(), &end, 10);
      known = !value.empty() && *end == 0;
    } else if (key != "threads") {
      return Fail(PB_INVALID_ARGUMENT, "unknown setting \"" + key + "\"");
    }
    if (!known) return Fail(PB_INVALID_ARGUMENT, "setting " + key + ": unknown value \"" + value + "\"");
  }
  return nullptr;
}

void State(pb_fact_fn fact, void* ctx, const char* key, const std::string& value, const char* origin) {
  pb_fact stated{sizeof(pb_fact), key, value.c_str(), origin};
  fact(ctx, &stated);
}

pb_error* Create(const pb_setting* settings, size_t n, pb_engine** engine) {
  pb_engine made;
  if (pb_error* error = Configure(settings, n, made.faults, made.noise_seed)) return error;
  if (pb_error* error = Do(made.faults, Place::kCreate)) return error;
  *engine = new pb_engine(made);
  return nullptr;
}

pb_error* Describe(pb_engine* engine, pb_fact_fn fact, void* ctx) {
  State(fact, ctx, "name", "faulty", "observed");
  State(fact, ctx, "version", "0.1", "observed");
  State(fact, ctx, "threads", "1", "observed");
  if (!engine->faults.promise.empty()) State(fact, ctx, "promise.equal_bits", engine->faults.promise, "set");
  return nullptr;
}

pb_error* ModelOpen(pb_engine* engine, const char* path, pb_model** model) {
  if (pb_error* error = Do(engine->faults, Place::kModel)) return error;
  if (!std::ifstream(path)) return Fail(PB_IO, std::string(path) + ": cannot be opened");
  if (!engine->faults.Has(Lie::kNoModel)) *model = new pb_model{engine};
  return nullptr;
}

pb_error* ModelFacts(pb_model*, pb_fact_fn fact, void* ctx) {
  const std::pair<const char*, int> numbers[] = {{"n_layers", faulty::kLayers}, {"d_model", faulty::kModel},
                                                 {"d_ff", faulty::kFf},         {"n_vocab", faulty::kVocab},
                                                 {"n_ctx_train", kContext},     {"bos", faulty::kBos}};
  State(fact, ctx, "architecture", "bytes", "default");
  for (auto [key, value] : numbers) State(fact, ctx, key, std::to_string(value), "default");
  State(fact, ctx, "add_bos", "true", "default");
  State(fact, ctx, "ffn.activation", "relu2", "default");
  return nullptr;
}

pb_error* Tokenize(pb_model* model, const char* text, size_t n_bytes, uint32_t flags, int32_t* ids,
                   size_t capacity, size_t* n_ids) {
  const faulty::Faults& faults = model->engine->faults;
  auto all = faulty::Tokenize({text, n_bytes}, flags);
  if (!all.empty() && faults.Has(Lie::kTokenRange)) all.back() = faulty::kVocab + 5;
  if (!all.empty() && all.back() < faulty::kBos && faults.Has(Lie::kTokenValue)) all.back() ^= 1;
  *n_ids = all.size();
  if (faults.Has(Lie::kTokenCount) && capacity == 0) ++*n_ids;
  for (size_t i = 0; i < std::min(all.size(), capacity); ++i) ids[i] = all[i];
  return nullptr;
}

pb_error* Detokenize(pb_model*, const int32_t* ids, size_t n_ids, char* text, size_t capacity,
                     size_t* n_bytes) {
  for (size_t i = 0; i < n_ids; ++i) {
    if (ids[i] < 0 || ids[i] >= faulty::kVocab)
      return Fail(PB_INVALID_ARGUMENT, "token " + std::to_string(ids[i]) + " is not one");
  }
  std::string all = faulty::Detokenize(ids, n_ids);
  *n_bytes = all.size();
  if (capacity > 0) std::memcpy(text, all.data(), std::min(capacity, all.size()));
  return nullptr;
}

pb_error* SessionOpen(pb_model* model, const pb_setting* settings, size_t n, pb_session** session) {
  pb_session made{model->engine, model->engine->faults, model->engine->noise_seed};
  if (pb_error* error = Configure(settings, n, made.faults, made.noise_seed)) return error;
  if (pb_error* error = Do(made.faults, Place::kSession)) return error;
  *session = new pb_session(made);
  return nullptr;
}

pb_error* SessionFacts(pb_session* session, pb_fact_fn fact, void* ctx) {
  State(fact, ctx, "threads", "1", "default");
  State(fact, ctx, "noise.seed", std::to_string(session->noise_seed),
        session->noise_seed ? "set" : "default");
  return nullptr;
}

pb_error* SessionStages(pb_session* session, pb_stage_fn stage, void* ctx) {
  for (int32_t i = 0; i < PB_STAGE_COUNT; ++i) {
    switch (i) {
      case PB_STAGE_EMBEDDINGS:
      case PB_STAGE_FFN_NORM:
      case PB_STAGE_GATE_PROJ:
      case PB_STAGE_UP_PROJ:
      case PB_STAGE_FFN_GATED:
      case PB_STAGE_DOWN_PROJ:
      case PB_STAGE_LAYER_OUT:
      case PB_STAGE_FINAL_NORM:
      case PB_STAGE_LOGITS:
        if (session->faults.Has(Lie::kHidesPoints) && i != PB_STAGE_EMBEDDINGS)
          stage(ctx, i, PB_UNOBSERVABLE, "kept to itself");
        else
          stage(ctx, i, PB_OBSERVED, nullptr);
        break;
      case PB_STAGE_FFN_ACT:
        stage(ctx, i, PB_UNOBSERVABLE, "computed inside ffn_gated");
        break;
      default:
        stage(ctx, i, PB_ABSENT, nullptr);
    }
  }
  if (session->faults.Has(Lie::kStageTwice)) stage(ctx, PB_STAGE_LOGITS, PB_OBSERVED, nullptr);
  return nullptr;
}

pb_error* SessionLayers(pb_session* session, pb_layer_fn layer, void* ctx) {
  const int n_times = session->faults.Has(Lie::kLayerTwice) ? 2 : 0;
  for (int i = 0; i < n_times; ++i) layer(ctx, PB_STAGE_LAYER_OUT, 0, 0);
  return nullptr;
}

// Hands the ops of one evaluation to the tap, and commits the faults that concern points.
class Tap {
 public:
  Tap(const pb_session& session, const pb_eval& eval)
      : faults_(session.faults), eval_(eval), jitter_(session.jitter) {}

  bool Before(int32_t stage, int32_t layer, std::initializer_list<const faulty::Tensor*> inputs) {
    if (faults_.Has(Lie::kSlow)) {
      timespec nap{0, 20'000'000};
      nanosleep(&nap, nullptr);
    }
    pb_point point = Point(stage, layer);
    want_ = eval_.tap ? eval_.tap->want(eval_.tap->ctx, &point) : 0;
    if (stage == PB_STAGE_FFN_GATED && layer == 1) error_ = Do(faults_, Place::kPoint);
    if (want_ & PB_WANT_INPUTS) {
      std::vector<pb_tensor> tensors;
      for (const faulty::Tensor* in : inputs) tensors.push_back(Describe(*in));
      eval_.tap->inputs(eval_.tap->ctx, &point, tensors.data(), tensors.size());
    }
    return error_ == nullptr;
  }

  bool After(int32_t stage, int32_t layer, faulty::Tensor& output) {
    if (stage == PB_STAGE_LOGITS && faults_.Has(Lie::kConstantLogits))
      std::fill(output.values.begin(), output.values.end(), 1.0f);
    const bool wrong_here = stage == PB_STAGE_FFN_GATED && layer == 1;
    if (wrong_here && faults_.Has(Lie::kWrongUnwatched) && !eval_.tap) Scale(output, faulty::kWrong);
    if (wrong_here && faults_.Has(Lie::kWrongLongUnwatched) && !eval_.tap && eval_.n_tokens > faulty::kLong)
      Scale(output, faulty::kWrong);
    if (wrong_here && faults_.Has(Lie::kWrongLate) && eval_.first_position >= faulty::kLate)
      Scale(output, faulty::kLittle);
    if (wrong_here && faults_.Has(Lie::kWrongBatches) && eval_.n_tokens > faulty::kSmall)
      Scale(output, faulty::kWrong);
    if (wrong_here && faults_.Has(Lie::kNondeterministic)) {
      const int32_t late = std::max(faulty::kLate - eval_.first_position, 0);
      for (size_t i = static_cast<size_t>(late * output.width); i < output.values.size(); ++i)
        output.values[i] *= jitter_;
    }
    const std::vector<float> right = output.values;
    if (!Show(stage, layer, output)) return false;
    if (faults_.Has(Lie::kIgnoresOverwrites)) output.values = right;
    const bool kept = !overwritten_;
    if (wrong_here && kept && faults_.Has(Lie::kShownNotUsed)) Scale(output, faulty::kWrong);
    if (wrong_here && kept && faults_.Has(Lie::kShownNotUsedABit)) Scale(output, faulty::kABit);
    if (stage == PB_STAGE_LOGITS && faults_.Has(Lie::kOtherLogits)) {
      output.values = right;
      Scale(output, 0.5f);
    }
    return true;
  }

  pb_error* error() const { return error_; }

 private:
  static void Scale(faulty::Tensor& t, float factor) {
    for (float& v : t.values) v *= factor;
  }

  bool Show(int32_t stage, int32_t layer, faulty::Tensor& output) {
    overwritten_ = false;
    bool chosen = stage == PB_STAGE_DOWN_PROJ && layer == 1;
    if (!(want_ & PB_WANT_OUTPUT) || (chosen && faults_.Has(Lie::kSkipPoints))) return true;
    pb_point point = Point(stage, layer);
    pb_tensor tensor = Describe(output);
    if (chosen) Distort(output, tensor);
    int times = chosen && faults_.Has(Lie::kRepeatPoints) ? 2 : 1;
    for (int i = 0; i < times && !stopped_; ++i) {
      const int told = eval_.tap->output(eval_.tap->ctx, &point, &tensor);
      stopped_ = told == PB_STOP;
      overwritten_ = overwritten_ || told == PB_OVERWRITTEN;
    }
    return !stopped_;
  }

  pb_point Point(int32_t stage, int32_t layer) const {
    const char* name = pb_vocabulary[stage].name;
    return {sizeof(pb_point), stage, layer, eval_.first_position, 0, name, name};
  }

  static pb_tensor Describe(const faulty::Tensor& t) {
    auto rows = static_cast<int64_t>(t.values.size()) / t.width;
    return {sizeof(pb_tensor),          PB_F32, 2, {rows, t.width, 1, 1}, const_cast<float*>(t.values.data()),
            pb_vocabulary[t.stage].name};
  }

  void Distort(faulty::Tensor& output, pb_tensor& tensor) const {
    if (faults_.Has(Lie::kExtraRows)) {
      output.values.resize(output.values.size() + static_cast<size_t>(output.width));
      tensor = Describe(output);
    }
    if (faults_.Has(Lie::kHugeShape)) tensor.shape[0] = tensor.shape[1] = int64_t{1} << 31;
    if (faults_.Has(Lie::kNegativeShape)) tensor.shape[1] = -16;
    if (faults_.Has(Lie::kNullData)) tensor.data = nullptr;
  }

  const faulty::Faults& faults_;
  const pb_eval& eval_;
  float jitter_;
  uint32_t want_ = 0;
  pb_error* error_ = nullptr;
  bool stopped_ = false, overwritten_ = false;
};

pb_error* Deliver(const faulty::Faults& faults, const pb_eval& eval, std::vector<float> logits) {
  int64_t n = eval.n_tokens, from = eval.logits_from, width = faulty::kVocab;
  if (from == n) return nullptr;
  if (faults.Has(Lie::kNan)) logits.back() = std::numeric_limits<float>::quiet_NaN();
  if (faults.Has(Lie::kInf))
    logits[static_cast<size_t>(from * width)] = std::numeric_limits<float>::infinity();
  if (faults.Has(Lie::kWrongVocab)) {
    ++width;
    logits.resize(static_cast<size_t>(n * width));
  }
  if (faults.Has(Lie::kSkipRows)) ++from;
  auto send = [&](int64_t row, int64_t n_rows) {
    return n_rows == 0 || eval.logits(eval.logits_ctx, static_cast<int32_t>(eval.first_position + row),
                                      logits.data() + row * width, n_rows, width) == 0;
  };
  bool going = true;
  if (faults.Has(Lie::kRepeatRows)) going = send(from, 1);
  if (faults.Has(Lie::kReverseRows)) {
    for (int64_t row = n - 1; row >= from && going; --row) going = send(row, 1);
  } else if (going) {
    going = send(from, n - from);
  }
  return going ? nullptr : Fail(PB_CANCELLED, "stopped");
}

pb_error* Eval(pb_session* session, const pb_eval* eval) {
  if (eval->first_position != session->n_positions || eval->n_tokens < 1 || eval->logits_from < 0 ||
      eval->logits_from > eval->n_tokens || eval->n_tokens > kContext - session->n_positions) {
    return Fail(PB_INVALID_ARGUMENT,
                "these positions do not follow those the session holds, or exceed its context");
  }
  std::vector<int32_t> tokens(eval->tokens, eval->tokens + eval->n_tokens);
  for (int32_t id : tokens) {
    if (id < 0 || id >= faulty::kVocab)
      return Fail(PB_INVALID_ARGUMENT, "token " + std::to_string(id) + " is not one");
  }
  if (pb_error* error = Do(session->faults, Place::kEval)) return error;
  Tap tap(*session, *eval);
  faulty::Observer observer{
      [&](auto... args) { return tap.Before(args...); },
      [&](int32_t stage, int32_t layer, faulty::Tensor& out) { return tap.After(stage, layer, out); }};
  auto logits = faulty::Forward(tokens, eval->first_position, session->noise_seed, observer);
  if (logits.empty()) return tap.error() ? tap.error() : Fail(PB_CANCELLED, "stopped");
  if (pb_error* error = Deliver(session->faults, *eval, std::move(logits))) return error;
  session->n_positions += eval->n_tokens;
  return nullptr;
}

pb_error* Reset(pb_session* session, int32_t n_keep) {
  if (n_keep < 0 || n_keep > session->n_positions)
    return Fail(PB_INVALID_ARGUMENT, "more positions than the session holds");
  session->n_positions = n_keep;
  return nullptr;
}

const pb_engine_api kTable = {
    sizeof(pb_engine_api),
    PB_ABI_MAJOR,
    PB_ABI_MINOR,
    PB_CAP_TOKENIZE | PB_CAP_OUTPUTS | PB_CAP_INPUTS | PB_CAP_OVERWRITE | PB_CAP_NOISE,
    [](const pb_error* error) -> int32_t { return error->code; },
    [](const pb_error* error) { return error->message.c_str(); },
    [](pb_error* error) { delete error; },
    Create,
    [](pb_engine* engine) { delete engine; },
    Describe,
    ModelOpen,
    [](pb_model* model) { delete model; },
    ModelFacts,
    Tokenize,
    Detokenize,
    SessionOpen,
    [](pb_session* session) { delete session; },
    SessionFacts,
    SessionStages,
    Eval,
    Reset,
    nullptr,  // replay
    nullptr,  // decode
    SessionLayers,
};

}  // namespace

extern "C" const pb_engine_api* pb_engine_get(void) {
  static pb_engine_api table = kTable;
  const char* variable = std::getenv("FAULTY_TABLE");
  std::string_view fault = variable ? variable : "";
  if (fault == "null") return nullptr;
  if (fault == "old_major") table.abi_major = PB_ABI_MAJOR + 7;
  if (fault == "newer_minor") table.abi_minor = PB_ABI_MINOR + 1;
  if (fault == "without_replay") table.struct_size = offsetof(pb_engine_api, replay);
  if (fault == "without_eval") table.struct_size = offsetof(pb_engine_api, eval);
  if (fault == "no_size") table.struct_size = 0;
  if (fault == "crash") std::abort();
  return &table;
}
