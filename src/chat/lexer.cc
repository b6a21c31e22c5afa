// After the lexer of Jinja 3.1:
// https://jinja.palletsprojects.com/en/stable/templates/#whitespace-control
#include "chat/lexer.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "tokenizer/unicode_classes.h"
#include "tokenizer/utf8.h"

namespace pb::chat {
namespace {

bool IsSpace(uint32_t c) { return (c >= 0x1C && c <= 0x1F) || IsWhiteSpace(c); }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// One kind of line end, and none at the very end.
std::string NormaliseLines(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out.push_back(source[i]);
    } else {
      out.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormaliseLines(source)), rest_(source_) {}
  Result<std::vector<Token>> Run();

 private:
  Status Text();
  Status Comment();
  Status Tag(bool block);
  bool TagEnd(bool block);
  Status InTag();
  Status String();
  void Number();
  Status Operator();

  void Advance(size_t n) {
    line_ += static_cast<int>(std::count(rest_.begin(), rest_.begin() + static_cast<ptrdiff_t>(n), '\n'));
    at_line_start_ = n > 0 && rest_[n - 1] == '\n';
    rest_.remove_prefix(n);
  }
  void AdvanceTo(std::string_view rest) { Advance(rest_.size() - rest.size()); }
  void Put(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  bool At(std::string_view text) const { return rest_.substr(0, text.size()) == text; }
  template <typename... Args>
  Error Malformed(fmt::format_string<Args...> format, const Args&... args) const {
    return FormatError(Code::kMalformed, format, fmt::make_format_args(args...))
        .In(fmt::format("chat template, line {}", line_));
  }

  const std::string source_;
  std::string_view rest_;
  std::vector<Token> tokens_;
  std::string brackets_;  // the closing ones still to come
  int line_ = 1;
  bool at_line_start_ = true;  // what was consumed last ended a line
};

Result<std::vector<Token>> Lexer::Run() {
  while (!rest_.empty()) {
    PB_TRY(Text());
    if (rest_.empty()) break;
    char kind = rest_[1];
    Advance(rest_.size() > 2 && (rest_[2] == '-' || rest_[2] == '+') ? 3 : 2);
    PB_TRY(kind == '#' ? Comment() : Tag(kind == '%'));
  }
  Put(TokenKind::kEnd, "");
  return std::move(tokens_);
}

// Up to the next tag, less the white space that the tag takes.
Status Lexer::Text() {
  size_t end = 0;
  while (end < rest_.size()) {
    end = std::min(rest_.find('{', end), rest_.size());
    if (end + 1 < rest_.size() && std::string_view("{%#").find(rest_[end + 1]) != std::string_view::npos)
      break;
    if (end < rest_.size()) ++end;
  }
  std::string_view text = rest_.substr(0, end);
  char sign = end + 2 < rest_.size() ? rest_[end + 2] : ' ';
  if (end < rest_.size() && sign == '-') {
    text = StripRight(text);
  } else if (end < rest_.size() && sign != '+' && rest_[end + 1] != '{') {
    size_t line = text.rfind('\n') + 1;
    if ((line > 0 || at_line_start_) && StripRight(text.substr(line)).empty()) text = text.substr(0, line);
  }
  if (!text.empty()) Put(TokenKind::kText, std::string(text));
  Advance(end);
  return {};
}

Status Lexer::Comment() {
  size_t end = rest_.find("#}");
  if (end == rest_.npos) return Malformed("a comment has no end");
  char sign = end > 0 ? rest_[end - 1] : ' ';
  Advance(end + 2);
  if (sign == '-') {
    AdvanceTo(StripLeft(rest_));
  } else if (sign != '+' && At("\n")) {
    Advance(1);
  }
  return {};
}

Status Lexer::Tag(bool block) {
  Put(block ? TokenKind::kBlockBegin : TokenKind::kOutputBegin, "");
  while (!TagEnd(block)) {
    if (rest_.empty()) return Malformed("a tag has no end");
    PB_TRY(InTag());
  }
  return {};
}

// Consumes the end of a tag, if it is here, with the white space it takes.
bool Lexer::TagEnd(bool block) {
  if (!brackets_.empty()) return false;
  bool strip = At(block ? "-%}" : "-}}"), keep = block && At("+%}");
  if (!strip && !keep && !At(block ? "%}" : "}}")) return false;
  Put(block ? TokenKind::kBlockEnd : TokenKind::kOutputEnd, "");
  size_t n = strip || keep ? 3 : 2;
  if (strip) {
    AdvanceTo(StripLeft(rest_.substr(n)));
  } else {
    Advance(n + (block && !keep && rest_.size() > n && rest_[n] == '\n' ? 1 : 0));
  }
  return true;
}

Status Lexer::InTag() {
  char c = rest_[0];
  if (std::string_view blank = StripLeft(rest_); blank.size() < rest_.size()) {
    AdvanceTo(blank);
  } else if (IsNameStart(c)) {
    size_t n = 1;
    while (n < rest_.size() && (IsNameStart(rest_[n]) || IsDigit(rest_[n]))) ++n;
    Put(TokenKind::kName, std::string(rest_.substr(0, n)));
    Advance(n);
  } else if (IsDigit(c)) {
    Number();
  } else if (c == '\'' || c == '"') {
    return String();
  } else {
    return Operator();
  }
  return {};
}

void Lexer::Number() {
  size_t n = 1;
  while (n < rest_.size() && IsDigit(rest_[n])) ++n;
  TokenKind kind = TokenKind::kInteger;
  if (n + 1 < rest_.size() && rest_[n] == '.' && IsDigit(rest_[n + 1])) {
    kind = TokenKind::kFloat;
    ++n;
    while (n < rest_.size() && IsDigit(rest_[n])) ++n;
  }
  Put(kind, std::string(rest_.substr(0, n)));
  Advance(n);
}

// Escapes are Python's.
Status Lexer::String() {
  constexpr std::string_view kEscapes = "n\nt\tr\ra\ab\bf\fv\v\\\\''\"\"";
  char quote = rest_[0];
  std::string out;
  size_t i = 1;
  for (; i < rest_.size() && rest_[i] != quote; ++i) {
    if (rest_[i] != '\\') {
      out.push_back(rest_[i]);
      continue;
    }
    if (++i == rest_.size()) break;
    char c = rest_[i];
    size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits > 0) {
      uint32_t value = 0;
      if (i + digits >= rest_.size() || !ParseHex(rest_.substr(i + 1, digits), &value) ||
          value >= kCodePointLimit) {
        return Malformed("a string has an escape \\{} without its {} hexadecimal digits", c, digits);
      }
      AppendUtf8(value, &out);
      i += digits;
    } else if (IsDigit(c) || c == 'N') {
      return MakeError(Code::kUnsupported, "chat template, line {}: the escape \\{} in a string", line_, c);
    } else if (c != '\n') {
      size_t known = 0;
      while (known < kEscapes.size() && kEscapes[known] != c) known += 2;
      if (known >= kEscapes.size()) out.push_back('\\');
      out.push_back(known < kEscapes.size() ? kEscapes[known + 1] : c);
    }
  }
  if (i >= rest_.size()) return Malformed("a string has no end");
  Put(TokenKind::kString, std::move(out));
  Advance(i + 1);
  return {};
}

Status Lexer::Operator() {
  constexpr std::array<std::string_view, 24> kOperators = {"**", "//", "==", "!=", ">=", "<=", "+", "-",
                                                           "*",  "/",  "%",  "~",  "[",  "]",  "(", ")",
                                                           "{",  "}",  ">",  "<",  "=",  ".",  ":", "|"};
  std::string_view found;
  for (std::string_view candidate : kOperators) {
    if (found.empty() && At(candidate)) found = candidate;
  }
  if (found.empty() && At(",")) found = ",";
  if (found.empty())
    return Malformed("unexpected byte 0x{:02x} in a tag", static_cast<unsigned char>(rest_[0]));
  if (found == "(" || found == "[" || found == "{") {
    brackets_.push_back(found == "(" ? ')' : found == "[" ? ']' : '}');
  } else if (found == ")" || found == "]" || found == "}") {
    if (brackets_.empty() || brackets_.back() != found[0]) return Malformed("unexpected \"{}\"", found);
    brackets_.pop_back();
  }
  Put(TokenKind::kOperator, std::string(found));
  Advance(found.size());
  return {};
}

}  // namespace

std::string_view StripLeft(std::string_view text) {
  while (!text.empty()) {
    CodePoint c = ReadCodePoint(text);
    if (c.bytes == 0 || !IsSpace(c.value)) break;
    text.remove_prefix(c.bytes);
  }
  return text;
}

std::string_view StripRight(std::string_view text) {
  while (!text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && text.size() - begin < 4 && (text[begin] & 0xC0) == 0x80) --begin;
    CodePoint c = ReadCodePoint(text.substr(begin));
    if (c.bytes != text.size() - begin || !IsSpace(c.value)) break;
    text.remove_suffix(c.bytes);
  }
  return text;
}

std::string Shorten(std::string_view text) {
  constexpr size_t kShownBytes = 400;
  if (text.size() <= kShownBytes) return std::string(text);
  size_t end = kShownBytes;
  // before a character, not within
  while (end > kShownBytes - 4 && (text[end] & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "...";
}

Result<std::vector<Token>> Lex(std::string_view source) {
  if (source.size() > kMaxTemplateBytes)
    return MakeError(Code::kUnsupported, "chat template: {} bytes, at most {} are read", source.size(),
                     kMaxTemplateBytes);
  return Lexer(source).Run();
}

}  // namespace pb::chat
