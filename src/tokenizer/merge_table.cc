// Merges with a queue of candidates, of which those that have grown since are skipped.
#include "tokenizer/merge_table.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace pb {
namespace {

constexpr uint32_t kNoRank = ~uint32_t{0};

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

uint64_t KeyOf(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

void MergeTable::Reserve(size_t n) { pairs_.resize(std::bit_ceil(n * 2 + 1)); }

void MergeTable::Insert(int32_t left, int32_t right, uint32_t rank, int32_t result) {
  const Pair pair{KeyOf(left, right), rank, result};
  size_t mask = pairs_.size() - 1, at = Mix(pair.key) & mask;
  while (pairs_[at].key != kNoPair && pairs_[at].key != pair.key) at = (at + 1) & mask;
  if (pairs_[at].key == kNoPair) pairs_[at] = pair;
}

const MergeTable::Pair* MergeTable::Find(int32_t left, int32_t right) const {
  if (left < 0 || right < 0) return nullptr;
  const uint64_t key = KeyOf(left, right);
  size_t mask = pairs_.size() - 1, at = Mix(key) & mask;
  while (pairs_[at].key != kNoPair) {
    if (pairs_[at].key == key) return &pairs_[at];
    at = (at + 1) & mask;
  }
  return nullptr;
}

void MergeTable::Merge(Scratch* s) const {
  const auto n = static_cast<int32_t>(s->symbol.size());
  s->next.resize(s->symbol.size());
  s->previous.resize(s->symbol.size());
  s->rank.resize(s->symbol.size());
  s->queue.clear();
  for (int32_t i = 0; i < n; ++i) {
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
}

}  // namespace pb
