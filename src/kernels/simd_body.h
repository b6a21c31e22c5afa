// Kernels written over 16 virtual float lanes (Vec), included by one file per instruction set after
// it has defined Vec and its operations, inside that file's unnamed namespace. Same order of
// operations as ref.cc, line by line. No include guard: included once in each of those files, and
// by nothing else.

template <typename Op>
inline void Map(const float* x, int64_t n, float* y, Op op) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) Store(y + i, op(Load(x + i)));
  if (i < n) StoreN(y + i, op(LoadN(x + i, n - i)), n - i);
}

template <typename Op>
inline void Map2(const float* a, const float* b, int64_t n, float* y, Op op) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) Store(y + i, op(Load(a + i), Load(b + i)));
  if (i < n) StoreN(y + i, op(LoadN(a + i, n - i), LoadN(b + i, n - i)), n - i);
}

void RmsNorm(const float* x, const float* weight, float eps, int64_t n, float* y) {
  Doubles sum = ZeroDoubles();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) sum = AddDoubles(sum, Mul(Load(x + i), Load(x + i)));
  if (i < n) {
    Vec tail = LoadN(x + i, n - i);
    sum = AddDoubles(sum, Mul(tail, tail));
  }
  float mean = static_cast<float>(Fold(sum) / static_cast<double>(n));
  Vec scale = Set(1.0f / SquareRoot(mean + eps));
  Map2(x, weight, n, y, [&](Vec v, Vec w) { return Mul(Mul(v, scale), w); });
}

void RopePairs(const float* x, const float* table, int64_t dims, float* y) {
  for (int64_t i = 0; i < dims / 2; i += 16) {
    int64_t n = dims / 2 - i < 16 ? dims / 2 - i : 16;
    Vec x0 = LoadN(x + i, n), x1 = LoadN(x + dims / 2 + i, n);
    Vec c = LoadN(table + i, n), s = LoadN(table + dims / 2 + i, n);
    StoreN(y + i, Fma(x0, c, Negate(Mul(x1, s))), n);
    StoreN(y + dims / 2 + i, Fma(x0, s, Mul(x1, c)), n);
  }
}

void Rope(const float* x, const float* table, int64_t dims, int64_t head_dim, bool halves, float* y) {
  if (halves) {
    RopePairs(x, table, dims, y);
  } else {
    for (int64_t i = 0; i < dims / 2; i++) {
      float x0 = x[2 * i], x1 = x[2 * i + 1], c = table[i], s = table[dims / 2 + i];
      y[2 * i] = __builtin_fmaf(x0, c, -(x1 * s));
      y[2 * i + 1] = __builtin_fmaf(x0, s, x1 * c);
    }
  }
  for (int64_t i = dims; i < head_dim; i++) y[i] = x[i];
}

void Softmax(const float* x, int64_t n, float* y) {
  const float lowest = -__builtin_inff();
  float max = lowest;
  int64_t i = 0;
  if (n >= 16) {
    Vec m = Set(lowest);
    for (; i + 16 <= n; i += 16) m = MaxKeep(Load(x + i), m);
    max = FoldMax(m);
  }
  for (; i < n; i++) max = x[i] > max ? x[i] : max;
  Doubles sum = ZeroDoubles();
  Vec shift = Set(max);
  for (i = 0; i + 16 <= n; i += 16) {
    Vec e = Exp(Sub(Load(x + i), shift));
    Store(y + i, e);
    sum = AddDoubles(sum, e);
  }
  if (i < n) {
    StoreN(y + i, Exp(Sub(LoadN(x + i, n - i), shift)), n - i);
    sum = AddDoubles(sum, LoadN(y + i, n - i));
  }
  Vec inverse = Set(static_cast<float>(1.0 / Fold(sum)));
  Map(y, n, y, [&](Vec v) { return Mul(v, inverse); });
}

void Silu(const float* x, int64_t n, float* y) {
  Map(x, n, y, [](Vec v) { return Div(v, Add(Set(1.0f), Exp(Negate(v)))); });
}

void Relu2(const float* x, int64_t n, float* y) {
  Map(x, n, y, [](Vec v) {
    Vec r = ZeroNegative(v);
    return Mul(r, r);
  });
}

void Relu(const float* x, int64_t n, float* y) {
  Map(x, n, y, [](Vec v) { return ZeroNegative(v); });
}

void ExpRow(const float* x, int64_t n, float* y) {
  Map(x, n, y, [](Vec v) { return Exp(v); });
}

void AddRow(const float* a, const float* b, int64_t n, float* y) {
  Map2(a, b, n, y, [](Vec v, Vec w) { return Add(v, w); });
}

void MultiplyRow(const float* a, const float* b, int64_t n, float* y) {
  Map2(a, b, n, y, [](Vec v, Vec w) { return Mul(v, w); });
}

