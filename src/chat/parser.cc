// A recursive descent parser with the precedences of Jinja 3.1: conditional, or, and, not,
// comparison, + -, ~, * / // %, unary sign, then postfix, filters and tests.
#include <algorithm>
#include <charconv>

#include "chat/ast.h"

namespace pb::chat {
namespace {

// Of nested expressions and of nested statements. The deepest template in use has 12.
constexpr int kMaxDepth = 200;

using ExprPtr = std::unique_ptr<Expr>;

class Parser {
 public:
  explicit Parser(const std::vector<Token>& tokens) : tokens_(tokens) {}

  // Statements up to the end, or up to a tag that begins with one of `ends`, whose name is left to
  // be read.
  Result<std::vector<Statement>> Body(const std::vector<std::string_view>& ends);

 private:
  Result<Statement> Block();
  Result<Statement> If();
  Result<Statement> For();
  Result<Statement> Set();
  Result<ExprPtr> Expression();
  Result<ExprPtr> Or();
  Result<ExprPtr> And();
  Result<ExprPtr> Not();
  Result<ExprPtr> Comparison();
  Result<ExprPtr> Arithmetic(int level);
  Result<ExprPtr> Unary(bool with_filters);
  Result<ExprPtr> Primary();
  Result<ExprPtr> Name();
  Result<ExprPtr> Postfix(ExprPtr operand);
  Result<ExprPtr> Subscript(ExprPtr operand);
  Result<ExprPtr> FiltersAndTests(ExprPtr operand);
  Status Arguments(Expr* call);
  bool BeginsTestArgument() const;
  Result<ExprPtr> Items(ExprKind kind, std::string_view close);

  const Token& Now() const { return tokens_[at_]; }
  bool Is(TokenKind kind, std::string_view text) const { return Now().kind == kind && Now().text == text; }
  bool IsOperator(std::string_view text) const { return Is(TokenKind::kOperator, text); }
  bool IsWord(std::string_view text) const { return Is(TokenKind::kName, text); }
  bool Accept(TokenKind kind, std::string_view text) {
    bool here = Is(kind, text);
    at_ += here ? 1 : 0;
    return here;
  }
  bool AcceptOperator(std::string_view text) { return Accept(TokenKind::kOperator, text); }
  bool AcceptWord(std::string_view text) { return Accept(TokenKind::kName, text); }

  Error Unexpected(std::string_view wanted) const;
  Error Unsupported(std::string_view what) const {
    return MakeError(Code::kUnsupported, "chat template, line {}: {} is not supported", Now().line,
                     Shorten(what));
  }
  Status Expect(TokenKind kind, std::string_view text, std::string_view what);
  Status ExpectOperator(std::string_view text) { return Expect(TokenKind::kOperator, text, text); }
  Status EndOfBlock() { return Expect(TokenKind::kBlockEnd, "", "%}"); }
  Result<std::string> Word(std::string_view what);

  ExprPtr New(ExprKind kind, std::string name = "") const;
  // Adds an operand (may be null), and bounds the depth of the tree.
  Status Add(ExprPtr operand, Expr* parent) const;
  Result<ExprPtr> Binary(std::string name, ExprPtr left, Result<ExprPtr> right) const;

  // Counts recursion while it lives.
  class Nesting {
   public:
    explicit Nesting(Parser* p) : depth_(p->depth_) { ++depth_; }
    ~Nesting() { --depth_; }

   private:
    int& depth_;
  };

