// Brings together what the metadata, a config.json and the user's settings declare of a model.
#include "model/declared.h"

#include <algorithm>

#include "formats/non_finite.h"
#include "model/config.h"
#include "model/hyper.h"

namespace pb {
namespace {

// The config.json to read: the one named, else the one beside the model, if there.
std::filesystem::path ConfigPath(const GgufFile& file, const ModelOptions& options) {
  if (options.hf_config) return *options.hf_config;
  if (options.ignore_config_beside || file.path().empty()) return {};
  std::filesystem::path beside = file.path().parent_path() / "config.json";
  std::error_code error;
  return std::filesystem::is_regular_file(beside, error) ? beside : std::filesystem::path();
}

std::string NameOf(const GgufFile& file) {
  return file.path().empty() ? "the model file" : file.path().string();
}

Error InFile(Error error, const GgufFile& file) {
  return file.path().empty() ? error : std::move(error).In(file.path().string());
}

// Keys of the metadata that no row of the tables knows. Those of other programs, or of another
// architecture, cannot reach an engine that runs this one.
void FindUnknownKeys(const Keys& keys, std::vector<Doubt>* doubts) {
  std::string foreign;
  for (const auto& [name, value] : keys.file().metadata()) {
    const bool own = name.starts_with(keys.prefix());
    const std::string_view rest = own ? std::string_view(name).substr(keys.prefix().size()) : name;
    if (FindKey(own ? ArchitectureKeys() : OtherKeys(), rest)) continue;
    if (own)
      doubts->push_back({Doubt::Kind::kUnheard, name,
                         fmt::format("{} of {} ({}) is unknown here: what it decides is not computed", name,
                                     NameOf(keys.file()), ValueText(value))});
    else
      foreign += (foreign.empty() ? "" : ", ") + name;
  }
  if (!foreign.empty())
    doubts->push_back(
        {Doubt::Kind::kNote, "metadata",
         fmt::format("{}: keys that nothing here knows, and that are not of architecture {}: {}",
                     NameOf(keys.file()), keys.prefix().substr(0, keys.prefix().size() - 1), foreign)});
}

// The number of tokens under its own key decides nothing: tensors and vocabulary do.
void CheckVocabularyKey(const Keys& keys, const HyperParameters& p, std::vector<Doubt>* doubts) {
  const GgufValue* value = keys.file().Find(keys.Full("vocab_size"));
  if (!value || ValueText(*value) == fmt::format("{}", p.n_vocab)) return;
  doubts->push_back({Doubt::Kind::kNote, "vocab_size",
                     fmt::format("{}: {} is {}, the embedding has {} rows, which count", NameOf(keys.file()),
                                 keys.Full("vocab_size"), ValueText(*value), p.n_vocab)});
}

// What the user sets goes before what is declared, and is told where that was something else.
template <typename T, typename ToText>
void Override(const char* key, const std::optional<T>& set, std::optional<Declared<T>>* declared,
              const ToText& text, std::vector<Doubt>* doubts) {
  if (!set) return;
  if (*declared && (*declared)->value != *set)
    doubts->push_back({Doubt::Kind::kNote, key,
                       fmt::format("{} is set to {}; the model declares {} [{}]", key, text(*set),
                                   text((*declared)->value), OriginName((*declared)->origin))});
  *declared = Declared<T>{*set, Origin::kSet};
}

void Override(const char* key, const std::optional<float>& set, Declared<float>* declared,
              std::vector<Doubt>* doubts) {
  std::optional<Declared<float>> value = *declared;
  Override<float>(
      key, set, &value, [](float v) { return fmt::format("{}", v); }, doubts);
  *declared = *value;
}

void OverrideAll(const ModelOptions& options, HyperParameters* p, std::vector<Doubt>* doubts) {
  Override<Activation>("ffn.activation", options.ffn_activation, &p->ffn_activation, ActivationName, doubts);
  Override("norm.eps", options.norm_eps, &p->norm_eps, doubts);
  Override("rope.base", options.rope_base, &p->rope_base, doubts);
  Override("rope.scale", options.rope_scale, &p->rope_scale, doubts);
}

bool IsSet(const ModelOptions& options, std::string_view key) {
  return (key == "ffn.activation" && options.ffn_activation) || (key == "norm.eps" && options.norm_eps) ||
         (key == "rope.base" && options.rope_base) || (key == "rope.scale" && options.rope_scale);
}

// A contradiction that the user decides is none any more.
void Decide(const ModelOptions& options, std::vector<Doubt>* doubts) {
  for (Doubt& doubt : *doubts) {
    if (doubt.kind != Doubt::Kind::kContradiction || doubt.choices.empty()) continue;
    const std::string key = doubt.choices[0].substr(0, doubt.choices[0].find('='));
    if (!IsSet(options, key)) continue;
    doubt.kind = Doubt::Kind::kNote;
    doubt.text += fmt::format("; {} is set, and counts", key);
    doubt.choices.clear();
  }
}

// One note a tensor: a verdict shows those that a text uses, and none of the others.
void NoteNonFinite(const GgufFile& file, std::vector<Doubt>* doubts) {
  constexpr size_t kNamed = 8;
  const std::vector<NonFiniteTensor> found = FindNonFinite(file);
  auto note = [&](std::string text) {
    doubts->push_back({Doubt::Kind::kNote, "", fmt::format("{}: {}", NameOf(file), text)});
  };
  for (size_t i = 0; i < std::min(found.size(), kNamed); ++i) note(found[i].Text());
  if (found.size() > kNamed) note(fmt::format("{} more tensors hold NaN or infinity", found.size() - kNamed));
}

// What an embedding model is used for is no logits.
void NoteEmbeddings(const Keys& keys, std::vector<Doubt>* doubts) {
  const std::string key = std::string(keys.prefix()) + "pooling_type";
  const GgufValue* pooling = keys.file().Find(key);
  if (!pooling || ValueText(*pooling) == "0") return;
  doubts->push_back(
      {Doubt::Kind::kNote, key,
       fmt::format(
           "{}: an embedding model ({} is {}): its use is the pooled final norm; that norm is compared "
           "token by token, and the logits are what {} makes of it",
           NameOf(keys.file()), key, ValueText(*pooling),
           keys.file().FindTensor("output.weight") ? "the output matrix" : "the embedding")});
}

}  // namespace

Status FindDoubts(const std::filesystem::path& path, const ModelOptions& options,
                  std::vector<Doubt>* doubts) {
  const auto counts = [](const Error& error) {
    return error.code != Code::kUnsupported && error.code != Code::kUndeclared;
  };
  PB_ASSIGN(GgufFile file, GgufFile::Open(path));
  auto declared = ReadDeclarations(file, options);
  if (!declared.ok()) return counts(declared.error()) ? Status(std::move(declared).error()) : Status();
  doubts->insert(doubts->end(), declared->doubts.begin(), declared->doubts.end());
  NoteNonFinite(file, doubts);
  auto model = Model::FromFile(std::move(file), options);
  return model.ok() || !counts(model.error()) ? Status() : Status(std::move(model).error());
}

Result<Declarations> ReadDeclarations(const GgufFile& file, const ModelOptions& options) {
  Declarations out;
  auto name = file.String("general.architecture");
  if (!name.ok()) {
    if (name.error().code == Code::kNotFound)
      return InFile(MakeError(Code::kMalformed, "metadata key general.architecture is missing"), file);
    return InFile(std::move(name).error(), file);
  }
  const Keys keys(file, *name);
  auto architecture = ArchitectureOf(file);
  if (architecture.ok()) {
    auto params = ReadHyperParameters(keys, **architecture);
    if (params.ok())
      out.params = std::move(params).value();
    else if (params.error().code != Code::kUnsupported)
      return InFile(std::move(params).error(), file);
    else
      out.why_none = InFile(std::move(params).error(), file);
    FindUnknownKeys(keys, &out.doubts);
    NoteEmbeddings(keys, &out.doubts);
    if (out.params) CheckVocabularyKey(keys, *out.params, &out.doubts);
  } else {
    out.why_none = InFile(std::move(architecture).error(), file);
  }
  out.config_path = ConfigPath(file, options);
  if (!out.config_path.empty()) {
    const ConfigReader reader{keys,    architecture.ok() ? *architecture : nullptr, NameOf(file),
                              options, out.params ? &*out.params : nullptr,         &out.doubts};
    PB_TRY(ReadConfigJson(out.config_path, reader));
  } else if (const std::filesystem::path beside = ConfigPath(file, {}); !beside.empty()) {
    out.doubts.push_back(
        {Doubt::Kind::kNote, "hf.config", beside.string() + " is not read: hf.config is set to none"});
  }
  Decide(options, &out.doubts);
  if (out.params) OverrideAll(options, &*out.params, &out.doubts);
  return out;
}

}  // namespace pb
