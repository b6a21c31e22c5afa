// Computes one op of a language model in double, from its published formula, and holds what two inference engines gave against it.
// C++17 and its standard library, nothing else:
//
//     g++ -std=c++17 -O2 repro.cc -o repro && ./repro          (./repro FILE reads another file than data.txt)
//
// Exit status: 1 an engine is wrong, 0 none is, 2 the data is damaged. README.md beside this file says which op of what it is.
//: source
// `paritybit repro` writes this file into a bundle without the lines whose "//:" marker names neither its formula nor "all".
//: all
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Vector = std::vector<double>;
constexpr double kRoundoff = 1.0 / (1 << 24);  // of float32

[[noreturn]] void Bad(const std::string& what) {
  std::fprintf(stderr, "bad data: %s\n", what.c_str());
  std::exit(2);
}

// data.txt: a field is a line "NAME VALUE VALUE..."; # begins a comment line. Numbers are float32 in decimal. Where the engines read
// different model files, a field "reference.NAME" takes the place of NAME for the reference's.
class Data {
 public:
  explicit Data(const char* path) {
    std::ifstream file(path);
    if (!file) Bad(std::string(path) + " cannot be read");
    for (std::string line, name, word; std::getline(file, line);) {
      std::istringstream words(line);
      if (!(words >> name) || name[0] == '#') continue;
      if (fields_.count(name)) Bad(name + " stands there twice");
      for (std::vector<std::string>& values = fields_[name]; words >> word;) values.push_back(word);
    }
  }

  // From now on of this side's file: 0 candidate, 1 reference.
  void Select(int side) { prefix_ = side ? "reference." : ""; }
  bool Has(const std::string& name) const { return fields_.count(prefix_ + name) || fields_.count(name); }
  const std::map<std::string, std::vector<std::string>>& fields() const { return fields_; }

  const std::vector<std::string>& Words(const std::string& name) const {
    auto found = fields_.find(prefix_ + name);
    if (found == fields_.end()) found = fields_.find(name);
    if (found == fields_.end()) Bad(name + " is missing");
    return found->second;
  }
  std::string Text(const std::string& name) const {
    std::string text;
    for (const std::string& word : Words(name)) text += (text.empty() ? "" : " ") + word;
    return text;
  }
  // All numbers of a field, which must be `count`; 0: any number but none.
  Vector Numbers(const std::string& name, size_t count = 0) const {
    Vector numbers;
    for (const std::string& word : Words(name)) {
      char* end = nullptr;
      numbers.push_back(std::strtof(word.c_str(), &end));
      if (end != word.c_str() + word.size()) Bad(name + ": " + word + " is no number");
    }
    if (numbers.empty() || (count && numbers.size() != count))
      Bad(name + " has " + std::to_string(numbers.size()) + " values" +
          (count ? ", not " + std::to_string(count) : ""));
    return numbers;
  }
  double Number(const std::string& name) const { return Numbers(name, 1)[0]; }
  // Indices below `end`, in whole numbers.
  std::vector<size_t> Indices(const std::string& name, size_t end) const {
    std::vector<size_t> indices;
    for (double number : Numbers(name)) {
      if (!(number >= 0 && number < static_cast<double>(end)) || number != std::floor(number))
        Bad(name + ": there is no " + std::to_string(number));
      indices.push_back(static_cast<size_t>(number));
    }
    return indices;
  }

 private:
  std::map<std::string, std::vector<std::string>> fields_;
  std::string prefix_;
};

constexpr size_t kAny = std::numeric_limits<int32_t>::max();

// An output value, and its unit: what float32 rounding of its terms and of their partial sums may move it by, over 2^-24.
struct Value {
  double value = 0, unit = 0;
};
using Values = std::vector<Value>;

//: norm product scores softmax context
// A sum in the order of its terms, with the squares of its partial sums.
struct Sum {
  double value = 0, squares = 0;
  void Add(double term) { value += term, squares += value * value; }
  Value Times(double factor) const { return {value * factor, std::sqrt(squares) * std::fabs(factor)}; }
};

//: copy rotate add activate
Value Exact(double value) { return {value, std::fabs(value)}; }

//: product scores context activate
// The nearest half float (IEEE 754 binary16), ties to even.
double RoundF16(double x) {
  if (!std::isfinite(x) || x == 0) return x;
  const double step = std::ldexp(1.0, std::max(std::ilogb(x), -14) - 10),
               rounded = std::nearbyint(x / step) * step;
  return std::fabs(rounded) > 65504 ? std::copysign(INFINITY, x) : rounded;
}