  const std::vector<Token>& tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

Error Parser::Unexpected(std::string_view wanted) const {
  constexpr const char* kNames[] = {"text",
                                    "{{",
                                    "}}",
                                    "{%",
                                    "%}",
                                    "the name ",
                                    "a string",
                                    "the number ",
                                    "the number ",
                                    "",
                                    "the end of the template"};
  const Token& token = Now();
  bool shown = token.kind == TokenKind::kName || token.kind >= TokenKind::kInteger;
  return MakeError(Code::kMalformed, "chat template, line {}: {} expected, not {}{}", token.line, wanted,
                   kNames[static_cast<int>(token.kind)], shown ? Shorten(token.text) : "");
}

Status Parser::Expect(TokenKind kind, std::string_view text, std::string_view what) {
  if (!Accept(kind, text)) return Unexpected(what);
  return {};
}

Result<std::string> Parser::Word(std::string_view what) {
  if (Now().kind != TokenKind::kName) return Unexpected(what);
  return tokens_[at_++].text;
}

ExprPtr Parser::New(ExprKind kind, std::string name) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = Now().line;
  expr->name = std::move(name);
  return expr;
}

Status Parser::Add(ExprPtr operand, Expr* parent) const {
  if (operand) parent->depth = std::max(parent->depth, operand->depth + 1);
  parent->operands.push_back(std::move(operand));
  if (parent->depth > kMaxDepth)
    return Unsupported(fmt::format("an expression nested deeper than {}", kMaxDepth));
  return {};
}

Result<ExprPtr> Parser::Binary(std::string name, ExprPtr left, Result<ExprPtr> right) const {
  if (!right.ok()) return right;
  ExprPtr node = New(ExprKind::kBinary, std::move(name));
  node->line = left->line;
  PB_TRY(Add(std::move(left), node.get()));
  PB_TRY(Add(std::move(right).value(), node.get()));
  return node;
}

// ---- Statements ----

Result<std::vector<Statement>> Parser::Body(const std::vector<std::string_view>& ends) {
  Nesting nesting(this);
  if (depth_ > kMaxDepth) return Unsupported(fmt::format("nesting deeper than {}", kMaxDepth));
  std::vector<Statement> body;
  while (Now().kind != TokenKind::kEnd) {
    int line = Now().line;
    if (Now().kind == TokenKind::kText) {
      body.push_back({StatementKind::kText, line, tokens_[at_++].text, {}, nullptr, nullptr, {}});
    } else if (Accept(TokenKind::kOutputBegin, "")) {
      PB_ASSIGN(ExprPtr expr, Expression());
      PB_TRY(Expect(TokenKind::kOutputEnd, "", "}}"));
      body.push_back({StatementKind::kOutput, line, "", {}, std::move(expr), nullptr, {}});
    } else {
      ++at_;  // {%
      for (std::string_view end : ends) {
        if (IsWord(end)) return body;
      }
      PB_ASSIGN(Statement block, Block());
      body.push_back(std::move(block));
    }
  }
  if (!ends.empty()) return Unexpected(fmt::format("{{% {} %}}", ends.back()));
  return body;
}

Result<Statement> Parser::Block() {
  if (AcceptWord("if")) return If();
  if (AcceptWord("for")) return For();
  if (AcceptWord("set")) return Set();
  if (Now().kind != TokenKind::kName) return Unexpected("the name of a statement");
  for (std::string_view end : {"elif", "else", "endif", "endfor", "endset"}) {
    if (IsWord(end)) return Unexpected("a statement");
  }
  return Unsupported(fmt::format("{{% {} %}}", Now().text));
}

Result<Statement> Parser::If() {
  Statement result{StatementKind::kIf, Now().line, "", {}, nullptr, nullptr, {}};
  while (true) {
    Branch branch;
    PB_ASSIGN(branch.condition, Or());  // a conditional expression needs brackets here, as in Jinja
    PB_TRY(EndOfBlock());
    PB_ASSIGN(branch.body, Body({"elif", "else", "endif"}));
    result.branches.push_back(std::move(branch));
    if (AcceptWord("elif")) continue;
    if (AcceptWord("else")) {
      PB_TRY(EndOfBlock());
      Branch last;
      PB_ASSIGN(last.body, Body({"endif"}));
      result.branches.push_back(std::move(last));
    }
    ++at_;  // endif
    PB_TRY(EndOfBlock());
    return result;
  }
}

Result<Statement> Parser::For() {
  Statement result{StatementKind::kFor, Now().line, "", {}, nullptr, nullptr, {}};
  do {
    PB_ASSIGN(std::string target, Word("a variable"));
    result.targets.push_back(std::move(target));
  } while (AcceptOperator(","));
  PB_TRY(Expect(TokenKind::kName, "in", "in"));
  PB_ASSIGN(result.expr, Or());
  if (AcceptWord("if")) {
    PB_ASSIGN(result.condition, Expression());
  }
  if (IsWord("recursive")) return Unsupported("a recursive loop");
  PB_TRY(EndOfBlock());
  result.branches.resize(2);
  PB_ASSIGN(result.branches[0].body, Body({"else", "endfor"}));
  if (AcceptWord("else")) {
    PB_TRY(EndOfBlock());
    PB_ASSIGN(result.branches[1].body, Body({"endfor"}));
  }
  ++at_;  // endfor
  PB_TRY(EndOfBlock());
  return result;
}

Result<Statement> Parser::Set() {
  Statement result{StatementKind::kSet, Now().line, "", {}, nullptr, nullptr, {}};
  PB_ASSIGN(std::string target, Word("a variable"));
  result.targets.push_back(std::move(target));
  if (AcceptOperator(".")) {
    PB_ASSIGN(std::string attribute, Word("an attribute"));
    result.targets.push_back(std::move(attribute));
  }
  if (IsOperator(",")) return Unsupported("{% set %} of several variables");
  if (Now().kind == TokenKind::kBlockEnd || IsOperator("|")) return Unsupported("{% set %} with a body");
  PB_TRY(ExpectOperator("="));
  PB_ASSIGN(result.expr, Expression());
  PB_TRY(EndOfBlock());
  return result;
}

// ---- Expressions ----

Result<ExprPtr> Parser::Expression() {
  Nesting nesting(this);
  if (depth_ > kMaxDepth) return Unsupported(fmt::format("nesting deeper than {}", kMaxDepth));
  PB_ASSIGN(ExprPtr then, Or());
  while (AcceptWord("if")) {
    ExprPtr node = New(ExprKind::kCondition);
    PB_ASSIGN(ExprPtr condition, Or());
    ExprPtr otherwise;
    if (AcceptWord("else")) {
      PB_ASSIGN(otherwise, Expression());
    }
    PB_TRY(Add(std::move(condition), node.get()));
    PB_TRY(Add(std::move(then), node.get()));
    PB_TRY(Add(std::move(otherwise), node.get()));
    then = std::move(node);
  }
  return then;
}

Result<ExprPtr> Parser::Or() {
  Result<ExprPtr> left = And();
  while (left.ok() && AcceptWord("or")) left = Binary("or", std::move(left).value(), And());
  return left;
}

Result<ExprPtr> Parser::And() {
  Result<ExprPtr> left = Not();
  while (left.ok() && AcceptWord("and")) left = Binary("and", std::move(left).value(), Not());
  return left;
}

Result<ExprPtr> Parser::Not() {
  Nesting nesting(this);
  if (depth_ > kMaxDepth) return Unsupported(fmt::format("nesting deeper than {}", kMaxDepth));
  if (!AcceptWord("not")) return Comparison();
  ExprPtr node = New(ExprKind::kUnary, "not");
  PB_ASSIGN(ExprPtr operand, Not());
  PB_TRY(Add(std::move(operand), node.get()));
  return node;
}

Result<ExprPtr> Parser::Comparison() {
  constexpr std::string_view kOperators[] = {"==", "!=", "<", "<=", ">", ">="};
  Result<ExprPtr> left = Arithmetic(0);
  for (int n = 0; left.ok(); ++n) {
    std::string name;
    for (std::string_view candidate : kOperators) {
      if (name.empty() && AcceptOperator(candidate)) name = candidate;
    }
    if (name.empty() && AcceptWord("in")) name = "in";
    if (name.empty() && IsWord("not") && tokens_[at_ + 1].kind == TokenKind::kName &&
        tokens_[at_ + 1].text == "in") {
      at_ += 2;
      name = "not in";
    }
    if (name.empty()) break;
    if (n > 0) return Unsupported("a chain of comparisons");
    left = Binary(std::move(name), std::move(left).value(), Arithmetic(0));
  }
  return left;
}

// Level 0: + and -; 1: ~; 2: * / // %.
Result<ExprPtr> Parser::Arithmetic(int level) {
  static const std::vector<std::string_view> kLevels[] = {{"+", "-"}, {"~"}, {"*", "/", "//", "%"}};
  auto next = [&] { return level == 2 ? Unary(true) : Arithmetic(level + 1); };
  Result<ExprPtr> left = next();
  while (left.ok()) {
    std::string name;
    for (std::string_view candidate : kLevels[level]) {
      if (name.empty() && AcceptOperator(candidate)) name = candidate;
    }
    if (name.empty()) break;
    left = Binary(std::move(name), std::move(left).value(), next());
  }
  return left;
}

Result<ExprPtr> Parser::Unary(bool with_filters) {
  Nesting nesting(this);
  if (depth_ > kMaxDepth) return Unsupported(fmt::format("nesting deeper than {}", kMaxDepth));
  ExprPtr operand;
  if (IsOperator("-") || IsOperator("+")) {
    operand = New(ExprKind::kUnary, tokens_[at_++].text);
    PB_ASSIGN(ExprPtr inner, Unary(false));
    PB_TRY(Add(std::move(inner), operand.get()));
  } else {
    PB_ASSIGN(operand, Primary());
  }
  PB_ASSIGN(operand, Postfix(std::move(operand)));
  if (IsOperator("**")) return Unsupported("the operator **");
  return with_filters ? FiltersAndTests(std::move(operand)) : Result<ExprPtr>(std::move(operand));
}

Result<ExprPtr> Parser::Primary() {
  const Token& token = Now();
  ExprPtr node = New(ExprKind::kLiteral);
  switch (token.kind) {
    case TokenKind::kName:
      return Name();
    case TokenKind::kString: {
      std::string text;
      while (Now().kind == TokenKind::kString)
        text += tokens_[at_++].text;  // neighbours are one string, as in Python
      node->value = std::move(text);
      return node;
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat: {
      const char *begin = token.text.data(), *end = begin + token.text.size();
      int64_t integer = 0;
      double real = 0;
      bool is_integer = token.kind == TokenKind::kInteger;
      auto error =
          is_integer ? std::from_chars(begin, end, integer).ec : std::from_chars(begin, end, real).ec;
      if (error != std::errc()) return Unsupported(fmt::format("the number {}", token.text));
      node->value = is_integer ? Value(integer) : Value(real);
      ++at_;
      return node;
    }
    default:
      break;
  }
  if (AcceptOperator("(")) {
    PB_ASSIGN(ExprPtr inner, Expression());
    if (IsOperator(",")) return Unsupported("a tuple");
    PB_TRY(ExpectOperator(")"));
    return inner;
  }
  if (AcceptOperator("[")) return Items(ExprKind::kList, "]");
  if (AcceptOperator("{")) return Items(ExprKind::kDict, "}");
  return Unexpected("an expression");
}

Result<ExprPtr> Parser::Name() {
  ExprPtr node = New(ExprKind::kLiteral);
  const std::string& name = tokens_[at_++].text;
  if (name == "true" || name == "True") {
    node->value = true;
  } else if (name == "false" || name == "False") {
    node->value = false;
  } else if (name == "none" || name == "None") {
    node->value = None();
  } else {
    node->kind = ExprKind::kName;
    node->name = name;
  }
  return node;
}

// The rest of a list or dictionary; a comma may stand before its end.
Result<ExprPtr> Parser::Items(ExprKind kind, std::string_view close) {
  ExprPtr node = New(kind);
  while (!AcceptOperator(close)) {
    if (!node->operands.empty()) PB_TRY(ExpectOperator(","));
    if (AcceptOperator(close)) break;
    PB_ASSIGN(ExprPtr item, Expression());
    PB_TRY(Add(std::move(item), node.get()));
    if (kind != ExprKind::kDict) continue;
    PB_TRY(ExpectOperator(":"));
    PB_ASSIGN(ExprPtr value, Expression());
    PB_TRY(Add(std::move(value), node.get()));
  }
  return node;
}

Result<ExprPtr> Parser::Postfix(ExprPtr operand) {
  while (true) {
    if (AcceptOperator(".")) {
      PB_ASSIGN(std::string name, Word("an attribute"));
      ExprPtr node = New(ExprKind::kAttribute, std::move(name));
      PB_TRY(Add(std::move(operand), node.get()));
      operand = std::move(node);
    } else if (AcceptOperator("[")) {
      PB_ASSIGN(operand, Subscript(std::move(operand)));
    } else if (AcceptOperator("(")) {
      ExprPtr node = New(ExprKind::kCall);
      PB_TRY(Add(std::move(operand), node.get()));
      PB_TRY(Arguments(node.get()));
      operand = std::move(node);
    } else {
      return operand;
    }
  }
}

Result<ExprPtr> Parser::Subscript(ExprPtr operand) {
  ExprPtr node = New(ExprKind::kIndex);
  PB_TRY(Add(std::move(operand), node.get()));
  for (int part = 1;; ++part) {
    ExprPtr bound;
    if (!IsOperator(":") && !IsOperator("]")) {
      PB_ASSIGN(bound, Expression());
    }
    if (!bound && IsOperator("]") && part == 1) return Unexpected("an index");
    PB_TRY(Add(std::move(bound), node.get()));
    if (AcceptOperator("]")) break;
    if (part == 3) return Unexpected("]");
    PB_TRY(ExpectOperator(":"));
    node->kind = ExprKind::kSlice;
  }
  if (node->kind == ExprKind::kSlice) node->operands.resize(4);
  return node;
}

// Jinja takes what follows a test's name for its argument, but for three words.
bool Parser::BeginsTestArgument() const {
  bool literal = Now().kind == TokenKind::kString || Now().kind == TokenKind::kInteger ||
                 Now().kind == TokenKind::kFloat;
  bool name = Now().kind == TokenKind::kName && !IsWord("else") && !IsWord("or") && !IsWord("and");
  return literal || name || IsOperator("[") || IsOperator("{");
}

// Up to the closing bracket.
Status Parser::Arguments(Expr* call) {
  bool first = true;
  while (!AcceptOperator(")")) {
    if (!first) PB_TRY(ExpectOperator(","));
    first = false;
    if (AcceptOperator(")")) break;
    if (IsOperator("*") || IsOperator("**")) return Unsupported("an unpacked argument");
    const Token& next = tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_];
    if (Now().kind == TokenKind::kName && next.kind == TokenKind::kOperator && next.text == "=") {
      std::string name = Now().text;
      at_ += 2;
      PB_ASSIGN(ExprPtr value, Expression());
      call->depth = std::max(call->depth, value->depth + 1);
      call->named.emplace_back(std::move(name), std::move(value));
    } else {
      PB_ASSIGN(ExprPtr value, Expression());
      PB_TRY(Add(std::move(value), call));
    }
  }
  return {};
}

Result<ExprPtr> Parser::FiltersAndTests(ExprPtr operand) {
  while (true) {
    if (AcceptOperator("|")) {
      PB_ASSIGN(std::string name, Word("the name of a filter"));
      ExprPtr node = New(ExprKind::kFilter, std::move(name));
      PB_TRY(Add(std::move(operand), node.get()));
      if (AcceptOperator("(")) PB_TRY(Arguments(node.get()));
      operand = std::move(node);
    } else if (AcceptWord("is")) {
      bool negated = AcceptWord("not");
      PB_ASSIGN(std::string name, Word("the name of a test"));
      ExprPtr node = New(ExprKind::kTest, std::move(name));
      PB_TRY(Add(std::move(operand), node.get()));
      if (AcceptOperator("(")) {
        PB_TRY(Arguments(node.get()));
      } else if (BeginsTestArgument()) {
        return Unsupported(fmt::format("an argument of the test \"{}\" without brackets", node->name));
      }
      operand = std::move(node);
      if (negated) {
        ExprPtr negation = New(ExprKind::kUnary, "not");
        PB_TRY(Add(std::move(operand), negation.get()));
        operand = std::move(negation);
      }
    } else {
      return operand;
    }
  }
}

}  // namespace

Result<std::vector<Statement>> Parse(const std::vector<Token>& tokens) { return Parser(tokens).Body({}); }

}  // namespace pb::chat
