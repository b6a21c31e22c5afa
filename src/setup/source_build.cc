// Drives git and CMake in a folder of the cache; follows the build line by line.
#include "setup/source_build.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <optional>

#include "base/file.h"
#include "base/processors.h"
#include "base/sha256.h"
#include "base/text.h"
#include "setup/process.h"
#include "setup/record.h"
#include "setup/release.h"
#include "setup/work_dir.h"

namespace pb::setup {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;
constexpr double kGitSeconds = 3600, kBuildSeconds = 4 * 3600;
constexpr size_t kErrorLines = 8;
constexpr size_t kShortCommit = 12;

std::string Line(const Words& words) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : " ") + ShellQuote(word);
  return line;
}

bool Exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// "[12/190]" of Ninja, "[ 45%]" of Make: how far a build is.
std::optional<std::pair<int64_t, int64_t>> AdvanceOf(std::string_view line) {
  if (!line.starts_with('[')) return std::nullopt;
  line.remove_prefix(1);
  while (line.starts_with(' ')) line.remove_prefix(1);
  int64_t done = 0, total = 100;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), done);
  if (error != std::errc()) return std::nullopt;
  line.remove_prefix(static_cast<size_t>(end - line.data()));
  if (line.starts_with("%]")) return std::pair(done, total);
  if (!line.starts_with('/')) return std::nullopt;
  const auto [last, wrong] = std::from_chars(line.data() + 1, line.data() + line.size(), total);
  if (wrong != std::errc() || last == line.data() + line.size() || *last != ']') return std::nullopt;
  return std::pair(done, total);
}

// A build's last errors: what a person looks for in its log.
class Errors {
 public:
  void Add(std::string_view line) {
    last_.emplace_back(line);
    if (last_.size() > kErrorLines) last_.erase(last_.begin());
    for (const char* sign : {"error:", "Error:", "error ", "CMake Error", "undefined reference", "fatal:"}) {
      if (line.find(sign) == line.npos) continue;
      errors_.emplace_back(line);
      if (errors_.size() > kErrorLines) errors_.erase(errors_.begin());
      return;
    }
  }
  std::string Text() const {
    std::string text;
    for (const std::string& line : errors_.empty() ? last_ : errors_) text += "\n         " + line;
    return text;
  }

 private:
  Words errors_, last_;
};

class Sources {
 public:
  explicit Sources(const SetupOptions& options) : options_(options), from_(options.source) {}

  Result<SourceTree> Run() {
    PB_ASSIGN(flags_, SplitWords(from_.cmake_flags));
    PB_TRY(CheckWords());
    PB_TRY(FindRepository());
    home_ = ReferencesDir() / (".source-" + Sha256Hex(fmt::format("{}\n{}\n{}\n{}", repo_, from_.rev,
                                                                  from_.backend, fmt::join(flags_, "\n")))
                                                .substr(0, 16));
    if (options_.dry_run) return Foresee();
    PB_TRY(CheckTools());
    if (!Exists(tree()) || from_.force) PB_TRY(Clone());
    PB_ASSIGN(const std::string commit, ReadFile(home_ / "commit.txt", 4096));
    if (from_.clean || from_.force) PB_TRY(Remove(tree() / "build"));
    if (!Exists(home_ / "built.txt") || from_.clean || from_.force) PB_TRY(Build());
    return SourceTree{tree(), How(commit), commit};
  }

 private:
  fs::path tree() const { return home_ / "tree"; }
  fs::path log() const { return home_ / "build.log"; }
  std::string How(const std::string& commit) const {
    return fmt::format("fetch-cpp {} at {}", repo_, commit.substr(0, kShortCommit));
  }
  void Say(std::string_view line) const {
    if (options_.progress) options_.progress(line);
  }

  Status CheckWords() const {
    for (const auto& [flag, value] : {std::pair("--repo", from_.repo), std::pair("--rev", from_.rev)})
      if (value.starts_with('-'))
        return MakeError(Code::kUsage, "{} {}: it begins with a dash, as a flag of git does", flag, value);
    return {};
  }

  Status CheckTools() const {
    Words tools = {"git", "cmake", "c++"};
    if (from_.backend == "cuda") tools.push_back("nvcc");
    for (const std::string& tool : tools) {
      if (!FindProgram(tool).empty()) continue;
      const std::string package = tool == "c++" ? "g++" : tool == "nvcc" ? "nvidia-cuda-toolkit" : tool;
      return MakeError(Code::kNotFound, "{} is missing, which builds the reference.\n       install it:  {}",
                       tool, "sudo apt-get install " + package);
    }
    return {};
  }

