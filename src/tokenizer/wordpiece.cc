// BERT's words, and the longest tokens that they begin with.
#include "tokenizer/wordpiece.h"

#include <utf8proc.h>

#include <iterator>

#include "tokenizer/utf8.h"

namespace pb {
namespace {

// The first code point of the canonical decomposition, which is what llama.cpp's tables have.
uint32_t BaseOf(uint32_t c) {
  utf8proc_int32_t parts[32];
  int last_class = 0;
  const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts, std::size(parts),
                                         UTF8PROC_DECOMPOSE, &last_class);
  return n > 0 ? static_cast<uint32_t>(parts[0]) : c;
}

uint32_t LowerOf(uint32_t c) {
  return static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

}  // namespace

bool IsBertIdeograph(uint32_t c) {
  static constexpr struct {
    uint32_t first, last;
  } kRanges[] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},   {0x20000, 0x2A6DF},
                 {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
  for (const auto& range : kRanges)
    if (c >= range.first && c <= range.last) return true;
  return false;
}

WordPiece::WordPiece(const StringIds& ids, int32_t unknown, bool lowercase, bool strip_accents)
    : unknown_(unknown), lowercase_(lowercase), strip_accents_(strip_accents) {
  for (const auto& [text, id] : ids) trie_.Insert(text, id);
}

std::vector<std::string> WordPiece::WordsOf(const CleanText& text) const {
  const uint8_t* category_of = Categories(UnicodeVersion::k15_1);
  auto is = [&](uint32_t c, const char* name) { return (CategoryMask(name) >> category_of[c] & 1) != 0; };
  std::vector<std::string> words;
  std::string word;
  auto finish = [&] {
    if (!word.empty()) words.push_back(std::exchange(word, {}));
  };
  for (uint32_t c : text.points) {
    if (strip_accents_) c = BaseOf(c);
    if (IsWhiteSpace(c)) {
      finish();
      continue;
    }
    if (c == 0 || c == 0xFFFD || is(c, "Cc") || is(c, "Cf") || is(c, "Co") || is(c, "Cs")) continue;
    if (strip_accents_ && is(c, "M")) continue;
    const bool alone = is(c, "P") || (c < 0x7F && is(c, "S")) || IsBertIdeograph(c);
    if (alone) finish();
    AppendUtf8(lowercase_ ? LowerOf(c) : c, &word);
    if (alone) finish();
  }
  finish();
  return words;
}

void WordPiece::Append(const CleanText& text, std::vector<int32_t>* out) const {
  for (const std::string& word : WordsOf(text)) {
    const std::string marked = "\xE2\x96\x81" + word;
    const size_t before = out->size();
    for (std::string_view rest = marked; !rest.empty();) {
      const Trie::Found found = trie_.Longest(rest);
      if (found.value == Trie::kNone) {
        out->resize(before);
        break;
      }
      out->push_back(found.value);
      rest.remove_prefix(found.bytes);
    }
    if (out->size() == before) out->push_back(unknown_);
  }
}

}  // namespace pb
