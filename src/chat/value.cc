// Conversions, comparison and printing of values, as Python does them.
#include "chat/value.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tokenizer/utf8.h"

namespace pb::chat {
namespace {

constexpr int64_t kHeldBytes =
    64;  // of an empty string, list or dictionary: its header and its block on the heap

// False when `out` grows past `limit`.
bool AppendJsonString(std::string_view text, size_t limit, std::string* out) {
  constexpr std::string_view kNamed = "\"\"\\\\\nn\rr\tt\bb\ff";
  out->push_back('"');
  for (char c : text) {
    if (out->size() > limit) return false;
    size_t i = 0;
    while (i < kNamed.size() && kNamed[i] != c) i += 2;
    if (i < kNamed.size()) {
      out->push_back('\\');
      out->push_back(kNamed[i + 1]);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      *out += fmt::format("\\u{:04x}", c);
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
  return true;
}

// As repr() writes a float, for those that it writes without an exponent.
bool AppendFloat(double v, std::string* out) {
  if (!std::isfinite(v) || (v != 0 && (std::abs(v) >= 1e16 || std::abs(v) < 1e-4))) return false;
  std::string text = fmt::format("{}", v);
  *out += text;
  if (text.find_first_of(".e") == text.npos) *out += ".0";
  return true;
}

int64_t DictBytes(const Dict& dict) {
  int64_t n = kHeldBytes;
  for (const auto& [key, item] : dict) n += static_cast<int64_t>(sizeof(Dict::value_type) + key.size());
  return n;
}

}  // namespace

Meter& ValueMeter() {
  thread_local Meter meter;
  return meter;
}

Value::Value(std::string v) : weight_(static_cast<int64_t>(v.size())) {
  const int64_t n_bytes = weight_ + kHeldBytes;
  Hold(std::move(v), n_bytes);
}

Value::Value(List v) {
  for (const Value& item : v) Contain(item);
  const auto n_bytes = static_cast<int64_t>(v.size() * sizeof(Value)) + kHeldBytes;
  Hold(std::move(v), n_bytes);
}

Value::Value(Dict v) {
  const int64_t n_bytes = DictBytes(v);
  weight_ = n_bytes * static_cast<int64_t>(std::max<size_t>(v.size(), 1));
  for (const auto& [key, item] : v) Contain(item);
  Hold(std::move(v), n_bytes);
}

void Value::Contain(const Value& item) {
  constexpr int64_t kEnough = int64_t{1} << 60;
  depth_ = std::max(depth_, item.depth_ + 1);
  weight_ = std::min(kEnough, weight_ + item.weight_ + static_cast<int64_t>(sizeof(Value)));
}

int64_t Value::size() const {
  if (AsString()) return weight_;
  if (auto* l = std::get_if<std::shared_ptr<const Held<List>>>(&v_)) return (*l)->bytes;
  if (auto* d = std::get_if<std::shared_ptr<const Held<Dict>>>(&v_)) return (*d)->bytes;
  return AsNamespace() ? DictBytes(*AsNamespace()) : 0;
}

Dict* Value::AsNamespace() const {
  auto* p = std::get_if<Namespace>(&v_);
  return p == nullptr ? nullptr : p->get();
}

const char* Value::TypeName() const {
  constexpr const char* kNames[] = {"an undefined value", "none",   "a boolean",    "an integer", "a float",
                                    "a string",           "a list", "a dictionary", "a namespace"};
  return kNames[v_.index()];
}

bool Value::Truth() const {
  double number;
  if (ToNumber(*this, &number)) return number != 0;
  if (auto* s = AsString()) return !s->empty();
  if (auto* l = AsList()) return !l->empty();
  if (auto* d = AsDict()) return !d->empty();
  return AsNamespace() != nullptr;
}

const Value* FindKey(const Dict& dict, std::string_view key) {
  for (const auto& [name, value] : dict) {
    if (name == key) return &value;
  }
  return nullptr;
}

bool ToNumber(const Value& v, double* out) {
  if (auto* b = v.AsBool()) return *out = *b ? 1 : 0, true;
  if (auto* i = v.AsInt()) return *out = static_cast<double>(*i), true;
  if (auto* f = v.AsFloat()) return *out = *f, true;
  return false;
}

bool Equal(const Value& a, const Value& b) {
  if (a.AsInt() && b.AsInt()) return *a.AsInt() == *b.AsInt();
  double x, y;
  if (ToNumber(a, &x) && ToNumber(b, &y)) return x == y;
  if (a.AsString() && b.AsString()) return *a.AsString() == *b.AsString();
  if (auto* l = a.AsList(), *m = b.AsList(); l && m)
    return std::equal(l->begin(), l->end(), m->begin(), m->end(), Equal);
  if (auto* d = a.AsDict(), *e = b.AsDict(); d && e) {
    return d->size() == e->size() && std::all_of(d->begin(), d->end(), [&](const auto& item) {
             const Value* other = FindKey(*e, item.first);
             return other != nullptr && Equal(item.second, *other);
           });
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined()) ||
         (a.AsNamespace() != nullptr && a.AsNamespace() == b.AsNamespace());
}

bool ToJson(const Value& v, size_t limit, std::string* out) {
  if (out->size() > limit) return false;
  if (auto* s = v.AsString()) {
    return AppendJsonString(*s, limit, out);
  } else if (auto* l = v.AsList()) {
    out->push_back('[');
    for (size_t i = 0; i < l->size(); ++i) {
      if (i > 0) *out += ", ";
      if (!ToJson((*l)[i], limit, out)) return false;
    }
    out->push_back(']');
  } else if (auto* d = v.AsDict()) {
    out->push_back('{');
    for (size_t i = 0; i < d->size(); ++i) {
      if (i > 0) *out += ", ";
      if (!AppendJsonString((*d)[i].first, limit, out)) return false;
      *out += ": ";
      if (!ToJson((*d)[i].second, limit, out)) return false;
    }
    out->push_back('}');
  } else if (v.is_undefined() || v.AsNamespace()) {
    return false;
  } else if (v.AsBool()) {
    *out += *v.AsBool() ? "true" : "false";
  } else {
    return v.is_none() ? (*out += "null", true) : ToText(v, out);
  }
  return true;
}

bool ToText(const Value& v, std::string* out) {
  if (auto* s = v.AsString()) return *out += *s, true;
  if (v.is_undefined()) return true;
  if (v.is_none()) return *out += "None", true;
  if (auto* b = v.AsBool()) return *out += *b ? "True" : "False", true;
  if (auto* i = v.AsInt()) return *out += fmt::format("{}", *i), true;
  if (auto* f = v.AsFloat()) return AppendFloat(*f, out);
  return false;
}

size_t CharacterBytes(std::string_view text) { return std::max<size_t>(ReadCodePoint(text).bytes, 1); }

int64_t CountCharacters(std::string_view text) {
  int64_t n = 0;
  for (; !text.empty(); ++n) text.remove_prefix(CharacterBytes(text));
  return n;
}

size_t FindText(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return found == nullptr ? std::string_view::npos
                          : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

}  // namespace pb::chat
