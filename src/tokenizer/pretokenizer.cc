// The table of pre-tokenisers and their matching.
//
// Text is first collapsed: ASCII characters stay, every other one becomes one byte that stands for
// its class (unicode_classes.h). So the expressions are plain byte expressions, and a word's
// meaning depends on our Unicode tables alone, never on those of the regular expression library.
#include "tokenizer/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <utility>

#include "tokenizer/unicode_classes.h"
#include "tokenizer/utf8.h"

namespace pb {
namespace {

// The inside of a character class, to be put between brackets.
#define PB_U "\\x81"                       // a letter beyond ASCII
#define PB_L "A-Za-z\\x81"                 // \p{L}
#define PB_N "0-9\\x82"                    // \p{N}
#define PB_P "!-#%-*,-/:;?@[-\\]_{}\\x83"  // \p{P}
#define PB_M "\\x85"                       // \p{M}
#define PB_W " \\t\\n\\x0b\\f\\r\\x86"     // \s
#define PB_CONTRACTION "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define PB_LINES "[" PB_W "]*[\\r\\n]+|[" PB_W "]+(?![^" PB_W "])|[" PB_W "]+"

// GPT-2: https://github.com/openai/gpt-2/blob/master/src/encoder.py
constexpr std::string_view kGpt2 = "'(?:[stmd]|re|ve|ll)| ?[" PB_L "]+| ?[" PB_N "]+| ?[^" PB_W PB_L PB_N
                                   "]+|[" PB_W "]+(?![^" PB_W "])|[" PB_W "]+";
// The tokenizer.json of LLaMA 3, Qwen 2 and Qwen 3.5, alike but for digits and marks.
constexpr std::string_view kLlama3 = PB_CONTRACTION "|[^\\r\\n" PB_L PB_N "]?[" PB_L "]+|[" PB_N
                                                    "]{1,3}| ?[^" PB_W PB_L PB_N "]+[\\r\\n]*|" PB_LINES;
constexpr std::string_view kQwen2 = PB_CONTRACTION "|[^\\r\\n" PB_L PB_N "]?[" PB_L "]+|[" PB_N
                                                   "]| ?[^" PB_W PB_L PB_N "]+[\\r\\n]*|" PB_LINES;
constexpr std::string_view kQwen35 = PB_CONTRACTION "|[^\\r\\n" PB_L PB_N "]?[" PB_L PB_M "]+|[" PB_N
                                                    "]| ?[^" PB_W PB_L PB_M PB_N "]+[\\r\\n]*|" PB_LINES;
// Mistral's Tekken and OpenAI's o200k; as in llama.cpp, case is told apart for ASCII letters only.
#define PB_CASED(suffix)                                                             \
  "[^\\r\\n" PB_L PB_N "]?[A-Z" PB_U "]*[a-z" PB_U "]+" suffix "|[^\\r\\n" PB_L PB_N \
  "]?"                                                                               \
  "[A-Z" PB_U "]+[a-z" PB_U "]*" suffix
constexpr std::string_view kTekken = PB_CASED("") "|[" PB_N "]| ?[^" PB_W PB_L PB_N "]+[\\r\\n/]*|" PB_LINES;
constexpr std::string_view kO200k =
    PB_CASED("(?:" PB_CONTRACTION ")?") "|[" PB_N "]{1,3}| ?[^" PB_W PB_L PB_N "]+[\\r\\n/]*|" PB_LINES;
constexpr std::string_view kDigit = "[" PB_N "]";

const std::vector<PreTokenizerRow>& Table() {
  static const std::vector<PreTokenizerRow> table = {
      {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
       {kLlama3},
       true,
       true},
      {"dbrx smaug-bpe", {kLlama3}},
      {"chatglm-bpe glm4", {kLlama3}, false, false, false},
      {"smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", {kDigit, kGpt2}},
      {"gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum modern-bert "
       "jina-es jina-de "
       "jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe",
       {kGpt2}},
      {"qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2", {kQwen2}},
      {"qwen35", {kQwen35}},
      {"tekken", {kTekken}, true, true},
      {"gpt-4o llama4 kanana2 talkie minimax-m2", {kO200k}},
      {"falcon", {"[" PB_P "$+<=>^~|`]+", kGpt2, "[0-9]{3}"}},
      {"default", {"[" PB_P "$+<=>^~|]+", kGpt2, "[" PB_N "]+", "[0-9]{3}"}},
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

// Fills `clean` with the text in shortest UTF-8 and `collapsed` with one byte for each of its code
// points.
Status Collapse(std::string_view text, std::string* clean, std::string* collapsed) {
  constexpr uint32_t kReplacement = 0xFFFD;
  clean->reserve(text.size());
  collapsed->reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    CodePoint c = ReadCodePoint(text.substr(at));
    if (c.bytes == 0) c = {kReplacement, 1};
    if (c.value >= kCodePointLimit) {
      return MakeError(
          Code::kMalformed,
          "byte {}: a sequence for U+{:X}, beyond Unicode's last (U+10FFFF); llama.cpp cannot tokenise it",
          at, c.value);
    }
    AppendUtf8(c.value, clean);
    collapsed->push_back(c.value < 0x80 ? static_cast<char>(c.value) : static_cast<char>(ClassOf(c.value)));
    at += c.bytes;
  }
  return {};
}

}  // namespace

struct PreTokenizer::Pattern {
  std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> code{nullptr, pcre2_code_free};

