// The model file against the checkpoint that it was converted from, tensor by tensor: what the
// conversion should have done, what rounding to the file's type explains, and where neither holds,
// which mistake would give the file's values.
#include <algorithm>
#include <cmath>
#include <mutex>
#include <set>

#include "base/bytes.h"
#include "soundness/checkpoint.h"
#include "soundness/parts.h"

namespace pb::soundness {
namespace {

// What of the checkpoint a tensor of the file is made of; layers' names without "layers.N.".
// Several names: those of different families, the first that is there counts.
struct NameRow {
  std::string_view file;  // without "blk.N." and ".weight"
  std::string_view checkpoint[2];
};
constexpr NameRow kLayerNames[] = {
    {"attn_norm", {"input_layernorm", ""}},
    {"attn_q", {"self_attn.q_proj", ""}},
    {"attn_k", {"self_attn.k_proj", ""}},
    {"attn_v", {"self_attn.v_proj", ""}},
    {"attn_output", {"self_attn.o_proj", ""}},
    {"attn_q_norm", {"self_attn.q_norm", ""}},
    {"attn_k_norm", {"self_attn.k_norm", ""}},
    {"attn_sub_norm", {"self_attn.attn_sub_norm", "self_attn.inner_attn_ln"}},
    {"attn_q_norm_in", {"self_attn.q_proj.norm", ""}},
    {"attn_k_norm_in", {"self_attn.k_proj.norm", ""}},
    {"attn_v_norm_in", {"self_attn.v_proj.norm", ""}},
    {"attn_output_norm_in", {"self_attn.o_proj.norm", ""}},
    {"attn_qkv", {"self_attn.qkv_proj", ""}},
    {"ffn_norm", {"post_attention_layernorm", ""}},
    {"ffn_gate", {"mlp.gate_proj", ""}},
    {"ffn_up", {"mlp.up_proj", "mlp.gate_up_proj"}},
    {"ffn_down", {"mlp.down_proj", ""}},
    {"ffn_sub_norm", {"mlp.ffn_sub_norm", "mlp.ffn_layernorm"}},
    {"ffn_gate_norm_in", {"mlp.gate_proj.norm", ""}},
    {"ffn_up_norm_in", {"mlp.up_proj.norm", ""}},
    {"ffn_down_norm_in", {"mlp.down_proj.norm", ""}},
};
// Of Gemma 2 and 3, where names mean other norms.
constexpr NameRow kGemmaNames[] = {
    {"post_attention_norm", {"post_attention_layernorm", ""}},
    {"ffn_norm", {"pre_feedforward_layernorm", "post_attention_layernorm"}},
    {"post_ffw_norm", {"post_feedforward_layernorm", ""}},
};
constexpr std::string_view kPrefixes[] = {"model.", "", "language_model.model.", "model.language_model."};

// Not weights of the text model, or derived from the configuration.
bool NeedsNoReader(std::string_view name) {
  return name.ends_with("rotary_emb.inv_freq") || name.starts_with("vision_") ||
         name.starts_with("visual.") || name.starts_with("multi_modal") || name.starts_with("model.vision") ||
         name.ends_with(".attn.masked_bias");
}

// A tensor's values under one explanation, against the file's.
struct Fit {
  double factor = 0;    // of the line through 0 that is nearest
  double residual = 1;  // relative to the file's values, after that factor
};

class Sums {
 public:
  void Add(const std::vector<float>& file, const std::vector<float>& expected) {
    for (size_t i = 0; i < file.size(); ++i) {
      const double t = file[i], e = expected[i];
      tt_ += t * t, te_ += t * e, ee_ += e * e;
    }
  }
  Fit Result() const {
    if (!(ee_ > 0) || !(tt_ > 0)) return {tt_ == ee_ ? 1.0 : 0.0, tt_ == ee_ ? 0.0 : 1.0};
    const double factor = te_ / ee_;
    return {factor, std::sqrt(std::max(tt_ - factor * te_, 0.0) / tt_)};
  }

