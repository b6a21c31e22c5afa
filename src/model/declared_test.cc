// What is in doubt about a model's declarations: keys, fields of a config.json, and what the user
// sets.
#include "model/declared.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>

#include "base/bytes.h"
#include "base/file.h"
#include "base/half.h"
#include "formats/non_finite.h"
#include "model/config.h"
#include "model/generate.h"
#include "model/hyper.h"
#include "model/keys.h"
#include "model/rope_freqs.h"
#include "tests/paths.h"

namespace pb {
namespace {

using Kind = Doubt::Kind;

GgufValue U32(uint64_t v) { return {GgufType::kU32, {}, v, 0}; }
GgufValue Float(double v) { return {GgufType::kF32, {}, v, 0}; }
GgufValue Text(std::string v) { return {GgufType::kString, {}, std::move(v), 0}; }

GenerateSpec SmallSpec(const std::string& architecture) {
  GenerateSpec s;
  s.architecture = architecture;
  s.n_layers = 1, s.d_model = 32, s.d_ff = 64, s.n_heads = 2, s.n_kv_heads = 1, s.n_vocab = 96, s.n_ctx = 64;
  return s;
}

// A model in a folder of its own, without a config.json until one is written.
class Declared : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              fmt::format("pb-declared-{}-{}", ::getpid(),
                          testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(folder_);
    Make("bitnet", {});
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  using Metadata = std::vector<std::pair<std::string, std::optional<GgufValue>>>;
  // A small file with keys set, or dropped where there is no value.
  void Make(const std::string& architecture, const Metadata& changes, std::vector<std::string> tensors = {}) {
    auto bytes = Generate(SmallSpec(architecture)).value().gguf.Serialise();
    GgufFile file = GgufFile::Parse(bytes).value();
    GgufWriter out;
    auto changed = [&](const std::string& key) {
      return std::any_of(changes.begin(), changes.end(), [&](const auto& c) { return c.first == key; });
    };
    for (const auto& [key, value] : file.metadata())
      if (!changed(key)) out.Add(key, value);
    for (const auto& [key, value] : changes)
      if (value) out.Add(key, *value);
    for (const GgufTensor& t : file.tensors())
      out.AddTensor(t.name, t.type_id, t.shape, {t.data.begin(), t.data.end()});
    for (const std::string& name : tensors) out.AddTensor(name, 0, {8}, std::vector<std::byte>(32));
    ASSERT_TRUE(out.Write(folder_ / "m.gguf").ok());
  }
  Declarations Read(const std::string& json = "", const ModelOptions& options = {}) {
    std::filesystem::remove(folder_ / "config.json");
    if (!json.empty()) {
      EXPECT_TRUE(WriteFileAtomic(folder_ / "config.json", json).ok());
    }
    file_.emplace(GgufFile::Open(folder_ / "m.gguf").value());
    auto declared = ReadDeclarations(*file_, options);
    EXPECT_TRUE(declared.ok()) << (declared.ok() ? "" : declared.error().message);
    return declared.ok() ? std::move(declared).value() : Declarations{};
  }
  // The one doubt that a config.json gives rise to.
  Doubt One(const std::string& json, const ModelOptions& options = {}) {
    const std::vector<Doubt> doubts = Read(json, options).doubts;
    EXPECT_EQ(doubts.size(), 1u) << json << (doubts.empty() ? "" : ": " + doubts.back().text);
    return doubts.empty() ? Doubt{} : doubts[0];
  }
  void ExpectContradiction(const std::string& json, std::string_view key, std::string_view here,
                           std::string_view there, std::vector<std::string> choices = {}) {
    const Doubt doubt = One(json);
    EXPECT_EQ(doubt.kind, Kind::kContradiction) << json;
    EXPECT_EQ(doubt.key, key);
    for (std::string_view part : {here, there})
      EXPECT_NE(doubt.text.find(part), std::string::npos) << doubt.text;
    // Both files are named.
    EXPECT_NE(doubt.text.find((folder_ / "config.json").string()), std::string::npos) << doubt.text;
    EXPECT_NE(doubt.text.find((folder_ / "m.gguf").string()), std::string::npos) << doubt.text;
    EXPECT_EQ(doubt.choices, choices);
  }

  std::filesystem::path folder_;
  std::optional<GgufFile> file_;
};

// Generated Gemmas: a window of 8, the second layer of gemma2 and the sixth of gemma3 see all
// positions.
TEST_F(Declared, WindowsCapsAndScalesAreReadWhereAnArchitectureHasThem) {
  Make("gemma2", {});
  HyperParameters p = *Read().params;
  EXPECT_EQ(p.window_of(0), 8);
  EXPECT_EQ((std::vector<float>{p.score_cap, p.logit_cap, p.embedding_scale}),
            (std::vector<float>{4, 6, std::sqrt(32.0f)}));
  EXPECT_EQ(p.attention_scale, 0.25f);  // heads of 16
  Make("gemma2",
       {{"gemma2.attention.sliding_window", std::nullopt}, {"gemma2.attn_logit_softcapping", std::nullopt}});
  EXPECT_EQ(Read().params->window, 4096);
  EXPECT_EQ(Read().params->score_cap, 50);
  Make("gemma3", {{"gemma3.block_count", U32(12)}});
  p = *Read().params;
  for (int64_t layer = 0; layer < 12; layer++) EXPECT_EQ(p.is_local(layer), layer % 6 != 5) << layer;
  EXPECT_EQ((std::vector<float>{p.rope_base.value, p.local_rope_base.value}),
            (std::vector<float>{1000000, 10000}));
  Make("granite", {});
  p = *Read().params;
  EXPECT_EQ((std::vector<float>{p.attention_scale, p.embedding_scale, p.residual_scale, p.logit_scale}),
            (std::vector<float>{0.0625f, 12, 0.25f, 0.125f}));
  Make("smollm3", {{"smollm3.block_count", U32(8)}});
  p = *Read().params;
  for (int64_t layer = 0; layer < 8; layer++) EXPECT_EQ(p.rotates(layer), layer % 4 != 3) << layer;
  // Elsewhere they stay refused.
  Make("llama", {{"llama.attn_logit_softcapping", Float(50)}});
  EXPECT_FALSE(Read().params.has_value());
}

TEST_F(Declared, WhatAConfigSaysOfThemIsHeldAgainstTheFile) {
  Make("gemma3", {{"gemma3.block_count", U32(6)}});
  auto fields = [&](const std::string& json) {
    std::string names;
    for (const Doubt& doubt : Read(json).doubts)
      if (doubt.kind == Kind::kContradiction) names += doubt.key + " ";
    return names;
  };
  EXPECT_EQ(
      fields(R"({"model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 8,
                       "query_pre_attn_scalar": 16, "rope_local_base_freq": 10000, "final_logit_softcapping": 6,
                       "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention",
                                       "sliding_attention", "sliding_attention", "full_attention"]})"),
      "");
  EXPECT_EQ(fields(R"({"query_pre_attn_scalar": 32})"), "query_pre_attn_scalar ");
  EXPECT_EQ(fields(R"({"rope_local_base_freq": 1000000})"), "rope_local_base_freq ");
  EXPECT_EQ(fields(R"({"final_logit_softcapping": 30})"), "final_logit_softcapping ");
  EXPECT_EQ(fields(R"({"layer_types": ["full_attention"]})"), "layer_types[0] ");
  EXPECT_EQ(fields(R"({"sliding_window_pattern": 2})"), "sliding_window_pattern ");
  Make("granite", {});
  EXPECT_EQ(fields(R"({"model_type": "granite", "embedding_multiplier": 12, "residual_multiplier": 0.25,
                       "attention_multiplier": 0.0625, "logits_scaling": 8})"),
            "");
  EXPECT_EQ(fields(R"({"residual_multiplier": 0.22})"), "residual_multiplier ");
  Make("smollm3", {});
  EXPECT_EQ(fields(R"({"no_rope_layers": [0]})"), "no_rope_layers[0] ");
}

