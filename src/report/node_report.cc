// What Model Explorer reads: the ops of the model as a graph, and their errors as node data of it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "report/ci_report.h"
#include "stages/stages.h"

namespace pb::report {
namespace {

using Json = nlohmann::ordered_json;
using Place = std::pair<int32_t, int32_t>;  // layer, stage

std::string NodeId(const Place& place) {
  const std::string stage = stages::IsStage(place.second) ? stages::Of(place.second).name : "unmapped";
  return place.first < 0 ? stage : fmt::format("layer_{}/{}", place.first, stage);
}

// The worst of each op of each layer.
std::map<Place, double> Worst(const Summary& s) {
  std::map<Place, double> worst;
  for (const compare::PointRow& p : s.points) {
    const double ratio = p.is_defect() || p.bound_ratio <= 1 ? p.bound_ratio : 1;  // explained: within
    auto [at, fresh] = worst.try_emplace({p.layer, p.stage}, ratio);
    if (!fresh && !(ratio <= at->second)) at->second = ratio;
  }
  return worst;
}

// Where an op's inputs come from, of the ops that there are.
Json Edges(const Place& place, const std::map<Place, double>& ops, stages::Set existing, int32_t n_layers) {
  Json edges = Json::array();
  const auto [layer, stage] = place;
  if (!stages::IsStage(stage)) return edges;
  int input = 0;
  for (const stages::Input& in : stages::InputsOf(static_cast<pb_stage>(stage), existing)) {
    const int32_t from = in.Layer(layer, n_layers);
    const Place source{from, in.previous_layer && from < 0 ? PB_STAGE_EMBEDDINGS : in.stage};
    if (ops.count(source))
      edges.push_back(Json{{"sourceNodeId", NodeId(source)}, {"targetNodeInputId", std::to_string(input)}});
    ++input;
  }
  return edges;
}

}  // namespace

std::string RenderNodeGraph(const Summary& s) {
  const std::map<Place, double> ops = Worst(s);
  stages::Set existing;
  int32_t n_layers = 0;
  for (const auto& [place, ratio] : ops) {
    if (stages::IsStage(place.second)) existing |= static_cast<pb_stage>(place.second);
    n_layers = std::max(n_layers, place.first + 1);
  }
  Json nodes = Json::array();
  for (const auto& [place, ratio] : ops) {
    Json node{{"id", NodeId(place)},
              {"label", stages::IsStage(place.second) ? stages::Of(place.second).text : "unmapped"},
              {"namespace", place.first < 0 ? "" : fmt::format("layer_{}", place.first)},
              {"incomingEdges", Edges(place, ops, existing, n_layers)}};
    nodes.push_back(std::move(node));
  }
  const Json graph{{"id", "ops"}, {"nodes", nodes}};
  return DumpJson(Json{{"label", "paritybit " + s.command}, {"graphs", Json::array({graph})}}, 2) + "\n";
}

std::string RenderNodeData(const Summary& s) {
  constexpr double kInfinite = 1e300;  // JSON has no infinity
  Json results = Json::object();
  for (const auto& [place, ratio] : Worst(s))
    results[NodeId(place)] = {{"value", std::isfinite(ratio) ? ratio : kInfinite}};
  // Each colour is of the values up to its threshold.
  const Json thresholds = Json::array({{{"value", 0.1}, {"bgColor", "#dfe9f5"}},
                                       {{"value", 1}, {"bgColor", "#a3c0de"}},
                                       {{"value", 100}, {"bgColor", "#f5c26b"}},
                                       {{"value", kInfinite}, {"bgColor", "#e2703a"}}});
  const Json data{{"name", "error over its bound"}, {"results", results}, {"thresholds", thresholds}};
  return DumpJson(Json{{"ops", data}}, 2) + "\n";
}

}  // namespace pb::report
