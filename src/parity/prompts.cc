// Generates and shrinks prompts with RapidCheck; its headers are used here alone.
#include "parity/prompts.h"

#include <rapidcheck.h>

#include <optional>
#include <vector>

namespace pb::parity {
namespace {

using Pieces = std::vector<std::string>;

rc::Gen<std::string> OneOf(std::initializer_list<const char*> texts) {
  return rc::gen::elementOf(std::vector<std::string>(texts.begin(), texts.end()));
}

// One piece of a prompt. Numbers and runs of letters shrink, the rest is left out or kept.
rc::Gen<std::string> Piece() {
  return rc::gen::weightedOneOf<std::string>(
      {{8, OneOf({" the", " and",   " of",  " light", " water", " God", " said", " not",
                  " one", " there", " was", "And",    "In",     "The",  "What",  " is",
                  " a",   " to",    " in",  " day",   " his",   " I",   " that"})},
       {3, OneOf({".", ",", "?", "!", ":", ";", "\n", "\n\n", " (", ")", " \"", "\"", "'", " - "})},
       {2, rc::gen::map(rc::gen::inRange(0, 10000), [](int n) { return " " + std::to_string(n); })},
       {2, OneOf({" 2+2=", "def f(x):\n    return x", "for (int i = 0; i < n; ++i)", " {\"a\": [1, 2]}",
                  "</p>", " https://example.org", "#include <cstdint>"})},
       {1, OneOf({" caf\u00e9", " \u041f\u0440\u0438\u0432\u0435\u0442", " \u4f60\u597d",
                  " \u0645\u0631\u062d\u0628\u0627", " \U0001F600", " na\u00efve", " \u00a0", "\t"})},
       {2, rc::gen::map(rc::gen::container<std::string>(rc::gen::inRange('a', static_cast<char>('z' + 1))),
                        [](const std::string& word) { return " " + word; })}});
}

std::string Joined(const Pieces& pieces) {
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  return text;
}

}  // namespace

struct RandomPrompts::Impl {
  std::vector<rc::Shrinkable<Pieces>> prompts;
};

RandomPrompts::RandomPrompts(uint64_t seed, int n) : impl_(std::make_unique<Impl>()) {
  constexpr int kSmallest = 4, kLargest = 40;
  const rc::Gen<Pieces> generator = rc::gen::nonEmpty(rc::gen::container<Pieces>(Piece()));
  rc::Random random(seed);
  for (int i = 0; i < n; ++i) {
    const int size = kSmallest + (kLargest - kSmallest) * i / std::max(n, 1);
    impl_->prompts.push_back(generator(random.split(), size));
  }
}

RandomPrompts::~RandomPrompts() = default;

int RandomPrompts::size() const { return static_cast<int>(impl_->prompts.size()); }

std::string RandomPrompts::At(int index) const {
  return Joined(impl_->prompts[static_cast<size_t>(index)].value());
}

Result<RandomPrompts::Smallest> RandomPrompts::Shrink(
    int index, int max_tries, const std::function<Result<bool>(const std::string& text)>& fails) const {
  rc::Shrinkable<Pieces> current = impl_->prompts[static_cast<size_t>(index)];
  Smallest smallest{Joined(current.value()), 0, true};
  for (bool smaller = true; smaller;) {
    smaller = false;
    auto shrinks = current.shrinks();
    for (auto shrink = shrinks.next(); shrink && !smaller; shrink = shrinks.next()) {
      const std::string text = Joined(shrink->value());
      if (text.empty()) continue;
      if (smallest.n_tried >= max_tries) {
        smallest.is_minimal = false;
        return smallest;
      }
      ++smallest.n_tried;
      PB_ASSIGN(smaller, fails(text));
      if (!smaller) continue;
      smallest.text = text;
      current = *shrink;
    }
  }
  return smallest;
}

}  // namespace pb::parity
