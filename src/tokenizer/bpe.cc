// Merges the pair of lowest rank until none is left, with a queue of candidates.
#include "tokenizer/bpe.h"

#include <algorithm>
#include <bit>

namespace pb {
namespace {

constexpr uint32_t kNoRank = ~uint32_t{0};

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

// Smallest rank first, then leftmost, in a heap kept by the standard algorithms.
void Push(uint64_t item, std::vector<uint64_t>* queue) {
  queue->push_back(item);
  std::push_heap(queue->begin(), queue->end(), std::greater<>());
}

uint64_t Pop(std::vector<uint64_t>* queue) {
  std::pop_heap(queue->begin(), queue->end(), std::greater<>());
  uint64_t item = queue->back();
  queue->pop_back();
  return item;
}

uint64_t Mix(uint64_t key) {
  key *= 0x9E3779B97F4A7C15ull;
  return key ^ key >> 32;
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

Bpe::Bpe(const std::vector<std::string>& merges, const StringIds& ids, bool ignore_merges,
         std::vector<std::string>* findings)
    : ignore_merges_(ignore_merges) {
  token_of_text_byte_.fill(-1);
  std::string bytes;
  words_.reserve(ids.size());
  for (const auto& [text, id] : ids) {
    if (text.size() == 1) token_of_text_byte_[static_cast<unsigned char>(text[0])] = id;
    if (ReadByteText(text, &bytes)) words_.emplace(bytes, id);
  }
  pairs_.resize(std::bit_ceil(merges.size() * 2 + 1));
  StringIds symbols;
  symbols.reserve(merges.size() + 256);
  for (int b = 0; b < 256; ++b) Intern(std::string(1, static_cast<char>(b)), &symbols);
  std::string left, right;
  size_t skipped = 0, first_skipped = 0;
  for (size_t i = 0; i < merges.size(); ++i) {
    std::string_view merge = merges[i].c_str();  // up to a zero byte, as llama.cpp reads it
    size_t space = merge.find(' ', 1);
    bool usable = space != merge.npos && ReadByteText(merge.substr(0, space), &left) &&
                  ReadByteText(merge.substr(space + 1), &right) && !right.empty();
    if (!usable) {
      if (skipped++ == 0) first_skipped = i;
      continue;
    }
    uint64_t a = Intern(left, &symbols), b = Intern(right, &symbols);
    Insert({a << 32 | b, static_cast<uint32_t>(i), Intern(left.append(right), &symbols)});
  }
  if (skipped > 0) {
    findings->push_back(
        fmt::format("tokenizer.ggml.merges: {} of {} can never apply (the first is [{}]: not two strings of "
                    "byte-level BPE with a space between) and are ignored, as by llama.cpp",
                    skipped, merges.size(), first_skipped));
  }
}

int32_t Bpe::Intern(const std::string& text, StringIds* symbols) {
  auto [at, is_new] = symbols->try_emplace(text, static_cast<int32_t>(token_of_symbol_.size()));
  if (is_new) {
    auto token = words_.find(text);
    token_of_symbol_.push_back(token == words_.end() ? -1 : token->second);
  }
  return at->second;
}

// Of two equal merges the first counts.
void Bpe::Insert(const Pair& pair) {
  size_t mask = pairs_.size() - 1, at = Mix(pair.key) & mask;
  while (pairs_[at].key != kNoPair && pairs_[at].key != pair.key) at = (at + 1) & mask;
  if (pairs_[at].key == kNoPair) pairs_[at] = pair;
}

const Bpe::Pair* Bpe::Find(int32_t left, int32_t right) const {
  uint64_t key = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  size_t mask = pairs_.size() - 1, at = Mix(key) & mask;
  while (pairs_[at].key != kNoPair) {
    if (pairs_[at].key == key) return &pairs_[at];
    at = (at + 1) & mask;
  }
  return nullptr;
}

void Bpe::Spell(std::string_view bytes, std::vector<int32_t>* out) const {
  auto put = [&](uint32_t text_byte) {
    if (token_of_text_byte_[text_byte] >= 0) out->push_back(token_of_text_byte_[text_byte]);
  };
  for (char byte : bytes) {
    uint32_t c = Table().code_point_of_byte[static_cast<unsigned char>(byte)];
    if (c < 0x80) {
      put(c);
    } else {
      put(0xC0 | c >> 6);
      put(0x80 | (c & 0x3F));
    }
  }
}

void Bpe::Append(std::string_view word, Scratch* s, std::vector<int32_t>* out) const {
  if (ignore_merges_) {
    if (auto whole = words_.find(word); whole != words_.end()) {
      out->push_back(whole->second);
      return;
    }
  }
  const auto n = static_cast<int32_t>(word.size());
  s->symbol.resize(word.size());
  s->next.resize(word.size());
  s->previous.resize(word.size());
  s->rank.resize(word.size());
  s->queue.clear();
  for (int32_t i = 0; i < n; ++i) {
    s->symbol[i] = static_cast<unsigned char>(word[i]);
    s->next[i] = i + 1;
    s->previous[i] = i - 1;
  }
  // Notes the rank of the pair that begins at i; a queued pair counts only while this rank is still
  // its own.
  auto consider = [&](int32_t i) {
    const Pair* pair = s->next[i] < n ? Find(s->symbol[i], s->symbol[s->next[i]]) : nullptr;
    s->rank[i] = pair == nullptr ? kNoRank : pair->rank;
    if (pair != nullptr) Push(uint64_t{pair->rank} << 32 | static_cast<uint32_t>(i), &s->queue);
  };
  for (int32_t i = 0; i < n; ++i) consider(i);
  while (!s->queue.empty()) {
    uint64_t item = Pop(&s->queue);
    auto i = static_cast<int32_t>(item & 0xFFFFFFFF);
    if (s->rank[i] != item >> 32) continue;
    int32_t gone = s->next[i];
    s->symbol[i] = Find(s->symbol[i], s->symbol[gone])->result;
    s->rank[gone] = kNoRank;
    s->next[i] = s->next[gone];
    if (s->next[i] < n) s->previous[s->next[i]] = i;
    if (s->previous[i] >= 0) consider(s->previous[i]);
    consider(i);
  }
  for (int32_t i = 0; i < n; i = s->next[i]) {
    int32_t token = token_of_symbol_[s->symbol[i]];
    if (token >= 0) {
      out->push_back(token);
    } else {
      Spell(word.substr(i, s->next[i] - i), out);
    }
  }
}

}  // namespace pb
