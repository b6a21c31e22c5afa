// Replay: the nodes of one point, rebuilt over given inputs as a graph of their own and computed by the same library with the
// same weights and parameters.
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>

#include "ggml-backend.h"
#include "llama_cpp/adapter.h"

namespace pb::llama_cpp {
namespace {

constexpr int64_t kCacheStep = 256;  // the reference pads the cells that a graph sees to a multiple of this
constexpr size_t kMaxNodes = 64;

pb_error* Bad(std::string message) { return NewError(PB_INVALID_ARGUMENT, "replay: " + message); }

// Writes f32 values into a tensor of any type, row by row.
void Fill(ggml_tensor* t, const std::vector<float>& values) {
  if (t->type == GGML_TYPE_F32) {
    ggml_backend_tensor_set(t, values.data(), 0, values.size() * sizeof(float));
    return;
  }
  std::vector<char> encoded(ggml_nbytes(t));
  ggml_quantize_chunk(t->type, values.data(), encoded.data(), 0, ggml_nrows(t), t->ne[0], nullptr);
  ggml_backend_tensor_set(t, encoded.data(), 0, encoded.size());
}

// One replay: builds the graph, then allocates and fills its leaves, computes, and reads the result.
class Replayer {
 public:
  Replayer(const pb_session* session, const PointRule& rule, const pb_replay& request)
      : session_(session), rule_(rule), request_(request) {}

  pb_error* Run(Canonical* out) {
    if (pb_error* error = CheckInputs()) return error;
    const ggml_init_params params = {kMaxNodes * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr,
                                     true};
    ctx_.reset(ggml_init(params));
    ggml_tensor* result = Build();
    if (!result) {
      return NewError(PB_UNSUPPORTED, std::string("replay: ") + pb_vocabulary[rule_.stage].name +
                                          " is not replayable here: its ops are not among those rebuilt");
    }
    return Compute(result, out);
  }

 private:
  // Rows and width of what the vocabulary's shape asks of an input.
  pb_error* CheckInputs() {
    if (request_.n_inputs != rule_.inputs.size()) {
      return Bad(std::string(pb_vocabulary[rule_.stage].name) + " takes " +
                 std::to_string(rule_.inputs.size()) + " inputs, " + std::to_string(request_.n_inputs) +
                 " were given");
    }
    if (!rule_.not_replayable.empty()) return NewError(PB_UNSUPPORTED, "replay: " + rule_.not_replayable);
    if (request_.n_inputs == 0) return NewError(PB_UNSUPPORTED, "replay: this point's inputs cannot be told");
    n_rows_ = request_.inputs[0].shape[0];
    if (n_rows_ < 1 || request_.first_position < 0) return Bad("no rows, or a negative position");
    p_ = request_.first_position + n_rows_;
    n_cells_ = (p_ + kCacheStep - 1) / kCacheStep * kCacheStep;
    for (size_t i = 0; i < request_.n_inputs; ++i) {
      if (pb_error* error = CheckInput(i)) return error;
    }
    return nullptr;
  }

  pb_error* CheckInput(size_t i) {
    const pb_tensor& t = request_.inputs[i];
    const InputRule& input = rule_.inputs[i];
    const Dims& d = session_->model->dims;
    const int64_t rows = input.from_cache ? p_ : n_rows_;
    int64_t expected = rows;
    if (input.from_cache) {
      expected *= d.n_kv_heads * d.head_dim;
    } else if (input.shape.form == Form::kHeads) {
      expected *= input.shape.n_heads * input.shape.head_dim;
    } else if (input.shape.form == Form::kRows) {
      expected *= input.width;
    } else {
      expected *= d.n_heads * p_;
    }
    if (t.dtype != PB_F32 || t.shape[0] != rows ||
        t.shape[0] * t.shape[1] * t.shape[2] * t.shape[3] != expected) {
      return Bad("input " + std::to_string(i) + " must be " + std::to_string(rows) + " rows of " +
                 std::to_string(expected / rows) + " float32");
    }
    return nullptr;
  }

