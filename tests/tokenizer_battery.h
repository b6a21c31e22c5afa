// The hard battery of the tokenizer tests: our own strings, and the ids llama.cpp gives them
// (tests/data/tokenizer_battery.json).
#ifndef PARITYBIT_TESTS_TOKENIZER_BATTERY_H_
#define PARITYBIT_TESTS_TOKENIZER_BATTERY_H_

#include <array>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "tests/paths.h"
#include "tokenizer/gguf_keys.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace pb {

using Ids = std::vector<int32_t>;

inline const std::string kBatteryPath = SourcePath("tests/data/tokenizer_battery.json");
inline const std::array<std::string, 2> kTinyModels = {"tiny-bitnet-relu2", "tiny-bitnet-silu"};
// The options by their place in the file: 1 = add_special, 2 = parse_special.
inline constexpr int kOptions = 4;

struct BatteryCase {
  std::string text;
  std::map<std::string, std::array<Ids, kOptions>> ids;  // by model
};

inline std::string TinyModelPath(const std::string& model) { return ModelPath(model, "tq2_0"); }

inline Result<std::unique_ptr<const Tokenizer>> LoadTokenizer(const std::filesystem::path& path) {
  PB_ASSIGN(GgufFile file, GgufFile::Open(path));
  PB_ASSIGN(TokenizerData data, ReadTokenizerData(file));
  return Tokenizer::Create(std::move(data));
}

// Texts that are UTF-8 stand as "text", others as "hex".
inline std::vector<BatteryCase> LoadBattery() {
  std::ifstream file(kBatteryPath);
  const nlohmann::json data = nlohmann::json::parse(file);
  std::vector<BatteryCase> cases;
  for (const auto& item : data["cases"]) {
    BatteryCase c;
    if (item.contains("text")) c.text = item["text"];
    const std::string hex = item.value("hex", "");
    for (size_t i = 0; i + 1 < hex.size(); i += 2) {
      uint32_t byte = 0;
      ParseHex(std::string_view(hex).substr(i, 2), &byte);
      c.text.push_back(static_cast<char>(byte));
    }
    for (const auto& [model, ids] : item["ids"].items()) {
      for (size_t i = 0; i < kOptions; ++i) c.ids[model][i] = ids.at(i).get<Ids>();
    }
    cases.push_back(std::move(c));
  }
  return cases;
}

}  // namespace pb

#endif  // PARITYBIT_TESTS_TOKENIZER_BATTERY_H_
