// The syntax tree of a chat template.
#ifndef PARITYBIT_CHAT_AST_H_
#define PARITYBIT_CHAT_AST_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "chat/lexer.h"
#include "chat/value.h"

namespace pb::chat {

enum class ExprKind {
  kLiteral,    // value
  kName,       // name
  kAttribute,  // operands[0] . name
  kIndex,      // operands[0] [ operands[1] ]
  // operands[0] [ operands[1] : operands[2] : operands[3] ], each may be null but the first
  kSlice,
  kUnary,      // name: "not" "-" "+"
  kBinary,     // name: the operator, "and" "or" "in" "not in" among them
  kCondition,  // operands: condition, then, else (null when there is none)
  kFilter,     // operands[0] | name(operands[1..], named)
  kTest,       // operands[0] is name(operands[1..])
  kCall,       // operands[0] (operands[1..], named)
  kList,       // operands
  kDict,       // operands: key, value, key, value ...
};

struct Expr {
  ExprKind kind;
  int line;
  int depth = 1;  // of the tree below; bounded by the parser, so that recursion over it is
  std::string name;
  Value value;
  std::vector<std::unique_ptr<Expr>> operands;
  std::vector<std::pair<std::string, std::unique_ptr<Expr>>> named;
};

enum class StatementKind {
  kText,    // text
  kOutput,  // expr
  kIf,      // branches in order; a null condition is else
  kFor,     // targets in expr, if condition: branches[0].body, else: branches[1].body
  kSet,     // targets[0] = expr; with two targets, namespace.attribute = expr
};

struct Statement;
struct Branch {
  std::unique_ptr<Expr> condition;
  std::vector<Statement> body;
};

struct Statement {
  StatementKind kind;
  int line;
  std::string text;
  std::vector<std::string> targets;
  std::unique_ptr<Expr> expr, condition;
  std::vector<Branch> branches;
};

// kUnsupported: a construct outside the subset, named, with its line. kMalformed: an error of
// syntax.
Result<std::vector<Statement>> Parse(const std::vector<Token>& tokens);

}  // namespace pb::chat

#endif  // PARITYBIT_CHAT_AST_H_
