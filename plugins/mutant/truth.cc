// What is true of a spelled defect, in the words that a finding's conclusion takes
// (src/diagnose/conclusion.h). Written from what the defect does, not from what is found.
#include <fmt/format.h>

#include <algorithm>

#include "plugins/mutant/draw.h"

namespace pb::mutant {
namespace {

using Words = std::vector<std::string>;

std::string Places(const char* axis, int64_t first, int64_t last, int64_t every, int64_t of) {
  std::string text = fmt::format("{}:{}", axis, first);
  if (last != first) text += fmt::format("-{}", last);
  if (every != 1 && last != first) text += fmt::format("%{}", every);
  return of > 0 ? fmt::format("{}/{}", text, of) : text;
}

// Of a defect at an op: its part as it may be told.
class Part {
 public:
  Part(const Fault& fault, const Op& op) : f_(fault), n_(AxisLength(fault, op)) {
    const FaultPart& p = fault.part;
    if (p.all()) return;
    last_ = p.last - (p.last - p.first) % p.every;
    if (stages::kProducts.Contains(op.stage)) {
      const Weights w = MatrixOf(*op.model, op.stage, op.layer);
      columns_ = w.n_in(), block_ = ActBlockValues(OwnScheme(op), columns_);
    }
    head_dim_ = op.params().head_dim, of_rows_ = !stages::kOverPositions.Contains(op.stage);
    group_ = std::max<int64_t>(op.params().n_heads / std::max<int64_t>(op.params().n_kv_heads, 1), 1);
    n_heads_ = op.params().n_heads;
  }

  Words words() const {
    const FaultPart& p = f_.part;
    if (p.all()) return {"all"};
    switch (f_.kind->axis) {
      case FaultAxis::kColumns:
        return Columns(p.first, last_, p.every);
      case FaultAxis::kBlocks:
        return Columns(p.first * block_, std::min((last_ + 1) * block_, columns_) - 1, 1);
      case FaultAxis::kCode: {
        Words words = {Places("code", p.first, last_, p.every, block_)};
        if (block_ >= columns_) {
          AddStepped("columns", p.first, last_, p.every, columns_, &words);
        } else if (p.first == last_) {
          AddStepped("columns", p.first, columns_ - block_ + p.first, block_, columns_, &words);
        }
        return words;
      }
      case FaultAxis::kFeatures: {
        Words words;
        AddStepped("features", p.first, last_, p.every, n_, &words);
        return words;
      }
      case FaultAxis::kHeads:
        return Heads();
      case FaultAxis::kPositions:
        return {Places("positions", p.first, last_, p.every, 0)};
      default:
        return {"all"};
    }
  }
  // Up to the end of its axis, without a gap.
  bool is_tail() const { return !f_.part.all() && f_.part.every == 1 && f_.part.last == n_ - 1; }
  int64_t length() const { return f_.part.last - f_.part.first + 1; }
  int64_t block() const { return block_; }
  int64_t columns() const { return columns_; }

 private:
  // A step may be told up to its last place, or to the end of the axis.
  static void AddStepped(const char* axis, int64_t first, int64_t last, int64_t every, int64_t of,
                         Words* words) {
    words->push_back(Places(axis, first, last, every, of));
    if (every > 1 && last != of - 1 && last + every >= of)
      words->push_back(Places(axis, first, of - 1, every, of));
  }

  Words Columns(int64_t first, int64_t last, int64_t every) const {
    Words words;
    AddStepped("columns", first, last, every, columns_, &words);
    if (block_ <= 0) return words;
    const bool whole = every == 1 && first % block_ == 0 && (last + 1) % block_ == 0;
    if (whole)
      words.push_back(Places("blocks", first / block_, last / block_, 1, (columns_ + block_ - 1) / block_));
    if (whole && last - first + 1 == columns_) words.push_back("all");
    // The row is one block.
    if (block_ >= columns_) AddStepped("code", first, last, every, block_, &words);
    if (block_ >= columns_) return words;
    // The same place of every block, from the first to the last.
    if (every == block_ && first < block_ && last + block_ >= columns_)
      words.push_back(Places("code", first, first, 1, block_));
    // Every nth place of every block.
    if (every > 1 && every < block_ && block_ % every == 0 && first < every && last + every >= columns_) {
      const int64_t end = block_ - every + first;
      words.push_back(Places("code", first, end, every, block_));
      if (end != block_ - 1) words.push_back(Places("code", first, block_ - 1, every, block_));
    }
    return words;
  }

