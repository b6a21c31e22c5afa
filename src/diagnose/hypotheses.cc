// The table of variations, and which of them restore an output.
#include "diagnose/hypotheses.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>

#include "diagnose/op_weights.h"
#include "diagnose/part.h"
#include "diagnose/region.h"
#include "diagnose/transformations.h"
#include "diagnose/wrong_part.h"
#include "stages/stages.h"

namespace pb::diagnose {
namespace {

using stages::kNorms, stages::kProducts, stages::Set;
constexpr Set kRope = stages::kRotary, kSoftmax = PB_STAGE_ATTN_SCORES_SOFTMAX,
              kScores = PB_STAGE_ATTN_SCORES, kContext = PB_STAGE_ATTN_CONTEXT,
              kActivations = stages::kActivations | stages::kGated, kRouting = PB_STAGE_EXPERT_WEIGHTS;

// One value of a variation. `text`: what an engine does that does it.
struct Variation {
  Set at;
  const char* key;
  const char* value;
  const char* text;
  const char* short_text;
};
constexpr Variation kVariations[] = {
    {kActivations, "ffn.activation", "silu", "runs SiLU", "SiLU"},
    {kActivations, "ffn.activation", "relu2", "runs squared ReLU", "squared ReLU"},
    {kActivations, "ffn.activation", "relu", "runs ReLU", "ReLU"},
    {kActivations, "ffn.activation", "gelu", "runs GELU", "GELU"},
    {kActivations, "ffn.activation", "gelu_tanh", "runs tanh-GELU", "tanh-GELU"},
    {kActivations, "ffn.activation", "gelu_tanh;ffn.table=none", "runs tanh-GELU without a table of f16",
     "tanh-GELU without a table"},
    {kActivations, "ffn.activation", "identity", "runs no activation", "no activation"},
    {kActivations, "ffn.table", "f16", "reads the activation from a table of half precision",
     "a table of half precision"},
    {kRope, "rope.pairing", "adjacent", "rotates adjacent pairs", "adjacent pairs"},
    {kRope, "rope.pairing", "halves", "rotates pairs of halves", "pairs of halves"},
    {kRope, "rope.base", "10000", "rotates with base 10000", "base 10000"},
    {kRope, "rope.base", "100000", "rotates with base 100000", "base 100000"},
    {kRope, "rope.base", "500000", "rotates with base 500000", "base 500000"},
    {kRope, "rope.base", "1000000", "rotates with base 1000000", "base 1000000"},
    {kRope, "rope.scale", "1", "does not scale positions", "unscaled positions"},
    {kRope, "rope.scale", "2", "divides positions by 2", "positions over 2"},
    {kRope, "rope.scale", "4", "divides positions by 4", "positions over 4"},
    {kRope, "rope.scale", "8", "divides positions by 8", "positions over 8"},
    {kRope, "rope.scale", "0.5", "doubles positions", "doubled positions"},
    {kRope, "rope.scale", "-1", "rotates the other way", "the other direction"},
    {kRope, "rope.offset", "1", "rotates by the position after", "positions from 1"},
    {kRope, "rope.offset", "-1", "rotates by the position before", "positions from -1"},
    {kNorms, "norm.eps", "0.1", "adds eps 0.1", "eps 0.1"},
    {kNorms, "norm.eps", "1e-3", "adds eps 1e-3", "eps 1e-3"},
    {kNorms, "norm.eps", "1e-4", "adds eps 1e-4", "eps 1e-4"},
    {kNorms, "norm.eps", "1e-5", "adds eps 1e-5", "eps 1e-5"},
    {kNorms, "norm.eps", "1e-6", "adds eps 1e-6", "eps 1e-6"},
    {kNorms, "norm.eps", "1e-8", "adds eps 1e-8", "eps 1e-8"},
    {kNorms, "norm.eps", "0", "adds no eps", "no eps"},
    {kNorms, "norm.weight_offset", "1", "adds 1 to the norm's weight", "weight + 1"},
    {kNorms, "norm.weight_offset", "-1", "takes 1 from the norm's weight", "weight - 1"},
    {kNorms, "norm.repeat", "0", "leaves the norm out", "the norm left out"},
    {kNorms, "norm.repeat", "2", "applies the norm twice", "the norm twice"},
    {kNorms, "norm.centred", "1", "subtracts the mean first (LayerNorm)", "the mean subtracted"},
    {kNorms, "norm.centred", "0", "does not subtract the mean first (RMSNorm)", "the mean left in"},
    {kNorms, "norm.eps_outside", "1", "adds eps to the root, not to the mean of squares",
     "eps under the root"},
    {kNorms, "norm.unweighted", "1", "leaves the norm's weight out", "the norm's weight left out"},
    {kProducts, "act.quant", "none", "does not quantise activations", "unquantised activations"},
    {kProducts, "act.quant", "f16", "rounds activations to f16", "f16 activations"},
    {kProducts, "act.quant", "bf16", "rounds activations to bfloat16", "bfloat16 activations"},
    {kProducts, "act.quant", "q8_0", "quantises activations as Q8_0", "Q8_0 activations"},
    {kProducts, "act.quant", "q8_1", "quantises activations as Q8_1", "Q8_1 activations"},
    {kProducts, "act.quant", "q8_k", "quantises activations as Q8_K", "Q8_K activations"},
    {kProducts, "act.quant", "bitnet", "quantises activations as int8 per token", "int8 per token"},
    {kProducts, "quant.rounding", "half_away", "rounds activation codes half away from zero",
     "rounding half away"},
    {kProducts, "quant.rounding", "truncate", "truncates activation codes", "truncated codes"},
    {kProducts, "quant.rounding", "floor", "rounds activation codes down", "codes rounded down"},
    {kProducts, "quant.cut_scales", "1", "cuts scales of activations off to f16",
     "scales rounded to the nearest f16"},
    {kProducts, "quant.range", "128", "scales the largest activation to 128, not to 127", "codes up to 127"},
    {kProducts, "quant.clamp", "126", "clamps activation codes to +-126", "codes within 126"},
    {kProducts, "quant.clamp", "63", "clamps activation codes to +-63", "codes within 63"},
    {kProducts, "quant.clamp", "7", "clamps activation codes to +-7", "codes within 7"},
    {kProducts, "quant.block", "16", "quantises activations in blocks of 16", "blocks of 16"},
    {kProducts, "quant.block", "32", "quantises activations in blocks of 32", "blocks of 32"},
    {kProducts, "quant.block", "64", "quantises activations in blocks of 64", "blocks of 64"},
    {kProducts, "quant.block", "128", "quantises activations in blocks of 128", "blocks of 128"},
    {kProducts, "quant.block", "256", "quantises activations in blocks of 256", "blocks of 256"},
    {kProducts, "quant.block", "-1", "quantises a row of activations as one block", "one block a row"},
    {kProducts, "weight.transposed", "1", "reads the weight transposed", "the weight transposed"},
    {kProducts, "weight.order", "reversed", "reads the codes of a byte in reverse order",
     "codes in reverse order"},
    {kProducts, "weight.order", "consecutive", "reads a byte as consecutive weights",
     "bytes of consecutive weights"},
    {PB_STAGE_LOGITS, "output.tied", "1", "takes the embeddings for the output matrix", "tied embeddings"},
    {kSoftmax, "softmax.sink", "1", "adds 1 to the sum of the softmax's exponentials",
     "a sum without that 1"},
    {kSoftmax, "softmax.scale", "0.69314718055994531", "takes powers of 2 in place of e", "powers of 2"},
    {kRope, "rope.pair_shift", "1", "rotates each pair by the frequency of the pair behind",
     "each pair's own frequency"},
    {kRope, "rope.pair_shift", "-1", "rotates each pair by the frequency of the pair before",
     "each pair's own frequency"},
    {kRope, "rope.exchanged", "1", "rotates local layers as the others, or these as local ones",
     "local and global rotation exchanged"},
    {kRope, "rope.everywhere", "1", "rotates a layer that has no rotary embedding", "rotation everywhere"},
    {kScores, "attn.window_shift", "1", "sees one position more than its window", "a window longer by one"},
    {kScores, "attn.window_shift", "-1", "sees one position less than its window", "a window shorter by one"},
    {kScores, "attn.window_shift", "1000000", "has no window", "no window"},
    {kScores, "attn.cap", "0", "does not cap the scores", "no cap of the scores"},
    {PB_STAGE_LOGITS, "logits.cap", "0", "does not cap the logits", "no cap of the logits"},
    {PB_STAGE_LOGITS, "logits.scale", "1", "does not scale the logits", "unscaled logits"},
    {stages::kSums, "residual.scale", "1", "does not scale what is added to the residual stream",
     "an unscaled residual"},
    {kSoftmax, "softmax.sinks", "0", "leaves out the heads' sinks", "no sinks"},
    {kRope, "rope.attention_factor", "1", "does not scale what it rotates", "no attention factor"},
    {kRope, "rope.yarn", "0", "divides all frequencies alike", "no mixture of frequencies"},
    {stages::kGated, "ffn.gate_offset", "0", "does not add 1 to what the gate multiplies", "no added 1"},
    {stages::kGated, "ffn.gate_limit", "0", "does not cap what the gate multiplies", "no cap"},
    {kNorms, "product.bias", "0", "leaves out the norm's bias", "no bias"},
    {kRouting, "router.softmax", "chosen", "takes the softmax of the chosen experts alone",
     "a softmax of the chosen"},
    {kRouting, "router.softmax", "all", "takes the softmax of all experts", "a softmax of all"},
    {kRouting, "router.normalise", "0", "does not divide the experts' weights by their sum",
     "weights that are not normalised"},
    {kRouting, "router.normalise", "1", "divides the experts' weights by their sum", "normalised weights"},
    {kRouting, "router.equal", "1", "gives all experts the weight 1", "equal weights"},
    {PB_STAGE_EXPERT_IDS, "router.rank", "1", "leaves out the best expert", "experts from the second on"},
    {PB_STAGE_SHARED_OUT, "shared.gate", "0", "leaves out the shared expert's gate", "no shared gate"},
    {kScores, "mask.shift", "1", "sees one position of the future", "a mask off by one"},
    {kScores, "mask.shift", "-1", "hides a position from itself", "a mask off by one"},
    {kScores, "mask.shift", "1000000", "does not mask the future", "no causal mask"},
    {kScores | kContext, "kv.shift", "1", "reads keys or values of the position before", "a stale cache"},
    {kScores | kContext, "kv.own", "zero", "reads its own key or value before it is written",
     "an own cell of zeros"},
    {kScores | kContext, "kv.own", "before", "reads a stale key or value at its own position",
     "a stale own cell"},
    {kScores | kContext, "kv.own", "twice", "has its own key or value in two cells", "a doubled own cell"},
    {kScores | kContext, "kv.map", "interleaved", "reads KV head h mod n_kv_heads for query head h",
     "interleaved KV heads"},
};

// What the model declares of a variation's key, for people; empty: nothing that a reader would ask
// for.
std::string DeclaredText(const FileArbiter& arbiter, std::string_view key) {
  const HyperParameters& p = arbiter.model().params();
  if (key == "ffn.activation" && p.ffn_activation) {
    switch (p.ffn_activation->value) {
      case Activation::kSilu:
        return "SiLU";
      case Activation::kRelu2:
        return "squared ReLU";
      case Activation::kRelu:
        return "ReLU";
      case Activation::kGelu:
        return "GELU";
      case Activation::kGeluTanh:
        return "tanh-GELU";
      case Activation::kSwigluOai:
        return "the capped SwiGLU of gpt-oss";
    }
  }
  if (key == "rope.pairing")
    return p.rope_pairing.value == RopePairing::kHalves ? "halves" : "adjacent pairs";
  if (key == "rope.base") return fmt::format("{}", p.rope_base.value);
  if (key == "rope.scale") return fmt::format("{}", p.rope_scale.value);
  if (key == "norm.eps") return fmt::format("{}", p.norm_eps.value);
  return "";
}

class Search {
 public:
  explicit Search(const Subject& subject) : whole_(subject), wrong_(FindWrongPart(subject)) {
    if (ProductWork(whole_) > kTriedWork) part_ = Part::Of(whole_, kTriedWork);
    s_ = part_ ? part_->subject() : whole_;
  }

