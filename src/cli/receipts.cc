// Writes the head of receipts, finds the files they name, and runs a command for its receipt.
#include "cli/receipts.h"

#include <fmt/chrono.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <ctime>

#include "base/file.h"
#include "base/system_error.h"
#include "base/text.h"
#include "cli/commit.h"
#include "cli/output.h"
#include "drive/participant.h"
#include "setup/process.h"

namespace pb::cli {
namespace {

namespace fs = std::filesystem;

fs::path Executable() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error);
}

// A folder of its own that is gone when its work is done.
class TemporaryFolder {
 public:
  static Result<std::unique_ptr<TemporaryFolder>> Make() {
    std::string name = (fs::temp_directory_path() / "paritybit-receipt-XXXXXX").string();
    if (!mkdtemp(name.data())) return MakeError(Code::kIo, "{}: cannot create: {}", name, ErrnoText(errno));
    return std::unique_ptr<TemporaryFolder>(new TemporaryFolder(name));
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  explicit TemporaryFolder(fs::path path) : path_(std::move(path)) {}
  fs::path path_;
};

// A command line holds no prompt of any length: long ones go by file.
Status ShortenPrompts(const fs::path& folder, std::vector<std::string>* words) {
  constexpr size_t kLong = 64 << 10;
  for (size_t i = 1; i < words->size(); ++i) {
    std::string& word = (*words)[i];
    if (word.size() < kLong || (*words)[i - 1] != "--prompt") continue;
    const fs::path file = folder / fmt::format("prompt-{}.txt", i);
    PB_TRY(WriteFileAtomic(file, word));
    (*words)[i - 1] = "--prompt-file";
    word = file.string();
  }
  return {};
}

}  // namespace

void AddReceiptArgument(Flags& flags, std::string& receipt) {
  flags.Option("--receipt", receipt, "write the evidence to this file (docs/receipts.md)").Group("Output");
}

Status CheckReceiptPath(const std::string& path) {
  std::error_code ignored;
  if (path.empty()) return {};
  if (fs::exists(path, ignored) && !fs::is_regular_file(path, ignored))
    return MakeError(Code::kIo, "{}: not a regular file", path);
  std::string temporary = path + ".XXXXXX";
  const int fd = mkstemp(temporary.data());
  if (fd < 0) return MakeError(Code::kIo, "{}: cannot create: {}", path, ErrnoText(errno));
  close(fd);
  unlink(temporary.c_str());
  return {};
}

int WriteReceipt(const std::string& path, const std::string& text, int exit_code) {
  const Status written = WriteFileAtomic(path, text);
  if (written.ok()) return exit_code;
  PrintError(fmt::format("error: the receipt: {}\n", EscapeUnsafe(written.error().message)));
  return exit_code == kExitOk ? kExitEnvironment : exit_code;
}

int64_t NowSeconds() { return static_cast<int64_t>(std::time(nullptr)); }

std::string TimeText(int64_t seconds) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<std::time_t>(seconds)));
}

report::ReceiptHead HeadOf(std::vector<std::string> words) {
  report::ReceiptHead head;
  head.created = TimeText(NowSeconds());
  head.commit = Commit();
  if (auto digest = drive::CachedFileSha256(Executable()); digest.ok()) head.sha256 = *digest;
  head.arguments = std::move(words);
  return head;
}

Result<std::vector<std::string>> WordsOf(const nlohmann::json& receipt) {
  std::vector<std::string> words;
  for (const nlohmann::json& word : receipt["arguments"]) {
    if (word.is_string()) {
      words.push_back(word.get<std::string>());
    } else {
      const auto bytes = word.get<std::vector<uint8_t>>();
      words.emplace_back(bytes.begin(), bytes.end());
    }
    if (words.back().find('\0') != std::string::npos)
      return MakeError(Code::kMalformed, "the command of the receipt has a word with a NUL byte");
  }
  if (words[0] != receipt["command"].get<std::string>())
    return MakeError(Code::kMalformed, "the receipt is of {}, and its command is {}",
                     receipt["command"].get<std::string>(), words[0]);
  return words;
}

void LookForFiles(const std::string& model, std::vector<receipt::FileHere>* files) {
  for (receipt::FileHere& file : *files) {
    if (file.what == "the model" && !model.empty()) file.path = model;
    if (auto digest = drive::CachedFileSha256(file.path); digest.ok()) file.found = *digest;
  }
}

Result<receipt::Opened> RunForReceipt(std::vector<std::string> words) {
  PB_ASSIGN(const std::unique_ptr<TemporaryFolder> folder, TemporaryFolder::Make());
  PB_TRY(ShortenPrompts(folder->path(), &words));
  const fs::path written = folder->path() / "receipt.json";
  words.insert(words.begin(), Executable().string());
  words.insert(words.end(), {"--receipt", written.string(), "--format", "json"});
  constexpr double kForever = 1e9;  // engines that hang are ended by their own limit
  PB_ASSIGN(const setup::Output output, setup::RunProgram(words, kForever));
  auto text = ReadFile(written, kMaxReceiptBytes);
  if (text.ok()) return receipt::Open(*text);
  // What an error says as JSON stands on stdout.
  const auto told = nlohmann::json::parse(output.out, nullptr, false);
  const Code code = output.exit_code == kExitEngine ? Code::kEngine : Code::kIo;
  if (told.is_object() && told.contains("reasons") && told["reasons"].is_array() &&
      !told["reasons"].empty() && told["reasons"][0].is_object()) {
    const std::string text = told["reasons"][0].value("text", "it wrote no receipt");
    return MakeError(code, "{}", text.substr(0, text.find('\n')));
  }
  return MakeError(code, "{} ended with {} and wrote no receipt{}{}", words[1], output.exit_code,
                   output.err.empty() ? "" : ": ", output.err);
}

}  // namespace pb::cli
