// SARIF 2.1.0 (OASIS) of a run.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "report/ci_report.h"
#include "report/escape.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using Json = nlohmann::ordered_json;

// RFC 3986; a path that is not absolute stays relative to wherever the run was started.
std::string Uri(const std::string& path) {
  std::string out = path.starts_with('/') ? "file://" : "";
  for (const char c : path) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("-._~/").find(c) != std::string_view::npos;
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

Json Message(const std::string& text) { return Json{{"text", text}}; }

// The model file, and of the first reason the op.
Json Locations(const Summary& s, bool is_first) {
  Json location = Json::object();
  if (!s.model.empty()) location["physicalLocation"] = {{"artifactLocation", {{"uri", Uri(s.model)}}}};
  const auto& first = s.verdict->first_divergence;
  if (is_first && first && first->stage)
    location["logicalLocations"] =
        Json::array({{{"name", OpName(*first->stage, -1, {})},
                      {"fullyQualifiedName", OpName(*first->stage, first->layer, first->feature)},
                      {"kind", "function"}}});
  return location.empty() ? Json::array() : Json::array({location});
}

Json Results(const Summary& s, std::vector<std::string>* rules) {
  Json out = Json::array();
  for (size_t i = 0; i < s.verdict->reasons.size(); i++) {
    const compare::Reason& reason = s.verdict->reasons[i];
    const std::string id = compare::ReasonName(reason.code);
    auto rule = std::find(rules->begin(), rules->end(), id);
    if (rule == rules->end()) rule = rules->insert(rules->end(), id);
    const bool fails = compare::ExitCode(reason.outcome) != 0;
    std::string text = reason.text;
    if (i == 0)
      text = Wrap(s.headline.sentence, std::string::npos, 0) +
             (s.headline.place.empty() ? "" : "; " + Wrap(s.headline.place, std::string::npos, 0)) +
             (s.headline.tells_reason ? "" : ". " + text);
    out.push_back(Json{{"ruleId", id},
                       {"ruleIndex", rule - rules->begin()},
                       {"kind", fails ? "fail" : "pass"},
                       {"level", fails ? "error" : "none"},
                       {"message", Message(text)},
                       {"locations", Locations(s, i == 0)}});
  }
  return out;
}

}  // namespace

std::string RenderSarif(const Summary& s) {
  std::vector<std::string> names;
  const Json results = Results(s, &names);
  Json rules = Json::array();
  for (const std::string& name : names) {
    std::string words = name;
    std::replace(words.begin(), words.end(), '-', ' ');
    rules.push_back(Json{{"id", name}, {"shortDescription", Message(words)}});
  }
  const bool ran = s.verdict->outcome != compare::Outcome::kEngineFailed;
  Json invocation{{"executionSuccessful", ran}, {"exitCode", s.exit_code}};
  if (!s.again.empty()) invocation["commandLine"] = s.again;
  if (!s.created.empty()) invocation["endTimeUtc"] = s.created;
  const Json run{
      {"tool", {{"driver", {{"name", "paritybit"}, {"version", s.tool_version}, {"rules", rules}}}}},
      {"invocations", Json::array({invocation})},
      {"results", results},
      {"properties",
       {{"verdict", compare::OutcomeName(s.verdict->outcome)},
        {"blame", compare::BlameName(s.verdict->blame)},
        {"compared", s.verdict->coverage.compared},
        {"expected", s.verdict->coverage.expected}}}};
  const Json log{{"$schema",
                  "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/"
                  "sarif-schema-2.1.0.json"},
                 {"version", "2.1.0"},
                 {"runs", Json::array({run})}};
  return DumpJson(log, 2) + "\n";
}

}  // namespace pb::report
