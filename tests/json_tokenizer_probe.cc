// Reads texts in hexadecimal digits, one a line, and writes for each the ids that a tokenizer.json
// gives in both modes, and the text that comes back: what tokenizer_json_test.py compares.
//   json_tokenizer_probe tokenizer.json < texts
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "tokenizer/json_tokenizer.h"

namespace pb {
namespace {

std::string FromHex(const std::string& digits) {
  std::string bytes;
  for (size_t i = 0; i + 1 < digits.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  return bytes;
}

std::string ToHex(const std::string& bytes) {
  std::string digits;
  for (char byte : bytes) digits += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return digits;
}

nlohmann::json Answer(const Tokenizer& tokenizer, const std::string& text) {
  nlohmann::json answer;
  for (bool special : {true, false}) {
    const auto ids = tokenizer.Encode(text, {special, special});
    if (!ids.ok()) {
      answer["error"] = ids.error().message;
      return answer;
    }
    answer["ids"].push_back(*ids);
    for (bool shown : {true, false}) {
      const auto back = tokenizer.Decode(*ids, shown);
      if (!back.ok()) {
        answer["error"] = back.error().message;
        return answer;
      }
      answer["back"].push_back(ToHex(*back));
    }
  }
  return answer;
}

}  // namespace
}  // namespace pb

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto tokenizer = pb::LoadJsonTokenizer(argv[1]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.error().message.c_str());
    return 5;
  }
  for (std::string line; std::getline(std::cin, line);)
    std::cout << pb::Answer(**tokenizer, pb::FromHex(line)).dump() << "\n";
  return 0;
}