void ToF16(const float* x, int64_t n, uint16_t* y) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) StoreHalf(y + i, Load(x + i));
  if (i < n) StoreHalfN(y + i, LoadN(x + i, n - i), n - i);
}

void FromF16(const uint16_t* x, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) Store(y + i, Load(x + i));
  if (i < n) StoreN(y + i, LoadN(x + i, n - i), n - i);
}

void RoundF16(const float* x, int64_t n, float* y) {
  Map(x, n, y, [](Vec v) { return RoundHalf(v); });
}

// The 32 lanes of a float dot product: one row `a` against kTile rows of b.
template <int kTile, typename A, typename B>
inline void DotTile(const A* a, const B* b, int64_t b_stride, int64_t n, float* out) {
  Vec lo[kTile], hi[kTile];
  for (int t = 0; t < kTile; t++) lo[t] = Set(0.0f), hi[t] = Set(0.0f);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    Vec a0 = Load(a + i), a1 = Load(a + i + 16);
    for (int t = 0; t < kTile; t++) {
      lo[t] = Fma(a0, Load(b + t * b_stride + i), lo[t]);
      hi[t] = Fma(a1, Load(b + t * b_stride + i + 16), hi[t]);
    }
  }
  if (i < n) {
    int64_t n0 = n - i < 16 ? n - i : 16, n1 = n - i - n0;
    Vec a0 = LoadN(a + i, n0), a1 = LoadN(a + i + n0, n1);
    for (int t = 0; t < kTile; t++) {
      lo[t] = Fma(a0, LoadN(b + t * b_stride + i, n0), lo[t]);
      hi[t] = Fma(a1, LoadN(b + t * b_stride + i + n0, n1), hi[t]);
    }
  }
  for (int t = 0; t < kTile; t++) out[t] = Fold(Add(lo[t], hi[t]));
}

template <typename A, typename B>
inline void Dots(const A* a, const B* b, int64_t b_stride, int64_t n_b, int64_t n, float* out,
                 int64_t out_stride) {
  int64_t t = LeadingDots(a, b, b_stride, n_b, n, out, out_stride);
  float tile[kDotTile];
  for (; t + kDotTile <= n_b; t += kDotTile) {
    DotTile<kDotTile>(a, b + t * b_stride, b_stride, n, tile);
    for (int i = 0; i < kDotTile; i++) out[(t + i) * out_stride] = tile[i];
  }
  for (; t < n_b; t++) DotTile<1>(a, b + t * b_stride, b_stride, n, out + t * out_stride);
}

void DotF32(const float* w, const float* x, int64_t x_stride, int64_t n_x, int64_t n, float* out,
            int64_t out_stride) {
  Dots(w, x, x_stride, n_x, n, out, out_stride);
}

void DotF16(const uint16_t* w, const float* x, int64_t x_stride, int64_t n_x, int64_t n, float* out,
            int64_t out_stride) {
  Dots(w, x, x_stride, n_x, n, out, out_stride);
}

template <typename K>
inline void Scores(const float* q, const K* k, int64_t stride, int64_t n_positions, int64_t head_dim,
                   float scale, float* out) {
  Dots(q, k, stride, n_positions, head_dim, out, 1);
  Map(out, n_positions, out, [&](Vec v) { return Mul(v, Set(scale)); });
}

void ScoresF32(const float* q, const float* k, int64_t stride, int64_t n_positions, int64_t head_dim,
               float scale, float* out) {
  Scores(q, k, stride, n_positions, head_dim, scale, out);
}

void ScoresF16(const float* q, const uint16_t* k, int64_t stride, int64_t n_positions, int64_t head_dim,
               float scale, float* out) {
  Scores(q, k, stride, n_positions, head_dim, scale, out);
}

// kParts times 16 values of the context, or of one part n.
template <int kParts, typename V>
inline void ContextTile(const float* probability, const V* v, int64_t stride, int64_t n_positions, int64_t n,
                        float* out) {
  Vec lane[kParts][8];
  for (auto& part : lane) {
    for (auto& l : part) l = Set(0.0f);
  }
  int64_t p = 0;
  if (n == 16) {
    for (; p + 8 <= n_positions; p += 8) {
      for (int l = 0; l < 8; l++) {
        const Vec weight = Set(probability[p + l]);
        for (int i = 0; i < kParts; i++)
          lane[i][l] = Fma(weight, Load(v + (p + l) * stride + 16 * i), lane[i][l]);
      }
    }
  }
  for (; p < n_positions; p++) {
    for (int i = 0; i < kParts; i++)
      lane[i][p % 8] = Fma(Set(probability[p]), LoadN(v + p * stride + 16 * i, n), lane[i][p % 8]);
  }
  for (int i = 0; i < kParts; i++) {
    for (int half = 4; half > 0; half /= 2) {
      for (int l = 0; l < half; l++) lane[i][l] = Add(lane[i][l], lane[i][l + half]);
    }
    StoreN(out + 16 * i, lane[i][0], n);
  }
}

