// Normalisers as the `tokenizers` package defines them, one step each.
#include "tokenizer/json_normalizer.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "tokenizer/bpe.h"
#include "tokenizer/chars_map.h"
#include "tokenizer/pattern.h"
#include "tokenizer/unicode_classes.h"
#include "tokenizer/utf8.h"
#include "tokenizer/wordpiece.h"

namespace pb {
namespace {

constexpr int kMaxNesting = 16;

bool Is(uint32_t c, uint32_t mask) { return (mask >> Categories(UnicodeVersion::k16)[c] & 1) != 0; }

// Writes for each code point what `write` appends; a first one that nothing is written of is no
// longer the input's.
template <typename Write>
void Rewrite(JsonText* text, const Write& write) {
  std::string out;
  out.reserve(text->text.size());
  for (size_t at = 0; at < text->text.size();) {
    const CodePoint c = ReadCodePoint(std::string_view(text->text).substr(at));
    write(c.value, &out);
    if (at == 0 && out.empty()) text->at_start = false;
    at += c.bytes;
  }
  text->text = std::move(out);
}

template <typename Keeps>
void Filter(JsonText* text, const Keeps& keeps) {
  Rewrite(text, [&](uint32_t c, std::string* out) {
    if (keeps(c)) AppendUtf8(c, out);
  });
}

Status NormaliseUnicode(JsonText* text, int options) {
  utf8proc_uint8_t* result = nullptr;
  const auto n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text->text.data()),
                              static_cast<utf8proc_ssize_t>(text->text.size()), &result,
                              static_cast<utf8proc_option_t>(UTF8PROC_STABLE | options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, std::free);
  if (n < 0) return MakeError(Code::kInternal, "Unicode normalisation: {}", utf8proc_errmsg(n));
  text->text.assign(reinterpret_cast<const char*>(result), static_cast<size_t>(n));
  return {};
}

void Lowercase(JsonText* text) {
  Rewrite(text, [](uint32_t c, std::string* out) {
    if (c == 0x130) {  // the only one whose lower case is two
      out->append("i\xCC\x87");
    } else {
      AppendUtf8(static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
    }
  });
}

// SentencePiece's nmt rules.
void Nmt(JsonText* text) {
  Rewrite(text, [](uint32_t c, std::string* out) {
    const bool gone =
        (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
    const bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                       (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                       c == 0xFEFF || c == 0xFFFD;
    if (!gone) AppendUtf8(space ? ' ' : c, out);
  });
}

struct BertOptions {
  bool clean = true, ideographs = true, strip_accents = true, lowercase = true;
};

Status Bert(const BertOptions& options, JsonText* text) {
  constexpr uint32_t kControl = CategoryMask("C");
  if (options.clean)
    Rewrite(text, [](uint32_t c, std::string* out) {
      if (c == '\t' || c == '\n' || c == '\r' || IsWhiteSpace(c)) {
        out->push_back(' ');
      } else if (c != 0 && c != 0xFFFD && !Is(c, kControl & ~CategoryMask("Cn"))) {
        AppendUtf8(c, out);
      }
    });
  if (options.ideographs)
    Rewrite(text, [](uint32_t c, std::string* out) {
      const bool apart = IsBertIdeograph(c);
      if (apart) out->push_back(' ');
      AppendUtf8(c, out);
      if (apart) out->push_back(' ');
    });
  if (options.strip_accents) {
    PB_TRY(NormaliseUnicode(text, UTF8PROC_DECOMPOSE));
    Filter(text, [](uint32_t c) { return !Is(c, CategoryMask("Mn")); });
  }
  if (options.lowercase) Lowercase(text);
  return {};
}

void Strip(bool left, bool right, JsonText* text) {
  std::string_view rest = text->text;
  while (left && !rest.empty()) {
    const CodePoint c = ReadCodePoint(rest);
    if (!IsWhiteSpace(c.value)) break;
    rest.remove_prefix(c.bytes), text->at_start = false;
  }
  while (right && !rest.empty()) {
    size_t begin = rest.size() - 1;
    while (begin > 0 && (rest[begin] & 0xC0) == 0x80) --begin;
    if (!IsWhiteSpace(ReadCodePoint(rest.substr(begin)).value)) break;
    rest.remove_suffix(rest.size() - begin);
  }
  text->text = std::string(rest);
}

// Grapheme clusters of fewer than six bytes are looked up whole, others by their characters; what the
// map has for the shortest head of either stands for the whole of it. So the package does.
Status ApplyCharsMap(const CharsMap& map, JsonText* text) {
  std::string out;
  const std::string_view all = text->text;
  auto look_up = [&](std::string_view part) -> Result<bool> {
    PB_ASSIGN(const auto found, map.Shortest(part));
    if (found) out.append(found->with);
    return found.has_value();
  };
  for (size_t begin = 0; begin < all.size();) {
    CodePoint last = ReadCodePoint(all.substr(begin));
    size_t end = begin + last.bytes;
    utf8proc_int32_t state = 0;
    while (end < all.size()) {
      const CodePoint next = ReadCodePoint(all.substr(end));
      if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(last.value),
                                           static_cast<utf8proc_int32_t>(next.value), &state))
        break;
      end += next.bytes, last = next;
    }
    const std::string_view cluster = all.substr(begin, end - begin);
    begin = end;
    if (cluster.size() < 6) {
      PB_ASSIGN(const bool found, look_up(cluster));
      if (found) continue;
    }
    for (size_t at = 0; at < cluster.size();) {
      const size_t bytes = ReadCodePoint(cluster.substr(at)).bytes;
      PB_ASSIGN(const bool found, look_up(cluster.substr(at, bytes)));
      if (!found) out.append(cluster.substr(at, bytes));
      at += bytes;
    }
  }
  text->text = std::move(out);
  return {};
}

Result<std::string> DecodeBase64(const JsonField& field) {
  PB_ASSIGN(const std::string text, field.Text());
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  int n_bits = 0;
  for (size_t i = 0; i < text.size() && text[i] != '='; ++i) {
    const size_t digit = kDigits.find(text[i]);
    if (digit == kDigits.npos) return field.Wrong(fmt::format("character {} is none of base64's", i));
    bits = bits << 6 | static_cast<uint32_t>(digit), n_bits += 6;
    if (n_bits >= 8) out.push_back(static_cast<char>(bits >> (n_bits -= 8)));
  }
  return out;
}

Status ReplaceMatches(const JsonMatcher& matcher, const std::string& with, JsonText* text) {
  PB_ASSIGN(const std::vector<JsonMatch> matches, matcher(text->text));
  std::string out;
  for (const JsonMatch& match : matches) {
    if (match.matches && match.begin == 0 && match.end > 0 && with.empty()) text->at_start = false;
    out.append(match.matches ? std::string_view(with)
                             : std::string_view(text->text).substr(match.begin, match.end - match.begin));
  }
  text->text = std::move(out);
  return {};
}

}  // namespace

Result<JsonMatcher> MakeRegexMatcher(std::string_view expression, const JsonField& field) {
  auto compiled = Pattern::Compile(expression, UnicodeVersion::k16);
  if (!compiled.ok()) return std::move(compiled).error().In(field.path());
  auto pattern = std::make_shared<const Pattern>(std::move(compiled).value());
  return JsonMatcher([pattern, path = field.path()](std::string_view text) -> Result<std::vector<JsonMatch>> {
    std::vector<uint32_t> points;
    std::vector<size_t> bytes;  // where each begins
    points.reserve(text.size()), bytes.reserve(text.size() + 1);
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = ReadCodePoint(text.substr(at));
      points.push_back(c.value), bytes.push_back(at);
      at += c.bytes;
    }
    bytes.push_back(text.size());
    std::vector<JsonMatch> matches;
    PatternBudget budget(points.size());
    size_t covered = 0, from = 0;
    for (bool first = true; from <= points.size(); first = false) {
      auto match = pattern->Find(points, from, &budget);
      if (!match.ok()) return std::move(match).error().In(path);
      if (!*match) break;
      const auto [begin, end] = **match;
      from = begin == end ? end + 1 : end;
      if (begin == end && begin == covered && !first) continue;  // behind the last match
      if (begin > covered) matches.push_back({bytes[covered], bytes[begin], false});
      matches.push_back({bytes[begin], bytes[end], true});
      covered = end;
    }
    if (covered < points.size()) matches.push_back({bytes[covered], text.size(), false});
    return matches;
  });
}