  std::vector<Trial> Run() {
    // A product whose replays take seconds each and cannot be cut: its output alone is looked at.
    const bool replays = part_ || ProductWork(whole_) <= kLargestWork;
    if (replays) {
      for (const Variation& v : kVariations)
        if (v.at.Contains(s_.culprit->place.stage)) Try(v);
      TryOwnValues();
      TryBefore();
    }
    for (Guess& guess : MaskGuesses(whole_, wrong_)) Add(std::move(guess), whole_);
    if (std::ranges::none_of(trials_, [](const Trial& t) { return t.restores && !t.in_part; }))
      for (auto* guesses : {CacheGuesses, FusedGuesses})
        for (Guess& guess : guesses(whole_, wrong_)) Add(std::move(guess), whole_);
    // What is read explains more than what is made of it.
    const bool read =
        std::ranges::any_of(trials_, [](const Trial& t) { return t.restores && t.name.starts_with("kv."); });
    if (!read) {
      for (Guess& guess : OutputTransformations(whole_, wrong_)) Add(std::move(guess), whole_);
      for (Guess& guess : OtherValues(whole_, wrong_)) Add(std::move(guess), whole_);
    }
    if (replays)
      for (Guess& guess : OtherTensors(s_)) Add(std::move(guess), s_);
    if (!Explained())
      for (Guess& guess : OtherTerms(whole_, wrong_)) Add(std::move(guess), whole_);
    if (!Explained())
      for (Guess& guess : OtherReadings(whole_, wrong_)) Add(std::move(guess), whole_);
    if (!Explained() && replays)
      for (Guess& guess : FittedVariations(s_, wrong_)) Add(std::move(guess), s_);
    if (!Explained() && replays) TryTogether();
    if (!Explained())
      for (Guess& guess : OtherSums(whole_, wrong_)) Add(std::move(guess), whole_);
    std::stable_sort(trials_.begin(), trials_.end(), [](const Trial& a, const Trial& b) {
      return std::tuple(!a.restores, a.restores && a.in_part, a.restores ? a.n_fitted : 0, a.error) <
             std::tuple(!b.restores, b.restores && b.in_part, b.restores ? b.n_fitted : 0, b.error);
    });
    return std::move(trials_);
  }