  std::vector<float> Values(size_t i) const {
    const pb_tensor& t = request_.inputs[i];
    const auto* data = static_cast<const float*>(t.data);
    return {data, data + t.shape[0] * t.shape[1] * t.shape[2] * t.shape[3]};
  }

  // A leaf to be filled once memory is there.
  ggml_tensor* Leaf(ggml_type type, std::vector<int64_t> ne, std::vector<float> values) {
    ggml_tensor* t = ggml_new_tensor(ctx_.get(), type, static_cast<int>(ne.size()), ne.data());
    leaves_.emplace_back(t, std::move(values));
    return t;
  }

  // An input of rows: (width, n), or (head_dim, heads, n).
  ggml_tensor* Rows(size_t i) {
    const Shape& shape = rule_.inputs[i].shape;
    if (rule_.steps[0].op == GGML_OP_ROPE || rule_.stage == PB_STAGE_ATTN_SCORES) {
      return Leaf(GGML_TYPE_F32, {shape.head_dim, shape.n_heads, n_rows_}, Values(i));
    }
    std::vector<float> values = Values(i);
    const int64_t width = static_cast<int64_t>(values.size()) / n_rows_;
    return Leaf(GGML_TYPE_F32, {width, n_rows_}, std::move(values));
  }

  // Keys or values of all positions as the cache holds them: [head][cell][dim], or transposed.
  ggml_tensor* Cache(size_t i) {
    const Dims& d = session_->model->dims;
    const bool transposed = rule_.inputs[i].cache_transposed;
    const std::vector<float> rows = Values(i);  // (p, heads, dim)
    std::vector<float> cells(n_cells_ * d.n_kv_heads * d.head_dim);
    for (int64_t j = 0; j < p_; ++j) {
      for (int64_t h = 0; h < d.n_kv_heads; ++h) {
        for (int64_t k = 0; k < d.head_dim; ++k) {
          const int64_t at =
              transposed ? (h * d.head_dim + k) * n_cells_ + j : (h * n_cells_ + j) * d.head_dim + k;
          cells[at] = rows[(j * d.n_kv_heads + h) * d.head_dim + k];
        }
      }
    }
    const int64_t a = transposed ? n_cells_ : d.head_dim, b = transposed ? d.head_dim : n_cells_;
    return Leaf(session_->settings.kv_type, {a, b, d.n_kv_heads}, std::move(cells));
  }

  // Scores or weights: [head][row][cell], hidden and padded cells as the mask leaves them.
  ggml_tensor* Attention(size_t i, float hidden) {
    const int64_t heads = session_->model->dims.n_heads;
    const std::vector<float> values = Values(i);  // (n, heads, p)
    std::vector<float> cells(heads * n_rows_ * n_cells_, hidden);
    for (int64_t r = 0; r < n_rows_; ++r) {
      for (int64_t h = 0; h < heads; ++h) {
        const float* from = &values[(r * heads + h) * p_];
        std::copy_n(from, request_.first_position + r + 1, &cells[(h * n_rows_ + r) * n_cells_]);
      }
    }
    return Leaf(GGML_TYPE_F32, {n_cells_, n_rows_, heads}, std::move(cells));
  }

  ggml_tensor* Mask() {
    std::vector<float> values(n_rows_ * n_cells_, -INFINITY);
    for (int64_t r = 0; r < n_rows_; ++r) {
      std::fill_n(&values[r * n_cells_], request_.first_position + r + 1, 0.0f);
    }
    return Leaf(GGML_TYPE_F32, {n_cells_, n_rows_}, std::move(values));
  }

  // The first op's operands, by stage; then each step on what the one before it gave.
  ggml_tensor* Build() {
    ggml_tensor* at = nullptr;
    for (const ggml_tensor& step : rule_.steps) {
      at = at ? Next(step, at) : First(step);
      if (!at) return nullptr;
      const bool scores_scaled_already = step.op == GGML_OP_SOFT_MAX;
      if (!scores_scaled_already) std::memcpy(at->op_params, step.op_params, sizeof step.op_params);
    }
    return at;
  }