  // Cuts each piece of `collapsed` at the matches; what lies between matches is a piece too.
  Result<std::vector<size_t>> Cut(std::string_view collapsed, const std::vector<size_t>& ends) const;
};

Result<std::vector<size_t>> PreTokenizer::Pattern::Cut(std::string_view collapsed,
                                                       const std::vector<size_t>& ends) const {
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(code.get(), nullptr), pcre2_match_data_free);
  std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  if (!match || !context) return MakeError(Code::kInternal, "pre-tokeniser: out of memory");
  // The expressions backtrack over one repetition at a time, so work is linear; the default limit
  // is a mere ten million.
  pcre2_set_match_limit(context.get(), UINT32_MAX);
  std::vector<size_t> cuts;
  size_t begin = 0;
  for (size_t end : ends) {
    auto* piece = reinterpret_cast<PCRE2_SPTR>(collapsed.data() + begin);
    size_t length = end - begin, at = 0;
    while (at < length) {
      int found = pcre2_match(code.get(), piece, length, at, 0, match.get(), context.get());
      if (found == PCRE2_ERROR_NOMATCH) break;
      if (found < 0)
        return MakeError(Code::kInternal, "pre-tokeniser: PCRE2 error {} at character {}", found, begin + at);
      const size_t* span = pcre2_get_ovector_pointer(match.get());
      if (span[0] > at) cuts.push_back(begin + span[0]);
      at = span[1];
      cuts.push_back(begin + at);
    }
    if (at < length) cuts.push_back(end);
    begin = end;
  }
  return cuts;
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
    int error = 0;
    size_t offset = 0;
    auto pattern = std::make_shared<Pattern>();
    pattern->code.reset(
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pass.data()), pass.size(), 0, &error, &offset, nullptr));
    if (!pattern->code)
      return MakeError(Code::kInternal, "pre-tokeniser \"{}\": PCRE2 error {} at {}", pass, error, offset);
    result.passes_.push_back(std::move(pattern));
  }
  return result;
}

Result<Words> PreTokenizer::Split(std::string_view text) const {
  Words words;
  std::string collapsed;
  PB_TRY(Collapse(text, &words.text, &collapsed));
  std::vector<size_t> ends = {collapsed.size()};
  for (const auto& pass : passes_) {
    PB_ASSIGN(ends, pass->Cut(collapsed, ends));
  }
  // From counts of characters to counts of bytes.
  size_t byte = 0, character = 0;
  for (size_t end : ends) {
    for (; character < end; ++character) {
      auto lead = static_cast<unsigned char>(words.text[byte]);
      byte += lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    }
    words.ends.push_back(byte);
  }
  return words;
}

}  // namespace pb
