// Runs the syntax tree of a chat template, within bounds of work and memory.
#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "tokenizer/chat_template_ast.h"
#include "tokenizer/chat_template_builtins.h"
#include "tokenizer/tokenizer.h"

namespace pb::jinja {
namespace {

// One for each node evaluated, and the bytes of all values read or made by operations: bounds time and memory together.
constexpr int64_t kMaxWork = int64_t{1} << 28;
constexpr int64_t kMaxWeight = int64_t{1} << 26;  // of one value
constexpr int kMaxValueDepth = 100;

class Evaluator {
 public:
  explicit Evaluator(std::unordered_map<std::string, Value> globals) {
    scopes_.push_back(std::move(globals));
  }

  Status Run(const std::vector<Statement>& body);
  std::string TakeOutput() { return std::move(output_); }

 private:
  Status RunOne(const Statement& s);
  Status RunFor(const Statement& s);
  Status RunSet(const Statement& s);
  Result<List> LoopItems(const Statement& s);
  Status BindTargets(const Statement& s, const Value& item);

  Result<Value> Eval(const Expr& e);
  Result<Value> EvalUnchecked(const Expr& e);
  Result<Value> EvalOptional(const Expr* e) { return e == nullptr ? Result<Value>(Value(None())) : Eval(*e); }
  Result<Value> EvalName(const Expr& e) const;
  Result<Value> EvalUnary(const Expr& e);
  Result<Value> EvalBinary(const Expr& e);
  Result<Value> EvalIndex(const Expr& e);
  Result<Value> EvalSlice(const Expr& e);
  Result<Value> EvalCall(const Expr& e);
  Result<Value> EvalItems(const Expr& e);
  Result<Value> Arithmetic(const Expr& e, const Value& a, const Value& b) const;
  Result<Value> Contains(const Expr& e, const Value& item, const Value& container) const;
  Result<Value> Attribute(const Expr& e, const Value& object, std::string_view name) const;
  Status EvalArguments(const Expr& e, Call* call);

  Status Charge(int line, int64_t work);
  template <typename... Args>
  static Error Fail(Code code, int line, fmt::format_string<Args...> format, const Args&... args) {
    return FormatError(code, format, fmt::make_format_args(args...))
        .In(fmt::format("chat template, line {}", line));
  }