TEST_F(Declared, TheFilesOwnActivationCounts) {
  for (std::string architecture : {"bitnet", "bitnet-25", "bitnet-b1.58", "llama"}) {
    Make(architecture, {{architecture + ".hidden_activation", Text("relu2")}});
    const Declarations d = Read();
    EXPECT_EQ(d.params->ffn_activation->value, Activation::kRelu2) << architecture;
    EXPECT_EQ(d.params->ffn_activation->origin, Origin::kMetadata);
    EXPECT_TRUE(d.doubts.empty());
    EXPECT_TRUE(Read(R"({"hidden_act": "relu_squared"})").doubts.empty());
    ExpectContradiction(R"({"hidden_act": "silu"})", "hidden_act", "says silu",
                        "says relu2 (" + architecture + ".hidden_activation)",
                        {"ffn.activation=silu", "ffn.activation=relu2"});
    ExpectContradiction(R"({"hidden_activation": "mish"})", "hidden_activation", "says mish", "says relu2",
                        {"ffn.activation=relu2"});
  }
  // One that is not offered is refused by its key; one of another architecture is not heard.
  Make("bitnet", {{"bitnet.hidden_activation", Text("mish")}});
  EXPECT_FALSE(Read().params);
  EXPECT_NE(Read().why_none.message.find("bitnet.hidden_activation"), std::string::npos);
  Make("bitnet", {{"llama.hidden_activation", Text("relu2")}});
  EXPECT_FALSE(Read().params->ffn_activation);
  EXPECT_EQ(Read().doubts.at(0).kind, Kind::kNote);
  Make("bitnet", {{"bitnet.hidden_activation", U32(2)}});
  EXPECT_EQ(ReadDeclarations(GgufFile::Open(folder_ / "m.gguf").value(), {}).error().code, Code::kMalformed);
}

