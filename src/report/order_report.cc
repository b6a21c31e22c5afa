// Lays out tau by prompt, the reference's own tau beside it, and the worst exchanges.
#include "report/order_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "report/escape.h"
#include "report/parity_blocks.h"
#include "report/table.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using parity::LogitParity;
using parity::OrderRow;

std::string Tau(const std::optional<double>& tau) { return tau ? fmt::format("{:.3f}", *tau) : "none"; }

// One line a prompt: the median and the least tau, and what is exchanged.
std::string ByPrompt(const LogitParity& parity, const TextOptions& options) {
  Table table({{"prompt", true, 0, 34, 10},
               {"steps"},
               {"median"},
               {"least"},
               {"exchanged", false, 1},
               {"beyond noise", false, 2}},
              2);
  for (size_t i = 0; i < parity.run.prompts.size(); ++i) {
    std::vector<double> taus;
    int64_t n_exchanges = 0, n_beyond = 0;
    for (const OrderRow& row : parity.rows) {
      if (row.prompt != static_cast<int32_t>(i) || !row.order.tau) continue;
      taus.push_back(*row.order.tau);
      n_exchanges += row.order.n_exchanges, n_beyond += row.beyond_noise;
    }
    constexpr size_t kShown = 32;
    const std::string text = fmt::format("{} \"{}\"", i, Escape(parity.run.prompts[i].text));
    std::optional<double> least, median;
    if (!taus.empty()) least = *std::min_element(taus.begin(), taus.end()), median = parity::Median(taus);
    std::string shown = Fit(text, std::min(Columns(text), kShown));
    table.Row({shown, std::to_string(taus.size()), Tau(median), Tau(least), std::to_string(n_exchanges),
               std::to_string(n_beyond)});
  }
  return "\n" + table.Render(static_cast<size_t>(options.width)) + "\n";
}

std::string Least(std::vector<double> values) {
  return values.empty() ? "none" : fmt::format("{:.3f}", *std::min_element(values.begin(), values.end()));
}

std::string NoiseText(const parity::OrderNoise& noise) {
  if (noise.n_runs == 0) return "not measured: " + noise.why_none;
  return fmt::format(
      "the reference against itself, {} runs of random rounding: median tau {} or more, least "
      "{}; 1 - tau {:.1e} on average",
      noise.n_runs, Least(noise.median), Least(noise.least), noise.mean_disorder);
}

}  // namespace

std::string RenderOrderText(const LogitParity& parity, const Context& context, const TextOptions& options) {
  std::string out = PairHead(parity.run, options);
  const auto line = [&](std::string_view label, const std::string& text) {
    out += LabelledLine(label, text, options.width);
  };
  std::string sentence;
  if (!parity.rows.empty()) {
    out += ByPrompt(parity, options);
    line("tau-b", fmt::format("median {}, least {}, over {} steps of {} prompt{}", Tau(parity.median),
                              Tau(parity.least), parity.n_informative, parity.run.prompts.size(),
                              parity.run.prompts.size() == 1 ? "" : "s"));
    line("noise", NoiseText(parity.noise));
    const OrderRow* worst = nullptr;
    for (const OrderRow& row : parity.rows)
      if (row.order.worst && (!worst || row.order.worst->change > worst->order.worst->change)) worst = &row;
    if (worst)
      line("worst",
           fmt::format("prompt {}, position {}: {} stands before {} in the reference by {:.2e}, "
                       "behind it in the candidate by {:.2e}",
                       worst->prompt, worst->position, TokenName(parity.run, worst->order.worst->first),
                       TokenName(parity.run, worst->order.worst->second), worst->order.worst->gap_reference,
                       worst->order.worst->change - worst->order.worst->gap_reference));
    sentence = fmt::format("both engines rank the next tokens alike: median tau-b {} over {} steps",
                           Tau(parity.median), parity.n_informative);
    if (parity.n_exchanges > 0) sentence += "; what is exchanged, noise exchanges too";
    if (parity.noise.n_runs == 0)
      sentence = fmt::format("median tau-b {} over {} steps; what noise does was not measured",
                             Tau(parity.median), parity.n_informative);
  }
  return out + PairTail(parity.run, context, options, sentence);
}

std::string RenderOrderJson(const LogitParity& parity, const Context& context) {
  using Json = nlohmann::ordered_json;
  JsonWriter writer(parity.run);
  Json out = PairJson("paritybit.logit-parity/0", parity.run, &writer);
  const auto number = [&](const std::optional<double>& value) {
    return value ? writer.Number(*value) : Json();
  };
  out["tau"] = {{"median", number(parity.median)},
                {"least", number(parity.least)},
                {"n_steps", parity.rows.size()},
                {"n_informative", parity.n_informative},
                {"n_exchanges", parity.n_exchanges},
                {"n_beyond_noise", parity.n_beyond},
                {"mean_disorder", number(parity.mean_disorder)}};
  const parity::OrderNoise& noise = parity.noise;
  out["noise"] = {{"n_runs", noise.n_runs},
                  {"n_positions", noise.n_positions},
                  {"median", noise.median},
                  {"least", noise.least},
                  {"worst_change", writer.Number(noise.worst_spread)},
                  {"mean_disorder", writer.Number(noise.mean_disorder)},
                  {"why_none", noise.why_none.empty() ? Json() : Json(noise.why_none)}};
  out["prompts"] = Json::array();
  for (const run::PromptRecord& p : parity.run.prompts)
    out["prompts"].push_back(
        {{"text", p.text}, {"origin", p.origin}, {"tokens", p.tokens}, {"decoded", p.decoded}});
  out["steps"] = Json::array();
  for (const OrderRow& row : parity.rows) {
    Json step = {{"prompt", row.prompt},
                 {"position", row.position},
                 {"tau", number(row.order.tau)},
                 {"n_tokens", row.order.n_tokens},
                 {"n_exchanges", row.order.n_exchanges},
                 {"top1", {{"candidate", row.top1[0]}, {"reference", row.top1[1]}}},
                 {"beyond_noise", row.beyond_noise},
                 {"worst", nullptr}};
    if (const auto& worst = row.order.worst)
      step["worst"] = {{"first", worst->first},
                       {"second", worst->second},
                       {"gap_reference", writer.Number(worst->gap_reference)},
                       {"change", writer.Number(worst->change)}};
    out["steps"].push_back(std::move(step));
  }
  FinishPairJson(parity.run, context, &writer, &out);
  return DumpJson(out, 2) + "\n";
}

}  // namespace pb::report
