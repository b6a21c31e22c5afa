// Lays out measurements of speed and their comparison.
#include "report/benchmark_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "base/text.h"
#include "report/escape.h"
#include "report/headline.h"
#include "report/json.h"
#include "report/junit.h"
#include "report/table.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using Json = nlohmann::ordered_json;

// Of tokens a second over repeats.
struct Rates {
  double median = 0, lowest = 0, highest = 0;
  double spread() const { return median > 0 ? (highest - lowest) / median : 0; }
};

Rates RatesOf(const std::vector<double>& seconds, size_t n_tokens) {
  std::vector<double> rates;
  for (const double s : seconds) rates.push_back(s > 0 ? static_cast<double>(n_tokens) / s : 0);
  std::sort(rates.begin(), rates.end());
  const size_t n = rates.size();
  if (n == 0) return {};
  return {n % 2 == 1 ? rates[n / 2] : (rates[n / 2 - 1] + rates[n / 2]) / 2, rates.front(), rates.back()};
}

Json SpeedJson(const std::vector<double>& seconds, size_t n_tokens) {
  const Rates rates = RatesOf(seconds, n_tokens);
  return Json{{"n_tokens", n_tokens},
              {"n_repeats", seconds.size()},
              {"seconds", seconds},
              {"tokens_per_second",
               {{"median", rates.median},
                {"lowest", rates.lowest},
                {"highest", rates.highest},
                {"spread", rates.spread()}}}};
}

// What part of the memory's speed decoding takes; none where it is not known.
std::optional<double> ShareOf(const Benchmark& b) {
  const double memory = b.memory.bytes_per_second();
  const double rate = RatesOf(b.speed.decode_seconds, static_cast<size_t>(b.asked.n_decode)).median;
  if (b.weights_bytes == 0 || memory <= 0) return std::nullopt;
  return static_cast<double>(b.weights_bytes) * rate / memory;
}

std::string TokensDigest(const std::vector<int32_t>& tokens) {
  std::string text;
  for (const int32_t id : tokens) text += fmt::format("{}\n", id);
  return Sha256Hex(text);
}

Json MeasurementJson(const Benchmark& b) {
  Json digests = Json::array();
  for (const auto& tokens : b.speed.tokens) digests.push_back(TokensDigest(tokens));
  const double memory = b.memory.bytes_per_second();
  const auto share = ShareOf(b);
  return Json{{"prompt", SpeedJson(b.speed.prompt_seconds, b.asked.prompt.size())},
              {"decode", SpeedJson(b.speed.decode_seconds, static_cast<size_t>(b.asked.n_decode))},
              {"prompt_tokens", b.asked.prompt},
              {"tokens", b.speed.tokens.empty() ? Json::array() : Json(b.speed.tokens[0])},
              {"tokens_sha256", digests},
              {"n_warmup", b.asked.n_warmup},
              {"threads", b.threads},
              {"weights_bytes", b.weights_bytes},
              {"bandwidth",
               {{"bytes_per_second", memory > 0 ? Json(memory) : Json(nullptr)},
                {"share", share ? Json(*share) : Json(nullptr)},
                {"n_bytes", b.memory.n_bytes},
                {"seconds", b.memory.seconds}}}};
}

constexpr const char* kOtherTokens =
    "a repeat generated other tokens than the first: the engine does not repeat itself, so its speed is not "
    "that "
    "of one computation";

void PutVerdict(const Benchmark& b, Json* out) {
  const bool ok = b.repeats();
  const compare::Outcome outcome = ok ? compare::Outcome::kMatch : compare::Outcome::kIncomplete;
  (*out)["verdict"] = ok ? "measured" : compare::OutcomeName(outcome);
  (*out)["scope"] = nullptr;
  (*out)["exit_code"] = compare::ExitCode(outcome);
  (*out)["reasons"] =
      Json::array({Json{{"outcome", compare::OutcomeName(outcome)},
                        {"code", ok ? "measured" : "repeats-differ"},
                        {"text", ok ? fmt::format("{} repeats were measured", b.speed.tokens.size())
                                    : std::string(kOtherTokens)}}});
}