 private:
  double tt_ = 0, te_ = 0, ee_ = 0;
};

// The file's own values, in any arrangement of I2_S.
class FileRows {
 public:
  enum Arrangement { kAsItIs, kGroupsOf64, kFourRows };
  FileRows(const GgufTensor& t, const BlockFormat& format) : t_(t) {
    view_.type = format.type;
    view_.data = t.data.data();
    view_.n_columns = static_cast<int64_t>(t.n_columns());
    view_.n_rows = static_cast<int64_t>(t.n_rows());
    view_.row_bytes = t.n_columns() / format.block_values * format.block_bytes;
    if (format.type == BlockType::kI2_S) view_.scale = ScanI2S(t.data).scale;
  }
  int64_t n_rows() const { return view_.n_rows; }
  int64_t n_columns() const { return view_.n_columns; }
  const WeightView& view() const { return view_; }
  void Row(int64_t row, Arrangement arrangement, float* out) const {
    if (arrangement == kAsItIs) return DecodeRow(view_, row, out);
    for (int64_t c = 0; c < view_.n_columns; ++c) {
      const int64_t byte = arrangement == kFourRows ? row / 4 * view_.n_columns + c
                                                    : row * view_.n_columns / 4 + c / 64 * 16 + c % 16;
      const int64_t place = arrangement == kFourRows ? row % 4 : c % 64 / 16;
      out[c] = static_cast<float>(
                   (static_cast<int>(t_.data[static_cast<size_t>(byte)]) >> (6 - 2 * place) & 3) - 1) *
               view_.scale;
    }
  }

 private:
  const GgufTensor& t_;
  WeightView view_;
};

std::vector<int64_t> SampleOf(int64_t n_rows) {
  constexpr int64_t kSample = 96, kFirst = 16;
  std::vector<int64_t> rows;
  for (int64_t r = 0; r < std::min(n_rows, kFirst); ++r) rows.push_back(r);
  for (int64_t i = 0; i < kSample; ++i) {
    const int64_t r = n_rows * i / kSample;
    if (r >= kFirst && (rows.empty() || r > rows.back())) rows.push_back(r);
  }
  return rows;
}

Fit FitOf(const FileRows& file, const Recipe& recipe, FileRows::Arrangement arrangement = FileRows::kAsItIs) {
  std::vector<float> here(static_cast<size_t>(file.n_columns())), there(here.size());
  Sums sums;
  for (int64_t r : SampleOf(file.n_rows())) {
    file.Row(r, arrangement, here.data());
    recipe.Row(r, there.data());
    sums.Add(here, there);
  }
  return sums.Result();
}

// How far rounding to the file's type takes the expected values: by the encoder here, which is the
// plain one; quantisers that search come nearer.
double RoundingOf(const FileRows& file, const Recipe& recipe) {
  const BlockFormat& format = GetBlockFormat(file.view().type);
  const std::vector<int64_t> rows = SampleOf(file.n_rows());
  std::vector<float> values(static_cast<size_t>(file.n_columns()) * rows.size()), back(values.size());
  for (size_t i = 0; i < rows.size(); ++i)
    recipe.Row(rows[i], values.data() + i * static_cast<size_t>(file.n_columns()));
  for (float v : values)
    if (!std::isfinite(v)) return 0;
  const auto n = static_cast<int64_t>(values.size());
  std::vector<std::byte> bytes(static_cast<size_t>(n / format.block_values * format.block_bytes) + kI2STail);
  format.encode(values.data(), bytes.data(), n);
  const float scale = format.type == BlockType::kI2_S
                          ? LoadLe<float>(bytes.data() + n / format.block_values * format.block_bytes)
                          : 1.0f;
  format.decode(bytes.data(), back.data(), n, scale);
  double change = 0, all = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double d = static_cast<double>(back[i]) - values[i];
    change += d * d, all += static_cast<double>(values[i]) * values[i];
  }
  return all > 0 ? std::sqrt(change / all) : 0;
}

// An explanation with its name.
struct Guess {
  std::string name;
  Recipe recipe;
  FileRows::Arrangement arrangement = FileRows::kAsItIs;
};

class Conversion {
 public:
  Conversion(Context& context, const Checkpoint& checkpoint) : context_(context), checkpoint_(checkpoint) {
    const auto name = context.subject.main().String("general.architecture");
    architecture_ = name.ok() ? *name : "";
    gemma_ = architecture_.starts_with("gemma");
    bitnet_ = architecture_.find("bitnet") != std::string::npos;
  }
  void Compare(const GgufTensor& t);
  Part Close();

