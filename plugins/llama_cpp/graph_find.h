// Which node of the reference's graph serves as a stage.
#ifndef PARITYBIT_PLUGINS_LLAMA_CPP_GRAPH_FIND_H_
#define PARITYBIT_PLUGINS_LLAMA_CPP_GRAPH_FIND_H_

#include <initializer_list>
#include <vector>

#include "llama_cpp/graph.h"
#include "llama_cpp/stage_table.h"

namespace pb::llama_cpp {

// A node, or columns of it, that serves as a stage.
struct Found {
  const Node* node = nullptr;
  Columns columns = {};
};

bool IsNorm(ggml_op op);
// Whether a node multiplies by a matrix of this name.
bool IsTurn(const ggml_tensor* t, const char* matrix);

// Looks nodes up in one graph, which outlives it.
class Finder {
 public:
  Finder(const std::vector<Node>& nodes, const Dims& dims);

  // What serves as a row's stage in a layer: part of a fused product where the graph has one, else a node of its own.
  Found FindAny(const StageRule& rule, int layer) const;
  // A norm that the file has a weight for and the graph has no op for: what it would read, where what would read the norm reads that.
  Found FindUnnormed(pb_stage norm, int layer) const;
  // The last node of a name, layer and op; nullptr when there is none.
  const Node* Find(const char* base, int layer, ggml_op op) const;
  // Of the scores; the table has its names.
  const Node* FindSoftmax(int layer) const;
  const Node* NodeOf(const ggml_tensor* tensor) const;
  // Whether the network has no gate: what it activates is what enters it, and nothing is multiplied with it.
  bool IsPlain() const { return is_plain_; }

 private:
  Found FindStage(pb_stage stage, int layer) const;
  Found FindPart(const StageRule& rule, int layer) const;
  Found FindView(const char* base, int layer) const;
  Found FindHalf(int layer, bool up) const;
  Found FindRotated(pb_stage norm, pb_stage product, int layer) const;
  const Node* FindAttentionOutput(int layer) const;
  const Node* FindProduct(pb_stage stage, int layer) const;
  const Node* FindUnadded(const Node* stream, const Node* added) const;
  const Node* FindEmbeddings() const;
  const Node* FindContext(int layer) const;
  const Node* FindLayerSum(int layer) const;
  const Node* FindActivation(int layer) const;
  const Node* FindGated(pb_stage gate, pb_stage up, int layer) const;
  const Node* FindNorm(pb_stage stage, int layer, bool fused) const;
  const Node* FindAttentionSum(int layer) const;
  const Node* FindSumBeforeNetwork(int layer, const Node& before) const;
  const Node* FindChosenSoftmax(int layer) const;
  const Node* FindTurnedBack(int layer) const;
  const Node* WithBias(const Node* at) const;
  const Node* Before(int layer) const;
  bool Serves(const Node& node, pb_stage stage) const;
  bool EntersAttention(const Node& node) const;
  bool IsRead(const Node& node, std::initializer_list<ggml_op> by) const;
  bool HasNoGate() const;

  const std::vector<Node>& nodes_;
  const Dims& dims_;
  bool is_plain_ = false;
};

}  // namespace pb::llama_cpp

#endif  // PARITYBIT_PLUGINS_LLAMA_CPP_GRAPH_FIND_H_