std::string SpeedText(const std::vector<double>& seconds, size_t n_tokens) {
  const Rates rates = RatesOf(seconds, n_tokens);
  return fmt::format("{} token{}, {:.1f} tokens/s: the median of {}, {:.1f} to {:.1f}, a spread of {:.1f} %",
                     n_tokens, n_tokens == 1 ? "" : "s", rates.median, seconds.size(), rates.lowest,
                     rates.highest, 100 * rates.spread());
}

std::string MemoryText(const Benchmark& b) {
  const auto share = ShareOf(b);
  const std::string threads = b.threads == 1 ? "1 thread" : fmt::format("{} threads", b.threads);
  if (!share)
    return fmt::format("{:.1f} GB/s by {}; what the engine reads of it is not known",
                       b.memory.bytes_per_second() / 1e9, threads);
  return fmt::format("{:.1f} MB of weights a token, {:.0f} % of the {:.1f} GB/s that {} read here{}",
                     static_cast<double>(b.weights_bytes) / 1e6, 100 * *share,
                     b.memory.bytes_per_second() / 1e9, b.threads == 1 ? "1 thread" : threads,
                     *share > 1 ? "; they lie in a cache" : "");
}

Headline HeadlineOf(const BenchComparison& c) {
  for (const receipt::SpeedChange& change : c.speeds.changes)
    if (change.regression) return {change.sentence, "", false};
  if (!c.speeds.why_not.empty()) return {"not compared: " + c.speeds.why_not, "", false};
  return {"no regression beyond the spread of repeats", "", false};
}

}  // namespace

bool Benchmark::repeats() const {
  return std::all_of(speed.tokens.begin(), speed.tokens.end(),
                     [&](const std::vector<int32_t>& tokens) { return tokens == speed.tokens[0]; });
}

std::string RenderText(const Benchmark& b, const Context& context, const std::string& receipt,
                       const TextOptions& options) {
  std::string out;
  const auto line = [&](std::string_view label, const std::string& text) {
    out += LabelledLine(label, text, options.width);
  };
  line("model", ModelLine(b.engine));
  line("engine", EngineLine(b.engine));
  line("prompt", SpeedText(b.speed.prompt_seconds, b.asked.prompt.size()));
  line("decode", SpeedText(b.speed.decode_seconds, static_cast<size_t>(b.asked.n_decode)));
  line("memory", MemoryText(b));
  for (const std::string& note : context.notes) line("note", Escape(note));
  if (!receipt.empty()) line("receipt", Escape(receipt));
  if (!b.repeats())
    out += "\n" + HeadlineBlock(compare::Outcome::kIncomplete, {kOtherTokens, "", false}, options);
  return out;
}

std::string RenderJson(const Benchmark& b, const Context& context, const std::string& receipt) {
  Json out{{"schema", "paritybit.benchmark/0"}};
  PutVerdict(b, &out);
  PutNext({}, &out);
  out["engine"] = EngineForReceipt(b.engine);
  out["model"] = Json{{"path", b.engine.model_path.string()}, {"sha256", b.engine.model_sha256}};
  out["benchmark"] = MeasurementJson(b);
  out["receipt"] = receipt.empty() ? Json(nullptr) : Json(receipt);
  out["notes"] = context.notes;
  return DumpJson(out, 2) + "\n";
}

