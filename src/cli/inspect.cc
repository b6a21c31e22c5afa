// paritybit inspect: metadata and tensors of a model file, as they stand in it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "formats/gguf.h"
#include "report/escape.h"

namespace pb::cli {
namespace {

using Json = nlohmann::ordered_json;

struct InspectArguments {
  OutputArguments output;
  ModelArguments model;
  std::string position;
  bool digests = false, full = false;
};

constexpr size_t kWidth = 80;
constexpr size_t kShown = 8;  // elements of an array, where not all are asked for

const char* TypeName(GgufType type) {
  constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                    "bool", "string", "array", "u64", "i64", "f64"};
  const auto i = static_cast<size_t>(type);
  return i < std::size(kNames) ? kNames[i] : "?";
}

// In the order of the file.
std::vector<std::pair<std::string, const GgufValue*>> PairsOf(const GgufFile& file) {
  std::vector<std::pair<std::string, const GgufValue*>> pairs;
  for (const auto& [key, value] : file.metadata()) pairs.emplace_back(key, &value);
  std::sort(pairs.begin(), pairs.end(),
            [](const auto& a, const auto& b) { return a.second->offset < b.second->offset; });
  return pairs;
}

// A float32 by the digits that make it.
Json NumberOf(GgufType type, double v) {
  if (!std::isfinite(v)) return fmt::format("{}", v);
  if (type != GgufType::kF32) return v;
  return std::stod(fmt::format("{}", static_cast<float>(v)));
}

// The first `most` elements of an array; all of a scalar.
Json ValueOf(const GgufValue& value, size_t most) {
  return std::visit(
      [&](const auto& v) -> Json {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, double>) {
          return NumberOf(value.type, v);
        } else if constexpr (std::is_same_v<T, std::vector<double>>) {
          Json all = Json::array();
          for (size_t i = 0; i < std::min(most, v.size()); ++i) all.push_back(NumberOf(value.element, v[i]));
          return all;
        } else if constexpr (std::is_same_v<T, std::vector<uint64_t>> ||
                             std::is_same_v<T, std::vector<int64_t>> ||
                             std::is_same_v<T, std::vector<std::string>>) {
          Json all = Json::array();
          for (size_t i = 0; i < std::min(most, v.size()); ++i) all.push_back(v[i]);
          return all;
        } else {
          return v;
        }
      },
      value.value);
}

size_t LengthOf(const GgufValue& value) {
  return std::visit(
      [](const auto& v) -> size_t {
        if constexpr (requires { v.size(); })
          return v.size();
        else
          return 1;
      },
      value.value);
}

std::string Shown(const Json& v) {
  return v.is_string() ? "\"" + report::Escape(v.get_ref<const std::string&>()) + "\"" : v.dump();
}

// One line of at most `columns`, or with --full as many as it takes.
std::string ValueText(const GgufValue& value, size_t columns, bool full) {
  std::string text;
  if (value.type == GgufType::kArray) {
    const Json first = ValueOf(value, full ? SIZE_MAX : kShown);
    text = fmt::format("{} {}: ", LengthOf(value), TypeName(value.element));
    for (size_t i = 0; i < first.size(); ++i) text += (i ? ", " : "") + Shown(first[i]);
    if (first.size() < LengthOf(value)) text += ", ...";
  } else {
    text = Shown(ValueOf(value, 1));
  }
  return full || report::Columns(text) <= columns ? text : report::Fit(text, columns);
}

std::string Heading(const GgufFile& file, const std::vector<GgufFault>& faults) {
  std::map<std::string, std::pair<int, uint64_t>> types;
  for (const GgufTensor& t : file.tensors()) {
    auto& sums = types[BlockTypeName(t.type_id)];
    ++sums.first, sums.second += t.data.size();
  }
  std::string out =
      report::Wrap(
          fmt::format("{}: GGUF {}, {} bytes, {} keys, {} tensors from byte {} on, alignment {}",
                      report::Escape(file.path().string()), file.version(), file.file_bytes(),
                      file.metadata().size(), file.tensors().size(), file.data_start(), file.alignment()),
          kWidth, 0) +
      "\n";
  for (const auto& [type, sums] : types)
    out += fmt::format("  {:<8} {:>4} tensors {:>14} bytes\n", type, sums.first, sums.second);
  if (!faults.empty())
    out +=
        report::Wrap(fmt::format("{} tensors have no place in the file; `verify` tells why", faults.size()),
                     kWidth, 0) +
        "\n";
  return out;
}