 private:
  static constexpr double kTriedWork = 2e8, kLargestWork = 2e9;  // multiply-adds
  // Values of the wrong part that a hypothesis in it alone has to give, and with a fitted number.
  static constexpr int64_t kLeastInPart = 2, kLeastFittedInPart = 4;

  bool Explained() const {
    return std::ranges::any_of(trials_, [](const Trial& t) { return t.restores; });
  }

  // Variations whose value the model or the place gives.
  void TryOwnValues() {
    const Culprit& c = *s_.culprit;
    auto attempt = [&](Set at, const char* key, double value, const char* text, const char* short_text) {
      if (at.Contains(c.place.stage)) Try({at, key, fmt::format("{:.9g}", value).c_str(), text, short_text});
    };
    const HyperParameters& p = s_.arbiter->model().params();
    // Of one row that is no rotation at all.
    if (c.first_position > 1 && c.shape[0] > 1)
      attempt(kRope, "rope.offset", -c.first_position, "counts positions from the start of each batch",
              "positions from the batch's start");
    attempt(kRope, "rope.dims", static_cast<double>(p.rope_dims) / 2, "rotates half of each head",
            "half of each head rotated");
    for (const int64_t n : {1, 2, 4, 8})
      if (kRope.Contains(c.place.stage) && 4 * n <= p.rope_dims) {
        const std::string text = fmt::format("leaves the last {} of each head as they are",
                                             n == 1 ? "pair" : fmt::format("{} pairs", n));
        attempt(kRope, "rope.pairs_left", static_cast<double>(n), text.c_str(), "all pairs rotated");
      }
    if (kNorms.Contains(c.place.stage)) TryDropped();
    if (!p.rope_factors.empty())
      attempt(kRope, "rope.factors", 0, "leaves out the factors of the frequencies", "no frequency factors");
    const OpWeights weights = WeightsOf(s_.arbiter->model(), c.place.stage, c.place.layer);
    if (weights.bias)
      attempt(kProducts | stages::kExpertProducts, "product.bias", 0, "leaves out the bias", "no bias");
    if (weights.matrix && !BlockMinima(*weights.matrix, 0).empty())
      attempt(kProducts, "weight.minimum", 0, "leaves out the minimum of the weight's blocks", "no minimum");
    if (weights.matrix && kProducts.Contains(c.place.stage)) TryRanges(*weights.matrix);
    if (const float step = TernaryStep(weights); step > 0) {
      // Under Q8_K weights are lowered by sums of the codes that they meet.
      const bool sums = s_.arbiter->SchemeOf(*weights.matrix, c.place.stage) == ActScheme::kQ8_K;
      attempt(kProducts, "weight.offset", step,
              sums ? "takes weight codes for one more than they are, or leaves out the sums that lower them"
                   : "takes weight codes for one more than they are",
              "codes less 1");
      attempt(kProducts, "weight.offset", -step, "takes weight codes for one less than they are",
              "codes plus 1");
    }
  }

