// Holds what a command gave again against what its receipt says.
#include "receipt/again.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace pb::receipt {
namespace {

using compare::Outcome;
using Json = nlohmann::json;

class Comparing {
 public:
  Comparing(const Json& recorded, const Json& again) : recorded_(recorded), again_(again) {}

  Again Compare() {
    out_.verdict = again_["verdict"].get<std::string>();
    if (recorded_["command"] != again_["command"])
      Differ(Outcome::kInvalid,
             fmt::format("it is of {} and not of {}", recorded_["command"].get<std::string>(),
                         again_["command"].get<std::string>()));
    if (recorded_["verdict"] != again_["verdict"]) {
      const auto now = compare::FindOutcome(out_.verdict).value_or(Outcome::kInvalid);
      Differ(compare::ExitCode(now) != 0 ? now : Outcome::kInvalid,
             fmt::format("the verdict is {} now, and the receipt says {}: {}", out_.verdict,
                         recorded_["verdict"].get<std::string>(),
                         again_["reasons"][0]["text"].get<std::string>()));
    }
    if (recorded_["model"]["sha256"] != again_["model"]["sha256"])
      Differ(Outcome::kInvalid, "the model is another one");
    if (recorded_["coverage"]["expected"] != again_["coverage"]["expected"])
      Differ(Outcome::kInvalid,
             fmt::format("{} {} were to be compared now, and the receipt has {}",
                         again_["coverage"]["expected"].dump(), again_["coverage"]["unit"].get<std::string>(),
                         recorded_["coverage"]["expected"].dump()));
    CompareEngines();
    if (recorded_.contains("prompts") && again_.contains("prompts")) ComparePrompts();
    if (recorded_.contains("paths") && again_.contains("paths")) ComparePaths();
    if (recorded_.contains("axes") && again_.contains("axes") && same_processor_) CompareAxes();
    if (recorded_.contains("self_check") && again_.contains("self_check")) CompareCases();
    return std::move(out_);
  }

 private:
  void Differ(Outcome outcome, std::string text) {
    out_.outcome = std::max(out_.outcome, outcome);
    out_.differences.push_back(std::move(text));
  }

  void CompareEngines() {
    same_processor_ = recorded_["host"]["cpu"] == again_["host"]["cpu"];
    if (!same_processor_) out_.notes.push_back("another processor: figures need not have the same bits");
    for (size_t i = 0; i < recorded_["engines"].size() && i < again_["engines"].size(); ++i) {
      const Json &then = recorded_["engines"][i], &now = again_["engines"][i];
      if (then["identity"] == now["identity"]) continue;
      Differ(Outcome::kIncomplete,
             fmt::format("the {} is another one by now (identity {:.12}, then {:.12})",
                         then["role"].get<std::string>(), now["identity"].get<std::string>(),
                         then["identity"].get<std::string>()));
    }
  }

  // The comparisons beside it, one by one.
  void ComparePaths() {
    const Json &then = recorded_["paths"]["runs"], &now = again_["paths"]["runs"];
    if (then.size() != now.size())
      return Differ(Outcome::kInvalid,
                    fmt::format("{} comparisons over other code paths now, {} in the receipt", now.size(),
                                then.size()));
    for (size_t i = 0; i < then.size(); ++i)
      if (then[i]["name"] != now[i]["name"] || then[i]["verdict"] != now[i]["verdict"])
        Differ(Outcome::kInvalid, fmt::format("the code path '{}' is {} now, and the receipt says {} of '{}'",
                                              now[i]["name"].get<std::string>(), now[i]["verdict"].dump(),
                                              then[i]["verdict"].dump(), then[i]["name"].get<std::string>()));
  }

  // What an engine lies from itself, on the same processor.
  void CompareAxes() {
    const Json &then = recorded_["axes"], &now = again_["axes"];
    if (then.size() != now.size())
      return Differ(Outcome::kInvalid,
                    fmt::format("{} variations now, {} in the receipt", now.size(), then.size()));
    for (size_t i = 0; i < then.size(); ++i)
      for (const char* key : {"axis", "value", "refused", "equal_bits", "worst_kl"})
        if (then[i].value(key, Json()) != now[i].value(key, Json())) {
          Differ(Outcome::kIncomplete,
                 fmt::format("{} {}: {} is {} now, {} in the receipt", then[i]["axis"].get<std::string>(),
                             then[i]["value"].get<std::string>(), key, now[i].value(key, Json()).dump(),
                             then[i].value(key, Json()).dump()));
          break;
        }
  }

  void CompareCases() {
    const Json &then = recorded_["self_check"]["cases"], &now = again_["self_check"]["cases"];
    if (then.size() != now.size())
      return Differ(Outcome::kInvalid,
                    fmt::format("{} cases now, {} in the receipt", now.size(), then.size()));
    for (size_t i = 0; i < then.size(); ++i)
      for (const char* key : {"case", "verdict", "detected", "place", "blame"})
        if (then[i][key] != now[i][key]) {
          Differ(Outcome::kInvalid,
                 fmt::format("{}: {} is {} now, {} in the receipt", then[i]["case"].get<std::string>(), key,
                             now[i][key].dump(), then[i][key].dump()));
          break;
        }
  }

  void ComparePrompts() {
    const Json &then = recorded_["prompts"], &now = again_["prompts"];
    if (then.size() != now.size())
      return Differ(Outcome::kInvalid,
                    fmt::format("{} prompts now, {} in the receipt", now.size(), then.size()));
    for (size_t i = 0; i < then.size(); ++i) {
      if (then[i]["tokens"] != now[i]["tokens"])
        Differ(Outcome::kInvalid, fmt::format("prompt {} has other tokens", i));
      else if (recorded_["verdict"] != again_["verdict"])
        continue;  // what was chosen and computed follows
      else if (then[i]["decoded"] != now[i]["decoded"])
        Differ(same_processor_ ? Outcome::kInvalid : Outcome::kIncomplete,
               fmt::format("prompt {}: other tokens were decoded", i));
      else if (then[i]["logits_sha256"] != now[i]["logits_sha256"] && same_processor_)
        Differ(Outcome::kIncomplete,
               fmt::format("prompt {}: the logits have other bits, on the same processor", i));
    }
  }

  const Json &recorded_, &again_;
  bool same_processor_ = true;
  Again out_;
};

}  // namespace

Again CompareAgain(const Json& recorded, const Json& again) { return Comparing(recorded, again).Compare(); }

}  // namespace pb::receipt
