// Children, work directories, locks, and what FindReference and FindModel say when there is
// nothing.
#include "setup/setup.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include "base/file.h"
#include "setup/adapter_build.h"
#include "setup/packages.h"
#include "setup/process.h"
#include "setup/work_dir.h"

namespace pb::setup {
namespace {

namespace fs = std::filesystem;

// A cache of its own for each test.
class SetupTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "pb_setup_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    setenv("PARITYBIT_CACHE", dir_.c_str(), 1);
  }
  void TearDown() override {
    unsetenv("PARITYBIT_CACHE");
    fs::remove_all(dir_);
  }
  void Write(const fs::path& path, std::string_view text) {
    fs::create_directories(path.parent_path());
    ASSERT_TRUE(WriteFileAtomic(path, text).ok());
  }
  fs::path dir_;
};

TEST(ProcessTest, KeepsBothStreamsAndTheExitCode) {
  const Result<Output> output = RunProgram({"sh", "-c", "echo out; echo err >&2; exit 3"}, 30);
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->exit_code, 3);
  EXPECT_EQ(output->out, "out\n");
  EXPECT_EQ(output->err, "err\n");
}

TEST(ProcessTest, ArgumentsAreNotInterpreted) {
  const Result<Output> output = RunProgram({"printf", "%s", "$HOME; `id` *"}, 30);
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->out, "$HOME; `id` *");
}

TEST(ProcessTest, AMissingProgramIsNamed) {
  const Result<Output> output = RunProgram({"no-such-program-anywhere"}, 30);
  ASSERT_FALSE(output.ok());
  EXPECT_EQ(output.error().code, Code::kNotFound);
  EXPECT_NE(output.error().message.find("no-such-program-anywhere"), std::string::npos);
}

TEST(ProcessTest, AChildThatHangsIsEndedWithItsOwnChildren) {
  const auto begin = std::chrono::steady_clock::now();
  const Result<Output> output = RunProgram({"sh", "-c", "sleep 60 & sleep 60"}, 0.5);
  ASSERT_FALSE(output.ok());
  EXPECT_EQ(output.error().code, Code::kTimeout);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(ProcessTest, ASignalIsAnExitCodeAbove128) {
  const Result<Output> output = RunProgram({"sh", "-c", "kill -9 $$"}, 30);
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->exit_code, 128 + SIGKILL);
}

TEST(ProcessTest, AFailureCarriesTheCommandAndTheLastLines) {
  const Result<Output> output = RunProgramOk({"sh", "-c", "seq 100 >&2; exit 1"}, 30);
  ASSERT_FALSE(output.ok());
  EXPECT_EQ(output.error().code, Code::kIo);
  EXPECT_NE(output.error().message.find("seq 100"), std::string::npos);
  EXPECT_NE(output.error().message.find("\n89\n"), std::string::npos);
  EXPECT_EQ(output.error().message.find("\n88\n"), std::string::npos);
}

