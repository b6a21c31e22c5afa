// Jinja source to tokens, with the white space control of chat templates (trim_blocks and
// lstrip_blocks on).
#ifndef PARITYBIT_CHAT_LEXER_H_
#define PARITYBIT_CHAT_LEXER_H_

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pb::chat {

enum class TokenKind {
  kText,  // between tags
  kOutputBegin,
  kOutputEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,  // unescaped
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  std::string text;
  int line;
};

// The longest templates in use have some 20,000 bytes.
inline constexpr size_t kMaxTemplateBytes = 1 << 18;

// The tokens of a template, the last of kind kEnd. kMalformed: an error of syntax, with the line;
// kUnsupported: more than kMaxTemplateBytes.
Result<std::vector<Token>> Lex(std::string_view source);

// What a message shows of a name or a text: its beginning, when it is long.
std::string Shorten(std::string_view text);

// Text without leading (trailing) white space as Python's str.strip sees it.
std::string_view StripLeft(std::string_view text);
std::string_view StripRight(std::string_view text);

}  // namespace pb::chat

#endif  // PARITYBIT_CHAT_LEXER_H_
