// A model file opened and checked: what it declares, and its weights by role.
#include "model/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "model/declared.h"
#include "model/hyper.h"
#include "model/unmapped.h"
#include "model/weights.h"

namespace pb {
namespace {

struct ActivationNameRow {
  std::string_view name;
  Activation activation;
};
// Our name of each first. Other spellings are compared without case, and without what stands
// between words.
constexpr ActivationNameRow kActivationNames[] = {
    {"silu", Activation::kSilu},
    {"relu2", Activation::kRelu2},
    {"relu", Activation::kRelu},
    {"gelu", Activation::kGelu},
    {"gelu_tanh", Activation::kGeluTanh},
    {"swish", Activation::kSilu},
    {"swiglu", Activation::kSilu},
    {"relusquared", Activation::kRelu2},
    {"squaredrelu", Activation::kRelu2},
    {"relusqr", Activation::kRelu2},
    {"sqrrelu", Activation::kRelu2},
    {"reglu", Activation::kRelu},
    {"gelupython", Activation::kGelu},
    {"gelutanh", Activation::kGeluTanh},
    {"gelupytorchtanh", Activation::kGeluTanh},
    {"gelunew", Activation::kGeluTanh},
    {"gelufast", Activation::kGeluTanh},
    {"swiglu_oai", Activation::kSwigluOai},
    {"swigluoai", Activation::kSwigluOai},
};

std::string Plain(std::string_view name) {
  std::string plain;
  for (char c : name)
    if (c != '_' && c != '-' && c != '^' && c != ' ')
      plain += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return plain;
}

constexpr const char *kRopeFactors = "rope_freqs.weight", *kLongFactors = "rope_factors_long.weight",
                     *kShortFactors = "rope_factors_short.weight";

Result<float> Number(std::string_view key, std::string_view text, float least) {
  float v = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(v) || !(v >= least))
    return MakeError(Code::kUsage, "{}={}: a number from {} on is expected", key, text, least);
  return v;
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
  const std::string plain = Plain(name);
  for (const auto& row : kActivationNames) {
    if (row.name == plain) return row.activation;
  }
  const bool near = plain == "geglu" || plain == "quickgelu";
  return MakeError(
      Code::kUnsupported, "activation \"{}\" is not supported (silu, relu2, relu, gelu, gelu_tanh are){}",
      name.substr(0, 64), near ? "; it only comes near gelu, which is x / 2 * (1 + erf(x / sqrt 2))" : "");
}

Result<bool> Declare(std::string_view key, std::string_view value, ModelOptions* options) {
  if (key == "ffn.activation") {
    PB_ASSIGN(options->ffn_activation, ParseActivation(value));
  } else if (key == "norm.eps") {
    PB_ASSIGN(options->norm_eps, Number(key, value, 0));
  } else if (key == "rope.base") {
    PB_ASSIGN(options->rope_base, Number(key, value, 1));
  } else if (key == "rope.scale") {
    PB_ASSIGN(options->rope_scale, Number(key, value, 1e-6f));
  } else if (key == "hf.config") {
    options->ignore_config_beside = value == "none";
    options->hf_config.reset();
    if (value != "none") options->hf_config = std::filesystem::path(value);
  } else {
    return false;
  }
  return true;
}

const char* ActivationName(Activation a) {
  for (const auto& row : kActivationNames) {
    if (row.activation == a) return row.name.data();
  }
  PB_CHECK(false);
}

Status HyperParameters::CheckLength(int64_t n_positions) const {
  if (longest == 0 || n_positions <= longest) return {};
  return MakeError(Code::kUnsupported,
                   "{} positions: attention sees the last {}, and texts that are longer are not supported",
                   n_positions, longest);
}

std::string UnheardKeys(const Model& model) {
  std::string keys;
  for (const Doubt& doubt : model.doubts())
    if (doubt.kind == Doubt::Kind::kUnheard) keys += (keys.empty() ? "" : " ") + doubt.key;
  return keys;
}

Result<std::shared_ptr<const Model>> Model::Open(const std::filesystem::path& path,
                                                 const ModelOptions& options) {
  PB_ASSIGN(GgufFile file, GgufFile::Open(path));
  return FromFile(std::move(file), options);
}

Result<std::shared_ptr<const Model>> Model::FromFile(GgufFile file, const ModelOptions& options) {
  std::shared_ptr<Model> model(new Model(std::move(file)));
  PB_TRY(model->TakeDeclarations(options));
  model->decoder_ = options.decoder;
  if (Status status = model->ReadWeights(); !status.ok()) {
    Error error = std::move(status).error();
    return model->file_.path().empty() ? error : std::move(error).In(model->file_.path().string());
  }
  return std::shared_ptr<const Model>(std::move(model));
}

Result<std::shared_ptr<const Model>> Model::OpenProducts(const std::filesystem::path& path,
                                                         HyperParameters told) {
  PB_ASSIGN(GgufFile file, GgufFile::Open(path));
  std::shared_ptr<Model> model(new Model(std::move(file)));
  model->params_ = std::move(told);
  model->ReadProducts();
  return std::shared_ptr<const Model>(std::move(model));
}

Status Model::TakeDeclarations(const ModelOptions& options) {
  auto declared = ReadDeclarations(file_, options);
  if (!declared.ok()) return std::move(declared).error();
  config_path_ = declared->config_path;
  doubts_ = std::move(declared->doubts);
  if (!declared->params) return std::move(declared->why_none);
  params_ = std::move(*declared->params);
  return {};
}

Status Model::ReadRopeFactors(TensorTable& table) {
  RopeStretch& stretch = params_.rope_stretch;
  for (auto [name, to] : {std::pair{kRopeFactors, &params_.rope_factors},
                          {kLongFactors, &stretch.long_factors},
                          {kShortFactors, &stretch.short_factors}}) {
    if (!table.Has(name)) continue;
    PB_ASSIGN(*to, table.Vector(name, params_.rope_dims / 2));
    for (float f : *to)
      if (!(f > 0) || !std::isfinite(f))
        return MakeError(Code::kMalformed, "tensor {}: a factor of {} divides a frequency", name, f);
  }
  if (stretch.long_factors.empty() != stretch.short_factors.empty())
    return MakeError(Code::kMalformed, "tensor {} is missing, {} is there",
                     stretch.long_factors.empty() ? kLongFactors : kShortFactors,
                     stretch.long_factors.empty() ? kShortFactors : kLongFactors);
  // A set that holds for all lengths goes before two that do not.
  if (!params_.rope_factors.empty()) stretch.long_factors.clear(), stretch.short_factors.clear();
  return {};
}

Status Model::ReadWeights() {
  // Each layer needs six tensors at least: a layer count that the file cannot hold allocates nothing.
  if (static_cast<uint64_t>(params_.n_layers) > file_.tensors().size() / 6) {
    return MakeError(Code::kMalformed, "{} layers are declared, the file has {} tensors", params_.n_layers,
                     file_.tensors().size());
  }
  TensorTable table(file_, decoder_.get());
  PB_TRY(ReadRopeFactors(table));
  weights_.resize(static_cast<size_t>(params_.n_layers) + 1);
  for (int32_t layer = -1; layer < params_.n_layers; ++layer) {
    auto& here = weights_[static_cast<size_t>(layer + 1)];
    for (pb_stage stage : params_.ops) {
      if (stages::Of(stage).per_layer != (layer >= 0)) continue;
      PB_ASSIGN(here[static_cast<size_t>(stage)], ReadStage(table, stage, layer));
    }
  }
  for (uint32_t type : table.lent()) lent_types_.push_back(BlockTypeName(type));
  return table.CheckAllUsed();
}

void Model::ReadProducts() {
  const auto most = static_cast<int64_t>(file_.tensors().size());
  params_.n_layers = std::clamp<int64_t>(params_.n_layers, 0, most);
  params_.output_tied = !file_.FindTensor("output.weight");
  TensorTable table(file_, nullptr);
  weights_.resize(static_cast<size_t>(params_.n_layers) + 1);
  // What else is done to logits is known of no other architecture.
  const bool finishes = std::ranges::any_of(file_.metadata(), [](const auto& entry) {
    return entry.first.ends_with(".logit_scale") || entry.first.ends_with(".final_logit_softcapping");
  });
  const auto is_read = [&](pb_stage stage) {
    if (stages::kExpertProducts.Contains(stage) && params_.experts.n == 0) return false;
    if (stage == PB_STAGE_LOGITS && finishes) return false;
    return params_.ops.Contains(stage) && !stages::InputsOf(stage, params_.ops).empty();
  };
  for (int32_t layer = -1; layer < params_.n_layers; ++layer) {
    auto& here = weights_[static_cast<size_t>(layer + 1)];
    for (pb_stage stage : stages::kProducts | stages::kExpertProducts) {
      if (stages::Of(stage).per_layer != (layer >= 0) || !is_read(stage)) continue;
      if (auto read = ReadStage(table, stage, layer); read.ok())
        here[static_cast<size_t>(stage)] = std::move(read).value();
    }
  }
}

namespace {

// A tensor that holds the rows of several stages, one after the other.
struct FusedTensor {
  const char* name;
  stages::Set holds;  // in the vocabulary's order
};
constexpr FusedTensor kFused[] = {{"attn_qkv", {PB_STAGE_Q_PROJ, PB_STAGE_K_PROJ, PB_STAGE_V_PROJ}},
                                  {"ffn_up", {PB_STAGE_GATE_PROJ, PB_STAGE_UP_PROJ}}};

std::string PartName(const char* tensor, int32_t layer, std::string_view part) {
  return fmt::format("blk.{}.{}.{}", layer, tensor, part);
}

// The tensor that holds a stage's rows among others: none where the stage has one of its own. `ops`: of
// the model.
const FusedTensor* FusedWith(const TensorTable& table, stages::Set ops, pb_stage stage, int32_t layer) {
  for (const FusedTensor& fused : kFused) {
    if (!fused.holds.Contains(stage)) continue;
    const pb_stage first = *fused.holds.begin();
    if (ops.Contains(first) && !table.Has(stages::TensorName(first, layer)) &&
        table.Has(PartName(fused.name, layer, "weight")))
      return &fused;
  }
  return nullptr;
}

}  // namespace

Result<StageWeights> Model::ReadFused(TensorTable& table, const FusedRows& fused, pb_stage stage) const {
  StageWeights w;
  w.name = PartName(fused.tensor, fused.layer, "weight");
  const int64_t n_rows = stages::WeightShapeOf(stage, params_.shape()).n_rows,
                n_columns = stages::WeightShapeOf(stage, params_.shape()).n_columns;
  PB_ASSIGN(const WeightView whole, table.Matrix(w.name, fused.n_rows, n_columns));
  w.matrix = whole;
  w.matrix.data += static_cast<uint64_t>(fused.first) * whole.row_bytes;
  w.matrix.n_rows = n_rows;
  if (const std::string bias = PartName(fused.tensor, fused.layer, "bias"); table.Has(bias)) {
    PB_ASSIGN(const std::vector<float> all, table.Vector(bias, fused.n_rows));
    w.bias.assign(all.begin() + fused.first, all.begin() + fused.first + n_rows);
  }
  return w;
}

Result<StageWeights> Model::ReadExperts(TensorTable& table, pb_stage stage, int32_t layer) const {
  const Architecture* architecture = FindArchitecture(params_.architecture);
  const auto [all_rows, n_columns] = stages::WeightShapeOf(stage, params_.shape());
  StageWeights w;
  w.name = TensorNameIn(architecture, stage, layer), w.n_experts = params_.experts.n;
  const int64_t n_rows = all_rows / w.n_experts;
  PB_ASSIGN(w.matrix, table.Experts(w.name, w.n_experts, n_rows, n_columns));
  if (const std::string bias = TensorNameIn(architecture, stage, layer, "bias"); table.Has(bias)) {
    PB_ASSIGN(w.bias, table.Vector(bias, n_rows, w.n_experts));
  }
  return w;
}

// The one place that finds a stage's numbers in the file. What a file keeps in one tensor for
// several stages (queries, keys and values; gate and up) is found here too: the rows of it that are
// this stage's.
Result<StageWeights> Model::ReadStage(TensorTable& table, pb_stage stage, int32_t layer) const {
  const stages::WeightKind kind = stages::Of(stage).weight.kind;
  const auto [n_rows, n_columns] = stages::WeightShapeOf(stage, params_.shape());
  const bool tied = stage == PB_STAGE_LOGITS && params_.output_tied;
  const Architecture* architecture = FindArchitecture(params_.architecture);
  StageWeights w;
  if (stage == PB_STAGE_ATTN_SCORES_SOFTMAX && params_.attention_sinks) {
    PB_ASSIGN(w.sinks, table.Vector(PartName("attn_sinks", layer, "weight"), params_.n_heads));
  }
  if (kind == stages::WeightKind::kNone) return w;
  if (stages::kExpertProducts.Contains(stage)) return ReadExperts(table, stage, layer);
  if (const FusedTensor* fused = FusedWith(table, params_.ops, stage, layer)) {
    FusedRows rows{fused->name, layer};
    for (pb_stage part : fused->holds) {
      if (part == stage) rows.first = rows.n_rows;
      rows.n_rows += stages::WeightShapeOf(part, params_.shape()).n_rows;
    }
    return ReadFused(table, rows, stage);
  }
  w.name = TensorNameIn(architecture, tied ? PB_STAGE_EMBEDDINGS : stage, layer);
  const std::string bias = TensorNameIn(architecture, stage, layer, "bias");
  if (kind == stages::WeightKind::kVector) {
    PB_ASSIGN(w.vector, table.Vector(w.name, n_columns));
    if (params_.layer_norm && table.Has(bias)) {
      PB_ASSIGN(w.bias, table.Vector(bias, n_columns));
    }
    return w;
  }
  PB_ASSIGN(w.matrix, table.Matrix(w.name, n_rows, n_columns));
  if (layer >= 0 && table.Has(bias)) {
    PB_ASSIGN(w.bias, table.Vector(bias, n_rows));
  }
  // Only BitNet files carry factors beside a layer's matrices.
  if (layer >= 0 && params_.has_sub_norms()) {
    PB_ASSIGN(w.scale, table.OptionalScale(TensorNameIn(architecture, stage, layer, "scale")));
  }
  return w;
}

std::vector<std::string> UnmappedTensors(const GgufFile& file) {
  const auto name = file.String("general.architecture");
  const Architecture* architecture = name.ok() ? FindArchitecture(*name) : nullptr;
  const auto layers = file.Uint(name.ok() ? *name + ".block_count" : std::string());
  const uint64_t most = file.tensors().size();  // a file that declares more layers has no name for them
  const auto n_layers = static_cast<int32_t>(layers.ok() ? std::min(*layers, most) : most);
  std::set<std::string> read = {kRopeFactors, kLongFactors, kShortFactors};
  const auto add = [&read](const std::string& stem) {
    for (const char* part : {"weight", "bias", "scale"}) read.insert(stem + part);
  };
  for (int32_t layer = 0; layer < n_layers; ++layer)
    for (const FusedTensor& fused : kFused) add(PartName(fused.name, layer, ""));
  for (int32_t id = 0; id < PB_STAGE_COUNT; ++id) {
    const stages::Stage& stage = stages::Of(static_cast<pb_stage>(id));
    if (stage.weight.kind == stages::WeightKind::kNone) continue;
    // Experts and what they replace: a file has either.
    const stages::Set had = !architecture ? stages::kAll
                            : (architecture->options & kMayHaveExperts)
                                ? architecture->optional | architecture->may_have | stages::kExperts
                                : architecture->optional | architecture->may_have;
    if (stage.optional && !had.Contains(stage.id)) continue;
    if (!stage.per_layer) add(TensorNameIn(architecture, stage.id, -1, ""));
    for (int32_t layer = 0; stage.per_layer && layer < n_layers; ++layer)
      add(TensorNameIn(architecture, stage.id, layer, ""));
  }
  for (int32_t layer = 0; architecture && architecture->attention_sinks && layer < n_layers; ++layer)
    add(PartName("attn_sinks", layer, ""));
  std::vector<std::string> unmapped;
  for (const GgufTensor& tensor : file.tensors())
    if (read.count(tensor.name) == 0) unmapped.push_back(tensor.name);
  return unmapped;
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

bool RouterTies(double a, double b, double largest) {
  constexpr double kUnits = 6,
                   kLeastExponent = -87.336544750553109;  // log of FLT_MIN: below it 0 may be taken
  if (!std::isfinite(a) || !std::isfinite(b) || !std::isfinite(largest)) return true;
  if (std::max(a, b) - largest < kLeastExponent) return true;
  return std::fabs(a - b) <=
         kUnits * 0x1p-24 * (2 + std::max(std::fabs(a), std::fabs(b)) + std::fabs(largest));
}

}  // namespace pb