TEST_F(Declared, ArchitectureFixesWhatNeitherFileSays) {
  Make("llama", {});
  ExpectContradiction(R"({"hidden_act": "gelu"})", "hidden_act", "says gelu",
                      "architecture llama, which runs silu", {"ffn.activation=gelu", "ffn.activation=silu"});
}

TEST_F(Declared, ContradictionsNameKeyFilesAndValues) {
  ExpectContradiction(R"({"rms_norm_eps": 1e-6})", "rms_norm_eps", "says 1e-06",
                      "says 1e-05 (bitnet.attention.layer_norm_rms_epsilon)",
                      {"norm.eps=1e-06", "norm.eps=1e-05"});
  ExpectContradiction(R"({"norm_eps": 1e-6})", "norm_eps", "says 1e-06", "says 1e-05",
                      {"norm.eps=1e-06", "norm.eps=1e-05"});
  ExpectContradiction(R"({"rope_theta": 500000})", "rope_theta", "says 500000",
                      "says 10000 (bitnet.rope.freq_base)", {"rope.base=500000", "rope.base=10000"});
  ExpectContradiction(R"({"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}})",
                      "rope_parameters.rope_theta", "says 500000", "says 10000",
                      {"rope.base=500000", "rope.base=10000"});
  ExpectContradiction(
      R"({"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 2e4}}})",
      "rope_parameters.full_attention.rope_theta", "says 20000", "says 10000",
      {"rope.base=20000", "rope.base=10000"});
  ExpectContradiction(R"({"text_config": {"rope_theta": 2e4}})", "text_config.rope_theta", "says 20000",
                      "says 10000", {"rope.base=20000", "rope.base=10000"});
  ExpectContradiction(R"({"rope_scaling": {"type": "linear", "factor": 4}})", "rope_scaling.factor", "says 4",
                      "has no bitnet.rope.scaling.factor, for which engines take 1",
                      {"rope.scale=4", "rope.scale=1"});
  ExpectContradiction(R"({"rope_scaling": {"rope_type": "yarn", "factor": 4}})", "rope_scaling", "says yarn",
                      "has no bitnet.rope.scaling.type");
  ExpectContradiction(R"({"rope_scaling": {"rope_type": "llama3", "factor": 8}})", "rope_scaling",
                      "says llama3", "has no rope_freqs.weight");
  ExpectContradiction(R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor", "says 0.5", "says 16");
  ExpectContradiction(R"({"tie_word_embeddings": false})", "tie_word_embeddings", "says false",
                      "has no output.weight");
  ExpectContradiction(R"({"vocab_size": 97})", "vocab_size", "says 97", "has 96 rows");
  ExpectContradiction(R"({"num_hidden_layers": 2})", "num_hidden_layers", "says 2",
                      "says 1 (bitnet.block_count)");
  ExpectContradiction(R"({"head_dim": 8})", "head_dim", "says 8", "16");
  ExpectContradiction(R"({"num_key_value_heads": 2})", "num_key_value_heads", "says 2", "says 1");
  ExpectContradiction(R"({"attention_bias": true})", "attention_bias", "says true",
                      "has no blk.0.attn_q.bias");
  ExpectContradiction(R"({"mlp_bias": true})", "mlp_bias", "says true", "has no blk.0.ffn_up.bias");
}

