// A very small real model over bytes: two feed-forward layers, no attention, fixed weights. It is
// what `faulty` computes when it behaves, so that each of its faults is one deviation from an
// engine that is right.
#ifndef PARITYBIT_PLUGINS_FAULTY_BYTE_MODEL_H_
#define PARITYBIT_PLUGINS_FAULTY_BYTE_MODEL_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "abi/engine.h"

namespace faulty {

inline constexpr int kVocab = 257;  // the bytes and <bos>
inline constexpr int kBos = 256;
inline constexpr int kModel = 16, kFf = 32, kLayers = 2;

std::vector<int32_t> Tokenize(std::string_view text, uint32_t flags);
std::string Detokenize(const int32_t* ids, size_t n);

struct Tensor {
  int32_t stage;
  std::vector<float> values;  // (n, width)
  int64_t width;
};

// Called around each op: before it runs with its inputs, after it ran with its output; returns
// false to stop.
struct Observer {
  std::function<bool(int32_t stage, int32_t layer, std::initializer_list<const Tensor*> inputs)> before;
  std::function<bool(int32_t stage, int32_t layer, Tensor& output)> after;
};

// tokens -> logits (n, kVocab). Empty when an observer stopped it. noise_seed 0: none; else each
// output but the logits is rounded at random in its last bit.
std::vector<float> Forward(const std::vector<int32_t>& tokens, int32_t first_position, uint64_t noise_seed,
                           const Observer& observer);

}  // namespace faulty

#endif  // PARITYBIT_PLUGINS_FAULTY_BYTE_MODEL_H_
