// Lays out how many tokens agree, and of a prompt that fails the first token and its margin.
#include "report/greedy_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "report/escape.h"
#include "report/parity_blocks.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using parity::Flip;
using parity::GreedyParity;
using parity::GreedyRow;
using Json = nlohmann::ordered_json;

std::string FlipText(const GreedyParity& greedy, const Flip& flip) {
  return fmt::format(
      "token {} after the prompt: {} in the candidate, {} in the reference, whose margin is "
      "{:.2e} nats; the gap changes by {:.2e}, {} limit {:.2e}",
      flip.step + 1, TokenName(greedy.run, flip.chosen[0]), TokenName(greedy.run, flip.chosen[1]),
      flip.margin, flip.change, flip.explained ? "within its" : "beyond its", greedy.gap_limit);
}

std::string Text(const GreedyParity& greedy, const GreedyRow& row, const TextOptions& options) {
  std::string path;
  for (int32_t i = 0; i < row.n_compared; ++i) {
    const auto text = greedy.run.token_text.find(row.decoded[static_cast<size_t>(i)]);
    if (text != greedy.run.token_text.end()) path += text->second;
  }
  std::string out =
      LabelledLine("prompt", fmt::format("\"{}\" ({})", Escape(row.text), Escape(row.origin)), options.width);
  if (!path.empty())
    out += LabelledLine("goes on", fmt::format("\"{}\" in the reference", Escape(path)), options.width);
  constexpr size_t kShown = 3;
  for (size_t i = 0; i < std::min(row.flips.size(), kShown); ++i)
    out += LabelledLine(i == 0 ? "differs" : "", FlipText(greedy, row.flips[i]), options.width);
  if (row.flips.size() > kShown)
    out += LabelledLine("", fmt::format("and {} more", row.flips.size() - kShown), options.width);
  return out;
}

Json RowJson(const GreedyRow& row, JsonWriter* writer) {
  Json out = {{"text", row.text},       {"origin", row.origin},         {"tokens", row.tokens},
              {"decoded", row.decoded}, {"n_compared", row.n_compared}, {"equal", row.flips.empty()},
              {"failed", row.failed()}, {"from_cache", row.from_cache}, {"flips", Json::array()}};
  for (const Flip& flip : row.flips)
    out["flips"].push_back({{"step", flip.step},
                            {"position", flip.position},
                            {"candidate", flip.chosen[0]},
                            {"reference", flip.chosen[1]},
                            {"margin", writer->Number(flip.margin)},
                            {"change", writer->Number(flip.change)},
                            {"explained", flip.explained}});
  return out;
}

}  // namespace

std::string RenderGreedyText(const GreedyParity& greedy, const Context& context, const TextOptions& options) {
  std::string out = PairHead(greedy.run, options);
  std::string sentence;
  if (!greedy.rows.empty()) {
    int64_t n_cached = 0;
    for (const GreedyRow& row : greedy.rows) n_cached += row.from_cache;
    out += LabelledLine(
        "tokens",
        fmt::format("{} after {} prompt{}, {} of them differ{}", greedy.n_tokens, greedy.rows.size(),
                    greedy.rows.size() == 1 ? "" : "s", greedy.n_flips,
                    n_cached > 0 ? fmt::format("; {} prompts were compared before", n_cached) : ""),
        options.width);
    const auto failed =
        std::find_if(greedy.rows.begin(), greedy.rows.end(), [](const auto& row) { return row.failed(); });
    if (greedy.smallest) {
      out += Text(greedy, *greedy.smallest, options);
      out +=
          LabelledLine("",
                       fmt::format("the smallest prompt found, of {} smaller ones tried{}", greedy.n_shrinks,
                                   greedy.is_minimal ? "" : " (--max-shrinks ended the search)"),
                       options.width);
    } else if (failed != greedy.rows.end()) {
      out += Text(greedy, *failed, options);
    }
    if (!greedy.run.verdict.reasons.empty()) sentence = greedy.run.verdict.reasons[0].text;
  }
  return out + PairTail(greedy.run, context, options, sentence);
}

std::string RenderGreedyJson(const GreedyParity& greedy, const Context& context) {
  JsonWriter writer(greedy.run);
  Json out = PairJson("paritybit.greedy-parity/0", greedy.run, &writer);
  out["n_tokens"] = greedy.n_tokens;
  out["n_differ"] = greedy.n_flips;
  out["gap_limit"] = writer.Number(greedy.gap_limit);
  out["smallest"] = greedy.smallest ? RowJson(*greedy.smallest, &writer) : Json();
  out["n_shrinks"] = greedy.n_shrinks;
  out["is_minimal"] = greedy.is_minimal;
  out["prompts"] = Json::array();
  for (const GreedyRow& row : greedy.rows) out["prompts"].push_back(RowJson(row, &writer));
  out["noise_floor"] = writer.Floor();
  FinishPairJson(greedy.run, context, &writer, &out);
  return DumpJson(out, 2) + "\n";
}

}  // namespace pb::report
