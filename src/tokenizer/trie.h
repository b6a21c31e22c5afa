// A set of byte strings with a number each, walked byte by byte.
#ifndef PARITYBIT_TOKENIZER_TRIE_H_
#define PARITYBIT_TOKENIZER_TRIE_H_

#include <cstdint>
#include <string_view>
#include <vector>

namespace pb {

class Trie {
 public:
  static constexpr int32_t kRoot = 0, kNone = -1;

  // Of equal texts the last counts. Values are 0 or more.
  void Insert(std::string_view text, int32_t value) {
    int32_t node = kRoot;
    for (char c : text) node = MakeChild(node, static_cast<unsigned char>(c));
    values_[static_cast<size_t>(node)] = value;
  }
  // kNone: there is no such child.
  int32_t Child(int32_t node, unsigned char byte) const {
    const uint64_t key = KeyOf(node, byte);
    for (size_t at = Mix(key); slots_[at].key != 0; at = (at + 1) & (slots_.size() - 1))
      if (slots_[at].key == key) return slots_[at].child;
    return kNone;
  }
  // kNone: no text ends here.
  int32_t value(int32_t node) const { return values_[static_cast<size_t>(node)]; }

  // The longest text that `text` begins with, and its value; kNone: there is none.
  struct Found {
    int32_t value = kNone;
    size_t bytes = 0;
  };
  Found Longest(std::string_view text) const {
    Found found;
    int32_t node = kRoot;
    for (size_t i = 0; i < text.size(); ++i) {
      node = Child(node, static_cast<unsigned char>(text[i]));
      if (node == kNone) break;
      if (value(node) != kNone) found = {value(node), i + 1};
    }
    return found;
  }
  // How many bytes of `text` lead from the root to a node, whether a text ends there or not.
  size_t Depth(std::string_view text) const {
    int32_t node = kRoot;
    for (size_t i = 0; i < text.size(); ++i) {
      node = Child(node, static_cast<unsigned char>(text[i]));
      if (node == kNone) return i;
    }
    return text.size();
  }

 private:
  struct Slot {
    uint64_t key = 0;  // 0: free
    int32_t child = 0;
  };

  static uint64_t KeyOf(int32_t node, unsigned char byte) {
    return (static_cast<uint64_t>(node) << 8 | byte) + 1;
  }
  size_t Mix(uint64_t key) const {
    key *= 0x9E3779B97F4A7C15ull;
    return static_cast<size_t>(key ^ key >> 32) & (slots_.size() - 1);
  }
  int32_t MakeChild(int32_t node, unsigned char byte) {
    if (values_.size() * 2 > slots_.size()) Grow();
    const uint64_t key = KeyOf(node, byte);
    size_t at = Mix(key);
    for (; slots_[at].key != 0; at = (at + 1) & (slots_.size() - 1))
      if (slots_[at].key == key) return slots_[at].child;
    slots_[at] = {key, static_cast<int32_t>(values_.size())};
    values_.push_back(kNone);
    return slots_[at].child;
  }
  void Grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.key == 0) continue;
      size_t at = Mix(slot.key);
      while (slots_[at].key != 0) at = (at + 1) & (slots_.size() - 1);
      slots_[at] = slot;
    }
  }

  std::vector<int32_t> values_ = {kNone};            // by node
  std::vector<Slot> slots_ = std::vector<Slot>(64);  // open addressing, a power of two long
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_TRIE_H_