//: product scores context
// The nearest bfloat16 (8 bits of significand, the range of float32), ties to even.
double RoundBf16(double x) {
  if (!std::isfinite(x) || x == 0) return x;
  const double step = std::ldexp(1.0, std::max(std::ilogb(x), -126) - 7),
               rounded = std::nearbyint(x / step) * step;
  return std::fabs(rounded) >= std::ldexp(1.0, 128) ? std::copysign(INFINITY, x) : rounded;
}

Vector Rounded(Vector v, const std::string& precision) {
  if (precision != "f16" && precision != "bf16" && precision != "f32") Bad("precision " + precision);
  for (double& x : v) x = precision == "f16" ? RoundF16(x) : precision == "bf16" ? RoundBf16(x) : x;
  return v;
}

//: copy
// y = x: a row of the embedding table.
Values Copy(const Data& d, size_t n) {
  Values y;
  for (double w : d.Numbers("weight", n)) y.push_back(Exact(w));
  return y;
}

//: norm
// y = x / sqrt(mean(x^2) + eps) * weight (Zhang, Sennrich 2019: RMSNorm).
Values Norm(const Data& d, size_t n) {
  const Vector x = d.Numbers("x"), weight = d.Numbers("weight", n);
  const std::vector<size_t> features = d.Indices("feature", x.size());
  Sum squares;
  for (double v : x) squares.Add(v * v);
  const double root = std::sqrt(squares.value / static_cast<double>(x.size()) + d.Number("eps"));
  const double roundings = 1 + (squares.value > 0 ? std::sqrt(squares.squares) / squares.value / 2 : 0);
  Values y;
  for (size_t i = 0; i < n; i++) {
    const double value = x[features[i]] / root * weight[i];
    y.push_back({value, std::fabs(value) * roundings});
  }
  return y;
}

//: product scores
// c tanh(y / c), where there is a cap. Its slope is at most 1; it is rounded itself as a quotient, a tanh and a product.
Value Capped(const Data& d, Value y) {
  if (!d.Has("cap")) return y;
  const double cap = d.Number("cap");
  y.value = cap * std::tanh(y.value / cap);
  y.unit += 3 * std::fabs(y.value);
  return y;
}

//: product
// What a quantised product reads of its input: codes times their scale, both made in float32 as the schemes define them.
struct Quantised {
  Vector values;     // exact
  Vector sum_error;  // q8_1: of each block, the stored sum (f16) less that of its values
};

Quantised Quantise(const Vector& x, const std::string& scheme) {
  Quantised q;
  if (scheme == "none") return {x, {}};
  if (scheme == "f16" || scheme == "bf16") return {Rounded(x, scheme), {}};
  const bool q8_k = scheme == "q8_k", bitnet = scheme == "bitnet";
  if (!q8_k && !bitnet && scheme != "q8_0" && scheme != "q8_1") Bad("scheme " + scheme);
  const size_t block = q8_k ? 256 : bitnet ? x.size() : 32;
  if (x.size() % block != 0) Bad("x is no multiple of a block of " + std::to_string(block));
  for (size_t start = 0; start < x.size(); start += block) {
    float largest = 0;  // by magnitude, with its sign
    for (size_t k = start; k < start + block; k++)
      if (std::fabs(x[k]) > std::fabs(largest)) largest = static_cast<float>(x[k]);
    const float magnitude = std::fabs(largest), d = magnitude / 127.0f;
    float to_code = magnitude > 0 ? 127.0f / magnitude : 0;  // q8_0, q8_1: scale in f16
    double from_code = RoundF16(d);
    if (q8_k && magnitude > 0) to_code = -127.0f / largest, from_code = 1.0f / to_code;
    if (bitnet)
      to_code = 127.0f / std::max(magnitude, 1e-5f),
      from_code = 1.0 / to_code;  // BitNet b1.58: absmax per token
    float sum = 0;
    for (size_t k = start; k < start + block; k++) {
      const float code = std::clamp(std::nearbyint(static_cast<float>(x[k]) * to_code),
                                    q8_k || bitnet ? -128.0f : -127.0f, 127.0f);
      q.values.push_back(bitnet ? double(code) / double(to_code) : code * from_code);
      sum += code;
    }
    q.sum_error.push_back(RoundF16(d * sum) - sum * from_code);
  }
  return q;
}

