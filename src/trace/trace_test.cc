// Traces written and read back: levels, cuts at every byte, flipped bits, damage named by its
// byte.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/file.h"
#include "formats/safetensors.h"
#include "trace/measure.h"
#include "trace/reader.h"
#include "trace/writer.h"

namespace pb::trace {
namespace {

namespace fs = std::filesystem;
constexpr float kInf = std::numeric_limits<float>::infinity();

// A folder of its own for each test, removed afterwards.
class TraceTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "pb_trace_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override { fs::remove_all(root_); }

  void Put(const fs::path& path, std::string_view text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path, std::ios::binary) << text;
  }

  fs::path root_;
};

Manifest Head(Level level, bool per_row = false) {
  Manifest m;
  m.level = level;
  m.per_row = per_row;
  m.engine = "test \"quoted\"";
  m.engine_facts = {{"name", "test", "observed"}};
  m.model_path = "m.gguf";
  m.model_sha256 = std::string(64, 'a');
  m.prompt = "And God said";
  m.unobservable = {{"ffn_act", "inside \"ffn_gated\""}};
  return m;
}

const std::vector<float> kValues = {1.0f, -2.5f, 3.25f, 0.0f, 1e-3f, -0.0f};
// By the official C implementation over those 24 bytes.
constexpr char kValuesBlake3[] = "ebb7793ef69819e560e739511b2d75c7099e3e79255cd64104757e775ceb1b79";

Status WriteTwoSteps(Writer& writer) {
  std::vector<int32_t> prompt = {5, 6}, next = {7};
  std::vector<int64_t> two = {2, 3}, one = {1, 3}, scores = {1, 2, 3};
  std::vector<float> row(kValues.begin(), kValues.begin() + 3),
      hidden = {1, kInf, -kInf, std::nanf(""), 2, -kInf};
  PB_TRY(writer.BeginStep(0, prompt));
  PB_TRY(writer.Append({.stage = PB_STAGE_EMBEDDINGS, .native_name = ""}, two, kValues));
  PB_TRY(writer.Append({.stage = PB_STAGE_Q_PROJ, .native_name = "", .layer = 3, .first_position = 1}, one,
                       row));
  PB_TRY(writer.BeginStep(2, next));
  PB_TRY(writer.Append({.stage = PB_STAGE_ATTN_SCORES, .native_name = "", .layer = 3, .first_position = 2},
                       scores, hidden));
  PB_TRY(writer.Append({.native_name = "odd op", .layer = 0, .first_position = 2}, one, row));
  return {};
}

TEST_F(TraceTest, MeasuresByHand) {
  Measures m = Measure(kValues, 2);
  EXPECT_EQ(m.blake3, kValuesBlake3);
  EXPECT_DOUBLE_EQ(m.rms, std::sqrt((1 + 6.25 + 10.5625 + static_cast<double>(1e-3f) * 1e-3f) / 6));
  ASSERT_EQ(m.row_rms.size(), 2u);
  EXPECT_FLOAT_EQ(m.row_rms[0], std::sqrt(17.8125f / 3));
  EXPECT_EQ(m.n_nan + m.n_positive_inf + m.n_negative_inf, 0);
  // Sizes over the finite values alone: 1 and 2 here, in eleven so that vector and rest are both
  // used.
  std::vector<float> wild = {1, kInf, -kInf, std::nanf(""), 0, 0, 0, 0, 2, -kInf, std::nanf("")};
  m = Measure(wild, 1);
  EXPECT_DOUBLE_EQ(m.rms, std::sqrt(5.0 / 6));
  EXPECT_EQ(m.n_nan, 2);
  EXPECT_EQ(m.n_positive_inf, 1);
  EXPECT_EQ(m.n_negative_inf, 2);
}

