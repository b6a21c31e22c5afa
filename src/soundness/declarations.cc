// What the metadata, a config.json and the user's settings say: architecture, hyper-parameters,
// contradictions, and keys that nothing hears.
#include <algorithm>
#include <map>

#include "model/config.h"
#include "model/declared.h"
#include "soundness/parts.h"

namespace pb::soundness {
namespace {

// Of a model in several files, whose reader wants them merged.
Result<Declarations> DeclarationsOfShards(const Context& context) {
  const GgufFile& file = context.subject.main();
  Declarations out;
  PB_ASSIGN(const std::string name, file.String("general.architecture"));
  PB_ASSIGN(const Architecture* architecture, ArchitectureOf(file));
  const Keys keys(file, name);
  PB_ASSIGN(out.params, ReadHyperParameters(keys, *architecture));
  if (context.request.options.hf_config) {
    out.config_path = *context.request.options.hf_config;
    const ConfigReader reader{keys,         architecture, file.path().string(), context.request.options,
                              &*out.params, &out.doubts};
    PB_TRY(ReadConfigJson(out.config_path, reader));
  }
  return out;
}

void TellDoubt(const Doubt& doubt, Findings* findings) {
  switch (doubt.kind) {
    case Doubt::Kind::kContradiction: {
      std::string cure;
      for (const std::string& choice : doubt.choices)
        cure += fmt::format("{}{} {}", cure.empty() ? "Decide with " : " or ", doubt.flag, choice);
      if (!cure.empty()) cure += ", and correct the other.";
      findings->Add(
          doubt.beyond > 0 ? "contradicted-beyond" : "contradicted", doubt.key,
          doubt.beyond > 0 ? fmt::format("{} (beyond {} positions)", doubt.text, doubt.beyond) : doubt.text,
          cure);
      return;
    }
    case Doubt::Kind::kUnheard:
      findings->Add("unheard", doubt.key, doubt.text);
      return;
    case Doubt::Kind::kNote:
      findings->Add("declared", doubt.key, doubt.text);
      return;
  }
}

// general.file_type names the type of most linear weights.
void CheckFileType(Context& context) {
  const auto declared = context.subject.main().Uint("general.file_type");
  if (!declared.ok()) return;
  std::map<uint32_t, uint64_t> bytes;
  for (const GgufFile& file : context.subject.files())
    for (const GgufTensor& t : file.tensors())
      if (t.shape.size() > 1 && t.name.starts_with("blk.")) bytes[t.type_id] += t.data.size();
  if (bytes.empty()) return;
  const uint32_t most = std::max_element(bytes.begin(), bytes.end(), [](auto& a, auto& b) {
                          return a.second < b.second;
                        })->first;
  // Of the types that are no mixes.
  constexpr std::pair<uint64_t, uint32_t> kPlain[] = {{0, 0}, {1, 1}, {2, 2},   {3, 3},   {7, 8},
                                                      {8, 6}, {9, 7}, {32, 30}, {36, 34}, {37, 35}};
  for (const auto& [file_type, type] : kPlain)
    if (*declared == file_type && most != type)
      context.findings.Add("file-type", "general.file_type",
                           fmt::format("it says {} ({}), most of the layers' weights are {}", *declared,
                                       BlockTypeName(type), BlockTypeName(most)));
}

// LLaMA 3.1 and later have 128256 tokens, a base of 500000 and more than the 8192 positions of
// LLaMA 3.
void CheckRopeFactors(Context& context) {
  const HyperParameters& p = *context.params;
  if (p.architecture != "llama" || p.n_vocab != 128256 || p.rope_base.value != 500000.0f ||
      p.n_ctx_train <= 8192 || p.rope_scale.value != 1.0f || context.subject.FindTensor("rope_freqs.weight"))
    return;
  context.findings.Add("rope-freqs-missing", "rope_freqs.weight",
                       fmt::format("a LLaMA of {} tokens, base 500000 and {} positions without its factors",
                                   p.n_vocab, p.n_ctx_train));
}

// "relu2 [metadata]"
std::string ActivationText(const HyperParameters& p) {
  if (!p.ffn_activation) return "no activation";
  return fmt::format("{} [{}]", ActivationName(p.ffn_activation->value),
                     OriginName(p.ffn_activation->origin));
}

}  // namespace

Part ExamineDeclarations(Context& context) {
  const GgufFile& file = context.subject.main();
  Part part{"declarations", "", true};
  const auto name = file.String("general.architecture");
  if (!name.ok()) {
    context.findings.Add("metadata", "general.architecture", name.error().message);
    part.text = "no architecture";
    return part;
  }
  part.text = *name;
  context.architecture = FindArchitecture(*name);
  auto declared = context.subject.sharded() ? DeclarationsOfShards(context)
                                            : ReadDeclarations(file, context.request.options);
  CheckFileType(context);
  if (!declared.ok()) {
    // What is missing or contradicts itself has a finding of its own where there is one.
    const bool foreign = declared.error().code == Code::kUnsupported;
    if (!context.architecture && foreign)
      context.findings.Add("architecture-foreign", *name, declared.error().message);
    else
      context.findings.Add(foreign ? "not-offered" : "metadata", *name, declared.error().message);
    return part;
  }
  for (const Doubt& doubt : declared->doubts) TellDoubt(doubt, &context.findings);
  if (!declared->config_path.empty())
    part.text += fmt::format(", held against {}", declared->config_path.string());
  if (!declared->params) {
    context.findings.Add(context.architecture ? "not-offered" : "architecture-foreign", *name,
                         declared->why_none.message);
    return part;
  }
  context.params = std::move(declared->params);
  const HyperParameters& p = *context.params;
  part.text = fmt::format(
      "{}: {} layers, width {}, {} of {} heads, {} tokens, output {}, {}{}", *name, p.n_layers, p.d_model,
      p.n_kv_heads, p.n_heads, p.n_vocab, p.output_tied ? "tied" : "of its own", ActivationText(p),
      declared->config_path.empty() ? "" : fmt::format("; held against {}", declared->config_path.string()));
  if (!p.ffn_activation)
    context.findings.Add("activation-undeclared", *name,
                         fmt::format("architecture {} has several activations, and none is declared", *name));
  CheckRopeFactors(context);
  return part;
}

}  // namespace pb::soundness
