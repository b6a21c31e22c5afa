// Reads plans, and multiplies them out.
#include "sweep/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/toml_table.h"

namespace pb::sweep {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMostTokens = 1 << 20, kMostThreads = 1024;

// Words of crossval that the sweep gives itself, or that would change where a result stands.
constexpr const char* kOwnWords[] = {"--receipt",
                                     "--keep-traces",
                                     "--trace-level",
                                     "--format",
                                     "--timeout",
                                     "--threads",
                                     "-t",
                                     "--quiet",
                                     "-q",
                                     "--model",
                                     "-m",
                                     "--candidate",
                                     "-c",
                                     "--reference",
                                     "-r"};

Status CheckArguments(const std::vector<std::string>& words, const std::string& where) {
  for (const std::string& word : words) {
    const std::string flag = word.substr(0, word.find('='));
    if (std::find(std::begin(kOwnWords), std::end(kOwnWords), flag) != std::end(kOwnWords))
      return MakeError(Code::kMalformed, "{}: arguments: {} is the sweep's own", where, flag);
  }
  return {};
}

// "model 2 (tiny)".
std::string Where(const char* list, size_t index, const Json& json) {
  std::string where = fmt::format("{} {}", list, index + 1);
  if (json.is_object() && json.contains("name") && json["name"].is_string())
    where += " (" + json["name"].get<std::string>() + ")";
  return where;
}

Result<Scenario> ReadScenario(const Json& json, const std::string& where) {
  Scenario s;
  std::string prompt;
  TomlTable table(json, where);
  table.Text("name", &s.name);
  table.Text("prompt", &prompt);
  table.Words("prompts", R"(["2+2=", "Hello"])", &s.prompts);
  table.Text("prompt_file", &s.prompt_file);
  table.Text("prompt_template", &s.framed);
  table.Text("system_prompt", &s.system);
  table.Whole("max_tokens", 0, kMostTokens, &s.max_tokens);
  PB_TRY(table.End());
  const int given = static_cast<int>(json.contains("prompt")) + static_cast<int>(json.contains("prompts")) +
                    static_cast<int>(json.contains("prompt_file"));
  if (given != 1)
    return MakeError(Code::kMalformed, "{}: needs one of prompt, prompts and prompt_file", where);
  if (json.contains("prompt")) s.prompts = {prompt};
  return s;
}

Result<Model> ReadModel(const Json& json, const std::string& where) {
  Model m;
  TomlTable table(json, where);
  table.Text("name", &m.name);
  table.Text("path", &m.path);
  table.Text("hf_config", &m.hf_config);
  table.Number("memory_mib", &m.memory_mib);
  PB_TRY(table.End());
  if (m.path.empty())
    return MakeError(Code::kMalformed, "{}: needs a path, or the name of a model that is set up", where);
  return m;
}

Result<EnginePair> ReadEngines(const Json& json, const std::string& where) {
  EnginePair e;
  TomlTable table(json, where);
  table.Text("name", &e.name);
  table.Text("candidate", &e.candidate);
  table.Text("reference", &e.reference);
  table.Words("set", R"(["act.quant=none"])", &e.set);
  table.Words("set_reference", R"(["threads=2"])", &e.set_reference);
  PB_TRY(table.End());
  return e;
}

Result<Setting> ReadSetting(const Json& json, const std::string& where) {
  Setting s;
  TomlTable table(json, where);
  table.Text("name", &s.name);
  table.Whole("threads", 1, kMostThreads, &s.threads);
  table.Words("arguments", R"(["--scope", "logits-only"])", &s.arguments);
  PB_TRY(table.End());
  PB_TRY(CheckArguments(s.arguments, where));
  return s;
}

// One list of the file, each entry with a name of its own.
template <typename T>
Status ReadList(const Json& toml, const char* list, Result<T> (*read)(const Json&, const std::string&),
                std::vector<T>* out) {
  const auto found = toml.find(list);
  if (found == toml.end()) return {};
  if (!found->is_array() || found->empty())
    return MakeError(Code::kMalformed, "the plan: {} is no list of tables, as [[{}]]", list, list);
  out->clear();
  for (size_t i = 0; i < found->size(); ++i) {
    const Json& json = (*found)[i];
    const std::string where = Where(list, i, json);
    if (!json.is_object()) return MakeError(Code::kMalformed, "{}: is no table, as [[{}]]", where, list);
    PB_ASSIGN(T entry, read(json, where));
    if (!IsFileName(entry.name))
      return MakeError(Code::kMalformed, "{}: needs a name of letters, digits, - _ and .", where);
    for (const T& other : *out)
      if (other.name == entry.name)
        return MakeError(Code::kMalformed, "{}: there is another {} of this name", where, list);
    out->push_back(std::move(entry));
  }
  return {};
}

void AddSettings(std::vector<std::string>* words, const char* flag,
                 const std::vector<std::string>& settings) {
  for (const std::string& setting : settings) words->insert(words->end(), {flag, setting});
}

std::vector<std::string> WordsOf(const Scenario& s, const Model& m, const EnginePair& e, const Setting& t,
                                 int64_t threads) {
  std::vector<std::string> words{"crossval", "--model", m.path};
  if (!m.hf_config.empty()) words.insert(words.end(), {"--hf-config", m.hf_config});
  words.insert(words.end(), {"--candidate", e.candidate, "--reference", e.reference});
  AddSettings(&words, "--set", e.set);
  AddSettings(&words, "--set-reference", e.set_reference);
  if (!s.prompt_file.empty()) words.insert(words.end(), {"--prompt-file", s.prompt_file});
  for (const std::string& prompt : s.prompts) words.insert(words.end(), {"--prompt", prompt});
  if (!s.framed.empty()) words.insert(words.end(), {"--prompt-template", s.framed});
  if (!s.system.empty()) words.insert(words.end(), {"--system-prompt", s.system});
  words.insert(words.end(), {"--max-tokens", std::to_string(s.max_tokens)});
  words.insert(words.end(), {"--threads", std::to_string(threads)});
  words.insert(words.end(), t.arguments.begin(), t.arguments.end());
  return words;
}

// Where no op is watched there is nothing to keep.
bool WatchesOps(const Setting& setting) {
  return std::none_of(setting.arguments.begin(), setting.arguments.end(), [](const std::string& word) {
    return word == "logits-only" || word == "--scope=logits-only";
  });
}

Cell CellOf(const Plan& plan, const Scenario& s, const Model& m, const EnginePair& e, const Setting& t,
            int64_t threads) {
  Cell cell;
  cell.name = s.name;
  if (plan.names_models) cell.name += "+" + m.name;
  if (plan.names_engines) cell.name += "+" + e.name;
  if (plan.names_settings) cell.name += "+" + t.name;
  cell.scenario = s.name, cell.model = m.name, cell.engines = e.name, cell.settings = t.name;
  cell.model_path = m.path, cell.candidate = e.candidate, cell.reference = e.reference;
  cell.threads = t.threads > 0 ? t.threads : threads;
  cell.words = WordsOf(s, m, e, t, cell.threads);
  if (WatchesOps(t)) cell.trace_level = plan.trace_level;
  cell.memory_mib = m.memory_mib.value_or(0);
  return cell;
}

}  // namespace