  ggml_tensor* First(const ggml_tensor& step) {
    ggml_context* c = ctx_.get();
    // Ops that few libraries have: no labels, as all that a header lacks are one.
    if (step.op == kOpFusedRmsNorm) return FusedRmsNorm(c, Rows(0), step.src[1]);
    if (step.op == kOpFusedMulUnary) return FusedMulUnaryAs(c, Rows(0), Rows(1), &step);
    switch (step.op) {
      case GGML_OP_MUL_MAT:
        if (rule_.stage == PB_STAGE_ATTN_SCORES) {
          ggml_tensor* q = ggml_permute(c, Rows(0), 0, 2, 1, 3);
          return ggml_mul_mat(c, Cache(1), q);
        }
        if (rule_.stage == PB_STAGE_ATTN_CONTEXT) {
          ggml_tensor* weights = Attention(0, 0);
          return ggml_mul_mat(c, Cache(1), weights);
        }
        return ggml_mul_mat(c, step.src[0], Rows(0));
      case GGML_OP_RMS_NORM:
        return ggml_rms_norm(c, Rows(0), 0);
      case GGML_OP_ROPE:
        return Rope(step);
      case GGML_OP_NORM:
        return ggml_norm(c, Rows(0), 0);
      case GGML_OP_SOFT_MAX: {
        if (rule_.stage != PB_STAGE_ATTN_SCORES_SOFTMAX) return nullptr;
        ggml_tensor* softmax = ggml_soft_max_ext(c, Attention(0, -INFINITY), Mask(), 1, 0);
        if (step.src[2] && !AddSinks(softmax, step.src[2])) return nullptr;
        return softmax;
      }
      case GGML_OP_ADD:
        return ggml_add(c, Rows(0), Rows(1));
      case kOpGlu:
        return GluSplitAs(c, Rows(0), Rows(1), &step);
      default:
        return nullptr;
    }
  }

  ggml_tensor* Next(const ggml_tensor& step, ggml_tensor* at) {
    ggml_context* c = ctx_.get();
    const bool by_weight = step.src[1] && step.src[1]->op == GGML_OP_NONE;
    if (step.op == GGML_OP_MUL && by_weight) return ggml_mul(c, at, step.src[1]);
    if (step.op == GGML_OP_ADD && by_weight) return ggml_add(c, at, step.src[1]);
    if (step.op == GGML_OP_CONT && rule_.stage == PB_STAGE_ATTN_CONTEXT) {
      ggml_tensor* joined = ggml_permute(c, at, 0, 2, 1, 3);
      return ggml_cont_2d(c, joined, joined->ne[0] * joined->ne[1], joined->ne[2]);
    }
    return nullptr;
  }

  ggml_tensor* Rope(const ggml_tensor& step) {
    const std::vector<int64_t> ne = {n_rows_};
    positions_ = ggml_new_tensor(ctx_.get(), GGML_TYPE_I32, 1, ne.data());
    return ggml_rope_ext(ctx_.get(), Rows(0), positions_, step.src[2], 2, 0, 0, 1, 1, 0, 1, 0, 0);
  }

  // The CPU backend of the library that the session computes with, and as many threads as it has: of itself a back end starts more,
  // which on a busy machine wait for each other. Both by their symbols, as registries of devices are younger than they.
  std::unique_ptr<ggml_backend, void (*)(ggml_backend_t)> CpuBackend() const {
    const std::unique_ptr<void, int (*)(void*)> library(
        dlopen(session_->model->engine->cpu_path.c_str(), RTLD_NOW | RTLD_NOLOAD), dlclose);
    const auto symbol = [&](const char* name) { return library ? dlsym(library.get(), name) : nullptr; };
    auto* init = reinterpret_cast<ggml_backend_t (*)()>(symbol("ggml_backend_cpu_init"));
    auto* set_threads = reinterpret_cast<void (*)(ggml_backend_t, int)>(symbol("ggml_backend_cpu_set_n_threads"));
    std::unique_ptr<ggml_backend, void (*)(ggml_backend_t)> backend(init ? init() : nullptr, ggml_backend_free);
    if (backend && set_threads) set_threads(backend.get(), session_->settings.threads);
    return backend;
  }

