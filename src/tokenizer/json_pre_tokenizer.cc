// Pre-tokenisers as the `tokenizers` package defines them, one step each.
#include "tokenizer/json_pre_tokenizer.h"

#include "tokenizer/bpe.h"
#include "tokenizer/unicode_classes.h"
#include "tokenizer/utf8.h"

namespace pb {
namespace {

constexpr int kMaxNesting = 16;

enum class Behaviour { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Result<Behaviour> BehaviourOf(const JsonField& field, std::string_view otherwise) {
  PB_ASSIGN(const std::string name, field.TextOr(otherwise));
  static constexpr std::pair<std::string_view, Behaviour> kNames[] = {
      {"Removed", Behaviour::kRemoved},
      {"Isolated", Behaviour::kIsolated},
      {"MergedWithPrevious", Behaviour::kMergedWithPrevious},
      {"MergedWithNext", Behaviour::kMergedWithNext},
      {"Contiguous", Behaviour::kContiguous}};
  for (const auto& [known, behaviour] : kNames)
    if (name == known) return behaviour;
  return field.Refuse(fmt::format("the behaviour {:.64}", name));
}

// Which pieces the matches make; those that are removed are left out.
std::vector<JsonMatch> Arrange(std::vector<JsonMatch> matches, Behaviour behaviour) {
  std::vector<JsonMatch> pieces;
  if (behaviour == Behaviour::kIsolated) return matches;
  if (behaviour == Behaviour::kRemoved) {
    for (const JsonMatch& match : matches)
      if (!match.matches) pieces.push_back(match);
    return pieces;
  }
  bool previous = false;
  auto joins = [&](const JsonMatch& match) {
    const bool same =
        behaviour == Behaviour::kContiguous ? match.matches == previous : match.matches && !previous;
    previous = match.matches;
    return same && !pieces.empty();
  };
  if (behaviour == Behaviour::kMergedWithNext) {
    for (size_t i = matches.size(); i-- > 0;) {
      if (joins(matches[i]))
        pieces.back().begin = matches[i].begin;
      else
        pieces.push_back(matches[i]);
    }
    return {pieces.rbegin(), pieces.rend()};
  }
  for (const JsonMatch& match : matches) {
    if (joins(match))
      pieces.back().end = match.end;
    else
      pieces.push_back(match);
  }
  return pieces;
}

Status CutBy(const JsonMatcher& matcher, bool invert, Behaviour behaviour, const JsonText& word,
             std::vector<JsonText>* out) {
  if (word.text.empty()) return {};
  PB_ASSIGN(std::vector<JsonMatch> matches, matcher(word.text));
  if (invert)
    for (JsonMatch& match : matches) match.matches = !match.matches;
  for (const JsonMatch& piece : Arrange(std::move(matches), behaviour))
    out->push_back(
        {word.text.substr(piece.begin, piece.end - piece.begin), word.at_start && piece.begin == 0});
  return {};
}

bool Is(uint32_t c, uint32_t mask) { return (mask >> Categories(UnicodeVersion::k16)[c] & 1) != 0; }
bool IsMark(uint32_t c) {
  const bool ascii = (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) ||
                     (c >= 0x7B && c <= 0x7E);
  return ascii || Is(c, CategoryMask("P"));
}
// \w of the `regex` crate.
bool IsWordOfRegex(uint32_t c) {
  constexpr uint32_t kMask =
      CategoryMask("L") | CategoryMask("M") | CategoryMask("Nd") | CategoryMask("Nl") | CategoryMask("Pc");
  return Is(c, kMask) || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
         (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189) || c == 0x200C || c == 0x200D;
}

// \w+|[^\w\s]+
Result<std::vector<JsonMatch>> MatchWordsOrMarks(std::string_view text) {
  std::vector<JsonMatch> matches;
  int last = -1;  // 0 space, 1 word, 2 mark
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = ReadCodePoint(text.substr(at));
    const int kind = IsWordOfRegex(c.value) ? 1 : IsWhiteSpace(c.value) ? 0 : 2;
    if (kind != last) matches.push_back({at, at, kind > 0});
    matches.back().end = at += c.bytes;
    last = kind;
  }
  return matches;
}

}  // namespace

Result<std::string> PrependScheme(const JsonField& field) {
  PB_ASSIGN(std::string scheme, field["prepend_scheme"].TextOr("always"));
  if (scheme != "always" && scheme != "first" && scheme != "never")
    return field["prepend_scheme"].Refuse(scheme.substr(0, 64));
  PB_ASSIGN(const bool adds, field["add_prefix_space"].FlagOr(true));
  if (!adds) scheme = "never";
  return scheme;
}

Status JsonPreTokenizer::AddSplit(const JsonField& field) {
  PB_ASSIGN(const JsonMatcher matcher, MakeJsonMatcher(field["pattern"]));
  PB_ASSIGN(const Behaviour behaviour, BehaviourOf(field["behavior"], "?"));
  PB_ASSIGN(const bool invert, field["invert"].FlagOr(false));
  steps_.emplace_back(
      [=](JsonText* word, Words* out) { return CutBy(matcher, invert, behaviour, *word, out); });
  return {};
}

Status JsonPreTokenizer::AddByteLevel(const JsonField& field) {
  PB_ASSIGN(const bool space, field["add_prefix_space"].FlagOr(true));
  PB_ASSIGN(const bool cuts, field["use_regex"].FlagOr(true));
  PB_ASSIGN(const JsonMatcher matcher,
            MakeRegexMatcher(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
                             field));
  steps_.emplace_back([=](JsonText* word, Words* out) -> Status {
    if (space && !word->text.empty() && word->text[0] != ' ') word->text.insert(word->text.begin(), ' ');
    const size_t before = out->size();
    if (cuts)
      PB_TRY(CutBy(matcher, false, Behaviour::kIsolated, *word, out));
    else
      out->push_back(std::move(*word));
    for (size_t i = before; i < out->size(); ++i) (*out)[i].text = WriteByteText((*out)[i].text);
    return Status();
  });
  return {};
}

Status JsonPreTokenizer::AddMetaspace(const JsonField& field) {
  PB_ASSIGN(const uint32_t mark, field["replacement"].Character());
  PB_ASSIGN(const std::string scheme, PrependScheme(field));
  PB_ASSIGN(const bool cuts, field["split"].FlagOr(true));
  std::string written;
  AppendUtf8(mark, &written);
  const JsonMatcher matcher = MakeCharacterMatcher([mark](uint32_t c) { return c == mark; });
  steps_.emplace_back([=](JsonText* word, Words* out) -> Status {
    std::string text;
    for (char c : word->text) c == ' ' ? text.append(written) : text.append(1, c);
    const bool prepends = scheme == "always" || (scheme == "first" && word->at_start);
    if (prepends && !text.empty() && !text.starts_with(written)) text.insert(0, written);
    JsonText marked{std::move(text), word->at_start};
    if (cuts) return CutBy(matcher, false, Behaviour::kMergedWithNext, marked, out);
    out->push_back(std::move(marked));
    return Status();
  });
  return {};
}

Status JsonPreTokenizer::Add(const JsonField& field, int depth) {
  PB_ASSIGN(const std::string type, field["type"].Text());
  auto cut = [this](JsonMatcher matcher, Behaviour behaviour) {
    steps_.emplace_back([matcher = std::move(matcher), behaviour](JsonText* word, Words* out) {
      return CutBy(matcher, false, behaviour, *word, out);
    });
    return Status();
  };
  if (type == "Sequence") {
    if (depth >= kMaxNesting) return field.Refuse("a sequence nested so deep");
    PB_ASSIGN(const auto items, field["pretokenizers"].Items());
    for (const JsonField& item : items) PB_TRY(Add(item, depth + 1));
    return {};
  }
  if (type == "Split") return AddSplit(field);
  if (type == "ByteLevel") return AddByteLevel(field);
  if (type == "Metaspace") return AddMetaspace(field);
  if (type == "Whitespace") {
    steps_.emplace_back([](JsonText* word, Words* out) {
      return CutBy(MatchWordsOrMarks, true, Behaviour::kRemoved, *word, out);
    });
    return {};
  }
  if (type == "WhitespaceSplit") return cut(MakeCharacterMatcher(IsWhiteSpace), Behaviour::kRemoved);
  if (type == "BertPreTokenizer") {
    PB_TRY(cut(MakeCharacterMatcher(IsWhiteSpace), Behaviour::kRemoved));
    return cut(MakeCharacterMatcher(IsMark), Behaviour::kIsolated);
  }
  if (type == "Punctuation") {
    PB_ASSIGN(const Behaviour behaviour, BehaviourOf(field["behavior"], "Isolated"));
    return cut(MakeCharacterMatcher(IsMark), behaviour);
  }
  if (type == "Digits") {
    PB_ASSIGN(const bool single, field["individual_digits"].FlagOr(false));
    return cut(MakeCharacterMatcher([](uint32_t c) { return Is(c, CategoryMask("N")); }),
               single ? Behaviour::kIsolated : Behaviour::kContiguous);
  }
  if (type == "CharDelimiterSplit") {
    PB_ASSIGN(const uint32_t delimiter, field["delimiter"].Character());
    return cut(MakeCharacterMatcher([delimiter](uint32_t c) { return c == delimiter; }), Behaviour::kRemoved);
  }
  return field["type"].Refuse(fmt::format("the pre-tokeniser {:.64}", type));
}

Result<JsonPreTokenizer> JsonPreTokenizer::Create(const JsonField& field) {
  JsonPreTokenizer pre;
  if (!field.none()) PB_TRY(pre.Add(field, 0));
  return pre;
}

Result<std::vector<JsonText>> JsonPreTokenizer::Cut(JsonText text) const {
  Words words, next;
  words.push_back(std::move(text));
  for (const Step& step : steps_) {
    next.clear();
    for (JsonText& word : words) PB_TRY(step(&word, &next));
    std::erase_if(next, [](const JsonText& word) { return word.text.empty(); });
    words.swap(next);
  }
  return words;
}

}  // namespace pb
