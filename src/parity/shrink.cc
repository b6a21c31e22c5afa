// Delta debugging over characters.
#include "parity/shrink.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "base/text.h"

namespace pb::parity {
namespace {

std::vector<std::string> Characters(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const size_t n = std::max<size_t>(DecodeUtf8(text).n_bytes, 1);
    out.emplace_back(text.substr(0, n));
    text.remove_prefix(n);
  }
  return out;
}

std::string Without(const std::vector<std::string>& characters, size_t begin, size_t n) {
  std::string text;
  for (size_t i = 0; i < characters.size(); ++i)
    if (i < begin || i >= begin + n) text += characters[i];
  return text;
}

}  // namespace

Result<Shrunk> ShrinkText(const std::string& text, int max_tries,
                          const std::function<Result<bool>(const std::string& text)>& holds) {
  std::vector<std::string> characters = Characters(text);
  Shrunk shrunk{text, 0};
  for (size_t length = std::max<size_t>(characters.size() / 2, 1); length >= 1;) {
    bool any = false;
    for (size_t begin = 0; begin < characters.size();) {
      const std::string smaller = Without(characters, begin, length);
      if (smaller.empty()) break;
      if (shrunk.n_tried++ >= max_tries) return shrunk;
      PB_ASSIGN(const bool still, holds(smaller));
      if (!still) {
        begin += length;
        continue;
      }
      any = true;
      shrunk.text = smaller;
      const auto first = characters.begin() + static_cast<ptrdiff_t>(begin);
      characters.erase(first, first + static_cast<ptrdiff_t>(std::min(length, characters.size() - begin)));
    }
    // Single characters until none can go.
    if (length == 1 && !any) break;
    length = std::max<size_t>(length / 2, 1);
  }
  return shrunk;
}

}  // namespace pb::parity
