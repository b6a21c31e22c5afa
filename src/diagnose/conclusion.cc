// Words of conclusions: written, read back, and held against a truth.
#include "diagnose/conclusion.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <vector>

namespace pb::diagnose {
namespace {

constexpr std::array kWhere = {"unknown", "tokens",  "codes",         "scales",     "sums", "product",
                               "weights", "formula", "cache-written", "cache-read", "mask", "thread"};
constexpr std::array kAxes = {"unknown",  "all",   "columns", "blocks",   "code",
                              "features", "heads", "rows",    "positions"};
constexpr std::array kWhen = {"unknown",     "always",    "prefill",       "decode",  "from-batch",
                              "up-to-batch", "odd-batch", "from-position", "threads", "not-repeatable"};
constexpr std::array kWhat = {"unknown", "variation",  "factor",       "offset", "saturation", "truncation",
                              "absent",  "other-part", "other-tensor", "stale",  "non-finite"};
static_assert(kWhere.size() == size_t(Where::kCount) && kAxes.size() == size_t(Axis::kCount) &&
              kWhen.size() == size_t(WhenKind::kCount) && kWhat.size() == size_t(WhatKind::kCount));

bool HasNumber(WhenKind kind) {
  return kind == WhenKind::kFromBatch || kind == WhenKind::kUpToBatch || kind == WhenKind::kOddBatch ||
         kind == WhenKind::kFromPosition || kind == WhenKind::kThreads;
}
bool HasNumber(WhatKind kind) {
  return kind == WhatKind::kFactor || kind == WhatKind::kOffset || kind == WhatKind::kSaturation;
}
bool HasRange(Axis axis) { return axis != Axis::kUnknown && axis != Axis::kAll; }

template <class Enum, size_t n>
Result<Enum> Find(const std::array<const char*, n>& names, std::string_view word) {
  for (size_t i = 0; i < n; i++)
    if (word == names[i]) return static_cast<Enum>(i);
  return MakeError(Code::kUsage, "\"{}\" is no word of a conclusion", word);
}

template <class Number>
Status ReadNumber(std::string_view text, Number* out) {
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, *out);
  if (text.empty() || error != std::errc() || at != end)
    return MakeError(Code::kUsage, "\"{}\" is no number of a conclusion", text);
  return {};
}

// What is before `mark`, which is left in `rest` with what follows cut off; all, where it is not
// there.
std::string_view TakeUntil(char mark, std::string_view* rest) {
  const size_t at = rest->find(mark);
  const std::string_view before = rest->substr(0, at);
  *rest = at == std::string_view::npos ? std::string_view() : rest->substr(at + 1);
  return before;
}

Status ReadPart(std::string_view text, Region* part) {
  PB_ASSIGN(part->axis, Find<Axis>(kAxes, TakeUntil(':', &text)));
  if (!HasRange(part->axis)) return {};
  std::string_view rest = TakeUntil('/', &text);
  if (!text.empty()) PB_TRY(ReadNumber(text, &part->of));
  std::string_view range = TakeUntil('%', &rest);
  if (!rest.empty()) PB_TRY(ReadNumber(rest, &part->every));
  PB_TRY(ReadNumber(TakeUntil('-', &range), &part->first));
  part->last = part->first;
  if (!range.empty()) PB_TRY(ReadNumber(range, &part->last));
  if (part->first < 0 || part->last < part->first || part->every < 1 ||
      (part->of > 0 && part->last >= part->of))
    return MakeError(Code::kUsage, "\"{}\" is no range of a conclusion", PartText(*part));
  return {};
}

Status ReadWhat(std::string_view text, Conclusion* out) {
  PB_ASSIGN(out->what, Find<WhatKind>(kWhat, TakeUntil(':', &text)));
  if (out->what == WhatKind::kVariation) out->name = text;
  return HasNumber(out->what) && !text.empty() ? ReadNumber(text, &out->value) : Status();
}

bool SameNumber(double a, double b) {
  return std::fabs(a - b) <= 1e-3 * std::max(std::fabs(a), std::fabs(b));
}

// What one member says of the truth.
enum class Said { kRight, kNothing, kFalse };
Said Judge(bool said, bool known, bool same) {
  if (!known) return Said::kRight;
  return !said ? Said::kNothing : same ? Said::kRight : Said::kFalse;
}

// Whether it is every value: said so, or as the whole of an axis.
bool IsAll(const Region& r) {
  return r.axis == Axis::kAll || (r.of > 0 && r.every == 1 && r.first == 0 && r.last == r.of - 1);
}

// Heads that follow each other, as the features that they are of a row of so many.
Region InFeatures(const Region& heads, int64_t n_features) {
  if (heads.axis != Axis::kHeads || heads.of <= 0 || heads.every != 1 || n_features % heads.of != 0)
    return heads;
  const int64_t width = n_features / heads.of;
  return {Axis::kFeatures, heads.first * width, (heads.last + 1) * width - 1, 1, n_features};
}

bool SamePart(const Region& a, const Region& b) {
  if (IsAll(a) && IsAll(b)) return true;
  if (a.axis == Axis::kHeads && b.axis == Axis::kFeatures && b.of > 0)
    return InFeatures(a, b.of).axis == Axis::kFeatures && SamePart(InFeatures(a, b.of), b);
  if (a.axis == Axis::kFeatures && b.axis == Axis::kHeads) return SamePart(b, a);
  if (a.axis != b.axis) return false;
  if (!HasRange(a.axis)) return true;
  return a.first == b.first && a.last == b.last && (a.every == b.every || a.first == a.last) &&
         (a.of == 0 || b.of == 0 || a.of == b.of);
}

bool SameWhat(const Conclusion& said, const Conclusion& truth) {
  if (said.what != truth.what) return false;
  if (said.what == WhatKind::kVariation) return said.name == truth.name;
  return !HasNumber(said.what) || truth.value == 0 || SameNumber(said.value, truth.value);
}

}  // namespace

