// An engine that was run, and what it said of itself: pure data for verdicts, reports and receipts.
#ifndef PARITYBIT_DRIVE_ENGINE_RECORD_H_
#define PARITYBIT_DRIVE_ENGINE_RECORD_H_

#include <filesystem>
#include <string>

#include "host/engine.h"

namespace pb::drive {

// One side of the comparison and what it said of itself.
struct EngineRecord {
  std::string role;              // "candidate" "reference"
  std::string spec;              // as named by the user: "llama.cpp", "./libmine.so,threads=2"
  std::filesystem::path plugin;  // empty: never found
  std::string plugin_sha256;
  host::Settings settings;  // in force: the set-up's own, then the user's
  host::Facts description;  // name version commit build isa digest.* (abi/engine.h: describe)
  host::Facts model;        // what it understood of the model file
  host::Facts session;      // settings as they took effect
  std::string identity;     // sha256 over plugin and library digests, version and instruction set
  std::filesystem::path model_path;
  std::string model_sha256;
  std::string error;       // why it failed; empty when it did not
  std::string last_words;  // its last stderr lines when it failed

  // The facts in types.
  trace::EngineFacts engine_facts() const { return trace::ReadEngineFacts(description); }
  trace::ModelFacts model_facts() const { return trace::ReadModelFacts(model); }
  trace::SessionFacts session_facts() const { return trace::ReadSessionFacts(session); }
};

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_ENGINE_RECORD_H_
