// How an engine is named: NAME|PATH[,key=value...].
#ifndef PARITYBIT_DRIVE_ENGINE_SPEC_H_
#define PARITYBIT_DRIVE_ENGINE_SPEC_H_

#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.h"
#include "host/engine.h"

namespace pb::drive {

// An engine ready to start.
struct EngineSpec {
  std::string text;  // as the user named it
  std::filesystem::path plugin;
  // the set-up's own, then the user's; a later one replaces an earlier one of its key
  host::Settings settings;
};

// What a user typed, before anybody looked for the plugin.
struct EngineName {
  std::string name;  // "native", "llama.cpp", "./libmine.so"
  host::Settings settings;
};

// Splits NAME[,key=value...]. kUsage names the part that is not key=value.
Result<EngineName> ParseEngineName(std::string_view text);
// Splits key=value; `flag` is named in the error.
Result<std::pair<std::string, std::string>> ParseSetting(std::string_view text, std::string_view flag);

// Sets a key, replacing an earlier value.
void PutSetting(host::Settings& settings, std::string key, std::string value);
// nullptr when the key is not set.
const std::string* FindSetting(const host::Settings& settings, std::string_view key);

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_ENGINE_SPEC_H_
