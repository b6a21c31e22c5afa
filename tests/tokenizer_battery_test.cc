// Token ids of the bundled models on the hard battery, and reading of tokenizer keys from GGUF.
// Needs no reference: the ids are llama.cpp's, recorded (and recorded again by
// `tokenizer_reference_test --record`).
#include "tokenizer_battery.h"

#include <gtest/gtest.h>

namespace pb {
namespace {

TEST(TokenizerBattery, IdsAreThoseRecordedFromLlamaCpp) {
  const std::vector<BatteryCase> cases = LoadBattery();
  ASSERT_GE(cases.size(), 250u);
  for (const std::string& model : kTinyModels) {
    auto tokenizer = LoadTokenizer(TinyModelPath(model));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
    EXPECT_TRUE((*tokenizer)->findings().empty());
    for (const BatteryCase& c : cases) {
      for (size_t option = 0; option < kOptions; ++option) {
        auto ids = (*tokenizer)->Encode(c.text, {(option & 1) != 0, (option & 2) != 0});
        ASSERT_TRUE(ids.ok()) << ids.error().message;
        EXPECT_EQ(*ids, c.ids.at(model)[option])
            << model << ", option " << option << ": " << testing::PrintToString(c.text);
      }
    }
  }
}

// The bundled vocabularies hold all bytes, so text that is UTF-8 comes back.
TEST(TokenizerBattery, DecodingGivesTheTextBack) {
  auto tokenizer = LoadTokenizer(TinyModelPath(kTinyModels[0]));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  std::ifstream file(kBatteryPath);
  const nlohmann::json data = nlohmann::json::parse(file);
  int n = 0;
  for (const auto& item : data["cases"]) {
    if (!item.contains("text")) continue;
    const std::string text = item["text"];
    auto ids = (*tokenizer)->Encode(text, {false, true});
    ASSERT_TRUE(ids.ok()) << ids.error().message;
    auto back = (*tokenizer)->Decode(*ids, true);
    ASSERT_TRUE(back.ok()) << back.error().message;
    EXPECT_EQ(*back, text);
    ++n;
  }
  EXPECT_GE(n, 150);
}

GgufWriter SmallVocabulary() {
  GgufWriter writer;
  writer.AddString("tokenizer.ggml.model", "gpt2");
  std::vector<std::string> tokens;
  for (char c = 'a'; c <= 'z'; ++c) tokens.emplace_back(1, c);
  writer.AddStrings("tokenizer.ggml.tokens", tokens);
  writer.AddStrings("tokenizer.ggml.merges", {"a b"});
  return writer;
}

Result<TokenizerData> Read(const GgufWriter& writer) {
  PB_ASSIGN(GgufFile file, GgufFile::Parse(writer.Serialise()));
  return ReadTokenizerData(file);
}

TEST(TokenizerKeys, DefaultsOfMissingKeys) {
  auto bare = Read(SmallVocabulary());
  ASSERT_TRUE(bare.ok()) << bare.error().message;
  EXPECT_EQ(bare->pre, "");
  EXPECT_EQ(bare->bos, 11);
  EXPECT_EQ(bare->eos, 11);
  EXPECT_FALSE(bare->add_bos);
  EXPECT_TRUE(bare->token_types.empty());
  GgufWriter llama3 = SmallVocabulary();
  llama3.AddString("tokenizer.ggml.pre", "llama-bpe");
  EXPECT_TRUE(Read(llama3)->add_bos);
  llama3.AddBool("tokenizer.ggml.add_bos_token", false);
  EXPECT_FALSE(Read(llama3)->add_bos);
}

TEST(TokenizerKeys, AreAllRead) {
  GgufWriter writer = SmallVocabulary();
  writer.AddString("general.name", "n");
  writer.AddString("tokenizer.ggml.pre", "smollm");
  writer.AddInts("tokenizer.ggml.token_type", std::vector<int32_t>(26, 4));
  uint32_t id = 1;
  for (const char* key :
       {"bos", "eos", "eot", "eom", "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep"}) {
    writer.AddUint32(fmt::format("tokenizer.ggml.{}_token_id", key), id++);
  }
  writer.AddBool("tokenizer.ggml.add_bos_token", true);
  writer.AddBool("tokenizer.ggml.add_eos_token", true);
  writer.AddString("tokenizer.chat_template", "{{ 1 }}");
  auto data = Read(writer);
  ASSERT_TRUE(data.ok()) << data.error().message;
  EXPECT_EQ(data->name + data->pre + data->chat_template + data->model, "nsmollm{{ 1 }}gpt2");
  EXPECT_EQ((Ids{data->bos, data->eos, data->eot, data->eom}), (Ids{1, 2, 3, 4}));
  EXPECT_EQ(data->fim, (std::array<int32_t, 6>{5, 6, 7, 8, 9, 10}));
  EXPECT_TRUE(data->add_bos && data->add_eos);
  EXPECT_EQ(data->token_types, Ids(26, 4));
  EXPECT_EQ(data->merges, std::vector<std::string>{"a b"});
  writer.AddUint32("tokenizer.ggml.middle_token_id", 20);  // the older name comes last
  EXPECT_EQ(Read(writer)->fim[2], 20);
}

TEST(TokenizerKeys, ErrorsNameTheKey) {
  auto refused = [](auto change) {
    GgufWriter writer = SmallVocabulary();
    change(&writer);
    auto data = Read(writer);
    return data.ok() ? "accepted" : data.error().message;
  };
  EXPECT_EQ(refused([](auto* w) { w->AddUint32("tokenizer.ggml.bos_token_id", 26); }),
            "tokenizer.ggml.bos_token_id is 26, beyond the vocabulary of 26 tokens");
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.token_type"}) {
    EXPECT_NE(refused([&](auto* w) { w->AddString(key, "x"); }).find(key), std::string::npos) << key;
  }
  auto data = Read(GgufWriter());
  ASSERT_FALSE(data.ok());
  EXPECT_NE(data.error().message.find("tokenizer.ggml.model"), std::string::npos);
}

}  // namespace
}  // namespace pb