  // A folder or bundle by its full path, a URL as it is, the default release by its package.
  Status FindRepository() {
    std::error_code error;
    local_ = fs::exists(from_.repo, error) && !from_.repo.empty();
    repo_ = local_ ? fs::canonical(from_.repo, error).string() : from_.repo;
    if (!repo_.empty()) return {};
    PB_ASSIGN(const Release release, FindRelease(KnownReleases().front()));
    repo_ = BundleOf(release).string();
    if (options_.dry_run) return {};
    return FetchBundle(release, options_);
  }

  Result<SourceTree> Foresee() const {
    for (const Words& command : CloneCommands(tree())) Say("would run: " + Line(command));
    for (const Words& command : {ConfigureCommand(), BuildCommand()}) Say("would run: " + Line(command));
    return SourceTree{tree(), How(from_.rev.empty() ? "its HEAD" : from_.rev), from_.rev};
  }

  std::vector<Words> CloneCommands(const fs::path& tree) const {
    const std::string dir = tree.string();
    Words submodules = {"git", "-C", dir};
    // Whoever names a folder here trusts it, and its submodules may be folders too.
    if (local_) submodules.insert(submodules.end(), {"-c", "protocol.file.allow=always"});
    submodules.insert(submodules.end(), {"submodule", "update", "--init", "--recursive", "--progress"});
    return {{"git", "clone", "--no-checkout", "--progress", "--", repo_, dir},
            {"git", "-C", dir, "-c", "advice.detachedHead=false", "checkout", "--progress", "--detach",
             from_.rev.empty() ? "HEAD" : from_.rev},
            submodules};
  }

  // Of a branch that the clone has under its remote's name alone.
  std::string RemoteBranch(const fs::path& tree) const {
    const std::string name = "origin/" + from_.rev;
    const auto found = RunProgram(
        {"git", "-C", tree.string(), "rev-parse", "--verify", "--quiet", name + "^{commit}"}, kGitSeconds);
    return found.ok() && found->exit_code == 0 ? name : "";
  }

  Status Clone() {
    PB_ASSIGN(const WorkDir work, WorkDir::Create(ReferencesDir()));
    const fs::path made = work.path() / "home/tree";
    std::error_code error;
    fs::create_directories(made.parent_path(), error);
    Say(fmt::format("cloning {}", repo_));
    std::vector<Words> commands = CloneCommands(made);
    PB_TRY(Git(commands[0]));
    if (!from_.rev.empty()) {
      if (const std::string branch = RemoteBranch(made); !branch.empty()) commands[1].back() = branch;
    }
    PB_TRY(Git(commands[1]));
    if (Exists(made / ".gitmodules")) Say("fetching submodules");
    PB_TRY(Git(commands[2]));
    PB_ASSIGN(const Output head,
              RunProgramOk({"git", "-C", made.string(), "rev-parse", "HEAD"}, kGitSeconds));
    const std::string commit = head.out.substr(0, head.out.find('\n'));
    Say(fmt::format("checked out {}", commit));
    PB_TRY(WriteFileAtomic(work.path() / "home/commit.txt", commit));
    PB_TRY(Replace(work.path() / "home", home_));
    return {};
  }

  Status Git(const Words& command) const {
    Errors errors;
    const auto on_line = [&](std::string_view line) {
      errors.Add(line);
      const size_t percent = line.find('%');
      if (percent == line.npos || percent == 0 || !options_.advance) return;
      size_t begin = percent;
      while (begin > 0 && line[begin - 1] >= '0' && line[begin - 1] <= '9') --begin;
      options_.advance(fmt::format("git: {}", line.substr(0, line.find(':'))),
                       std::atoi(std::string(line.substr(begin, percent - begin)).c_str()), 100);
    };
    PB_ASSIGN(const Output output, RunProgram(command, kGitSeconds, on_line));
    if (output.exit_code == 0) return {};
    return MakeError(Code::kIo, "`{}` failed with {}:{}", Line(command), output.exit_code, errors.Text());
  }