JsonMatcher MakeCharacterMatcher(std::function<bool(uint32_t)> takes) {
  return [takes = std::move(takes)](std::string_view text) -> Result<std::vector<JsonMatch>> {
    std::vector<JsonMatch> matches;
    size_t covered = 0;
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = ReadCodePoint(text.substr(at));
      const size_t end = at + c.bytes;
      if (takes(c.value)) {
        if (covered < at) matches.push_back({covered, at, false});
        matches.push_back({at, end, true});
        covered = end;
      }
      at = end;
    }
    if (covered < text.size()) matches.push_back({covered, text.size(), false});
    return matches;
  };
}

Result<JsonMatcher> MakeJsonMatcher(const JsonField& field) {
  if (!field["Regex"].none()) {
    PB_ASSIGN(const std::string expression, field["Regex"].Text());
    return MakeRegexMatcher(expression, field["Regex"]);
  }
  PB_ASSIGN(const std::string literal, field["String"].Text());
  if (literal.empty()) return field["String"].Refuse("an empty text");
  return JsonMatcher([literal](std::string_view text) -> Result<std::vector<JsonMatch>> {
    std::vector<JsonMatch> matches;
    size_t covered = 0;
    for (size_t at; (at = text.find(literal, covered)) != text.npos; covered = at + literal.size()) {
      if (at > covered) matches.push_back({covered, at, false});
      matches.push_back({at, at + literal.size(), true});
    }
    if (covered < text.size()) matches.push_back({covered, text.size(), false});
    return matches;
  });
}

