// Reads regular expressions in the syntax of Oniguruma (Ruby's), as far as tokenisers use it.
#include <algorithm>
#include <cctype>
#include <iterator>
#include <memory>
#include <optional>
#include <string>

#include "tokenizer/pattern_tree.h"
#include "tokenizer/utf8.h"

namespace pb {

// Oniguruma's \w beside L, M, Nd, Nl and Pc: numbers of Latin-1, and Other_Alphabetic symbols.
constexpr CharSet::Range kWordBesides[] = {{0xB2, 0xB3},      {0xB9, 0xB9},       {0xBC, 0xBE},
                                           {0x24B6, 0x24E9},  {0x1F130, 0x1F149}, {0x1F150, 0x1F169},
                                           {0x1F170, 0x1F189}};

CharSet WordSet() {
  CharSet set;
  for (const char* name : {"L", "M", "Nd", "Nl", "Pc"}) set.categories |= CategoryMask(name);
  set.ranges.assign(std::begin(kWordBesides), std::end(kWordBesides));
  return set;
}

namespace {

using Node = PatternNode;
using NodePtr = std::unique_ptr<PatternNode>;

constexpr uint32_t kNoLimit = UINT32_MAX;
constexpr size_t kMaxDepth = 100, kMaxExpression = 1 << 16;
constexpr uint32_t kMaxCopies = 1000;

// Script=Han of Scripts.txt, Unicode 16.0.
constexpr CharSet::Range kHan[] = {
    {0x2E80, 0x2E99},   {0x2E9B, 0x2EF3},   {0x2F00, 0x2FD5},   {0x3005, 0x3005},   {0x3007, 0x3007},
    {0x3021, 0x3029},   {0x3038, 0x303B},   {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFA6D},
    {0xFA70, 0xFAD9},   {0x16FE2, 0x16FE3}, {0x16FF0, 0x16FF1}, {0x20000, 0x2A6DF}, {0x2A700, 0x2B739},
    {0x2B740, 0x2B81D}, {0x2B820, 0x2CEA1}, {0x2CEB0, 0x2EBE0}, {0x2EBF0, 0x2EE5D}, {0x2F800, 0x2FA1D},
    {0x30000, 0x3134A}, {0x31350, 0x323AF}};
CharSet SpaceSet() {
  CharSet set;
  for (uint32_t c = 0; c <= 0x3000; ++c)
    if (IsWhiteSpace(c)) set.ranges.push_back({c, c});
  return set;
}

CharSet Single(uint32_t c) {
  CharSet set;
  set.ranges.push_back({c, c});
  return set;
}

NodePtr Make(Node::Kind kind) {
  auto node = std::make_unique<Node>();
  node->kind = kind;
  return node;
}

NodePtr MakeAssert(Pattern::Op::Kind kind, bool negated = false) {
  NodePtr node = Make(Node::kAssert);
  node->assertion = kind, node->negated = negated;
  return node;
}

NodePtr MakeSet(CharSet set) {
  NodePtr node = Make(Node::kSet);
  node->set = std::move(set);
  return node;
}

struct Options {
  bool fold = false, dot_all = false, extended = false;
};

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<NodePtr> Parse() {
    if (text_.size() > kMaxExpression) return Wrong(0, "an expression of more than 65536 bytes");
    PB_ASSIGN(NodePtr node, Either({}));
    if (at_ < text_.size()) return Wrong(at_, "a closing parenthesis without its opening one");
    return node;
  }

 private:
  static Error Refuse(size_t at, std::string_view what) {
    return MakeError(Code::kUnsupported, "byte {} of the expression: {} is not supported", at, what);
  }
  static Error Wrong(size_t at, std::string_view what) {
    return MakeError(Code::kMalformed, "byte {} of the expression: {}", at, what);
  }
  bool More() const { return at_ < text_.size(); }
  bool Take(std::string_view what) {
    if (!text_.substr(at_).starts_with(what)) return false;
    at_ += what.size();
    return true;
  }
  Result<uint32_t> Next() {
    if (!More()) return Wrong(at_, "it ends too early");
    const CodePoint c = ReadCodePoint(text_.substr(at_));
    if (c.bytes == 0) return Wrong(at_, "no UTF-8");
    at_ += c.bytes;
    return c.value;
  }