std::string MetadataText(const GgufFile& file, bool full) {
  std::string out = "\nmetadata\n";
  for (const auto& [key, value] : PairsOf(file)) {
    std::string head = fmt::format("  {:<42} {:<6} ", report::Escape(key), TypeName(value->type));
    const size_t taken = report::Columns(head);
    // A long key has its value on a line of its own.
    if (taken + 20 > kWidth) head += "\n      ";
    out += head + ValueText(*value, kWidth - (taken + 20 > kWidth ? 6 : taken), full) + "\n";
  }
  return out;
}

std::string TensorText(const GgufTensor& t, const std::string& digest) {
  std::string line =
      fmt::format("  {:<34} {:<8} {:<16} {:>10}", report::Escape(t.name), BlockTypeName(t.type_id),
                  fmt::format("{}", fmt::join(t.shape, " x ")), t.data.size()) +
      "\n";
  if (!digest.empty()) line += fmt::format("      sha256 {}\n", digest);
  return line;
}

Result<int> Inspect(InspectArguments& args) {
  if (!args.position.empty()) args.model.model = args.position;
  PB_ASSIGN(const run::Choice model, ChooseModel(args.model));
  std::vector<GgufFault> faults;
  PB_ASSIGN(const GgufFile file, GgufFile::Survey(model.value, &faults));
  Progress progress(args.output, "reading");
  std::vector<std::string> digests;
  std::string whole;
  if (args.digests) {
    PB_ASSIGN(whole, Sha256File(model.value));
    for (const GgufTensor& t : file.tensors()) {
      digests.push_back(t.data.empty() ? "" : Sha256Hex(t.data));
      progress.Update("digests", static_cast<int64_t>(digests.size()),
                      static_cast<int64_t>(file.tensors().size()));
    }
  } else {
    digests.resize(file.tensors().size());
  }
  progress.End();
  if (!args.output.json()) {
    std::string text = Heading(file, faults);
    if (args.digests) text += fmt::format("  sha256   {}\n", whole);
    text += MetadataText(file, args.full) +
            "\ntensors                              type     shape                 bytes\n";
    for (size_t i = 0; i < digests.size(); ++i) text += TensorText(file.tensors()[i], digests[i]);
    PrintText(text);
    return kExitOk;
  }
  auto object = Envelope("paritybit.inspect/0", "ok", kExitOk);
  object["file"] = {{"path", model.value},
                    {"bytes", file.file_bytes()},
                    {"version", file.version()},
                    {"alignment", file.alignment()},
                    {"data_start", file.data_start()}};
  if (args.digests) object["file"]["sha256"] = whole;
  object["metadata"] = Json::array();
  for (const auto& [key, value] : PairsOf(file)) {
    Json pair = {{"key", key}, {"type", TypeName(value->type)}, {"byte", value->offset}};
    if (value->type == GgufType::kArray)
      pair["element"] = TypeName(value->element), pair["length"] = LengthOf(*value);
    pair["value"] = ValueOf(*value, args.full ? SIZE_MAX : kShown);
    object["metadata"].push_back(std::move(pair));
  }
  object["tensors"] = Json::array();
  for (size_t i = 0; i < digests.size(); ++i) {
    const GgufTensor& t = file.tensors()[i];
    Json tensor = {{"name", t.name},
                   {"type", BlockTypeName(t.type_id)},
                   {"type_id", t.type_id},
                   {"shape", t.shape},
                   {"byte", t.data.empty() ? Json() : Json(t.offset)},
                   {"bytes", t.data.size()}};
    if (args.digests) tensor["sha256"] = digests[i].empty() ? Json() : Json(digests[i]);
    object["tensors"].push_back(std::move(tensor));
  }
  object["faults"] = Json::array();
  for (const GgufFault& fault : faults)
    object["faults"].push_back({{"tensor", fault.tensor}, {"text", fault.error.message}});
  PrintJson(object);
  return kExitOk;
}

}  // namespace

Action DeclareInspect(Flags& flags) {
  auto args = std::make_shared<InspectArguments>();
  const Flag given =
      flags.Option("MODEL", args->position, "model file (GGUF), or the name of one that is set up")
          .Group("Input");
  flags.Option("-m,--model", args->model.model, "the same; else $CROSSVAL_GGUF")
      .Excludes(given)
      .Group("Input");
  flags.Switch("--digests", args->digests, "SHA-256 of the file and of each tensor's bytes").Group("Output");
  flags.Switch("--full", args->full, "all elements of arrays, whole strings").Group("Output");
  for (const char* flag : {"--ln-stats", "--gate", "--policy", "--policy-key"})
    flags.Refuse(flag, "`paritybit verify` holds norms and projections against the documented bands");
  AddOutputArguments(flags, args->output, nullptr);
  return [args] {
    auto exit_code = Inspect(*args);
    return exit_code ? *exit_code : Fail(args->output, exit_code.error());
  };
}

}  // namespace pb::cli
