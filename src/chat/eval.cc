// Runs the syntax tree of a chat template, within bounds of work and memory.
#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "chat/ast.h"
#include "chat/builtins.h"
#include "chat/chat_template.h"

namespace pb::chat {
namespace {

// kStep for each node evaluated, and the bytes of all values read or made by operations: bounds
// time.
constexpr int64_t kMaxWork = int64_t{1} << 28;
constexpr int64_t kStep = 16;
// the bytes of all values at one time: bounds memory
constexpr int64_t kMaxLive = int64_t{1} << 26;
constexpr int kMaxValueDepth = 100;

class Evaluator {
 public:
  explicit Evaluator(std::unordered_map<std::string, Value> globals) : start_(ValueMeter()) {
    scopes_.push_back(std::move(globals));
  }

  Status Run(const std::vector<Statement>& body);
  std::string TakeOutput() { return std::move(output_); }

 private:
  Status RunOne(const Statement& s);
  Status RunFor(const Statement& s);
  Status RunSet(const Statement& s);
  Result<Value> LoopItems(const Statement& s);
  Status BindTargets(const Statement& s, const Value& item);

  Result<Value> Eval(const Expr& e);
  Result<Value> EvalUnchecked(const Expr& e);
  Result<Value> EvalOptional(const Expr* e) { return e == nullptr ? Result<Value>(Value(None())) : Eval(*e); }
  Result<Value> EvalName(const Expr& e);
  Result<Value> EvalUnary(const Expr& e);
  Result<Value> EvalBinary(const Expr& e);
  Result<Value> EvalIndex(const Expr& e);
  Result<Value> EvalSlice(const Expr& e);
  Result<Value> SliceText(const Expr& e, std::string_view text, const int64_t bounds[3]) const;
  Result<Value> EvalCall(const Expr& e);
  Result<Value> EvalItems(const Expr& e);
  Result<Value> Element(const Expr& e, const Value& object, int64_t i);
  Result<Value> Joined(const Expr& e, const Value& a, const Value& b) const;
  Result<Value> Arithmetic(const Expr& e, const Value& a, const Value& b) const;
  Result<Value> Contains(const Expr& e, const Value& item, const Value& container) const;
  Result<Value> Attribute(const Expr& e, const Value& object, std::string_view name);
  Status EvalArguments(const Expr& e, Call* call);

  Status Charge(int line, int64_t work);
  template <typename... Args>
  static Error Fail(Code code, int line, fmt::format_string<Args...> format, const Args&... args) {
    return FormatError(code, format, fmt::make_format_args(args...))
        .In(fmt::format("chat template, line {}", line));
  }

