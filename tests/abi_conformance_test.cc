// What every engine plugin promises, tested through the host: abi_conformance_test PLUGIN MODEL [KEY=VALUE...] [--any-file]
// [--varies] [--recorded=FOLDER] [--without=ABILITY,...] [--inexact=STAGE,...|all] [gtest flags]. "@NAME" is a reference or model that is set up.
//   --any-file  the engine does not read the model file, so a damaged one is no error
//   --varies    the engine promises no equal bits between one evaluation and the same in pieces
//   --without   abilities the engine does not offer: tokenize outputs inputs overwrite noise replay; one that is missing and
//               not named is a failure
//   --recorded  the engine knows one text alone: that of this trace, whose first 7 tokens are evaluated instead of any others
//   --inexact   stages where overwriting with the tensor just handed over may change the logits (rounded on the way)
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "abi/engine.h"
#include "base/file.h"
#include "host/engine.h"
#include "setup/setup.h"
#include "stages/stages.h"
#include "trace/reader.h"

namespace pb::host {
namespace {

struct Subject {
  std::filesystem::path plugin, model;
  Settings settings;
  bool any_file = false;
  bool varies = false;
  std::vector<int32_t> recorded;  // tokens to evaluate; empty: any will do
  std::set<std::string> inexact, without;
};
Subject subject;

constexpr double kSplitLimit =
    5e-2;  // rel-L2 of logits, where an engine promises no equal bits (docs/numerics.md)

constexpr int32_t kTokens = 7;

using Values = std::vector<float>;
using PointKey = std::pair<int32_t, int32_t>;  // stage, layer

// Everything one evaluation handed over.
struct Trace {
  Values logits;
  int64_t first_logits = -1;
  std::map<PointKey, std::vector<Event>> points;  // data of the tensors is in `values`
  std::map<PointKey, Values> values;              // rows in order of arrival
  std::map<PointKey, std::map<std::string, Values>> inputs;
};

const char* StageName(int32_t stage) { return stage < 0 ? "unmapped" : pb_vocabulary[stage].name; }

bool Contains(const std::vector<int32_t>& list, int32_t value) {
  return std::ranges::find(list, value) != list.end();
}

double RelL2(const Values& a, const Values& b) {
  if (a.size() != b.size()) return INFINITY;
  double difference = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    norm += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(difference / norm);
}

// Whether an op's input is the output it names. Inputs of all earlier positions ("k_rope*") come from the KV cache, which may hold
// them as f16: within half an ulp of that, and half its smallest subnormal.
bool SameInput(int32_t stage, const std::string& name, const Values& output, const Values& input) {
  bool cached = false;
  for (const stages::InputSpec& in : stages::Of(stage).inputs)
    cached |= in.all_positions && name == stages::Of(in.stages[0]).name;
  if (!cached) return output == input;
  return std::ranges::equal(output, input, [](float a, float b) {
    return std::abs(a - b) <= std::max(std::abs(a) * 0x1p-11f, 0x1p-25f);
  });
}

// What every test needs to go on: its failure ends the test with the engine's own message.
template <typename T>
T Must(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}
void Must(const Status& status) {
  if (!status.ok()) throw std::runtime_error(status.error().message);
}

class Conformance : public testing::Test {
 protected:
  void SetUp() override {
    auto engine = Engine::Start(subject.plugin, subject.settings, {60, 0});
    ASSERT_TRUE(engine.ok()) << engine.error().message;
    engine_ = std::move(engine).value();
  }

  void OpenModel() {
    facts_ = Must(engine_->OpenModel(subject.model));
    n_vocab_ = Number("n_vocab");
    if (n_vocab_ <= 0) throw std::runtime_error("model_facts states no n_vocab");
    tokens_.clear();
    tokens_ = subject.recorded;
    if (tokens_.empty())
      for (int32_t i = 0; i < kTokens; ++i) tokens_.push_back(static_cast<int32_t>((i * 37 + 5) % n_vocab_));
  }

  void OpenSession(const Settings& settings = {}) {
    if (facts_.empty()) OpenModel();
    Must(engine_->OpenSession(settings));
    stages_ = Must(engine_->Stages());
  }

  int64_t Number(const char* key) const {
    const Fact* fact = FindFact(facts_, key);
    if (!fact) return -1;
    int64_t value = -1;
    std::from_chars(fact->value.data(), fact->value.data() + fact->value.size(), value);
    return value;
  }

  EvalRequest Request(size_t from, size_t n, int32_t logits_from = 0) const {
    EvalRequest request;
    request.tokens.assign(tokens_.begin() + static_cast<ptrdiff_t>(from),
                          tokens_.begin() + static_cast<ptrdiff_t>(from + n));
    request.first_position = static_cast<int32_t>(from);
    request.logits_from = logits_from;
    return request;
  }