// y = scale * W x + bias, x quantised. A weight format with a minimum (Q4_1) multiplies it by the stored sum of the codes.
Values Product(const Data& d, size_t n) {
  const Quantised x = Quantise(d.Numbers("x"), d.Text("scheme"));
  const size_t width = x.values.size(), n_blocks = width / 32;
  const Vector weight = d.Numbers("weight", n * width);
  const Vector minimum = d.Has("minimum") ? d.Numbers("minimum", n * n_blocks) : Vector();
  const Vector bias = d.Has("bias") ? d.Numbers("bias", n) : Vector(n, 0.0);
  const double scale = d.Number("scale");
  if (!minimum.empty() && x.sum_error.size() != n_blocks) Bad("a minimum, and a scheme without sums");
  Values y;
  for (size_t i = 0; i < n; i++) {
    Sum sum;
    for (size_t k = 0; k < width; k++) sum.Add(weight[i * width + k] * x.values[k]);
    y.push_back(sum.Times(scale));
    for (size_t b = 0; b < n_blocks && !minimum.empty(); b++)
      y.back().value += minimum[i * n_blocks + b] * x.sum_error[b] * scale;
    y.back().value += bias[i];
    if (bias[i] != 0) y.back().unit = std::hypot(y.back().unit, y.back().value);
    y.back() = Capped(d, y.back());
  }
  return y;
}

//: rotate
// Pair i of a head is turned by position * base^(-2i / dims) (Su et al. 2021: RoPE), over a factor of its own where the
// model has them (LLaMA 3.1). x: the head.
Values Rotate(const Data& d, size_t n) {
  const Vector x = d.Numbers("x");
  const std::vector<size_t> features = d.Indices("feature", x.size());
  const size_t dims = d.Indices("rope_dims", x.size() + 1).at(0), half = dims / 2;
  const bool adjacent = d.Text("rope_pairing") == "adjacent";
  if (!adjacent && d.Text("rope_pairing") != "halves") Bad("rope_pairing " + d.Text("rope_pairing"));
  const Vector factors = d.Has("rope_factors") ? d.Numbers("rope_factors", half) : Vector(half, 1.0);
  Values y;
  for (size_t i = 0; i < n; i++) {
    const size_t f = features[i], pair = adjacent ? f / 2 : f % std::max<size_t>(half, 1);
    if (f >= dims) {
      y.push_back(Exact(x[f]));
      continue;
    }
    const size_t at_a = adjacent ? 2 * pair : pair, at_b = adjacent ? 2 * pair + 1 : pair + half;
    const double a = x[at_a], b = x[at_b];
    const double angle =
        d.Number("position") / d.Number("rope_scale") *
        std::pow(d.Number("rope_base"), -2.0 * static_cast<double>(pair) / static_cast<double>(dims)) / factors[pair];
    // The angle is multiplied up, pair by pair, in float32.
    y.push_back(
        {f == at_a ? a * std::cos(angle) - b * std::sin(angle) : a * std::sin(angle) + b * std::cos(angle),
         std::hypot(a, b) * (1 + std::fabs(angle) * static_cast<double>(1 + pair))});
  }
  return y;
}

//: scores
// y_j = q.k_j * scale for the positions j up to the row's own, -inf for later ones and for those before a window; scores that
// are capped become c tanh(y / c). k: a key for each feature.
Values Scores(const Data& d, size_t n) {
  // Some models scale the queries, before they are rounded, and not the scores.
  const bool of_queries = d.Has("query_scale");
  Vector raw = d.Numbers("q");
  for (double& v : raw) v = of_queries ? static_cast<float>(v) * static_cast<float>(d.Number("query_scale")) : v;
  const Vector q = Rounded(raw, d.Text("attention_precision"));
  const Vector k = Rounded(d.Numbers("k", n * q.size()), d.Text("cache_precision"));
  const std::vector<size_t> positions = d.Indices("feature", kAny);
  Values y;
  for (size_t i = 0; i < n; i++) {
    Sum sum;
    for (size_t c = 0; c < q.size(); c++) sum.Add(q[c] * k[i * q.size() + c]);
    const double at = static_cast<double>(positions[i]);
    const bool hidden = at > d.Number("position") || (d.Has("window") && at <= d.Number("position") - d.Number("window"));
    y.push_back(hidden ? Value{-INFINITY, 0} : Capped(d, sum.Times(of_queries ? 1 : d.Number("score_scale"))));
  }
  return y;
}