TEST_F(Declared, WhatTheFileLacksIsWhatEnginesTake) {
  Make("llama", {{"llama.rope.freq_base", std::nullopt}});
  ExpectContradiction(R"({"rope_theta": 500000})", "rope_theta", "says 500000",
                      "has no llama.rope.freq_base, for which engines take 10000",
                      {"rope.base=500000", "rope.base=10000"});
  EXPECT_TRUE(Read(R"({"rope_theta": 10000})").doubts.empty());
  Make("llama", {{"llama.rope.scaling.factor", Float(4)}});
  ExpectContradiction(R"({"rope_scaling": {"rope_type": "default"}})", "rope_scaling (default)", "says 1",
                      "says 4 (llama.rope.scaling.factor)", {"rope.scale=1", "rope.scale=4"});
  EXPECT_TRUE(Read(R"({"rope_scaling": {"type": "linear", "factor": 4.0}})").doubts.empty());
  Make("llama", {}, {"blk.0.attn_q.bias"});
  ExpectContradiction(R"({"attention_bias": false})", "attention_bias", "says false",
                      "has blk.0.attn_q.bias");
}

TEST_F(Declared, AWindowOrDynamicScalingMattersBeyondItsLength) {
  const Doubt window = One(R"({"sliding_window": 16, "max_position_embeddings": 64})");
  EXPECT_EQ(window.kind, Kind::kContradiction);
  EXPECT_EQ(window.beyond, 16);
  const Doubt dynamic =
      One(R"({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 64})");
  EXPECT_EQ(dynamic.kind, Kind::kContradiction);
  EXPECT_EQ(dynamic.beyond, 64);
  for (const char* json :
       {R"({"sliding_window": null})", R"({"sliding_window": 64, "max_position_embeddings": 64})",
        R"({"sliding_window": 16, "use_sliding_window": false})"})
    EXPECT_TRUE(Read(json).doubts.empty()) << json;
}

TEST_F(Declared, WhatDecidesNothingGivesRiseToNoDoubt) {
  // The config.json of microsoft/bitnet-b1.58-2B-4T, of LLaMA 3.1 8B and of SmolLM2 135M, with this
  // model's shape and values.
  const std::string shape =
      R"("hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 1, "max_position_embeddings": 64, "vocab_size": 96, "rms_norm_eps": 1e-05,
         "rope_theta": 10000.0, "tie_word_embeddings": true, "bos_token_id": 94, "eos_token_id": [95, 94])";
  const std::string bitnet =
      R"({"architectures": ["BitNetForCausalLM"], "auto_map": {"AutoConfig": "configuration_bitnet.BitNetConfig"},
          "hidden_act": "relu2", "initializer_range": 0.02, "model_type": "bitnet", "torch_dtype": "bfloat16",
          "use_cache": true, "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
          "quantization_mode": "offline"}, )";
  EXPECT_TRUE(Read(bitnet + shape + "}").doubts.empty());
  const std::string llama =
      R"({"architectures": ["LlamaForCausalLM"], "_name_or_path": "x", "attention_bias": false,
          "attention_dropout": 0.0, "hidden_act": "silu", "initializer_range": 0.02, "mlp_bias": false,
          "model_type": "llama", "pretraining_tp": 1, "rope_scaling": null, "torch_dtype": "bfloat16",
          "transformers_version": "4.42.3", "use_cache": true, "head_dim": 16, "is_llama_config": true,
          "rope_interleaved": false, "transformers.js_config": {"dtype": "q4"}, "pad_token_id": 2,
          "layer_types": ["full_attention"], "use_sliding_window": false, "sliding_window": 16,
          "final_logit_softcapping": null, "something_new": null, "unsloth_fixed": true, "dtype": "bfloat16",
          "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "num_experts": 0, )";
  Make("llama", {});
  EXPECT_TRUE(Read(llama + shape + "}").doubts.empty()) << Read(llama + shape + "}").doubts.at(0).text;
  EXPECT_TRUE(Read(Generate(SmallSpec("llama")).value().config_json).doubts.empty());
  // Told, and nothing more: what they decide is not computed.
  for (const char* json :
       {R"({"max_position_embeddings": 128})", R"({"bos_token_id": 1})", R"({"eos_token_id": [1, 2]})"})
    EXPECT_EQ(One(json).kind, Kind::kNote) << json;
}

