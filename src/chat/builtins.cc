// One function for each filter, test, method and global function, found by name, each within its
// bounds.
#include "chat/builtins.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "chat/lexer.h"

namespace pb::chat {
namespace {

Error BadArguments(const Call& call) {
  return call.Fail(Code::kUnsupported, "{} with these arguments of {}", call.name, call.subject.TypeName());
}

// Positional arguments only, within [least, most] of them, all strings.
bool StringArgs(const Call& call, size_t least, size_t most) {
  return call.named.empty() && call.args.size() >= least && call.args.size() <= most &&
         std::all_of(call.args.begin(), call.args.end(),
                     [](const Value& v) { return v.AsString() != nullptr; });
}

Result<Value> Cased(const Call& call, bool upper) {
  std::string out;
  if (!ToText(call.subject, &out) || !call.args.empty()) return BadArguments(call);
  for (char& c : out) {
    if (c & 0x80) return call.Fail(Code::kUnsupported, "{} of characters beyond ASCII", call.name);
    bool changes = upper ? c >= 'a' && c <= 'z' : c >= 'A' && c <= 'Z';
    if (changes) c = static_cast<char>(c ^ 0x20);
  }
  return Value(std::move(out));
}

// Python's strip, lstrip and rstrip; without an argument they take white space.
Result<Value> Strip(const Call& call, bool left, bool right) {
  std::string holder;
  if (!ToText(call.subject, &holder) || !StringArgs(call, 0, 1)) return BadArguments(call);
  std::string_view text = holder;
  if (call.args.empty()) {
    if (left) text = StripLeft(text);
    if (right) text = StripRight(text);
    return Value(text);
  }
  const std::string& set = *call.args[0].AsString();
  for (char c : set) {
    if (c & 0x80) return call.Fail(Code::kUnsupported, "{} of characters beyond ASCII", call.name);
  }
  std::array<bool, 256> stripped{};
  for (char c : set) stripped[static_cast<unsigned char>(c)] = true;
  auto strips = [&](char c) { return stripped[static_cast<unsigned char>(c)]; };
  while (left && !text.empty() && strips(text.front())) text.remove_prefix(1);
  while (right && !text.empty() && strips(text.back())) text.remove_suffix(1);
  return Value(text);
}

Result<Value> Replace(const Call& call) {
  std::string text;
  if (!ToText(call.subject, &text) || !StringArgs(call, 2, 2)) return BadArguments(call);
  const std::string &from = *call.args[0].AsString(), &to = *call.args[1].AsString();
  if (from.empty()) return BadArguments(call);
  std::string out;
  for (size_t at = 0; at <= text.size();) {
    size_t found = FindText(text, from, at);
    out.append(text, at, found - at);
    if (found == text.npos) break;
    if (out.size() + to.size() > kMaxStringBytes)
      return call.Fail(Code::kUnsupported, "replace makes more than {} bytes", kMaxStringBytes);
    out += to;
    at = found + from.size();
  }
  return Value(std::move(out));
}

Result<Value> Split(const Call& call) {
  const std::string* text = call.subject.AsString();
  const int64_t* most = call.args.size() == 2 ? call.args[1].AsInt() : nullptr;
  bool usable = call.named.empty() && (call.args.size() == 1 || most != nullptr) &&
                call.args[0].AsString() != nullptr && !call.args[0].AsString()->empty();
  if (text == nullptr || !usable) return BadArguments(call);
  const std::string& separator = *call.args[0].AsString();
  List parts;
  size_t at = 0;
  while (most == nullptr || *most < 0 || parts.size() < static_cast<size_t>(*most)) {
    size_t found = FindText(*text, separator, at);
    if (found == text->npos) break;
    parts.push_back(text->substr(at, found - at));
    if (parts.size() > kMaxParts)
      return call.Fail(Code::kUnsupported, "split makes more than {} parts", kMaxParts);
    at = found + separator.size();
  }
  parts.push_back(text->substr(at));
  return Value(std::move(parts));
}

Result<Value> Length(const Call& call) {
  const Value& v = call.subject;
  size_t n = 0;
  if (auto* s = v.AsString()) {
    return Value(CountCharacters(*s));
  } else if (auto* l = v.AsList()) {
    n = l->size();
  } else if (auto* d = v.AsDict()) {
    n = d->size();
  } else if (!v.is_undefined()) {
    return call.Fail(Code::kMalformed, "{} has no length", v.TypeName());
  }
  return Value(static_cast<int64_t>(n));
}

Result<Value> Join(const Call& call) {
  const List* list = call.subject.AsList();
  if (list == nullptr || !StringArgs(call, 0, 1)) return BadArguments(call);
  std::string out;
  for (size_t i = 0; i < list->size(); ++i) {
    if (i > 0 && !call.args.empty()) out += *call.args[0].AsString();
    if (out.size() <= kMaxStringBytes && !ToText((*list)[i], &out)) return BadArguments(call);
    if (out.size() > kMaxStringBytes)
      return call.Fail(Code::kUnsupported, "join makes more than {} bytes", kMaxStringBytes);
  }
  return Value(std::move(out));
}

enum class Part { kKeys, kValues, kItems };

Value DictPart(const Dict& dict, Part part) {
  List out;
  for (const auto& [key, value] : dict) {
    out.push_back(part == Part::kKeys     ? Value(key)
                  : part == Part::kValues ? value
                                          : Value(List{Value(key), value}));
  }
  return Value(std::move(out));
}

Value Characters(std::string_view text) {
  List out;
  while (!text.empty()) {
    const size_t n = CharacterBytes(text);
    out.push_back(text.substr(0, n));
    text.remove_prefix(n);
  }
  return Value(std::move(out));
}

Result<Value> ToList(const Call& call) {
  if (!call.args.empty()) return BadArguments(call);
  if (auto* s = call.subject.AsString()) {
    if (s->size() > kMaxParts)
      return call.Fail(Code::kUnsupported, "a list of the characters of more than {} bytes", kMaxParts);
    return Characters(*s);
  }
  if (auto* d = call.subject.AsDict()) return DictPart(*d, Part::kKeys);
  if (call.subject.AsList()) return call.subject;
  return call.subject.is_undefined() ? Result<Value>(Value(List())) : BadArguments(call);
}

Result<Value> FirstOrLast(const Call& call) {
  PB_ASSIGN(Value list, ToList(call));
  if (list.AsList()->empty()) return Value();
  return call.name == "first" ? list.AsList()->front() : list.AsList()->back();
}

Result<Value> Default(const Call& call) {
  bool if_false = false;
  if (call.args.size() > 1) if_false = call.args[1].Truth();
  for (const auto& [name, value] : call.named) {
    if (name != "boolean") return BadArguments(call);
    if_false = value.Truth();
  }
  bool missing = call.subject.is_undefined() || (if_false && !call.subject.Truth());
  if (!missing) return call.subject;
  return call.args.empty() ? Value("") : call.args[0];
}

Result<Value> Json(const Call& call) {
  if (!call.args.empty() || !call.named.empty()) return BadArguments(call);
  std::string out;
  if (!ToJson(call.subject, kMaxStringBytes, &out))
    return call.Fail(Code::kUnsupported, "tojson of {}", call.subject.TypeName());
  return Value(std::move(out));
}

// selectattr and rejectattr by truth or by equality, of dictionaries.
Result<Value> SelectAttribute(const Call& call) {
  const List* list = call.subject.AsList();
  bool by_truth = StringArgs(call, 1, 1);
  bool by_value =
      call.named.empty() && call.args.size() == 3 && call.args[0].AsString() && call.args[1].AsString();
  if (by_value) {
    const std::string& test = *call.args[1].AsString();
    by_value = test == "equalto" || test == "eq" || test == "==";
  }
  if (list == nullptr || (!by_truth && !by_value)) return BadArguments(call);
  List out;
  for (const Value& item : *list) {
    const Value* attribute = item.AsDict() ? FindKey(*item.AsDict(), *call.args[0].AsString()) : nullptr;
    Value value = attribute == nullptr ? Value() : *attribute;
    bool selected = by_truth ? value.Truth() : Equal(value, call.args[2]);
    if (selected == (call.name == "selectattr")) out.push_back(item);
  }
  return Value(std::move(out));
}

Result<Value> Text(const Call& call) {
  std::string out;
  if (!ToText(call.subject, &out) || !call.args.empty()) return BadArguments(call);
  return Value(std::move(out));
}

Result<Value> Range(const Call& call) {
  std::array<int64_t, 3> bounds = {0, 0, 1};
  size_t n = call.args.size();
  for (size_t i = 0; i < n && i < 3; ++i) {
    const int64_t* bound = call.args[i].AsInt();
    if (bound == nullptr) return BadArguments(call);
    bounds[n == 1 ? 1 : i] = *bound;
  }
  auto [at, end, step] = bounds;
  if (n < 1 || n > 3 || step == 0 || !call.named.empty()) return BadArguments(call);
  List out;
  while (step > 0 ? at < end : at > end) {
    if (out.size() == kMaxItems)
      return call.Fail(Code::kUnsupported, "range makes more than {} numbers", kMaxItems);
    out.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return Value(std::move(out));
}

}  // namespace

Result<Value> ApplyFilter(const Call& call) {
  std::string_view name = call.name;
  if (name == "trim") return Strip(call, true, true);
  if (name == "upper") return Cased(call, true);
  if (name == "lower") return Cased(call, false);
  if (name == "length" || name == "count") return Length(call);
  if (name == "tojson") return Json(call);
  if (name == "default" || name == "d") return Default(call);
  if (name == "string" || name == "safe") return Text(call);
  if (name == "join") return Join(call);
  if (name == "first" || name == "last") return FirstOrLast(call);
  if (name == "list") return ToList(call);
  if (name == "replace") return Replace(call);
  if (name == "selectattr" || name == "rejectattr") return SelectAttribute(call);
  if (name == "items" && call.subject.AsDict()) return DictPart(*call.subject.AsDict(), Part::kItems);
  return call.Fail(Code::kUnsupported, "the filter \"{}\" of {}", Shorten(name), call.subject.TypeName());
}

Result<bool> ApplyTest(const Call& call) {
  const Value& v = call.subject;
  bool is_list = v.AsString() || v.AsList() || v.AsDict();
  double number = 0;
  if (call.args.empty() && call.named.empty()) {
    if (call.name == "defined") return !v.is_undefined();
    if (call.name == "undefined") return v.is_undefined();
    if (call.name == "none") return v.is_none();
    if (call.name == "string") return v.AsString() != nullptr;
    if (call.name == "mapping") return v.AsDict() != nullptr;
    if (call.name == "sequence") return is_list || v.is_undefined();
    if (call.name == "iterable") return is_list || v.is_undefined();
    if (call.name == "boolean") return v.AsBool() != nullptr;
    if (call.name == "true") return v.AsBool() != nullptr && *v.AsBool();
    if (call.name == "false") return v.AsBool() != nullptr && !*v.AsBool();
    if (call.name == "integer") return v.AsInt() != nullptr;
    if (call.name == "float") return v.AsFloat() != nullptr;
    if (call.name == "number") return ToNumber(v, &number);
    if (call.name == "odd" && v.AsInt()) return *v.AsInt() % 2 != 0;
    if (call.name == "even" && v.AsInt()) return *v.AsInt() % 2 == 0;
  }
  return call.Fail(Code::kUnsupported, "the test \"is {}\" of {}", Shorten(call.name), v.TypeName());
}

Result<Value> CallMethod(const Call& call) {
  std::string_view name = call.name;
  if (auto* text = call.subject.AsString()) {
    if (name == "strip") return Strip(call, true, true);
    if (name == "lstrip") return Strip(call, true, false);
    if (name == "rstrip") return Strip(call, false, true);
    if (name == "upper") return Cased(call, true);
    if (name == "lower") return Cased(call, false);
    if (name == "replace") return Replace(call);
    if (name == "split") return Split(call);
    if (name == "startswith" || name == "endswith") {
      if (!StringArgs(call, 1, 1)) return BadArguments(call);
      const std::string& part = *call.args[0].AsString();
      if (part.size() > text->size()) return Value(false);
      return Value(text->compare(name == "startswith" ? 0 : text->size() - part.size(), part.size(), part) ==
                   0);
    }
  }
  if (auto* dict = call.subject.AsDict()) {
    if (name == "items" && call.args.empty()) return DictPart(*dict, Part::kItems);
    if (name == "keys" && call.args.empty()) return DictPart(*dict, Part::kKeys);
    if (name == "values" && call.args.empty()) return DictPart(*dict, Part::kValues);
    if (name == "get" && (call.args.size() == 1 || call.args.size() == 2) && call.args[0].AsString()) {
      const Value* found = FindKey(*dict, *call.args[0].AsString());
      return found != nullptr ? *found : call.args.size() == 2 ? call.args[1] : Value(None());
    }
  }
  return call.Fail(Code::kUnsupported, "the method \"{}\" of {}", Shorten(name), call.subject.TypeName());
}

Result<Value> CallFunction(const Call& call) {
  if (call.name == "raise_exception" && call.args.size() == 1) {
    std::string message;
    if (!ToText(call.args[0], &message)) return BadArguments(call);
    return call.Fail(Code::kUsage, "the template refuses this conversation: {}", Shorten(message));
  }
  if (call.name == "namespace" && call.args.empty()) return Value(std::make_shared<Dict>(call.named));
  if (call.name == "range") return Range(call);
  return call.Fail(Code::kUnsupported, "the function \"{}\" with these arguments", Shorten(call.name));
}

}  // namespace pb::chat