  // Values at an end of a row that a norm leaves out of its mean of squares.
  void TryDropped() {
    const Culprit& c = *s_.culprit;
    const auto& norm = s_.arbiter->model().weights(c.place.stage, c.place.layer).vector;
    const auto width = static_cast<int64_t>(norm.size());
    for (const int64_t n : {1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 64})
      for (const int64_t by : {n, -n}) {
        if (2 * n > width) continue;
        const Region part = by > 0 ? Region{Axis::kColumns, width - n, width - 1, 1, width}
                                   : Region{Axis::kColumns, 0, n - 1, 1, width};
        const std::string words = fmt::format("{} {} of {} values", by > 0 ? "last" : "first", n, width);
        auto guess = Varied(s_, {fmt::format("norm.dropped={}", by),
                                 fmt::format("leaves the {} out of the mean of squares", words),
                                 fmt::format("the {} in the mean of squares", words), 0});
        if (!guess) continue;
        guess->meaning = {Where::kFormula, part, WhatKind::kAbsent, 0};
        Add(std::move(*guess), s_);
      }
  }

  // The largest magnitude of a block taken over a part of it.
  void TryRanges(const WeightView& w) {
    const ActScheme scheme = s_.arbiter->SchemeOf(w, s_.culprit->place.stage);
    const int64_t block = ActBlockValues(scheme, w.n_columns);
    if (!IsIntegerScheme(scheme) || block < 4) return;
    for (int64_t n :
         {block - 1, 3 * block / 4, block / 2, block / 4, -(block - 1), -3 * block / 4, -(block / 2)}) {
      const std::string value = std::to_string(n);
      const std::string text = fmt::format("takes the largest activation of the {} {} of each block of {}",
                                           n > 0 ? "first" : "last", std::abs(n), block);
      Try({kProducts, "quant.amax", value.c_str(), text.c_str(), "the largest of the whole block"});
    }
  }

