// Children, work directories, locks, and what FindReference and FindModel say when there is
// nothing.
#include "setup/setup.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include "base/bytes.h"
#include "base/file.h"
#include "setup/adapter_build.h"
#include "setup/build.h"
#include "setup/elf.h"
#include "setup/packages.h"
#include "setup/process.h"
#include "setup/record.h"
#include "setup/release.h"
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
  for (const char* name : {"", ".", "..", "a/b", "-x", ".hidden", "x.so", "a,b", "a b"}) {
    EXPECT_EQ(SetUpReference(name, {}).error().code, Code::kUsage) << name;
    EXPECT_EQ(FindReference(name).error().code, Code::kUsage) << name;
  }
  EXPECT_EQ(FindModel("gpt").error().code, Code::kUsage);
}

Record SmallRecord(const fs::path& dir) {
  Record record;
  record.name = "mine";
  record.build.how = "--from", record.build.root = dir / "build", record.build.version = "v1";
  record.build.libraries = {dir / "build/libllama.so"};
  record.build.include_dirs = {dir / "build/include"};
  record.digest = "d";
  record.chosen = true;
  std::error_code error;
  record.libraries = {{dir / "build/libllama.so", 1, 0, "s"}};
  record.libraries[0].changed_ns =
      fs::last_write_time(dir / "build/libllama.so", error).time_since_epoch().count();
  return record;
}

TEST_F(SetupTest, ADamagedRecordIsNoReference) {
  Write(dir_ / "build/libllama.so", "x");
  ASSERT_TRUE(WriteRecord(SmallRecord(dir_)).ok());
  const fs::path file = dir_ / "references/mine/reference.json";
  const Result<std::string> good = ReadFile(file);
  ASSERT_TRUE(good.ok());
  for (size_t n = 0; n + 2 < good->size(); ++n) {
    Write(file, good->substr(0, n));
    EXPECT_EQ(FindReference("mine").error().code, Code::kNotFound) << n;
  }
  for (const char* text : {"[]", "null", "{\"schema\":7}", "{\"schema\":\"paritybit.reference/2\"}",
                           "{\"schema\":\"paritybit.reference/2\",\"name\":\"mine\",\"libraries\":[1,{}]}"}) {
    Write(file, text);
    EXPECT_EQ(FindReference("mine").error().code, Code::kNotFound) << text;
  }
}

// A whole record is believed only as long as what it names is there and unchanged.
TEST_F(SetupTest, AReferenceIsWhatWasProved) {
  Write(dir_ / "build/libllama.so", "x");
  ASSERT_TRUE(WriteRecord(SmallRecord(dir_)).ok());
  EXPECT_FALSE(FindReference("mine").ok());  // no adapter
  const Result<std::string> digest = AdapterDigest("d");
  ASSERT_TRUE(digest.ok()) << digest.error().message;
  Write(AdapterDir("mine", *digest) / "llama_cpp.so", "x");
  EXPECT_FALSE(FindReference("mine").ok());  // nobody has proved it
  ASSERT_TRUE(WriteProof("mine", *digest, "it was fine").ok());
  const Result<Reference> found = FindReference("mine");
  ASSERT_TRUE(found.ok()) << found.error().message;
  EXPECT_EQ(found->proof, "it was fine");
  EXPECT_EQ(KnownReferences(), (std::vector<std::string>{"llama.cpp", "mine"}));
  Write(dir_ / "build/libllama.so", "y");
  fs::last_write_time(dir_ / "build/libllama.so", fs::file_time_type::clock::now() + std::chrono::hours(1));
  const Result<Reference> changed = FindReference("mine");
  ASSERT_FALSE(changed.ok());
  EXPECT_NE(changed.error().message.find("has changed"), std::string::npos) << changed.error().message;
  EXPECT_NE(changed.error().message.find("setup-cpp-auto --name mine"), std::string::npos);
}

