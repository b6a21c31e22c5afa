// Writes the bundle's README and data, and cuts the program down to the formula it needs.
#include "report/repro_bundle.h"

#include <fmt/format.h>

#include <algorithm>

#include "report/escape.h"

namespace pb::report {
namespace {

constexpr char kMarker[] = "//: ";

// Text of an engine or a model file in a cell of a Markdown table.
std::string Cell(std::string_view text) {
  std::string cell;
  for (char c : Escape(text)) {
    if (c == '|' || c == '`' || c == '<' || c == '*') cell += '\\';
    cell += c;
  }
  return cell;
}

std::string Row(std::string_view name, std::string_view text) {
  return fmt::format("| {} | {} |\n", name, Cell(text));
}

// "llama.cpp v0.5.0, commit 86a9c79, zen4, act.quant ggml, kv.type f16": what it says of itself,
// paths left out.
std::string EngineText(const drive::EngineRecord& engine) {
  auto fact = [&](const host::Facts& facts, const char* key) { return host::FactText(facts, key); };
  std::string text = fact(engine.description, "name") + " " + fact(engine.description, "version");
  for (const char* key : {"commit", "build", "isa"})
    if (const std::string value = fact(engine.description, key); !value.empty())
      text += fmt::format(", {}{}", key == std::string_view("commit") ? "commit " : "", value);
  for (const char* key : {"threads", "act.quant", "kv.type", "attn.flash"})
    if (const std::string value = fact(engine.session, key); !value.empty())
      text += fmt::format(", {} {}", key, value);
  return text;
}

std::string ModelText(const drive::EngineRecord& engine) {
  const trace::ModelFacts facts = engine.model_facts();
  return fmt::format("{}, {}, {}, sha256 {}", engine.model_path.filename().string(), facts.architecture,
                     facts.weights, engine.model_sha256);
}

const char* LastLine(compare::Blame shows) {
  switch (shows) {
    case compare::Blame::kCandidate:
      return "DEFECT: the candidate is wrong";
    case compare::Blame::kReference:
      return "DEFECT: the reference is wrong";
    case compare::Blame::kBoth:
      return "DEFECT: both engines are wrong";
    default:
      return "DEFECT: the model files differ; each engine computes what its own declares";
  }
}

std::string Table(const run::Comparison& c, const diagnose::Diagnosis& d, const repro::Repro& r) {
  std::string out = "| | |\n|---|---|\n";
  out += Row("candidate", EngineText(c.candidate)) + Row("reference", EngineText(c.reference));
  const bool two = c.candidate.model_sha256 != c.reference.model_sha256;
  out += Row(two ? "candidate's model" : "model", ModelText(c.candidate));
  if (two) out += Row("reference's model", ModelText(c.reference));
  out += Row("op", fmt::format("{}{}", pb_vocabulary[d.place.stage].name,
                               d.place.layer < 0 ? "" : fmt::format(", layer {}", d.place.layer)));
  out += Row("place", fmt::format("position {} (token id {}); {} of {} output features: {}", r.position,
                                  r.token, r.features.size(), r.n_features, fmt::join(r.features, " ")));
  return out;
}

}  // namespace

std::string RenderReproReadme(const run::Comparison& comparison, const diagnose::Diagnosis& diagnosis,
                              const repro::Repro& repro, const Context& context) {
  std::string out = fmt::format("# {}\n\n", Cell(diagnosis.sentence));
  out += Table(comparison, diagnosis, repro);
  out += fmt::format(
      "\nBoth engines computed this op from the same inputs. `repro.cc` computes it in double from its "
      "published formula\n"
      "and holds both outputs against that. It needs a C++17 compiler and nothing else:\n\n"
      "    g++ -std=c++17 -O2 repro.cc -o repro && ./repro\n\n"
      "It prints each value and ends with\n\n    {}\n\n"
      "Exit status: 1 an engine is wrong, 0 none is, 2 the data is damaged.\n\n",
      LastLine(repro.shows));
  if (!repro.recomputed.empty())
    out +=
        fmt::format("An engine does not show {}; what stands in their place was computed in double too.\n\n",
                    fmt::join(repro.recomputed, ", "));
  out +=
      "`data.txt` holds the inputs, the weights (decoded), both outputs and the expected values, a field a "
      "line, float32 in\n"
      "decimal. The bound of a value is c * 2^-24 * unit: *unit* is the root of the sum of squares of the "
      "partial sums, what\n"
      "float32 rounding of a correct computation may move the value by; c = `bound_constant`, measured on "
      "correct engines.\n\n"
      "Over the whole op, all tokens (relative to the size of its values):\n\n| | error | bound "
      "|\n|---|---|---|\n";
  for (const diagnose::Finding& f : diagnosis.findings)
    out += fmt::format("| {} | {:.1e} | {:.1e} |\n", f.what, f.error, f.bound);
  return out + fmt::format("\nFound by paritybit {}.\n", context.tool_version);
}

std::string RenderReproData(const repro::Repro& repro) {
  std::string out = "# paritybit repro: read by repro.cc, explained in README.md\n";
  for (const auto& [name, text] : repro.fields) out += fmt::format("{} {}\n", name, Escape(text));
  return out;
}

std::string CutReproProgram(std::string_view source, const repro::Repro& repro) {
  std::string out;
  bool wanted = true;
  while (!source.empty()) {
    const size_t end = std::min(source.find('\n'), source.size() - 1) + 1;
    const std::string_view line = source.substr(0, end);
    source.remove_prefix(end);
    const size_t marker = line.find(kMarker);
    if (marker == line.npos || line.find_first_not_of(' ') != marker) {
      if (wanted) out += line;
      continue;
    }
    const std::string names = fmt::format(" {} ", line.substr(marker + 4, line.size() - marker - 5));
    auto has = [&](std::string_view name) { return names.find(fmt::format(" {} ", name)) != names.npos; };
    wanted = has("all") || has(repro.formula) || (has("files") && repro.two_files);
  }
  return out;
}

}  // namespace pb::report
