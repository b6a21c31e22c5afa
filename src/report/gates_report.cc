// Lays out the eight gates of a receipt.
#include "report/gates_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "report/escape.h"
#include "report/headline.h"
#include "report/json.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using Json = nlohmann::ordered_json;

// "crossval, native against llama.cpp,cpu.library=haswell, tiny.gguf, 2026-11-30T09:01:08Z".
std::string WhatItIsOf(const nlohmann::json& r) {
  std::string text = r["command"].get<std::string>();
  const nlohmann::json& engines = r["engines"];
  if (r["command"] == "self-check")
    return fmt::format("{}, {}, {}", text, r["self_check"]["what"].get<std::string>(),
                       r["created"].get<std::string>());
  text += ", " + engines[0]["spec"].get<std::string>();
  if (engines.size() > 1 && r["command"] != "audit")
    text += " against " + engines[1]["spec"].get<std::string>();
  return fmt::format("{}, {}, {}", text, r["model"]["name"].get<std::string>(),
                     r["created"].get<std::string>());
}

const receipt::Gate* WorstOf(const std::vector<receipt::Gate>& gates) {
  const receipt::Gate* worst = nullptr;
  for (const receipt::Gate& gate : gates)
    if (!gate.passed && (!worst || gate.outcome > worst->outcome)) worst = &gate;
  return worst;
}

Headline HeadlineOf(const GatesReport& report) {
  const auto n = std::count_if(report.gates.begin(), report.gates.end(),
                               [](const receipt::Gate& gate) { return gate.passed; });
  const std::string gates = fmt::format("{} of {} gates passed", n, report.gates.size());
  if (const receipt::Gate* worst = WorstOf(report.gates))
    return {fmt::format("the receipt does not stand, by {}: {}", worst->name, Escape(worst->saw)), gates};
  const std::string verdict = (*report.receipt)["verdict"].get<std::string>();
  if (report.again && !report.again->differences.empty())
    return {"the receipt does not hold: " + Escape(report.again->differences[0]), gates};
  return {fmt::format("the receipt stands: {}", verdict),
          report.again ? gates + ", and it holds again" : gates};
}

}  // namespace

std::string RenderText(const GatesReport& report, const TextOptions& options) {
  std::string out;
  const auto line = [&](std::string_view label, const std::string& text) {
    out += LabelledLine(label, text, options.width);
  };
  line("receipt", Escape(report.path));
  if (report.receipt) line("", Escape(WhatItIsOf(*report.receipt)));
  for (size_t i = 0; i < report.gates.size(); ++i) {
    const receipt::Gate& gate = report.gates[i];
    constexpr int kName = 13;
    const std::string head = fmt::format("{:<{}}{}  ", gate.name, kName, gate.passed ? "passed" : "FAILED");
    line(fmt::format("gate {}", i + 1), Together(head) + Escape(gate.saw));
  }
  if (report.again) {
    line("again",
         report.again->verdict.empty() ? "it did not run" : "the verdict is " + report.again->verdict);
    for (const std::string& text : report.again->differences) line("", Escape(text));
    for (const std::string& text : report.again->notes) line("", Escape(text));
  }
  for (const std::string& note : report.notes) line("note", Escape(note));
  // The words of the outcome are the receipt's own where it stands.
  return out + "\n" + HeadlineBlock(report.outcome, HeadlineOf(report), options);
}

std::string RenderJson(const GatesReport& report) {
  Json out{{"schema", "paritybit.verify-receipt/0"},
           {"verdict", compare::OutcomeName(report.outcome)},
           {"scope", nullptr},
           {"exit_code", compare::ExitCode(report.outcome)},
           {"reasons", Json::array()}};
  for (const receipt::Gate& gate : report.gates)
    if (!gate.passed) out["reasons"].push_back({{"code", "gate-" + gate.name}, {"text", gate.saw}});
  if (report.again)
    for (const std::string& text : report.again->differences)
      out["reasons"].push_back({{"code", "not-reproduced"}, {"text", text}});
  PutNext({}, &out);
  out["path"] = report.path;
  out["receipt"] = nullptr;
  if (report.receipt) {
    const nlohmann::json& r = *report.receipt;
    out["receipt"] = Json{{"command", r["command"]},
                          {"created", r["created"]},
                          {"verdict", r["verdict"]},
                          {"model_sha256", r["model"]["sha256"]},
                          {"receipt_sha256", r["receipt_sha256"]}};
  }
  out["gates"] = Json::array();
  for (const receipt::Gate& gate : report.gates)
    out["gates"].push_back(
        {{"gate", gate.name},
         {"passed", gate.passed},
         {"outcome", gate.passed ? Json(nullptr) : Json(compare::OutcomeName(gate.outcome))},
         {"saw", gate.saw}});
  out["again"] = nullptr;
  if (report.again)
    out["again"] = Json{{"verdict", report.again->verdict},
                        {"differences", report.again->differences},
                        {"notes", report.again->notes}};
  out["notes"] = report.notes;
  return DumpJson(out, 2) + "\n";
}

}  // namespace pb::report