std::vector<Scenario> DocumentedScenarios() {
  return {{"scenario1", {"2+2="}, "", "", "", 1},
          {"scenario2", {"Hello"}, "", "", "", 2},
          {"scenario3", {"Count: 1,2,3,"}, "", "", "", 4}};
}

Result<Plan> ReadPlan(const Json& toml) {
  Plan plan;
  TomlTable table(toml, "the plan");
  table.Number("timeout", &plan.timeout);
  table.Number("stall", &plan.stall);
  table.Text("trace_level", &plan.trace_level);
  for (const char* list : {"scenario", "model", "engines", "settings"}) table.Skip(list);
  PB_TRY(table.End());
  for (const auto& [key, limit] : {std::pair{"timeout", plan.timeout}, std::pair{"stall", plan.stall}})
    if (limit && !(*limit > 0)) return MakeError(Code::kMalformed, "the plan: {} is not above 0", key);
  constexpr const char* kLevels[] = {"none", "digest", "sketch", "full"};
  if (std::find(std::begin(kLevels), std::end(kLevels), plan.trace_level) == std::end(kLevels))
    return MakeError(Code::kMalformed, "the plan: trace_level is one of {}", fmt::join(kLevels, ", "));
  plan.scenarios = DocumentedScenarios();
  plan.engines = {EnginePair{}};
  plan.settings = {Setting{}};
  PB_TRY(ReadList(toml, "scenario", ReadScenario, &plan.scenarios));
  PB_TRY(ReadList(toml, "model", ReadModel, &plan.models));
  PB_TRY(ReadList(toml, "engines", ReadEngines, &plan.engines));
  PB_TRY(ReadList(toml, "settings", ReadSetting, &plan.settings));
  if (plan.models.empty())
    return MakeError(Code::kMalformed, "the plan has no [[model]], so nothing would be compared");
  plan.names_models = true;
  plan.names_engines = toml.contains("engines"), plan.names_settings = toml.contains("settings");
  return plan;
}

std::vector<Cell> CellsOf(const Plan& plan, int64_t threads) {
  std::vector<Cell> cells;
  for (const Scenario& scenario : plan.scenarios)
    for (const Model& model : plan.models)
      for (const EnginePair& engines : plan.engines)
        for (const Setting& setting : plan.settings)
          cells.push_back(CellOf(plan, scenario, model, engines, setting, threads));
  for (Cell& cell : cells)
    if (cell.trace_level == "none") cell.trace_level.clear();
  return cells;
}

Json ToJson(const Cell& c) {
  return {{"name", c.name},
          {"scenario", c.scenario},
          {"model", c.model},
          {"engines", c.engines},
          {"settings", c.settings},
          {"model_path", c.model_path},
          {"candidate", c.candidate},
          {"reference", c.reference},
          {"words", c.words},
          {"trace_level", c.trace_level},
          {"threads", c.threads},
          {"memory_mib", c.memory_mib},
          {"key", c.key}};
}

std::optional<Cell> CellOf(const Json& json) {
  try {
    Cell c;
    json.at("name").get_to(c.name);
    json.at("scenario").get_to(c.scenario);
    json.at("model").get_to(c.model);
    json.at("engines").get_to(c.engines);
    json.at("settings").get_to(c.settings);
    json.at("model_path").get_to(c.model_path);
    json.at("candidate").get_to(c.candidate);
    json.at("reference").get_to(c.reference);
    json.at("words").get_to(c.words);
    json.at("trace_level").get_to(c.trace_level);
    json.at("threads").get_to(c.threads);
    json.at("memory_mib").get_to(c.memory_mib);
    json.at("key").get_to(c.key);
    return c;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

}  // namespace pb::sweep
