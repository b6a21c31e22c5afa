// What an engine, a model and a session say of themselves: pairs of text as they come over the ABI
// and stand in traces, and the same read into types, so that no key is spelled anywhere else.
#ifndef PARITYBIT_TRACE_FACTS_H_
#define PARITYBIT_TRACE_FACTS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stages/stages.h"

namespace pb::trace {

struct Fact {
  std::string key, value, origin;  // as pb_fact
};
using Facts = std::vector<Fact>;

// The fact of this key; nullptr, an empty value, or `otherwise` where there is none.
const Fact* FindFact(const Facts& facts, std::string_view key);
std::string FactText(const Facts& facts, std::string_view key);
// Its value where that is a positive whole number, else `otherwise`.
int64_t FactNumber(const Facts& facts, std::string_view key, int64_t otherwise);

// A size that a model tells, under its key.
struct ShapeKey {
  const char* key;
  int64_t stages::ModelShape::*member;
};
inline constexpr ShapeKey kShapeKeys[] = {
    {"d_model", &stages::ModelShape::d_model},        {"d_ff", &stages::ModelShape::d_ff},
    {"n_heads", &stages::ModelShape::n_heads},        {"n_kv_heads", &stages::ModelShape::n_kv_heads},
    {"head_dim", &stages::ModelShape::head_dim},      {"n_vocab", &stages::ModelShape::n_vocab},
    {"n_experts", &stages::ModelShape::n_experts},    {"n_experts_used", &stages::ModelShape::n_experts_used},
    {"d_ff_expert", &stages::ModelShape::d_ff_expert}};

// Texts are empty and numbers 0 where nothing was told; a Fact has an empty key then.
struct EngineFacts {
  std::string name, version, isa, threads;
};
struct ModelFacts {
  std::string architecture, weights;  // "TQ2_0 x42, F16 x1"
  int64_t n_layers = 0, n_ctx_train = 0;
  stages::ModelShape shape;
  Fact activation;             // "silu"; "undeclared" where the file leaves it open
  int32_t bos = -1, eos = -1;  // -1: none
  bool adds_bos = false;
  std::vector<int32_t> ends;  // ids that end a generation
  std::string chat_template;

  bool activation_undeclared() const { return activation.value == "undeclared"; }
};
struct SessionFacts {
  Fact act_quant, kv_type, flash;
  Fact rope_factors;  // of LongRoPE: "long", "short"
  std::string threads;
  int64_t ubatch = 0;
  bool overwrite_exact = true;  // false: what is put into it is rounded
};
EngineFacts ReadEngineFacts(const Facts& facts);
ModelFacts ReadModelFacts(const Facts& facts);
SessionFacts ReadSessionFacts(const Facts& facts);

}  // namespace pb::trace

#endif  // PARITYBIT_TRACE_FACTS_H_
