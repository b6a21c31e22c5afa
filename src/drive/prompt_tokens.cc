// Asks both engines, or whoever reads in their place.
#include "drive/prompt_tokens.h"

#include <optional>

namespace pb::drive {
namespace {

using Ids = std::vector<int32_t>;

Result<PromptTokens> FromElsewhere(std::span<Participant, 2> sides, const Ids& ids) {
  PromptTokens tokens;
  for (size_t side : {0u, 1u}) {
    const int64_t n_vocab = sides[side].record().model_facts().shape.n_vocab;
    for (int32_t id : ids)
      if (n_vocab > 0 && id >= n_vocab)
        return MakeError(Code::kUsage,
                         "token {} is beyond the {}'s vocabulary of {}: the tokeniser is another model's", id,
                         sides[side].record().role, n_vocab);
    tokens.ids[side] = ids;
  }
  return tokens;
}

}  // namespace

Result<PromptTokens> TokenizeForBoth(std::span<Participant, 2> sides, std::string_view text,
                                     const TokenizeFn& instead) {
  if (instead) {
    PB_ASSIGN(const Ids ids, instead(text));
    return FromElsewhere(sides, ids);
  }
  PromptTokens tokens;
  std::optional<Error> refused[2];
  for (size_t side : {0u, 1u}) {
    auto ids = sides[side].engine().Tokenize(text, PB_ADD_SPECIAL | PB_PARSE_SPECIAL);
    // A recording refuses a text that it does not hold, whatever the tokeniser.
    const bool recorded = host::FindFact(sides[side].record().description, kIdentityFact) != nullptr;
    if (ids.ok())
      tokens.ids[side] = std::move(ids).value();
    else if (ids.error().code == Code::kUnsupported && !recorded)
      refused[side] = std::move(ids).error();
    else
      return sides[side].Noted(std::move(ids).error()).error();
  }
  if (refused[0] && refused[1]) return sides[0].Noted(std::move(*refused[0])).error();
  for (size_t side : {0u, 1u}) {
    if (!refused[side]) continue;
    tokens.ids[side] = tokens.ids[1 - side];
    tokens.note =
        fmt::format("the {} does not read the file's tokeniser ({}) and took the {}'s token ids, unchecked",
                    sides[side].record().role, refused[side]->message, sides[1 - side].record().role);
  }
  return tokens;
}

}  // namespace pb::drive
