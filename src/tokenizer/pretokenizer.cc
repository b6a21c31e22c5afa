// The table of pre-tokenisers and their matching.
#include "tokenizer/pretokenizer.h"

#include <cstdint>
#include <utility>

#include "tokenizer/unicode_classes.h"
#include "tokenizer/utf8.h"

namespace pb {
namespace {

#define PB_CONTRACTION R"('(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL]))"
#define PB_LINES R"(\s*[\r\n]+|\s+(?!\S)|\s+)"
// Alike in many files: contractions, words, digits, marks with the line ends behind them, spaces.
#define PB_WORDS(digits) \
  PB_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})" digits R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|)" PB_LINES

// GPT-2: https://github.com/openai/gpt-2/blob/master/src/encoder.py
constexpr std::string_view kGpt2 =
    R"('(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// The tokenizer.json of LLaMA 3, Qwen 2 and Qwen 3.5, alike but for digits and marks.
constexpr std::string_view kLlama3 = PB_WORDS("{1,3}");
constexpr std::string_view kQwen2 = PB_WORDS("");
constexpr std::string_view kQwen35 =
    PB_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)" PB_LINES;
// Mistral's Tekken and OpenAI's o200k; as in llama.cpp, case is told apart for ASCII letters only.
#define PB_CASED(letters, suffix)                                                  \
  R"([^\r\n\p{L}\p{N}]?[)" letters R"(&&[^a-z]]*[)" letters R"(&&[^A-Z]]+)" suffix \
  R"(|[^\r\n\p{L}\p{N}]?[)" letters R"(&&[^a-z]]+[)" letters R"(&&[^A-Z]]*)" suffix "|"
#define PB_MARKS R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|)" PB_LINES
#define PB_SUFFIX "(?:" PB_CONTRACTION ")?"
constexpr std::string_view kTekken = PB_CASED(R"(\p{L})", "") R"(\p{N})" PB_MARKS;
constexpr std::string_view kO200k = PB_CASED(R"(\p{L})", PB_SUFFIX) R"(\p{N}{1,3})" PB_MARKS;
constexpr std::string_view kGranite = PB_CASED(R"(\p{L}\p{M})", PB_SUFFIX) R"(\p{N}{1,3})" PB_MARKS;
// The same with case told apart by nothing, as llama.cpp reads \p{Lu} and \p{Ll}.
#define PB_UNCASED R"([^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+)" PB_SUFFIX "|"
constexpr std::string_view kAya = PB_UNCASED R"(\p{N}{1,3})" PB_MARKS;
constexpr std::string_view kYoutu = PB_UNCASED R"(\p{N})" PB_MARKS;
constexpr std::string_view kDigit = R"(\p{N})", kThreeDigits = R"(\p{N}{1,3})", kLine = R"([\r\n])";
constexpr std::string_view kLineOrNot = R"([^\n]+|\n+)";
constexpr std::string_view kMarksOfDefault = R"([\p{P}$+<=>^~|]+)", kMarksOfFalcon = R"([\p{P}$+<=>^~|`]+)";
// Moonshot's Kimi K2: Chinese apart from other letters.
#define PB_HAN                                                                  \
  R"(\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2EBEF})" \
  R"(\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F})"
constexpr std::string_view kKimi = "[" PB_HAN R"(]+|[^\r\n\p{L}\p{N}]?[\p{L}&&[^)" PB_HAN "]]+" PB_SUFFIX
                                   R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)" PB_LINES;

// DeepSeek LLM and Coder; the ranges as in their tokenizer.json.
constexpr std::string_view kDeepSeekLetters =
    R"(\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293})"
    R"(\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A})"
    R"(\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556})"
    R"(\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF})"
    R"(\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D})"
    R"(\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-)"
    R"(\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC})"
    R"(\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC})"
    R"(\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128})"
    R"(\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E})"
    R"(\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3})"
    R"(\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E})"
    R"(\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A})"
    R"(\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-)"
    R"(\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+)";
constexpr std::string_view kDeepSeekMarks =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
constexpr std::string_view kDeepSeekCjk = R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";
constexpr std::string_view kCjkAndKana = R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";
constexpr std::string_view kYoutuScripts =
    R"([\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019})"
    R"(\x{2014}\x{FF1A}\x{FF1B}\x{FF0C}\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-)"
    R"(\x{312F}]+|[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";
