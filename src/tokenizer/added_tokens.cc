// Added tokens as the `tokenizers` package finds them.
#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "tokenizer/unicode_classes.h"
#include "tokenizer/unigram.h"
#include "tokenizer/utf8.h"

namespace pb {
namespace {

// \w of the `regex` crate, near enough for the characters beside a token.
bool IsWord(uint32_t c) {
  constexpr uint32_t kMask =
      CategoryMask("L") | CategoryMask("M") | CategoryMask("Nd") | CategoryMask("Nl") | CategoryMask("Pc");
  return (kMask >> Categories(UnicodeVersion::k16)[c] & 1) != 0;
}

CodePoint LastCodePoint(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
  return ReadCodePoint(text.substr(begin));
}

Result<AddedToken> ReadToken(const JsonField& field) {
  AddedToken token;
  PB_ASSIGN(const uint64_t id, field["id"].Number((1 << 24) - 1));
  token.id = static_cast<int32_t>(id);
  PB_ASSIGN(token.content, field["content"].Text());
  PB_ASSIGN(token.single_word, field["single_word"].FlagOr(false));
  PB_ASSIGN(token.strips_left, field["lstrip"].FlagOr(false));
  PB_ASSIGN(token.strips_right, field["rstrip"].FlagOr(false));
  PB_ASSIGN(token.normalized, field["normalized"].FlagOr(true));
  PB_ASSIGN(token.special, field["special"].FlagOr(false));
  if (token.content.size() > kMaxTrieTokenBytes)
    return field["content"].Wrong(
        fmt::format("it has {} bytes, more than {}", token.content.size(), kMaxTrieTokenBytes));
  return token;
}

}  // namespace

Result<AddedTokens> AddedTokens::Create(const JsonField& field, const StringIds& vocabulary,
                                        const JsonNormalizer& normalizer) {
  AddedTokens added;
  if (field.none()) return added;
  PB_ASSIGN(const auto items, field.Items());
  std::map<std::string, size_t> seen;
  auto next = static_cast<int32_t>(vocabulary.size());
  for (const JsonField& item : items) {
    PB_ASSIGN(AddedToken token, ReadToken(item));
    if (token.content.empty()) continue;
    const auto known = vocabulary.find(token.content);
    const auto before = seen.find(token.content);
    const int32_t id = before != seen.end()        ? added.all_[before->second].id
                       : known != vocabulary.end() ? known->second
                                                   : next++;
    if (token.id != id)
      return item["id"].Wrong(
          fmt::format("\"{:.60}\" has the id {}, and the package gives it {}", token.content, token.id, id));
    token.written = token.content;
    if (token.normalized) {
      JsonText text{token.content, true};
      PB_TRY(normalizer.Apply(&text));
      token.written = std::move(text.text);
    }
    const size_t index = before != seen.end() ? before->second : added.all_.size();
    if (before != seen.end())
      added.all_[index] = std::move(token);
    else
      added.all_.push_back(std::move(token));
    seen[added.all_[index].content] = index;
    added.by_id_[id] = index;
  }
  for (size_t i = 0; i < added.all_.size(); ++i)
    if (!added.all_[i].written.empty())
      added.tries_[added.all_[i].normalized].Insert(added.all_[i].written, static_cast<int32_t>(i));
  return added;
}

std::vector<AddedTokens::Piece> AddedTokens::Find(std::string_view text, bool normalized,
                                                  bool parse_special) const {
  std::vector<Piece> pieces;
  const Trie& trie = tries_[normalized];
  size_t covered = 0;
  for (size_t at = 0; at < text.size();) {
    const Trie::Found found = trie.Longest(text.substr(at));
    if (found.value == Trie::kNone) {
      ++at;
      continue;
    }
    const AddedToken& token = all_[static_cast<size_t>(found.value)];
    size_t begin = at, end = at + found.bytes;
    at = end;
    if (!parse_special && token.special) continue;
    if (token.single_word) {
      const bool after = end < text.size() && IsWord(ReadCodePoint(text.substr(end)).value);
      if (after || (begin > 0 && IsWord(LastCodePoint(text.substr(0, begin)).value))) continue;
    }
    while (token.strips_left && begin > covered) {
      const CodePoint c = LastCodePoint(text.substr(covered, begin - covered));
      if (!IsWhiteSpace(c.value)) break;
      begin -= c.bytes;
    }
    while (token.strips_right && end < text.size()) {
      const CodePoint c = ReadCodePoint(text.substr(end));
      if (!IsWhiteSpace(c.value)) break;
      end += c.bytes;
    }
    if (covered < begin) pieces.push_back({-1, covered, begin});
    pieces.push_back({token.id, begin, end});
    covered = end;
    at = std::max(at, covered);
  }
  if (covered < text.size()) pieces.push_back({-1, covered, text.size()});
  return pieces;
}

}  // namespace pb