// The cache may be moved: what is in it is found again.
TEST_F(SetupTest, ARecordOfTheCacheMovesWithIt) {
  Write(dir_ / "references/.package-x/build/libllama.so", "x");
  ASSERT_TRUE(WriteRecord(SmallRecord(dir_ / "references/.package-x")).ok());
  fs::rename(dir_ / "references", dir_ / "moved");
  fs::create_directories(dir_ / "other");
  fs::rename(dir_ / "moved", dir_ / "other/references");
  setenv("PARITYBIT_CACHE", (dir_ / "other").c_str(), 1);
  const Result<Record> record = ReadRecord("mine");
  ASSERT_TRUE(record.ok());
  EXPECT_TRUE(IsUnchanged(record->libraries[0])) << record->libraries[0].file;
}

TEST_F(SetupTest, AFolderWithoutABuildSaysWhatIsMissing) {
  Write(dir_ / "empty/README", "x");
  const auto message = [&](const char* folder) { return ReadBuild(dir_ / folder, "test").error().message; };
  EXPECT_NE(message("empty").find("no libllama.so"), std::string::npos);
  EXPECT_NE(message("nowhere").find("no such folder"), std::string::npos);
  Write(dir_ / "static/build/src/libllama.a", "!<arch>");
  EXPECT_NE(message("static").find("BUILD_SHARED_LIBS=ON"), std::string::npos);
  Write(dir_ / "text/lib/libllama.so", "INPUT(libllama.so.0)");
  EXPECT_NE(message("text").find("no ELF file"), std::string::npos);
  fs::create_directories(dir_ / "other/lib");
  fs::copy_file("/proc/self/exe", dir_ / "other/lib/libllama.so");
  EXPECT_NE(message("other").find("does not offer llama_"), std::string::npos) << message("other");
}

TEST(ElfTest, DamagedFilesAreErrors) {
  const Result<MappedFile> file = MappedFile::Open("/proc/self/exe");
  ASSERT_TRUE(file.ok());
  const auto bytes = file->bytes();
  const Result<ElfLibrary> whole = ParseElf(bytes);
  ASSERT_TRUE(whole.ok()) << whole.error().message;
  EXPECT_NE(std::find(whole->needed.begin(), whole->needed.end(), "libc.so.6"), whole->needed.end());
  for (size_t n = 0; n < bytes.size(); n = n < 100 ? n + 1 : n * 5 / 4)
    EXPECT_FALSE(ParseElf(bytes.first(n)).ok());
  std::vector<std::byte> changed(bytes.begin(), bytes.end());
  const auto headers = LoadLe<uint64_t>(bytes.data() + 40);
  for (const size_t from : {size_t{0}, size_t{headers}}) {
    for (size_t at = from; at < from + 600 && at < changed.size(); ++at) {
      for (const int value : {0, 0x7f, 0xff}) {
        changed[at] = std::byte(value);
        (void)ParseElf(changed).ok();  // ends, and reads nothing beyond the bytes
      }
      changed[at] = bytes[at];
    }
  }
  changed[18] = std::byte{183};  // AArch64
  EXPECT_EQ(ParseElf(changed).error().code, Code::kUnsupported);
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
  const Result<fs::path> archive = Fetch(FindRelease("v0.5.0")->libraries, dir_ / "fetch", {});
  setenv("PATH", path.c_str(), 1);
  ASSERT_FALSE(archive.ok());
  EXPECT_EQ(archive.error().code, Code::kMalformed) << archive.error().message;
}

TEST_F(SetupTest, AReleaseIsNamedByEitherVersion) {
  EXPECT_EQ(FindRelease("v0.4.0")->package, "3.21.1");
  EXPECT_EQ(FindRelease("3.21.1")->version, "v0.4.0");
  EXPECT_EQ(FindRelease("3.18.0")->libraries.name, "@node-llama-cpp/linux-x64@3.18.0");
  for (const char* text : {"", "v0.4", "0.4.0.1", "3.18", "..3", "3.x.1", "latest", "3.18.0 x"})
    EXPECT_EQ(FindRelease(text).error().code, Code::kUsage) << text;
}

TEST_F(SetupTest, AMissingClientIsNamedWithItsRemedy) {
  const std::string path = std::getenv("PATH");
  setenv("PATH", (dir_ / "empty").c_str(), 1);
  const Result<fs::path> archive = Fetch(FindRelease("v0.5.0")->libraries, dir_ / "fetch", {});
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