constexpr std::string_view kPoro = R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+)";
constexpr std::string_view kAsianScripts =
    R"([\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{8C48}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF})"
    R"(\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{E40}-\x{E7F}\x{E80}-\x{EFF}\x{1780}-\x{17FF})"
    R"(\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+)";

#define PB_DEEPSEEK3 R"([!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+)"
constexpr std::string_view kDeepSeek3 = PB_DEEPSEEK3 R"([\r\n]*|)" PB_LINES;
constexpr std::string_view kSpark = PB_DEEPSEEK3 R"(|[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kJais2 = PB_CONTRACTION
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|)"
    R"(\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|)"
    R"(\s{1,2}(?!\S)|\s)";
constexpr std::string_view kBailing =
    PB_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kSeedCoder =
    PB_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|)" PB_LINES;
constexpr std::string_view kUfakzeka =
    R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)" PB_LINES;
constexpr std::string_view kExaone =
    PB_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|)"
                   R"(\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kMiniCpm =
    PB_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|)" PB_LINES;

const std::vector<PreTokenizerRow>& Table() {
  static const std::vector<PreTokenizerRow> table = {
      {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
       .passes = {kLlama3},
       .ignore_merges = true,
       .add_bos = true},
      {.names = "dbrx smaug-bpe", .passes = {kLlama3}},
      {.names = "chatglm-bpe glm4", .passes = {kLlama3}, .default_bos = false},
      {.names = "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
       .passes = {kDigit, kGpt2}},
      {.names = "gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum "
                "modern-bert jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe",
       .passes = {kGpt2}},
      {.names = "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
       .passes = {kQwen2}},
      {.names = "qwen35", .passes = {kQwen35}},
      {.names = "tekken", .passes = {kTekken}, .ignore_merges = true, .add_bos = true},
      {.names = "gpt-4o llama4 kanana2 talkie minimax-m2", .passes = {kO200k}},
      {.names = "granite-embed-multi-97m", .passes = {kGranite}, .ignore_merges = true},
      {.names = "falcon", .passes = {kMarksOfFalcon, kGpt2, "[0-9]{3}"}},
      {.names = "deepseek-llm",
       .passes = {kLine, kDeepSeekLetters, kDeepSeekMarks, R"(\s+\z)", kDeepSeekCjk, R"(\p{N}+)"}},
      {.names = "deepseek-coder", .passes = {kLine, R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepSeekCjk, kDigit}},
      {.names = "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
       .passes = {kThreeDigits, kCjkAndKana, kDeepSeek3}},
      {.names = "spark2_5", .passes = {kThreeDigits, kCjkAndKana, kSpark, kDigit}},
      {.names = "youtu", .passes = {kYoutuScripts, kYoutu}, .ignore_merges = true},
      {.names = "jais-2", .passes = {kJais2}},
      {.names = "poro-chat bloom gpt3-finnish", .passes = {kPoro}},
      {.names = "viking", .passes = {kPoro, kDigit}},
      {.names = "chameleon",
       .passes = {"<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", R"([\t\n]|    |  )", kDigit,
                  R"([\p{P}!-/:-@\[-`{-~])", kGpt2},
       .add_bos = true},
      {.names = "tiny_aya cohere2moe", .passes = {kThreesFromTheRight, kAya}},
      {.names = "afmoe", .passes = {kThreesFromTheRight, kAsianScripts, kDeepSeek3}},
      {.names = "kimi-k2", .passes = {kKimi}},
      {.names = "bailingmoe bailingmoe2 llada-moe", .passes = {kBailing}},
      {.names = "seed-coder", .passes = {kSeedCoder}},
      {.names = "ufakzeka", .passes = {kUfakzeka}},
      {.names = "laguna", .passes = {kLineOrNot, kQwen2}},
      {.names = "exaone-moe", .passes = {kExaone}},
      {.names = "minicpm5", .passes = {kThreeDigits, kMiniCpm}, .ignore_merges = true},
      {.names = "gemma4 granite-embed-multi-311m",
       .passes = {kLineOrNot},
       .characters = true,
       .whole_lines = true},
      {.names = "sarvam-moe", .passes = {kLineOrNot}, .characters = true},
      {.names = "default", .passes = {kMarksOfDefault, kGpt2, R"(\p{N}+)", "[0-9]{3}"}},
  };
  return table;
}

bool HasName(std::string_view names, std::string_view name) {
  for (size_t at = names.find(name); at != names.npos; at = names.find(name, at + 1)) {
    size_t end = at + name.size();
    if ((at == 0 || names[at - 1] == ' ') && (end == names.size() || names[end] == ' ')) return true;
  }
  return false;
}