//: softmax
// y_j = exp(x_j) / sum exp(x), over the scores of a head; 0 where the score is -inf.
Values Softmax(const Data& d, size_t n) {
  const Vector x = d.Numbers("x");
  const std::vector<size_t> features = d.Indices("feature", x.size());
  const double largest = *std::max_element(x.begin(), x.end());
  Sum sum;
  for (double v : x) sum.Add(std::exp(v - largest));
  Values y;
  for (size_t i = 0; i < n; i++) {
    const double score = x[features[i]], p = std::exp(score - largest) / sum.value;
    // The difference to the largest score is rounded before it is an exponent; what underflows may become 0.
    const double unit = p * (1 + std::fabs(score) + std::fabs(largest) + std::sqrt(sum.squares) / sum.value) +
                        std::numeric_limits<float>::min() / kRoundoff;
    y.push_back(p > 0 ? Value{p, unit} : Value{});
  }
  return y;
}

//: context
// y = sum over positions j of p_j v_j. v: for each feature its value at every position.
Values Context(const Data& d, size_t n) {
  const Vector p = Rounded(d.Numbers("p"), d.Text("attention_precision"));
  const Vector v = Rounded(d.Numbers("v", n * p.size()), d.Text("cache_precision"));
  Values y;
  for (size_t i = 0; i < n; i++) {
    Sum sum;
    for (size_t j = 0; j < p.size(); j++)
      if (p[j] != 0) sum.Add(p[j] * v[i * p.size() + j]);
    y.push_back(sum.Times(1));
  }
  return y;
}

//: add
// y = a * scale + b: a residual sum, whose first part some models scale.
Values Add(const Data& d, size_t n) {
  const Vector a = d.Numbers("a", n), b = d.Numbers("b", n);
  const double scale = d.Number("residual_scale");
  Values y;
  for (size_t i = 0; i < n; i++) {
    y.push_back(Exact(a[i] * scale + b[i]));
    if (scale != 1) y.back().unit += std::fabs(a[i] * scale);
  }
  return y;
}

//: activate
double Activation(double x, const std::string& name) {
  if (name == "silu") return x / (1 + std::exp(-x));
  if (name == "relu") return std::max(x, 0.0);
  if (name == "relu2") return x > 0 ? x * x : 0;
  if (name == "gelu") return 0.5 * x * (1 + std::erf(x * std::sqrt(0.5)));
  if (name == "gelu_tanh") return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * x * (1 + 0.044715 * x * x)));
  if (name == "identity") return x;
  Bad("activation " + name);
}

// tanh-GELU as ggml's CPU libraries tabulate it: of x rounded to f16, rounded to f16; beyond 10 what it tends to. `errors`: how
// many of the errors of the float32 arithmetic behind an entry are added.
double TabulatedGelu(double x, double errors) {
  if (std::fabs(x) >= 10) return std::max(x, 0.0);
  const double h = RoundF16(x), y = Activation(h, "gelu_tanh");
  return RoundF16(y + errors * (std::fabs(h) * 0x1p-23 + std::fabs(y) * 0x1p-22));
}

// y = act(gate), times up where there is one (Shazeer 2020: GLU).
Values Activate(const Data& d, size_t n) {
  const Vector gate = d.Numbers("gate", n), up = d.Has("up") ? d.Numbers("up", n) : Vector(n, 1.0);
  Values y;
  const bool table = d.Has("activation_precision") && d.Text("activation_precision") == "f16";
  for (size_t i = 0; i < n; i++) {
    const double act = table ? TabulatedGelu(gate[i], 0) : Activation(gate[i], d.Text("activation"));
    y.push_back(Exact(act * up[i]));
    // An entry near the middle of two f16 may be either.
    if (table)
      y.back().unit +=
          std::fabs((TabulatedGelu(gate[i], 1) - TabulatedGelu(gate[i], -1)) * up[i]) / kRoundoff;
    // 1 + erf, or 1 + tanh, cancels where the gate is negative.
    if (d.Text("activation").rfind("gelu", 0) == 0 && !table)
      y.back().unit += std::fabs(gate[i] * up[i]) / 2;
  }
  return y;
}

//: all
Values Compute(const Data& d, size_t n) {
  const std::string formula = d.Text("formula");
  //: copy
  if (formula == "copy") return Copy(d, n);
  //: norm
  if (formula == "norm") return Norm(d, n);
  //: product
  if (formula == "product") return Product(d, n);
  //: rotate
  if (formula == "rotate") return Rotate(d, n);
  //: scores
  if (formula == "scores") return Scores(d, n);
  //: softmax
  if (formula == "softmax") return Softmax(d, n);
  //: context
  if (formula == "context") return Context(d, n);
  //: add
  if (formula == "add") return Add(d, n);
  //: activate
  if (formula == "activate") return Activate(d, n);
  //: all
  Bad("formula " + formula);
}

