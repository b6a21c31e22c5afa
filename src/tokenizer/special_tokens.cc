// Finds special tokens by type and by text, and cuts text at the longest that matches.
#include "tokenizer/special_tokens.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <numeric>

namespace pb {
namespace {

// Texts of tokens that end a generation, whatever type the file gives them.
constexpr std::string_view kEndOfGeneration[] = {"<|eot_id|>",
                                                 "<|im_end|>",
                                                 "<|end|>",
                                                 "<|return|>",
                                                 "<|call|>",
                                                 "<|flush|>",
                                                 "<|calls|>",
                                                 "<end_of_turn>",
                                                 "<|endoftext|>",
                                                 "</s>",
                                                 "<|eom_id|>",
                                                 "<EOT>",
                                                 "_<EOT>",
                                                 "[EOT]",
                                                 "[EOS]",
                                                 "<|end_of_text|>",
                                                 "<end_of_utterance>",
                                                 "<eos>",
                                                 "<turn|>",
                                                 "<|tool_response>",
                                                 "<\xEF\xBD\x9C"
                                                 "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
                                                 "[e~["};
// Texts of fill-in-the-middle tokens, by their place in TokenizerData::fim.
const std::vector<std::string_view> kFim[6] = {
    {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>",
     "<\xEF\xBD\x9C"
     "fim\xE2\x96\x81"
     "begin\xEF\xBD\x9C>",
     "<PRE>", "\xE2\x96\x81<PRE>", "<|code_prefix|>", "<|prefix|>"},
    {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>",
     "<\xEF\xBD\x9C"
     "fim\xE2\x96\x81hole\xEF\xBD\x9C>",
     "<SUF>", "\xE2\x96\x81<SUF>", "<|code_suffix|>", "<|suffix|>"},
    {"<|fim_middle|>", "<fim-middle>", "<fim_middle>",
     "<\xEF\xBD\x9C"
     "fim\xE2\x96\x81"
     "end\xEF\xBD\x9C>",
     "<MID>", "\xE2\x96\x81<MID>", "<|code_middle|>", "<|middle|>"},
    {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"},
    {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"},
    {"<|file_sep|>"}};
// gpt-oss: always written and matched.
constexpr std::string_view kAlwaysShown[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};

uint8_t FlagsOfType(int32_t type) {
  switch (type) {
    case 1:
      return kNormal;
    case 2:
      return kUnknown;
    case 3:
      return kControl;
    case 4:
      return kUserDefined;
    case 6:
      return kByte;
    default:
      return 0;
  }
}

int32_t IdOf(const StringIds& ids, std::string_view text) {
  auto found = ids.find(text);
  return found == ids.end() ? -1 : found->second;
}

// isspace of the C locale.
bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

bool LooksLikeEndOfGeneration(std::string_view text) {
  return std::find(std::begin(kEndOfGeneration), std::end(kEndOfGeneration), text) !=
         std::end(kEndOfGeneration);
}

SpecialTokens::SpecialTokens(const TokenizerData& data, const StringIds& ids) : data_(&data) {
  for (size_t i = 0; i < data.tokens.size(); ++i) {
    flags_.push_back(FlagsOfType(data.token_types.empty() ? 1 : data.token_types[i]));
  }
  FindByText(data, ids);
  FixKnownFamilies(ids);
  for (size_t i = 0; i < flags_.size(); ++i) {
    if (flags_[i] & (kControl | kUserDefined | kUnknown)) order_.push_back(static_cast<int32_t>(i));
  }
  // Not a stable sort: which of two equally long tokens comes first is part of the ids when they
  // overlap in the text.
  std::sort(order_.begin(), order_.end(),
            [&](int32_t a, int32_t b) { return data.tokens[a].size() > data.tokens[b].size(); });
  by_text_.resize(order_.size());
  std::iota(by_text_.begin(), by_text_.end(), 0);
  std::sort(by_text_.begin(), by_text_.end(),
            [&](int32_t a, int32_t b) { return data.tokens[order_[a]] < data.tokens[order_[b]]; });
  for (int32_t id : order_) starts_[static_cast<unsigned char>(data.tokens[id][0])] = true;
  SetStripping(data, ids);
}

void SpecialTokens::FindByText(const TokenizerData& data, const StringIds& ids) {
  // Of several candidates for one place llama.cpp takes the first in the order of its hash table,
  // which has the type of `ids` and was filled in the same order; with another standard library its
  // choice differs.
  std::array<int32_t, 6> fim = data.fim;
  for (const auto& [text, id] : ids) {
    for (int i = 0; i < 6; ++i) {
      if (fim[i] >= 0 || std::find(kFim[i].begin(), kFim[i].end(), text) == kFim[i].end()) continue;
      fim[i] = id;
      flags_[id] |= kControl;
    }
  }
  for (int i : {3, 4, 5}) {
    if (fim[i] >= 0) end_of_generation_.insert(fim[i]);
  }
  for (std::string_view text : kEndOfGeneration) {
    if (int32_t id = IdOf(ids, text); id >= 0) {
      flags_[id] |= kControl;
      end_of_generation_.insert(id);
    }
  }
  for (int32_t id : {data.eos, data.eot, data.eom}) {
    if (id >= 0) end_of_generation_.insert(id);
  }
}

// Files whose token types are known to be wrong.
void SpecialTokens::FixKnownFamilies(const StringIds& ids) {
  for (std::string_view text : kAlwaysShown) {
    if (int32_t id = IdOf(ids, text); id >= 0) flags_[id] = kUserDefined;
  }
  auto ends = [&](std::string_view text) { return IsEndOfGeneration(IdOf(ids, text)); };
  bool call = ends("<|call|>") || ends("<|calls|>");
  if (ends("<|end|>") && call && (ends("<|return|>") || ends("<|flush|>"))) {
    int32_t id = IdOf(ids, "<|end|>");
    end_of_generation_.erase(id);
    flags_[id] = kUserDefined;
  }
  if (ends("<|tool_response>") && ends("</s>")) {
    int32_t id = IdOf(ids, "</s>");
    end_of_generation_.erase(id);
    flags_[id] = kNormal;
  }
}

// GGUF has no place for it; llama.cpp goes by names.
void SpecialTokens::SetStripping(const TokenizerData& data, const StringIds& ids) {
  auto set = [&](std::string_view text, uint8_t flag) {
    if (int32_t id = IdOf(ids, text); id >= 0) flags_[id] |= flag;
  };
  std::string name = data.name;
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  auto contains = [](std::string_view text, std::string_view part) { return text.find(part) != text.npos; };
  if (contains(data.pre, "jina-v2-de") || contains(data.pre, "jina-v2-es") ||
      contains(data.pre, "jina-v2-code") || contains(data.architecture, "nomic-bert-moe") ||
      contains(data.architecture, "jina-bert-v3")) {
    set("<mask>", kStripLeft);
  } else if (contains(name, "phi-3") || contains(name, "phi3")) {
    for (int32_t id : order_) flags_[id] |= kStripRight;
    set("</s>", kStripRight);
    for (std::string_view text : {"<unk>", "<s>", "<|endoftext|>"}) {
      if (int32_t id = IdOf(ids, text); id >= 0) flags_[id] &= static_cast<uint8_t>(~kStripRight);
    }
  } else if (contains(name, "modern-bert")) {
    set("[MASK]", kStripLeft);
  }
}

// Which of order_ occur anywhere in the text: so that the passes over the text are as many as the
// special tokens in it, not as many as those of the vocabulary.
std::vector<bool> SpecialTokens::Present(std::string_view text) const {
  std::vector<bool> present(order_.size());
  for (size_t at = 0; at < text.size(); ++at) {
    if (!starts_[static_cast<unsigned char>(text[at])]) continue;
    auto begin = by_text_.begin(), end = by_text_.end();
    for (size_t depth = 0; begin != end; ++depth) {
      const std::string& shortest = data_->tokens[order_[*begin]];
      if (shortest.size() == depth) {
        present[*begin++] = true;
        if (begin == end) break;
      }
      if (at + depth == text.size()) break;
      auto byte = [&](int32_t i) { return static_cast<unsigned char>(data_->tokens[order_[i]][depth]); };
      auto next = static_cast<unsigned char>(text[at + depth]);
      begin = std::partition_point(begin, end, [&](int32_t i) { return byte(i) < next; });
      end = std::partition_point(begin, end, [&](int32_t i) { return byte(i) <= next; });
    }
  }
  return present;
}

std::vector<Fragment> SpecialTokens::Partition(std::string_view text, bool parse_special) const {
  std::vector<Fragment> fragments, next;
  if (!text.empty()) fragments.push_back({-1, text});
  std::vector<bool> present = Present(text);
  for (size_t i = 0; i < order_.size(); ++i) {
    int32_t id = order_[i];
    const std::string& token = data_->tokens[id];
    if (!present[i] || (!parse_special && (flags_[id] & (kControl | kUnknown)))) continue;
    next.clear();
    for (const Fragment& fragment : fragments) {
      std::string_view rest = fragment.text;
      size_t at = fragment.token < 0 ? rest.find(token) : rest.npos;
      for (; at != rest.npos; at = rest.find(token)) {
        std::string_view left = rest.substr(0, at);
        rest.remove_prefix(at + token.size());
        while ((flags_[id] & kStripLeft) && !left.empty() && IsSpace(left.back())) left.remove_suffix(1);
        while ((flags_[id] & kStripRight) && !rest.empty() && IsSpace(rest.front())) rest.remove_prefix(1);
        if (!left.empty()) next.push_back({-1, left});
        next.push_back({id, {}});
      }
      if (fragment.token >= 0 || !rest.empty()) next.push_back({fragment.token, rest});
    }
    fragments.swap(next);
  }
  return fragments;
}

}  // namespace pb