const char* WhereName(Where where) { return kWhere[static_cast<size_t>(where)]; }
const char* AxisName(Axis axis) { return kAxes[static_cast<size_t>(axis)]; }
const char* WhenName(WhenKind when) { return kWhen[static_cast<size_t>(when)]; }
const char* WhatName(WhatKind what) { return kWhat[static_cast<size_t>(what)]; }

// "columns:60-63", with "%4" and "/64" where they say something.
std::string PartText(const Region& part) {
  std::string text = AxisName(part.axis);
  if (!HasRange(part.axis)) return text;
  text += fmt::format(":{}", part.first);
  if (part.first != part.last) text += fmt::format("-{}", part.last);
  if (part.every != 1) text += fmt::format("%{}", part.every);
  if (part.of > 0) text += fmt::format("/{}", part.of);
  return text;
}

std::string WhenText(const When& when) {
  const std::string name = WhenName(when.kind);
  return HasNumber(when.kind) ? fmt::format("{}:{}", name, when.n) : name;
}

std::string ConclusionText(const Conclusion& c) {
  std::vector<std::string> words;
  if (c.where != Where::kUnknown) words.push_back(fmt::format("where={}", WhereName(c.where)));
  if (c.part.axis != Axis::kUnknown) words.push_back(fmt::format("part={}", PartText(c.part)));
  if (c.when.kind != WhenKind::kUnknown) words.push_back("when=" + WhenText(c.when));
  if (c.what != WhatKind::kUnknown) {
    words.push_back(fmt::format("what={}", WhatName(c.what)));
    if (c.what == WhatKind::kVariation) words.back() += fmt::format(":{}", c.name);
    if (HasNumber(c.what)) words.back() += fmt::format(":{:.6g}", c.value);
  }
  return words.empty() ? "unknown" : fmt::format("{}", fmt::join(words, " "));
}

Result<Conclusion> ParseConclusion(std::string_view text) {
  Conclusion out;
  if (text == "unknown") return out;
  while (!text.empty()) {
    std::string_view word = TakeUntil(' ', &text);
    const std::string_view member = TakeUntil('=', &word);
    if (member == "where") {
      PB_ASSIGN(out.where, Find<Where>(kWhere, word));
    } else if (member == "part") {
      PB_TRY(ReadPart(word, &out.part));
    } else if (member == "when") {
      PB_ASSIGN(out.when.kind, Find<WhenKind>(kWhen, TakeUntil(':', &word)));
      if (HasNumber(out.when.kind)) PB_TRY(ReadNumber(word, &out.when.n));
    } else if (member == "what") {
      PB_TRY(ReadWhat(word, &out));
    } else {
      return MakeError(Code::kUsage, "\"{}\" is no member of a conclusion", member);
    }
  }
  return out;
}

Match Compare(const Conclusion& said, const Conclusion& truth) {
  const Said members[] = {
      Judge(said.where != Where::kUnknown, truth.where != Where::kUnknown, said.where == truth.where),
      Judge(said.part.axis != Axis::kUnknown, truth.part.axis != Axis::kUnknown,
            SamePart(said.part, truth.part)),
      Judge(said.when.kind != WhenKind::kUnknown, truth.when.kind != WhenKind::kUnknown,
            said.when == truth.when),
      Judge(said.what != WhatKind::kUnknown, truth.what != WhatKind::kUnknown, SameWhat(said, truth))};
  bool all = true;
  for (Said member : members) {
    if (member == Said::kFalse) return Match::kWrong;
    all &= member == Said::kRight;
  }
  if (all) return Match::kRight;
  return members[0] == Said::kRight && members[1] == Said::kRight ? Match::kPartial : Match::kNothing;
}

}  // namespace pb::diagnose
