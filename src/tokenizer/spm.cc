// Joins neighbours by score, and spells in bytes what ends as no token.
#include "tokenizer/spm.h"

#include <algorithm>
#include <queue>
#include <unordered_map>

#include "tokenizer/utf8.h"

namespace pb {
namespace {

struct Symbol {
  int32_t previous, next;  // -1: none
  std::string_view text;   // empty: joined into the one before
};

struct Join {
  float score;
  int32_t left, right;
  size_t bytes;  // of both; other than theirs: one of them has grown since
  bool operator<(const Join& other) const {
    return score != other.score ? score < other.score : left > other.left;
  }
};

// One text under work.
class Joining {
 public:
  Joining(const TokenizerData& data, const StringIds& ids, std::string_view text) : data_(data), ids_(ids) {
    for (size_t at = 0; at < text.size();) {
      const size_t n = std::min(CharacterBytes(text[at]), text.size() - at);
      const auto i = static_cast<int32_t>(symbols_.size());
      symbols_.push_back({i - 1, at + n == text.size() ? -1 : i + 1, text.substr(at, n)});
      at += n;
    }
  }

  void Run() {
    for (size_t i = 1; i < symbols_.size(); ++i) Offer(static_cast<int32_t>(i) - 1, static_cast<int32_t>(i));
    while (!queue_.empty()) {
      const Join join = queue_.top();
      queue_.pop();
      Symbol &left = symbols_[static_cast<size_t>(join.left)],
             &right = symbols_[static_cast<size_t>(join.right)];
      const bool stale =
          left.text.empty() || right.text.empty() || left.text.size() + right.text.size() != join.bytes;
      if (stale) continue;
      left.text = std::string_view(left.text.data(), join.bytes);
      right.text = {};
      left.next = right.next;
      if (right.next >= 0) symbols_[static_cast<size_t>(right.next)].previous = join.left;
      Offer(left.previous, join.left);
      Offer(join.left, left.next);
    }
  }

  const std::vector<Symbol>& symbols() const { return symbols_; }
  // The two that a text was last offered as; nothing: it never was.
  const std::pair<std::string_view, std::string_view>* PartsOf(std::string_view text) const {
    const auto found = parts_.find(text);
    return found == parts_.end() ? nullptr : &found->second;
  }

 private:
  void Offer(int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const std::string_view a = symbols_[static_cast<size_t>(left)].text,
                           b = symbols_[static_cast<size_t>(right)].text;
    const std::string_view both(a.data(), a.size() + b.size());
    const auto token = ids_.find(both);
    if (token == ids_.end()) return;
    const auto id = static_cast<size_t>(token->second);
    queue_.push({data_.scores.empty() ? 0 : data_.scores[id], left, right, both.size()});
    parts_[both] = {a, b};
  }

  const TokenizerData& data_;
  const StringIds& ids_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Join> queue_;
  std::unordered_map<std::string_view, std::pair<std::string_view, std::string_view>> parts_;
};

}  // namespace

Result<Spm> Spm::Create(const TokenizerData& data, const StringIds& ids) {
  Spm spm(data, ids);
  for (int byte = 0; byte < 256; ++byte) {
    auto found = ids.find(fmt::format("<0x{:02X}>", byte));
    if (found == ids.end()) found = ids.find(std::string(1, static_cast<char>(byte)));
    if (found == ids.end())
      return MakeError(Code::kMalformed,
                       "tokenizer.ggml.tokens: byte {} has no token, as <0x{:02X}> would be", byte, byte);
    spm.token_of_byte_[static_cast<size_t>(byte)] = found->second;
  }
  return spm;
}

void Spm::Append(std::string_view text, std::vector<int32_t>* out) const {
  Joining joining(*data_, *ids_, text);
  joining.Run();
  // What is no token was joined of parts that may be.
  std::vector<std::string_view> rest;
  const std::vector<Symbol>& symbols = joining.symbols();
  for (int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
    rest.push_back(symbols[static_cast<size_t>(i)].text);
    while (!rest.empty()) {
      const std::string_view part = rest.back();
      rest.pop_back();
      if (const auto token = ids_->find(part); token != ids_->end()) {
        out->push_back(token->second);
      } else if (const auto* parts = joining.PartsOf(part)) {
        rest.push_back(parts->second), rest.push_back(parts->first);
      } else {
        for (char c : part) out->push_back(token_of_byte_[static_cast<unsigned char>(c)]);
      }
    }
  }
}

}  // namespace pb