  // Evaluates; each output goes through `overwrite` when there is one.
  Trace Run(const EvalRequest& request, const std::function<void(Values&)>& overwrite = {}) {
    Trace trace;
    Must(engine_->BeginEval(request));
    for (;;) {
      Event event = Must(engine_->Wait());
      if (event.kind == Event::kDone) return trace;
      Values values(event.tensor.data.begin(), event.tensor.data.end());
      Keep(trace, event, values);
      bool replace = overwrite && event.kind == Event::kPoint;
      if (replace) overwrite(values);
      Must(replace ? engine_->Overwrite(values) : engine_->Continue());
    }
  }

  static void Keep(Trace& trace, const Event& event, const Values& values) {
    if (event.kind == Event::kLogits) {
      if (trace.logits.empty()) trace.first_logits = event.point.first_position;
      trace.logits.insert(trace.logits.end(), values.begin(), values.end());
      return;
    }
    PointKey key{event.point.stage, event.point.layer};
    trace.points[key].push_back(event);
    trace.values[key].insert(trace.values[key].end(), values.begin(), values.end());
    for (const TensorRef& input : event.inputs) {
      trace.inputs[key][input.name] = Values(input.data.begin(), input.data.end());
    }
  }

  Trace Fresh(const EvalRequest& request, const std::function<void(Values&)>& overwrite = {}) {
    Must(engine_->Reset(0));
    return Run(request, overwrite);
  }

  // Equal bits, or within kSplitLimit where the engine promises no more; the figure is printed.
  void ExpectSame(const Values& a, const Values& b, const char* what) {
    ASSERT_EQ(a.size(), b.size()) << what;
    if (!subject.varies) {
      EXPECT_TRUE(a == b) << what << ": bits differ, rel-L2 " << RelL2(a, b);
      return;
    }
    double distance = RelL2(a, b);
    std::printf("           %s: rel-L2 %.2e\n", what, distance);
    EXPECT_LT(distance, kSplitLimit) << what;
  }

  bool Can(uint64_t capability) const { return (engine_->capabilities() & capability) != 0; }
  bool Observed(int32_t stage) const { return stages_[static_cast<size_t>(stage)].visibility == PB_OBSERVED; }
  std::vector<int32_t> LayersOf(int32_t stage) const {
    if (!pb_vocabulary[stage].per_layer) return {-1};
    std::vector<int32_t> layers;
    for (int32_t i = 0; i < Number("n_layers"); ++i) layers.push_back(i);
    return layers;
  }
  std::vector<PointKey> ReplayInputs(PointKey point) const;
  void ExpectUnits(ReplayRequest replay, const Values& output);
  bool ExpectCodes(ReplayRequest replay, const Values& output);
  std::vector<int64_t> CanonicalShape(int32_t stage, int64_t n, int64_t p) const;
  void CheckPoints(const Trace& trace, int64_t first, int64_t n);
  void CheckAttentionRows(const Trace& trace, int64_t first, int64_t n);
  void CheckSum(const Trace& trace, PointKey sum, PointKey a, PointKey b);