TEST_F(TraceTest, WhatIsWrittenIsRead) {
  auto folder = root_ / "deep" / "trace";
  auto writer = Writer::Create(folder, Head(Level::kFull, true));
  ASSERT_TRUE(writer.ok()) << writer.error().message;
  ASSERT_TRUE(WriteTwoSteps(**writer).ok());
  ASSERT_TRUE((*writer)->Finish(std::string(64, 'b'), std::string(64, 'c')).ok());
  auto trace = Trace::Open(folder);
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  const Manifest& m = trace->manifest();
  EXPECT_TRUE(m.complete);
  EXPECT_EQ(m.engine, "test \"quoted\"");
  EXPECT_EQ(m.tokens, (std::vector<int32_t>{5, 6, 7}));
  EXPECT_EQ(m.n_prompt, 2);
  EXPECT_EQ(m.logits_blake3_untapped, std::string(64, 'c'));
  ASSERT_EQ(m.engine_facts.size(), 1u);
  EXPECT_EQ(m.engine_facts[0].origin, "observed");
  ASSERT_EQ(trace->records().size(), 4u);
  const Record& embeddings = trace->records()[0];
  EXPECT_EQ(embeddings.name, "t0/embeddings");
  EXPECT_EQ(embeddings.blake3, kValuesBlake3);
  EXPECT_EQ(embeddings.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(embeddings.num_elements, 6);
  EXPECT_EQ(embeddings.layer, -1);
  EXPECT_EQ(embeddings.first_position, 0);
  EXPECT_EQ(embeddings.row_blake3.size(), 2u);
  EXPECT_EQ(embeddings.row_sketch.size(), 2u);
  EXPECT_TRUE(embeddings.sketch.has_value());
  EXPECT_EQ(trace->records()[1].name, "t0/blk3/q_proj@1");  // does not begin where its step begins
  EXPECT_EQ(trace->records()[1].stage_id, PB_STAGE_Q_PROJ);
  const Record& scores = trace->records()[2];
  EXPECT_EQ(scores.name, "t1/blk3/attn_scores");
  EXPECT_EQ(scores.n_nan, 1);
  EXPECT_EQ(scores.n_positive_inf, 1);
  EXPECT_EQ(scores.n_negative_inf, 2);
  EXPECT_EQ(trace->records()[3].stage_id, PB_STAGE_UNMAPPED);
  EXPECT_EQ(trace->records()[3].stage, "odd op");
  auto values = trace->Payload(embeddings);
  ASSERT_TRUE(values.ok()) << values.error().message;
  EXPECT_EQ(*values, kValues);
  std::vector<float> second_row(kValues.begin() + 3, kValues.end());
  EXPECT_EQ(trace->PayloadRows(embeddings, 1, 1).value(), second_row);
  EXPECT_TRUE(trace->PayloadRows(embeddings, 2, 0).value().empty());
  for (auto [first, n] : {std::pair<int64_t, int64_t>{-1, 1}, {0, 3}, {3, 0}, {1, INT64_MAX}, {0, -1}})
    EXPECT_EQ(trace->PayloadRows(embeddings, first, n).error().code, Code::kUsage) << first << " " << n;
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  EXPECT_EQ(m.unobservable, (Pairs{{"ffn_act", "inside \"ffn_gated\""}}));
  // The payload is a safetensors file like any other.
  auto file = SafetensorsFile::Open(folder / "payload-00000.safetensors");
  ASSERT_TRUE(file.ok()) << file.error().message;
  ASSERT_NE(file->Find("t0/embeddings"), nullptr);
  EXPECT_EQ(file->Find("t0/embeddings")->Floats().value(), kValues);
}

TEST_F(TraceTest, LevelsHoldWhatTheySay) {
  for (Level level : {Level::kDigest, Level::kSketch}) {
    auto folder = root_ / LevelName(level);
    auto writer = Writer::Create(folder, Head(level));
    ASSERT_TRUE(writer.ok() && WriteTwoSteps(**writer).ok() && (*writer)->Finish("", "").ok());
    auto trace = Trace::Open(folder);
    ASSERT_TRUE(trace.ok());
    for (const Record& r : trace->records()) {
      EXPECT_EQ(r.sketch.has_value(), level == Level::kSketch);
      EXPECT_EQ(r.row_rms.size(), static_cast<size_t>(r.n_rows()));
      EXPECT_TRUE(r.row_blake3.empty() && r.payload_file.empty());
      EXPECT_EQ(trace->Payload(r).error().code, Code::kNotFound);
    }
  }
}

TEST_F(TraceTest, TracesAreNeverMixed) {
  ASSERT_TRUE(Writer::Create(root_ / "a", Head(Level::kDigest)).ok());
  EXPECT_EQ(Writer::Create(root_ / "a", Head(Level::kDigest)).error().code, Code::kUsage);
  Put("old/t0_logits.trace", "{}");
  EXPECT_EQ(Writer::Create(root_ / "old", Head(Level::kDigest)).error().code, Code::kUsage);
}

TEST_F(TraceTest, ShapesThatLieAreRefused) {
  auto writer = Writer::Create(root_ / "a", Head(Level::kDigest));
  ASSERT_TRUE(writer.ok());
  std::vector<int32_t> tokens = {1};
  ASSERT_TRUE((*writer)->BeginStep(0, tokens).ok());
  for (std::vector<int64_t> shape : {std::vector<int64_t>{2, 2}, {0, 6}, {-1, -6}, {}}) {
    EXPECT_EQ((*writer)->Append({.stage = PB_STAGE_LOGITS, .native_name = ""}, shape, kValues).error().code,
              Code::kEngine);
  }
}

// A writer killed with SIGKILL leaves everything it appended, payloads included.
TEST_F(TraceTest, KillLeavesAReadableTraceThatSaysItIsIncomplete) {
  auto folder = root_ / "killed";
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto writer = Writer::Create(folder, Head(Level::kFull));
    if (writer.ok() && WriteTwoSteps(**writer).ok()) kill(getpid(), SIGKILL);
    _exit(1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  auto trace = Trace::Open(folder);
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  EXPECT_FALSE(trace->manifest().complete);
  EXPECT_EQ(trace->notes(), std::vector<std::string>{"incomplete: the writer was cut off"});
  EXPECT_EQ(trace->manifest().tokens, (std::vector<int32_t>{5, 6, 7}));
  EXPECT_EQ(trace->manifest().n_prompt, 2);
  ASSERT_EQ(trace->records().size(), 4u);
  for (const Record& r : trace->records()) EXPECT_TRUE(trace->Payload(r).ok());
  EXPECT_TRUE(SafetensorsFile::Open(folder / "payload-00000.safetensors").ok());
}

TEST_F(TraceTest, AbandonTellsWhy) {
  auto writer = Writer::Create(root_ / "a", Head(Level::kSketch));
  ASSERT_TRUE(writer.ok() && WriteTwoSteps(**writer).ok());
  ASSERT_TRUE((*writer)->Abandon("the engine crashed: signal 11").ok());
  auto trace = Trace::Open(root_ / "a");
  ASSERT_TRUE(trace.ok());
  EXPECT_FALSE(trace->manifest().complete);
  EXPECT_EQ(trace->notes()[0], "incomplete: the engine crashed: signal 11");
}

// Every cut of records.jsonl: whole lines before the cut are there; the half one is not, and is
// mentioned. The same cut of a trace that claims to be complete is an error with its byte.
TEST_F(TraceTest, EveryCutOfTheRecords) {
  auto writer = Writer::Create(root_ / "a", Head(Level::kSketch));
  ASSERT_TRUE(writer.ok() && WriteTwoSteps(**writer).ok());
  std::string open_manifest = ReadFile(root_ / "a" / kManifestFile).value();
  ASSERT_TRUE((*writer)->Finish("", "").ok());
  std::string whole_manifest = ReadFile(root_ / "a" / kManifestFile).value();
  std::string records = ReadFile(root_ / "a" / kRecordsFile).value();
  for (size_t cut = 0; cut < records.size(); ++cut) {
    Put(fs::path("a") / kRecordsFile, records.substr(0, cut));
    Put(fs::path("a") / kManifestFile, open_manifest);
    auto trace = Trace::Open(root_ / "a");
    ASSERT_TRUE(trace.ok()) << cut << ": " << trace.error().message;
    auto n_lines = std::count(records.begin(), records.begin() + static_cast<ptrdiff_t>(cut), '\n');
    EXPECT_EQ(trace->records().size() + trace->steps().size(), static_cast<size_t>(n_lines)) << cut;
    bool half = cut > 0 && records[cut - 1] != '\n';
    EXPECT_EQ(trace->notes().size(), half ? 2u : 1u) << cut;
    if (cut + 1 == records.size()) continue;  // only the last newline is gone
    Put(fs::path("a") / kManifestFile, whole_manifest);
    auto claimed = Trace::Open(root_ / "a");
    ASSERT_FALSE(claimed.ok()) << cut;
    EXPECT_EQ(claimed.error().code, Code::kMalformed) << cut;
  }
}

TEST_F(TraceTest, EveryBitFlipOfALineLoadsOrIsAnError) {
  auto writer = Writer::Create(root_ / "a", Head(Level::kSketch, true));
  ASSERT_TRUE(writer.ok() && WriteTwoSteps(**writer).ok() && (*writer)->Finish("", "").ok());
  std::string records = ReadFile(root_ / "a" / kRecordsFile).value();
  size_t line = records.find("{\"name\"");
  std::string record = records.substr(line, records.find('\n', line) - line);
  int n_errors = 0;
  for (size_t i = 0; i < record.size() * 8; ++i) {
    std::string bad = record;
    bad[i / 8] = static_cast<char>(bad[i / 8] ^ 1 << i % 8);
    n_errors += !ParseLine(bad).ok();
  }
  EXPECT_GT(n_errors, 1000);
}

TEST_F(TraceTest, WrongFieldsAreNamedWithTheirByte) {
  auto writer = Writer::Create(root_ / "a", Head(Level::kDigest));
  ASSERT_TRUE(writer.ok() && WriteTwoSteps(**writer).ok() && (*writer)->Finish("", "").ok());
  std::string records = ReadFile(root_ / "a" / kRecordsFile).value();
  auto replaced = [&](std::string_view from, std::string_view to) {
    std::string bad = records;
    bad.replace(bad.find(from), from.size(), to);
    Put(fs::path("a") / kRecordsFile, bad);
    auto trace = Trace::Open(root_ / "a");
    return trace.ok() ? "opened" : trace.error().message;
  };
  EXPECT_NE(replaced("\"shape\":[2,3]", "\"shape\":[2,4]").find("byte 38: \"num_elements\" is 6"),
            std::string::npos);
  EXPECT_NE(replaced("\"shape\":[2,3]", "\"shape\":[99999999999999,99999999999999]").find("\"shape\""),
            std::string::npos);
  EXPECT_NE(replaced("ebb7793e", "EBB7793E").find("\"blake3\""), std::string::npos);
  EXPECT_NE(replaced("\"rms\":", "\"rms\":[],\"x\":").find("\"rms\""), std::string::npos);
  EXPECT_NE(replaced("\"num_elements\":6", "\"num_elements\":18446744073709551615").find("num_elements"),
            std::string::npos);
  EXPECT_NE(replaced("\"seq\":0,\"layer\"", "\"seq\":9,\"layer\"").find("outside its step"),
            std::string::npos);
  EXPECT_NE(replaced("\"row_rms\":\"", "\"row_rms\":\"AAAA").find("\"row_rms\""), std::string::npos);
  EXPECT_NE(replaced("\"rms\":", "\"payload\":[\"../../etc/passwd\",0],\"rms\":").find("\"payload\""),
            std::string::npos);
  EXPECT_NE(replaced("{\"seq\":1", "{\"seq\":\"x\"").find("\"seq\""), std::string::npos);
  EXPECT_EQ(replaced("\"rms\":", "\"later_version\":1,\"rms\":"), "opened");
}

TEST_F(TraceTest, PayloadsAreCheckedAgainstTheirDigests) {
  auto folder = root_ / "a";
  auto writer = Writer::Create(folder, Head(Level::kFull));
  ASSERT_TRUE(writer.ok() && WriteTwoSteps(**writer).ok() && (*writer)->Finish("", "").ok());
  auto trace = Trace::Open(folder);
  ASSERT_TRUE(trace.ok());
  auto path = folder / "payload-00000.safetensors";
  const Record& last = trace->records().back();
  fs::resize_file(path, fs::file_size(path) - 1);
  auto cut = trace->Payload(last);
  EXPECT_EQ(cut.error().code, Code::kMalformed);
  EXPECT_NE(cut.error().message.find("cut off?"), std::string::npos) << cut.error().message;
  EXPECT_EQ(trace->PayloadRows(last, 0, 1).error().code, Code::kMalformed);
  EXPECT_TRUE(trace->Payload(trace->records()[0]).ok());
  std::string bytes = ReadFile(path).value();
  bytes[trace->records()[0].payload_offset] ^= 1;
  Put("a/payload-00000.safetensors", bytes);
  EXPECT_EQ(trace->Payload(trace->records()[0]).error().code, Code::kMalformed);
  fs::remove(path);
  EXPECT_EQ(trace->Payload(last).error().code, Code::kNotFound);
}

TEST_F(TraceTest, ManifestsOfOtherVersionsAndKindsAreRefused) {
  EXPECT_EQ(Trace::Open(root_ / "nowhere").error().code, Code::kNotFound);
  for (const char* text :
       {"", "{", "[]", "null", "{}", R"({"schema":"paritybit.trace/0"})", R"({"schema":1})"}) {
    Put("a/manifest.json", text);
    EXPECT_EQ(Trace::Open(root_ / "a").error().code, Code::kMalformed) << text;
  }
  Put("a/manifest.json", R"({"schema":"paritybit.trace/9"})");
  EXPECT_EQ(Trace::Open(root_ / "a").error().code, Code::kUnsupported);
}

// The documented system writes one pretty-printed object a file; its own comparison parsed them
// line by line, found none and called that a match.
constexpr char kDocumented[] = R"({
  "name": "t0/blk7/q_proj",
  "shape": [
    1,
    2,
    3
  ],
  "dtype": "F32",
  "blake3": "ebb7793ef69819e560e739511b2d75c7099e3e79255cd64104757e775ceb1b79",
  "rms": 1.7230059,
  "num_elements": 6,
  "seq": 0,
  "layer": 7,
  "stage": "q_proj"
}
)";

