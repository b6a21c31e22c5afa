// The values of a chat template: Python's, as far as templates see them.
#ifndef PARITYBIT_CHAT_VALUE_H_
#define PARITYBIT_CHAT_VALUE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace pb::chat {

class Value;
struct Undefined {};
struct None {};
using List = std::vector<Value>;
// In order of insertion; the dictionaries of templates have a handful of keys.
using Dict = std::vector<std::pair<std::string, Value>>;

// Bytes of strings, lists and dictionaries made on this thread: those that live, and all that ever
// were. A template's memory and, with its steps, its time are bounded by what they grow by.
struct Meter {
  int64_t live = 0, made = 0;
};
Meter& ValueMeter();

// What a value shares, counted by the meter while it lives.
template <typename T>
class Held {
 public:
  Held(T v, int64_t n_bytes) : value(std::move(v)), bytes(n_bytes) {
    ValueMeter().live += bytes;
    ValueMeter().made += bytes;
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  ~Held() { ValueMeter().live -= bytes; }

  const T value;
  const int64_t bytes;
};

// Cheap to copy: strings, lists and dictionaries are shared and never change. A namespace is the
// one value that does.
class Value {
 public:
  using Namespace = std::shared_ptr<Dict>;

  Value() = default;  // undefined
  Value(None) : v_(None()) {}
  Value(bool v) : v_(v) {}
  Value(int64_t v) : v_(v) {}
  Value(double v) : v_(v) {}
  Value(std::string v);
  Value(std::string_view v) : Value(std::string(v)) {}
  Value(const char* v) : Value(std::string(v)) {}
  Value(List v);
  Value(Dict v);
  Value(Namespace v) : v_(std::move(v)) {}

  bool is_undefined() const { return std::holds_alternative<Undefined>(v_); }
  bool is_none() const { return std::holds_alternative<None>(v_); }
  // nullptr when of another type.
  const bool* AsBool() const { return std::get_if<bool>(&v_); }
  const int64_t* AsInt() const { return std::get_if<int64_t>(&v_); }
  const double* AsFloat() const { return std::get_if<double>(&v_); }
  const std::string* AsString() const { return Shared<std::string>(); }
  const List* AsList() const { return Shared<List>(); }
  const Dict* AsDict() const { return Shared<Dict>(); }
  Dict* AsNamespace() const;

  // "a string", "an undefined value", ... for messages.
  const char* TypeName() const;
  bool Truth() const;
  // 0, or for lists and dictionaries one more than the deepest value inside. What makes values
  // bounds it, so recursion over them (their destruction too) is bounded.
  int depth() const { return depth_; }
  // The bytes that a walk over everything inside reads, or a comparison with another: shared values
  // as often as they occur, and dictionaries, whose keys are looked up one by one, as often as they
  // have keys.
  int64_t weight() const { return weight_; }
  // The bytes of the value itself, without what the items of a list or dictionary hold.
  int64_t size() const;

 private:
  template <typename T>
  const T* Shared() const {
    auto* p = std::get_if<std::shared_ptr<const Held<T>>>(&v_);
    return p == nullptr ? nullptr : &(*p)->value;
  }
  template <typename T>
  void Hold(T v, int64_t n_bytes) {
    v_ = std::make_shared<const Held<T>>(std::move(v), n_bytes);
  }

  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Held<std::string>>,
               std::shared_ptr<const Held<List>>, std::shared_ptr<const Held<Dict>>, Namespace>
      v_;
  void Contain(const Value& item);

  int depth_ = 0;
  int64_t weight_ = 0;
};

const Value* FindKey(const Dict& dict, std::string_view key);
// Python's ==; numbers of different types by value, true is 1.
bool Equal(const Value& a, const Value& b);
// An integer or a float (a boolean counts as 0 or 1); false when it is none.
bool ToNumber(const Value& v, double* out);
// As json.dumps(ensure_ascii=False) writes it; false for what it cannot write, or when `out` grows
// past `limit`.
bool ToJson(const Value& v, size_t limit, std::string* out);
// As str() writes it; false for lists and dictionaries, whose Python form is not offered.
bool ToText(const Value& v, std::string* out);
// The bytes of the first character of a text that is not empty; bytes that are not UTF-8 count one
// by one.
size_t CharacterBytes(std::string_view text);
int64_t CountCharacters(std::string_view text);
// Where `needle` first stands at or after `from`, or npos: in linear time, which std::string::find
// does not promise.
size_t FindText(std::string_view text, std::string_view needle, size_t from = 0);

}  // namespace pb::chat

#endif  // PARITYBIT_CHAT_VALUE_H_
