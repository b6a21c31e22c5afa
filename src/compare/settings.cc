// Settings that must agree, and the activation scheme that weight types come to.
#include <algorithm>
#include <charconv>
#include <set>
#include <string_view>

#include "compare/verdict.h"
#include "formats/act_scheme.h"

namespace pb::compare {
namespace {

const Setting* FindSetting(const std::vector<Setting>& settings, std::string_view key) {
  auto it = std::find_if(settings.begin(), settings.end(), [&](const Setting& s) { return s.key == key; });
  return it == settings.end() ? nullptr : &*it;
}

// The activation scheme that ggml takes for a weight type; a type that is not known keeps its own
// name.
std::string SchemeOf(std::string_view type) {
  const auto scheme = GgmlActScheme(type);
  return scheme ? ActSchemeName(*scheme) : std::string(type);
}

struct TypeCount {
  std::string type;
  int count = 0;
};

// "TQ2_0 x42, F16 x1, F32 x25".
std::vector<TypeCount> ParseWeights(std::string_view text) {
  std::vector<TypeCount> types;
  while (!text.empty()) {
    size_t comma = std::min(text.find(','), text.size());
    std::string_view item = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    item.remove_prefix(std::min(item.find_first_not_of(' '), item.size()));
    size_t end = std::min(item.find(" x"), item.size());
    int count = 1;
    if (end < item.size()) std::from_chars(item.data() + end + 2, item.data() + item.size(), count);
    if (end > 0) types.push_back({std::string(item.substr(0, end)), count});
  }
  return types;
}

// The scheme of the layers' products, "f16+q8_k" where there are several: "ggml" chooses by weight
// type, anything else holds for all of them. The embedding and the output matrix, one or two of
// their type, follow their own type in either case, and F32 counts only where there is nothing
// else, as norms are F32 everywhere.
std::string EffectiveScheme(const std::vector<Setting>& settings, const std::string& act_quant) {
  const Setting* weights = FindSetting(settings, "weights");
  if (act_quant != "ggml" || !weights) return act_quant;
  std::set<std::string> layers, outer, floats;
  for (const TypeCount& t : ParseWeights(weights->value))
    (t.type == "F32" ? floats : t.count > 2 ? layers : outer).insert(SchemeOf(t.type));
  std::string joined;
  for (const std::string& scheme : !layers.empty() ? layers : !outer.empty() ? outer : floats)
    joined += (joined.empty() ? "" : "+") + scheme;
  return joined.empty() ? act_quant : joined;
}

}  // namespace

std::vector<SettingDifference> DifferingSettings(const std::vector<Setting>& candidate,
                                                 const std::vector<Setting>& reference,
                                                 bool precision_is_observed) {
  std::vector<SettingDifference> differing;
  for (const char* key : {"act.quant", "kv.type", "rope.factors"}) {
    const Setting *c = FindSetting(candidate, key), *r = FindSetting(reference, key);
    if (!c || !r) continue;
    bool is_scheme = std::string_view(key) == "act.quant";
    std::string c_value = is_scheme ? EffectiveScheme(candidate, c->value) : c->value;
    std::string r_value = is_scheme ? EffectiveScheme(reference, r->value) : r->value;
    if (c_value == r_value) continue;
    // What was observed of single types of weights is judged by itself.
    const bool same_base = c->value.substr(0, c->value.find('+')) == r->value.substr(0, r->value.find('+'));
    if (is_scheme && precision_is_observed && same_base) continue;
    differing.push_back({key, {std::move(c_value), std::move(r_value)}, {c->origin, r->origin}});
  }
  return differing;
}

Reason ReasonOf(const SettingDifference& d) {
  return {ReasonCode::kSettingsDiffer,
          fmt::format("{} differs: the candidate runs {} [{}], the reference {} [{}]; their results are not "
                      "expected to agree, so they are not judged",
                      d.key, d.values[0], d.origins[0], d.values[1], d.origins[1])};
}

bool AttentionDiffers(const std::vector<Setting>& candidate, const std::vector<Setting>& reference) {
  const Setting *c = FindSetting(candidate, "attn.flash"), *r = FindSetting(reference, "attn.flash");
  return c && r && c->value != r->value;
}

}  // namespace pb::compare
