// Splits NAME,key=value,... and edits lists of settings.
#include "drive/engine_spec.h"

namespace pb::drive {

Result<std::pair<std::string, std::string>> ParseSetting(std::string_view text, std::string_view flag) {
  size_t equals = text.find('=');
  if (equals == 0 || equals == std::string_view::npos || equals + 1 == text.size())
    return MakeError(Code::kUsage, "{}: `{}` is not key=value", flag, text);
  return std::pair(std::string(text.substr(0, equals)), std::string(text.substr(equals + 1)));
}

Result<EngineName> ParseEngineName(std::string_view text) {
  EngineName engine;
  size_t comma = text.find(',');
  engine.name = text.substr(0, comma);
  if (engine.name.empty())
    return MakeError(Code::kUsage, "`{}` names no engine; write NAME or PATH[,key=value...]", text);
  while (comma != std::string_view::npos) {
    text.remove_prefix(comma + 1);
    comma = text.find(',');
    PB_ASSIGN(auto setting, ParseSetting(text.substr(0, comma), engine.name));
    PutSetting(engine.settings, std::move(setting.first), std::move(setting.second));
  }
  return engine;
}

void PutSetting(host::Settings& settings, std::string key, std::string value) {
  for (auto& [k, v] : settings) {
    if (k == key) {
      v = std::move(value);
      return;
    }
  }
  settings.emplace_back(std::move(key), std::move(value));
}

const std::string* FindSetting(const host::Settings& settings, std::string_view key) {
  for (const auto& [k, v] : settings)
    if (k == key) return &v;
  return nullptr;
}

}  // namespace pb::drive
