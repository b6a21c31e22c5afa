// What a sweep runs: scenarios, models, pairs of engines and settings, and the cells that they make
// with each other. Pure.
#ifndef PARITYBIT_SWEEP_PLAN_H_
#define PARITYBIT_SWEEP_PLAN_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace pb::sweep {

struct Scenario {
  std::string name;
  std::vector<std::string> prompts;
  std::string prompt_file;     // instead of prompts
  std::string framed, system;  // as --prompt-template, --system-prompt; empty: not said
  int64_t max_tokens = 0;
};

struct Model {
  std::string name, path, hf_config;
  std::optional<double> memory_mib;  // what a cell with it takes; else estimated
};

struct EnginePair {
  std::string name, candidate = "native", reference = "llama.cpp";
  std::vector<std::string> set, set_reference;
};

struct Setting {
  std::string name;
  int64_t threads = 0;                 // of each engine; 0: not said
  std::vector<std::string> arguments;  // further words of crossval
};

struct Plan {
  std::vector<Scenario> scenarios;
  std::vector<Model> models;
  std::vector<EnginePair> engines;
  std::vector<Setting> settings;
  // Whether the cells' names tell them: where the file lists them.
  bool names_models = false, names_engines = false, names_settings = false;
  std::optional<double> timeout, stall;  // seconds
  std::string trace_level = "sketch";
};

// The documented three: `2+2=` and 1 token, `Hello` and 2, `Count: 1,2,3,` and 4.
std::vector<Scenario> DocumentedScenarios();

// Of a TOML file as JSON (docs/sweep.md). What it does not list is the default: the documented
// scenarios, native against llama.cpp, one thread. kMalformed: a key that is not known, a value of
// another type, a name twice, no model.
Result<Plan> ReadPlan(const nlohmann::json& toml);

// One comparison: what `paritybit crossval` is called with, and where its result stands.
struct Cell {
  std::string name;  // of its folder and of its file
  std::string scenario, model, engines, settings;
  std::string model_path, candidate, reference;
  std::vector<std::string> words;  // "crossval", ... as a user would type them
  std::string trace_level;         // of the traces that are kept; empty: none are
  int64_t threads = 1;             // of each engine
  double memory_mib = 0;           // of the whole cell
  std::string key;                 // digest of all that decides the result
};
nlohmann::json ToJson(const Cell& cell);
// None: it is no cell.
std::optional<Cell> CellOf(const nlohmann::json& json);

// All of them: scenario by scenario, then by model, engines and settings. Keys and memory are left
// open. `threads`: of a cell whose settings say none.
std::vector<Cell> CellsOf(const Plan& plan, int64_t threads);

}  // namespace pb::sweep

#endif  // PARITYBIT_SWEEP_PLAN_H_
