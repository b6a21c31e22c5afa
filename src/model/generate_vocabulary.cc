// A byte-level BPE vocabulary of any size, with merges that ordinary English text uses.
#include <unordered_set>

#include "base/random.h"
#include "model/generate.h"

namespace pb {
namespace {

// GPT-2's printable stand-in for a byte, as UTF-8: printable Latin-1 for itself, the others from
// U+0100 in order.
std::string ByteSymbol(int byte) {
  auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  int code = byte;
  if (!printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += !printable(b);
  }
  if (code < 128) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
}

// Bytes with text of ASCII first, so that a small vocabulary still tokenises it.
std::vector<int> BytesInOrder() {
  std::vector<int> order = {' ', '\n'};
  for (int b = 'a'; b <= 'z'; ++b) order.push_back(b);
  for (int b = 33; b < 127; ++b) {
    if (b < 'a' || b > 'z') order.push_back(b);
  }
  for (int b = 0; b < 256; ++b) {
    if (b != '\n' && (b < 32 || b > 126)) order.push_back(b);
  }
  return order;
}

constexpr size_t kMaxPieces = 12;  // letters in the longest token

// Merged first, each from its first letter on, so that ordinary text exercises merges.
constexpr std::string_view kWords[] = {"the",   "and",   "of",   "to",   "in",    "that",  "he",    "was",
                                       "for",   "it",    "with", "as",   "his",   "on",    "be",    "at",
                                       "by",    "had",   "are",  "but",  "from",  "or",    "have",  "they",
                                       "which", "one",   "you",  "all",  "there", "would", "their", "we",
                                       "been",  "light", "said", "when", "will",  "let",   "more",  "out"};

struct Piece {
  std::string text;
  size_t length;
  bool leading_space;
};

}  // namespace

Vocabulary MakeVocabulary(int64_t n_vocab) {
  Vocabulary v;
  auto target = static_cast<size_t>(n_vocab) - 2;
  for (int b : BytesInOrder()) {
    if (v.tokens.size() < target) v.tokens.push_back(ByteSymbol(b));
  }
  std::vector<Piece> pieces = {{ByteSymbol(' '), 1, true}};
  for (char c = 'a'; c <= 'z'; ++c) pieces.push_back({std::string(1, c), 1, false});
  std::unordered_set<std::string> seen(v.tokens.begin(), v.tokens.end());
  auto merge = [&](const Piece& left, const Piece& right) {
    Piece joined = {left.text + right.text, left.length + right.length, left.leading_space};
    if (v.tokens.size() < target && seen.insert(joined.text).second) {
      v.merges.push_back(left.text + " " + right.text);
      v.tokens.push_back(joined.text);
      pieces.push_back(joined);
    }
    return joined;
  };
  for (std::string_view word : kWords) {
    Piece begun = pieces[0];
    for (char c : word) begun = merge(begun, {std::string(1, c), 1, false});
  }
  Random random(0x70617269747962ull);
  while (v.tokens.size() < target) {
    Piece left = pieces[random.Below(pieces.size())], right = pieces[random.Below(pieces.size())];
    if (!right.leading_space && left.length + right.length <= kMaxPieces) merge(left, right);
  }
  v.types.assign(v.tokens.size(), 1);
  for (const char* text : {"<|begin_of_text|>", "<|end_of_text|>"}) {
    v.tokens.push_back(text);
    v.types.push_back(3);
  }
  return v;
}

}  // namespace pb
