// Token ids against llama.cpp itself: its own test vectors, and the engine in a child process on
// the hard battery and on random text. Fails where the reference or SmolLM2 is missing: `paritybit
// setup-crossval` fetches both.
//   tokenizer_reference_test --record    writes the ids of tests/data/tokenizer_battery.json anew
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>

#include "base/random.h"
#include "host/engine.h"
#include "model/generate.h"
#include "setup/setup.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer_battery.h"

namespace pb {
namespace {

Result<std::unique_ptr<host::Engine>> StartReference(const std::filesystem::path& model) {
  PB_ASSIGN(setup::Reference reference, setup::FindReference("llama.cpp"));
  PB_ASSIGN(auto engine, host::Engine::Start(reference.plugin, reference.settings, {}));
  PB_TRY(engine->OpenModel(model));
  return engine;
}

uint32_t Flags(size_t option) {
  return ((option & 1) ? PB_ADD_SPECIAL : 0) | ((option & 2) ? PB_PARSE_SPECIAL : 0);
}

// ---- llama.cpp's vectors ----

// The gate takes a part of what tools/verify-full takes whole.
bool Whole() { return std::getenv("PARITYBIT_WHOLE") != nullptr; }

// The vocabularies that the bundle brings: every one, so that a new one is read or fails.
std::vector<std::string> Vocabularies() {
  std::vector<std::string> names;
  auto reference = setup::FindReference("llama.cpp");
  if (!reference.ok()) return {"of the reference, which is missing"};
  for (const auto& entry : std::filesystem::directory_iterator(reference->vocabulary_dir)) {
    const std::string file = entry.path().filename().string();
    constexpr std::string_view kHead = "ggml-vocab-", kTail = ".gguf";
    if (file.starts_with(kHead) && file.ends_with(kTail))
      names.push_back(file.substr(kHead.size(), file.size() - kHead.size() - kTail.size()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string NameOfTest(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

class Vectors : public testing::TestWithParam<std::string> {};

// NAME.inp holds texts between separator lines, NAME.out the ids of each, one line a text.
TEST_P(Vectors, AreReproduced) {
  auto reference = setup::FindReference("llama.cpp");
  ASSERT_TRUE(reference.ok()) << reference.error().message;
  const std::filesystem::path path =
      reference->vocabulary_dir / fmt::format("ggml-vocab-{}.gguf", GetParam());
  auto tokenizer = LoadTokenizer(path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  if (!std::filesystem::exists(path.string() + ".inp")) return;  // compared with the engine alone
  std::ifstream in(path.string() + ".inp", std::ios::binary), out(path.string() + ".out");
  const std::string texts((std::istreambuf_iterator<char>(in)), {}), separator = "\n__ggml_vocab_test__\n";
  int n = 0;
  size_t at = 0;
  for (std::string line; std::getline(out, line); ++n) {
    ASSERT_LT(at, texts.size()) << "more lines of ids than texts";
    size_t end = texts.find(separator, at);
    std::string text = texts.substr(at, end - at);
    at = end == std::string::npos ? end : end + separator.size();
    Ids expected;
    std::istringstream numbers(line);
    for (int32_t id; numbers >> id;) expected.push_back(id);
    auto ids = (*tokenizer)->Encode(text, {false, false});
    ASSERT_TRUE(ids.ok()) << ids.error().message;
    EXPECT_EQ(*ids, expected) << testing::PrintToString(text);
  }
  // Each text ends with the separator, but for the last of some files.
  EXPECT_GE(at, texts.size()) << "more texts than lines of ids";
  EXPECT_GE(n, 40);
}

INSTANTIATE_TEST_SUITE_P(LlamaCpp, Vectors, testing::ValuesIn(Vocabularies()), NameOfTest);

TEST(Bundle, HasVectors) {
  auto reference = setup::FindReference("llama.cpp");
  ASSERT_TRUE(reference.ok()) << reference.error().message;
  int n_vectors = 0;
  for (const std::string& name : Vocabularies())
    n_vectors +=
        std::filesystem::exists(reference->vocabulary_dir / fmt::format("ggml-vocab-{}.gguf.inp", name));
  EXPECT_GE(n_vectors, 15);
}

// ---- The engine ----

// Text made to be hard: scripts, classes of white space, digits, code, damaged UTF-8, special
// tokens and parts of them.
class RandomText {
 public:
  RandomText(uint64_t seed, std::vector<std::string> vocabulary)
      : random_(seed), vocabulary_(std::move(vocabulary)) {}

  std::string Next() {
    std::string out;
    for (uint64_t n = 1 + random_.Below(random_.Below(40) == 0 ? 60 : 10); n > 0; --n) out += Piece();
    return out;
  }

 private:
  std::string CodePoints(uint64_t most) {
    constexpr uint32_t kStarts[] = {0x80,    0x300,   0x370,   0x400,   0x600,   0x660,   0x900,
                                    0xE00,   0x1100,  0x2000,  0x2150,  0x2460,  0x3040,  0x4E00,
                                    0xAC00,  0xD7F0,  0xFB00,  0xFF00,  0x10000, 0x1D400, 0x1F100,
                                    0x1F600, 0x20000, 0x2EBF0, 0x31350, 0xE0000, 0xF0000, 0x10FF80};
    std::string out;
    uint32_t start = kStarts[random_.Below(std::size(kStarts))];
    for (uint64_t n = 1 + random_.Below(most); n > 0; --n)
      AppendUtf8(start + static_cast<uint32_t>(random_.Below(0x80)), &out);
    return out;
  }
  std::string OneOf(std::initializer_list<std::string_view> all) {
    return std::string(all.begin()[random_.Below(all.size())]);
  }
  std::string Piece() {
    std::string out;
    switch (random_.Below(10)) {
      case 0:
        return OneOf({"the", " of", "Hello", "don't", "I'LL", "we've", "'s", "'", "CamelCase", " a", "x86_64",
                      "1e-9"});
      case 1:
        return OneOf({"int main() {", "}\n", "\t\treturn 0;", "&&", "->", "!!!", "?!", "\"", "(x)",
                      "http://a.b/c?d=e", "#", "\\n"});
      case 2:
        return OneOf({" ", "  ", "\n", "\n\n", "\r\n", "\t", " \n ", "\xC2\xA0", "\xE3\x80\x80",
                      "\xE2\x80\xA8", "\xC2\x85", "\v", "\f"});
      case 3:
        return OneOf({"\x80", "\xC0\x80", "\xE2\x82", "\xED\xA0\x80", "\xF0\x9F\x98", "\xFF",
                      "\xF8\x88\x80\x80\x80", "\xE0\x80\xAF"});
      case 4: {
        const std::string& token = vocabulary_[random_.Below(vocabulary_.size())];
        return random_.Below(3) > 0 ? token : token.substr(random_.Below(token.size() + 1));
      }
      case 5:
        return OneOf({"<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>", "<|im_", "|>",
                      "<|", "<|endoftext|>", "<s>"});
      case 6:
        for (uint64_t n = 1 + random_.Below(9); n > 0; --n)
          out.push_back(static_cast<char>('0' + random_.Below(10)));
        return out;
      case 7:
        for (uint64_t n = 1 + random_.Below(6); n > 0; --n)
          out.push_back(static_cast<char>(random_.Below(256)));
        return out;
      case 8:
        for (uint64_t n = 1 + random_.Below(12); n > 0; --n)
          out.push_back(static_cast<char>(0x20 + random_.Below(0x5F)));
        return out;
      default:
        return CodePoints(5);
    }
  }

  Random random_;
  std::vector<std::string> vocabulary_;
};

// `n_texts`: the battery, and random ones besides.
void CompareWithEngine(const std::filesystem::path& model, uint64_t seed, size_t n_texts) {
  auto tokenizer = LoadTokenizer(model);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  auto engine = StartReference(model);
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  std::vector<std::string> texts;
  for (const BatteryCase& c : LoadBattery()) texts.push_back(c.text);
  RandomText random(seed, (*tokenizer)->data().tokens);
  while (texts.size() < n_texts) texts.push_back(random.Next());
  size_t compared = 0, refused = 0;
  for (const std::string& text : texts) {
    for (size_t option = 0; option < kOptions; ++option) {
      auto ours = (*tokenizer)->Encode(text, {(option & 1) != 0, (option & 2) != 0});
      auto theirs = (*engine)->Tokenize(text, Flags(option));
      ASSERT_EQ(ours.ok(), theirs.ok()) << testing::PrintToString(text);
      if (!ours.ok()) {
        ++refused;
        continue;
      }
      compared += ours->size();
      ASSERT_EQ(*ours, *theirs) << "option " << option << ": " << testing::PrintToString(text);
      if (option != 3) continue;
      auto text_of_ours = (*tokenizer)->Decode(*ours, true);
      auto text_of_theirs = (*engine)->Detokenize(*ours);
      ASSERT_TRUE(text_of_ours.ok() && text_of_theirs.ok());
      ASSERT_EQ(*text_of_ours, *text_of_theirs);
    }
  }
  EXPECT_GT(compared, n_texts * 20);
  EXPECT_LT(refused, texts.size() / 100);
}

TEST(Engine, AgreesOnTheTinyModels) {
  for (const std::string& model : kTinyModels)
    CompareWithEngine(TinyModelPath(model), 1, Whole() ? 4000 : 1500);
}

TEST(Engine, AgreesOnSmolLM2) {
  auto model = setup::FindModel("smollm2");
  ASSERT_TRUE(model.ok()) << model.error().message;
  CompareWithEngine(*model, 2, Whole() ? 4000 : 1500);
}

// A small model with the tables of a vocabulary, so that the engine opens it. `pre`: in place of the
// vocabulary's own pre-tokeniser.
Result<std::filesystem::path> ModelWithVocabulary(const std::string& name, const std::string& pre = "") {
  PB_ASSIGN(setup::Reference reference, setup::FindReference("llama.cpp"));
  PB_ASSIGN(GgufFile vocabulary,
            GgufFile::Open(reference.vocabulary_dir / fmt::format("ggml-vocab-{}.gguf", name)));
  const auto* tokens = vocabulary.Strings("tokenizer.ggml.tokens");
  if (!tokens) return MakeError(Code::kMalformed, "{} has no tokens", name);
  GenerateSpec spec;
  spec.n_layers = 1, spec.d_model = 32, spec.d_ff = 32, spec.n_heads = 1, spec.n_kv_heads = 1;
  spec.n_vocab = static_cast<int64_t>(tokens->size());
  PB_ASSIGN(GeneratedModel generated, Generate(spec));
  PB_ASSIGN(GgufFile plain, GgufFile::Parse(generated.gguf.Serialise()));
  GgufWriter out;
  for (const auto& [key, value] : plain.metadata())
    if (!key.starts_with("tokenizer.") && key != "general.name") out.Add(key, value);
  for (const auto& [key, value] : vocabulary.metadata()) {
    if (!key.starts_with("tokenizer.") && key != "general.name") continue;
    if (pre.empty() || key != "tokenizer.ggml.pre") out.Add(key, value);
  }
  if (!pre.empty()) out.AddString("tokenizer.ggml.pre", pre);
  for (const GgufTensor& t : plain.tensors())
    out.AddTensor(t.name, t.type_id, t.shape, {t.data.begin(), t.data.end()});
  const std::filesystem::path path =
      std::filesystem::path(testing::TempDir()) / fmt::format("paritybit-{}-{}.gguf", name, getpid());
  PB_TRY(out.Write(path));
  return path;
}

class Vocabulary : public testing::TestWithParam<std::string> {};

TEST_P(Vocabulary, AgreesWithTheEngine) {
  auto model = ModelWithVocabulary(GetParam());
  ASSERT_TRUE(model.ok()) << model.error().message;
  CompareWithEngine(*model, 3, Whole() ? 300 : 120);
  std::filesystem::remove(*model);
}
// Those that an engine opens quickly; all of them where all is asked for.
std::vector<std::string> QuickVocabularies() {
  std::vector<std::string> names = Vocabularies();
  auto reference = setup::FindReference("llama.cpp");
  if (Whole() || !reference.ok()) return names;
  constexpr uintmax_t kQuickBytes = 6 << 20;
  std::erase_if(names, [&](const std::string& name) {
    return std::filesystem::file_size(reference->vocabulary_dir / fmt::format("ggml-vocab-{}.gguf", name)) >
           kQuickBytes;
  });
  return names;
}
INSTANTIATE_TEST_SUITE_P(LlamaCpp, Vocabulary, testing::ValuesIn(QuickVocabularies()), NameOfTest);

// The first name of every row of the table, over the merges of GPT-2's vocabulary or, where tokens are
// characters, of Gemma 4's.
TEST(Engine, AgreesOnEveryPreTokeniser) {
  std::istringstream names(PreTokenizerNames());
  std::vector<const PreTokenizerRow*> seen;
  for (std::string name; names >> name;) {
    const PreTokenizerRow* row = FindPreTokenizer(name);
    if (std::find(seen.begin(), seen.end(), row) != seen.end() || row->characters) continue;
    seen.push_back(row);
    // Opening the engine takes most of the time.
    if (!Whole() && seen.size() % 3 != 1) continue;
    SCOPED_TRACE(name);
    auto model = ModelWithVocabulary("gpt-2", name);
    ASSERT_TRUE(model.ok()) << model.error().message;
    CompareWithEngine(*model, 4, 120);
    std::filesystem::remove(*model);
    if (testing::Test::HasFatalFailure()) return;
  }
  EXPECT_GE(seen.size(), 29u);
}

// What llama.cpp throws on is an error on both sides, and neither dies of it.
TEST(Engine, RefusesTheSameText) {
  auto engine = StartReference(TinyModelPath(kTinyModels[0]));
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  EXPECT_FALSE((*engine)->Tokenize("a\xF4\x90\x80\x80", 0).ok());
  EXPECT_TRUE((*engine)->Tokenize("a\xF4\x8F\xBF\xBF", 0).ok());
}

// ---- Recording ----

Status Record() {
  std::ifstream file(kBatteryPath);
  nlohmann::ordered_json data = nlohmann::ordered_json::parse(file);
  const std::vector<BatteryCase> cases = LoadBattery();
  for (const std::string& model : kTinyModels) {
    PB_ASSIGN(auto engine, StartReference(TinyModelPath(model)));
    for (size_t i = 0; i < cases.size(); ++i) {
      auto& recorded = data["cases"][i]["ids"][model] = nlohmann::ordered_json::array();
      for (size_t option = 0; option < kOptions; ++option) {
        PB_ASSIGN(Ids ids, engine->Tokenize(cases[i].text, Flags(option)));
        recorded.push_back(ids);
      }
    }
  }
  PB_ASSIGN(setup::Reference reference, setup::FindReference("llama.cpp"));
  data["engine"] = reference.name + " " + reference.version;
  std::ofstream out(kBatteryPath);
  out << "{\n";
  for (const auto& [key, value] : data.items()) {
    if (key != "cases") out << nlohmann::json(key) << ": " << value << ",\n";
  }
  out << "\"cases\": [\n";
  for (size_t i = 0; i < cases.size(); ++i) {
    out << data["cases"][i].dump(-1, ' ', true) << (i + 1 < cases.size() ? ",\n" : "\n");
  }
  out << "]}\n";
  return out.flush() ? Status() : Status(MakeError(Code::kIo, "{}: not written", kBatteryPath));
}

}  // namespace
}  // namespace pb

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (argc == 2 && std::string_view(argv[1]) == "--record") {
    pb::Status status = pb::Record();
    if (!status.ok()) std::fprintf(stderr, "%s\n", status.error().message.c_str());
    return status.ok() ? 0 : 1;
  }
  return RUN_ALL_TESTS();
}
