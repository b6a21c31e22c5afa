// The tensors by name and shape: those that the architecture reads, those that are missing, and
// those that no op reads.
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <set>

#include "model/hyper.h"
#include "soundness/parts.h"

namespace pb::soundness {
namespace {

// Names that llama.cpp's converters write for any architecture (gguf-py's constants.py), layers'
// without "blk.N.", all without ".weight", ".bias" or ".scale".
constexpr std::string_view kAnyNames[] = {"token_embd",
                                          "token_embd_norm",
                                          "token_types",
                                          "position_embd",
                                          "output",
                                          "output_norm",
                                          "rope_freqs",
                                          "rope_factors_long",
                                          "rope_factors_short",
                                          "per_layer_token_embd",
                                          "per_layer_model_proj",
                                          "per_layer_proj_norm",
                                          "altup_proj",
                                          "altup_unembd_proj",
                                          "cls",
                                          "cls.output",
                                          "enc.output_norm",
                                          "dec.output_norm",
                                          "output_hidden_norm",
                                          "output_s"};
constexpr std::string_view kAnyLayerNames[] = {"attn_norm",
                                               "attn_norm_2",
                                               "attn_qkv",
                                               "attn_q",
                                               "attn_k",
                                               "attn_v",
                                               "attn_output",
                                               "attn_out_norm",
                                               "attn_output_norm",
                                               "attn_rot_embd",
                                               "attn_sinks",
                                               "attn_gate",
                                               "attn_q_norm",
                                               "attn_k_norm",
                                               "attn_sub_norm",
                                               "attn_q_a",
                                               "attn_q_b",
                                               "attn_kv_a_mqa",
                                               "attn_kv_b",
                                               "attn_k_b",
                                               "attn_v_b",
                                               "attn_q_a_norm",
                                               "attn_kv_a_norm",
                                               "post_attention_norm",
                                               "post_attention_layernorm",
                                               "post_ffw_layernorm",
                                               "post_ffw_norm",
                                               "post_norm",
                                               "ffn_norm",
                                               "ffn_norm_exps",
                                               "ffn_norm_2",
                                               "ffn_gate",
                                               "ffn_up",
                                               "ffn_down",
                                               "ffn_act",
                                               "ffn_sub_norm",
                                               "ffn_gate_inp",
                                               "ffn_gate_inp_shexp",
                                               "ffn_gate_exps",
                                               "ffn_up_exps",
                                               "ffn_down_exps",
                                               "ffn_gate_up_exps",
                                               "ffn_gate_shexp",
                                               "ffn_up_shexp",
                                               "ffn_down_shexp",
                                               "ffn_exp_probs_b",
                                               "exp_probs_b",
                                               "layer_output_norm",
                                               "layer_output_scale",
                                               "pre_ffw_norm",
                                               "pre_ffw_norm_2",
                                               "post_ffw_norm_1",
                                               "post_ffw_norm_2",
                                               "inp_gate",
                                               "proj",
                                               "laurel_l",
                                               "laurel_r",
                                               "laurel_post_norm",
                                               "altup_correct_coef",
                                               "altup_correct_scale",
                                               "altup_predict_coef",
                                               "altup_router",
                                               "altup_router_norm",
                                               "per_layer_inp_gate",
                                               "per_layer_proj",
                                               "per_layer_post_norm",
                                               "ssm_in",
                                               "ssm_conv1d",
                                               "ssm_x",
                                               "ssm_dt",
                                               "ssm_a",
                                               "ssm_d",
                                               "ssm_out",
                                               "ssm_norm",
                                               "ssm_dt_norm",
                                               "ssm_b_norm",
                                               "ssm_c_norm",
                                               "ssm_ba",
                                               "ssm_beta_alpha",
                                               "ssm_alpha",
                                               "ssm_beta",
                                               "shortconv.conv",
                                               "shortconv.in_proj",
                                               "shortconv.out_proj"};
// Families of many names.
constexpr std::string_view kAnyPrefixes[] = {"time_mix_", "channel_mix_", "nextn.", "indexer.", "cross_attn",
                                             "dec.",      "enc.",         "v.",     "mm.",      "a."};

bool IsKnownAnywhere(std::string_view name) {
  bool layer = false;
  if (name.starts_with("blk.")) {
    name.remove_prefix(4);
    const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
    if (digits == 0 || digits >= name.size() || name[digits] != '.') return false;
    name.remove_prefix(digits + 1);
    layer = true;
  }
  if (std::any_of(std::begin(kAnyPrefixes), std::end(kAnyPrefixes),
                  [&](std::string_view p) { return name.starts_with(p); }))
    return true;
  for (std::string_view part : {".weight", ".bias", ".scale"})
    if (name.ends_with(part)) {
      name.remove_suffix(part.size());
      break;
    }
  const auto in = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  return layer ? in(kAnyLayerNames) : in(kAnyNames);
}

std::string ShapeText(const std::vector<uint64_t>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

// Asks for each tensor that an architecture reads, and keeps what is wrong.
class Roll {
 public:
  explicit Roll(Context& context) : context_(context) {}

  bool Has(const std::string& name) const { return context_.subject.FindTensor(name) != nullptr; }
  void Ask(const std::string& name, const std::vector<uint64_t>& shape) {
    const GgufTensor* t = context_.subject.FindTensor(name);
    if (!t) {
      missing_.push_back(name);
      return;
    }
    asked_.insert(name);
    if (t->shape != shape)
      context_.findings.Add("tensor-shape", name,
                            fmt::format("byte {}: its shape is {}, the metadata imply {}", t->info_offset,
                                        ShapeText(t->shape), ShapeText(shape)));
  }
  void AskIfThere(const std::string& name, const std::vector<uint64_t>& shape) {
    if (Has(name)) Ask(name, shape);
  }
  // Tells what is missing and what was not asked for; returns how many of each.
  std::pair<size_t, size_t> Close();

 private:
  Context& context_;
  std::set<std::string, std::less<>> asked_;
  std::vector<std::string> missing_;
};

std::pair<size_t, size_t> Roll::Close() {
  if (!missing_.empty())
    context_.findings.Add(
        "tensor-missing", missing_.front(),
        fmt::format("{} {} missing", FirstOf(missing_), missing_.size() == 1 ? "is" : "are"));
  std::vector<std::string> unknown;
  for (const GgufFile& file : context_.subject.files())
    for (const GgufTensor& t : file.tensors())
      if (!asked_.count(t.name)) unknown.push_back(t.name);
  if (!unknown.empty())
    context_.findings.Add("tensor-unknown", unknown.front(),
                          fmt::format("{} {} no op of the architecture", FirstOf(unknown),
                                      unknown.size() == 1 ? "belongs to" : "belong to"));
  return {missing_.size(), unknown.size()};
}

using Shape = std::vector<uint64_t>;

// A stage's weight with what may stand beside it.
void AskStage(const HyperParameters& p, pb_stage stage, int32_t layer, Roll& roll) {
  const stages::WeightKind kind = stages::Of(stage).weight.kind;
  if (kind == stages::WeightKind::kNone) return;
  if (stage == PB_STAGE_LOGITS && p.output_tied) return;
  const auto [n_rows, n_columns] = stages::WeightShapeOf(stage, p.shape());
  const Architecture* architecture = FindArchitecture(p.architecture);
  const auto rows = static_cast<uint64_t>(n_rows), columns = static_cast<uint64_t>(n_columns);
  const std::string weight = TensorNameIn(architecture, stage, layer),
                    bias = TensorNameIn(architecture, stage, layer, "bias");
  if (stages::kExpertProducts.Contains(stage)) {
    const auto n = static_cast<uint64_t>(p.experts.n);
    roll.Ask(weight, {columns, rows / n, n});
    return roll.AskIfThere(bias, {rows / n, n});
  }
  // A single row may be a vector.
  const bool vector = kind == stages::WeightKind::kVector || rows == 1;
  roll.Ask(weight, vector ? Shape{columns} : Shape{columns, rows});
  if (kind == stages::WeightKind::kVector && p.layer_norm) roll.AskIfThere(bias, {columns});
  if (kind == stages::WeightKind::kVector || layer < 0) return;
  roll.AskIfThere(bias, {rows});
  if (p.has_sub_norms()) roll.AskIfThere(stages::TensorName(stage, layer, "scale"), {1});
}

// One tensor that holds the rows of several stages: true where the layer has it.
bool AskFused(const HyperParameters& p, const char* name, stages::Set holds, int32_t layer, Roll& roll) {
  const std::string weight = fmt::format("blk.{}.{}.weight", layer, name);
  if (roll.Has(stages::TensorName(*holds.begin(), layer)) || !roll.Has(weight)) return false;
  int64_t rows = 0, columns = 0;
  for (pb_stage stage : holds) {
    rows += stages::WeightShapeOf(stage, p.shape()).n_rows;
    columns = stages::WeightShapeOf(stage, p.shape()).n_columns;
  }
  roll.Ask(weight, {static_cast<uint64_t>(columns), static_cast<uint64_t>(rows)});
  roll.AskIfThere(fmt::format("blk.{}.{}.bias", layer, name), {static_cast<uint64_t>(rows)});
  return true;
}

void AskLayer(const HyperParameters& p, int32_t layer, Roll& roll) {
  constexpr stages::Set kQkv = {PB_STAGE_Q_PROJ, PB_STAGE_K_PROJ, PB_STAGE_V_PROJ};
  constexpr stages::Set kGateUp = {PB_STAGE_GATE_PROJ, PB_STAGE_UP_PROJ};
  stages::Set apart = p.ops;
  if (AskFused(p, "attn_qkv", kQkv, layer, roll)) apart = apart - kQkv;
  if (AskFused(p, "ffn_up", kGateUp, layer, roll)) apart = apart - kGateUp;
  for (pb_stage stage : apart)
    if (stages::Of(stage).per_layer) AskStage(p, stage, layer, roll);
  if (p.attention_sinks)
    roll.Ask(fmt::format("blk.{}.attn_sinks.weight", layer), {static_cast<uint64_t>(p.n_heads)});
}

// Some converters write the embedding twice.
void CheckOutput(Context& context) {
  const GgufTensor* output = context.subject.FindTensor("output.weight");
  const GgufTensor* embedding = context.subject.FindTensor("token_embd.weight");
  if (!output || !embedding || output->data.empty() || output->type_id != embedding->type_id) return;
  if (std::equal(output->data.begin(), output->data.end(), embedding->data.begin(), embedding->data.end()))
    context.findings.Add(
        "output-twin", "output.weight",
        fmt::format("it has the bytes of token_embd.weight ({} of them)", output->data.size()));
}

Part ByNamesAlone(Context& context) {
  std::vector<std::string> unknown;
  for (const GgufFile& file : context.subject.files())
    for (const GgufTensor& t : file.tensors())
      if (!IsKnownAnywhere(t.name)) unknown.push_back(t.name);
  if (!unknown.empty())
    context.findings.Add(
        "tensor-unknown", unknown.front(),
        fmt::format("{} {} in no list of names", FirstOf(unknown), unknown.size() == 1 ? "stands" : "stand"));
  return {"tensors",
          fmt::format("{} of {} names are known; shapes are not checked",
                      context.subject.n_tensors() - unknown.size(), context.subject.n_tensors()),
          true};
}

}  // namespace

Part ExamineTensors(Context& context) {
  CheckOutput(context);
  if (!context.params) return ByNamesAlone(context);
  const HyperParameters& p = *context.params;
  Roll roll(context);
  for (pb_stage stage : p.ops)
    if (!stages::Of(stage).per_layer) AskStage(p, stage, -1, roll);
  for (const char* factors : {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
    roll.AskIfThere(factors, {static_cast<uint64_t>(p.rope_dims / 2)});
  // Layers that the file cannot hold are not counted one by one.
  const auto n_layers = std::min(p.n_layers, static_cast<int64_t>(context.subject.n_tensors()) + 1);
  for (int64_t layer = 0; layer < n_layers; ++layer) AskLayer(p, static_cast<int32_t>(layer), roll);
  const auto [missing, unknown] = roll.Close();
  return {"tensors",
          fmt::format("{} of {} names are known, with their shapes; {} missing",
                      context.subject.n_tensors() - unknown, context.subject.n_tensors(), missing),
          true};
}

}  // namespace pb::soundness
