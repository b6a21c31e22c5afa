// Lays out what the page reads (web/src/data.ts). The figures of tokens become a byte each, on a
// scale of their own for each stage and prompt.
#include "report/page_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "page/page.h"
#include "report/escape.h"
#include "report/json.h"
#include "report/text_blocks.h"
#include "stages/stages.h"
#include "trace/base64.h"

namespace pb::report {
namespace {

using Json = nlohmann::ordered_json;
using Points = compare::TokenGrid::Points;

// Bytes of figures: value v has byte ceil(log10(v) / step) - first + 2, so that a byte never holds
// values on both sides of 1.
struct Scale {
  static constexpr uint8_t kNone = 0, kZero = 1, kInfinite = 255;
  static constexpr int kLowest = 2, kHighest = 254;
  double step = 0.01;
  int first = 0;

  explicit Scale(double low, double high) {
    constexpr double kFinest = 0.002;  // decades
    if (!(low > 0)) return;
    const double decades = std::log10(high) - std::log10(low);
    step = std::max(kFinest, decades / (kHighest - kLowest - 1));
    first = static_cast<int>(std::ceil(std::log10(low) / step));
  }
  uint8_t Of(float value) const {
    if (std::isnan(value)) return kNone;
    if (value == 0) return kZero;
    if (std::isinf(value)) return kInfinite;
    const int at = static_cast<int>(std::ceil(std::log10(static_cast<double>(value)) / step)) - first;
    return static_cast<uint8_t>(std::clamp(at + kLowest, kLowest, kHighest));
  }
};

// Figures of one stage over one prompt, layer by layer.
Json GridJson(Points::const_iterator begin, Points::const_iterator end) {
  const auto& [prompt, stage, first_layer] = begin->first;
  size_t n_positions = 0;
  double low = 0, high = 0;
  for (auto it = begin; it != end; ++it) {
    n_positions = std::max(n_positions, it->second.size());
    for (const float value : it->second) {
      if (!(value > 0) || std::isinf(value)) continue;
      low = low == 0 ? value : std::min<double>(low, value), high = std::max<double>(high, value);
    }
  }
  const Scale scale(low, high);
  Json layers = Json::array();
  std::vector<uint8_t> cells;
  for (auto it = begin; it != end; ++it) {
    layers.push_back(std::get<2>(it->first));
    for (size_t i = 0; i < n_positions; i++)
      cells.push_back(i < it->second.size() ? scale.Of(it->second[i]) : Scale::kNone);
  }
  return Json{{"prompt", prompt},
              {"stage", pb_vocabulary[stage].name},
              {"layers", layers},
              {"n_positions", n_positions},
              {"first", scale.first},
              {"step", scale.step},
              {"cells", trace::Base64(cells)}};
}

Json GridsJson(const compare::TokenGrid& grid) {
  Json out = Json::array();
  const auto same = [](const auto& a, const auto& b) {
    return std::get<0>(a) == std::get<0>(b) && std::get<1>(a) == std::get<1>(b);
  };
  for (auto it = grid.points().begin(); it != grid.points().end();) {
    auto end = std::find_if(it, grid.points().end(),
                            [&](const auto& other) { return !same(other.first, it->first); });
    out.push_back(GridJson(it, end));
    it = end;
  }
  return out;
}

Json StagesJson() {
  Json out = Json::array();
  for (const pb_stage_info& info : pb_vocabulary)
    out.push_back(
        Json{{"name", info.name}, {"text", stages::Of(info.stage).text}, {"per_layer", info.per_layer != 0}});
  return out;
}

// Without the marks that keep words together in a terminal.
std::string Plain(std::string_view text) { return Wrap(text, std::string::npos, 0); }

}  // namespace

std::string RenderPage(const Summary& s) {
  Json page{{"command", s.command},
            {"tool_version", s.tool_version},
            {"created", s.created},
            {"again", s.again},
            {"sentence", Plain(s.headline.sentence)},
            {"place", Plain(s.headline.place)},
            {"stages", StagesJson()},
            {"token_text", Json::object()},
            {"grids", {{"local", Json::array()}, {"accumulated", Json::array()}}},
            {"n_left_out", 0}};
  if (s.token_text)
    for (const auto& [id, text] : *s.token_text) page["token_text"][std::to_string(id)] = text;
  // The JSON report of two traces has no rows of logits.
  if (s.rows && s.command == "trace-diff") {
    const run::Comparison nothing;
    JsonWriter writer(nothing);
    page["positions"] = Json::array();
    for (const compare::LogitsRow& row : *s.rows) page["positions"].push_back(writer.Position(row, false));
  }
  if (s.token_errors) {
    page["grids"]["local"] = GridsJson(s.token_errors->local);
    page["grids"]["accumulated"] = GridsJson(s.token_errors->accumulated);
    page["n_left_out"] = s.token_errors->local.n_left_out() + s.token_errors->accumulated.n_left_out();
  }
  const std::string title = VerdictWord(s.verdict->outcome, false) + " - paritybit " + s.command;
  return page::Render(title, "{\"page\":" + DumpJson(page) + ",\"report\":" + s.json + "}");
}

}  // namespace pb::report