  // Ops before this one that no point shows: what is wrong may be in one of them.
  void TryBefore() {
    for (const pb_stage stage : s_.recomputed) {
      if (stage == s_.culprit->place.stage) continue;
      for (const Variation& v : kVariations)
        if (v.at.Contains(stage) && !v.at.Contains(s_.culprit->place.stage)) Try(v, stage);
    }
  }

  // Another scheme, rounded otherwise: two settings of the quantiser at once.
  void TryTogether() {
    if (!kProducts.Contains(s_.culprit->place.stage)) return;
    for (const Variation& v : kVariations) {
      const std::string_view key = v.key;
      if (key != "act.quant" && key != "quant.block" && key != "quant.range") continue;
      for (const Variation& w : kVariations) {
        if (std::string_view(w.key) != "quant.rounding") continue;
        const std::string value = fmt::format("{};{}={}", v.value, w.key, w.value);
        const std::string text = fmt::format("{} and {}", v.text, w.text);
        Try({v.at, v.key, value.c_str(), text.c_str(), v.short_text});
      }
    }
  }

  // `stage`: whose variation it is; that of the op, or of one before it.
  void Try(const Variation& v, int32_t stage = -1) {
    std::string text = v.text;
    if (std::string declared = DeclaredText(*s_.arbiter, v.key); !declared.empty())
      text += ", the model declares " + declared;
    auto guess = Varied(s_, {fmt::format("{}={}", v.key, v.value), std::move(text), v.short_text, 0});
    if (!guess) return;
    guess->meaning = MeaningOf(guess->name, stage < 0 ? s_.culprit->place.stage : stage);
    // Scores and softmax that attention computes in one op are of that op.
    const bool inside =
        s_.culprit->place.stage == PB_STAGE_ATTN_CONTEXT && (kScores | kSoftmax).Contains(stage);
    Add(std::move(*guess), s_, inside ? -1 : stage);
  }