  std::unique_ptr<Engine> engine_;
  Facts facts_;
  int64_t n_vocab_ = 0;
  std::vector<int32_t> tokens_;
  std::vector<StageVisibility> stages_;
};

// A test of an ability that the engine lacks fails, unless the command line says that it does.
#define PB_NEED(capability, name)                                                          \
  if (!Can(capability)) {                                                                  \
    ASSERT_TRUE(subject.without.contains(name)) << "this engine does not offer: " << name; \
    GTEST_SKIP() << "without " << name;                                                    \
  }

// The vocabulary's shape column with the model's own numbers: "(n, n_heads * head_dim)".
std::vector<int64_t> Conformance::CanonicalShape(int32_t stage, int64_t n, int64_t p) const {
  std::vector<int64_t> shape;
  std::string word;
  int64_t product = 1;
  for (char c : std::string(pb_vocabulary[stage].shape)) {
    if (std::isalpha(c) || c == '_') {
      word += c;
      continue;
    }
    if (!word.empty()) product *= word == "n" ? n : word == "p" ? p : Number(word.c_str());
    word.clear();
    if (c == ',' || c == ')') {
      shape.push_back(product);
      product = 1;
    }
  }
  return shape;
}

TEST_F(Conformance, DescribesItself) {
  std::set<std::string> origins = {"metadata", "config.json", "set", "default", "observed"}, keys;
  for (const char* key : {"name", "version", "threads"}) {
    const Fact* fact = FindFact(engine_->description(), key);
    ASSERT_NE(fact, nullptr) << "describe does not state " << key;
    EXPECT_FALSE(fact->value.empty()) << key;
  }
  OpenSession();
  for (const char* key : {"architecture", "n_layers", "d_model", "n_vocab"}) {
    EXPECT_NE(FindFact(facts_, key), nullptr) << "model_facts does not state " << key;
  }
  for (const Facts* facts : {&engine_->description(), static_cast<const Facts*>(&facts_)}) {
    keys.clear();
    for (const Fact& fact : *facts) {
      EXPECT_TRUE(origins.contains(fact.origin)) << fact.key << " has origin \"" << fact.origin << '"';
      EXPECT_TRUE(keys.insert(fact.key).second) << fact.key << " is stated twice";
    }
  }
}

TEST_F(Conformance, RefusesUnknownSettingsByName) {
  Settings settings = subject.settings;
  settings.emplace_back("no.such.setting", "1");
  auto refused = Engine::Start(subject.plugin, settings, {60, 0});
  ASSERT_FALSE(refused.ok()) << "create ignored an unknown setting";
  EXPECT_TRUE(refused.error().code == Code::kUsage || refused.error().code == Code::kUnsupported);
  EXPECT_NE(refused.error().message.find("no.such.setting"), std::string::npos) << refused.error().message;
  OpenModel();
  auto session = engine_->OpenSession({{"no.such.setting", "1"}});
  ASSERT_FALSE(session.ok()) << "session_open ignored an unknown setting";
  EXPECT_NE(session.error().message.find("no.such.setting"), std::string::npos) << session.error().message;
  EXPECT_TRUE(engine_->OpenSession({}).ok());
}

TEST_F(Conformance, BadModelFilesAreErrors) {
  auto directory = std::filesystem::temp_directory_path() / ("abi_conformance_" + std::to_string(getpid()));
  std::filesystem::create_directories(directory);
  auto content = ReadFile(subject.model);
  ASSERT_TRUE(content.ok());
  std::map<std::string, std::string> files = {{"empty", ""},
                                              {"text", "this is no model\n"},
                                              {"head", content->substr(0, 100)},
                                              {"half", content->substr(0, content->size() / 2)}};
  files["magic"] = *content;
  files["magic"][0] ^= 1;
  std::vector<std::filesystem::path> bad = {directory / "missing", directory};
  for (const auto& [name, bytes] : files) {
    std::ofstream(directory / name, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!subject.any_file) bad.push_back(directory / name);
  }
  for (const auto& path : bad) {
    if (subject.any_file && std::filesystem::is_directory(path)) continue;
    auto opened = engine_->OpenModel(path);
    ASSERT_FALSE(opened.ok()) << path << " was opened";
    EXPECT_FALSE(opened.error().message.empty());
  }
  OpenModel();  // the same engine still works
  std::filesystem::remove_all(directory);
}

TEST_F(Conformance, TokenizesAndBack) {
  PB_NEED(PB_CAP_TOKENIZE, "tokenize");
  if (!subject.recorded.empty()) GTEST_SKIP() << "a recording knows one text";
  OpenModel();
  for (const char* text : {"", "a", "Hello, world!", "  two  spaces\n\ttab",
                           "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80", "1234567890"}) {
    auto ids = engine_->Tokenize(text, 0);
    ASSERT_TRUE(ids.ok()) << ids.error().message;
    auto back = engine_->Detokenize(*ids);
    ASSERT_TRUE(back.ok()) << back.error().message;
    EXPECT_EQ(*back, text);
    auto with_special = engine_->Tokenize(text, PB_ADD_SPECIAL);
    ASSERT_TRUE(with_special.ok());
    auto at = std::search(with_special->begin(), with_special->end(), ids->begin(), ids->end());
    EXPECT_TRUE(ids->empty() || at != with_special->end()) << "special tokens stand around the text's own";
  }
  auto invalid = engine_->Tokenize(std::string("\xff\xfe\0\x80", 4), 0);  // an answer or an error, but alive
  auto out_of_range = engine_->Detokenize(std::vector<int32_t>{static_cast<int32_t>(n_vocab_) + 3});
  EXPECT_FALSE(out_of_range.ok());
  EXPECT_TRUE(engine_->Tokenize("still there", 0).ok());
}

TEST_F(Conformance, LogitsFromIsHonoured) {
  OpenSession();
  Trace all = Fresh(Request(0, 6));
  EXPECT_EQ(all.logits.size(), 6 * static_cast<size_t>(n_vocab_));
  EXPECT_TRUE(std::ranges::all_of(all.logits, [](float x) { return std::isfinite(x); }));
  for (int32_t from : {1, 5, 6}) {
    Trace some = Fresh(Request(0, 6, from));
    ASSERT_EQ(some.logits.size(), static_cast<size_t>((6 - from) * n_vocab_)) << from;
    if (from == 6) continue;
    EXPECT_EQ(some.first_logits, from);
    ExpectSame(some.logits, Values(all.logits.begin() + from * n_vocab_, all.logits.end()),
               "logits of some rows");
  }
}

TEST_F(Conformance, WholeOrInPieces) {
  OpenSession();
  Trace whole = Fresh(Request(0, 6));
  for (size_t cut : {1u, 3u}) {
    Trace pieces = Fresh(Request(0, cut));
    for (size_t at = cut; at < 6; at += cut) {
      Trace next = Run(Request(at, cut));
      pieces.logits.insert(pieces.logits.end(), next.logits.begin(), next.logits.end());
    }
    ExpectSame(pieces.logits, whole.logits, cut == 1 ? "one token at a time" : "three tokens at a time");
  }
}

TEST_F(Conformance, ResetForgetsWhatItShould) {
  OpenSession();
  Trace first = Fresh(Request(0, 6));
  EXPECT_TRUE(Fresh(Request(0, 6)).logits == first.logits)
      << "after Reset(0) the same tokens give other bits";
  ASSERT_TRUE(engine_->Reset(4).ok());
  Trace tail = Run(Request(4, 2));
  ExpectSame(tail.logits, Values(first.logits.begin() + 4 * n_vocab_, first.logits.end()), "after Reset(4)");
  ASSERT_TRUE(engine_->Reset(6).ok());
  EXPECT_EQ(Run(Request(6, 1)).logits.size(), static_cast<size_t>(n_vocab_));
}

TEST_F(Conformance, ErrorsLeaveItUsable) {
  OpenSession();
  Trace before = Fresh(Request(0, 3));
  for (int64_t bad : {int64_t{-1}, n_vocab_, int64_t{INT32_MAX}}) {
    ASSERT_TRUE(engine_->Reset(0).ok());
    EvalRequest request = Request(0, 3);
    request.tokens[1] = static_cast<int32_t>(bad);
    Status status = engine_->Eval(request, [](const Event&) { return Status(); });
    EXPECT_FALSE(status.ok()) << "token " << bad << " was evaluated";
  }
  EXPECT_TRUE(Fresh(Request(0, 3)).logits == before.logits);
}

TEST_F(Conformance, ContextLimitIsAnError) {
  OpenModel();
  auto opened = engine_->OpenSession({{"n_ctx", "4"}});
  if (!opened.ok()) {
    EXPECT_NE(opened.error().message.find("n_ctx"), std::string::npos) << opened.error().message;
    return;
  }
  Status status = engine_->Eval(Request(0, 6), [](const Event&) { return Status(); });
  const Fact* took_effect = FindFact(*opened, "n_ctx");
  bool rounded_up =
      took_effect && took_effect->value != "4";  // an engine may take more than asked, and says so
  EXPECT_TRUE(rounded_up || !status.ok()) << "6 tokens were evaluated in a context of 4";
}

TEST_F(Conformance, SessionsFollowEachOther) {
  OpenSession();
  Trace first = Run(Request(0, 6));
  OpenSession();
  EXPECT_TRUE(Run(Request(0, 6)).logits == first.logits)
      << "a new session remembers the old one, or differs from it";
  OpenModel();
  OpenSession();
  EXPECT_TRUE(Run(Request(0, 6)).logits == first.logits) << "the model opened again gives other bits";
}

TEST_F(Conformance, StagesAreDeclaredWithReasons) {
  OpenSession();
  for (int32_t stage = 0; stage < PB_STAGE_COUNT; ++stage) {
    const StageVisibility& seen = stages_[static_cast<size_t>(stage)];
    if (seen.visibility == PB_UNOBSERVABLE) {
      EXPECT_GT(seen.reason.size(), 5u) << StageName(stage);
    }
    if (!Can(PB_CAP_OUTPUTS)) {
      EXPECT_NE(seen.visibility, PB_OBSERVED) << StageName(stage) << ", but taps see no outputs";
    }
  }
}

TEST_F(Conformance, ATapThatWantsNothingChangesNothing) {
  OpenSession();
  Trace plain = Fresh(Request(0, 6));
  EXPECT_TRUE(plain.points.empty());
  EvalRequest request = Request(0, 6);
  request.tap.outputs = request.tap.inputs = true;
  request.tap.layers = {123456};
  Trace tapped = Fresh(request);
  EXPECT_TRUE(tapped.points.empty());
  EXPECT_TRUE(tapped.logits == plain.logits);
}

// Every observed stage once per layer and position, nothing else, in canonical shape.
void Conformance::CheckPoints(const Trace& trace, int64_t first, int64_t n) {
  for (const auto& [key, events] : trace.points) {
    auto [stage, layer] = key;
    ASSERT_GE(stage, 0) << "an unmapped point arrived unasked";
    EXPECT_TRUE(Observed(stage)) << StageName(stage) << " is declared "
                                 << (stages_[static_cast<size_t>(stage)].visibility == PB_ABSENT
                                         ? "absent"
                                         : "unobservable")
                                 << ", but arrived";
    EXPECT_TRUE(Contains(LayersOf(stage), layer)) << StageName(stage) << " of layer " << layer;
    EXPECT_EQ(stages_[static_cast<size_t>(stage)].At(static_cast<pb_stage>(stage), layer), PB_OBSERVED)
        << StageName(stage) << " of layer " << layer << " is not among those that show it, but arrived";
    std::vector<int> seen(static_cast<size_t>(n), 0);
    for (const Event& event : events) {
      int64_t rows = event.tensor.shape[0], from = event.point.first_position - first;
      EXPECT_EQ(event.tensor.shape, CanonicalShape(stage, rows, first + n))
          << StageName(stage) << " of layer " << layer;
      for (int64_t row = std::max<int64_t>(from, 0); row < from + rows && row < n; ++row)
        ++seen[static_cast<size_t>(row)];
    }
    EXPECT_EQ(seen, std::vector<int>(static_cast<size_t>(n), 1))
        << StageName(stage) << " of layer " << layer << ": times each position was handed over";
  }
  for (int32_t stage = 0; stage < PB_STAGE_COUNT; ++stage) {
    if (!Observed(stage)) continue;
    for (int32_t layer : LayersOf(stage)) {
      if (stages_[static_cast<size_t>(stage)].At(static_cast<pb_stage>(stage), layer) != PB_OBSERVED) continue;
      EXPECT_TRUE(trace.points.contains({stage, layer}))
          << StageName(stage) << " of layer " << layer << " is declared observed, but never arrived";
    }
  }
}

// -inf and 0 where the causal mask hides; probabilities add up to one.
void Conformance::CheckAttentionRows(const Trace& trace, int64_t first, int64_t n) {
  int64_t p = first + n, heads = Number("n_heads");
  for (int32_t stage : {PB_STAGE_ATTN_SCORES, PB_STAGE_ATTN_SCORES_SOFTMAX}) {
    auto found = trace.values.find({stage, 0});
    if (found == trace.values.end()) continue;
    ASSERT_EQ(found->second.size(), static_cast<size_t>(n * heads * p));
    for (int64_t row = 0; row < n * heads; ++row) {
      const float* values = found->second.data() + row * p;
      int64_t visible = first + row / heads + 1;
      double sum = 0;
      for (int64_t j = 0; j < visible; ++j) sum += values[j];
      EXPECT_TRUE(std::isfinite(sum)) << StageName(stage) << " row " << row;
      for (int64_t j = visible; j < p; ++j) {
        EXPECT_EQ(values[j], stage == PB_STAGE_ATTN_SCORES ? -INFINITY : 0.0f)
            << StageName(stage) << " row " << row << " column " << j;
      }
      if (stage == PB_STAGE_ATTN_SCORES_SOFTMAX) {
        EXPECT_NEAR(sum, 1.0, 1e-3) << "row " << row;
      }
    }
  }
}

void Conformance::CheckSum(const Trace& trace, PointKey sum, PointKey a, PointKey b) {
  auto s = trace.values.find(sum), x = trace.values.find(a), y = trace.values.find(b);
  if (s == trace.values.end() || x == trace.values.end() || y == trace.values.end()) return;
  ASSERT_EQ(s->second.size(), x->second.size());
  ASSERT_EQ(s->second.size(), y->second.size());
  size_t wrong = 0;
  for (size_t i = 0; i < s->second.size(); ++i) {
    double scale = std::abs(x->second[i]) + std::abs(y->second[i]);
    // Each of the three is rounded to f32 once.
    if (std::abs(static_cast<double>(x->second[i]) + y->second[i] - s->second[i]) > 4 * 0x1p-24 * scale)
      ++wrong;
  }
  EXPECT_EQ(wrong, 0u) << StageName(sum.first) << " of layer " << sum.second << " is not the sum of "
                       << StageName(a.first) << " and " << StageName(b.first);
}

TEST_F(Conformance, EveryObservedStageArrivesOnceInCanonicalShape) {
  PB_NEED(PB_CAP_OUTPUTS, "outputs");
  OpenSession();
  Trace plain = Fresh(Request(0, 6));
  EvalRequest prefill = Request(0, 6), step = Request(6, 1);
  prefill.tap.outputs = step.tap.outputs = true;
  Trace trace = Fresh(prefill), decode = Run(step);
  EXPECT_TRUE(trace.logits == plain.logits) << "being observed changes the logits";
  CheckPoints(trace, 0, 6);
  CheckPoints(decode, 6, 1);
  CheckAttentionRows(trace, 0, 6);
  CheckAttentionRows(decode, 6, 1);
  if (Observed(PB_STAGE_LOGITS)) {
    EXPECT_TRUE(trace.values.at({PB_STAGE_LOGITS, -1}) == trace.logits);
  }
  for (int32_t layer = 0; layer < Number("n_layers"); ++layer) {
    PointKey before =
        layer == 0 ? PointKey{PB_STAGE_EMBEDDINGS, -1} : PointKey{PB_STAGE_LAYER_OUT, layer - 1};
    CheckSum(trace, {PB_STAGE_ATTN_RESIDUAL, layer}, {PB_STAGE_ATTN_OUT, layer}, before);
    CheckSum(trace, {PB_STAGE_LAYER_OUT, layer}, {PB_STAGE_DOWN_PROJ, layer},
             Observed(PB_STAGE_ATTN_RESIDUAL) ? PointKey{PB_STAGE_ATTN_RESIDUAL, layer} : before);
  }
}

TEST_F(Conformance, FiltersSelect) {
  PB_NEED(PB_CAP_OUTPUTS, "outputs");
  OpenSession();
  EvalRequest request = Request(0, 6);
  request.tap.outputs = true;
  request.tap.stages = {PB_STAGE_DOWN_PROJ};
  request.tap.layers = {static_cast<int32_t>(Number("n_layers")) - 1};
  Trace trace = Fresh(request);
  ASSERT_EQ(trace.points.size(), Observed(PB_STAGE_DOWN_PROJ) ? 1u : 0u);
}

TEST_F(Conformance, InputsAreTheOutputsOfEarlierOps) {
  PB_NEED(PB_CAP_INPUTS, "inputs");
  OpenSession();
  EvalRequest request = Request(0, 6);
  request.tap.outputs = request.tap.inputs = true;
  Trace trace = Fresh(request);
  size_t compared = 0;
  for (const auto& [key, inputs] : trace.inputs) {
    for (const auto& [name, values] : inputs) {
      for (int32_t stage = 0; stage < PB_STAGE_COUNT; ++stage) {
        if (name != StageName(stage) || stage >= key.first) continue;
        auto source = trace.values.find({stage, pb_vocabulary[stage].per_layer ? key.second : -1});
        if (source == trace.values.end()) continue;
        EXPECT_TRUE(SameInput(key.first, name, source->second, values))
            << StageName(key.first) << " of layer " << key.second << " takes another " << name;
        ++compared;
      }
    }
  }
  std::printf("           %zu inputs compared with the outputs they name\n", compared);
}

TEST_F(Conformance, OverwritingWithTheSameChangesNothing) {
  PB_NEED(PB_CAP_OVERWRITE, "overwrite");
  OpenSession();
  Trace plain = Fresh(Request(0, 6));
  for (int32_t stage = 0; stage < PB_STAGE_COUNT; ++stage) {
    if (!Observed(stage)) continue;
    EvalRequest request = Request(0, 6);
    request.tap.outputs = true;
    request.tap.stages = {stage};
    Trace same = Fresh(request, [](Values&) {});
    bool inexact = subject.inexact.contains("all") || subject.inexact.contains(StageName(stage));
    ASSERT_EQ(same.logits.size(), plain.logits.size());
    EXPECT_TRUE(same.logits == plain.logits || (inexact && RelL2(same.logits, plain.logits) < kSplitLimit))
        << StageName(stage) << ": rel-L2 " << RelL2(same.logits, plain.logits);
  }
}

TEST_F(Conformance, OverwritingWithOtherValuesReachesTheLogits) {
  PB_NEED(PB_CAP_OVERWRITE, "overwrite");
  OpenSession();
  Trace plain = Fresh(Request(0, 6));
  auto change = [](Values& values) {
    for (size_t i = 0; i < values.size(); i += 7) values[i] = values[i] * 1.5f;
  };
  for (int32_t stage = 0; stage < PB_STAGE_COUNT; ++stage) {
    if (!Observed(stage)) continue;
    EvalRequest request = Request(0, 6);
    request.tap.outputs = true;
    request.tap.stages = {stage};
    request.tap.layers = {LayersOf(stage).front()};
    Trace other = Fresh(request, change);
    EXPECT_FALSE(other.logits == plain.logits) << StageName(stage) << " was overwritten, but nothing changed";
    if (stage != PB_STAGE_LOGITS) continue;
    Values expected = plain.logits;
    change(expected);
    EXPECT_TRUE(other.logits == expected);
  }
  EXPECT_TRUE(Fresh(Request(0, 6)).logits == plain.logits) << "an overwrite outlived its evaluation";
}

// What replay takes for this stage, each with its layer; nothing where one of them is not observed.
std::vector<PointKey> Conformance::ReplayInputs(PointKey point) const {
  stages::Set shown;
  for (const stages::Stage& s : stages::kTable)
    if (Observed(s.id)) shown |= s.id;
  std::vector<PointKey> keys;
  for (const stages::Input& in : stages::InputsOf(static_cast<pb_stage>(point.first), shown)) {
    int32_t layer = point.second, stage = in.stage;
    if (in.previous_layer) layer = layer < 0 ? LayersOf(PB_STAGE_LAYER_OUT).back() : layer - 1;
    if (in.previous_layer && layer < 0) stage = PB_STAGE_EMBEDDINGS;
    if (!Observed(stage)) return {};
    keys.emplace_back(stage, pb_vocabulary[stage].per_layer ? layer : -1);
  }
  return keys;
}

// Units come with the same output, one a value, none negative and none less than what rounding the value itself takes; an engine
// that does not tell them says so.
void Conformance::ExpectUnits(ReplayRequest replay, const Values& output) {
  replay.units = true;
  auto told = engine_->Replay(replay);
  if (!(engine_->capabilities() & PB_CAP_UNITS)) {
    EXPECT_FALSE(told.ok()) << StageName(replay.stage) << ": units without PB_CAP_UNITS";
    return;
  }
  ASSERT_TRUE(told.ok()) << told.error().message;
  EXPECT_TRUE(std::ranges::equal(told->data, output))
      << StageName(replay.stage) << ": asking for units changed the output";
  ASSERT_EQ(told->units.size(), output.size());
  for (size_t i = 0; i < output.size(); ++i) {
    if (std::isinf(output[i])) continue;  // hidden scores
    ASSERT_GE(told->units[i], 0.999f * std::fabs(output[i])) << StageName(replay.stage) << ", value " << i;
  }
}

// Codes come with the same output, with the input's sign and at most its size but for a step. False: the engine or op has none.
bool Conformance::ExpectCodes(ReplayRequest replay, const Values& output) {
  replay.codes = true;
  auto told = engine_->Replay(replay);
  EXPECT_TRUE(told.ok() || told.error().code == Code::kUnsupported) << StageName(replay.stage);
  if (!told.ok()) return false;
  EXPECT_NE(engine_->capabilities() & PB_CAP_CODES, 0u) << "codes without PB_CAP_CODES";
  EXPECT_TRUE(std::ranges::equal(told->data, output))
      << StageName(replay.stage) << ": codes changed the output";
  const Codes& c = told->codes.value();
  EXPECT_TRUE(!c.scheme.empty() && !c.maker.empty() && c.sums.empty() == (c.scheme != "q8_1"));
  for (size_t i = 0; i < c.codes.size(); ++i) {
    const auto row = static_cast<int64_t>(i) / c.n_columns, column = static_cast<int64_t>(i) % c.n_columns;
    const float scale = c.scales[static_cast<size_t>(row * c.n_blocks() + column / c.block)];
    const float value = static_cast<float>(c.codes[i]) * scale, x = replay.inputs[0].second[i];
    const bool right = value * x >= 0 && std::fabs(value) <= std::fabs(x) + std::fabs(scale);
    EXPECT_TRUE(right) << StageName(replay.stage) << ": code " << int{c.codes[i]} << " for the value " << x;
    if (!right) break;
  }
  return true;
}

TEST_F(Conformance, ReplayGivesWhatTheEngineComputed) {
  PB_NEED(PB_CAP_REPLAY, "replay");
  OpenSession();
  EvalRequest request = Request(0, 6);
  request.tap.outputs = true;
  Trace trace = Fresh(request);
  size_t replayed = 0, with_codes = 0;
  for (const auto& [point, events] : trace.points) {
    std::vector<PointKey> keys = ReplayInputs(point);
    if (keys.empty() || events.size() != 1 || point.second > 1) continue;
    ReplayRequest replay;
    replay.stage = point.first;
    replay.layer = point.second;
    for (const PointKey& key : keys) {
      ASSERT_EQ(trace.points.at(key).size(), 1u) << StageName(key.first);
      replay.inputs.emplace_back(trace.points.at(key)[0].tensor.shape, trace.values.at(key));
    }
    auto output = engine_->Replay(replay);
    ASSERT_TRUE(output.ok()) << output.error().message;
    Values again(output->data.begin(), output->data.end());
    const Values& seen = trace.values.at(point);
    bool inexact = subject.inexact.contains("all") || subject.inexact.contains(StageName(point.first));
    EXPECT_EQ(output->shape, events[0].tensor.shape) << StageName(point.first);
    EXPECT_TRUE(again == seen || (inexact && RelL2(again, seen) < kSplitLimit))
        << StageName(point.first) << " of layer " << point.second << ": rel-L2 " << RelL2(again, seen);
    ExpectUnits(replay, again);
    with_codes += ExpectCodes(replay, again);
    replay.variation = "no.such.variation=1";
    auto varied = engine_->Replay(replay);
    EXPECT_FALSE(varied.ok()) << StageName(point.first) << " was replayed under an unknown variation";
    ++replayed;
  }
  EXPECT_GT(replayed, 0u);
  EXPECT_EQ(with_codes > 0, (engine_->capabilities() & PB_CAP_CODES) != 0)
      << "no product of this model gave codes";
  std::printf("           %zu points replayed, %zu with codes\n", replayed, with_codes);
}

// A norm without eps of zeros is 0 / 0.
TEST_F(Conformance, AReplayThatGivesNoNumberLeavesItUsable) {
  PB_NEED(PB_CAP_REPLAY, "replay");
  OpenSession();
  const int64_t width = Number("d_model");
  ASSERT_GT(width, 0) << "model_facts states no d_model";
  ReplayRequest replay;
  replay.stage = PB_STAGE_ATTN_NORM;
  replay.units = (engine_->capabilities() & PB_CAP_UNITS) != 0;
  for (float value : {0.0f, NAN}) {
    replay.inputs = {{{1, width}, Values(static_cast<size_t>(width), value)}};
    replay.variation = value == 0 && (engine_->capabilities() & PB_CAP_VARY) ? "norm.eps=0" : "";
    (void)engine_->Replay(replay).ok();  // an error or NaN, as it likes
    replay.variation.clear();
    replay.inputs = {{{1, width}, Values(static_cast<size_t>(width), 1.0f)}};
    auto again = engine_->Replay(replay);
    ASSERT_TRUE(again.ok()) << "after a replay of " << value << ": " << again.error().message;
  }
}

TEST_F(Conformance, RandomRoundingIsSeeded) {
  PB_NEED(PB_CAP_NOISE, "noise");
  OpenSession();
  Trace plain = Run(Request(0, 6));
  std::vector<Values> noisy;
  for (const char* seed : {"1", "1", "2"}) {
    OpenSession({{"noise.seed", seed}});
    noisy.push_back(Run(Request(0, 6)).logits);
    ASSERT_EQ(noisy.back().size(), plain.logits.size());
    EXPECT_LT(RelL2(noisy.back(), plain.logits), 0.2);
  }
  EXPECT_TRUE(noisy[0] == noisy[1]) << "the same seed gives other bits";
  EXPECT_FALSE(noisy[0] == noisy[2]) << "another seed gives the same bits";
  EXPECT_FALSE(noisy[0] == plain.logits) << "noise.seed does nothing";
  OpenSession();
  EXPECT_TRUE(Run(Request(0, 6)).logits == plain.logits) << "the noise outlives its session";
}

TEST_F(Conformance, StopEndsAnEvaluation) {
  OpenSession();
  Trace plain = Fresh(Request(0, 6));
  ASSERT_TRUE(engine_->Reset(0).ok());
  EvalRequest request = Request(0, 6);
  request.tap.outputs = true;
  int events = 0;
  Status status = engine_->Eval(request, [&](const Event&) -> Status {
    return ++events == 3 || !Can(PB_CAP_OUTPUTS) ? Status(MakeError(Code::kInterrupted, "enough")) : Status();
  });
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message, "enough");
  EXPECT_TRUE(Run(Request(0, 6)).logits == plain.logits) << "an evaluation given up leaves something behind";
}

std::set<std::string> Split(const std::string& list) {
  std::set<std::string> parts;
  std::stringstream stream(list);
  for (std::string part; std::getline(stream, part, ',');) parts.insert(part);
  return parts;
}

bool ParseArguments(int argc, char** argv) {
  std::vector<std::string> places;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument == "--any-file") {
      subject.any_file = true;
    } else if (argument == "--varies") {
      subject.varies = true;
    } else if (argument.starts_with("--recorded=")) {
      auto trace = Must(trace::Trace::Open(argument.substr(11)));
      const auto& tokens = trace.manifest().tokens;
      if (tokens.size() < kTokens) throw std::runtime_error("the trace has fewer than 7 tokens");
      subject.recorded.assign(tokens.begin(), tokens.begin() + kTokens);
    } else if (argument.starts_with("--inexact=")) {
      subject.inexact = Split(argument.substr(10));
    } else if (argument.starts_with("--without=")) {
      subject.without = Split(argument.substr(10));
    } else if (size_t equals = argument.find('='); places.size() == 2 && equals != std::string::npos) {
      subject.settings.emplace_back(argument.substr(0, equals), argument.substr(equals + 1));
    } else {
      places.push_back(argument);
    }
  }
  if (places.size() != 2) return false;
  subject.plugin = places[0];
  subject.model = places[1];
  if (places[0].starts_with("@")) {
    setup::Reference reference = Must(setup::FindReference(places[0].substr(1)));
    subject.plugin = reference.plugin;
    subject.settings.insert(subject.settings.begin(), reference.settings.begin(), reference.settings.end());
  }
  if (places[1].starts_with("@")) subject.model = Must(setup::FindModel(places[1].substr(1)));
  return true;
}

}  // namespace
}  // namespace pb::host

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  try {
    if (pb::host::ParseArguments(argc, argv)) return RUN_ALL_TESTS();
    std::fprintf(stderr,
                 "usage: abi_conformance_test PLUGIN MODEL [KEY=VALUE...] [--any-file] [--varies] "
                 "[--recorded=FOLDER] [--without=ABILITY,...] "
                 "[--inexact=STAGE,...|all]\n");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
  }
  return 2;
}