TEST_F(Declared, WhatIsNotOfferedOrUnknownIsNotHeard) {
  for (const char* json :
       {R"({"something_new": 1})", R"({"final_logit_softcapping": 30.0})", R"({"logits_scaling": 8})",
        R"({"num_local_experts": 8})", R"({"use_qk_norm": true})", R"({"query_pre_attn_scalar": 256})",
        R"({"layer_types": ["sliding_attention"]})", R"({"model_type": "gemma2"})",
        R"({"is_causal": false})"}) {
    const Doubt doubt = One(json);
    EXPECT_EQ(doubt.kind, Kind::kUnheard) << json;
    EXPECT_NE(doubt.text.find("config.json"), std::string::npos) << doubt.text;
  }
  Make("bitnet", {{"bitnet.something_new", U32(7)}});
  const std::vector<Doubt> doubts = Read().doubts;
  ASSERT_EQ(doubts.size(), 1u);
  EXPECT_EQ(doubts[0].kind, Kind::kUnheard);
  EXPECT_NE(doubts[0].text.find("bitnet.something_new"), std::string::npos);
  EXPECT_NE(doubts[0].text.find("(7)"), std::string::npos) << doubts[0].text;
  // Keys of other programs are told together, and decide nothing.
  Make("bitnet", {{"somebody.version", U32(1)}, {"llama.rope.freq_base", Float(5)}, {"general.new", U32(1)}});
  ASSERT_EQ(Read().doubts.size(), 1u);
  EXPECT_EQ(Read().doubts[0].kind, Kind::kNote);
  EXPECT_NE(Read().doubts[0].text.find("llama.rope.freq_base, somebody.version"), std::string::npos);
}

TEST_F(Declared, OtherArchitecturesAreHeldAgainstWhatAllMeanAlike) {
  Make("llama", {{"general.architecture", Text("cohere2")},
                 {"cohere2.attention.layer_norm_rms_epsilon", Float(1e-6)},
                 {"cohere2.embedding_length", U32(32)}});
  EXPECT_FALSE(Read().params);
  ExpectContradiction(R"({"rope_theta": 1000000.0, "something_new": 1, "intermediate_size": 9})",
                      "rope_theta", "says 1000000",
                      "has no cohere2.rope.freq_base, for which engines take 10000",
                      {"rope.base=1000000", "rope.base=10000"});
  ExpectContradiction(R"({"rms_norm_eps": 1e-5})", "rms_norm_eps", "says 1e-05", "says 1e-06",
                      {"norm.eps=1e-05", "norm.eps=1e-06"});
  EXPECT_TRUE(Read(R"({"rms_norm_eps": 1e-6, "hidden_size": 32})").doubts.empty());
}