  std::vector<std::unordered_map<std::string, Value>> scopes_;  // one more inside each loop
  std::string output_;
  const Meter start_;
  int64_t work_ = 0;  // but for the bytes of values made, which the meter counts
};

Status Evaluator::Charge(int line, int64_t work) {
  const Meter& meter = ValueMeter();
  work_ += work;
  if (work_ + (meter.made - start_.made) > kMaxWork)
    return Fail(Code::kUnsupported, line, "rendering takes more than {} steps or bytes", kMaxWork);
  if (meter.live - start_.live > kMaxLive)
    return Fail(Code::kUnsupported, line, "rendering takes more than {} bytes at one time", kMaxLive);
  return {};
}

// ---- Statements ----

Status Evaluator::Run(const std::vector<Statement>& body) {
  for (const Statement& s : body) PB_TRY(RunOne(s));
  return {};
}

Status Evaluator::RunOne(const Statement& s) {
  PB_TRY(Charge(s.line, kStep));
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
  if (target == nullptr)
    return Fail(Code::kMalformed, s.line, "\"{}\" is no namespace", Shorten(s.targets[0]));
  if (value.AsNamespace()) return Fail(Code::kUnsupported, s.line, "a namespace inside another value");
  PB_TRY(Charge(s.line, static_cast<int64_t>(scopes_.size() + target->size() * sizeof(Value))));
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
  PB_TRY(Charge(s.line, item.size()));
  for (size_t i = 0; i < parts->size(); ++i) scopes_.back()[s.targets[i]] = (*parts)[i];
  return {};
}

Result<Value> Evaluator::LoopItems(const Statement& s) {
  PB_ASSIGN(Value iterable, Eval(*s.expr));
  if (iterable.is_none() || iterable.AsBool() || iterable.AsInt() || iterable.AsFloat() ||
      iterable.AsNamespace()) {
    return Fail(Code::kMalformed, s.line, "{} cannot be looped over", iterable.TypeName());
  }
  PB_ASSIGN(Value all, ApplyFilter({"list", s.line, iterable, {}, {}}));
  PB_TRY(Charge(s.line, all.size()));
  if (s.condition == nullptr) return all;
  List chosen;
  scopes_.emplace_back();
  for (const Value& item : *all.AsList()) {
    PB_TRY(BindTargets(s, item));
    PB_ASSIGN(Value condition, Eval(*s.condition));
    if (condition.Truth()) chosen.push_back(item);
  }
  scopes_.pop_back();
  return Value(std::move(chosen));
}

Status Evaluator::RunFor(const Statement& s) {
  PB_ASSIGN(const Value all, LoopItems(s));
  const List& items = *all.AsList();
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
  PB_TRY(Charge(e.line, kStep));
  PB_ASSIGN(Value value, EvalUnchecked(e));
  PB_TRY(Charge(e.line, 0));
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
      if (e.kind == ExprKind::kFilter) {
        const bool walks = e.name == "tojson" || e.name == "join" || e.name.ends_with("attr");
        PB_TRY(Charge(e.line, walks ? call.subject.weight() : call.subject.size()));
        return ApplyFilter(call);
      }
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

Result<Value> Evaluator::EvalName(const Expr& e) {
  PB_TRY(Charge(e.line, static_cast<int64_t>(scopes_.size() * (1 + e.name.size() / 8))));
  for (size_t i = scopes_.size(); i-- > 0;) {
    if (auto found = scopes_[i].find(e.name); found != scopes_[i].end()) return found->second;
  }
  return Value();
}

Result<Value> Evaluator::Attribute(const Expr& e, const Value& object, std::string_view name) {
  if (object.is_undefined())
    return Fail(Code::kMalformed, e.line, "\"{}\" of an undefined value", Shorten(name));
  const Dict* dict = object.AsDict() ? object.AsDict() : object.AsNamespace();
  if (dict != nullptr) PB_TRY(Charge(e.line, object.size()));
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
  return Element(e, object, *i);
}

Result<Value> Evaluator::Element(const Expr& e, const Value& object, int64_t i) {
  const std::string* text = object.AsString();
  if (text != nullptr) PB_TRY(Charge(e.line, object.size()));
  const auto n = text ? CountCharacters(*text) : static_cast<int64_t>(object.AsList()->size());
  const int64_t at = i < 0 ? i + n : i;
  if (at < 0 || at >= n) return Value();
  if (text == nullptr) return (*object.AsList())[static_cast<size_t>(at)];
  std::string_view rest = *text;
  for (int64_t skipped = 0; skipped < at; ++skipped) rest.remove_prefix(CharacterBytes(rest));
  return Value(rest.substr(0, CharacterBytes(rest)));
}

Result<Value> Evaluator::EvalSlice(const Expr& e) {
  PB_ASSIGN(Value object, Eval(*e.operands[0]));
  if (!object.AsList() && !object.AsString())
    return Fail(Code::kUnsupported, e.line, "a slice of {}", object.TypeName());
  PB_TRY(Charge(e.line, object.size()));
  const std::string* text = object.AsString();
  const auto n = text ? CountCharacters(*text) : static_cast<int64_t>(object.AsList()->size());
  // Python's rules: https://docs.python.org/3/reference/expressions.html#slicings
  int64_t bounds[3];
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
  if (text != nullptr) return SliceText(e, *text, bounds);
  List out;
  for (int64_t at = bounds[0]; bounds[2] > 0 ? at < bounds[1] : at > bounds[1];) {
    out.push_back((*object.AsList())[static_cast<size_t>(at)]);
    if (__builtin_add_overflow(at, bounds[2], &at)) break;
  }
  return Value(std::move(out));
}

// The characters from bounds[0] up to bounds[1], each bounds[2]th.
Result<Value> Evaluator::SliceText(const Expr& e, std::string_view text, const int64_t bounds[3]) const {
  if (bounds[2] == 1) {
    for (int64_t i = 0; i < bounds[0]; ++i) text.remove_prefix(CharacterBytes(text));
    std::string_view rest = text;
    for (int64_t i = bounds[0]; i < bounds[1]; ++i) rest.remove_prefix(CharacterBytes(rest));
    return Value(text.substr(0, text.size() - rest.size()));
  }
  if (text.size() > kMaxItems)
    return Fail(Code::kUnsupported, e.line, "a slice with a step of more than {} bytes", kMaxItems);
  std::vector<std::string_view> characters;
  while (!text.empty()) {
    characters.push_back(text.substr(0, CharacterBytes(text)));
    text.remove_prefix(characters.back().size());
  }
  std::string out;
  for (int64_t at = bounds[0]; bounds[2] > 0 ? at < bounds[1] : at > bounds[1];) {
    out += characters[static_cast<size_t>(at)];
    if (__builtin_add_overflow(at, bounds[2], &at)) break;
  }
  return Value(std::move(out));
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
  if (op == "~" || (op == "+" && a.AsString() && b.AsString()) || (op == "+" && a.AsList() && b.AsList()))
    return Joined(e, a, b);
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

// Two lists, or the text of two values.
Result<Value> Evaluator::Joined(const Expr& e, const Value& a, const Value& b) const {
  if (a.AsList() && b.AsList() && e.name == "+") {
    if (a.AsList()->size() + b.AsList()->size() > kMaxItems)
      return Fail(Code::kUnsupported, e.line, "+ makes more than {} items", kMaxItems);
    List joined = *a.AsList();
    joined.insert(joined.end(), b.AsList()->begin(), b.AsList()->end());
    return Value(std::move(joined));
  }
  auto length = [](const Value& v) { return v.AsString() ? v.AsString()->size() : 0; };
  if (length(a) + length(b) > kMaxStringBytes)
    return Fail(Code::kUnsupported, e.line, "{} makes more than {} bytes", e.name, kMaxStringBytes);
  std::string text;
  if (!ToText(a, &text) || !ToText(b, &text))
    return Fail(Code::kUnsupported, e.line, "~ of {} and {}", a.TypeName(), b.TypeName());
  return Value(std::move(text));
}

Result<Value> Evaluator::Arithmetic(const Expr& e, const Value& a, const Value& b) const {
  const std::string& op = e.name;
  // Python repeats strings by * and formats them by %; no template in use does.
  Code code = op == "*" || op == "%" ? Code::kUnsupported : Code::kMalformed;
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
    return Value(FindText(*text, *item.AsString()) != text->npos);
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
    PB_TRY(Charge(e.line, static_cast<int64_t>(sizeof(Dict::value_type) + name.size())));
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
      return Fail(Code::kMalformed, e.line, "\"{}\" of an undefined value", Shorten(callee.name));
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
  if (items.size() > 2 * kMaxKeys)
    return Fail(Code::kUnsupported, e.line, "a dictionary of more than {} keys", kMaxKeys);
  int64_t n_bytes = 0;
  for (size_t i = 0; i < items.size(); i += 2) n_bytes += items[i].size() + int64_t{sizeof(Value)};
  PB_TRY(Charge(e.line,
                n_bytes * static_cast<int64_t>(items.size())));  // each key is looked for among the others
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
Result<std::string> ApplyChatTemplate(std::string_view chat_template, std::span<const ChatMessage> messages,
                                      bool add_generation_prompt, std::string_view bos_text,
                                      std::string_view eos_text) {
  PB_ASSIGN(std::vector<Token> tokens, Lex(chat_template));
  PB_ASSIGN(std::vector<Statement> body, Parse(tokens));
  List list;
  for (const ChatMessage& m : messages) list.emplace_back(Dict{{"role", m.role}, {"content", m.content}});
  Evaluator evaluator({{"messages", Value(std::move(list))},
                       {"add_generation_prompt", Value(add_generation_prompt)},
                       {"bos_token", Value(bos_text)},
                       {"eos_token", Value(eos_text)},
                       {"tools", Value(None())},
                       {"documents", Value(None())}});
  PB_TRY(evaluator.Run(body));
  return evaluator.TakeOutput();
}

}  // namespace pb::chat
