// Reads merges and words in GPT-2's spelling or as text, and spells what is no token.
#include "tokenizer/bpe.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace pb {
namespace {

// GPT-2's table: printable Latin-1 stands for itself, the rest for U+0100 and up, in order.
struct ByteText {
  std::array<uint16_t, 256> code_point_of_byte{};
  std::array<int16_t, 512> byte_of_code_point{};

  ByteText() {
    byte_of_code_point.fill(-1);
    uint16_t beyond = 0x100;
    for (int b = 0; b < 256; ++b) {
      bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      code_point_of_byte[b] = printable ? static_cast<uint16_t>(b) : beyond++;
      byte_of_code_point[code_point_of_byte[b]] = static_cast<int16_t>(b);
    }
  }
};

const ByteText& Table() {
  static const ByteText table;
  return table;
}

}  // namespace

bool ReadByteText(std::string_view text, std::string* bytes) {
  bytes->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    auto c = static_cast<unsigned char>(text[i]);
    uint32_t code_point = c;
    if (c >= 0x80) {
      if (c < 0xC2 || c > 0xC5 || i + 1 == text.size() || (text[i + 1] & 0xC0) != 0x80) return false;
      code_point = (c & 0x1Fu) << 6 | (text[++i] & 0x3Fu);
    }
    if (Table().byte_of_code_point[code_point] < 0) return false;
    bytes->push_back(static_cast<char>(Table().byte_of_code_point[code_point]));
  }
  return true;
}

std::string WriteByteText(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (char byte : bytes) AppendUtf8(Table().code_point_of_byte[static_cast<unsigned char>(byte)], &text);
  return text;
}

// The bytes of a token's or a merge's text; false: it is not written so.
bool Bpe::ReadPart(std::string_view text, std::string* bytes) const {
  if (!options_.characters) return ReadByteText(text, bytes);
  bytes->assign(text);
  return true;
}

Bpe::Bpe(const std::vector<std::string>& merges, const StringIds& ids, const BpeOptions& options,
         std::vector<std::string>* findings)
    : options_(options) {
  token_of_text_byte_.fill(-1);
  std::string bytes;
  words_.reserve(ids.size());
  for (const auto& [text, id] : ids) {
    if (!options_.characters && text.size() == 1)
      token_of_text_byte_[static_cast<unsigned char>(text[0])] = id;
    if (ReadPart(text, &bytes)) words_.emplace(bytes, id);
  }
  merges_.Reserve(merges.size());
  StringIds symbols;
  symbols.reserve(merges.size() + 256);
  for (int b = 0; b < 256; ++b) {
    if (!options_.characters) {
      Intern(std::string(1, static_cast<char>(b)), &symbols);
    } else if (const auto found = ids.find(fmt::format("<0x{:02X}>", b)); found != ids.end()) {
      token_of_text_byte_[static_cast<size_t>(b)] = found->second;
    }
  }
  std::string left, right;
  size_t skipped = 0, first_skipped = 0;
  for (size_t i = 0; i < merges.size(); ++i) {
    std::string_view merge = merges[i].c_str();  // up to a zero byte, as llama.cpp reads it
    size_t space = merge.find(' ', 1);
    bool usable = space != merge.npos && ReadPart(merge.substr(0, space), &left) &&
                  ReadPart(merge.substr(space + 1), &right) && !right.empty();
    if (!usable) {
      if (skipped++ == 0) first_skipped = i;
      continue;
    }
    const int32_t a = Intern(left, &symbols), b = Intern(right, &symbols);
    merges_.Insert(a, b, static_cast<uint32_t>(i), Intern(left.append(right), &symbols));
  }
  if (skipped > 0) {
    findings->push_back(
        fmt::format("tokenizer.ggml.merges: {} of {} can never apply (the first is [{}]: not two strings of "
                    "byte-level BPE with a space between) and are ignored, as by llama.cpp",
                    skipped, merges.size(), first_skipped));
  }
  if (!options_.characters) return;
  for (const auto& [text, symbol] : symbols)
    if (text.size() == CharacterBytes(text[0])) characters_.emplace(text, symbol);
}

int32_t Bpe::Intern(const std::string& text, StringIds* symbols) {
  auto [at, is_new] = symbols->try_emplace(text, static_cast<int32_t>(token_of_symbol_.size()));
  if (is_new) {
    auto token = words_.find(text);
    token_of_symbol_.push_back(token == words_.end() ? -1 : token->second);
  }
  return at->second;
}

void Bpe::Spell(std::string_view bytes, std::vector<int32_t>* out) const {
  auto put = [&](uint32_t text_byte) {
    if (token_of_text_byte_[text_byte] >= 0) out->push_back(token_of_text_byte_[text_byte]);
  };
  for (char byte : bytes) {
    const auto value = static_cast<unsigned char>(byte);
    const uint32_t c = options_.characters ? value : Table().code_point_of_byte[value];
    if (options_.characters || c < 0x80) {
      put(c);
    } else {
      put(0xC0 | c >> 6);
      put(0x80 | (c & 0x3F));
    }
  }
}

void Bpe::AppendSymbol(int32_t symbol, std::string_view bytes, std::vector<int32_t>* out) const {
  int32_t token = -1;
  if (symbol >= 0) {
    token = token_of_symbol_[static_cast<size_t>(symbol)];
  } else if (const auto word = words_.find(bytes); word != words_.end()) {
    token = word->second;
  }
  if (token >= 0) {
    out->push_back(token);
  } else {
    Spell(bytes, out);
  }
}

// Symbol -1: a character that no merge knows. Returns how many there are.
int32_t Bpe::CutIntoSymbols(std::string_view word, Scratch* s) const {
  s->symbol.clear();
  s->begin.clear();
  for (size_t at = 0; at < word.size();) {
    size_t bytes = 1;
    int32_t symbol = static_cast<unsigned char>(word[at]);
    if (options_.characters) {
      bytes = std::min(CharacterBytes(word[at]), word.size() - at);
      const auto known = characters_.find(word.substr(at, bytes));
      symbol = known == characters_.end() ? -1 : known->second;
    }
    s->symbol.push_back(symbol);
    s->begin.push_back(at);
    at += bytes;
  }
  s->begin.push_back(word.size());
  return static_cast<int32_t>(s->symbol.size());
}

bool Bpe::IsWhole(std::string_view word) const {
  return options_.ignore_merges || (options_.whole_lines && word.find_first_not_of('\n') == word.npos);
}

void Bpe::Append(std::string_view word, Scratch* s, std::vector<int32_t>* out) const {
  if (IsWhole(word)) {
    if (auto whole = words_.find(word); whole != words_.end()) {
      out->push_back(whole->second);
      return;
    }
  }
  const int32_t n = CutIntoSymbols(word, s);
  merges_.Merge(s);
  for (int32_t i = 0; i < n; i = s->next[i])
    AppendSymbol(s->symbol[i], word.substr(s->begin[i], s->begin[s->next[i]] - s->begin[i]), out);
}

}  // namespace pb
