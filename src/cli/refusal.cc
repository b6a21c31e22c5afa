// Finds the commands that work after a refusal: what the reference can do by itself, and the
// conversion that it needs.
#include "cli/refusal.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "cli/next.h"
#include "drive/participant.h"
#include "formats/gguf.h"
#include "noise/axes.h"
#include "setup/setup.h"
#include "trace/reader.h"

namespace pb::cli {
namespace {

using run::NextCommand;

std::string NameOf(const std::string& engine) { return engine.substr(0, engine.find(',')); }

bool IsReference(const std::string& engine) {
  const auto known = setup::KnownReferences();
  const std::string name = engine.empty() ? known.front() : NameOf(engine);
  return std::find(known.begin(), known.end(), name) != known.end();
}

template <typename Holds>
bool HasTensor(const std::string& model, Holds holds) {
  auto path = ChooseModel({model, "", ""});
  if (!path.ok()) return false;
  auto file = GgufFile::Open(path->value);
  return file.ok() && std::any_of(file->tensors().begin(), file->tensors().end(), holds);
}

// Whether a file has weights that only engines of its maker and paritybit's own read.
bool HoldsI2S(const std::string& model) {
  return HasTensor(model,
                   [](const GgufTensor& t) { return t.type_id == static_cast<uint32_t>(BlockType::kI2_S); });
}

// Whether it has a norm before each projection, as no graph of the reference's has.
bool HoldsInputNorms(const std::string& model) {
  return HasTensor(model, [](const GgufTensor& t) { return t.name.ends_with("_norm_in.weight"); });
}

// "m-i2_s.gguf" -> "m-tq2_0.gguf", in the folder at hand.
std::string ConvertedName(const std::string& model) {
  std::string stem = std::filesystem::path(model).stem().string();
  if (stem.ends_with("-i2_s")) stem.resize(stem.size() - 5);
  return stem + "-tq2_0.gguf";
}

NextCommand Conversion(const std::string& model) {
  return {Call(std::vector<std::string>{"gen-fixtures", "--convert", model, "--weights", "TQ2_0", "--out",
                                        ConvertedName(model)}),
          "the file in a type that the engine reads"};
}

// Two CPU libraries that this processor runs, as far apart as they come: the reference against
// itself.
std::vector<std::string> TwoLibraries() {
  auto spec = ResolveEngine(setup::KnownReferences().front(), {});
  if (!spec.ok()) return {};
  auto facts = drive::DescribeEngine(*spec);
  if (!facts.ok()) return {};
  std::istringstream words(host::FactText(*facts, drive::kLibrariesFact));
  std::vector<std::string> libraries{std::istream_iterator<std::string>(words), {}};
  const auto has = [&](const char* name) {
    return std::find(libraries.begin(), libraries.end(), name) != libraries.end();
  };
  if (has("haswell") && has("sandybridge")) return {"haswell", "sandybridge"};
  if (libraries.size() < 2) return {};
  return {libraries.front(), libraries.back()};
}

CrossvalArguments WithoutEngines(const CrossvalArguments& args) {
  CrossvalArguments plain;
  plain.model.model = args.model.model;
  plain.prompts = args.prompts;
  plain.max_tokens = args.max_tokens;
  plain.engines.threads = args.engines.threads;
  plain.engines.timeout_seconds = args.engines.timeout_seconds;
  plain.engines.memory_mib = args.engines.memory_mib;
  return plain;
}

// The reference by two of its libraries, or what sets it up.
std::vector<NextCommand> ReferenceAgainstItself(const CrossvalArguments& args) {
  const std::string reference = setup::KnownReferences().front();
  const std::vector<std::string> libraries = TwoLibraries();
  if (libraries.empty()) return {SetUpReference()};
  CrossvalArguments both = WithoutEngines(args);
  both.engines.candidate = fmt::format("{},cpu.library={}", reference, libraries[0]);
  both.engines.reference = fmt::format("{},cpu.library={}", reference, libraries[1]);
  return {{CommandLine(both, "crossval"), "the reference by two of its CPU libraries"}};
}

// The command that was refused, with other arguments.
std::string Again(const Refusal& refusal, const CrossvalArguments& args) {
  return CommandLine(args, refusal.command, refusal.more);
}

// Without the settings that the refusal names; nothing where it names none.
std::vector<NextCommand> WithoutSetting(const Refusal& refusal) {
  CrossvalArguments args = refusal.args;
  bool dropped = false;
  for (std::vector<std::string>* settings : {&args.engines.set, &args.engines.set_reference})
    dropped |= std::erase_if(*settings, [&](const std::string& setting) {
                 return refusal.reason.find(setting.substr(0, setting.find('='))) != std::string::npos;
               }) > 0;
  if (!dropped) return {};
  return {{Again(refusal, args), "the same without what is not offered"}};
}

// The reference does not read I2_S: the same model in a type that it reads. A model that it has no
// graph of: the engine that has.
std::vector<NextCommand> Converted(const Refusal& refusal) {
  CrossvalArguments args = refusal.args;
  const std::string of =
      refusal.by_reference && !args.reference_model.empty() ? args.reference_model : args.model.model;
  if (HoldsInputNorms(of)) {
    args.engines.candidate = "native", args.reference_model.clear();
    if (refusal.one_engine) return {{Again(refusal, args), "the same by the native engine"}};
    return {{CommandLine(args, "audit"), "judges the native engine alone"}};
  }
  if (!HoldsI2S(of)) return {};
  if (refusal.one_engine || IsReference(args.engines.candidate)) {
    args.model.model = ConvertedName(of), args.reference_model.clear();
    return {Conversion(of), {Again(refusal, args), "the same of that file"}};
  }
  args.reference_model = ConvertedName(of);
  // I2_S activations are rounded by BitNet's own scheme, those of TQ2_0 by the reference's.
  if (std::find(args.engines.set.begin(), args.engines.set.end(), "act.quant=q8_k") == args.engines.set.end())
    args.engines.set.push_back("act.quant=q8_k");
  return {Conversion(of), {Again(refusal, args), "the comparison with that file"}};
}

// A recording gives what was recorded: that prompt, with its decode steps.
std::vector<NextCommand> AsRecorded(const Refusal& refusal) {
  for (const std::string& engine : {refusal.args.engines.candidate, refusal.args.engines.reference}) {
    auto name = drive::ParseEngineName(engine);
    if (!name.ok() || name->name != "replay") continue;
    const std::string* folder = drive::FindSetting(name->settings, "trace");
    if (!folder) continue;
    const auto trace = trace::Trace::Open(*folder);
    if (!trace.ok() || trace->manifest().prompt.empty()) continue;
    CrossvalArguments args = refusal.args;
    args.prompts = {};
    args.prompts.prompts = {trace->manifest().prompt};
    args.max_tokens = static_cast<int>(trace->manifest().tokens.size()) - trace->manifest().n_prompt;
    return {{Again(refusal, args), "the prompt that was recorded"}};
  }
  return {};
}

}  // namespace

std::vector<NextCommand> NextAfterRefusal(const Refusal& refusal) {
  if (auto next = AsRecorded(refusal); !next.empty()) return next;
  if (auto next = WithoutSetting(refusal); !next.empty()) return next;
  const CrossvalArguments& args = refusal.args;
  const bool by_reference_engine = (refusal.by_candidate && IsReference(args.engines.candidate)) ||
                                   (refusal.by_reference && IsReference(args.engines.reference));
  if (by_reference_engine) return Converted(refusal);
  if (!refusal.one_engine || refusal.by_arbiter || refusal.command == "audit")
    return ReferenceAgainstItself(args);
  if (TwoLibraries().empty()) return {SetUpReference()};
  CrossvalArguments by_reference = WithoutEngines(args);
  by_reference.engines.candidate = setup::KnownReferences().front();
  return {{Again(refusal, by_reference), "the same by the reference"}};
}

std::vector<NextCommand> NextToEqualSettings(const CrossvalArguments& args, const std::string& command,
                                             const compare::Verdict& verdict) {
  // Other engines tell their settings and need not take them.
  if (NameOf(args.engines.candidate) != "native") return {};
  CrossvalArguments equal = args;
  for (const compare::SettingDifference& d : verdict.differing) {
    // several schemes: no one value says them
    if (d.values[1].find('+') != std::string::npos) return {};
    // which paritybit's own engines do not offer
    const bool flash = d.key == "attn.flash";
    equal = With(std::move(equal), flash ? "--set-reference" : "--set",
                 fmt::format("{}={}", d.key, d.values[flash ? 0 : 1]));
  }
  if (verdict.differing.empty()) return {};
  return {{CommandLine(equal, command), "both engines by the same settings"}};
}

Refusal OneEngineRefusal(const std::string& command, const ModelArguments& model,
                         const EngineArguments& engines, const std::string& engine,
                         const PromptArguments& prompts, int max_tokens) {
  Refusal refusal;
  refusal.command = command, refusal.one_engine = refusal.by_candidate = true;
  refusal.args.model = model, refusal.args.engines = engines, refusal.args.engines.candidate = engine;
  refusal.args.prompts = prompts, refusal.args.max_tokens = max_tokens;
  return refusal;
}

int FailOfEngine(const OutputArguments& output, const Error& error, const drive::EngineRecord& record,
                 const Refusal& refusal) {
  if (error.code != Code::kUnsupported || record.error.empty()) return Fail(output, error);
  Refusal told = refusal;
  told.reason = error.message;
  return FailWith(output, kExitIncomplete, "incomplete",
                  compare::ReasonName(compare::ReasonCode::kUnsupported), error.message,
                  NextAfterRefusal(told));
}

}  // namespace pb::cli