TEST_F(SetupTest, AWorkDirLeavesNothing) {
  fs::path path;
  {
    Result<WorkDir> work = WorkDir::Create(dir_ / "a");
    ASSERT_TRUE(work.ok());
    path = work->path();
    Write(path / "half", "x");
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST_F(SetupTest, WhatAKilledSetUpLeftIsRemovedAndALivingOneIsNot) {
  const pid_t gone = fork();
  if (gone == 0) _exit(0);
  waitpid(gone, nullptr, 0);
  const fs::path dead = dir_ / fmt::format(".tmp-{}-aaaaaa", gone),
                 alive = dir_ / fmt::format(".tmp-{}-bbbbbb", getppid());
  Write(dead / "half", "x");
  Write(alive / "half", "x");
  ASSERT_TRUE(WorkDir::Create(dir_).ok());
  EXPECT_FALSE(fs::exists(dead));
  EXPECT_TRUE(fs::exists(alive));
}

TEST_F(SetupTest, ReplacePutsADirectoryInThePlaceOfAnother) {
  Write(dir_ / "new/file", "new");
  Write(dir_ / "there/old", "old");
  ASSERT_TRUE(Replace(dir_ / "new", dir_ / "there").ok());
  EXPECT_TRUE(fs::exists(dir_ / "there/file"));
  EXPECT_FALSE(fs::exists(dir_ / "there/old"));
  EXPECT_FALSE(fs::exists(dir_ / "new"));
}

TEST_F(SetupTest, TheLockKeepsASecondSetUpWaiting) {
  int go[2];
  ASSERT_EQ(pipe(go), 0);
  const pid_t child =
      fork();  // before the lock is taken, because a child inherits the lock with the descriptor
  if (child == 0) {
    char byte;
    bool waited = false;
    if (read(go[0], &byte, 1) != 1) _exit(2);
    const Result<Lock> second = Lock::Take(dir_ / "lock", [&](std::string_view) { waited = true; });
    _exit(second.ok() && waited ? 0 : 1);
  }
  int status = -1;
  {
    const Result<Lock> lock = Lock::Take(dir_ / "lock", nullptr);
    ASSERT_TRUE(lock.ok());
    ASSERT_EQ(write(go[1], "x", 1), 1);
    usleep(200 * 1000);
    EXPECT_EQ(waitpid(child, &status, WNOHANG), 0);
  }
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  close(go[0]);
  close(go[1]);
}

TEST_F(SetupTest, NoReferenceNamesTheCommandThatMendsIt) {
  const Result<Reference> found = FindReference("llama.cpp");
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.error().code, Code::kNotFound);
  EXPECT_NE(found.error().message.find("paritybit setup-cpp-auto"), std::string::npos);
}

TEST_F(SetupTest, AnUnknownReferenceIsAUsageError) {
  EXPECT_EQ(FindReference("llama.cpq").error().code, Code::kUsage);
  EXPECT_EQ(SetUpReference("llama.cpq", {}).error().code, Code::kUsage);
  EXPECT_EQ(FindModel("gpt").error().code, Code::kUsage);
}

TEST_F(SetupTest, ADamagedRecordIsNoReference) {
  const Result<std::string> digest =
      AdapterDigest(fmt::format("{} {}", kLlamaCppLibraries.sha256, kLlamaCppSources.sha256));
  ASSERT_TRUE(digest.ok()) << digest.error().message;
  const fs::path home = dir_ / "references/llama.cpp", adapter = home / ("adapter-" + digest->substr(0, 16));
  const std::string good =
      fmt::format("{{\"schema\":\"paritybit.reference/1\",\"adapter_digest\":\"{}\"}}", *digest);
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"),
        std::string("{\"schema\":7,\"adapter_digest\":[]}"), good.substr(0, 40), good}) {
    Write(adapter / "reference.json", text);
    const Result<Reference> found = FindReference("llama.cpp");
    ASSERT_FALSE(found.ok()) << text;
    EXPECT_EQ(found.error().code, Code::kNotFound) << text;
  }
  // A whole record is believed only as long as what it names is there.
  Write(adapter / "llama_cpp.so", "x");
  Write(home / "lib/libllama.so", "x");
  EXPECT_FALSE(FindReference("llama.cpp").ok());
  Write(home / "vocabularies/v.gguf", "x");
  EXPECT_TRUE(FindReference("llama.cpp").ok());
}

TEST_F(SetupTest, OfflineFetchesNothingAndLeavesNothing) {
  SetupOptions options;
  options.offline = true;
  EXPECT_EQ(SetUpReference("llama.cpp", options).error().code, Code::kNotFound);
  EXPECT_EQ(FetchModel("smollm2", options).error().code, Code::kNotFound);
  for (const auto& entry : fs::recursive_directory_iterator(dir_)) {
    EXPECT_TRUE(entry.is_directory() || entry.path().filename() == ".lock") << entry.path();
    EXPECT_NE(entry.path().filename().string().rfind(".tmp-", 0), 0u) << entry.path();
  }
}

// A client that brings another archive than the pinned one.
TEST_F(SetupTest, AnArchiveWithAnotherDigestIsRefused) {
  Write(dir_ / "bin/npm", "#!/bin/sh\necho changed > \"$4/package.tgz\"\n");
  fs::permissions(dir_ / "bin/npm", fs::perms::owner_all);
  const std::string path = std::getenv("PATH");
  setenv("PATH", ((dir_ / "bin").string() + ":" + path).c_str(), 1);
  const Result<fs::path> archive = Fetch(kLlamaCppLibraries, dir_ / "fetch", {});
  setenv("PATH", path.c_str(), 1);
  ASSERT_FALSE(archive.ok());
  EXPECT_EQ(archive.error().code, Code::kMalformed) << archive.error().message;
}

TEST_F(SetupTest, AMissingClientIsNamedWithItsRemedy) {
  const std::string path = std::getenv("PATH");
  setenv("PATH", (dir_ / "empty").c_str(), 1);
  const Result<fs::path> archive = Fetch(kLlamaCppLibraries, dir_ / "fetch", {});
  setenv("PATH", path.c_str(), 1);
  ASSERT_FALSE(archive.ok());
  EXPECT_NE(archive.error().message.find("apt-get install npm"), std::string::npos);
}

TEST_F(SetupTest, PreflightNamesTheRemedyOfEverythingMissing) {
  int missing = 0;
  for (const Finding& finding : Preflight()) {
    EXPECT_EQ(finding.ok, finding.mend.empty()) << finding.what;
    missing += !finding.ok;
  }
  EXPECT_GE(missing, 2);  // the empty cache has neither reference nor model
}

}  // namespace
}  // namespace pb::setup
