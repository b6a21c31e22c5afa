// Parses rules and matches points against them.
#include "trace/filter.h"

#include <fnmatch.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace pb::trace {
namespace {

bool IsGlob(std::string_view pattern) { return pattern.find_first_of("*?[") != std::string_view::npos; }

bool GlobMatches(const std::string& pattern, const std::string& text) {
  return fnmatch(pattern.c_str(), text.c_str(), 0) == 0;
}

struct Range {
  int32_t first = 0, last = 0;
};

// "3", "-1", "0-3", "5-"; nothing when it is none of these.
std::optional<Range> ParseRange(std::string_view text) {
  Range range;
  const char* end = text.data() + text.size();
  auto [at, error] = std::from_chars(text.data(), end, range.first);
  if (error != std::errc()) return std::nullopt;
  range.last = range.first;
  if (at == end) return range;
  if (*at++ != '-') return std::nullopt;
  range.last = INT32_MAX;
  if (at == end) return range;
  auto [rest, second] = std::from_chars(at, end, range.last);
  if (second != std::errc() || rest != end || range.last < range.first) return std::nullopt;
  return range;
}

bool NumberMatches(const std::vector<std::string>& patterns, int32_t value) {
  if (patterns.empty()) return true;
  return std::any_of(patterns.begin(), patterns.end(), [value](const std::string& pattern) {
    if (IsGlob(pattern)) return GlobMatches(pattern, std::to_string(value));
    const auto range = ParseRange(pattern);
    return range && value >= range->first && value <= range->last;
  });
}

bool TextMatches(const std::vector<std::string>& patterns, std::string_view text) {
  if (patterns.empty()) return true;
  const std::string whole(text);
  return std::any_of(patterns.begin(), patterns.end(),
                     [&whole](const std::string& pattern) { return GlobMatches(pattern, whole); });
}

// The parts between separators.
std::vector<std::string> Split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace

Status PointFilter::Add(std::string_view text) {
  Rule rule;
  for (const std::string& field : Split(text, ',')) {
    const size_t equals = field.find('=');
    const std::string key = field.substr(0, equals);
    Patterns* patterns = key == "stage"      ? &rule.stage
                         : key == "layer"    ? &rule.layer
                         : key == "step"     ? &rule.step
                         : key == "position" ? &rule.position
                                             : nullptr;
    if (!patterns || equals == std::string::npos || !patterns->empty()) {
      return MakeError(Code::kUsage,
                       "filter `{}`: `{}` is not one of stage=, layer=, step=, position=, each once", text,
                       field);
    }
    *patterns = Split(std::string_view(field).substr(equals + 1), '|');
    for (const std::string& pattern : *patterns) {
      const bool good =
          !pattern.empty() && (patterns == &rule.stage || IsGlob(pattern) || ParseRange(pattern));
      if (!good) {
        return MakeError(Code::kUsage, "filter `{}`: `{}` is no {}", text, pattern,
                         patterns == &rule.stage ? "stage" : "number, range (0-3, 5-) or glob");
      }
    }
  }
  rules_.push_back(std::move(rule));
  text_ += (text_.empty() ? "" : "; ") + std::string(text);
  return {};
}

bool PointFilter::Wants(std::string_view stage, int32_t layer, int32_t step, int32_t position) const {
  return rules_.empty() || std::any_of(rules_.begin(), rules_.end(), [&](const Rule& rule) {
           return NumberMatches(rule.step, step) && NumberMatches(rule.layer, layer) &&
                  NumberMatches(rule.position, position) && TextMatches(rule.stage, stage);
         });
}

bool PointFilter::MayWantStage(std::string_view stage, int32_t step) const {
  return rules_.empty() || std::any_of(rules_.begin(), rules_.end(), [&](const Rule& rule) {
           return NumberMatches(rule.step, step) && TextMatches(rule.stage, stage);
         });
}

bool PointFilter::MayWantLayer(int32_t layer, int32_t step) const {
  return rules_.empty() || std::any_of(rules_.begin(), rules_.end(), [&](const Rule& rule) {
           return NumberMatches(rule.step, step) && NumberMatches(rule.layer, layer);
         });
}

}  // namespace pb::trace
