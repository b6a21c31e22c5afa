// Holds a value against a schema, keyword by keyword.
#include "receipt/schema.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/check.h"
#include "base/json_text.h"

namespace pb::receipt {
namespace {

using Json = nlohmann::json;

constexpr const char* kKeywords[] = {"type",      "properties", "required", "additionalProperties",
                                     "items",     "enum",       "const",    "pattern",
                                     "minimum",   "maximum",    "minItems", "maxItems",
                                     "minLength", "$ref",       "allOf",    "anyOf",
                                     "if",        "then"};
constexpr const char* kTold[] = {"$schema", "$id", "$defs", "title", "description", "$comment"};

bool HasType(const Json& value, std::string_view type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "number") return value.is_number();
  if (type == "integer") return value.is_number_integer();
  return false;
}

// A pattern of the one kind that schemas of ours have: a list of classes "[0-9a-f]{64}", characters and
// "?" groups would be a language of its own. "hex64": 64 digits of hexadecimal; "time": RFC 3339 in UTC.
bool IsHex(std::string_view text, size_t n) {
  return text.size() == n && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

bool IsTime(std::string_view text) {
  constexpr std::string_view kForm = "dddd-dd-ddTdd:dd:ddZ";
  return text.size() == kForm.size() &&
         std::equal(text.begin(), text.end(), kForm.begin(),
                    [](char c, char f) { return f == 'd' ? c >= '0' && c <= '9' : c == f; });
}

struct Pattern {
  std::string_view text;
  bool (*matches)(std::string_view);
};
constexpr Pattern kPatterns[] = {
    {"^[0-9a-f]{64}$", [](std::string_view t) { return IsHex(t, 64); }},
    {"^([0-9a-f]{64})?$", [](std::string_view t) { return t.empty() || IsHex(t, 64); }},
    {"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$", IsTime},
};

const Pattern* FindPattern(std::string_view text) {
  const auto* found = std::find_if(std::begin(kPatterns), std::end(kPatterns),
                                   [&](const Pattern& p) { return p.text == text; });
  return found == std::end(kPatterns) ? nullptr : found;
}

class Validator {
 public:
  Validator(const Json& root, size_t most) : root_(root), most_(most) {}

  void Check(const Json& schema, const Json& value, const std::string& at) {
    if (violations_.size() >= most_ || !unknown_.empty()) return;
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) Add(at, "is not allowed here");
      return;
    }
    for (const auto& [keyword, rule] : schema.items()) Apply(keyword, rule, schema, value, at);
  }

  std::vector<std::string> violations_;
  std::string unknown_;  // what of the schema is not understood

 private:
  void Add(const std::string& at, const std::string& what) {
    if (violations_.size() < most_) violations_.push_back((at.empty() ? "/" : at) + ": " + what);
  }

  bool Allows(const Json& schema, const Json& value) {
    Validator alone(root_, 1);
    alone.Check(schema, value, "");
    if (!alone.unknown_.empty()) unknown_ = alone.unknown_;
    return alone.violations_.empty();
  }

  void Apply(const std::string& keyword, const Json& rule, const Json& schema, const Json& value,
             const std::string& at) {
    if (std::find(std::begin(kTold), std::end(kTold), keyword) != std::end(kTold)) return;
    if (std::find(std::begin(kKeywords), std::end(kKeywords), keyword) == std::end(kKeywords)) {
      unknown_ = "the keyword " + keyword;
    } else if (keyword == "$ref") {
      Refer(rule.get<std::string>(), value, at);
    } else if (keyword == "allOf") {
      for (const Json& part : rule) Check(part, value, at);
    } else if (keyword == "anyOf") {
      if (std::none_of(rule.begin(), rule.end(), [&](const Json& part) { return Allows(part, value); }))
        Add(at, "is none of what may stand here");
    } else if (keyword == "if") {
      if (schema.contains("then") && Allows(rule, value)) Check(schema["then"], value, at);
    } else if (keyword == "enum" || keyword == "const" || keyword == "type") {
      OfValue(keyword, rule, value, at);
    } else if (value.is_object()) {
      OfObject(keyword, rule, schema, value, at);
    } else if (value.is_array()) {
      OfArray(keyword, rule, value, at);
    } else {
      OfScalar(keyword, rule, value, at);
    }
  }