std::string RenderReceipt(const Benchmark& b, const Context& context, const ReceiptHead& head) {
  Json out = ReceiptBase(context, head);
  PutVerdict(b, &out);
  out["engines"] = Json::array({EngineForReceipt(b.engine)});
  out["model"] = Json{{"name", b.engine.model_path.filename().string()}, {"sha256", b.engine.model_sha256}};
  const size_t asked = static_cast<size_t>(b.asked.n_repeats) * (static_cast<size_t>(b.asked.n_decode) + 1);
  size_t there = 0;
  for (const auto& tokens : b.speed.tokens) there += tokens.size();
  out["coverage"] =
      Json{{"unit", "tokens"},         {"expected", asked},         {"compared", there},
           {"missing", Json::array()}, {"unmapped", Json::array()}, {"unobservable", Json::array()}};
  out["limits"] = Json::array();
  out["choices"] = Json::array();
  for (const run::Choice& choice : b.choices)
    out["choices"].push_back({{"key", choice.key}, {"value", choice.value}, {"origin", choice.origin}});
  out["benchmark"] = MeasurementJson(b);
  out["wall_seconds"] = nullptr;
  out["non_finite_numbers"] = 0;
  return SealReceipt(out);
}

std::string RenderText(const BenchComparison& c, const TextOptions& options) {
  std::string out = LabelledLine("current", Escape(c.current), options.width) +
                    LabelledLine("baseline", Escape(c.baseline), options.width);
  for (const receipt::SpeedChange& change : c.speeds.changes)
    out += LabelledLine(change.name, change.sentence.substr(change.name.size() + 2), options.width);
  for (const std::string& note : c.speeds.notes) out += LabelledLine("note", Escape(note), options.width);
  return out + "\n" + HeadlineBlock(c.outcome, HeadlineOf(c), options);
}

std::string RenderJson(const BenchComparison& c) {
  Json out{{"schema", "paritybit.bench-compare/0"},
           {"verdict", compare::OutcomeName(c.outcome)},
           {"scope", nullptr},
           {"exit_code", compare::ExitCode(c.outcome)},
           {"reasons", Json::array()}};
  for (const receipt::SpeedChange& change : c.speeds.changes)
    if (change.regression) out["reasons"].push_back({{"code", "regression"}, {"text", change.sentence}});
  if (!c.speeds.why_not.empty())
    out["reasons"].push_back({{"code", "not-comparable"}, {"text", c.speeds.why_not}});
  PutNext({}, &out);
  out["current"] = c.current;
  out["baseline"] = c.baseline;
  out["changes"] = Json::array();
  for (const receipt::SpeedChange& change : c.speeds.changes)
    out["changes"].push_back({{"name", change.name},
                              {"current_tokens_per_second", change.current},
                              {"baseline_tokens_per_second", change.baseline},
                              {"percent", change.percent},
                              {"threshold_percent", change.threshold},
                              {"p", change.p},
                              {"regression", change.regression},
                              {"improvement", change.improvement}});
  out["notes"] = c.speeds.notes;
  return DumpJson(out, 2) + "\n";
}

std::string RenderJunit(const BenchComparison& c) {
  std::vector<JunitCase> cases;
  for (const receipt::SpeedChange& change : c.speeds.changes)
    cases.push_back({change.name, 0, change.regression ? change.sentence : "", ""});
  if (!c.speeds.why_not.empty()) cases.push_back({"comparable", 0, c.speeds.why_not, ""});
  return RenderJunit("paritybit bench-compare", cases);
}

std::string RenderMarkdown(const BenchComparison& c) {
  std::string out =
      fmt::format("**{}**: {}\n\n| | current | baseline | change | p | |\n|---|---|---|---|---|---|\n",
                  VerdictWord(c.outcome, false), HeadlineOf(c).sentence);
  for (const receipt::SpeedChange& change : c.speeds.changes)
    out += fmt::format("| {} | {:.1f} tokens/s | {:.1f} tokens/s | {:+.1f} % | {:.2g} | {} |\n", change.name,
                       change.current, change.baseline, change.percent, change.p,
                       change.regression    ? "regression"
                       : change.improvement ? "improvement"
                                            : "");
  for (const std::string& note : c.speeds.notes) out += "\n" + note + "\n";
  return out;
}

}  // namespace pb::report
