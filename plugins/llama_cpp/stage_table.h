// The declared table of tracepoints: what a stage's node is called in the graphs of llama.cpp and its forks.
#ifndef PARITYBIT_PLUGINS_LLAMA_CPP_STAGE_TABLE_H_
#define PARITYBIT_PLUGINS_LLAMA_CPP_STAGE_TABLE_H_

#include <vector>

#include "abi/vocabulary.h"
#include "llama_cpp/differences.h"

namespace pb::llama_cpp {

struct Alternative {
  const char* base;
  ggml_op op;
};

// One row of the table: the first alternative that the graph has is the stage.
struct StageRule {
  pb_stage stage;
  std::vector<Alternative> alternatives;
};

// Names as the reference's graph builder gives them (src/llama-graph.cpp, src/models/{llama,bitnet}.cpp of
// v0.5.0). A bias or a scale tensor adds a node behind the product, so those come first.
const std::vector<StageRule>& Table();

// Steps within a stage: the norm before its weight or bias, scores before they are capped, the weighted sum before heads are joined, the choice of
// rows that need logits, fused attention before its rows are named, and writing the KV cache. An empty name
// is any name.
const std::vector<Alternative>& Parts();

}  // namespace pb::llama_cpp

#endif  // PARITYBIT_PLUGINS_LLAMA_CPP_STAGE_TABLE_H_
