// Compiles regular expressions to instructions and runs them by backtracking. A loop over a set
// keeps one frame for all its lengths, so long runs cost no memory.
#include "tokenizer/pattern.h"

#include <utf8proc.h>

#include <algorithm>
#include <memory>

#include "tokenizer/pattern_tree.h"

namespace pb {
namespace {

using Node = PatternNode;
using NodePtr = std::unique_ptr<PatternNode>;

constexpr uint32_t kNoLimit = UINT32_MAX;
constexpr size_t kMaxOps = 8192;

bool MayBeEmpty(const Node& node) {
  auto child = [](const NodePtr& c) { return MayBeEmpty(*c); };
  switch (node.kind) {
    case Node::kSet:
      return false;
    case Node::kSequence:
      return std::all_of(node.children.begin(), node.children.end(), child);
    case Node::kEither:
      return std::any_of(node.children.begin(), node.children.end(), child);
    case Node::kRepeat:
      return node.min == 0 || child(node.children[0]);
    case Node::kAtomic:
      return child(node.children[0]);
    default:
      return true;
  }
}

// How many code points it matches; -1: not always as many.
int64_t WidthOf(const Node& node) {
  switch (node.kind) {
    case Node::kSet:
      return 1;
    case Node::kSequence: {
      int64_t sum = 0;
      for (const NodePtr& child : node.children) {
        const int64_t width = WidthOf(*child);
        if (width < 0) return -1;
        sum += width;
      }
      return sum;
    }
    case Node::kEither: {
      const int64_t width = WidthOf(*node.children[0]);
      for (const NodePtr& child : node.children)
        if (WidthOf(*child) != width) return -1;
      return width;
    }
    case Node::kRepeat: {
      const int64_t width = WidthOf(*node.children[0]);
      return width < 0 || node.min != node.max ? -1 : width * node.min;
    }
    case Node::kAtomic:
      return WidthOf(*node.children[0]);
    default:
      return 0;
  }
}

}  // namespace

bool CharSet::Listed(uint32_t c, const uint8_t* category_of) const {
  if (c < kCodePointLimit && (categories >> category_of[c] & 1)) return true;
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), c,
                                      [](uint32_t value, const Range& range) { return value < range.first; });
  if (after != ranges.begin() && c <= (after - 1)->last) return true;
  for (const CharSet& set : any_of)
    if (set.Has(c, category_of)) return true;
  return false;
}

bool CharSet::Slow(uint32_t c, const uint8_t* category_of) const {
  bool has = Listed(c, category_of);
  if (!has && folded && c < kCodePointLimit) {
    const auto point = static_cast<utf8proc_int32_t>(c);
    const auto lower = static_cast<uint32_t>(utf8proc_tolower(point));
    has = Listed(lower, category_of) || Listed(static_cast<uint32_t>(utf8proc_toupper(point)), category_of);
    // The long s and the Kelvin sign, whose upper and lower case are ASCII.
    if (lower == 's') has = has || Listed(0x17F, category_of);
    if (lower == 'k') has = has || Listed(0x212A, category_of);
  }
  for (const CharSet& set : all_of) has = has && set.Has(c, category_of);
  return has != negated;
}

void CharSet::Finish(const uint8_t* category_of) {
  for (CharSet& set : any_of) set.Finish(category_of);
  for (CharSet& set : all_of) set.Finish(category_of);
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.first < b.first; });
  std::vector<Range> merged;
  for (const Range& range : ranges) {
    if (!merged.empty() && range.first <= merged.back().last)
      merged.back().last = std::max(merged.back().last, range.last);
    else
      merged.push_back(range);
  }
  ranges = std::move(merged);
  for (uint32_t c = 0; c < 128; ++c)
    if (Slow(c, category_of)) ascii[c >> 6] |= uint64_t{1} << (c & 63);
}

class PatternCompiler {
 public:
  explicit PatternCompiler(Pattern* pattern) : pattern_(*pattern) {}

  Status Add(Node& node);
  int32_t Here() const { return static_cast<int32_t>(pattern_.ops_.size()); }
  int32_t Put(Pattern::Op op) {
    pattern_.ops_.push_back(op);
    return Here() - 1;
  }

 private:
  using Op = Pattern::Op;

  int32_t Set(const CharSet& set) {
    pattern_.sets_.push_back(set);
    pattern_.sets_.back().Finish(pattern_.category_of_);
    return static_cast<int32_t>(pattern_.sets_.size()) - 1;
  }
  Status Either(Node& node);
  Status Repeat(Node& node);
  Status Inside(Node& node, Op op);
  Op& at(int32_t i) { return pattern_.ops_[static_cast<size_t>(i)]; }

  Pattern& pattern_;
};

