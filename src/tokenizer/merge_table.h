// The merges of byte pair encoding over numbered symbols: the pair of lowest rank, and of equals the
// leftmost, is joined until none is left.
#ifndef PARITYBIT_TOKENIZER_MERGE_TABLE_H_
#define PARITYBIT_TOKENIZER_MERGE_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pb {

class MergeTable {
 public:
  // Working memory of Merge, to be kept between words.
  struct Scratch {
    std::vector<int32_t> symbol, next, previous;
    std::vector<size_t> begin;    // of each symbol, in bytes; one more at the end
    std::vector<uint32_t> rank;   // of the pair that begins here
    std::vector<uint64_t> queue;  // rank << 32 | position: the smallest first
  };

  // Before the first Insert: room for so many.
  void Reserve(size_t n);
  // Symbols are 0 or more. Of two equal pairs the first counts.
  void Insert(int32_t left, int32_t right, uint32_t rank, int32_t result);
  // Joins the symbols of a word, fewer than 2^31 of them; what is left is symbol[0],
  // symbol[next[0]] ... A symbol of -1 is never joined. O(n log n).
  void Merge(Scratch* scratch) const;

 private:
  struct Pair {
    uint64_t key = kNoPair;  // left symbol << 32 | right symbol
    uint32_t rank = 0;
    int32_t result = 0;
  };
  static constexpr uint64_t kNoPair = ~uint64_t{0};

  const Pair* Find(int32_t left, int32_t right) const;

  std::vector<Pair> pairs_ = std::vector<Pair>(1);  // open addressing, a power of two long
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_MERGE_TABLE_H_
