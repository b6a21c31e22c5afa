// The weights and the forward pass of the byte model, in plain loops.
#include "byte_model.h"

#include <algorithm>
#include <cmath>

namespace faulty {
namespace {

constexpr std::string_view kBosText = "<bos>";

// SplitMix64 (Steele, Lea, Flood 2014).
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// Element (row, column) of the weight matrix `matrix`: uniform in [-1, 1), times 2 / sqrt(width).
float Weight(uint64_t matrix, int64_t row, int64_t column, int64_t width) {
  uint64_t bits = Mix(Mix(matrix * 1000003 + static_cast<uint64_t>(row)) + static_cast<uint64_t>(column));
  double uniform = static_cast<double>(bits >> 11) * 0x1p-52 - 1.0;
  return static_cast<float>(uniform * 2.0 / std::sqrt(static_cast<double>(width)));
}

using Row = const float*;

class Pass {
 public:
  Pass(size_t n, int32_t first_position, uint64_t noise_seed, const Observer& observer)
      : n_(n), first_position_(first_position), noise_seed_(noise_seed), observer_(observer) {}

  // Runs one op: value(row, column) is the output's element.
  template <typename F>
  Tensor Op(int32_t stage, int32_t layer, int64_t width, std::initializer_list<const Tensor*> inputs,
            F value) {
    Tensor out{stage, {}, width};
    if (stopped_ || !observer_.before(stage, layer, inputs)) {
      stopped_ = true;
      return out;
    }
    out.values.resize(n_ * static_cast<size_t>(width));
    for (size_t row = 0; row < n_; ++row) {
      for (int64_t column = 0; column < width; ++column) {
        float& x = out.values[row * static_cast<size_t>(width) + static_cast<size_t>(column)];
        x = value(row, column);
        if (noise_seed_ != 0 && stage != PB_STAGE_LOGITS) x = Disturb(x, stage, layer, row, column);
      }
    }
    if (!observer_.after(stage, layer, out)) stopped_ = true;
    return out;
  }

  Tensor MatMul(int32_t stage, int32_t layer, int64_t width, const Tensor& in) {
    uint64_t matrix = static_cast<uint64_t>(stage * 64 + layer + 1);
    return Op(stage, layer, width, {&in}, [&](size_t row, int64_t column) {
      double sum = 0;
      for (int64_t k = 0; k < in.width; ++k) sum += At(in, row, k) * Weight(matrix, column, k, in.width);
      return static_cast<float>(sum);
    });
  }

  Tensor Norm(int32_t stage, int32_t layer, const Tensor& in) {
    return Op(stage, layer, in.width, {&in}, [&](size_t row, int64_t column) {
      double squares = 0;
      for (int64_t k = 0; k < in.width; ++k) squares += At(in, row, k) * At(in, row, k);
      return static_cast<float>(At(in, row, column) /
                                std::sqrt(squares / static_cast<double>(in.width) + 1e-5));
    });
  }

  static double At(const Tensor& t, size_t row, int64_t column) {
    return t.values[row * static_cast<size_t>(t.width) + static_cast<size_t>(column)];
  }

  bool stopped() const { return stopped_; }

 private:
  float Disturb(float x, int32_t stage, int32_t layer, size_t row, int64_t column) const {
    uint64_t place = Mix(noise_seed_ + Mix(static_cast<uint64_t>(stage * 64 + layer + 1)));
    uint64_t bits = Mix(
        place + Mix((static_cast<uint64_t>(first_position_) + row) * 4096 + static_cast<uint64_t>(column)));
    int r = static_cast<int>(bits % 3) - 1;
    return static_cast<float>(static_cast<double>(x) * (1.0 + r * 0x1p-24));
  }

  size_t n_;
  int32_t first_position_;
  uint64_t noise_seed_;
  const Observer& observer_;
  bool stopped_ = false;
};

}  // namespace

std::vector<int32_t> Tokenize(std::string_view text, uint32_t flags) {
  std::vector<int32_t> ids;
  if (flags & PB_ADD_SPECIAL) ids.push_back(kBos);
  while (!text.empty()) {
    bool special = (flags & PB_PARSE_SPECIAL) && text.starts_with(kBosText);
    ids.push_back(special ? kBos : static_cast<unsigned char>(text[0]));
    text.remove_prefix(special ? kBosText.size() : 1);
  }
  return ids;
}

std::string Detokenize(const int32_t* ids, size_t n) {
  std::string text;
  for (size_t i = 0; i < n; ++i) {
    if (ids[i] == kBos) {
      text += kBosText;
    } else {
      text += static_cast<char>(ids[i]);
    }
  }
  return text;
}

std::vector<float> Forward(const std::vector<int32_t>& tokens, int32_t first_position, uint64_t noise_seed,
                           const Observer& observer) {
  Pass pass(tokens.size(), first_position, noise_seed, observer);
  Tensor x = pass.Op(PB_STAGE_EMBEDDINGS, -1, kModel, {},
                     [&](size_t row, int64_t column) { return Weight(1, tokens[row], column, 4); });
  for (int32_t layer = 0; layer < kLayers && !pass.stopped(); ++layer) {
    Tensor norm = pass.Norm(PB_STAGE_FFN_NORM, layer, x);
    Tensor gate = pass.MatMul(PB_STAGE_GATE_PROJ, layer, kFf, norm);
    Tensor up = pass.MatMul(PB_STAGE_UP_PROJ, layer, kFf, norm);
    if (pass.stopped()) break;
    Tensor gated = pass.Op(PB_STAGE_FFN_GATED, layer, kFf, {&gate, &up}, [&](size_t row, int64_t column) {
      double relu = std::max(0.0, Pass::At(gate, row, column));
      return static_cast<float>(relu * relu * Pass::At(up, row, column));
    });
    if (pass.stopped()) break;
    Tensor down = pass.MatMul(PB_STAGE_DOWN_PROJ, layer, kModel, gated);
    if (pass.stopped()) break;
    x = pass.Op(PB_STAGE_LAYER_OUT, layer, kModel, {&down, &x}, [&](size_t row, int64_t column) {
      return static_cast<float>(Pass::At(down, row, column) + Pass::At(x, row, column));
    });
  }
  if (pass.stopped()) return {};
  Tensor norm = pass.Norm(PB_STAGE_FINAL_NORM, -1, x);
  if (pass.stopped()) return {};
  Tensor logits = pass.MatMul(PB_STAGE_LOGITS, -1, kVocab, norm);
  return pass.stopped() ? std::vector<float>() : logits.values;
}

}  // namespace faulty
