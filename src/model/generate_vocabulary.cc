#include <unordered_set>

#include "base/random.h"
#include "model/generate.h"

namespace pb {
namespace {

// GPT-2's printable stand-in for a byte, as UTF-8: printable Latin-1 for itself, the others from U+0100 in order.
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
  Random random(0x70617269747962ull);
  while (v.tokens.size() < target) {
    // Copies: the list grows below.
    Piece left = pieces[random.Below(pieces.size())], right = pieces[random.Below(pieces.size())];
    if (right.leading_space || left.length + right.length > kMaxPieces) continue;
    Piece joined = {left.text + right.text, left.length + right.length, left.leading_space};
    if (!seen.insert(joined.text).second) continue;
    v.merges.push_back(left.text + " " + right.text);
    v.tokens.push_back(joined.text);
    pieces.push_back(std::move(joined));
  }
  v.types.assign(v.tokens.size(), 1);
  for (const char* text : {"<|begin_of_text|>", "<|end_of_text|>"}) {
    v.tokens.push_back(text);
    v.types.push_back(3);
  }
  return v;
}

}  // namespace pb
