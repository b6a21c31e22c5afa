// The fields of a config.json as config.cc reads them: a table of rows, each with the check that holds
// its value against the model file.
#ifndef PARITYBIT_MODEL_CONFIG_FIELDS_H_
#define PARITYBIT_MODEL_CONFIG_FIELDS_H_

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"

namespace pb::config {

using Json = nlohmann::json;

// A value for people: at most 64 characters.
std::string Text(const Json& value);

class Fields;
struct FieldRow {
  std::string_view field;  // a * at the end stands for any rest
  // Holds the value against the model file; null: the field decides nothing.
  Status (Fields::*check)(const FieldRow& row, const std::string& name, const Json& value);
  std::string_view decides;  // what; why it decides nothing
  std::string_view key;      // of the model file
  std::string_view neutral;  // values that change nothing, with blanks between
};

// Compares fields of one config with what the model file says.
class Fields {
 public:
  Fields(const std::filesystem::path& path, const ConfigReader& reader)
      : path_(path.string()), reader_(reader) {}

  Status Read(const Json& json);

  // The checks that the table names.
  Status Count(const FieldRow& row, const std::string& name, const Json& value);
  Status Vocabulary(const FieldRow& row, const std::string& name, const Json& value);
  Status Context(const FieldRow& row, const std::string& name, const Json& value);
  Status Epsilon(const FieldRow& row, const std::string& name, const Json& value);
  Status LayerNormEpsilon(const FieldRow& row, const std::string& name, const Json& value);
  Status RopeBase(const FieldRow& row, const std::string& name, const Json& value);
  Status RopeScaling(const FieldRow& row, const std::string& name, const Json& value);
  Status RotatedPart(const FieldRow& row, const std::string& name, const Json& value);
  Status ActivationName(const FieldRow& row, const std::string& name, const Json& value);
  Status Tied(const FieldRow& row, const std::string& name, const Json& value);
  Status Bias(const FieldRow& row, const std::string& name, const Json& value);
  Status Window(const FieldRow& row, const std::string& name, const Json& value);
  Status LayerTypes(const FieldRow& row, const std::string& name, const Json& value);
  Status Pattern(const FieldRow& row, const std::string& name, const Json& value);
  Status LocalBase(const FieldRow& row, const std::string& name, const Json& value);
  Status Unrotated(const FieldRow& row, const std::string& name, const Json& value);
  Status Scale(const FieldRow& row, const std::string& name, const Json& value);
  Status QueryScalar(const FieldRow& row, const std::string& name, const Json& value);
  Status Experts(const FieldRow& row, const std::string& name, const Json& value);
  Status Normalised(const FieldRow& row, const std::string& name, const Json& value);
  Status SwigluLimit(const FieldRow& row, const std::string& name, const Json& value);
  Status Parallel(const FieldRow& row, const std::string& name, const Json& value);
  Status ModelType(const FieldRow& row, const std::string& name, const Json& value);
  Status TokenId(const FieldRow& row, const std::string& name, const Json& value);
  Status Neutral(const FieldRow& row, const std::string& name, const Json& value);

 private:
  Status ReadAll(const Json& json, const std::string& prefix);
  void ReadShape(const Json& json);

  Error Wrong(const std::string& name, const char* expected) const {
    return MakeError(Code::kMalformed, "{}: {} is not {}", path_, name, expected);
  }
  // A contradiction: what the config says, and what the model file does. `choices`: settings of
  // which each decides it.
  void Differs(const std::string& name, const std::string& here, const std::string& there,
               std::vector<std::string> choices = {}, int64_t beyond = 0) {
    reader_.doubts->push_back(
        {Doubt::Kind::kContradiction, name,
         fmt::format("{}: {} says {}, {} {}", name, path_, here, reader_.model_name, there),
         std::move(choices), beyond});
  }
  void Note(const std::string& name, std::string text) {
    reader_.doubts->push_back({Doubt::Kind::kNote, name, std::move(text)});
  }
  void Unheard(const std::string& name, const Json& value, std::string_view why) {
    if (!reader_.architecture) return;
    reader_.doubts->push_back(
        {Doubt::Kind::kUnheard, name, fmt::format("{} of {} ({}) {}", name, path_, Text(value), why)});
  }
  // "says 10000 (llama.rope.freq_base)"
  std::string Says(std::string_view key, const std::string& value) const {
    return fmt::format("says {} ({})", value, reader_.keys.Full(key));
  }
  std::string Lacks(std::string_view key, const std::string& taken) const {
    return fmt::format("has no {}, for which engines take {}", reader_.keys.Full(key), taken);
  }
  // Equal as float32, which is what model files store; `taken`: what engines take where the file
  // has no such key; `setting`: which decides it, null: none does.
  Status Real(const std::string& name, const Json& value, std::string_view key, std::optional<float> taken,
              const char* setting);
  Status LlamaThree(const std::string& name, const Json& rope);
  Status Yarn(const std::string& name, const Json& rope);
  Status LongRope(const std::string& name, const Json& rope);
  bool HasTensor(const char* name) const { return reader_.keys.file().FindTensor(name) != nullptr; }

  const std::string path_;
  const ConfigReader& reader_;
  bool other_shape_ = false;  // layers, widths or heads differ: it describes another model
  int64_t n_ctx_ = 0;         // max_position_embeddings; 0: not said
  bool no_window_ = false;    // use_sliding_window is false
};

// The fields that transformers' classes write, in every place where its versions put them, and what
// checkpoints of these families add.
std::span<const FieldRow> FieldTable();
// A row of the name alone goes before one that ends with a star.
const FieldRow* FindField(std::string_view name);

}  // namespace pb::config

#endif  // PARITYBIT_MODEL_CONFIG_FIELDS_H_
