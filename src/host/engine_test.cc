// The host against a plugin that really misbehaves: every fault is an Error that says what
// happened, and never harms this process.
#include "host/engine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <thread>
#include <vector>

#include "base/random.h"
#include "host/wire.h"
#include "tests/paths.h"

namespace pb::host {
namespace {

// A sanitizer turns signals into its own report and exit status.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

const std::filesystem::path kPlugin = PluginPath("faulty");
const std::filesystem::path kModel = SourcePath("CMakeLists.txt");  // any file will do
constexpr double kPatience = 1.0;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Result<std::unique_ptr<Engine>> StartFaulty(const Settings& settings, double patience = kPatience,
                                            uint64_t memory = 0) {
  return Engine::Start(kPlugin, settings, {patience, memory});
}

// An engine with its model and a session open.
std::unique_ptr<Engine> Ready(const Settings& settings = {}, double patience = kPatience) {
  auto engine = StartFaulty(settings, patience);
  EXPECT_TRUE(engine.ok()) << engine.error().message;
  auto model = (*engine)->OpenModel(kModel);
  EXPECT_TRUE(model.ok()) << model.error().message;
  auto session = (*engine)->OpenSession({});
  EXPECT_TRUE(session.ok()) << session.error().message;
  return std::move(engine).value();
}

EvalRequest Tokens(std::vector<int32_t> tokens, int32_t first = 0, int32_t logits_from = 0) {
  EvalRequest request;
  request.tokens = std::move(tokens);
  request.first_position = first;
  request.logits_from = logits_from;
  return request;
}

Result<std::vector<float>> Logits(Engine& engine, const EvalRequest& request) {
  std::vector<float> all;
  PB_TRY(engine.Eval(request, [&](const Event& event) -> Status {
    if (event.kind == Event::kLogits)
      all.insert(all.end(), event.tensor.data.begin(), event.tensor.data.end());
    return {};
  }));
  return all;
}

// Runs everything with one fault and returns the first error.
Error FirstError(const Settings& settings, bool tap = false, double patience = kPatience,
                 uint64_t memory = 0) {
  auto run = [&]() -> Status {
    PB_ASSIGN(auto engine, StartFaulty(settings, patience, memory));
    PB_ASSIGN(auto model, engine->OpenModel(kModel));
    PB_ASSIGN(auto ids, engine->Tokenize("hello", PB_ADD_SPECIAL));
    PB_ASSIGN(auto session, engine->OpenSession({}));
    PB_ASSIGN(auto stages, engine->Stages());
    EvalRequest request = Tokens(ids);
    request.tap.outputs = tap;
    PB_ASSIGN(auto logits, Logits(*engine, request));
    return engine->Reset(0);
  };
  Status status = run();
  return status.ok() ? Error{Code::kInternal, "no error"} : status.error();
}

// Whether an error has the code and its message all the parts.
template <typename... Parts>
testing::AssertionResult IsError(const Error& error, Code code, Parts... parts) {
  for (std::string part : {std::string(parts)...}) {
    if (error.message.find(part) == std::string::npos) {
      return testing::AssertionFailure() << "\"" << part << "\" is not in: " << error.message;
    }
  }
  if (error.code == code) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "code " << static_cast<int>(error.code) << ": " << error.message;
}
#define EXPECT_ERROR(...) EXPECT_TRUE(IsError(__VA_ARGS__))

class Deed : public testing::TestWithParam<const char*> {};

TEST_P(Deed, CrashIsAnErrorWithItsPlaceAndLastWords) {
  Error e = FirstError({{"faulty.mode", "crash"}, {"faulty.at", GetParam()}}, true);
  EXPECT_ERROR(e, Code::kEngine, "faulty: ", "last words:", kSanitized ? "faulty" : "about to crash");
  EXPECT_ERROR(e, Code::kEngine, kSanitized ? "exited with status" : "killed by signal 11 (SIGSEGV) during");
  EXPECT_ERROR(e, Code::kEngine, GetParam() == std::string("point") ? "at layer 1 ffn_gated" : "faulty");
}

TEST_P(Deed, AbortExitThrowAndOverflow) {
  Error abort = FirstError({{"faulty.mode", "abort"}, {"faulty.at", GetParam()}});
  EXPECT_ERROR(abort, Code::kEngine, "killed by signal 6 (SIGABRT) during", "about to abort");
  EXPECT_ERROR(FirstError({{"faulty.mode", "exit"}, {"faulty.at", GetParam()}}), Code::kEngine,
               "exited with status 3 during");
  EXPECT_ERROR(FirstError({{"faulty.mode", "throw"}, {"faulty.at", GetParam()}}), Code::kEngine,
               "C++ exception", "thrown by faulty");
  Error overflow = FirstError({{"faulty.mode", "overflow"}, {"faulty.at", GetParam()}}, false, 60);
  EXPECT_ERROR(overflow, Code::kEngine, kSanitized ? "stack-overflow" : "killed by signal 11 (SIGSEGV)");
}

TEST_P(Deed, HangAndSpinEndAtTheLimit) {
  for (const char* mode : {"hang", "spin"}) {
    double start = Seconds();
    Error e = FirstError({{"faulty.mode", mode}, {"faulty.at", GetParam()}}, false, 0.4);
    EXPECT_ERROR(e, Code::kTimeout, "no progress for 0.", " s during", "about to");
    const bool computes = std::string(mode) == "spin";  // on a busy machine for ten limits
    EXPECT_LT(Seconds() - start, computes ? 6.0 : 3.0);
  }
}

// What computes while others have the processors is not silent for as long as the clock says.
TEST(Engine, ABusyMachineIsNoSilence) {
  std::atomic<bool> busy = true;
  std::vector<std::jthread> others;
  for (int i = 0; i < 8; ++i)
    others.emplace_back([&] {
      while (busy) {
      }
    });
  Error e = FirstError({{"faulty.mode", "work"}, {"faulty.at", "eval"}}, false, 1.0);
  busy = false;
  EXPECT_ERROR(e, Code::kInternal, "no error");
}

TEST_P(Deed, MemoryLimit) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer reserves more address space than any limit";
  Error e = FirstError({{"faulty.mode", "oom"}, {"faulty.at", GetParam()}}, false, 60, 512 << 20);
  EXPECT_ERROR(e, Code::kEngine, "out of memory");
}

TEST_P(Deed, GarbageOnEveryDescriptor) {
  EXPECT_ERROR(FirstError({{"faulty.mode", "garbage"}, {"faulty.at", GetParam()}}), Code::kEngine,
               "no message");
}

TEST_P(Deed, ClosedDescriptors) {
  EXPECT_ERROR(FirstError({{"faulty.mode", "disconnect"}, {"faulty.at", GetParam()}}), Code::kEngine,
               "faulty: ", "during");
}

TEST_P(Deed, OwnErrorsArePassedOn) {
  EXPECT_ERROR(FirstError({{"faulty.mode", "error"}, {"faulty.at", GetParam()}}), Code::kEngine,
               "faulty: an error that faulty was told to report");
}

TEST_P(Deed, AnyAmountOfOutputIsTakenAndTheEndOfItKept) {
  EXPECT_ERROR(FirstError({{"faulty.mode", "chatter"}, {"faulty.at", GetParam()}}, false, 30),
               Code::kInternal, "no error");
}

INSTANTIATE_TEST_SUITE_P(Everywhere, Deed, testing::Values("create", "model", "session", "eval", "point"),
                         [](const auto& info) { return std::string(info.param); });

struct LieCase {
  const char* mode;
  Code code;
  const char* message;
};
class Lies : public testing::TestWithParam<LieCase> {};

TEST_P(Lies, AreFoundOut) {
  EXPECT_ERROR(FirstError({{"faulty.mode", GetParam().mode}}, true), GetParam().code, GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    All, Lies,
    testing::Values(
        LieCase{"wrong_vocab", Code::kEngine,
                "lied about the logits: rows of 258 values, where n_vocab is 257"},
        LieCase{"skip_rows", Code::kEngine, "lied about the logits: rows 1 to 5 came where 0 was due"},
        LieCase{"repeat_rows", Code::kEngine, "lied about the logits: rows 0 to 5 came where 1 was due"},
        LieCase{"reverse_rows", Code::kEngine, "lied about the logits: rows 5 to 5 came where 0 was due"},
        LieCase{"extra_rows", Code::kEngine, "lied about down_proj of layer 1: 7 rows from position 0"},
        LieCase{"huge_shape", Code::kEngine, "down_proj of layer 1: lied: a tensor of shape"},
        LieCase{"negative_shape", Code::kEngine, "down_proj of layer 1: lied: a tensor of shape (6, -16)"},
        LieCase{"null_data", Code::kEngine,
                "down_proj of layer 1: lied: a tensor of shape (6, 16) without data"},
        LieCase{"token_range", Code::kEngine, "lied about tokens: id 262, where n_vocab is 257"},
        LieCase{"token_count", Code::kEngine, "lied about tokens: announced 7, then gave 6"},
        LieCase{"stage_twice", Code::kEngine, "declared stage logits twice"},
        LieCase{"layer_twice", Code::kEngine, "declared layers of stage layer_out out of order"},
        LieCase{"no_model", Code::kEngine, "model_open reported success without a model"},
        // What is not the host's to judge passes: it is for the comparison.
        LieCase{"nan", Code::kInternal, "no error"}, LieCase{"inf", Code::kInternal, "no error"},
        LieCase{"skip_points", Code::kInternal, "no error"},
        LieCase{"repeat_points", Code::kInternal, "no error"},
        LieCase{"token_value", Code::kInternal, "no error"}, LieCase{"none", Code::kInternal, "no error"}),
    [](const auto& info) { return std::string(info.param.mode); });

TEST(Engine, NanAndInfReachTheCaller) {
  auto nan = Logits(*Ready({{"faulty.mode", "nan"}}), Tokens({1, 2}));
  auto inf = Logits(*Ready({{"faulty.mode", "inf"}}), Tokens({1, 2}));
  ASSERT_TRUE(nan.ok() && inf.ok());
  EXPECT_TRUE(std::isnan(nan->back()));
  EXPECT_TRUE(std::isinf(inf->front()));
}

class Table : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(Table, IsCheckedBeforeUse) {
  setenv("FAULTY_TABLE", GetParam().first, 1);
  Error e = FirstError({}, true);
  unsetenv("FAULTY_TABLE");
  EXPECT_NE(e.message.find(GetParam().second), std::string::npos) << e.message;
}

INSTANTIATE_TEST_SUITE_P(
    All, Table,
    testing::Values(std::pair{"old_major", "speaks ABI 10.1, this program 3.1"},
                    std::pair{"newer_minor", "no error"}, std::pair{"without_replay", "no error"},
                    std::pair{"without_eval", "has no eval, which every engine must offer"},
                    std::pair{"no_size", "claims a struct_size of 0 bytes"},
                    std::pair{"null", "pb_engine_get returned NULL"},
                    std::pair{"crash", "killed by signal 6 (SIGABRT) during loading the plugin"}),
    [](const auto& info) { return std::string(info.param.first); });

TEST(Engine, StartSaysWhatIsMissing) {
  EXPECT_ERROR(Engine::Start("/nowhere/engine.so", {}, {}).error(), Code::kNotFound,
               "/nowhere/engine.so: no such engine plugin");
  EXPECT_ERROR(Engine::Start(kModel, {}, {}).error(), Code::kEngine, "cannot be loaded", "CMakeLists.txt");
  EXPECT_ERROR(StartFaulty({{"nonsense", "1"}}).error(), Code::kUsage, "unknown setting \"nonsense\"");
  setenv("PARITYBIT_HOST", "/nowhere/host", 1);
  EXPECT_ERROR(StartFaulty({}).error(), Code::kNotFound, "/nowhere/host");
  setenv("PARITYBIT_HOST", "/bin/true", 1);
  // No code of the engine has run: it has no part in this.
  EXPECT_ERROR(StartFaulty({}).error(), Code::kIo, "exited with status 0, before paritybit-host loaded");
  setenv("PARITYBIT_HOST", "/etc/passwd", 1);
  EXPECT_ERROR(StartFaulty({}).error(), Code::kIo, "starting paritybit-host: exec: Permission denied");
  unsetenv("PARITYBIT_HOST");
}

TEST(Engine, FewDescriptorsAreTheEnvironmentsAndAreNamed) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int used = open("/dev/null", O_RDONLY | O_CLOEXEC);  // the lowest number that is free
  close(used);
  int n_refused = 0;
  // Six kept and five on the way, whatever else this process holds open.
  for (int more = 0; more <= 11; ++more) {
    rlimit few{static_cast<rlim_t>(used + more), before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    auto engine = StartFaulty({});
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    if (engine.ok()) continue;
    ++n_refused;
    EXPECT_LT(more, 11);
    EXPECT_ERROR(engine.error(), Code::kIo,
                 "Too many open files (ulimit -n is " + std::to_string(used + more));
  }
  EXPECT_GT(n_refused, 0);
}

// A host program that answers the first request with these bytes and then stays.
Error ErrorOfHostThatSays(const std::string& bytes) {
  auto directory = std::filesystem::temp_directory_path() / ("engine_test_" + std::to_string(getpid()));
  std::filesystem::create_directories(directory);
  std::ofstream(directory / "answer", std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  std::ofstream(directory / "host") << "#!/bin/sh\ncat " << (directory / "answer").string()
                                    << " >&3\nsleep 60\n";
  std::filesystem::permissions(directory / "host", std::filesystem::perms::owner_all);
  setenv("PARITYBIT_HOST", (directory / "host").c_str(), 1);
  auto engine = StartFaulty({}, 0.5);
  unsetenv("PARITYBIT_HOST");
  std::filesystem::remove_all(directory);
  return engine.ok() ? Error{Code::kInternal, "no error"} : engine.error();
}

TEST(Engine, AHostThatLiesIsAnErrorWhateverItSays) {
  FrameWriter facts(MessageType::kReply), point(MessageType::kPoint), code(MessageType::kError),
      size(MessageType::kReply);
  facts.Put<uint64_t>(0);
  facts.Put<uint64_t>(uint64_t{1} << 60);  // facts, it says
  code.Put<uint32_t>(99);
  std::string huge = std::move(size).Finish(), unknown = huge;
  StoreLe<uint64_t>(huge.data() + 8, uint64_t{1} << 40);
  StoreLe<uint32_t>(unknown.data() + 4, 77);
  std::string random;
  Random source(1);
  for (int i = 0; i < 100000; ++i) random += static_cast<char>(source.Next());
  EXPECT_ERROR(ErrorOfHostThatSays(std::move(facts).Finish()), Code::kEngine, "facts needs");
  EXPECT_ERROR(ErrorOfHostThatSays(std::move(point).Finish()), Code::kEngine, "where a reply was due");
  EXPECT_ERROR(ErrorOfHostThatSays(std::move(code).Finish()), Code::kEngine, "an error that cannot be read");
  EXPECT_ERROR(ErrorOfHostThatSays(huge), Code::kEngine, "a message that claims 1099511627776 bytes");
  EXPECT_ERROR(ErrorOfHostThatSays(unknown), Code::kEngine, "a message of unknown type 77");
  EXPECT_ERROR(ErrorOfHostThatSays(random), Code::kEngine, "no message");
  EXPECT_ERROR(ErrorOfHostThatSays(""), Code::kTimeout, "no progress");
}

TEST(Engine, CallsOutOfOrderAreErrors) {
  auto engine = StartFaulty({});
  ASSERT_TRUE(engine.ok());
  EXPECT_ERROR((*engine)->Tokenize("a", 0).error(), Code::kUsage, "open model");
  EXPECT_ERROR((*engine)->BeginEval(Tokens({1})).error(), Code::kUsage, "needs to be opened");
  EXPECT_ERROR((*engine)->Wait().error(), Code::kUsage, "without a running evaluation");
  EXPECT_ERROR((*engine)->Continue().error(), Code::kUsage, "without an event");
  EXPECT_ERROR((*engine)->Overwrite({}).error(), Code::kUsage, "without an output");
  ASSERT_TRUE((*engine)->OpenModel(kModel).ok());
  EXPECT_ERROR((*engine)->Stages().error(), Code::kUsage, "open session");
  ASSERT_TRUE((*engine)->OpenSession({}).ok());
  EXPECT_ERROR((*engine)->BeginEval(Tokens({})).error(), Code::kUsage, "0 tokens");
  EXPECT_ERROR((*engine)->BeginEval(Tokens({1}, 1)).error(), Code::kUsage, "holds 0 positions");
  EXPECT_ERROR((*engine)->BeginEval(Tokens({1}, 0, 2)).error(), Code::kUsage, "logits from 2");
  EXPECT_ERROR((*engine)->Replay({}).error(), Code::kUnsupported, "does not replay");
  ASSERT_TRUE((*engine)->BeginEval(Tokens({1})).ok());
  EXPECT_ERROR((*engine)->Reset(0).error(), Code::kUsage, "while an evaluation runs");
}

TEST(Engine, SlowButProgressingIsNotATimeout) {
  auto engine = Ready({{"faulty.mode", "slow"}}, 0.2);
  EvalRequest request = Tokens({1, 2, 3});  // 14 points of 20 ms
  request.tap.outputs = true;
  request.tap.stages = {PB_STAGE_LOGITS};
  auto logits = Logits(*engine, request);
  EXPECT_TRUE(logits.ok()) << logits.error().message;
}

TEST(Engine, WhatTakesLongerThanItMayIsGivenUpAndNoFaultOfIts) {
  using Clock = std::chrono::steady_clock;
  Limits limits{kPatience, 0, Clock::now() + std::chrono::milliseconds(300)};
  auto engine = Engine::Start(kPlugin, {{"faulty.mode", "slow"}}, limits);
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  ASSERT_TRUE((*engine)->OpenModel(kModel).ok());
  ASSERT_TRUE((*engine)->OpenSession({}).ok());
  EvalRequest request = Tokens(std::vector<int32_t>(1, 1));
  request.tap.outputs = true;  // progress all along: 14 points of 20 ms each time
  Status status;
  for (int i = 0; i < 20 && status.ok(); ++i) {
    status = (*engine)->Eval(request, [](const Event&) { return Status(); });
    if (status.ok()) status = (*engine)->Reset(0);
  }
  ASSERT_FALSE(status.ok());
  EXPECT_ERROR(status.error(), Code::kIo, "given up", "as the time for it is up");
  EXPECT_GE(Clock::now(), *limits.until);
}

// What was shown stays while the engine goes on, until the next event is waited for.
TEST(Engine, ATensorCanBeReadWhileTheEngineGoesOn) {
  auto engine = Ready();
  EvalRequest request = Tokens({1, 2, 3});
  request.tap.outputs = true;
  ASSERT_TRUE(engine->BeginEval(request).ok());
  std::vector<std::vector<float>> plain, while_going_on;
  for (int round = 0; round < 2; ++round) {
    for (;;) {
      auto event = engine->Wait();
      ASSERT_TRUE(event.ok()) << event.error().message;
      if (event->kind == Event::kDone) break;
      const std::span<const float> shown = event->tensor.data;
      if (round == 0) plain.emplace_back(shown.begin(), shown.end());
      if (event->kind == Event::kPoint) {
        // The same values from elsewhere, as another engine's would come.
        const std::vector<float> own(shown.begin(), shown.end());
        ASSERT_TRUE(engine->Overwrite(own).ok());
      } else {
        ASSERT_TRUE(engine->Continue().ok());
      }
      if (round == 0) continue;
      pollfd next{engine->ready_fd(), POLLIN, 0};
      ASSERT_EQ(poll(&next, 1, 10000), 1);  // the next event has been placed
      while_going_on.emplace_back(shown.begin(), shown.end());
    }
    ASSERT_TRUE(engine->Reset(0).ok());
    if (round == 0) {
      ASSERT_TRUE(engine->BeginEval(request).ok());
    }
  }
  EXPECT_EQ(plain, while_going_on);
}

TEST(Engine, StaysUsableAfterAnErrorOfTheEngine) {
  auto engine = Ready();
  EXPECT_ERROR(Logits(*engine, Tokens({1, 9999})).error(), Code::kUsage, "token 9999");
  EXPECT_ERROR(engine->BeginEval(Tokens({1})).error(), Code::kUsage, "reset");
  ASSERT_TRUE(engine->Reset(0).ok());
  auto logits = Logits(*engine, Tokens({1, 2}));
  ASSERT_TRUE(logits.ok());
  EXPECT_EQ(logits->size(), 2u * 257);
}

TEST(Engine, ADeadEngineStaysDead) {
  auto engine = Ready({{"faulty.mode", "abort"}});
  Error first = Logits(*engine, Tokens({1})).error();
  EXPECT_EQ(engine->OpenModel(kModel).error().message, first.message);
  EXPECT_EQ(engine->BeginEval(Tokens({1})).error().message, first.message);
  EXPECT_NE(engine->LastWords().find("about to abort"), std::string::npos);
}

TEST(Engine, StopGivesUpAndForgets) {
  auto engine = Ready();
  auto before = Logits(*engine, Tokens({1, 2, 3}));
  EvalRequest request = Tokens({4, 5}, 3);
  request.tap.outputs = true;
  Status stopped = engine->Eval(request, [](const Event& event) -> Status {
    if (event.point.stage == PB_STAGE_UP_PROJ) return MakeError(Code::kInterrupted, "enough");
    return {};
  });
  EXPECT_ERROR(stopped.error(), Code::kInterrupted, "enough");
  auto again = Logits(*engine, Tokens({1, 2, 3}, 3));
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(*again, *before);  // this model does not look back
}

TEST(Engine, TapsHandOverInputsAndOutputsOfWhatWasAskedForAlone) {
  auto engine = Ready();
  EvalRequest request = Tokens({1, 2, 3}, 0, 3);
  request.tap.outputs = request.tap.inputs = true;
  request.tap.stages = {PB_STAGE_FFN_GATED, PB_STAGE_LAYER_OUT};
  request.tap.layers = {1};
  std::vector<int32_t> seen;
  Status status = engine->Eval(request, [&](const Event& event) -> Status {
    EXPECT_EQ(event.kind, Event::kPoint);
    EXPECT_EQ(event.point.layer, 1);
    EXPECT_EQ(event.inputs.size(), 2u);
    if (event.point.stage == PB_STAGE_FFN_GATED) {
      EXPECT_EQ(event.tensor.shape, (std::vector<int64_t>{3, 32}));
      EXPECT_EQ(event.inputs[0].name, "gate_proj");
      for (size_t i = 0; i < event.tensor.data.size(); ++i) {  // squared ReLU of the gate times up
        double relu = std::max(0.0f, event.inputs[0].data[i]);
        EXPECT_EQ(event.tensor.data[i], static_cast<float>(relu * relu * event.inputs[1].data[i]));
      }
    }
    seen.push_back(event.point.stage);
    return {};
  });
  EXPECT_TRUE(status.ok()) << status.error().message;
  EXPECT_EQ(seen, (std::vector<int32_t>{PB_STAGE_FFN_GATED, PB_STAGE_LAYER_OUT}));
}

TEST(Engine, OverwriteReachesTheLogits) {
  auto engine = Ready();
  auto plain = Logits(*engine, Tokens({1, 2, 3}));
  ASSERT_TRUE(plain.ok());
  for (float factor : {1.0f, 1.5f}) {
    ASSERT_TRUE(engine->Reset(0).ok());
    EvalRequest request = Tokens({1, 2, 3});
    request.tap.outputs = true;
    request.tap.stages = {PB_STAGE_GATE_PROJ};
    ASSERT_TRUE(engine->BeginEval(request).ok());
    std::vector<float> logits;
    for (;;) {
      auto event = engine->Wait();
      ASSERT_TRUE(event.ok()) << event.error().message;
      if (event->kind == Event::kDone) break;
      if (event->kind == Event::kLogits) {
        logits.insert(logits.end(), event->tensor.data.begin(), event->tensor.data.end());
        EXPECT_ERROR(engine->Overwrite({}).error(), Code::kUsage, "without an output");
        ASSERT_TRUE(engine->Continue().ok());
        continue;
      }
      std::vector<float> values(event->tensor.data.begin(), event->tensor.data.end());
      for (float& v : values) v *= factor;
      EXPECT_ERROR(engine->Overwrite(std::span(values).subspan(1)).error(), Code::kUsage,
                   "95 values to overwrite an output of 96");
      ASSERT_TRUE(engine->Overwrite(values).ok());
    }
    EXPECT_EQ(logits == *plain, factor == 1.0f);
  }
}

TEST(Engine, ManyLogitsComeInBlocks) {
  auto engine = Ready({}, 30);
  std::vector<int32_t> tokens(4096, 65);
  EvalRequest request = Tokens(tokens);
  request.tap.inputs = true;  // and inputs alone stand as events of their own
  request.tap.stages = {PB_STAGE_FINAL_NORM};
  size_t rows = 0, points = 0;
  Status status = engine->Eval(request, [&](const Event& event) -> Status {
    if (event.kind == Event::kPoint) {
      ++points;
      EXPECT_TRUE(event.tensor.shape.empty());
      EXPECT_EQ(event.inputs.at(0).shape, (std::vector<int64_t>{4096, 16}));
    } else {
      rows += static_cast<size_t>(event.tensor.shape[0]);
    }
    return {};
  });
  EXPECT_TRUE(status.ok()) << status.error().message;
  EXPECT_EQ(rows, 4096u);
  EXPECT_EQ(points, 1u);
}

TEST(Engine, TwoEnginesInLockStepByPoll) {
  auto a = Ready(), b = Ready();
  for (Engine* engine : {a.get(), b.get()}) {
    EvalRequest request = Tokens({7, 8});
    request.tap.outputs = true;
    ASSERT_TRUE(engine->BeginEval(request).ok());
  }
  for (bool done = false; !done;) {
    auto from_a = a->Wait(), from_b = b->Wait();
    ASSERT_TRUE(from_a.ok() && from_b.ok());
    ASSERT_EQ(from_a->kind, from_b->kind);
    done = from_a->kind == Event::kDone;
    if (done) break;
    EXPECT_TRUE(std::ranges::equal(from_a->tensor.data, from_b->tensor.data));
    ASSERT_TRUE(a->Continue().ok() && b->Continue().ok());
  }
}

// The pids whose parent is `parent`.
std::set<int> ChildrenOf(int parent) {
  std::set<int> children;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream stat(entry.path() / "stat");
    std::string text((std::istreambuf_iterator<char>(stat)), {});
    size_t after_name = text.rfind(')');
    if (after_name == std::string::npos) continue;
    if (std::atoi(text.c_str() + after_name + 4) == parent) children.insert(std::atoi(name.c_str()));
  }
  return children;
}

TEST(Engine, LeavesNoProcessBehind) {
  std::set<int> before = ChildrenOf(getpid());
  {
    auto good = Ready();
    auto hanging = Ready({{"faulty.mode", "hang"}});
    ASSERT_TRUE(hanging->BeginEval(Tokens({1})).ok());
    EXPECT_EQ(ChildrenOf(getpid()).size(), before.size() + 2);
    double start = Seconds();
    hanging.reset();
    EXPECT_LT(Seconds() - start, 2.0);
  }
  EXPECT_EQ(ChildrenOf(getpid()), before);  // no zombie either
}

TEST(Engine, DiesWithItsParent) {
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  pid_t parent = fork();
  if (parent == 0) {
    auto engine = Ready({{"faulty.mode", "spin"}}, 60);
    (void)engine->BeginEval(Tokens({1})).ok();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    int child = *ChildrenOf(getpid()).begin();
    if (write(pipes[1], &child, sizeof child) != sizeof child) _exit(1);
    raise(SIGKILL);
  }
  int child = 0;
  ASSERT_EQ(read(pipes[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  waitpid(parent, nullptr, 0);
  double start = Seconds();
  auto alive = [&] {
    std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
    std::string text((std::istreambuf_iterator<char>(stat)), {});
    size_t end = text.rfind(')');
    return end != std::string::npos && text[end + 2] != 'Z';
  };
  while (alive() && Seconds() - start < 5) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_FALSE(alive());
  close(pipes[0]);
  close(pipes[1]);
}

}  // namespace
}  // namespace pb::host
