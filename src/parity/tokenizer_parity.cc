// Reads each text in both tokenisers, in every mode, and what comes back from the ids.
#include "parity/tokenizer_parity.h"

#include <algorithm>
#include <chrono>

#include "base/random.h"
#include "formats/gguf.h"
#include "parity/pair.h"
#include "parity/shrink.h"
#include "run/doubts.h"
#include "run/open_side.h"
#include "tokenizer/gguf_keys.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace pb::parity {

const std::array<ReadingMode, 4> kReadingModes = {{
    {"as a prompt is read", PB_ADD_SPECIAL | PB_PARSE_SPECIAL},
    {"as plain text", 0},
    {"with BOS and EOS, control tokens as text", PB_ADD_SPECIAL},
    {"without BOS and EOS, control tokens read", PB_PARSE_SPECIAL},
}};

namespace {

using compare::Outcome;
using compare::ReasonCode;
using Ids = std::vector<int32_t>;

constexpr size_t kPlain = 1;  // of kReadingModes
constexpr int kMaxDifferences = 5, kMaxTries = 20'000;

// One side: an engine, or our own tokeniser.
class Side {
 public:
  Side(drive::Participant& engine, const Tokenizer* own) : engine_(engine), own_(own) {}

  Result<Ids> Encode(const std::string& text, uint32_t flags) {
    if (own_) return own_->Encode(text, {(flags & PB_ADD_SPECIAL) != 0, (flags & PB_PARSE_SPECIAL) != 0});
    return engine_.engine().Tokenize(text, flags);
  }
  Result<std::string> Decode(std::span<const int32_t> ids) {
    return own_ ? own_->Decode(ids, true) : engine_.engine().Detokenize(ids);
  }
  drive::Participant& engine() { return engine_; }
  bool is_engine() const { return !own_; }

 private:
  drive::Participant& engine_;
  const Tokenizer* own_;
};

// What the engine's own refusal of a text is, and not its end.
bool IsRefusal(const Error& error) {
  return error.code == Code::kUsage || error.code == Code::kUnsupported || error.code == Code::kMalformed;
}

// Scripts, classes of white space, digits, marks, code and damaged bytes, and pieces of the control
// tokens' own texts.
class RandomTexts {
 public:
  explicit RandomTexts(uint64_t seed) : random_(seed) {}

  std::string Next() {
    std::string text;
    for (uint64_t n = 1 + random_.Below(12); n > 0; --n) text += Piece();
    return text;
  }

 private:
  std::string Point(uint32_t first, uint32_t last) {
    std::string out;
    AppendUtf8(first + static_cast<uint32_t>(random_.Below(last - first + 1)), &out);
    return out;
  }

  std::string Piece() {
    static const char* const kTexts[] = {"the",
                                         " and",
                                         "'ll",
                                         "'S",
                                         "  ",
                                         "\n\n",
                                         "\t",
                                         "\r\n",
                                         "1234567",
                                         "3.14",
                                         "<|",
                                         "|>",
                                         "</s>",
                                         "<s>",
                                         "<|im_start|>",
                                         "...",
                                         "==",
                                         "\u00a0",
                                         "\u3000",
                                         "e\u0301",
                                         "\u200d",
                                         "\ufeff",
                                         "\U0001F468\u200d\U0001F469"};
    switch (random_.Below(12)) {
      case 0:
        return Point(0x20, 0x7e);
      case 1:
        return Point(0xa0, 0x24f);
      case 2:
        return Point(0x370, 0x5ff);
      case 3:
        return Point(0x600, 0x97f);
      case 4:
        return Point(0x3040, 0x30ff);
      case 5:
        return Point(0x4e00, 0x9fff);
      case 6:
        return Point(0xac00, 0xd7a3);
      case 7:
        return Point(0x1f300, 0x1faff);
      case 8:
        return Point(0x2000, 0x206f);
      case 9: {
        const auto point = static_cast<uint32_t>(random_.Below(0x110000));
        return point >= 0xd800 && point <= 0xdfff ? " " : Point(point, point);
      }
      case 10:
        return random_.Below(4) == 0 ? std::string(1, static_cast<char>(0x80 + random_.Below(0x80)))
                                     : Point(0, 0x1f);
      default:
        return kTexts[random_.Below(std::size(kTexts))];
    }
  }

  Random random_;
};

class TokenizerRun {
 public:
  explicit TokenizerRun(const TokenizerRequest& request)
      : request_(request), pair_(request.pair, &out_.run) {}

  Result<TokenizerParity> Run();

 private:
  Status Open();
  Status OpenOwn();
  Status CompareAll();
  Status Compare(const run::PromptSpec& text);
  // What differs of a text in a mode; none: nothing. An engine that dies is noted, and failed_ is set.
  Result<std::optional<TokenDifference>> Differs(const std::string& text, const ReadingMode& mode);
  Result<std::optional<TokenDifference>> DecodesOtherwise(const Ids& ids, const std::string& text,
                                                          const ReadingMode& mode);
  Status Report(TokenDifference found, const ReadingMode& mode, const run::PromptSpec& text);
  // A result of a side; none: it refuses, and *refusal says why.
  template <typename T>
  Result<std::optional<T>> Taken(int side, Result<T> result, std::string* refusal);
  Side& side(int side) { return sides_[static_cast<size_t>(side)]; }
  void Judge();