// Cuts each piece at the matches; what lies between matches is a piece too.
Result<std::vector<size_t>> CutAtMatches(const Pattern& pattern, std::span<const uint32_t> text,
                                         const std::vector<size_t>& ends, PatternBudget* budget) {
  std::vector<size_t> cuts;
  size_t begin = 0;
  for (size_t end : ends) {
    const std::span<const uint32_t> piece = text.subspan(begin, end - begin);
    size_t at = 0;
    while (at < piece.size()) {
      PB_ASSIGN(const auto match, pattern.Find(piece, at, budget));
      if (!match || match->end == match->begin) break;
      if (match->begin > at) cuts.push_back(begin + match->begin);
      at = match->end;
      cuts.push_back(begin + at);
    }
    if (at < piece.size()) cuts.push_back(end);
    begin = end;
  }
  return cuts;
}

// Runs of numbers in threes, counted from their end.
std::vector<size_t> CutDigits(std::span<const uint32_t> text, const std::vector<size_t>& ends) {
  const uint8_t* category_of = Categories(UnicodeVersion::k15_1);
  auto is_number = [&](size_t i) { return (CategoryMask("N") >> category_of[text[i]] & 1) != 0; };
  std::vector<size_t> cuts;
  size_t at = 0;
  for (size_t end : ends) {
    const size_t begin = at;
    while (at < end) {
      if (!is_number(at)) {
        ++at;
        continue;
      }
      size_t stop = at;
      while (stop < end && is_number(stop)) ++stop;
      // What stands before a run that fills its threes is not cut from it, as in llama.cpp.
      const size_t rest = (stop - at) % 3;
      if (rest > 0) cuts.push_back(at += rest);
      while (at < stop) cuts.push_back(at += 3);
    }
    if (end > begin && (cuts.empty() || cuts.back() != end)) cuts.push_back(end);
  }
  return cuts;
}

}  // namespace

Result<CleanText> CleanText::Read(std::string_view text) {
  constexpr uint32_t kReplacement = 0xFFFD;
  CleanText clean;
  clean.utf8.reserve(text.size());
  clean.points.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    CodePoint c = ReadCodePoint(text.substr(at));
    if (c.bytes == 0) c = {kReplacement, 1};
    if (c.value >= kCodePointLimit) {
      return MakeError(
          Code::kMalformed,
          "byte {}: a sequence for U+{:X}, beyond Unicode's last (U+10FFFF); llama.cpp cannot tokenise it",
          at, c.value);
    }
    AppendUtf8(c.value, &clean.utf8);
    clean.points.push_back(c.value);
    at += c.bytes;
  }
  return clean;
}

const PreTokenizerRow* FindPreTokenizer(std::string_view name) {
  if (name.empty()) name = "default";
  for (const PreTokenizerRow& row : Table()) {
    if (name.find(' ') == name.npos && HasName(row.names, name)) return &row;
  }
  return nullptr;
}

std::string PreTokenizerNames() {
  std::string names;
  for (const PreTokenizerRow& row : Table()) names.append(names.empty() ? "" : " ").append(row.names);
  return names;
}

Result<PreTokenizer> PreTokenizer::Compile(const PreTokenizerRow& row) {
  PreTokenizer result;
  for (std::string_view pass : row.passes) {
    if (pass == kThreesFromTheRight) {
      result.passes_.emplace_back();
      continue;
    }
    PB_ASSIGN(Pattern pattern, Pattern::Compile(pass, UnicodeVersion::k15_1));
    result.passes_.emplace_back(std::move(pattern));
  }
  return result;
}

Result<Words> PreTokenizer::Split(std::string_view text) const {
  PB_ASSIGN(CleanText clean, CleanText::Read(text));
  std::vector<size_t> ends = {clean.points.size()};
  PatternBudget budget(clean.points.size() * passes_.size());
  for (const auto& pass : passes_) {
    if (!pass) {
      ends = CutDigits(clean.points, ends);
    } else {
      PB_ASSIGN(ends, CutAtMatches(*pass, clean.points, ends, &budget));
    }
  }
  // From counts of characters to counts of bytes.
  Words words;
  size_t byte = 0, character = 0;
  for (size_t end : ends) {
    for (; character < end; ++character) {
      const uint32_t c = clean.points[character];
      byte += c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    }
    words.ends.push_back(byte);
  }
  words.text = std::move(clean.utf8);
  return words;
}

}  // namespace pb