TEST_F(Declared, WhatTheUserSetsCountsAndIsTold) {
  ModelOptions options;
  EXPECT_TRUE(*Declare("norm.eps", "1e-6", &options));
  Declarations d = Read(R"({"rms_norm_eps": 1e-6})", options);
  EXPECT_EQ(d.params->norm_eps.value, 1e-6f);
  EXPECT_EQ(d.params->norm_eps.origin, Origin::kSet);
  ASSERT_EQ(d.doubts.size(), 2u);
  for (const Doubt& doubt : d.doubts) EXPECT_EQ(doubt.kind, Kind::kNote) << doubt.text;
  EXPECT_NE(d.doubts[0].text.find("norm.eps is set, and counts"), std::string::npos);
  EXPECT_NE(d.doubts[1].text.find("norm.eps is set to 1e-06; the model declares 1e-05 [metadata]"),
            std::string::npos);

  options = {};
  EXPECT_TRUE(*Declare("ffn.activation", "silu", &options));
  const Doubt override = One(R"({"hidden_act": "relu2"})", options);
  EXPECT_EQ(override.kind, Kind::kNote);
  EXPECT_EQ(override.text, "ffn.activation is set to silu; the model declares relu2 [config.json]");
  EXPECT_EQ(Read("", options).doubts.size(), 0u);  // it declares nothing
  EXPECT_EQ(Read(R"({"hidden_act": "silu"})", options).doubts.size(), 0u);

  EXPECT_TRUE(*Declare("hf.config", "none", &options));
  options.ffn_activation.reset();
  d = Read(R"({"rms_norm_eps": 1e-6})", options);
  EXPECT_TRUE(d.config_path.empty());
  ASSERT_EQ(d.doubts.size(), 1u);
  EXPECT_EQ(d.doubts[0].kind, Kind::kNote);
  EXPECT_FALSE(*Declare("act.quant", "none", &options));
  for (auto [key, value] : {std::pair{"norm.eps", "-1"},
                            {"norm.eps", "x"},
                            {"rope.base", "0"},
                            {"rope.base", "1e999"},
                            {"rope.scale", "0"},
                            {"rope.scale", "nan"}})
    EXPECT_EQ(Declare(key, value, &options).error().code, Code::kUsage) << key << value;
}

TEST_F(Declared, EveryKeyThatTheTableCallsUsedIsRead) {
  const Architecture* architecture = *ArchitectureOf(GgufFile::Open(folder_ / "m.gguf").value());
  const GgufFile file = GgufFile::Open(folder_ / "m.gguf").value();
  const Keys keys(file, "bitnet");
  ASSERT_TRUE(ReadHyperParameters(keys, *architecture).ok());
  std::set<std::string, std::less<>> used;
  for (const KeyRow& row : ArchitectureKeys())
    if (row.role == KeyRole::kUsed && row.key != "vocab_size")
      used.emplace(row.key);  // beside the tensors (declared.cc)
  EXPECT_EQ(keys.asked(), used);
}

TEST(Keys, TheLongerNameGoesBeforeAStar) {
  EXPECT_EQ(FindKey(OtherKeys(), "general.alignment")->role, KeyRole::kUsed);
  EXPECT_EQ(FindKey(OtherKeys(), "general.sampling.temp")->role, KeyRole::kNothing);
  EXPECT_EQ(FindKey(ArchitectureKeys(), "expert_count")->role, KeyRole::kOption);
  EXPECT_EQ(FindKey(ArchitectureKeys(), "expert_group_used_count")->role, KeyRole::kNothing);
  EXPECT_EQ(FindKey(ArchitectureKeys(), "rope.freq_bases"), nullptr);
}

// docs/format_gguf.md tells users what is heard.
TEST(Keys, TheDocumentationHasEachOfThem) {
  const std::string docs = ReadFile(SourcePath("docs/format_gguf.md")).value();
  auto expect = [&](std::string key) { EXPECT_NE(docs.find("`" + key + "`"), std::string::npos) << key; };
  for (const KeyRow& row : ArchitectureKeys()) expect("ARCH." + std::string(row.key));
  for (const KeyRow& row : OtherKeys()) expect(std::string(row.key));
  for (const ConfigFieldText& row : ConfigFields()) expect(std::string(row.field));
}

TEST(Keys, NoneStandsTwiceInATable) {
  for (auto table : {ArchitectureKeys(), OtherKeys()}) {
    std::set<std::string_view> seen;
    for (const KeyRow& row : table) EXPECT_TRUE(seen.insert(row.key).second) << row.key;
  }
  std::set<std::string_view> seen;
  for (const ConfigFieldText& row : ConfigFields()) EXPECT_TRUE(seen.insert(row.field).second) << row.field;
}