Status JsonNormalizer::Add(const JsonField& field, int depth) {
  PB_ASSIGN(const std::string type, field["type"].Text());
  auto add = [this](auto step) { steps_.emplace_back(std::move(step)); };
  auto add_unicode = [&](int options) {
    add([options](JsonText* text) { return NormaliseUnicode(text, options); });
  };
  if (type == "Sequence") {
    if (depth >= kMaxNesting) return field.Refuse("a sequence nested so deep");
    PB_ASSIGN(const auto items, field["normalizers"].Items());
    for (const JsonField& item : items) PB_TRY(Add(item, depth + 1));
  } else if (type == "NFC") {
    add_unicode(UTF8PROC_COMPOSE);
  } else if (type == "NFD") {
    add_unicode(UTF8PROC_DECOMPOSE);
  } else if (type == "NFKC") {
    add_unicode(UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
  } else if (type == "NFKD") {
    add_unicode(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
  } else if (type == "Lowercase") {
    add([](JsonText* text) { return Lowercase(text), Status(); });
  } else if (type == "Nmt") {
    add([](JsonText* text) { return Nmt(text), Status(); });
  } else if (type == "StripAccents") {
    add([](JsonText* text) {
      Filter(text, [](uint32_t c) { return !Is(c, CategoryMask("M")); });
      return Status();
    });
  } else if (type == "Strip") {
    PB_ASSIGN(const bool left, field["strip_left"].FlagOr(true));
    PB_ASSIGN(const bool right, field["strip_right"].FlagOr(true));
    add([left, right](JsonText* text) { return Strip(left, right, text), Status(); });
  } else if (type == "Prepend") {
    PB_ASSIGN(const std::string prepend, field["prepend"].Text());
    add([prepend](JsonText* text) {
      if (!text->text.empty()) text->text.insert(0, prepend);
      return Status();
    });
  } else if (type == "Replace") {
    PB_ASSIGN(const JsonMatcher matcher, MakeJsonMatcher(field["pattern"]));
    PB_ASSIGN(const std::string content, field["content"].Text());
    add([matcher, content](JsonText* text) { return ReplaceMatches(matcher, content, text); });
  } else if (type == "BertNormalizer") {
    BertOptions options;
    PB_ASSIGN(options.clean, field["clean_text"].FlagOr(true));
    PB_ASSIGN(options.ideographs, field["handle_chinese_chars"].FlagOr(true));
    PB_ASSIGN(options.lowercase, field["lowercase"].FlagOr(true));
    PB_ASSIGN(options.strip_accents, field["strip_accents"].FlagOr(options.lowercase));
    add([options](JsonText* text) { return Bert(options, text); });
  } else if (type == "ByteLevel") {
    add([](JsonText* text) {
      text->text = WriteByteText(text->text);
      return Status();
    });
  } else if (type == "Precompiled") {
    const JsonField map_field = field["precompiled_charsmap"];
    if (map_field.none()) return {};
    PB_ASSIGN(const std::string bytes, DecodeBase64(map_field));
    if (bytes.empty()) return {};
    auto created = CharsMap::Create(bytes);
    if (!created.ok()) return std::move(created).error().In(map_field.path());
    add([map = std::make_shared<const CharsMap>(std::move(created).value())](JsonText* text) {
      return ApplyCharsMap(*map, text);
    });
  } else {
    return field["type"].Refuse(fmt::format("the normaliser {:.64}", type));
  }
  return {};
}

Result<JsonNormalizer> JsonNormalizer::Create(const JsonField& field) {
  JsonNormalizer normalizer;
  if (!field.none()) PB_TRY(normalizer.Add(field, 0));
  return normalizer;
}

Status JsonNormalizer::Apply(JsonText* text) const {
  for (const Step& step : steps_) PB_TRY(step(text));
  return {};
}

}  // namespace pb