  Words ConfigureCommand() const {
    Words command = {"cmake", "-S", tree().string(), "-B", (tree() / "build").string()};
    if (!FindProgram("ninja").empty()) command.insert(command.end(), {"-G", "Ninja"});
    for (const char* flag :
         {"CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=ON", "CMAKE_POSITION_INDEPENDENT_CODE=ON",
          "LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_TOOLS=OFF",
          "LLAMA_BUILD_SERVER=OFF", "LLAMA_BUILD_COMMON=OFF", "LLAMA_CURL=OFF", "GGML_NATIVE=ON"})
      command.push_back(std::string("-D") + flag);
    if (from_.backend == "cuda") command.push_back("-DGGML_CUDA=ON");
    command.insert(command.end(), flags_.begin(), flags_.end());
    return command;
  }

  Words BuildCommand() const {
    const int jobs = from_.jobs > 0 ? from_.jobs : std::max(1, ProcessorCount());
    return {"cmake", "--build", (tree() / "build").string(), "--parallel", std::to_string(jobs)};
  }

  Status Remove(const fs::path& path) const {
    std::error_code error;
    fs::remove(home_ / "built.txt", error);
    fs::remove_all(path, error);
    return error ? MakeError(Code::kIo, "{}: {}", path.string(), error.message()) : Status();
  }

  // bitnet.cpp's build includes a header of tables that its own set-up script puts there.
  Status PutKernelTables() const {
    const fs::path wanted = tree() / "include/bitnet-lut-kernels.h";
    std::error_code error;
    if (Exists(wanted) || !Exists(tree() / "preset_kernels")) return {};
    std::vector<fs::path> presets;
    for (fs::recursive_directory_iterator at(tree() / "preset_kernels", error), end; !error && at != end;
         at.increment(error))
      if (at->path().filename().string().starts_with("bitnet-lut-kernels")) presets.push_back(at->path());
    std::sort(presets.begin(), presets.end());
    if (presets.empty()) return {};
    Say(fmt::format("taking {} for include/bitnet-lut-kernels.h", presets[0].filename().string()));
    fs::copy_file(presets[0], wanted, error);
    return error ? MakeError(Code::kIo, "{}: {}", wanted.string(), error.message()) : Status();
  }

  Status Build() const {
    PB_TRY(PutKernelTables());
    std::ofstream file(log(), std::ios::trunc);
    Say(fmt::format("configuring; log: {}", log().string()));
    PB_TRY(Step(ConfigureCommand(), "configuring", file));
    Say("building");
    PB_TRY(Step(BuildCommand(), "building", file));
    return WriteFileAtomic(home_ / "built.txt", Line(ConfigureCommand()));
  }

  // Runs one command, shows how far it is, and keeps all that it prints in the log.
  Status Step(const Words& command, std::string_view what, std::ofstream& file) const {
    Errors errors;
    file << "$ " << Line(command) << std::endl;
    const auto on_line = [&](std::string_view line) {
      errors.Add(line);
      file << line << std::endl;
      if (const auto advance = AdvanceOf(line); advance && options_.advance)
        options_.advance(what, advance->first, advance->second);
    };
    PB_ASSIGN(const Output output, RunProgram(command, kBuildSeconds, on_line));
    if (!file) return MakeError(Code::kIo, "{}: cannot be written", log().string());
    if (output.exit_code == 0) return {};
    return MakeError(Code::kIo, "{} failed with {}:{}\n       all that it printed:  {}", what,
                     output.exit_code, errors.Text(), log().string());
  }

  const SetupOptions& options_;
  const SourceOptions& from_;
  Words flags_;
  std::string repo_;
  bool local_ = false;
  fs::path home_;
};

}  // namespace

Result<SourceTree> BuildSources(const SetupOptions& options) { return Sources(options).Run(); }

Result<std::vector<std::string>> SplitWords(std::string_view text) {
  Words words;
  bool within = false;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (!quote && (c == ' ' || c == '\t' || c == '\n')) {
      within = false;
      continue;
    }
    if (!within) words.emplace_back(), within = true;
    if (quote ? c == quote : c == '"' || c == '\'') {
      quote = quote ? 0 : c;
    } else if (c == '\\' && quote != '\'' && i + 1 < text.size()) {
      words.back() += text[++i];
    } else {
      words.back() += c;
    }
  }
  if (quote) return MakeError(Code::kUsage, "--cmake-flags: the quote {} does not end in `{}`", quote, text);
  return words;
}

}  // namespace pb::setup