Status PatternCompiler::Add(Node& node) {
  if (pattern_.ops_.size() > kMaxOps)
    return MakeError(Code::kUnsupported, "the expression is larger than is supported ({} instructions)",
                     kMaxOps);
  switch (node.kind) {
    case Node::kEmpty:
      return {};
    case Node::kSet:
      Put({.kind = Op::kSet, .a = Set(node.set)});
      return {};
    case Node::kSequence:
      for (NodePtr& child : node.children) PB_TRY(Add(*child));
      return {};
    case Node::kEither:
      return Either(node);
    case Node::kRepeat:
      return Repeat(node);
    case Node::kAtomic:
      return Inside(*node.children[0], {.kind = Op::kAtomic});
    case Node::kLook: {
      Op op{.kind = Op::kLook, .negated = node.negated};
      if (node.behind) {
        const int64_t width = WidthOf(*node.children[0]);
        if (width < 0 || width > 1000)
          return MakeError(Code::kUnsupported, "what a look behind matches has no fixed width");
        op.behind = static_cast<int32_t>(width);
      }
      return Inside(*node.children[0], op);
    }
    case Node::kAssert:
      if (node.assertion == Op::kWord && pattern_.word_set_ < 0) pattern_.word_set_ = Set(WordSet());
      Put({.kind = node.assertion, .negated = node.negated});
      return {};
  }
  return {};
}

// `op`, what it holds, kAccept; and where to go on.
Status PatternCompiler::Inside(Node& node, Op op) {
  const int32_t start = Put(op);
  at(start).a = Here();
  PB_TRY(Add(node));
  Put({.kind = Op::kAccept});
  at(start).b = Here();
  return {};
}

Status PatternCompiler::Either(Node& node) {
  std::vector<int32_t> ends;
  for (size_t i = 0; i < node.children.size(); ++i) {
    const bool last = i + 1 == node.children.size();
    const int32_t split = last ? -1 : Put({.kind = Op::kSplit});
    if (!last) at(split).a = Here();
    PB_TRY(Add(*node.children[i]));
    if (last) break;
    ends.push_back(Put({.kind = Op::kJump}));
    at(split).b = Here();
  }
  for (int32_t end : ends) at(end).a = Here();
  return {};
}

Status PatternCompiler::Repeat(Node& node) {
  Node& body = *node.children[0];
  if (body.kind == Node::kSet) {
    Put({.kind = Op::kLoop, .greed = node.greed, .a = Set(body.set), .min = node.min, .max = node.max});
    return {};
  }
  if (node.max == kNoLimit && MayBeEmpty(body))
    return MakeError(Code::kUnsupported, "an endless repetition of what may be empty is not supported");
  if (node.greed == Op::kPossessive) {
    node.greed = Op::kGreedy;
    return Inside(node, {.kind = Op::kAtomic});
  }
  for (uint32_t i = 0; i < node.min; ++i) PB_TRY(Add(body));
  const bool endless = node.max == kNoLimit;
  const bool lazy = node.greed == Op::kLazy;
  std::vector<int32_t> splits;
  for (uint32_t i = node.min; endless ? i == node.min : i < node.max; ++i) {
    const int32_t split = Put({.kind = Op::kSplit});
    splits.push_back(split);
    (lazy ? at(split).b : at(split).a) = Here();
    PB_TRY(Add(body));
    if (endless) Put({.kind = Op::kJump, .a = split});
  }
  for (int32_t split : splits) (lazy ? at(split).a : at(split).b) = Here();
  return {};
}

// One attempt after another in one text.
class PatternMatcher {
 public:
  PatternMatcher(const Pattern& pattern, std::span<const uint32_t> text, PatternBudget* budget)
      : p_(pattern), text_(text), budget_(*budget) {}

  // Where the match ends that begins at `pos`.
  bool Run(int32_t op, size_t pos, size_t* end);
  bool Spent() const { return budget_.left < 0; }
  bool Has(int32_t set, size_t pos) const {
    return p_.sets_[static_cast<size_t>(set)].Has(text_[pos], p_.category_of_);
  }

 private:
  using Op = Pattern::Op;
  struct Frame {
    int32_t op;  // to go on at
    enum Kind : uint8_t { kOther, kShorter, kLonger } kind;
    size_t pos;
    size_t bound;  // kShorter: the least end; kLonger: the greatest
  };

  bool Holds(const Op& op, size_t pos) const;
  bool Loop(int32_t at, size_t* pos);
  bool Back(size_t base, int32_t* at, size_t* pos);

  const Pattern& p_;
  std::span<const uint32_t> text_;
  PatternBudget& budget_;
  std::vector<Frame> stack_;
};

bool PatternMatcher::Holds(const Op& op, size_t pos) const {
  const size_t n = text_.size();
  switch (op.kind) {
    case Op::kBegin:
      return pos == 0;
    case Op::kEnd:
      return pos == n;
    case Op::kLineBegin:
      return pos == 0 || (text_[pos - 1] == '\n' && pos < n);
    case Op::kLineEnd:
      return pos == n || text_[pos] == '\n';
    case Op::kLastLine:
      return pos == n || (pos + 1 == n && text_[pos] == '\n');
    default: {
      const bool before = pos > 0 && Has(p_.word_set_, pos - 1), after = pos < n && Has(p_.word_set_, pos);
      return (before != after) != op.negated;
    }
  }
}