 private:
  const SafeTensor* Find(const std::string& name) const;
  std::string LayerName(std::string_view part, std::string_view suffix, int32_t layer) const;
  bool AddPart(const std::string& name, Recipe* recipe);
  bool Make(const GgufTensor& t, Recipe* recipe);
  bool MakeLayer(std::string_view part, std::string_view suffix, int32_t layer, Recipe* recipe);
  void Finish(std::string_view part, std::string_view suffix, Recipe* recipe) const;
  std::vector<Guess> GuessesOf(const GgufTensor& t, const FileRows& file, const Recipe& expected);
  void Explain(const GgufTensor& t, const FileRows& file, const Recipe& expected, Fit fit, double rounding);
  void CompareRows(const GgufTensor& t, const FileRows& file, const Recipe& expected, double rounding);
  void CheckHead();

  Context& context_;
  const Checkpoint& checkpoint_;
  std::string architecture_;
  bool gemma_ = false, bitnet_ = false;
  std::set<std::string, std::less<>> read_;
  std::vector<std::string> missing_;
  int64_t n_compared_ = 0, n_exact_ = 0;
  double worst_ = 0;
};

const SafeTensor* Conversion::Find(const std::string& name) const {
  for (std::string_view prefix : kPrefixes)
    if (const SafeTensor* found = checkpoint_.Find(std::string(prefix) + name)) return found;
  return nullptr;
}

std::string Conversion::LayerName(std::string_view part, std::string_view suffix, int32_t layer) const {
  const auto look = [&](const auto& rows) -> std::string {
    for (const NameRow& row : rows) {
      if (row.file != part) continue;
      for (std::string_view name : row.checkpoint) {
        const std::string full = fmt::format("layers.{}.{}.{}", layer, name, suffix);
        if (!name.empty() && Find(full)) return full;
      }
    }
    return "";
  };
  const std::string own = gemma_ ? look(kGemmaNames) : "";
  return own.empty() ? look(kLayerNames) : own;
}

bool Conversion::AddPart(const std::string& name, Recipe* recipe) {
  const SafeTensor* t = name.empty() ? nullptr : Find(name);
  if (!t || t->shape.empty() || t->shape.size() > 2) return false;
  const bool packed = t->dtype == SafeDtype::kU8;
  if (t->dtype == SafeDtype::kI32 || t->dtype == SafeDtype::kI64 || (packed && t->shape.size() != 2))
    return false;
  read_.insert(t->name);
  Recipe::Part part;
  part.tensor = t;
  const auto columns = static_cast<int64_t>(t->shape.back());
  part.n_rows = t->shape.size() == 2 ? static_cast<int64_t>(t->shape[0]) * (packed ? 4 : 1) : 1;
  if (packed) {
    const SafeTensor* scale = checkpoint_.Find(t->name + "_scale");
    if (!scale || scale->n_elements() != 1) return false;
    read_.insert(scale->name);
    auto value = scale->Floats();
    if (!value.ok() || !((*value)[0] > 0)) return false;
    part.scale = checkpoint_.scales_divide() ? 1 / (*value)[0] : (*value)[0];
  }
  if (recipe->n_columns != 0 && recipe->n_columns != columns) return false;
  recipe->n_columns = columns;
  recipe->parts.push_back(part);
  return true;
}

// What is done to the rows besides their order in the file.
void Conversion::Finish(std::string_view part, std::string_view suffix, Recipe* recipe) const {
  if (gemma_ && part.ends_with("norm")) recipe->add = 1;
  if (architecture_ == "llama" && context_.params && (part == "attn_q" || part == "attn_k"))
    recipe->permuted_heads = part == "attn_q" ? context_.params->n_heads : context_.params->n_kv_heads;
  const bool linear = suffix == "weight" && recipe->parts[0].tensor->shape.size() == 2;
  if (bitnet_ && linear && recipe->parts[0].tensor->dtype != SafeDtype::kU8 && !IsTernary(*recipe))
    recipe->ternary = MeanMagnitude(*recipe);
}

bool Conversion::MakeLayer(std::string_view part, std::string_view suffix, int32_t layer, Recipe* recipe) {
  // One tensor of the checkpoint where the file has three, or two; and the other way round.
  struct Fused {
    std::string_view whole, parts[3];
  };
  constexpr Fused kFused[] = {{"attn_qkv", {"attn_q", "attn_k", "attn_v"}},
                              {"ffn_up", {"ffn_gate", "ffn_up", ""}}};
  std::string name = LayerName(part, suffix, layer);
  const bool whole_up =
      part == "ffn_up" && context_.subject.FindTensor(fmt::format("blk.{}.ffn_gate.weight", layer));
  for (const Fused& fused : kFused) {
    if (fused.whole == part && !whole_up && name.find("gate_up") == name.npos &&
        name.find("qkv") == name.npos) {
      for (std::string_view one : fused.parts)
        if (!one.empty() && !AddPart(LayerName(one, suffix, layer), recipe)) return false;
      return true;
    }
  }
  if (name.find("gate_up_proj") != name.npos && whole_up) name.clear();
  if (!name.empty()) {
    if (!AddPart(name, recipe)) return false;
  } else if (context_.params) {  // rows of a fused tensor
    const HyperParameters& p = *context_.params;
    const int64_t q = p.n_heads * p.head_dim, kv = p.n_kv_heads * p.head_dim;
    const bool ffn = part == "ffn_gate" || part == "ffn_up";
    if (!AddPart(ffn ? fmt::format("layers.{}.mlp.gate_up_proj.{}", layer, suffix)
                     : fmt::format("layers.{}.self_attn.qkv_proj.{}", layer, suffix),
                 recipe))
      return false;
    Recipe::Part& rows = recipe->parts[0];
    if (ffn)
      rows.first = part == "ffn_up" ? p.d_ff : 0, rows.n_rows = p.d_ff;
    else if (part == "attn_q" || part == "attn_k" || part == "attn_v")
      rows.first = part == "attn_q"   ? 0
                   : part == "attn_k" ? q
                                      : q + kv,
      rows.n_rows = part == "attn_q" ? q : kv;
    else
      return false;
    const int64_t all = static_cast<int64_t>(rows.tensor->shape[0]);
    if (rows.first + rows.n_rows > all) return false;
  } else {
    return false;
  }
  Finish(part, suffix, recipe);
  return true;
}

bool Conversion::Make(const GgufTensor& t, Recipe* recipe) {
  std::string_view name = t.name;
  std::string_view suffix = "weight";
  if (name.ends_with(".bias")) suffix = "bias";
  if (!name.ends_with(suffix)) return false;
  name.remove_suffix(suffix.size() + 1);
  if (name == "token_embd") return AddPart("embed_tokens.weight", recipe);
  if (name == "output_norm") {
    if (!AddPart("norm.weight", recipe)) return false;
    Finish("norm", suffix, recipe);
    return true;
  }
  if (name == "output") return AddPart("lm_head.weight", recipe) || AddPart("embed_tokens.weight", recipe);
  if (!name.starts_with("blk.")) return false;
  name.remove_prefix(4);
  const size_t dot = name.find('.');
  if (dot == name.npos || dot == 0 || dot > 6) return false;
  int32_t layer = 0;
  for (char c : name.substr(0, dot)) {
    if (c < '0' || c > '9') return false;
    layer = layer * 10 + (c - '0');
  }
  return MakeLayer(name.substr(dot + 1), suffix, layer, recipe);
}

std::vector<Guess> Conversion::GuessesOf(const GgufTensor& t, const FileRows& file, const Recipe& expected) {
  std::vector<Guess> guesses;
  const auto guess = [&](std::string name, const auto& change) {
    Guess g{std::move(name), expected};
    change(&g);
    guesses.push_back(std::move(g));
  };
  if (file.view().type == BlockType::kI2_S) {
    guess("its codes stand in groups of 64 values, as bitnet.cpp on Arm writes them",
          [](Guess* g) { g->arrangement = FileRows::kGroupsOf64; });
    if (file.n_rows() % 4 == 0)
      guess("its codes stand four rows to a byte, as bitnet.cpp on x86 without ACT_PARALLEL writes them",
            [](Guess* g) { g->arrangement = FileRows::kFourRows; });
  }
  if (expected.add != 0)
    guess("1 was not added to it", [](Guess* g) { g->recipe.add = 0; });
  else if (t.shape.size() == 1)
    guess("1 was added to it", [](Guess* g) { g->recipe.add = 1; });
  if (expected.permuted_heads > 0)
    guess("its rows were not permuted for adjacent pairs", [](Guess* g) { g->recipe.permuted_heads = 0; });
  else if (context_.params && t.shape.size() == 2)
    for (int64_t heads : {context_.params->n_heads, context_.params->n_kv_heads})
      if (file.n_rows() == heads * context_.params->head_dim)
        guess("its rows were permuted for adjacent pairs",
              [&](Guess* g) { g->recipe.permuted_heads = heads; });
  if (expected.ternary != 0)
    guess("it was not rounded to -1, 0 and +1 times the mean magnitude",
          [](Guess* g) { g->recipe.ternary = 0; });
  const bool plain = expected.parts.size() == 1 && expected.parts[0].tensor->dtype != SafeDtype::kU8;
  if (plain && t.shape.size() == 2 && file.n_rows() == file.n_columns() && expected.parts[0].first == 0)
    guess("it was transposed", [](Guess* g) {
      g->recipe.transposed = true;
      g->recipe.permuted_heads = 0;
    });
  // Another tensor of the same shape under this name.
  if (expected.parts.size() != 1) return guesses;
  for (const std::string& name : checkpoint_.names()) {
    const SafeTensor* other = checkpoint_.Find(name);
    if (other == expected.parts[0].tensor || other->shape != expected.parts[0].tensor->shape ||
        other->dtype != expected.parts[0].tensor->dtype)
      continue;
    guess("it holds " + name, [&](Guess* g) {
      g->recipe.parts[0].tensor = other;
      g->recipe.permuted_heads = 0;
    });
  }
  return guesses;
}

// A factor that a mistake with the scale would give.
std::string FactorText(double factor, double scale) {
  const auto near = [&](double other) { return std::fabs(factor / other - 1) < 0.01; };
  if (near(-1)) return "its sign is turned round";
  if (scale > 0 && near(1 / (scale * scale))) return "it was divided by its scale instead of multiplied";
  if (scale > 0 && near(1 / scale)) return "its scale was left out";
  return fmt::format("it is multiplied by {:.6g}", factor);
}

bool Holds(const Fit& fit, double rounding) {
  return fit.residual <= 2 * rounding + 1e-6 && std::fabs(fit.factor - 1) <= 2 * rounding + 1e-3;
}

void Conversion::Explain(const GgufTensor& t, const FileRows& file, const Recipe& expected, Fit fit,
                         double rounding) {
  const auto tell = [&](const char* code, const std::string& what, const Fit& by) {
    context_.findings.Add(
        code, t.name,
        fmt::format("{} (rel-L2 {:.2g} then, where rounding to {} makes {:.2g}; {:.2g} as it "
                    "should be)",
                    what, by.residual, BlockTypeName(t.type_id), rounding, fit.residual));
  };
  if (fit.residual <= 2 * rounding + 1e-6) {  // all but a factor
    const float scale = expected.ternary != 0 ? expected.ternary : expected.parts[0].scale;
    return tell("conversion", FactorText(fit.factor, scale), {1, fit.residual});
  }
  const Guess* best = nullptr;
  Fit best_fit;
  const std::vector<Guess> guesses = GuessesOf(t, file, expected);
  for (const Guess& guess : guesses) {
    const Fit by = FitOf(file, guess.recipe, guess.arrangement);
    if (by.residual < best_fit.residual || !best) best = &guess, best_fit = by;
  }
  if (best && best_fit.residual <= 2 * rounding + 1e-6)
    return tell(best->arrangement == FileRows::kAsItIs       ? "conversion"
                : best->arrangement == FileRows::kGroupsOf64 ? "i2s-groups-of-64"
                                                             : "i2s-four-rows",
                best->name, best_fit);
  context_.findings.Add(
      "values-differ", t.name,
      fmt::format("it is {:.2g} (rel-L2) from what the checkpoint gives, rounding to {} makes "
                  "{:.2g}; no mistake that is known here explains it",
                  fit.residual, BlockTypeName(t.type_id), rounding));
}

// Single rows that are not the checkpoint's.
void Conversion::CompareRows(const GgufTensor& t, const FileRows& file, const Recipe& expected,
                             double rounding) {
  double largest = 0;
  int64_t worst = -1, n_beyond = 0;
  std::mutex mutex;
  context_.pool.For(file.n_rows(), 1, [&](int64_t begin, int64_t end, int) {
    std::vector<float> here(static_cast<size_t>(file.n_columns())), there(here.size());
    for (int64_t r = begin; r < end; ++r) {
      file.Row(r, FileRows::kAsItIs, here.data());
      expected.Row(r, there.data());
      double change = 0, all = 0;
      for (size_t i = 0; i < here.size(); ++i) {
        const double d = static_cast<double>(here[i]) - there[i];
        change += d * d, all += static_cast<double>(there[i]) * there[i];
      }
      const double error = change == 0 ? 0 : all > 0 ? std::sqrt(change / all) : HUGE_VAL;
      const std::lock_guard lock(mutex);
      if (error > 6 * rounding + 2e-3 || std::isnan(error)) {
        ++n_beyond;
        if (!(error <= largest)) worst = r;
      }
      largest = std::max(largest, error);
    }
  });
  worst_ = std::max(worst_, std::min(largest, 1.0));
  n_exact_ += largest == 0;
  if (n_beyond == 0) return;
  context_.findings.Add(
      "values-differ", t.name,
      fmt::format("{} of {} rows are not the checkpoint's, the worst is row {} (rel-L2 {:.2g}, "
                  "rounding to {} makes {:.2g})",
                  n_beyond, file.n_rows(), worst, largest, BlockTypeName(t.type_id), rounding));
}

void Conversion::Compare(const GgufTensor& t) {
  if (t.name == "rope_freqs.weight" || t.name.ends_with(".scale")) return;
  const BlockFormat* format = FindBlockFormat(t.type_id);
  Recipe expected;
  if (!Make(t, &expected)) {
    missing_.push_back(t.name);
    return;
  }
  const int64_t rows = expected.n_rows();
  const bool shaped =
      expected.n_columns == static_cast<int64_t>(t.n_columns()) && rows == static_cast<int64_t>(t.n_rows());
  if (!format || t.data.empty() || !shaped) {
    context_.findings.Add("values-not-compared", t.name,
                          !format ? fmt::format("its type is {}", BlockTypeName(t.type_id))
                                  : fmt::format("it has {} x {} values, the checkpoint gives {} x {}",
                                                t.n_rows(), t.n_columns(), rows, expected.n_columns));
    return;
  }
  const FileRows file(t, *format);
  ++n_compared_;
  const double rounding = RoundingOf(file, expected);
  const Fit fit = FitOf(file, expected);
  if (!Holds(fit, rounding)) return Explain(t, file, expected, fit, rounding);
  CompareRows(t, file, expected, rounding);
}

// A matrix of logits of its own that the file ties to the embedding.
void Conversion::CheckHead() {
  const SafeTensor* head = Find("lm_head.weight");
  const SafeTensor* embedding = Find("embed_tokens.weight");
  if (!head || !embedding || read_.count(head->name) || context_.subject.FindTensor("output.weight")) return;
  read_.insert(head->name);
  if (head->dtype == embedding->dtype &&
      std::equal(head->data.begin(), head->data.end(), embedding->data.begin(), embedding->data.end()))
    return;
  context_.findings.Add(
      "conversion", "output.weight",
      fmt::format("{} was left out: the file takes the embedding for it, which it is not", head->name));
}

Part Conversion::Close() {
  CheckHead();
  if (!missing_.empty())
    context_.findings.Add("checkpoint-missing", missing_.front(),
                          fmt::format("nothing in the checkpoint makes {}", FirstOf(missing_)));
  std::vector<std::string> unread;
  for (const std::string& name : checkpoint_.names())
    if (!read_.count(name) && !NeedsNoReader(name)) unread.push_back(name);
  if (!unread.empty())
    context_.findings.Add("checkpoint-unread", unread.front(),
                          fmt::format("no tensor of the file was made of {}", FirstOf(unread)));
  return {
      "checkpoint",
      fmt::format("{} tensors compared, {} of them bit by bit equal; a row is at most {:.2g} off (rel-L2)",
                  n_compared_, n_exact_, worst_),
      true};
}

}  // namespace

Part CompareCheckpoint(Context& context) {
  if (!context.request.checkpoint) return {"checkpoint", "not asked for (--hf DIR)", false};
  auto checkpoint = Checkpoint::Open(*context.request.checkpoint);
  if (!checkpoint.ok()) {
    context.findings.Add("checkpoint-unreadable", context.request.checkpoint->string(),
                         checkpoint.error().message);
    return {"checkpoint", "cannot be read", false};
  }
  Conversion conversion(context, *checkpoint);
  int64_t done = 0;
  for (const GgufFile& file : context.subject.files()) {
    for (const GgufTensor& t : file.tensors()) {
      if (context.request.progress)
        context.request.progress("checkpoint", done++, static_cast<int64_t>(context.subject.n_tensors()));
      conversion.Compare(t);
    }
  }
  return conversion.Close();
}

}  // namespace pb::soundness
