// Nodes of the reference's graph: their names and keys, views of them, and what kind of work an op is.
#include <cstring>

#include "llama_cpp/graph.h"
#include "stages/stages.h"

namespace pb::llama_cpp {

std::string KeyName(const ggml_tensor* tensor) {
  if (tensor->op == kOpFusedMulUnary) return KeyName(SkipViews(tensor->src[0]));
  const ggml_tensor* weight = tensor->op == GGML_OP_MUL_MAT     ? tensor->src[0]
                              : tensor->op == kOpFusedRmsNorm ? tensor->src[1]
                                                              : nullptr;
  const bool named = weight && weight->op == GGML_OP_NONE && std::strstr(weight->name, ".weight");
  return named ? weight->name : tensor->name;
}

std::string NodeKey(std::string_view name, std::string_view op, int occurrence) {
  std::string key(name);
  key += '|';
  key += op;
  key += '|';
  key += std::to_string(occurrence);
  return key;
}

void SplitName(std::string_view name, std::string* base, int* layer) {
  *base = name;
  *layer = -1;
  const size_t dash = name.rfind('-');
  if (dash == name.npos || dash + 1 == name.size() || name.size() - dash > 8) return;
  int number = 0;
  for (char c : name.substr(dash + 1)) {
    if (c < '0' || c > '9') return;
    number = number * 10 + (c - '0');
  }
  *base = name.substr(0, dash);
  *layer = number;
}

bool IsView(const ggml_tensor* tensor) {
  return tensor->op == GGML_OP_VIEW || tensor->op == GGML_OP_RESHAPE || tensor->op == GGML_OP_PERMUTE ||
         tensor->op == GGML_OP_TRANSPOSE;
}

const ggml_tensor* SkipViews(const ggml_tensor* tensor) {
  while (tensor && IsView(tensor) && tensor->src[0]) tensor = tensor->src[0];
  return tensor;
}

void GraphRecorder::Add(const ggml_tensor* tensor) {
  Node node{tensor, tensor->name, "", -1, tensor->op, ggml_op_desc(tensor), 0, ""};
  SplitName(node.name, &node.base, &node.layer);
  const std::string name = KeyName(tensor);
  node.occurrence = occurrences_[name + "|" + node.op_name]++;
  node.key = NodeKey(name, node.op_name, node.occurrence);
  nodes_.push_back(std::move(node));
}

bool MovesAlone(ggml_op op) {
  switch (op) {
    case GGML_OP_NONE:
    case GGML_OP_VIEW:
    case GGML_OP_RESHAPE:
    case GGML_OP_PERMUTE:
    case GGML_OP_TRANSPOSE:
    case GGML_OP_CONT:
    case GGML_OP_CPY:
    case GGML_OP_DUP:
    case GGML_OP_CONCAT:
    case GGML_OP_REPEAT:
    case GGML_OP_GET_ROWS:
      return true;
    default:
      return op == kOpSetRows;
  }
}

int WorkOf(const ggml_tensor* tensor) {
  switch (tensor->op) {
    case GGML_OP_UNARY: {
      const auto op = static_cast<ggml_unary_op>(tensor->op_params[0]);
      return op == GGML_UNARY_OP_GELU || op == GGML_UNARY_OP_GELU_QUICK ? 2 : 1;
    }
    case GGML_OP_ADD:
    case GGML_OP_SUB:
    case GGML_OP_MUL:
    case GGML_OP_DIV:
    case GGML_OP_SCALE:
    case GGML_OP_SQR:
    case GGML_OP_CLAMP:
      return 0;
    default:
      return !MovesAlone(tensor->op) && tensor->op != kOpAddId;
  }
}

int MostOps(pb_stage stage) {
  constexpr int kAny = 64;  // the choice of experts and their weights
  switch (stages::Of(stage).group) {
    case stages::Group::kSum:
      return 0;
    case stages::Group::kContext:
      return 2;  // the weighted sum, and the turn back of what a cache of blocks holds turned
    case stages::Group::kScores:
      return 2;  // the product, and a cap
    case stages::Group::kProduct:
      return stage == PB_STAGE_LOGITS ? 2 : 1;  // of logits a cap too
    case stages::Group::kNorm:
    case stages::Group::kExpertProduct:
    case stages::Group::kRotary:
    case stages::Group::kActivation:
    case stages::Group::kGate:
    case stages::Group::kShared:
      return 1;
    default:
      return kAny;
  }
}

}  // namespace pb::llama_cpp