  void Refer(const std::string& to, const Json& value, const std::string& at) {
    constexpr std::string_view kDefs = "#/$defs/";
    const std::string name = to.starts_with(kDefs) ? to.substr(kDefs.size()) : "";
    if (!root_.contains("$defs") || !root_["$defs"].contains(name))
      unknown_ = "the reference " + to;
    else
      Check(root_["$defs"][name], value, at);
  }

  void OfValue(const std::string& keyword, const Json& rule, const Json& value, const std::string& at) {
    if (keyword == "const" && value != rule) Add(at, fmt::format("is not {}", rule.dump()));
    if (keyword == "enum" && std::find(rule.begin(), rule.end(), value) == rule.end())
      Add(at, fmt::format("is none of {}", rule.dump()));
    if (keyword != "type") return;
    const bool fits = rule.is_array()
                          ? std::any_of(rule.begin(), rule.end(),
                                        [&](const Json& t) { return HasType(value, t.get<std::string>()); })
                          : HasType(value, rule.get<std::string>());
    if (!fits) Add(at, fmt::format("is of type {}, not {}", value.type_name(), rule.dump()));
  }

  void OfObject(const std::string& keyword, const Json& rule, const Json& schema, const Json& value,
                const std::string& at) {
    if (keyword == "required") {
      for (const Json& name : rule)
        if (!value.contains(name.get<std::string>())) Add(at, fmt::format("{} is missing", name.dump()));
    } else if (keyword == "properties") {
      for (const auto& [name, part] : rule.items())
        if (auto member = value.find(name); member != value.end()) Check(part, *member, at + "/" + name);
    } else if (keyword == "additionalProperties") {
      for (const auto& [name, member] : value.items()) {
        if (schema.contains("properties") && schema["properties"].contains(name)) continue;
        if (rule.is_boolean() && !rule.get<bool>())
          Add(at, fmt::format("\"{}\" is not known", name));
        else
          Check(rule, member, at + "/" + name);
      }
    }
  }

  void OfArray(const std::string& keyword, const Json& rule, const Json& value, const std::string& at) {
    if (keyword == "items") {
      for (size_t i = 0; i < value.size(); ++i) Check(rule, value[i], at + "/" + std::to_string(i));
    } else if (keyword == "minItems" && value.size() < rule.get<size_t>()) {
      Add(at, fmt::format("has {} entries, at least {} are expected", value.size(), rule.get<size_t>()));
    } else if (keyword == "maxItems" && value.size() > rule.get<size_t>()) {
      Add(at, fmt::format("has {} entries, at most {} are allowed", value.size(), rule.get<size_t>()));
    }
  }

  void OfScalar(const std::string& keyword, const Json& rule, const Json& value, const std::string& at) {
    if (keyword == "minimum" && value.is_number() && value.get<double>() < rule.get<double>())
      Add(at, fmt::format("is {}, below {}", value.dump(), rule.dump()));
    if (keyword == "maximum" && value.is_number() && value.get<double>() > rule.get<double>())
      Add(at, fmt::format("is {}, above {}", value.dump(), rule.dump()));
    if (!value.is_string()) return;
    const std::string& text = value.get_ref<const std::string&>();
    if (keyword == "minLength" && text.size() < rule.get<size_t>()) Add(at, "is empty");
    if (keyword != "pattern") return;
    const Pattern* pattern = FindPattern(rule.get<std::string>());
    if (!pattern)
      unknown_ = "the pattern " + rule.get<std::string>();
    else if (!pattern->matches(text))
      Add(at, fmt::format("\"{:.80}\" is not of the form {}", text, rule.get<std::string>()));
  }

  const Json& root_;
  const size_t most_;
};

}  // namespace

Result<std::vector<std::string>> Violations(const Json& schema, const Json& value, size_t most) {
  Validator validator(schema, most);
  validator.Check(schema, value, "");
  if (!validator.unknown_.empty())
    return MakeError(Code::kUnsupported, "the schema has {}, which is not understood", validator.unknown_);
  return std::move(validator.violations_);
}

std::vector<std::string> ReceiptViolations(const Json& receipt) {
  static const Json schema = ParseJson(SchemaText()).value();
  auto violations = Violations(schema, receipt);
  PB_CHECK(violations.ok());
  return std::move(violations).value();
}

}  // namespace pb::receipt