  std::vector<std::unordered_map<std::string, Value>> scopes_;  // one more inside each loop
  std::string output_;
  int64_t work_ = 0;
};

Status Evaluator::Charge(int line, int64_t work) {
  work_ += work;
  if (work_ > kMaxWork)
    return Fail(Code::kUnsupported, line, "rendering takes more than {} steps or bytes", kMaxWork);
  return {};
}

// ---- Statements ----

Status Evaluator::Run(const std::vector<Statement>& body) {
  for (const Statement& s : body) PB_TRY(RunOne(s));
  return {};
}

Status Evaluator::RunOne(const Statement& s) {
  PB_TRY(Charge(s.line, 1));
  switch (s.kind) {
    case StatementKind::kText:
      PB_TRY(Charge(s.line, static_cast<int64_t>(s.text.size())));
      output_ += s.text;
      break;
    case StatementKind::kOutput: {
      PB_ASSIGN(Value value, Eval(*s.expr));
      if (auto* text = value.AsString()) PB_TRY(Charge(s.line, static_cast<int64_t>(text->size())));
      if (!ToText(value, &output_))
        return Fail(Code::kUnsupported, s.line, "writing {} as text", value.TypeName());
      break;
    }
    case StatementKind::kIf:
      for (const Branch& branch : s.branches) {
        bool taken = branch.condition == nullptr;
        if (!taken) {
          PB_ASSIGN(Value condition, Eval(*branch.condition));
          taken = condition.Truth();
        }
        if (taken) return Run(branch.body);
      }
      break;
    case StatementKind::kFor:
      return RunFor(s);
    case StatementKind::kSet:
      return RunSet(s);
  }
  if (output_.size() > kMaxStringBytes)
    return Fail(Code::kUnsupported, s.line, "the text grows past {} bytes", kMaxStringBytes);
  return {};
}

Status Evaluator::RunSet(const Statement& s) {
  PB_ASSIGN(Value value, Eval(*s.expr));
  if (s.targets.size() == 1) {
    scopes_.back()[s.targets[0]] = std::move(value);
    return {};
  }
  Dict* target = nullptr;
  for (size_t i = scopes_.size(); i-- > 0 && target == nullptr;) {
    if (auto found = scopes_[i].find(s.targets[0]); found != scopes_[i].end())
      target = found->second.AsNamespace();
  }
  if (target == nullptr) return Fail(Code::kMalformed, s.line, "\"{}\" is no namespace", s.targets[0]);
  if (value.AsNamespace()) return Fail(Code::kUnsupported, s.line, "a namespace inside another value");
  for (auto& [name, old] : *target) {
    if (name == s.targets[1]) return old = std::move(value), Status();
  }
  target->emplace_back(s.targets[1], std::move(value));
  return {};
}

Status Evaluator::BindTargets(const Statement& s, const Value& item) {
  if (s.targets.size() == 1) {
    scopes_.back()[s.targets[0]] = item;
    return {};
  }
  const List* parts = item.AsList();
  if (parts == nullptr || parts->size() != s.targets.size()) {
    return Fail(Code::kMalformed, s.line, "{} does not unpack into {} variables", item.TypeName(),
                s.targets.size());
  }
  for (size_t i = 0; i < parts->size(); ++i) scopes_.back()[s.targets[i]] = (*parts)[i];
  return {};
}

Result<List> Evaluator::LoopItems(const Statement& s) {
  PB_ASSIGN(Value iterable, Eval(*s.expr));
  if (iterable.is_none() || iterable.AsBool() || iterable.AsInt() || iterable.AsFloat() ||
      iterable.AsNamespace()) {
    return Fail(Code::kMalformed, s.line, "{} cannot be looped over", iterable.TypeName());
  }
  PB_ASSIGN(Value all, ApplyFilter({"list", s.line, iterable, {}, {}}));
  PB_TRY(Charge(s.line, all.size()));
  if (s.condition == nullptr) return *all.AsList();
  List chosen;
  scopes_.emplace_back();
  for (const Value& item : *all.AsList()) {
    PB_TRY(BindTargets(s, item));
    PB_ASSIGN(Value condition, Eval(*s.condition));
    if (condition.Truth()) chosen.push_back(item);
  }
  scopes_.pop_back();
  return chosen;
}

Status Evaluator::RunFor(const Statement& s) {
  PB_ASSIGN(List items, LoopItems(s));
  if (items.empty()) return Run(s.branches[1].body);
  const auto n = static_cast<int64_t>(items.size());
  for (int64_t i = 0; i < n; ++i) {
    scopes_.emplace_back();
    scopes_.back()["loop"] = Dict{{"index", i + 1},
                                  {"index0", i},
                                  {"revindex", n - i},
                                  {"revindex0", n - i - 1},
                                  {"first", i == 0},
                                  {"last", i + 1 == n},
                                  {"length", n},
                                  {"previtem", i == 0 ? Value() : items[static_cast<size_t>(i - 1)]},
                                  {"nextitem", i + 1 == n ? Value() : items[static_cast<size_t>(i + 1)]}};
    PB_TRY(BindTargets(s, items[static_cast<size_t>(i)]));
    PB_TRY(Run(s.branches[0].body));
    scopes_.pop_back();
  }
  return {};
}

// ---- Expressions ----

// Evaluates, and bounds what came out.
Result<Value> Evaluator::Eval(const Expr& e) {
  PB_TRY(Charge(e.line, 1));
  PB_ASSIGN(Value value, EvalUnchecked(e));
  bool makes = e.kind != ExprKind::kName && e.kind != ExprKind::kLiteral && e.kind != ExprKind::kAttribute &&
               e.kind != ExprKind::kIndex && e.kind != ExprKind::kCondition && e.name != "and" &&
               e.name != "or";
  if (!makes) return value;
  PB_TRY(Charge(e.line, value.size()));
  if (value.weight() > kMaxWeight)
    return Fail(Code::kUnsupported, e.line, "{} of more than {} bytes", value.TypeName(), kMaxWeight);
  if (value.depth() > kMaxValueDepth)
    return Fail(Code::kUnsupported, e.line, "a value nested deeper than {}", kMaxValueDepth);
  return value;
}

Result<Value> Evaluator::EvalUnchecked(const Expr& e) {
  switch (e.kind) {
    case ExprKind::kLiteral:
      return e.value;
    case ExprKind::kName:
      return EvalName(e);
    case ExprKind::kAttribute: {
      PB_ASSIGN(Value object, Eval(*e.operands[0]));
      return Attribute(e, object, e.name);
    }
    case ExprKind::kIndex:
      return EvalIndex(e);
    case ExprKind::kSlice:
      return EvalSlice(e);
    case ExprKind::kUnary:
      return EvalUnary(e);
    case ExprKind::kBinary:
      return EvalBinary(e);
    case ExprKind::kCondition: {
      PB_ASSIGN(Value condition, Eval(*e.operands[0]));
      const Expr* chosen = e.operands[condition.Truth() ? 1 : 2].get();
      return chosen == nullptr ? Result<Value>(Value()) : Eval(*chosen);
    }
    case ExprKind::kFilter:
    case ExprKind::kTest: {
      Call call{e.name, e.line, {}, {}, {}};
      PB_ASSIGN(call.subject, Eval(*e.operands[0]));
      PB_TRY(EvalArguments(e, &call));
      PB_TRY(Charge(e.line, call.args.size() == 3 ? call.subject.weight() : call.subject.size()));
      if (e.kind == ExprKind::kFilter) return ApplyFilter(call);
      PB_ASSIGN(bool holds, ApplyTest(call));
      return Value(holds);
    }
    case ExprKind::kCall:
      return EvalCall(e);
    case ExprKind::kList:
    case ExprKind::kDict:
      return EvalItems(e);
  }
  return Value();
}

Result<Value> Evaluator::EvalName(const Expr& e) const {
  for (size_t i = scopes_.size(); i-- > 0;) {
    if (auto found = scopes_[i].find(e.name); found != scopes_[i].end()) return found->second;
  }
  return Value();
}

Result<Value> Evaluator::Attribute(const Expr& e, const Value& object, std::string_view name) const {
  if (object.is_undefined()) return Fail(Code::kMalformed, e.line, "\"{}\" of an undefined value", name);
  const Dict* dict = object.AsDict() ? object.AsDict() : object.AsNamespace();
  const Value* found = dict == nullptr ? nullptr : FindKey(*dict, name);
  return found == nullptr ? Value() : *found;
}

Result<Value> Evaluator::EvalIndex(const Expr& e) {
  PB_ASSIGN(Value object, Eval(*e.operands[0]));
  PB_ASSIGN(Value index, Eval(*e.operands[1]));
  if (index.AsString()) return Attribute(e, object, *index.AsString());
  if (object.is_undefined()) return Fail(Code::kMalformed, e.line, "an element of an undefined value");
  const int64_t* i = index.AsInt();
  if (i == nullptr || !(object.AsList() || object.AsString())) return Value();
  PB_ASSIGN(Value all, ApplyFilter({"list", e.line, object, {}, {}}));
  const List& list = *all.AsList();
  auto n = static_cast<int64_t>(list.size());
  if (object.AsString()) PB_TRY(Charge(e.line, all.size()));
  int64_t at = *i < 0 ? *i + n : *i;
  return at >= 0 && at < n ? list[static_cast<size_t>(at)] : Value();
}

Result<Value> Evaluator::EvalSlice(const Expr& e) {
  PB_ASSIGN(Value object, Eval(*e.operands[0]));
  if (!object.AsList() && !object.AsString())
    return Fail(Code::kUnsupported, e.line, "a slice of {}", object.TypeName());
  PB_ASSIGN(Value all, ApplyFilter({"list", e.line, object, {}, {}}));
  const List& list = *all.AsList();
  auto n = static_cast<int64_t>(list.size());
  PB_TRY(Charge(e.line, all.size()));
  int64_t bounds[3];  // Python's rules: https://docs.python.org/3/reference/expressions.html#slicings
  for (int i : {2, 0, 1}) {
    PB_ASSIGN(Value bound, EvalOptional(e.operands[static_cast<size_t>(i) + 1].get()));
    if (!bound.is_none() && !bound.AsInt())
      return Fail(Code::kMalformed, e.line, "a slice bound is {}", bound.TypeName());
    const int64_t* given = bound.AsInt();
    if (i == 2) {
      bounds[2] = given ? *given : 1;
      if (bounds[2] == 0) return Fail(Code::kMalformed, e.line, "a slice with step zero");
      continue;
    }
    bool back = bounds[2] < 0;
    int64_t low = back ? -1 : 0, high = back ? n - 1 : n;
    int64_t missing = (i == 0) == back ? high : low;
    bounds[i] = given ? std::clamp(*given < 0 ? *given + n : *given, low, high) : missing;
  }
  List out;
  for (int64_t at = bounds[0]; bounds[2] > 0 ? at < bounds[1] : at > bounds[1];) {
    out.push_back(list[static_cast<size_t>(at)]);
    if (__builtin_add_overflow(at, bounds[2], &at)) break;
  }
  if (object.AsList()) return Value(std::move(out));
  return ApplyFilter({"join", e.line, Value(std::move(out)), {}, {}});
}

Result<Value> Evaluator::EvalUnary(const Expr& e) {
  PB_ASSIGN(Value v, Eval(*e.operands[0]));
  if (e.name == "not") return Value(!v.Truth());
  if (e.name == "+" && (v.AsInt() || v.AsFloat())) return v;
  int64_t negated;
  if (v.AsInt() && !__builtin_sub_overflow(int64_t{0}, *v.AsInt(), &negated)) return Value(negated);
  if (v.AsFloat()) return Value(-*v.AsFloat());
  return Fail(Code::kMalformed, e.line, "{} of {}", e.name, v.TypeName());
}

Result<Value> Evaluator::EvalBinary(const Expr& e) {
  const std::string& op = e.name;
  PB_ASSIGN(Value a, Eval(*e.operands[0]));
  if (op == "and" || op == "or") return a.Truth() == (op == "or") ? Result<Value>(a) : Eval(*e.operands[1]);
  PB_ASSIGN(Value b, Eval(*e.operands[1]));
  PB_TRY(Charge(e.line, op.ends_with("in") ? b.weight() : std::min(a.weight(), b.weight())));
  if (op == "==") return Value(Equal(a, b));
  if (op == "!=") return Value(!Equal(a, b));
  if (op == "in") return Contains(e, a, b);
  if (op == "not in") {
    PB_ASSIGN(Value contained, Contains(e, a, b));
    return Value(!contained.Truth());
  }
  if (op == "~") {
    std::string text;
    if (!ToText(a, &text) || !ToText(b, &text))
      return Fail(Code::kUnsupported, e.line, "~ of {} and {}", a.TypeName(), b.TypeName());
    return Value(std::move(text));
  }
  if (op[0] == '<' || op[0] == '>') {
    double x = 0, y = 0;
    int order;
    if (a.AsString() && b.AsString()) {
      order = a.AsString()->compare(*b.AsString());
    } else if (a.AsInt() && b.AsInt()) {
      order = *a.AsInt() < *b.AsInt() ? -1 : *a.AsInt() > *b.AsInt();
    } else if (ToNumber(a, &x) && ToNumber(b, &y)) {
      order = x < y ? -1 : x > y;
    } else {
      return Fail(Code::kMalformed, e.line, "{} of {} and {}", op, a.TypeName(), b.TypeName());
    }
    return Value(op == "<" ? order < 0 : op == "<=" ? order <= 0 : op == ">" ? order > 0 : order >= 0);
  }
  return Arithmetic(e, a, b);
}

Result<Value> Evaluator::Arithmetic(const Expr& e, const Value& a, const Value& b) const {
  const std::string& op = e.name;
  // Python repeats strings by * and formats them by %; no template in use does.
  Code code = op == "*" || op == "%" ? Code::kUnsupported : Code::kMalformed;
  if (op == "+" && a.AsString() && b.AsString()) return Value(*a.AsString() + *b.AsString());
  if (op == "+" && a.AsList() && b.AsList()) {
    List joined = *a.AsList();
    joined.insert(joined.end(), b.AsList()->begin(), b.AsList()->end());
    return Value(std::move(joined));
  }
  double x = 0, y = 0;
  if (!ToNumber(a, &x) || !ToNumber(b, &y))
    return Fail(code, e.line, "{} of {} and {}", op, a.TypeName(), b.TypeName());
  bool divides = op == "/" || op == "//" || op == "%";
  if (divides && y == 0) return Fail(Code::kMalformed, e.line, "division by zero");
  if (op == "/") return Value(x / y);
  if (a.AsFloat() || b.AsFloat()) {
    if (op == "+") return Value(x + y);
    if (op == "-") return Value(x - y);
    if (op == "*") return Value(x * y);
    return Fail(Code::kUnsupported, e.line, "{} of floats", op);
  }
  // Whole numbers; // and % round down, as Python's.
  auto whole = [](const Value& v) { return v.AsInt() ? *v.AsInt() : int64_t{*v.AsBool()}; };
  int64_t i = whole(a), j = whole(b), r = 0;
  bool overflow = op == "+"   ? __builtin_add_overflow(i, j, &r)
                  : op == "-" ? __builtin_sub_overflow(i, j, &r)
                  : op == "*" ? __builtin_mul_overflow(i, j, &r)
                              : op == "//" && j == -1 && __builtin_sub_overflow(int64_t{0}, i, &r);
  if (overflow) return Fail(Code::kUnsupported, e.line, "{} beyond 64 bits", op);
  if (divides && j != -1) r = i / j - (i % j != 0 && (i < 0) != (j < 0));
  return Value(op == "%" ? (j == -1 ? int64_t{0} : i - r * j) : r);
}

Result<Value> Evaluator::Contains(const Expr& e, const Value& item, const Value& container) const {
  if (container.is_undefined()) return Value(false);
  if (auto* text = container.AsString(); text != nullptr && item.AsString()) {
    return Value(text->find(*item.AsString()) != text->npos);
  }
  if (auto* list = container.AsList()) {
    return Value(std::any_of(list->begin(), list->end(), [&](const Value& v) { return Equal(v, item); }));
  }
  if (auto* dict = container.AsDict())
    return Value(item.AsString() && FindKey(*dict, *item.AsString()) != nullptr);
  return Fail(Code::kMalformed, e.line, "in of {} and {}", item.TypeName(), container.TypeName());
}

Status Evaluator::EvalArguments(const Expr& e, Call* call) {
  auto admit = [&](const Value& v) {
    return v.AsNamespace() ? Status(Fail(Code::kUnsupported, e.line, "a namespace inside another value"))
                           : Status();
  };
  for (size_t i = 1; i < e.operands.size(); ++i) {
    PB_ASSIGN(Value value, Eval(*e.operands[i]));
    PB_TRY(admit(value));
    call->args.push_back(std::move(value));
  }
  for (const auto& [name, operand] : e.named) {
    PB_ASSIGN(Value value, Eval(*operand));
    PB_TRY(admit(value));
    call->named.emplace_back(name, std::move(value));
  }
  return {};
}

// A function by its name, or a method.
Result<Value> Evaluator::EvalCall(const Expr& e) {
  const Expr& callee = *e.operands[0];
  Call call{callee.name, e.line, {}, {}, {}};
  if (callee.kind == ExprKind::kAttribute) {
    PB_ASSIGN(call.subject, Eval(*callee.operands[0]));
    if (call.subject.is_undefined())
      return Fail(Code::kMalformed, e.line, "\"{}\" of an undefined value", callee.name);
    PB_TRY(EvalArguments(e, &call));
    PB_TRY(Charge(e.line, call.subject.size()));
    return CallMethod(call);
  }
  if (callee.kind != ExprKind::kName) return Fail(Code::kUnsupported, e.line, "a call of what is no name");
  PB_TRY(EvalArguments(e, &call));
  return CallFunction(call);
}

Result<Value> Evaluator::EvalItems(const Expr& e) {
  List items;
  for (const auto& operand : e.operands) {
    PB_ASSIGN(Value value, Eval(*operand));
    if (value.AsNamespace()) return Fail(Code::kUnsupported, e.line, "a namespace inside another value");
    items.push_back(std::move(value));
  }
  if (e.kind == ExprKind::kList) return Value(std::move(items));
  Dict dict;
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    if (!items[i].AsString())
      return Fail(Code::kUnsupported, e.line, "a dictionary key that is {}", items[i].TypeName());
    if (FindKey(dict, *items[i].AsString()))
      return Fail(Code::kUnsupported, e.line, "a dictionary with one key twice");
    dict.emplace_back(*items[i].AsString(), items[i + 1]);
  }
  return Value(std::move(dict));
}

}  // namespace
}  // namespace pb::jinja

namespace pb {

Result<std::string> ApplyChatTemplate(std::string_view chat_template, std::span<const ChatMessage> messages,
                                      bool add_generation_prompt, std::string_view bos_text,
                                      std::string_view eos_text) {
  using jinja::Value;
  PB_ASSIGN(std::vector<jinja::Token> tokens, jinja::Lex(chat_template));
  PB_ASSIGN(std::vector<jinja::Statement> body, jinja::Parse(tokens));
  jinja::List list;
  for (const ChatMessage& m : messages)
    list.emplace_back(jinja::Dict{{"role", m.role}, {"content", m.content}});
  jinja::Evaluator evaluator({{"messages", Value(std::move(list))},
                              {"add_generation_prompt", Value(add_generation_prompt)},
                              {"bos_token", Value(bos_text)},
                              {"eos_token", Value(eos_text)},
                              {"tools", Value(jinja::None())},
                              {"documents", Value(jinja::None())}});
  PB_TRY(evaluator.Run(body));
  return evaluator.TakeOutput();
}

}  // namespace pb
