// Decoders as the `tokenizers` package defines them, one step each over all tokens.
#include "tokenizer/json_decoder.h"

#include "tokenizer/bpe.h"
#include "tokenizer/json_normalizer.h"
#include "tokenizer/json_pre_tokenizer.h"
#include "tokenizer/utf8.h"

namespace pb {
namespace {

constexpr int kMaxNesting = 16;
using Tokens = std::vector<std::string>;

std::string Replaced(std::string_view text, std::string_view what, std::string_view with) {
  std::string out;
  if (what.empty()) return std::string(text);
  for (size_t at; (at = text.find(what)) != text.npos; text.remove_prefix(at + what.size()))
    out.append(text.substr(0, at)).append(with);
  return out.append(text);
}

std::string Joined(const Tokens& tokens, std::string_view between) {
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) out.append(i > 0 ? between : "").append(tokens[i]);
  return out;
}

void ByteLevel(Tokens* tokens) {
  std::string out, bytes;
  for (const std::string& token : *tokens) out += ReadByteText(token, &bytes) ? bytes : token;
  *tokens = {std::move(out)};
}

// The value of <0x41>; -1: it is none.
int ByteOf(std::string_view token) {
  uint32_t value;
  const bool is = token.size() == 6 && token.starts_with("<0x") && token.ends_with('>') &&
                  ParseHex(token.substr(3, 2), &value);
  return is ? static_cast<int>(value) : -1;
}

void ByteFallback(Tokens* tokens) {
  Tokens out;
  std::string bytes;
  auto flush = [&] {
    if (bytes.empty()) return;
    if (FirstInvalidUtf8(bytes) == bytes.size())
      out.push_back(bytes);
    else
      out.insert(out.end(), bytes.size(), "\xEF\xBF\xBD");
    bytes.clear();
  };
  for (std::string& token : *tokens) {
    if (const int byte = ByteOf(token); byte >= 0) {
      bytes.push_back(static_cast<char>(byte));
      continue;
    }
    flush();
    out.push_back(std::move(token));
  }
  flush();
  *tokens = std::move(out);
}

void Metaspace(std::string_view mark, bool drops_first, Tokens* tokens) {
  for (size_t i = 0; i < tokens->size(); ++i)
    (*tokens)[i] = Replaced((*tokens)[i], mark, i == 0 && drops_first ? "" : " ");
}

std::string CleanUp(std::string text) {
  static constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) text = Replaced(text, from, to);
  return text;
}

void WordPiece(std::string_view prefix, bool cleans, Tokens* tokens) {
  for (size_t i = 0; i < tokens->size(); ++i) {
    std::string& token = (*tokens)[i];
    if (i > 0) token = token.starts_with(prefix) ? token.substr(prefix.size()) : " " + token;
    if (cleans) token = CleanUp(std::move(token));
  }
}

void Strip(std::string_view content, uint64_t start, uint64_t stop, Tokens* tokens) {
  for (std::string& token : *tokens) {
    std::string_view rest = token;
    for (uint64_t i = 0; i < start && rest.starts_with(content); ++i) rest.remove_prefix(content.size());
    for (uint64_t i = 0; i < stop && rest.ends_with(content); ++i) rest.remove_suffix(content.size());
    token = std::string(rest);
  }
}

Status ReplaceIn(const JsonMatcher& matcher, std::string_view with, Tokens* tokens) {
  for (std::string& token : *tokens) {
    PB_ASSIGN(const std::vector<JsonMatch> matches, matcher(token));
    std::string out;
    for (const JsonMatch& match : matches)
      out.append(match.matches ? with : std::string_view(token).substr(match.begin, match.end - match.begin));
    token = std::move(out);
  }
  return {};
}

}  // namespace

Status JsonDecoder::Add(const JsonField& field, int depth) {
  PB_ASSIGN(const std::string type, field["type"].Text());
  auto add = [this](auto step) {
    steps_.emplace_back([step = std::move(step)](Tokens* tokens) { return step(tokens), Status(); });
    return Status();
  };
  if (type == "Sequence") {
    if (depth >= kMaxNesting) return field.Refuse("a sequence nested so deep");
    PB_ASSIGN(const auto items, field["decoders"].Items());
    for (const JsonField& item : items) PB_TRY(Add(item, depth + 1));
    return {};
  }
  if (type == "ByteLevel") return add(ByteLevel);
  if (type == "ByteFallback") return add(ByteFallback);
  if (type == "Fuse") return add([](Tokens* tokens) { *tokens = {Joined(*tokens, "")}; });
  if (type == "Metaspace") {
    PB_ASSIGN(const uint32_t mark, field["replacement"].Character());
    PB_ASSIGN(const std::string scheme, PrependScheme(field));
    std::string written;
    AppendUtf8(mark, &written);
    return add([=](Tokens* tokens) { Metaspace(written, scheme != "never", tokens); });
  }
  if (type == "WordPiece") {
    PB_ASSIGN(const std::string prefix, field["prefix"].TextOr("##"));
    PB_ASSIGN(const bool cleans, field["cleanup"].FlagOr(true));
    return add([=](Tokens* tokens) { WordPiece(prefix, cleans, tokens); });
  }
  if (type == "BPEDecoder") {
    PB_ASSIGN(const std::string suffix, field["suffix"].TextOr("</w>"));
    return add([=](Tokens* tokens) {
      for (size_t i = 0; i < tokens->size(); ++i)
        (*tokens)[i] = Replaced((*tokens)[i], suffix, i + 1 == tokens->size() ? "" : " ");
    });
  }
  if (type == "Strip") {
    PB_ASSIGN(const uint32_t c, field["content"].Character());
    PB_ASSIGN(const uint64_t start, field["start"].Number(1 << 20));
    PB_ASSIGN(const uint64_t stop, field["stop"].Number(1 << 20));
    std::string written;
    AppendUtf8(c, &written);
    return add([=](Tokens* tokens) { Strip(written, start, stop, tokens); });
  }
  if (type == "Replace") {
    PB_ASSIGN(const JsonMatcher matcher, MakeJsonMatcher(field["pattern"]));
    PB_ASSIGN(const std::string with, field["content"].Text());
    steps_.emplace_back([=](Tokens* tokens) { return ReplaceIn(matcher, with, tokens); });
    return {};
  }
  return field["type"].Refuse(fmt::format("the decoder {:.64}", type));
}

Result<JsonDecoder> JsonDecoder::Create(const JsonField& field) {
  JsonDecoder decoder;
  decoder.declared_ = !field.none();
  if (decoder.declared_) PB_TRY(decoder.Add(field, 0));
  return decoder;
}

Result<std::string> JsonDecoder::Decode(std::vector<std::string> tokens) const {
  for (const Step& step : steps_) PB_TRY(step(&tokens));
  return Joined(tokens, declared_ ? "" : " ");
}

}  // namespace pb
