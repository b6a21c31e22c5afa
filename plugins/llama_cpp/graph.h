// What the reference's graph is made of: nodes recorded in a warm-up evaluation, and which of them are which
// tracepoint.
#ifndef PARITYBIT_PLUGINS_LLAMA_CPP_GRAPH_H_
#define PARITYBIT_PLUGINS_LLAMA_CPP_GRAPH_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "abi/engine.h"
#include "llama_cpp/differences.h"

namespace pb::llama_cpp {

struct Dims {
  int64_t n_layers = 0, d_model = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0;
  int64_t n_experts = 0, n_experts_used = 0, d_ff_expert = 0;
  std::unordered_set<std::string> norms;  // names of the file's norm tensors, "blk.0.attn_norm.weight"
};

// How a node's memory becomes the canonical tensor.
enum class Form {
  kRows,     // (n, width): as it stands
  kHeads,    // (n, heads, head_dim): as it stands, the rows split
  kScores,   // [head][row][cell] -> (n, heads, p), times the softmax's scale, -inf where its mask hides, padding
             // dropped
  kWeights,  // [head][row][cell] -> (n, heads, p), padding dropped
  kIds,      // (n, width) of int32: whole numbers in float32
};

// Which columns of a node's rows: one product may hold several tensors, as queries, keys and values of one matrix.
struct Columns {
  int64_t first = 0, n = 0;  // n 0: all of them
};

struct Shape {
  Form form = Form::kRows;
  int64_t n_heads = 0, head_dim = 0;  // kHeads
  float scale = 1;                    // kScores: canonical = scale * native
  Columns columns = {};               // kRows, kHeads, kIds
  // kScores: what else than -inf their mask holds is added by the softmax, times a slope of each head (ALiBi), and is no part of them.
  bool mask_hides_alone = false;
  int64_t width = 0;                  // kRows: values of a row, where the tensor's own are shorter
};

// Where an input of a stage is read: source `src` of the node `entry`, when that node is asked about.
struct InputRule {
  std::string entry;  // NodeKey
  int src = 0;
  int stage = 0;                  // the stage that this input is
  Shape shape;                    // its form
  int64_t width = 0;              // of a row, for kRows
  bool from_cache = false;        // keys or values of all positions, read from a view of the KV cache
  bool cache_transposed = false;  // [head][dim][cell] instead of [head][cell][dim]
};

// A tracepoint: a node, or columns of one.
struct PointRule {
  int stage = PB_STAGE_UNMAPPED;
  int layer = -1;
  int occurrence = 0;
  Shape shape;
  std::vector<InputRule> inputs;   // in the vocabulary's order; empty when one of them cannot be seen
  std::vector<ggml_tensor> steps;  // the nodes that compute it, innermost first: ops, parameters, weights
  // Why the steps over the inputs alone do not give it, so that it cannot be replayed; empty: they do.
  std::string not_replayable;
};

struct Node {
  const ggml_tensor* tensor;  // valid during the warm-up only
  std::string name, base;     // "Qcur-0", "Qcur"
  int layer;
  ggml_op op;
  std::string op_name;
  int occurrence;
  std::string key;  // NodeKey
};

// "Qcur-0|ROPE|0": names repeat within a graph, so op and occurrence (from 0) belong to the key.
std::string NodeKey(std::string_view name, std::string_view op, int occurrence);
// What tells a node from others of its op in graphs of every number of tokens: the weight that it reads, where it is a product or a
// norm of one, "blk.0.attn_q.weight", as some engines leave such a node without a name, or give it another where rows are chosen; else
// its name.
std::string KeyName(const ggml_tensor* tensor);
// "Qcur-12" -> ("Qcur", 12); no number: layer -1.
void SplitName(std::string_view name, std::string* base, int* layer);
// Shows memory in another shape; computes nothing.
bool IsView(const ggml_tensor* tensor);
// The tensor whose values a chain of views shows.
const ggml_tensor* SkipViews(const ggml_tensor* tensor);
// Shows values elsewhere, or copies them: rounds nothing.
bool MovesAlone(ggml_op op);
// How many ops a node is that do more to a value than to add, scale or multiply it once: a sum over many, an exponential, a rotation. GELU
// is two: each CPU library fills a table of it in half precision, and they round one of its values differently.
int WorkOf(const ggml_tensor* tensor);
// Of how many such ops a stage is made, at most.
int MostOps(pb_stage stage);

// Collects the nodes of one pass.
class GraphRecorder {
 public:
  void Add(const ggml_tensor* tensor);
  const std::vector<Node>& nodes() const { return nodes_; }

 private:
  std::vector<Node> nodes_;
  std::unordered_map<std::string, int> occurrences_;
};

struct Visibility {
  // A layer that shows it; apart, where it reads what passes through ops that are no points.
  struct Layer {
    int layer = -1;
    bool apart = false;
  };
  pb_visibility visibility = PB_ABSENT;
  std::string reason;
  std::vector<Layer> layers = {};  // where others do not show it, or one is apart; empty: all of them
};

// What the graph showed of its own parameters.
struct Observed {
  std::string activation;    // "silu"; empty: none seen
  std::string rope_pairing;  // "adjacent" "halves"; empty: no rotary embedding seen
  float rope_base = 0, rope_scale = 0, norm_eps = 0;
  float local_rope_base = 0;  // of layers that turn by another; equal where there are none
  bool norms_rows = false;    // norms of queries and keys are of the row, not of each head
  int rope_dims = 0;
  std::string rope_factors;  // of two sets, the one that divides the frequencies: "long", "short"; empty: there are no two
  int64_t n_experts = 0, n_experts_used = 0, d_ff_expert = 0;
  bool flash = false;
};

// The declared table applied to one recorded graph. Pointers into rules stay valid when the map is moved.
struct GraphMap {
  std::unordered_map<std::string, std::vector<PointRule>> rules;  // by NodeKey; in the vocabulary's order
  // By NodeKey of the reading node: a point, and which of its inputs.
  std::unordered_map<std::string, std::vector<std::pair<const PointRule*, size_t>>> entries;
  std::unordered_set<std::string>
      parts;  // NodeKeys of nodes that are steps within a stage, so no points of their own
  // Those that points read keys and values of all positions from; as long as the session lives.
  std::unordered_set<const ggml_tensor*> caches;
  std::array<Visibility, PB_STAGE_COUNT> stages;
  bool has_holes = false;  // ops that no point shows, and that no point computes inside, stand in this graph
  Observed observed;
};
GraphMap MapGraph(const GraphRecorder& recorder, const Dims& dims);

}  // namespace pb::llama_cpp

#endif  // PARITYBIT_PLUGINS_LLAMA_CPP_GRAPH_H_
