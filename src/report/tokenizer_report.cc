// Lays out what was read, and of each text that differs ids, pieces and bytes.
#include "report/tokenizer_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "report/escape.h"
#include "report/parity_blocks.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using parity::TokenDifference;
using parity::TokenizerParity;
using Json = nlohmann::ordered_json;

const char* const kRoles[] = {"candidate", "reference"};

const char* KindName(TokenDifference::Kind kind) {
  switch (kind) {
    case TokenDifference::Kind::kIds:
      return "ids";
    case TokenDifference::Kind::kRefused:
      return "refused";
    case TokenDifference::Kind::kDecoded:
      return "decoded";
  }
  return "ids";
}

// "61 c3 a9": what the text is made of.
std::string Bytes(const std::string& text) {
  constexpr size_t kMost = 48;
  std::string out;
  for (size_t i = 0; i < std::min(text.size(), kMost); ++i)
    out += fmt::format("{}{:02x}", i ? " " : "", static_cast<unsigned char>(text[i]));
  return text.size() > kMost ? out + fmt::format(" ... {} bytes", text.size()) : out;
}

// "17 "a", 904 "bc"", from the first difference on a few.
std::string Tokens(const TokenDifference& d, int side) {
  constexpr size_t kShown = 12;
  std::string out;
  const size_t begin = d.first > 2 ? d.first - 2 : 0;
  if (begin > 0) out = "... ";
  for (size_t i = begin; i < std::min(d.ids[side].size(), begin + kShown); ++i)
    out += fmt::format("{}{} \"{}\"", i > begin ? ", " : "", d.ids[side][i],
                       i < d.pieces[side].size() ? Escape(d.pieces[side][i]) : "");
  if (d.ids[side].size() > begin + kShown) out += fmt::format(", ... {} in all", d.ids[side].size());
  return out.empty() ? "none" : out;
}

std::string Difference(const TokenDifference& d, int width) {
  std::string out = LabelledLine("text", fmt::format("\"{}\"", Escape(d.text)), width);
  const auto line = [&](std::string_view label, const std::string& text) {
    out += LabelledLine(label, text, width);
  };
  line("bytes", Bytes(d.text));
  line("", fmt::format("{}; the smallest that differs, of {} tried; from {}", d.mode, d.n_tried + 1,
                       Escape(d.origin)));
  for (int side : {0, 1}) {
    std::string text = Tokens(d, side);
    if (!d.refusal[side].empty()) text = "refuses: " + EscapeLines(d.refusal[side]);
    if (d.kind == TokenDifference::Kind::kDecoded)
      text += fmt::format(" read back as \"{}\"", Escape(d.decoded[side]));
    line(kRoles[side], text);
  }
  if (d.kind == TokenDifference::Kind::kIds) line("first", fmt::format("they part at index {}", d.first));
  return out + "\n";
}

Json DifferenceJson(const TokenDifference& d) {
  Json out = {{"kind", KindName(d.kind)},    {"text", d.text},      {"bytes", Bytes(d.text)},
              {"origin", d.origin},          {"found_in", d.whole}, {"mode", d.mode},
              {"first_difference", nullptr}, {"n_tried", d.n_tried}};
  if (d.kind == TokenDifference::Kind::kIds) out["first_difference"] = d.first;
  for (int side : {0, 1}) {
    out[kRoles[side]] = {
        {"ids", d.ids[side]}, {"pieces", d.pieces[side]}, {"refusal", nullptr}, {"decoded", nullptr}};
    if (!d.refusal[side].empty()) out[kRoles[side]]["refusal"] = d.refusal[side];
    if (d.kind == TokenDifference::Kind::kDecoded) out[kRoles[side]]["decoded"] = d.decoded[side];
  }
  return out;
}

std::string Name(const drive::EngineRecord& engine) {
  return engine.description.empty() ? Escape(engine.spec) : EngineLine(engine);
}

}  // namespace

std::string RenderTokenizerText(const TokenizerParity& parity, const Context& context,
                                const TextOptions& options) {
  std::string out;
  const auto line = [&](std::string_view label, const std::string& text) {
    out += LabelledLine(label, text, options.width);
  };
  line("model", Escape(parity.run.candidate.model_path.filename().string()));
  line("candidate", parity.run.candidate.spec == parity::kOwnTokenizer
                        ? "paritybit's own tokeniser, from the model file"
                        : Name(parity.run.candidate));
  line("reference", Name(parity.run.reference));
  std::string sentence;
  if (parity.n_texts > 0) {
    line("texts",
         fmt::format("{} ({} of them random), {} bytes, {} tokens; {} differ{}", parity.n_texts,
                     parity.n_random, parity.n_bytes, parity.n_ids, parity.n_differ,
                     parity.n_refused > 0 ? fmt::format("; {} are refused by both", parity.n_refused) : ""));
    if (parity.n_not_restored > 0)
      line("", fmt::format(
                   "{} do not come back from their tokens as they were, in both alike; the first is \"{}\"",
                   parity.n_not_restored, Escape(parity.not_restored)));
    out += "\n";
    for (const TokenDifference& difference : parity.differences) out += Difference(difference, options.width);
    if (!parity.run.verdict.reasons.empty()) sentence = parity.run.verdict.reasons[0].text;
  }
  return out + PairTail(parity.run, context, options, sentence);
}

std::string RenderTokenizerJson(const TokenizerParity& parity, const Context& context) {
  JsonWriter writer(parity.run);
  Json out = PairJson("paritybit.tokenizer-parity/0", parity.run, &writer);
  out["n_texts"] = parity.n_texts;
  out["n_random"] = parity.n_random;
  out["n_bytes"] = parity.n_bytes;
  out["n_tokens"] = parity.n_ids;
  out["n_differ"] = parity.n_differ;
  out["n_refused_by_both"] = parity.n_refused;
  out["n_not_restored"] = parity.n_not_restored;
  out["differences"] = Json::array();
  for (const TokenDifference& difference : parity.differences)
    out["differences"].push_back(DifferenceJson(difference));
  FinishPairJson(parity.run, context, &writer, &out);
  return DumpJson(out, 2) + "\n";
}

}  // namespace pb::report
