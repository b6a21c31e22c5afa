// A model file opened: what it declares, and the tensors that each stage reads.
#include "model/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "model/config.h"
#include "model/hyper.h"
#include "model/weights.h"

namespace pb {
namespace {

struct ActivationNameRow {
  std::string_view name;
  Activation activation;
};
// Our name of each first, then Hugging Face's other spellings.
constexpr ActivationNameRow kActivationNames[] = {
    {"silu", Activation::kSilu},          {"relu2", Activation::kRelu2}, {"relu", Activation::kRelu},
    {"gelu", Activation::kGelu},          {"swish", Activation::kSilu},  {"relu_squared", Activation::kRelu2},
    {"squared_relu", Activation::kRelu2},
};

// The config.json to read: the one named, else the one beside the model, if there.
std::filesystem::path ConfigPath(const GgufFile& file, const ModelOptions& options) {
  if (options.hf_config) return *options.hf_config;
  if (options.ignore_config_beside || file.path().empty()) return {};
  std::filesystem::path beside = file.path().parent_path() / "config.json";
  std::error_code error;
  return std::filesystem::is_regular_file(beside, error) ? beside : std::filesystem::path();
}

// Sets the activation from what the config declares, unless the architecture fixes it.
Status TakeActivation(const std::filesystem::path& path, const ConfigJson& config, HyperParameters& params,
                      std::vector<std::string>& findings) {
  if (config.hidden_act.empty()) return {};
  if (config.shape_differs) {
    findings.push_back(
        fmt::format("{}: describes a model of another shape, so its hidden_act is not used", path.string()));
    return {};
  }
  auto declared = ParseActivation(config.hidden_act);
  if (params.ffn_activation) {
    if (declared.ok() && *declared == params.ffn_activation->value) return {};
    findings.push_back(fmt::format("{}: hidden_act is {}, architecture {} runs {}", path.string(),
                                   config.hidden_act.substr(0, 64), params.architecture,
                                   ActivationName(params.ffn_activation->value)));
    return {};
  }
  if (!declared.ok()) return std::move(declared).error().In(path.string());
  params.ffn_activation = {*declared, Origin::kConfigJson};
  return {};
}

// n_vocab and output_tied, which the tensors decide.
Status ReadVocabulary(const GgufFile& file, HyperParameters& params, std::vector<std::string>& findings) {
  const GgufTensor* embedding = file.FindTensor("token_embd.weight");
  if (!embedding) return MakeError(Code::kMalformed, "tensor token_embd.weight is missing");
  if (embedding->shape.size() != 2 || embedding->shape[1] > INT32_MAX) {
    return MakeError(Code::kMalformed, "byte {}: tensor token_embd.weight has not two dimensions",
                     embedding->info_offset);
  }
  params.n_vocab = static_cast<int64_t>(embedding->shape[1]);
  params.output_tied = file.FindTensor("output.weight") == nullptr;
  const auto* tokens = file.Strings("tokenizer.ggml.tokens");
  if (tokens && tokens->size() != embedding->shape[1]) {
    return MakeError(Code::kMalformed,
                     "byte {}: tensor token_embd.weight has {} rows, tokenizer.ggml.tokens has {} tokens",
                     embedding->info_offset, params.n_vocab, tokens->size());
  }
  auto declared = file.Uint(params.architecture + ".vocab_size");
  if (declared.ok() && *declared != embedding->shape[1]) {
    findings.push_back(fmt::format("metadata key {}.vocab_size is {}, the embedding has {} rows",
                                   params.architecture, *declared, params.n_vocab));
  }
  return {};
}

// A model in several files is none before they are merged.
Status CheckWhole(const GgufFile& file) {
  const auto n_shards = file.Uint("split.count");
  if (!n_shards.ok() || *n_shards <= 1) return {};
  const auto shard = file.Uint("split.no");
  return MakeError(Code::kUnsupported,
                   "shard {} of {} is not supported: merge them into one file (llama-gguf-split --merge)",
                   shard.ok() ? *shard + 1 : 1, *n_shards);
}

}  // namespace

const char* OriginName(Origin origin) {
  switch (origin) {
    case Origin::kMetadata:
      return "metadata";
    case Origin::kConfigJson:
      return "config.json";
    case Origin::kSet:
      return "set";
    case Origin::kDefault:
      break;
  }
  return "default";
}

Result<Activation> ParseActivation(std::string_view name) {
  for (const auto& row : kActivationNames) {
    if (row.name == name) return row.activation;
  }
  return MakeError(Code::kUnsupported, "activation \"{}\" is not supported (silu, relu2, relu, gelu are)",
                   name.substr(0, 64));
}

const char* ActivationName(Activation a) {
  for (const auto& row : kActivationNames) {
    if (row.activation == a) return row.name.data();
  }
  PB_CHECK(false);
}

Result<std::shared_ptr<const Model>> Model::Open(const std::filesystem::path& path,
                                                 const ModelOptions& options) {
  PB_ASSIGN(GgufFile file, GgufFile::Open(path));
  return FromFile(std::move(file), options);
}

Result<std::shared_ptr<const Model>> Model::FromFile(GgufFile file, const ModelOptions& options) {
  std::shared_ptr<Model> model(new Model(std::move(file)));
  Status status = model->ReadDeclarations(options);
  if (status.ok()) status = model->ReadWeights();
  if (!status.ok()) {
    // Messages about a config.json carry its own path.
    const std::string& config = model->config_path_.native();
    Error error = std::move(status).error();
    if (model->file_.path().empty() || (!config.empty() && error.message.starts_with(config))) return error;
    return std::move(error).In(model->file_.path().string());
  }
  return std::shared_ptr<const Model>(std::move(model));
}

Status Model::ReadDeclarations(const ModelOptions& options) {
  PB_TRY(CheckWhole(file_));
  PB_ASSIGN(params_, ReadHyperParameters(file_, findings_));
  PB_TRY(ReadVocabulary(file_, params_, findings_));
  if (options.ffn_activation) params_.ffn_activation = {*options.ffn_activation, Origin::kSet};
  config_path_ = ConfigPath(file_, options);
  if (config_path_.empty()) return {};
  PB_ASSIGN(ConfigJson config, ReadConfigJson(config_path_, params_));
  findings_.insert(findings_.end(), config.findings.begin(), config.findings.end());
  if (options.ffn_activation) return {};
  return TakeActivation(config_path_, config, params_, findings_);
}

Status Model::ReadWeights() {
  // Each layer needs nine tensors: a layer count that the file cannot hold allocates nothing.
  if (static_cast<uint64_t>(params_.n_layers) > file_.tensors().size() / 9) {
    return MakeError(Code::kMalformed, "{} layers are declared, the file has {} tensors", params_.n_layers,
                     file_.tensors().size());
  }
  TensorTable table(file_);
  weights_.resize(static_cast<size_t>(params_.n_layers) + 1);
  for (int32_t layer = -1; layer < params_.n_layers; ++layer) {
    auto& here = weights_[static_cast<size_t>(layer + 1)];
    for (pb_stage stage : params_.ops) {
      if (stages::Of(stage).per_layer != (layer >= 0)) continue;
      PB_ASSIGN(here[static_cast<size_t>(stage)], ReadStage(table, stage, layer));
    }
  }
  return table.CheckAllUsed();
}

// The one place that finds a stage's numbers in the file. What a file keeps in one tensor for several stages (queries, keys and
// values; gate and up) is found here too: the rows of it that are this stage's.
Result<StageWeights> Model::ReadStage(TensorTable& table, pb_stage stage, int32_t layer) const {
  const stages::WeightKind kind = stages::Of(stage).weight.kind;
  const auto [n_rows, n_columns] = stages::WeightShapeOf(stage, params_.shape());
  const bool tied = stage == PB_STAGE_LOGITS && params_.output_tied;
  StageWeights w;
  if (kind == stages::WeightKind::kNone) return w;
  w.name = stages::TensorName(tied ? PB_STAGE_EMBEDDINGS : stage, layer);
  if (kind == stages::WeightKind::kVector) {
    PB_ASSIGN(w.vector, table.Vector(w.name, n_columns));
    return w;
  }
  PB_ASSIGN(w.matrix, table.Matrix(w.name, n_rows, n_columns));
  // Only BitNet files carry factors beside a layer's matrices.
  if (layer >= 0 && params_.has_sub_norms()) {
    PB_ASSIGN(w.scale, table.OptionalScale(stages::TensorName(stage, layer, "scale")));
  }
  return w;
}

const StageWeights& Model::weights(int32_t stage, int32_t layer) const {
  static const StageWeights none;
  const int32_t at = stages::IsStage(stage) && stages::Of(stage).per_layer ? layer + 1 : 0;
  const bool exists = stages::IsStage(stage) && (at > 0 || !stages::Of(stage).per_layer) &&
                      static_cast<size_t>(at) < weights_.size();
  return exists ? weights_[static_cast<size_t>(at)][static_cast<size_t>(stage)] : none;
}

std::string Model::WeightTypes() const {
  std::map<uint32_t, std::pair<uint64_t, int>> types;  // bytes, tensors
  for (const GgufTensor& t : file_.tensors()) {
    types[t.type_id].first += t.data.size();
    ++types[t.type_id].second;
  }
  std::vector<std::pair<uint32_t, std::pair<uint64_t, int>>> sorted(types.begin(), types.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](auto& a, auto& b) { return a.second.first > b.second.first; });
  std::vector<std::string> texts;
  for (const auto& [id, sums] : sorted)
    texts.push_back(fmt::format("{} x{}", BlockTypeName(id), sums.second));
  return fmt::format("{}", fmt::join(texts, ", "));
}

}  // namespace pb