TEST_F(TraceTest, ReadsTheDocumentedSystem) {
  std::string line = R"({"name":"t3_logits","shape":[1,2],"dtype":"BF16","blake3":")" + std::string(64, '0') +
                     R"(","rms":null,"num_elements":2})";
  Put("d/t0_blk7_q_proj.trace", kDocumented);
  Put("d/more.jsonl", line + "\n\n" + line + "\n");
  Put("d/ignored.txt", "not a trace");
  auto trace = Trace::Open(root_ / "d");
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  EXPECT_TRUE(trace->documented());
  ASSERT_EQ(trace->records().size(), 3u);
  const Record& logits = trace->records()[0];  // files in order of name
  EXPECT_EQ(logits.seq, 3);                    // from the name
  EXPECT_EQ(logits.layer, -1);
  EXPECT_EQ(logits.stage_id, PB_STAGE_LOGITS);
  EXPECT_TRUE(std::isnan(logits.rms));
  const Record& q = trace->records()[2];
  EXPECT_EQ(q.layer, 7);
  EXPECT_EQ(q.stage_id, PB_STAGE_Q_PROJ);
  EXPECT_EQ(q.first_position, -1);
  EXPECT_DOUBLE_EQ(q.rms, 1.7230059);
}

TEST_F(TraceTest, DamagedDocumentedTracesAreErrorsNotEmptyTraces) {
  std::string half(kDocumented, sizeof kDocumented / 2);
  Put("d/t0_blk7_q_proj.trace", half);
  auto trace = Trace::Open(root_ / "d");
  ASSERT_FALSE(trace.ok());
  EXPECT_EQ(trace.error().code, Code::kMalformed);
  EXPECT_NE(trace.error().message.find("t0_blk7_q_proj.trace"), std::string::npos);
  Put("d/t0_blk7_q_proj.trace", " \n");
  EXPECT_EQ(Trace::Open(root_ / "d").error().code, Code::kMalformed);
  fs::remove(root_ / "d" / "t0_blk7_q_proj.trace");
  auto empty = Trace::Open(root_ / "d");
  ASSERT_TRUE(empty.ok());
  EXPECT_TRUE(empty->records().empty());
}

}  // namespace
}  // namespace pb::trace