  // `s`: what the guess was made on.
  void Add(Guess guess, const Subject& s, int32_t stage = -1) {
    if (guess.output.size() != s.output.size() || std::ranges::equal(guess.output, s.declared)) return;
    Trial trial;
    trial.side = s.side, trial.name = std::move(guess.name), trial.text = std::move(guess.text);
    trial.short_text = std::move(guess.short_text), trial.n_fitted = guess.n_fitted;
    trial.stage = stage;
    const bool meant = guess.meaning.where != Where::kUnknown || guess.meaning.part.axis != Axis::kUnknown ||
                       guess.tells_part;
    trial.meaning = meant ? guess.meaning : MeaningOf(trial.name, s.culprit->place.stage);
    Judge(s, guess.output, guess.units, &trial);
    trial.of_rows = whole_.culprit->shape[0];
    if (trial.restores && trial.n_rows < trial.of_rows) {
      auto all = guess.replay(*whole_.culprit);
      trial.restores = false;
      if (all.ok()) Judge(whole_, all->output.values, all->units, &trial);
    }
    if (!trial.restores && guess.output.size() == whole_.output.size())
      InPartAlone(guess.output, guess.units, guess.tells_part, &trial);
    if (trial.restores) trial.replay = std::move(guess.replay);
    trials_.push_back(std::move(trial));
  }

  // The op as declared, but for the part that is wrong.
  void InPartAlone(const std::vector<float>& output, const std::vector<float>& units, bool tells_part,
                   Trial* trial) const {
    // Zeros are told by nothing but that they are: SiLU cut off is no squared ReLU.
    if (trial->meaning.what != WhatKind::kAbsent && WrongAreZeros()) return;
    // That a part is zero one value tells.
    const int64_t least = trial->n_fitted > 0 ? kLeastFittedInPart : tells_part ? 1 : kLeastInPart;
    if (wrong_.n_values() < least) return;
    // Rows in which it is not done are no part of the op, but a time.
    Subject of_units = whole_;
    of_units.declared = whole_.units;
    const bool own = units.size() == whole_.units.size() && !units.empty();
    if (!wrong_.all_rows() &&
        RestoresWith(InRows(whole_, wrong_, output),
                     own ? InRows(of_units, wrong_, units) : std::vector<float>{}, trial)) {
      trial->rows_alone = true;
      return;
    }
    // Which heads read which keys and values is one order of all of them.
    const bool of_all = trial->name.starts_with("kv.map=");
    const Axis axis = wrong_.region.axis;
    const bool apart = axis != Axis::kUnknown && axis != Axis::kAll && axis != Axis::kRows;
    if (!apart || of_all ||
        !RestoresWith(InPart(whole_, wrong_, output),
                      own ? InPart(of_units, wrong_, units) : std::vector<float>{}, trial))
      return;
    if (!tells_part) trial->text += fmt::format(" in {} alone", RegionWords(wrong_.region));
    if (trial->meaning.part.axis != Axis::kAll) return;
    trial->meaning.part = wrong_.region;
    if (trial->meaning.where == Where::kProduct)
      trial->meaning.where = WhereOfPart(whole_.culprit->place.stage, wrong_);
  }
  bool WrongAreZeros() const {
    for (int64_t i : wrong_.rows)
      for (int64_t j : wrong_.features)
        if (whole_.output[static_cast<size_t>(i * wrong_.n_features + j)] != 0) return false;
    return true;
  }
  bool RestoresWith(const std::vector<float>& output, const std::vector<float>& units, Trial* trial) const {
    Trial in_part = *trial;
    Judge(whole_, output, units, &in_part);
    if (!in_part.restores) return false;
    *trial = std::move(in_part);
    trial->in_part = true;
    return true;
  }

  static void Judge(const Subject& s, std::span<const float> output, std::span<const float> units,
                    Trial* trial) {
    // What is declared has no units where the op's own bound holds, of sums in fewer bits.
    const bool own = !units.empty() && !s.units.empty();
    const Agreement found = s.arbiter->Compare(*s.culprit, s.output, output, own ? units : s.units);
    trial->error = found.error(), trial->bound_ratio = found.row.bound_ratio;
    trial->restores = found.agrees, trial->n_rows = s.culprit->shape[0];
  }

  const Subject& whole_;
  const WrongPart wrong_;
  std::optional<Part> part_;
  Subject s_;  // what replays are tried on
  std::vector<Trial> trials_;
};

}  // namespace

std::vector<Trial> TryHypotheses(const Subject& subject) { return Search(subject).Run(); }

}  // namespace pb::diagnose
