// What this room's tests share: a model from models/ with a session on it, its logits, and its
// recorded points.
#ifndef PARITYBIT_NATIVE_HARNESS_FOR_TESTS_H_
#define PARITYBIT_NATIVE_HARNESS_FOR_TESTS_H_

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/sha256.h"
#include "native/session.h"
#include "tests/paths.h"

namespace pb::native {

struct Recorded {
  std::vector<int64_t> shape;
  std::vector<float> values;
};
using Points = std::map<std::pair<int32_t, int32_t>, Recorded>;  // by stage and layer

// Sees every output; may write into it. Returns what output() returns.
using OnOutput = std::function<int(const pb_point&, pb_tensor&)>;

inline Recorded Copy(const pb_tensor& t) {
  Recorded r;
  int64_t n = 1;
  for (int i = 0; i < t.n_dims; i++) r.shape.push_back(t.shape[i]), n *= t.shape[i];
  const float* values = static_cast<const float*>(t.data);
  r.values.assign(values, values + n);
  return r;
}

class Harness {
 public:
  static std::string Path(const std::string& model, const std::string& type) {
    return ModelPath(model, type);
  }
  explicit Harness(const std::string& path) : Harness(Model::Open(path)) {}
  explicit Harness(Result<std::shared_ptr<const Model>> model) {
    if (!model.ok()) {
      ADD_FAILURE() << model.error().message;
      return;
    }
    ThreadPool pool(1);
    weights = Weights::Load(std::move(model).value(), pool);
  }

  std::unique_ptr<Session> Open(const Config& config) const {
    auto session = Session::Open(weights, config);
    EXPECT_TRUE(session.ok()) << session.error().message;
    return session.ok() ? std::move(session).value() : nullptr;
  }

  // Logits of all tokens, evaluated in pieces of the given lengths (the last one repeats).
  std::vector<float> Logits(const Config& config, const std::vector<int32_t>& tokens,
                            const std::vector<int>& pieces, const OnOutput& on_output = nullptr) const {
    auto session = Open(config);
    std::vector<float> logits;
    size_t piece = 0;
    for (size_t at = 0; session && at < tokens.size();) {
      int n =
          std::min<int>(pieces[std::min(piece++, pieces.size() - 1)], static_cast<int>(tokens.size() - at));
      Status status =
          Eval(*session,
               {tokens.begin() + static_cast<int64_t>(at), tokens.begin() + static_cast<int64_t>(at) + n},
               &logits, on_output);
      EXPECT_TRUE(status.ok()) << status.error().message;
      if (!status.ok()) break;
      at += static_cast<size_t>(n);
    }
    return logits;
  }

  static Status Eval(Session& session, const std::vector<int32_t>& tokens, std::vector<float>* logits,
                     const OnOutput& on_output = nullptr) {
    pb_tap tap{sizeof(pb_tap), const_cast<OnOutput*>(&on_output),
               [](void*, const pb_point*) -> uint32_t { return PB_WANT_OUTPUT; },
               [](void*, const pb_point*, const pb_tensor*, size_t) {},
               [](void* ctx, const pb_point* point, pb_tensor* t) {
                 return (*static_cast<OnOutput*>(ctx))(*point, *t);
               }};
    pb_eval eval{};
    eval.struct_size = sizeof eval;
    eval.tokens = tokens.data();
    eval.n_tokens = static_cast<int32_t>(tokens.size());
    eval.first_position = static_cast<int32_t>(session.n_positions());
    eval.logits = [](void* ctx, int32_t, const float* rows, int64_t n, int64_t n_vocab) {
      auto* to = static_cast<std::vector<float>*>(ctx);
      to->insert(to->end(), rows, rows + n * n_vocab);
      return 0;
    };
    eval.logits_ctx = logits;
    eval.tap = on_output ? &tap : nullptr;
    return session.Eval(eval);
  }

  // Every point of one prefill.
  Points Record(const Config& config, const std::vector<int32_t>& tokens,
                std::vector<float>* logits = nullptr) const {
    Points points;
    auto all = Logits(config, tokens, {4096}, [&](const pb_point& p, pb_tensor& t) {
      points[{p.stage, p.layer}] = Copy(t);
      return PB_CONTINUE;
    });
    if (logits) *logits = all;
    return points;
  }

  std::shared_ptr<const Weights> weights;
};

inline std::string Digest(const std::vector<float>& v) { return Sha256Hex(std::as_bytes(std::span(v))); }

// Replays a stage on recorded inputs; row-major values, empty on an error.
inline Result<std::vector<float>> ReplayOn(Session& session, pb_stage stage, int32_t layer,
                                           std::vector<const Recorded*> inputs,
                                           const char* variation = nullptr, int32_t first_position = 0) {
  std::vector<pb_tensor> tensors;
  for (const Recorded* r : inputs) {
    pb_tensor t{sizeof(pb_tensor),
                PB_F32,
                static_cast<int32_t>(r->shape.size()),
                {1, 1, 1, 1},
                const_cast<float*>(r->values.data()),
                nullptr};
    for (size_t i = 0; i < r->shape.size(); i++) t.shape[i] = r->shape[i];
    tensors.push_back(t);
  }
  std::vector<float> out;
  pb_replay replay{
      sizeof(pb_replay),
      stage,
      layer,
      first_position,
      tensors.data(),
      tensors.size(),
      variation,
      [](void* ctx, const pb_tensor* t) { *static_cast<std::vector<float>*>(ctx) = Copy(*t).values; },
      &out,
      nullptr,
      nullptr};
  PB_TRY(session.Replay(replay));
  return out;
}

// Ids below the tiny models' vocabulary of 2048, the same everywhere.
inline std::vector<int32_t> SomeTokens(int n) {
  std::vector<int32_t> ids;
  for (int i = 0; i < n; i++) ids.push_back((i * 389 + 71) % 2000);
  return ids;
}

}  // namespace pb::native

#endif  // PARITYBIT_NATIVE_HARNESS_FOR_TESTS_H_