// transformers' rule by hand for base 10000, 4 dimensions, factor 8, trained on 8192: waves 2 pi
// and 2 pi * 100 = 628, both shorter than 8192 / 4; with 512 positions the second one is longer
// than 512.
TEST(RopeFreqs, FollowTheRuleOfLlama3) {
  EXPECT_EQ(RopeFactors({8, 1, 4, 8192}, 1e4, 4), (std::vector<double>{1, 1}));
  EXPECT_EQ(RopeFactors({8, 1, 4, 512}, 1e4, 4), (std::vector<double>{1, 8}));
  // Between the two: wave 628.3, n_ctx 1024, smooth (1024 / 628.3 - 1) / 3 = 0.20992, 1 / ((1 - s)
  // / 8 + s) = 3.239.
  EXPECT_NEAR(RopeFactors({8, 1, 4, 1024}, 1e4, 4)[1], 3.239, 1e-3);
}

// A tensor of each type in a file, changed, and what is found of it.
std::vector<NonFiniteTensor> Scan(uint32_t type, std::vector<uint64_t> shape, uint64_t at, uint64_t bits,
                                  int n_bytes) {
  std::vector<std::byte> data(TensorBytes(type, shape).value());
  for (int i = 0; i < n_bytes; ++i)
    data[at + static_cast<uint64_t>(i)] = static_cast<std::byte>(bits >> (8 * i));
  GgufWriter out;
  out.AddString("general.architecture", "llama");
  out.AddTensor("w", type, shape, data);
  return FindNonFinite(GgufFile::Parse(out.Serialise()).value());
}

TEST(NonFinite, IsFoundInEveryTypeByRow) {
  struct Place {
    uint32_t type;
    uint64_t columns, block_bytes, at;
  };
  // Offsets of the scales as in ggml-common.h.
  for (const Place& p :
       {Place{8, 256, 34, 0}, Place{3, 256, 20, 2}, Place{2, 256, 18, 0}, Place{12, 256, 144, 2},
        Place{14, 256, 210, 208}, Place{34, 256, 54, 52}, Place{35, 256, 66, 64}, Place{1, 256, 2, 0},
        Place{11, 256, 110, 108}, Place{10, 256, 84, 80}}) {
    const uint64_t row_bytes = TensorBytes(p.type, std::vector<uint64_t>{p.columns, 1}).value();
    const auto nan = Scan(p.type, {p.columns, 5}, 3 * row_bytes + p.at, 0x7e00, 2);
    ASSERT_EQ(nan.size(), 1u) << p.type;
    EXPECT_EQ(nan[0].Text(), "w, row 3, holds NaN") << p.type;
    const auto infinite = Scan(p.type, {p.columns, 5}, 4 * row_bytes + p.at, 0xfc00, 2);
    ASSERT_EQ(infinite.size(), 1u) << p.type;
    EXPECT_EQ(infinite[0].Text(), "w, row 4, holds infinity") << p.type;
    // the largest finite f16
    EXPECT_TRUE(Scan(p.type, {p.columns, 5}, p.at, 0x7bff, 2).empty()) << p.type;
  }
  EXPECT_EQ(Scan(0, {8, 2}, 36, 0x7fc00000, 4).at(0).Text(), "w, row 1, holds NaN");
  EXPECT_EQ(Scan(30, {8, 2}, 4, 0x7f80, 2).at(0).Text(), "w, row 0, holds infinity");
  EXPECT_EQ(Scan(0, {8}, 20, 0x7fc00000, 4).at(0).Text(), "w, value 5, holds NaN");
  EXPECT_TRUE(Scan(8, {256, 2}, 5, 0x7e00, 2).empty());  // codes, not a scale
}

TEST(NonFinite, NamesTheFirstRowsAndCountsTheOthers) {
  std::vector<std::byte> data(4 * 10);
  for (int i : {1, 3, 4, 5, 7, 8}) StoreLe(data.data() + 4 * i, i == 3 ? INFINITY : NAN);
  GgufWriter out;
  out.AddString("general.architecture", "llama");
  out.AddTensor("w", 0, {1, 10}, data);
  EXPECT_EQ(FindNonFinite(GgufFile::Parse(out.Serialise()).value()).at(0).Text(),
            "w, rows 1, 3, 4, 5 and 2 more, hold NaN and infinity");
}

}  // namespace
}  // namespace pb