  // Of keys and values as they are in the cache: of their own heads, or of the query heads that read them.
  Words Heads() const {
    const FaultPart& p = f_.part;
    Words words = {Places("heads", p.first, last_, 1, n_)};
    if (f_.kind->id == FaultId::kHeadUnwritten)
      words.push_back(Places("heads", p.first * group_, (last_ + 1) * group_ - 1, 1, n_heads_));
    else if (of_rows_)
      words.push_back(
          Places("features", p.first * head_dim_, (last_ + 1) * head_dim_ - 1, 1, n_ * head_dim_));
    return words;
  }

  const Fault& f_;
  int64_t n_ = 0, last_ = 0, columns_ = 0, block_ = 0, head_dim_ = 1, group_ = 1, n_heads_ = 1;
  bool of_rows_ = true;
};

// Alternatives of each member; a member without any is left open.
struct Truth {
  Words where, part, what;
};

std::string Factor(double f) { return fmt::format("factor:{:.6g}", f); }
Words FactorWords(double f) {
  Words words = {Factor(f), fmt::format("variation:factor={:g}", f)};
  if (f == 2) words.emplace_back("variation:doubled");
  if (f == 0.5) words.emplace_back("variation:halved");
  if (f == -1) words.emplace_back("variation:sign");
  return words;
}

Truth OfQuantiser(const Fault& f, const Op& op, const Part& part) {
  switch (f.kind->id) {
    case FaultId::kCodesOff:
      return {{"codes"}, part.words(), {fmt::format("offset:{:g}", f.amount)}};
    case FaultId::kCodesTruncated:
      return {{"codes"}, {"all"}, {"truncation", "variation:quant.rounding=truncate"}};
    case FaultId::kCodesFloored:
      return {{"codes"}, {"all"}, {"truncation", "variation:quant.rounding=floor"}};
    case FaultId::kCodesClamped:
      return {
          {"codes"},
          {"all"},
          {fmt::format("saturation:{:g}", f.amount), fmt::format("variation:quant.clamp={:g}", f.amount)}};
    case FaultId::kAmaxOfPart: {  // which no word of the vocabulary says
      Words words = part.words();
      words.emplace_back("all");
      return {{"scales"}, words, {}};
    }
    case FaultId::kLevels: {
      Words what = {Factor(127 / f.amount), fmt::format("variation:quant.levels={:g}", f.amount)};
      // The largest value becomes this code, in place of 127: one computation, bit by bit, where codes
      // reach to -128 by either name.
      const ActScheme scheme = OwnScheme(op);
      if (scheme == ActScheme::kBitnet || scheme == ActScheme::kQ8_K)
        what.push_back(fmt::format("variation:quant.range={:g}", f.amount));
      return {{"scales"}, {"all"}, what};
    }
    case FaultId::kScalesFactor:
      return {{"scales"}, part.words(), FactorWords(f.amount)};
    case FaultId::kScalesUnrounded:  // otherwise than to f16: no word says it
      return {{"scales"}, {"all"}, {}};
    case FaultId::kScalesTruncated:
      return {{"scales"}, {"all"}, {"truncation"}};
    case FaultId::kSumsAbsent: {
      // Sums that are not told are told from minima by nothing.
      const bool untold = OwnScheme(op) == ActScheme::kQ8_K;
      return {untold ? Words{"sums", "weights"} : Words{"sums"}, part.words(), {"absent"}};
    }
    case FaultId::kSumsShifted:
      return {{"sums"}, {"all"}, {"other-part"}};
    case FaultId::kSumsWithout:
      return {{"sums"}, part.words(), {"absent"}};
    default:  // sums of other values, which no word says
      return {{"sums"}, {"all"}, {}};
  }
}

Truth OfProduct(const Fault& f, const Part& part) {
  Words tail;
  const bool columns = f.kind->axis == FaultAxis::kColumns || f.kind->axis == FaultAxis::kBlocks;
  if (columns && part.is_tail())
    tail = {fmt::format("variation:drop.columns={}",
                        f.kind->axis == FaultAxis::kBlocks ? part.length() * part.block() : part.length())};
  switch (f.kind->id) {
    case FaultId::kColumnsAbsent:
    case FaultId::kCodeAbsent:
    case FaultId::kBlocksAbsent:
      tail.insert(tail.begin(), "absent");
      return {{"product"}, part.words(), tail};
    case FaultId::kColumnsRepeated:
      return {{"product"}, part.words(), {"other-part"}};
    case FaultId::kFeaturesAbsent: {
      Words what = {"absent", "variation:zero="};
      if (part.is_tail()) what.push_back(fmt::format("variation:drop.rows={}", part.length()));
      return {{"product", "weights"}, part.words(), what};
    }
    case FaultId::kLanesLost: {
      // Some columns of some features.
      const auto n = static_cast<int64_t>(f.amount);
      Words words = part.words();
      const int64_t last = (part.columns() - n) / n * n + n - 1;
      words.push_back(Places("columns", n - 1, last, n, part.columns()));
      return {{"product"}, words, {"absent"}};
    }
    default:
      return {{"product", "weights"}, part.words(), FactorWords(f.amount)};
  }
}

Truth OfWeights(const Fault& f, const Op& op, const Part& part) {
  switch (f.kind->id) {
    case FaultId::kRowsShifted:
      return {{"weights", "product"}, part.words(), {"other-part", "variation:rows.permuted"}};
    case FaultId::kWeightBlock: {
      Words words = part.words();
      const Weights w = MatrixOf(*op.model, op.stage, op.layer);
      const auto row = static_cast<int64_t>(f.amount);
      words.push_back(Places("features", row, row, 1, w.n_out()));
      return {{"weights"}, words, {"absent"}};
    }
    case FaultId::kNibbles:
      return {{"weights"}, part.words(), {"other-part", "variation:weight.order="}};
    case FaultId::kNoMinimum: {
      const bool untold = OwnScheme(op) == ActScheme::kQ8_K && f.part.all();
      return {untold ? Words{"weights", "sums"} : Words{"weights"}, part.words(), {"absent"}};
    }
    case FaultId::kOthersScale:
      return {{"weights"}, part.words(), {"other-part"}};
    default:
      return {{"weights", "product"}, part.words(), FactorWords(f.amount)};
  }
}

Words LeftOut(pb_stage stage) {
  switch (stages::Of(stage).group) {
    case stages::Group::kNorm:
      return {"absent", "variation:norm.repeat=0"};
    case stages::Group::kRotary:
      return {"absent", "variation:rope=none"};
    case stages::Group::kActivation:
      return {"absent", "variation:ffn.activation=identity"};
    case stages::Group::kGate:
      return {"absent", "variation:glu=gate"};
    default:
      return {"absent", "variation:residual=alone"};
  }
}

Truth OfFormula(const Fault& f, const Op& op, const Part& part) {
  // A factor of a norm's channels may as well stand in its weight.
  const Words where = stages::kNorms.Contains(op.stage) ? Words{"formula", "weights"} : Words{"formula"};
  switch (f.kind->id) {
    case FaultId::kFactor:
      return {where, part.words(), FactorWords(f.amount)};
    case FaultId::kHeadFactor:
      return {{"formula"}, part.words(), FactorWords(f.amount)};
    case FaultId::kOffset:
      return {{"formula"}, part.words(), {fmt::format("offset:{:g}", f.amount), "variation:bias"}};
    case FaultId::kSaturated:
      return {{"formula"}, {"all"}, {fmt::format("saturation:{:g}", f.amount)}};
    case FaultId::kTruncated:
      return {{"formula"}, {"all"}, {"truncation"}};
    case FaultId::kHalf:  // rounding to another format: no word says it
      return {{"formula"}, {"all"}, {}};
    case FaultId::kLeftOut:
      return {{"formula"}, {"all"}, LeftOut(op.stage)};
    case FaultId::kHeadLeftOut:
      return {{"formula"}, part.words(), {"absent"}};
    default:
      return {{"formula"}, part.words(), {"other-part", "variation:rows.permuted"}};
  }
}

// What is in a cell for good may have been written or be read so.
Truth OfCache(const Fault& f, const Part& part) {
  const Words either = {"cache-written", "cache-read"};
  switch (f.kind->id) {
    case FaultId::kCellAbsent:
    case FaultId::kHeadUnwritten:
      return {either, part.words(), {"absent", "variation:zero="}};
    case FaultId::kCellOfBefore:
      return {either, part.words(), {"stale", "other-part"}};
    case FaultId::kCellOfNext:
      return {either, part.words(), {"other-part"}};
    case FaultId::kUnrotated:
      return {either, {"all"}, {"absent", "variation:rope=none"}};
    case FaultId::kOwnOfBefore:  // the diagonal, which no word says
      return {either, {}, {"stale", "variation:kv.own=before"}};
    case FaultId::kReadBefore:
      return {either, {"all"}, {"stale", "other-part", "variation:kv.shift=1"}};
    default:
      return {{"cache-read"}, part.words(), {"other-part", "variation:heads.permuted"}};
  }
}

Truth OfMask(const Fault& f, const Part& part) {
  if (f.kind->id == FaultId::kPositionHidden) return {{"mask"}, part.words(), {"absent"}};
  // Positions that move with the row, which no word says.
  const std::string shift = fmt::format("{:g}", f.amount);
  if (f.kind->id == FaultId::kWindow) return {{"mask"}, {}, {"absent", "variation:attn.window=" + shift}};
  return {{"mask"}, {}, {"absent", "offset:-" + shift, "offset:" + shift, "variation:mask.shift=-" + shift}};
}

Truth Of(const Fault& f, const Op& op) {
  const Part part(f, op);
  const FaultId id = f.kind->id;
  if (id == FaultId::kShareRepeated) return {{"thread"}, part.words(), {"other-part"}};
  if (id == FaultId::kShareAbsent)
    return {{"thread"},
            part.words(),
            {"absent", fmt::format("variation:drop.rows={}", part.length()), "variation:zero="}};
  if (id >= FaultId::kPositionHidden) return OfMask(f, part);
  if (id >= FaultId::kCellAbsent) return OfCache(f, part);
  if (id >= FaultId::kFactor) return OfFormula(f, op, part);
  if (id >= FaultId::kRowsShifted) return OfWeights(f, op, part);
  if (id >= FaultId::kColumnsAbsent) return OfProduct(f, part);
  return OfQuantiser(f, op, part);
}

Words WhenWords(const std::string& when) {
  if (when == "prefill") return {"prefill", "from-batch:2"};
  if (when == "decode") return {"decode", "up-to-batch:1"};
  if (when == "two_threads") return {"threads:2"};
  std::string word = when;
  std::replace(word.begin(), word.end(), '_', '-');
  return {word};
}

// All combinations with one more member.
void Multiply(const char* member, const Words& words, Words* truths) {
  if (words.empty()) return;
  Words all;
  for (const std::string& truth : *truths)
    for (const std::string& word : words)
      all.push_back(fmt::format("{}{}{}={}", truth, truth.empty() ? "" : " ", member, word));
  *truths = std::move(all);
}

}  // namespace

std::string TruthOf(const Fault& fault, const Op& op, const std::string& when) {
  const Truth truth = Of(fault, op);
  Words truths = {""};
  Multiply("where", truth.where, &truths);
  Multiply("part", truth.part, &truths);
  Multiply("when", WhenWords(when), &truths);
  Multiply("what", truth.what, &truths);
  return fmt::format("{}", fmt::join(truths, " | "));
}

}  // namespace pb::mutant
