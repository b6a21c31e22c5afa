// The exact test of Mann and Whitney on the seconds of repeats, and what is told of a change.
#include "receipt/speeds.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

namespace pb::receipt {
namespace {

using Json = nlohmann::json;

double MedianOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n == 0 ? 0 : n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

SpeedChange ChangeOf(const char* name, const Json& current, const Json& baseline, double threshold,
                     double improvement) {
  SpeedChange change;
  change.name = name, change.threshold = threshold;
  const auto now = current["seconds"].get<std::vector<double>>(),
             then = baseline["seconds"].get<std::vector<double>>();
  const double n_now = current["n_tokens"], n_then = baseline["n_tokens"];
  const double seconds_now = MedianOf(now), seconds_then = MedianOf(then);
  if (seconds_now <= 0 || seconds_then <= 0) return change;
  change.current = n_now / seconds_now, change.baseline = n_then / seconds_then;
  change.percent = 100 * (change.current / change.baseline - 1);
  const double slower = RankP(now, then), faster = RankP(then, now);
  change.p = std::min(slower, faster);
  change.regression = change.percent < -threshold && slower <= kSpeedP;
  change.improvement = change.percent > improvement && faster <= kSpeedP;
  const char* told = change.regression                           ? "a regression"
                     : change.improvement                        ? "an improvement"
                     : change.p <= kSpeedP && change.percent < 0 ? "slower, within what is allowed"
                                                                 : "within the spread of repeats";
  change.sentence = fmt::format("{}: {:.1f} tokens/s, {:.1f} before ({:+.1f} %, p = {:.2g}): {}", name,
                                change.current, change.baseline, change.percent, change.p, told);
  return change;
}

std::string WhyNotComparable(const Json& a, const Json& b) {
  if (a["command"] != "benchmark" || b["command"] != "benchmark")
    return "one of them is no receipt of a benchmark";
  if (a["model"]["sha256"] != b["model"]["sha256"]) return "they are of different models";
  for (const char* key : {"prompt_tokens", "threads"})
    if (a["benchmark"][key] != b["benchmark"][key])
      return fmt::format("their {} differ", key == std::string("threads") ? "threads" : "prompts");
  for (const char* phase : {"prompt", "decode"})
    if (a["benchmark"][phase]["n_tokens"] != b["benchmark"][phase]["n_tokens"])
      return fmt::format("they are of different numbers of tokens ({})", phase);
  if (a["host"]["cpu"] != b["host"]["cpu"]) return "they are of different processors";
  return "";
}

}  // namespace

double RankP(std::span<const double> larger, std::span<const double> smaller) {
  const size_t n = larger.size(), m = smaller.size();
  if (n == 0 || m == 0) return 1;
  // Of equal values half counts; doubled, so that it is whole.
  size_t u2 = 0;
  for (const double a : larger)
    for (const double b : smaller) u2 += a > b ? 2 : a == b ? 1 : 0;
  // ways[i][u]: orders of i values of the one among j of the other in which u pairs are in favour.
  std::vector<std::vector<double>> ways(n + 1, std::vector<double>(n * m + 1, 0));
  for (auto& row : ways) row[0] = 1;  // j = 0: one order, no pair
  for (size_t j = 1; j <= m; ++j) {
    std::vector<std::vector<double>> next(n + 1, std::vector<double>(n * m + 1, 0));
    next[0][0] = 1;
    for (size_t i = 1; i <= n; ++i)
      for (size_t u = 0; u <= i * j; ++u) next[i][u] = ways[i][u] + (u >= j ? next[i - 1][u - j] : 0);
    ways = std::move(next);
  }
  double all = 0, as_far = 0;
  for (size_t u = 0; u <= n * m; ++u) {
    all += ways[n][u];
    if (2 * u >= u2) as_far += ways[n][u];
  }
  return as_far / all;
}

SpeedComparison CompareSpeeds(const Json& current, const Json& baseline, const SpeedThresholds& thresholds) {
  SpeedComparison out;
  out.why_not = WhyNotComparable(current, baseline);
  if (!out.why_not.empty()) return out;
  const Json &now = current["benchmark"], &then = baseline["benchmark"];
  out.changes = {
      ChangeOf("prompt", now["prompt"], then["prompt"], thresholds.prompt, thresholds.improvement),
      ChangeOf("decode", now["decode"], then["decode"], thresholds.decode, thresholds.improvement)};
  constexpr size_t kFewest = 5;  // of four and four the least p is 1/70
  const size_t n_now = now["decode"]["seconds"].size(), n_then = then["decode"]["seconds"].size();
  if (std::min(n_now, n_then) < kFewest)
    out.why_not =
        fmt::format("{} and {} repeats cannot show a change, {} of each can", n_now, n_then, kFewest);
  const auto bandwidth = [](const Json& b) { return b["bandwidth"]["bytes_per_second"]; };
  if (bandwidth(now).is_number() && bandwidth(then).is_number() &&
      bandwidth(now).get<double>() < 0.8 * bandwidth(then).get<double>())
    out.notes.push_back(fmt::format("the machine itself was slower: it read {:.1f} GB/s, {:.1f} before",
                                    bandwidth(now).get<double>() / 1e9, bandwidth(then).get<double>() / 1e9));
  return out;
}

}  // namespace pb::receipt