// Equal: -inf and -inf, and two that are no numbers.
double Error(double a, double b) {
  return a == b || (!std::isfinite(a) && !std::isfinite(b)) ? 0 : std::fabs(a - b);
}
bool Within(double error, double bound) { return error == 0 || error <= bound; }  // NaN is not

// Prints an engine's worst value; whether all are within their bound.
bool Judge(const std::string& name, const Vector& given, const Values& expected, double c) {
  bool agrees = true;
  double worst_error = 0, worst_bound = 0, worst_ratio = -1;
  for (size_t i = 0; i < given.size(); i++) {
    const double error = Error(given[i], expected[i].value), bound = c * kRoundoff * expected[i].unit;
    const double ratio = error == 0 ? 0 : error / bound;
    agrees = agrees && Within(error, bound);
    if (!(ratio <= worst_ratio)) worst_error = error, worst_bound = bound, worst_ratio = ratio;
  }
  std::printf("%-40s %s error %.1e, bound %.1e\n", name.c_str(), agrees ? "agrees:" : "WRONG: ", worst_error,
              worst_bound);
  return agrees;
}

//: files
// What the model files differ in, of what the op reads.
void PrintFileDifferences(const Data& d) {
  for (const auto& [name, values] : d.fields()) {
    const auto other = d.fields().find("reference." + name);
    if (name == "expected" || other == d.fields().end() || other->second.size() != values.size()) continue;
    size_t n_differ = 0, first = 0;
    for (size_t i = values.size(); i-- > 0;)
      if (values[i] != other->second[i]) n_differ++, first = i;
    if (n_differ > 0)
      std::printf("%s: %zu of %zu differ; value %zu: %s in the candidate's file, %s in the reference's\n",
                  name.c_str(), n_differ, values.size(), first, values[first].c_str(),
                  other->second[first].c_str());
  }
}

//: all
}  // namespace

int main(int argc, char** argv) {
  Data data(argc > 1 ? argv[1] : "data.txt");
  const std::vector<size_t> features = data.Indices("feature", kAny);
  const size_t n = features.size(), first = data.Indices("first_feature", kAny).at(0);
  const Vector given[2] = {data.Numbers("candidate", n), data.Numbers("reference", n)};
  const double c = data.Number("bound_constant");
  Values expected[2];  // by what each engine's model file declares
  for (int side : {0, 1}) {
    data.Select(side);
    expected[side] = Compute(data, n);
    const Vector arbiter = data.Numbers("expected", n);
    for (size_t i = 0; i < n; i++)
      if (!Within(Error(arbiter[i], expected[side][i].value), c * kRoundoff * expected[side][i].unit))
        Bad("expected is not what the formula gives at feature " + std::to_string(features[i]));
  }
  data.Select(0);
  const bool two_files = data.Has("reference.expected");
  std::printf("%s\n\n%8s %16s%s %16s %16s %9s\n", data.Text("op").c_str(), "feature", "expected",
              two_files ? "  by the 2nd file" : "", "candidate", "reference", "bound");
  bool files_differ = false;
  for (size_t i = 0; i < n; i++) {
    const double bound = c * kRoundoff * std::max(expected[0][i].unit, expected[1][i].unit);
    files_differ = files_differ || !Within(Error(expected[0][i].value, expected[1][i].value), bound);
    std::printf("%8zu %16.9g", first + features[i], expected[0][i].value);
    if (two_files) std::printf(" %16.9g", expected[1][i].value);
    std::printf(" %16.9g %16.9g %9.1e\n", given[0][i], given[1][i], bound);
  }
  std::printf("\n");
  const bool candidate = Judge(data.Text("candidate_engine"), given[0], expected[0], c);
  const bool reference = Judge(data.Text("reference_engine"), given[1], expected[1], c);
  //: files
  if (candidate && reference && files_differ) PrintFileDifferences(data);
  //: all
  std::printf("%s\n", !candidate && !reference ? "DEFECT: both engines are wrong"
                      : !candidate             ? "DEFECT: the candidate is wrong"
                      : !reference             ? "DEFECT: the reference is wrong"
                      : files_differ
                          ? "DEFECT: the model files differ; each engine computes what its own declares"
                          : "no defect: both engines give what the formula gives");
  return candidate && reference && !files_differ ? 0 : 1;
}