  const TokenizerRequest& request_;
  TokenizerParity out_;
  Pair pair_;
  std::shared_ptr<const Tokenizer> own_;
  std::vector<Side> sides_;
  bool died_ = false;
};

template <typename T>
Result<std::optional<T>> TokenizerRun::Taken(int which, Result<T> result, std::string* refusal) {
  if (result.ok()) return std::optional<T>(std::move(result).value());
  if (IsRefusal(result.error())) {
    *refusal = result.error().message;
    return std::optional<T>();
  }
  if (side(which).is_engine()) return side(which).engine().Noted(std::move(result).error()).error();
  return std::move(result).error();
}

Status TokenizerRun::OpenOwn() {
  if (request_.file) {
    own_ = request_.file;
    for (const std::string& finding : own_->findings())
      out_.run.notes.push_back(fmt::format("{}: {}", request_.file_name, finding));
    return {};
  }
  auto file = GgufFile::Open(request_.pair.model);
  if (!file.ok()) return std::move(file).error();
  PB_ASSIGN(TokenizerData data, ReadTokenizerData(*file));
  auto created = Tokenizer::Create(std::move(data));
  if (!created.ok()) {
    if (created.error().code != Code::kUnsupported) return std::move(created).error();
    pair_.Add(compare::Unsupported(created.error().message));
    died_ = true;
    return {};
  }
  own_ = std::move(created).value();
  for (const std::string& finding : own_->findings()) out_.run.notes.push_back("paritybit: " + finding);
  return {};
}

Status TokenizerRun::Open() {
  out_.run.candidate.role = "candidate", out_.run.reference.role = "reference";
  out_.run.candidate.spec = !request_.own_candidate ? request_.pair.candidate.text
                            : request_.file         ? request_.file_name
                                                    : std::string(kOwnTokenizer);
  out_.run.reference.spec = request_.pair.reference.text;
  out_.run.candidate.model_path = request_.pair.model;
  if (!request_.pair.no_reference.empty()) {
    pair_.Add(compare::NoReference(request_.pair.no_reference));
    died_ = true;
    return {};
  }
  if (request_.own_candidate) PB_TRY(OpenOwn());
  for (int which : {0, 1}) {
    if (died_ || pair_.failed() || (which == 0 && request_.own_candidate)) continue;
    drive::Participant& engine = pair_.side(which);
    PB_TRY(pair_.Absorb(engine.Start(pair_.spec(which))));
    const bool own_model = which == 1 && !request_.pair.reference_model.empty();
    if (!pair_.failed())
      PB_TRY(pair_.Absorb(engine.OpenModel(own_model ? request_.pair.reference_model : request_.pair.model)));
    if (!pair_.failed() && !(engine.engine().capabilities() & PB_CAP_TOKENIZE)) {
      pair_.Add(compare::Unsupported(fmt::format("{} has no tokeniser of its own", pair_.spec(which).text)));
      died_ = true;
    }
  }
  sides_.emplace_back(pair_.candidate(), own_.get());
  sides_.emplace_back(pair_.reference(), nullptr);
  return {};
}

Result<std::optional<TokenDifference>> TokenizerRun::Differs(const std::string& text,
                                                             const ReadingMode& mode) {
  TokenDifference difference;
  difference.text = text, difference.mode = mode.name;
  std::optional<Ids> ids[2];
  for (int which : {0, 1}) {
    PB_ASSIGN(ids[which], Taken(which, side(which).Encode(text, mode.flags), &difference.refusal[which]));
    if (ids[which]) difference.ids[which] = *ids[which];
  }
  if (!ids[0] && !ids[1]) return std::optional<TokenDifference>();
  if (!ids[0] || !ids[1]) {
    difference.kind = TokenDifference::Kind::kRefused;
    return std::optional(std::move(difference));
  }
  if (*ids[0] == *ids[1]) return DecodesOtherwise(*ids[0], text, mode);
  const size_t shorter = std::min(ids[0]->size(), ids[1]->size());
  while (difference.first < shorter && (*ids[0])[difference.first] == (*ids[1])[difference.first])
    ++difference.first;
  return std::optional(std::move(difference));
}

Result<std::optional<TokenDifference>> TokenizerRun::DecodesOtherwise(const Ids& ids, const std::string& text,
                                                                      const ReadingMode& mode) {
  TokenDifference difference;
  difference.kind = TokenDifference::Kind::kDecoded;
  difference.text = text, difference.mode = mode.name;
  std::optional<std::string> decoded[2];
  for (int which : {0, 1}) {
    PB_ASSIGN(decoded[which], Taken(which, side(which).Decode(ids), &difference.refusal[which]));
    difference.ids[which] = ids;
    if (decoded[which]) difference.decoded[which] = *decoded[which];
  }
  if (decoded[0] == decoded[1]) return std::optional<TokenDifference>();
  if (!decoded[0] || !decoded[1]) difference.kind = TokenDifference::Kind::kRefused;
  return std::optional(std::move(difference));
}

Status TokenizerRun::Report(TokenDifference found, const ReadingMode& mode, const run::PromptSpec& text) {
  const TokenDifference::Kind kind = found.kind;
  auto differs = [&](const std::string& smaller) -> Result<bool> {
    PB_ASSIGN(auto difference, Differs(smaller, mode));
    if (!difference || difference->kind != kind) return false;
    found = std::move(*difference);
    return true;
  };
  PB_ASSIGN(const Shrunk shrunk, ShrinkText(text.text, kMaxTries, differs));
  found.n_tried = shrunk.n_tried, found.origin = text.origin, found.whole = text.text;
  for (int which : {0, 1})
    for (int32_t id : found.ids[which]) {
      auto piece = side(which).Decode(std::span(&id, 1));
      found.pieces[which].push_back(piece.ok() ? std::move(piece).value() : std::string());
    }
  const auto same = [&](const TokenDifference& other) {
    return other.kind == found.kind && other.text == found.text;
  };
  if (std::none_of(out_.differences.begin(), out_.differences.end(), same))
    out_.differences.push_back(std::move(found));
  return {};
}

Status TokenizerRun::Compare(const run::PromptSpec& text) {
  if (request_.file && FirstInvalidUtf8(text.text) < text.text.size()) {
    ++out_.n_no_text;
    return {};
  }
  ++out_.n_texts;
  out_.n_bytes += static_cast<int64_t>(text.text.size());
  for (const ReadingMode& mode : kReadingModes) {
    PB_ASSIGN(auto difference, Differs(text.text, mode));
    if (!difference) continue;
    ++out_.n_differ;
    if (static_cast<int>(out_.differences.size()) < kMaxDifferences)
      PB_TRY(Report(std::move(*difference), mode, text));
    return {};
  }
  auto ids = side(1).Encode(text.text, kReadingModes[kPlain].flags);
  if (!ids.ok()) {
    if (!IsRefusal(ids.error())) return std::move(ids).error();
    ++out_.n_refused;
    return {};
  }
  out_.n_ids += static_cast<int64_t>(ids->size());
  auto back = side(1).Decode(*ids);
  if (!back.ok() || *back == text.text) return {};
  if (out_.n_not_restored++ == 0) out_.not_restored = text.text;
  return {};
}

Status TokenizerRun::CompareAll() {
  const auto n = static_cast<int64_t>(request_.texts.size()) + request_.n_random;
  RandomTexts random(request_.seed);
  for (int64_t i = 0; i < n; ++i) {
    if (request_.pair.progress && i % 16 == 0) request_.pair.progress("texts", i, n);
    const auto given = static_cast<int64_t>(request_.texts.size());
    if (i < given) {
      PB_TRY(Compare(request_.texts[static_cast<size_t>(i)]));
      continue;
    }
    ++out_.n_random;
    PB_TRY(Compare({random.Next(), fmt::format("random text {} of seed {}", i - given, request_.seed)}));
  }
  return {};
}

void TokenizerRun::Judge() {
  if (out_.n_no_text > 0)
    out_.run.notes.push_back(fmt::format(
        "{} texts are no UTF-8, which tokenizer.json files do not read, and were left out", out_.n_no_text));
  if (out_.n_texts == 0 || out_.n_texts == out_.n_refused)
    return pair_.Add(ReasonCode::kNothingCompared, "no text was read by both, so nothing was compared");
  if (out_.n_ids == 0 && out_.n_differ == 0)
    return pair_.Add(ReasonCode::kNoTokens, "no text gave a token, so nothing was compared");
  int64_t n_kind[3] = {0, 0, 0};
  for (const TokenDifference& d : out_.differences) ++n_kind[static_cast<int>(d.kind)];
  const std::string of = fmt::format("{} of {} texts", out_.n_differ, out_.n_texts);
  if (n_kind[0] + n_kind[1] > 0)
    pair_.Add(Outcome::kDiverged, ReasonCode::kTokensDiffer,
              fmt::format("{} are read as other tokens, or refused by one of both", of));
  if (n_kind[2] > 0)
    pair_.Add(ReasonCode::kDecodeDiffers,
              fmt::format("{}: the same tokens stand for other text, or the tokens differ", of));
  if (out_.n_differ == 0)
    pair_.Add(ReasonCode::kEqual,
              fmt::format("all {} texts ({} bytes) are read as the same tokens, in {} modes, which stand "
                          "for the same text in both",
                          out_.n_texts, out_.n_bytes, kReadingModes.size()));
}

Result<TokenizerParity> TokenizerRun::Run() {
  const auto start = std::chrono::steady_clock::now();
  PB_TRY(Open());
  if (!died_ && !pair_.failed()) PB_TRY(pair_.Absorb(CompareAll()));
  if (!died_ && !pair_.failed()) Judge();
  pair_.Finish(0);
  out_.run.wall_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return std::move(out_);
}

}  // namespace

Result<TokenizerParity> CompareTokenizers(const TokenizerRequest& request) {
  return TokenizerRun(request).Run();
}

}  // namespace pb::parity