  Result<NodePtr> Either(Options options);
  Result<NodePtr> Sequence(Options* options);
  Result<NodePtr> Item(Options* options);
  Result<NodePtr> Group(Options* options);
  Result<NodePtr> Escape(const Options& options);
  Status Repeat(NodePtr* node);
  bool Interval(uint32_t* min, uint32_t* max);
  Result<CharSet> Class(const Options& options);
  Result<std::optional<CharSet>> Shorthand();
  Result<CharSet> Property(bool negated);
  Result<uint32_t> Literal();

  std::string_view text_;
  size_t at_ = 0, depth_ = 0;
};

Result<NodePtr> Parser::Either(Options options) {
  if (++depth_ > kMaxDepth) return Wrong(at_, "more than 100 nested groups");
  NodePtr either = Make(Node::kEither);
  do {
    PB_ASSIGN(NodePtr sequence, Sequence(&options));
    either->children.push_back(std::move(sequence));
  } while (Take("|"));
  --depth_;
  if (either->children.size() == 1) return std::move(either->children[0]);
  return either;
}

Result<NodePtr> Parser::Sequence(Options* options) {
  NodePtr sequence = Make(Node::kSequence);
  while (More() && text_[at_] != '|' && text_[at_] != ')') {
    PB_ASSIGN(NodePtr item, Item(options));
    if (!item) continue;
    PB_TRY(Repeat(&item));
    sequence->children.push_back(std::move(item));
  }
  return sequence;
}

// Null: something that matches nothing of the text, as a comment.
Result<NodePtr> Parser::Item(Options* options) {
  const size_t begin = at_;
  if (Take("(")) return Group(options);
  if (Take("\\")) return Escape(*options);
  if (Take("^")) return MakeAssert(Pattern::Op::kLineBegin);
  if (Take("$")) return MakeAssert(Pattern::Op::kLineEnd);
  if (Take("[")) {
    PB_ASSIGN(CharSet set, Class(*options));
    return MakeSet(std::move(set));
  }
  if (Take(".")) {
    CharSet set;
    if (!options->dot_all) set = Single('\n');
    set.negated = true;
    return MakeSet(std::move(set));
  }
  if (text_[at_] == '*' || text_[at_] == '+' || text_[at_] == '?')
    return Wrong(begin, "a repetition of nothing");
  PB_ASSIGN(const uint32_t c, Next());
  if (options->extended && (IsWhiteSpace(c) || c == '#')) {
    while (c == '#' && More() && text_[at_] != '\n') ++at_;
    return NodePtr();
  }
  CharSet set = Single(c);
  set.folded = options->fold;
  return MakeSet(std::move(set));
}

Result<NodePtr> Parser::Group(Options* options) {
  const size_t begin = at_ - 1;
  Node::Kind kind = Node::kSequence;
  bool negated = false, behind = false;
  Options inner = *options;
  if (Take("?")) {
    if (Take("#")) {
      while (More() && text_[at_] != ')') ++at_;
      if (!Take(")")) return Wrong(begin, "a comment without its end");
      return NodePtr();
    }
    if (Take(":")) {
    } else if (Take(">")) {
      kind = Node::kAtomic;
    } else if (Take("=") || Take("!")) {
      kind = Node::kLook, negated = text_[at_ - 1] == '!';
    } else if (Take("<=") || Take("<!")) {
      kind = Node::kLook, behind = true, negated = text_[at_ - 1] == '!';
    } else {
      bool on = true;
      for (; More() && text_[at_] != ':' && text_[at_] != ')'; ++at_) {
        const char c = text_[at_];
        if (c == '-')
          on = false;
        else if (c == 'i')
          inner.fold = on;
        else if (c == 'm')
          inner.dot_all = on;
        else if (c == 'x')
          inner.extended = on;
        else
          return Refuse(begin, "this kind of group");
      }
      if (Take(")")) {  // for the rest of the group around it
        *options = inner;
        return NodePtr();
      }
      if (!Take(":")) return Wrong(begin, "a group without its end");
    }
  }
  PB_ASSIGN(NodePtr body, Either(inner));
  if (!Take(")")) return Wrong(begin, "a group without its end");
  if (kind == Node::kSequence) return body;
  NodePtr node = Make(kind);
  node->negated = negated, node->behind = behind;
  node->children.push_back(std::move(body));
  return node;
}

Result<NodePtr> Parser::Escape(const Options& options) {
  using Op = Pattern::Op;
  if (Take("A")) return MakeAssert(Op::kBegin);
  if (Take("z")) return MakeAssert(Op::kEnd);
  if (Take("Z")) return MakeAssert(Op::kLastLine);
  if (Take("b")) return MakeAssert(Op::kWord);
  if (Take("B")) return MakeAssert(Op::kWord, true);
  PB_ASSIGN(std::optional<CharSet> set, Shorthand());
  if (set) return MakeSet(std::move(*set));
  PB_ASSIGN(const uint32_t c, Literal());
  CharSet one = Single(c);
  one.folded = options.fold;
  return MakeSet(std::move(one));
}

// \s \d \w \h \p{...} and their opposites, behind the backslash.
Result<std::optional<CharSet>> Parser::Shorthand() {
  if (!More()) return Wrong(at_, "it ends with a backslash");
  CharSet set;
  const char c = text_[at_];
  switch (c | 0x20) {
    case 's':
      set = SpaceSet();
      break;
    case 'd':
      set.categories = CategoryMask("Nd");
      break;
    case 'w':
      set = WordSet();
      break;
    case 'h':
      set.ranges = {{'0', '9'}, {'a', 'f'}, {'A', 'F'}};
      break;
    case 'p': {
      ++at_;
      PB_ASSIGN(set, Property(c == 'P'));
      return std::optional(std::move(set));
    }
    default:
      return std::optional<CharSet>();
  }
  ++at_;
  set.negated = c < 'a';
  return std::optional(std::move(set));
}

Result<CharSet> Parser::Property(bool negated) {
  const size_t begin = at_;
  if (!Take("{")) return Refuse(begin, "\\p without braces");
  if (Take("^")) negated = !negated;
  const size_t end = text_.find('}', at_);
  if (end == text_.npos) return Wrong(begin, "\\p{ without its end");
  std::string name(text_.substr(at_, end - at_));
  at_ = end + 1;
  if (name.starts_with("Script=")) name.erase(0, 7);
  CharSet set;
  if (name == "Han") {
    set.ranges.assign(std::begin(kHan), std::end(kHan));
  } else if (name == "Any") {
    set.ranges = {{0, kCodePointLimit - 1}};
  } else if (name == "White_Space" || name == "Space") {
    set = SpaceSet();
  } else {
    static constexpr std::pair<std::string_view, std::string_view> kLong[] = {{"Letter", "L"},
                                                                              {"Number", "N"},
                                                                              {"Punctuation", "P"},
                                                                              {"Mark", "M"},
                                                                              {"Symbol", "S"},
                                                                              {"Separator", "Z"},
                                                                              {"Other", "C"},
                                                                              {"Uppercase_Letter", "Lu"},
                                                                              {"Digit", "Nd"},
                                                                              {"Decimal_Number", "Nd"},
                                                                              {"Lowercase_Letter", "Ll"},
                                                                              {"Punct", "P"}};
    for (const auto& [word, letters] : kLong)
      if (name == word) name = letters;
    set.categories = name.size() <= 2 ? CategoryMask(name) : 0;
    if (set.categories == 0) return Refuse(begin - 2, fmt::format("the property \\p{{{:.40}}}", name));
  }
  set.negated = negated;
  return set;
}

// A character that is written behind a backslash.
Result<uint32_t> Parser::Literal() {
  const size_t begin = at_ - 1;
  PB_ASSIGN(const uint32_t c, Next());
  auto hex = [&](size_t least, size_t most) -> Result<uint32_t> {
    const bool braces = most == 4 ? false : Take("{");
    size_t n = 0;
    const size_t limit = braces ? 8 : most;
    while (n < limit && at_ + n < text_.size() && std::isxdigit(static_cast<unsigned char>(text_[at_ + n])))
      ++n;
    uint32_t value = 0;
    const bool read = n >= least && ParseHex(text_.substr(at_, n), &value) && value < kCodePointLimit;
    at_ += n;
    if (!read || (braces && !Take("}"))) return Wrong(begin, "no code point in hexadecimal digits");
    return value;
  };
  switch (c) {
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    case 'a':
      return '\a';
    case 'e':
      return 0x1Bu;
    case 'x':
      return hex(1, 2);
    case 'u':
      return hex(4, 4);
    default:
      if (c < 128 && std::isalnum(static_cast<int>(c)))
        return Refuse(begin, fmt::format("\\{}", static_cast<char>(c)));
      return c;
  }
}

// Behind the opening bracket.
Result<CharSet> Parser::Class(const Options& options) {
  const size_t begin = at_ - 1;
  if (++depth_ > kMaxDepth) return Wrong(begin, "more than 100 nested classes");
  CharSet set;
  std::vector<CharSet> met;  // what stood before each &&
  const bool negated = Take("^");
  bool single = false;  // the last of the ranges is a character that may begin one
  for (bool first = true;; first = false) {
    if (!More()) return Wrong(begin, "a class without its end");
    if (Take("]")) {
      if (first) return Refuse(begin, "an empty class");
      break;
    }
    if (Take("&&")) {
      met.push_back(std::move(set));
      set = {}, single = false;
      continue;
    }
    if (text_.substr(at_).starts_with("[:")) return Refuse(at_, "a POSIX class");
    if (Take("[")) {
      PB_ASSIGN(CharSet inner, Class(options));
      set.any_of.push_back(std::move(inner)), single = false;
      continue;
    }
    if (single && text_[at_] == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
      const size_t dash = at_++;
      if (Take("\\")) {
        PB_ASSIGN(std::optional<CharSet> shorthand, Shorthand());
        if (shorthand) return Refuse(dash, "a range that ends in a class");
        PB_ASSIGN(set.ranges.back().last, Literal());
      } else if (text_[at_] == '[') {
        return Refuse(dash, "a range that ends in a class");
      } else {
        PB_ASSIGN(set.ranges.back().last, Next());
      }
      if (set.ranges.back().last < set.ranges.back().first)
        return Wrong(dash, "a range that ends before it begins");
      single = false;
      continue;
    }
    uint32_t c;
    if (Take("\\")) {
      PB_ASSIGN(std::optional<CharSet> shorthand, Shorthand());
      if (shorthand) {
        set.any_of.push_back(std::move(*shorthand)), single = false;
        continue;
      }
      if (Take("b")) {
        c = '\b';
      } else {
        PB_ASSIGN(c, Literal());
      }
    } else {
      PB_ASSIGN(c, Next());
    }
    set.ranges.push_back({c, c}), single = true;
  }
  --depth_;
  set.folded = options.fold;
  for (CharSet& other : met) other.folded = options.fold;
  if (!met.empty()) {
    CharSet all;
    all.ranges = {{0, UINT32_MAX}};
    all.all_of = std::move(met);
    all.all_of.push_back(std::move(set));
    set = std::move(all);
  }
  set.negated = negated;
  return set;
}

bool Parser::Interval(uint32_t* min, uint32_t* max) {
  const size_t begin = at_;
  auto number = [&](uint32_t* value) {
    size_t n = 0;
    for (*value = 0; More() && text_[at_] >= '0' && text_[at_] <= '9' && n < 6; ++n)
      *value = *value * 10 + static_cast<uint32_t>(text_[at_++] - '0');
    return n > 0;
  };
  if (Take("{")) {
    const bool least = number(min);
    if (!least) *min = 0;
    if (least && Take("}")) {
      *max = *min;
      return true;
    }
    if (Take(",")) {
      const bool most = number(max);
      if (!most) *max = kNoLimit;
      if ((least || most) && Take("}")) return true;
    }
  }
  at_ = begin;
  return false;
}

// As Ruby's syntax has it: only * + ? have lazy and possessive forms.
Status Parser::Repeat(NodePtr* node) {
  for (size_t n = 0; More(); ++n) {
    const size_t begin = at_;
    uint32_t min = 0, max = kNoLimit;
    Pattern::Op::Greed greed = Pattern::Op::kGreedy;
    bool interval = false;
    if (Take("*")) {
    } else if (Take("+")) {
      min = 1;
    } else if (Take("?")) {
      max = 1;
    } else if (text_[at_] == '{' && Interval(&min, &max)) {
      interval = true;
    } else {
      return {};
    }
    if (n >= kMaxDepth) return Wrong(begin, "more than 100 repetitions of one item");
    if (min > max) return Wrong(begin, "a repetition whose least is more than its most");
    if ((min > kMaxCopies || (max != kNoLimit && max > kMaxCopies)))
      return Refuse(begin, "a repetition of more than 1000 times");
    if (!interval && Take("?"))
      greed = Pattern::Op::kLazy;
    else if (interval && min != max && Take("?"))
      greed = Pattern::Op::kLazy;
    else if (!interval && Take("+"))
      greed = Pattern::Op::kPossessive;
    NodePtr repeat = Make(Node::kRepeat);
    repeat->min = min, repeat->max = max, repeat->greed = greed;
    repeat->children.push_back(std::move(*node));
    *node = std::move(repeat);
  }
  return {};
}

}  // namespace

Result<NodePtr> ParsePattern(std::string_view expression) { return Parser(expression).Parse(); }

}  // namespace pb