  pb_error* Compute(ggml_tensor* result, Canonical* out) {
    const auto backend = CpuBackend();
    if (!backend) {
      return NewError(PB_INTERNAL, "replay: no CPU back end in " + session_->model->engine->cpu_path);
    }
    std::unique_ptr<ggml_backend_buffer, void (*)(ggml_backend_buffer_t)> buffer(
        ggml_backend_alloc_ctx_tensors(ctx_.get(), backend.get()), ggml_backend_buffer_free);
    if (!buffer) return NewError(PB_OUT_OF_MEMORY, "replay: no memory for the op's tensors");
    for (const auto& [leaf, values] : leaves_) Fill(leaf, values);
    if (positions_) {
      std::vector<int32_t> positions(n_rows_);
      for (int64_t r = 0; r < n_rows_; ++r) positions[r] = request_.first_position + static_cast<int32_t>(r);
      ggml_backend_tensor_set(positions_, positions.data(), 0, positions.size() * sizeof(int32_t));
    }
    ggml_cgraph* graph = ggml_new_graph_custom(ctx_.get(), kMaxNodes, false);
    ggml_build_forward_expand(graph, result);
    if (ggml_backend_graph_compute(backend.get(), graph) != GGML_STATUS_SUCCESS) {
      return NewError(PB_INTERNAL, "replay: the graph failed: " + TakeLogLine());
    }
    std::vector<float> native;
    if (!ReadTensor(result, &native) ||
        !ToCanonical(result, native, request_.first_position, rule_.shape, out)) {
      return NewError(PB_INTERNAL, "replay: the result has another shape than the op's");
    }
    return nullptr;
  }

  const pb_session* session_;
  const PointRule& rule_;
  const pb_replay& request_;
  int64_t n_rows_ = 0, p_ = 0, n_cells_ = 0;
  std::unique_ptr<ggml_context, void (*)(ggml_context*)> ctx_{nullptr, ggml_free};
  std::vector<std::pair<ggml_tensor*, std::vector<float>>> leaves_;
  ggml_tensor* positions_ = nullptr;
};

const PointRule* FindRule(const pb_session* session, int stage, int layer) {
  for (const auto& [key, rules] : session->map.rules) {
    for (const PointRule& rule : rules)
      if (rule.stage == stage && rule.layer == layer) return &rule;
  }
  return nullptr;
}

}  // namespace

pb_error* Replay(pb_session* session, const pb_replay* replay) {
  return Guarded([&]() -> pb_error* {
    if (replay->variation) {
      return NewError(PB_UNSUPPORTED,
                      std::string("replay: llama.cpp cannot vary an op: ") + replay->variation);
    }
    const PointRule* rule = FindRule(session, replay->stage, replay->layer);
    if (!rule) return NewError(PB_UNSUPPORTED, "replay: this session shows no such point");
    if (replay->stage == PB_STAGE_ATTN_SCORES && llama_model_n_swa(session->model->model) > 0)
      return NewError(PB_UNSUPPORTED, "replay: which layers see a window alone is not known outside a pass");
    Canonical out;
    TakeLogLine();
    if (pb_error* error = Replayer(session, *rule, *replay).Run(&out)) return error;
    const bool with_codes =
        replay->struct_size >= offsetof(pb_replay, codes) + sizeof replay->codes && replay->codes;
    ActivationCodes c;
    if (with_codes)
      if (pb_error* error = CodesOf(session, *rule, replay->inputs[0], &c)) return error;
    const pb_tensor tensor = TensorOf(&out, pb_vocabulary[rule->stage].name);
    replay->output(replay->ctx, &tensor);
    if (!with_codes) return nullptr;
    const pb_codes codes = {sizeof(pb_codes),
                            c.scheme.c_str(),
                            c.maker.c_str(),
                            c.n_rows,
                            c.n_columns,
                            c.block,
                            c.n_outputs,
                            c.codes.data(),
                            c.scales.data(),
                            c.sums.empty() ? nullptr : c.sums.data(),
                            c.products.empty() ? nullptr : c.products.data()};
    replay->codes(replay->ctx, &codes);
    return nullptr;
  });
}

}  // namespace pb::llama_cpp
