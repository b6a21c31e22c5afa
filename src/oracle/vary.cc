// Hypotheses as changes of one field of an op's configuration.
#include <algorithm>
#include <charconv>
#include <map>
#include <string>

#include "oracle/forward.h"

namespace pb::oracle {
namespace {

Result<double> Number(std::string_view key, std::string_view text) {
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return MakeError(Code::kUsage, "{}={}: not a number", key, text);
  }
  return value;
}

template <typename T>
Result<T> Choice(std::string_view key, std::string_view text,
                 std::initializer_list<std::pair<std::string_view, T>> choices) {
  std::string names;
  for (const auto& [name, value] : choices) {
    if (name == text) return value;
    names += fmt::format(" {}", name);
  }
  return MakeError(Code::kUsage, "{}={}: not one of{}", key, text, names);
}

// Fields that take a number, by key.
using NumberField = void (*)(OpConfig&, double);
const std::map<std::string_view, NumberField>& NumberFields() {
  static const std::map<std::string_view, NumberField> fields = {
      {"rope.base", [](OpConfig& c, double v) { c.rope_base = c.local_rope_base = v; }},
      {"rope.scale", [](OpConfig& c, double v) { c.rope_scale = c.local_rope_scale = v; }},
      {"rope.everywhere", [](OpConfig& c, double v) { c.rotates_all = v != 0; }},
      {"rope.exchanged", [](OpConfig& c, double v) { c.rope_exchanged = v != 0; }},
      {"rope.offset", [](OpConfig& c, double v) { c.rope_offset = v; }},
      {"rope.dims",
       [](OpConfig& c, double v) {
         c.rope_dims = std::clamp<int64_t>(static_cast<int64_t>(v), 0, c.head_dim);
       }},
      {"rope.pair_shift", [](OpConfig& c, double v) { c.rope_pair_shift = static_cast<int64_t>(v); }},
      {"rope.pairs_left", [](OpConfig& c, double v) { c.rope_pairs_left = static_cast<int64_t>(v); }},
      {"softmax.scale", [](OpConfig& c, double v) { c.softmax_scale = v; }},
      {"softmax.sink", [](OpConfig& c, double v) { c.softmax_sink = v; }},
      {"softmax.sinks", [](OpConfig& c, double v) { c.no_sinks = v == 0; }},
      {"rope.attention_factor", [](OpConfig& c, double v) { c.rope_attention_factor = v; }},
      {"rope.yarn", [](OpConfig& c, double v) { c.yarn = v != 0; }},
      {"ffn.gate_offset", [](OpConfig& c, double v) { c.gate_offset = v; }},
      {"ffn.gate_limit", [](OpConfig& c, double v) { c.gate_limit = v; }},
      {"router.normalise", [](OpConfig& c, double v) { c.normalised_experts = v != 0; }},
      {"router.equal", [](OpConfig& c, double v) { c.equal_experts = v != 0; }},
      {"router.rank",
       [](OpConfig& c, double v) { c.expert_rank = std::max<int64_t>(static_cast<int64_t>(v), 0); }},
      {"shared.gate", [](OpConfig& c, double v) { c.no_shared_gate = v == 0; }},
      {"norm.eps", [](OpConfig& c, double v) { c.norm_eps = v; }},
      {"norm.eps_outside", [](OpConfig& c, double v) { c.norm_eps_outside = v != 0; }},
      {"norm.dropped", [](OpConfig& c, double v) { c.norm_dropped = static_cast<int64_t>(v); }},
      {"norm.weight_offset", [](OpConfig& c, double v) { c.norm_weight_offset = v; }},
      {"norm.repeat", [](OpConfig& c, double v) { c.norm_repeat = static_cast<int>(v); }},
      {"quant.clamp", [](OpConfig& c, double v) { c.quantiser.clamp = static_cast<int>(v); }},
      {"quant.cut_scales", [](OpConfig& c, double v) { c.quantiser.cut_scales = v != 0; }},
      {"quant.range", [](OpConfig& c, double v) { c.quantiser.range = static_cast<int>(v); }},
      {"quant.amax", [](OpConfig& c, double v) { c.quantiser.amax_values = static_cast<int>(v); }},
      {"quant.block", [](OpConfig& c, double v) { c.quantiser.block_values = static_cast<int>(v); }},
      {"product.factor", [](OpConfig& c, double v) { c.product_factor = v; }},
      {"drop.columns", [](OpConfig& c, double v) { c.drop_columns = static_cast<int64_t>(v); }},
      {"drop.rows", [](OpConfig& c, double v) { c.drop_rows = static_cast<int64_t>(v); }},
      {"weight.transposed", [](OpConfig& c, double v) { c.transposed = v != 0; }},
      {"weight.offset", [](OpConfig& c, double v) { c.weight_offset = v; }},
      {"weight.minimum", [](OpConfig& c, double v) { c.no_minimum = v == 0; }},
      {"product.bias", [](OpConfig& c, double v) { c.no_bias = v == 0; }},
      {"rope.factors",
       [](OpConfig& c, double v) {
         if (v == 0) c.rope_factors.clear();
       }},
      {"norm.centred", [](OpConfig& c, double v) { c.norm_centred = v != 0; }},
      {"norm.unweighted", [](OpConfig& c, double v) { c.norm_unweighted = v != 0; }},
      {"output.tied", [](OpConfig& c, double v) { c.output_is_embeddings = v != 0; }},
      {"attn.scale", [](OpConfig& c, double v) { c.attn_scale_factor = v; }},
      {"attn.rounded", [](OpConfig& c, double v) { c.attention_f16 = v != 0; }},
      {"attn.cap", [](OpConfig& c, double v) { c.score_cap = v; }},
      {"attn.window_shift", [](OpConfig& c, double v) { c.window_shift = static_cast<int>(v); }},
      {"residual.scale", [](OpConfig& c, double v) { c.residual_scale = v; }},
      {"logits.scale", [](OpConfig& c, double v) { c.logit_scale = v; }},
      {"logits.cap", [](OpConfig& c, double v) { c.logit_cap = v; }},
      {"mask.shift", [](OpConfig& c, double v) { c.mask_shift = static_cast<int>(v); }},
      {"kv.shift", [](OpConfig& c, double v) { c.kv_shift = static_cast<int>(v); }},
  };
  return fields;
}

// A,B.
Status VaryExperts(std::string_view text, OpConfig* c) {
  const size_t comma = text.find(',');
  if (comma == text.npos) return MakeError(Code::kUsage, "experts.exchanged={}: not A,B", text);
  PB_ASSIGN(double a, Number("experts.exchanged", text.substr(0, comma)));
  PB_ASSIGN(double b, Number("experts.exchanged", text.substr(comma + 1)));
  const auto n = static_cast<double>(c->n_experts);
  if (!(a >= 0 && a < n && b >= 0 && b < n))
    return MakeError(Code::kUsage, "experts.exchanged={}: there are {} experts", text, c->n_experts);
  c->exchanged_experts[0] = static_cast<int64_t>(a), c->exchanged_experts[1] = static_cast<int64_t>(b);
  return {};
}

// ROW,COLUMN,DELTA.
Status VaryCell(std::string_view text, OpConfig* c) {
  const size_t first = std::min(text.find(','), text.size()),
               second = std::min(text.find(',', first + 1), text.size());
  if (second == text.size()) return MakeError(Code::kUsage, "weight.cell={}: not ROW,COLUMN,DELTA", text);
  PB_ASSIGN(double row, Number("weight.cell", text.substr(0, first)));
  PB_ASSIGN(double column, Number("weight.cell", text.substr(first + 1, second - first - 1)));
  PB_ASSIGN(c->cell_delta, Number("weight.cell", text.substr(second + 1)));
  if (!(row >= 0 && row < 1e9 && column >= 0 && column < 1e9))
    return MakeError(Code::kUsage, "weight.cell={}: no such place", text);
  c->cell_row = static_cast<int64_t>(row), c->cell_column = static_cast<int64_t>(column);
  return {};
}

Result<OpConfig> VaryOne(const OpConfig& declared, std::string_view variation) {
  OpConfig c = declared;
  const size_t equals = variation.find('=');
  if (equals == std::string_view::npos)
    return MakeError(Code::kUsage, "variation \"{}\": not KEY=VALUE", variation);
  const std::string_view key = variation.substr(0, equals), text = variation.substr(equals + 1);
  if (auto field = NumberFields().find(key); field != NumberFields().end()) {
    PB_ASSIGN(double value, Number(key, text));
    field->second(c, value);
  } else if (key == "ffn.activation") {
    PB_ASSIGN(c.activation, Choice<Act>(key, text,
                                        {{"silu", Act::kSilu},
                                         {"relu", Act::kRelu},
                                         {"relu2", Act::kRelu2},
                                         {"gelu", Act::kGelu},
                                         {"gelu_tanh", Act::kGeluTanh},
                                         {"swiglu_oai", Act::kSwigluOai},
                                         {"identity", Act::kIdentity}}));
  } else if (key == "rope.pairing") {
    PB_ASSIGN(c.rope_pairing,
              Choice<RopePairing>(key, text,
                                  {{"adjacent", RopePairing::kAdjacent}, {"halves", RopePairing::kHalves}}));
  } else if (key == "kv.map") {
    PB_ASSIGN(
        c.head_map,
        Choice<HeadMap>(key, text, {{"grouped", HeadMap::kGrouped}, {"interleaved", HeadMap::kInterleaved}}));
  } else if (key == "kv.own") {
    PB_ASSIGN(c.own_cell, Choice<OwnCell>(key, text,
                                          {{"written", OwnCell::kWritten},
                                           {"zero", OwnCell::kZero},
                                           {"before", OwnCell::kBefore},
                                           {"twice", OwnCell::kTwice}}));
  } else if (key == "weight.order") {
    PB_ASSIGN(c.block_order, Choice<BlockOrder>(key, text,
                                                {{"declared", BlockOrder::kDeclared},
                                                 {"reversed", BlockOrder::kReversed},
                                                 {"consecutive", BlockOrder::kConsecutive}}));
  } else if (key == "router.softmax") {
    PB_ASSIGN(c.softmax_of_chosen, Choice<bool>(key, text, {{"all", false}, {"chosen", true}}));
  } else if (key == "experts.exchanged") {
    PB_TRY(VaryExperts(text, &c));
  } else if (key == "weight.cell") {
    PB_TRY(VaryCell(text, &c));
  } else if (key == "act.quant") {
    PB_ASSIGN(c.act_quant, ActQuant::Parse(text));
  } else if (key == "quant.rounding") {
    using R = QuantiserVariation::Rounding;
    PB_ASSIGN(c.quantiser.rounding, Choice<R>(key, text,
                                              {{"half_even", R::kHalfEven},
                                               {"half_away", R::kHalfAway},
                                               {"truncate", R::kTruncate},
                                               {"floor", R::kFloor}}));
  } else if (key == "ffn.table") {
    PB_ASSIGN(c.act_table, Choice<bool>(key, text, {{"none", false}, {"f16", true}}));
    if (!c.act_table) c.gelu_f16 = false;
  } else {
    return MakeError(Code::kUnsupported, "variation {}: there is none of this name", key);
  }
  return c;
}

}  // namespace

Result<OpConfig> Vary(const OpConfig& declared, std::string_view variation) {
  OpConfig c = declared;
  while (true) {
    const size_t end = variation.find(';');
    PB_ASSIGN(c, VaryOne(c, variation.substr(0, end)));
    if (end == variation.npos) return c;
    variation.remove_prefix(end + 1);
  }
}

}  // namespace pb::oracle