bool PatternMatcher::Loop(int32_t at, size_t* pos) {
  const Op& op = p_.ops_[static_cast<size_t>(at)];
  const size_t room = text_.size() - *pos;
  if (room < op.min) return false;
  const size_t most = *pos + std::min<size_t>(op.max, room), least = *pos + op.min;
  const CharSet& set = p_.sets_[static_cast<size_t>(op.a)];
  size_t end = *pos;
  const size_t wanted = op.greed == Op::kLazy ? least : most;
  while (end < wanted && set.Has(text_[end], p_.category_of_)) ++end;
  budget_.left -= static_cast<int64_t>(end - *pos);
  if (end < least) return false;
  if (op.greed == Op::kLazy && end < most) stack_.push_back({at, Frame::kLonger, end, most});
  const bool accepts = p_.ops_[static_cast<size_t>(at) + 1].kind == Op::kAccept;
  if (op.greed == Op::kGreedy && end > least && !accepts)
    stack_.push_back({at + 1, Frame::kShorter, end, least});
  *pos = end;
  return true;
}

// Takes the last other way; false: there is none.
bool PatternMatcher::Back(size_t base, int32_t* at, size_t* pos) {
  while (stack_.size() > base) {
    Frame& frame = stack_.back();
    *at = frame.op, *pos = frame.pos;
    if (frame.kind == Frame::kOther) {
      stack_.pop_back();
      return true;
    }
    if (frame.kind == Frame::kShorter) {
      *pos = --frame.pos;
      if (frame.pos == frame.bound) stack_.pop_back();
      return true;
    }
    const Op& loop = p_.ops_[static_cast<size_t>(frame.op)];
    if (frame.pos < frame.bound && Has(loop.a, frame.pos)) {
      *pos = ++frame.pos, ++*at;
      return true;
    }
    stack_.pop_back();
  }
  return false;
}

bool PatternMatcher::Run(int32_t at, size_t pos, size_t* end) {
  const size_t base = stack_.size();
  for (bool ahead = true;;) {
    if (!ahead && !Back(base, &at, &pos)) return false;
    if (--budget_.left < 0) {
      stack_.resize(base);
      return false;
    }
    const Op& op = p_.ops_[static_cast<size_t>(at)];
    ahead = true;
    switch (op.kind) {
      case Op::kSet:
        ahead = pos < text_.size() && Has(op.a, pos);
        ++pos, ++at;
        break;
      case Op::kLoop:
        ahead = Loop(at, &pos);
        ++at;
        break;
      case Op::kSplit:
        stack_.push_back({op.b, Frame::kOther, pos, 0});
        at = op.a;
        break;
      case Op::kJump:
        at = op.a;
        break;
      case Op::kLook: {
        const auto back = static_cast<size_t>(std::max(op.behind, 0));
        size_t unused;
        ahead = (pos >= back && Run(op.a, pos - back, &unused)) != op.negated;
        at = op.b;
        break;
      }
      case Op::kAtomic:
        ahead = Run(op.a, pos, &pos);
        at = op.b;
        break;
      case Op::kAccept:
        *end = pos;
        stack_.resize(base);
        return true;
      default:
        ahead = Holds(op, pos);
        ++at;
    }
  }
}

Result<Pattern> Pattern::Compile(std::string_view expression, UnicodeVersion version) {
  Pattern pattern;
  pattern.category_of_ = Categories(version);
  PB_ASSIGN(NodePtr root, ParsePattern(expression));
  PatternCompiler compiler(&pattern);
  PB_TRY(compiler.Add(*root));
  compiler.Put({.kind = Op::kAccept});
  return pattern;
}

Result<std::optional<Pattern::Match>> Pattern::Find(std::span<const uint32_t> text, size_t from,
                                                    PatternBudget* budget) const {
  PatternMatcher matcher(*this, text, budget);
  // A run that a loop at the head begins with: what fails at its first code point fails at the others,
  // from which the loop reaches no other ends.
  const bool runs = ops_[0].kind == Op::kLoop && ops_[0].min > 0 && ops_[0].max == kNoLimit;
  for (size_t begin = from; begin <= text.size(); ++begin) {
    Match match{begin, begin};
    if (matcher.Run(0, begin, &match.end)) return std::optional(match);
    if (matcher.Spent())
      return MakeError(Code::kUnsupported, "the expression takes too many steps on this text");
    while (runs && begin + 1 < text.size() && matcher.Has(ops_[0].a, begin) &&
           matcher.Has(ops_[0].a, begin + 1))
      ++begin;
  }
  return std::optional<Match>();
}

}  // namespace pb