template <typename V>
inline void Context(const float* probability, const V* v, int64_t stride, int64_t n_positions,
                    int64_t head_dim, float* out) {
  int64_t d = 0;
  for (; d + 16 * kContextParts <= head_dim; d += 16 * kContextParts)
    ContextTile<kContextParts>(probability, v + d, stride, n_positions, 16, out + d);
  for (; d < head_dim; d += 16)
    ContextTile<1>(probability, v + d, stride, n_positions, head_dim - d < 16 ? head_dim - d : 16, out + d);
}

void ContextF32(const float* probability, const float* v, int64_t stride, int64_t n_positions,
                int64_t head_dim, float* out) {
  Context(probability, v, stride, n_positions, head_dim, out);
}

void ContextF16(const float* probability, const uint16_t* v, int64_t stride, int64_t n_positions,
                int64_t head_dim, float* out) {
  Context(probability, v, stride, n_positions, head_dim, out);
}

// The multiplier that makes codes of a block, and the scale and kind of sum that go with it
// (ScaleOf in ref.cc).
struct BlockScale {
  float multiplier, scale, sum_scale;
  bool round_sum;
};

inline BlockScale ScaleOf(ActScheme scheme, const float* x, int64_t n, float max_magnitude) {
  if (scheme == ActScheme::kBitnet) {
    float s = 127.0f / (max_magnitude > 1e-5f ? max_magnitude : 1e-5f);
    return {s, s, 1.0f, false};
  }
  if (max_magnitude == 0) return {0, 0, 0, false};
  if (scheme == ActScheme::kQ8_K) {
    int64_t at = 0;
    while (at + 1 < n && __builtin_fabsf(x[at]) != max_magnitude) at++;
    float i = -127.0f / x[at], d = 1.0f / i;
    return {i, d, d, false};
  }
  float d = max_magnitude / 127.0f, rounded = RoundHalf(d);
  bool q8_1 = scheme == ActScheme::kQ8_1;
  return {127.0f / max_magnitude, rounded, q8_1 ? d : rounded, q8_1};
}

inline uint32_t MaxMagnitude(const float* x, int64_t n) {  // n: a multiple of 32
  Ints m = AbsBits(Load(x));
  for (int64_t i = 16; i < n; i += 16) m = MaxInts(m, AbsBits(Load(x + i)));
  return FoldMaxInts(m);
}

void Quantize(const float* x, QuantRows& q, int64_t row) {
  int64_t n = q.n_columns, n_subs = n / kSub;
  int8_t* codes = q.codes.get() + row * n;
  float* sums = q.sums.get() + row * n_subs;
  int32_t* prefix = q.prefix.get() + row * (n_subs + 1);
  prefix[0] = 0;
  int64_t block = q.scheme == ActScheme::kBitnet ? n : kSub << SchemeShift(q.scheme);
  for (int64_t begin = 0, b = 0; begin < n; begin += block, b++) {
    int64_t count = n - begin < block ? n - begin : block;
    uint32_t magnitude = MaxMagnitude(x + begin, count);
    bool finite = magnitude < 0x7f800000u;
    BlockScale s{0, __builtin_nanf(""), __builtin_nanf(""), false};
    if (finite) {
      float max_magnitude;
      __builtin_memcpy(&max_magnitude, &magnitude, 4);
      s = ScaleOf(q.scheme, x + begin, count, max_magnitude);
    }
    q.scales[row * q.n_blocks + b] = s.scale;
    Vec multiplier = Set(s.multiplier);
    for (int64_t sub = begin / kSub; sub < (begin + count) / kSub; sub++) {
      int64_t i = sub * kSub;
      int32_t sum = 0;
      if (finite) {
        sum = RoundCodes(Mul(Load(x + i), multiplier), Mul(Load(x + i + 16), multiplier), codes + i);
      } else {
        __builtin_memset(codes + i, 0, kSub);
      }
      float total = s.sum_scale * static_cast<float>(sum);
      sums[sub] = s.round_sum ? RoundHalf(total) : total;
      prefix[sub + 1] = prefix[sub] + sum;
    }
  }
}

inline const Kernels& TableOf(Isa isa, void (*packed_product)(const PackedProduct&, int64_t, int64_t)) {
  static const Kernels table = {isa,       RmsNorm,    Rope,       Softmax,       Silu,        Relu2,
                                Relu,      GeluRef,    ExpRow,     AddRow,        MultiplyRow, RoundF16,
                                ToF16,     FromF16,    Quantize,   DotF32,        DotF16,      ScoresF32,
                                ScoresF16, ContextF32, ContextF16, packed_product};
  return table;
}
