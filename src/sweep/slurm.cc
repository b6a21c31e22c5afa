// Writes plans for tasks, calls sbatch and squeue, and waits for results to appear.
#include "sweep/slurm.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "base/kept.h"
#include "base/sha256.h"
#include "base/text.h"
#include "setup/process.h"
#include "setup/work_dir.h"

namespace pb::sweep {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kSchema = "paritybit.sweep-plan/1";
constexpr uint64_t kMaxPlan = 256ull << 20;
constexpr size_t kMostTasks = 1000;  // of one array: Slurm's MaxArraySize is 1001 where nobody set it
constexpr double kPatience = 120;    // for an answer of Slurm
// A task that has ended may be told as gone before its last file is seen on this node.
constexpr int kTimesGone = 5;
constexpr int kTickMs = 400;

struct Submitted {
  std::string name;  // of the job and of its files
  Runner runner;
  std::vector<Cell> cells;
};

fs::path PlanFile(const Folder& folder, const std::string& name) { return folder.slurm() / (name + ".json"); }

Status WritePlan(const Submitted& job) {
  Json cells = Json::array();
  for (const Cell& cell : job.cells) cells.push_back(ToJson(cell));
  const Runner& runner = job.runner;
  return WriteSealed(PlanFile(runner.folder, job.name), {{"schema", kSchema},
                                                         {"name", job.name},
                                                         {"program", runner.program.string()},
                                                         {"folder", runner.folder.root.string()},
                                                         {"timeout", runner.limits.timeout},
                                                         {"stall", runner.limits.stall},
                                                         {"cells", cells}});
}

Result<Submitted> ReadPlanFile(const fs::path& path) {
  PB_ASSIGN(const Json json, ReadSealed(path, kMaxPlan));
  try {
    Submitted job;
    if (json.at("schema") != kSchema)
      return MakeError(Code::kMalformed, "{}: is no plan of a sweep", path.string());
    json.at("name").get_to(job.name);
    job.runner.program = json.at("program").get<std::string>();
    job.runner.folder.root = json.at("folder").get<std::string>();
    json.at("timeout").get_to(job.runner.limits.timeout);
    json.at("stall").get_to(job.runner.limits.stall);
    for (const Json& entry : json.at("cells")) {
      std::optional<Cell> cell = CellOf(entry);
      if (!cell) return MakeError(Code::kMalformed, "{}: holds a cell that is none", path.string());
      job.cells.push_back(*std::move(cell));
    }
    return job;
  } catch (const Json::exception& error) {
    return MakeError(Code::kMalformed, "{}: {}", path.string(), error.what());
  }
}

// What a program of Slurm prints.
Result<std::string> Ask(const std::vector<std::string>& words) {
  auto output = setup::RunProgram(words, kPatience);
  if (!output.ok() && output.error().code == Code::kNotFound)
    return MakeError(Code::kNotFound,
                     "{} is not in $PATH: this machine hands no work to Slurm (Debian: slurm-client); "
                     "--executor local runs the same cells here",
                     words[0]);
  if (!output.ok()) return std::move(output).error();
  if (output->exit_code != 0)
    return MakeError(Code::kIo, "{} ended with {}: {}", words[0], output->exit_code,
                     output->err.substr(0, output->err.find_last_not_of('\n') + 1));
  return std::move(output->out);
}

struct Task {
  std::string job, state;
  Cell cell;
};

class Queue {
 public:
  explicit Queue(const Folder& folder) : folder_(folder) {}

  // Tasks that Slurm has not ended, by the names of their cells.
  Result<std::map<std::string, Task>> Tasks() {
    std::map<std::string, Task> tasks;
    PB_TRY(ReadJobs());
    if (jobs_.empty()) return tasks;
    std::string names;
    for (const auto& [name, job] : jobs_) names += (names.empty() ? "" : ",") + name;
    PB_ASSIGN(const std::string out, Ask({"squeue", "-h", "-r", "--name=" + names, "-o", "%j %A %K %T"}));
    for (size_t begin = 0; begin < out.size();) {
      const size_t end = std::min(out.find('\n', begin), out.size());
      Take(out.substr(begin, end - begin), &tasks);
      begin = end + 1;
    }
    return tasks;
  }

 private:
  Status ReadJobs() {
    std::error_code error;
    for (fs::directory_iterator it(folder_.slurm(), error), end; !error && it != end; it.increment(error)) {
      const std::string name = it->path().stem().string();
      if (it->path().extension() != ".json" || jobs_.count(name)) continue;
      auto job = ReadPlanFile(it->path());
      if (!job.ok()) return std::move(job).error();
      jobs_.emplace(name, *std::move(job));
    }
    return {};
  }

  // "paritybit-1234 17 0 RUNNING".
  void Take(const std::string& line, std::map<std::string, Task>* tasks) const {
    std::vector<std::string> words;
    for (size_t begin = 0; begin < line.size();) {
      const size_t end = std::min(line.find(' ', begin), line.size());
      words.push_back(line.substr(begin, end - begin));
      begin = end + 1;
    }
    const auto job = words.size() == 4 ? jobs_.find(words[0]) : jobs_.end();
    size_t index = 0;
    if (job == jobs_.end() ||
        std::from_chars(words[2].data(), words[2].data() + words[2].size(), index).ec != std::errc() ||
        index >= job->second.cells.size())
      return;
    const Cell& cell = job->second.cells[index];
    tasks->emplace(cell.name, Task{words[1], words[3], cell});
  }

  const Folder& folder_;
  std::map<std::string, Submitted> jobs_;
};

// A name that nothing else in the queue has.
std::string JobName(const Folder& folder, size_t part) {
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  constexpr size_t kDigits = 12;
  return "paritybit-" +
         Sha256Hex(fmt::format("{} {} {} {}", folder.root.string(), now, getpid(), part)).substr(0, kDigits);
}

std::vector<std::string> SubmitWords(const Submitted& job, const SlurmOptions& options,
                                     const fs::path& script) {
  int64_t threads = 1;
  double memory = 1;
  for (const Cell& cell : job.cells) {
    threads = std::max(threads, ThreadsOf(cell));
    memory = std::max(memory, cell.memory_mib);
  }
  constexpr double kSlack = 60;  // of the program around a cell
  const auto minutes = static_cast<int64_t>(std::ceil((job.runner.limits.timeout + kSlack) / 60));
  std::string array = fmt::format("--array=0-{}", job.cells.size() - 1);
  if (options.jobs > 0) array += fmt::format("%{}", options.jobs);
  std::error_code ignored;
  std::vector<std::string> words{"sbatch",
                                 "--parsable",
                                 array,
                                 "--job-name=" + job.name,
                                 fmt::format("--cpus-per-task={}", threads),
                                 fmt::format("--mem={:.0f}M", std::ceil(memory)),
                                 fmt::format("--time={}", minutes),
                                 "--requeue",
                                 "--open-mode=append",
                                 "--export=ALL",
                                 "--chdir=" + fs::current_path(ignored).string(),
                                 "--output=" + (job.runner.folder.slurm() / (job.name + "-%a.log")).string()};
  words.insert(words.end(), options.sbatch.begin(), options.sbatch.end());
  words.push_back(script.string());
  return words;
}

Status Submit(const Runner& runner, std::vector<Cell> cells, const SlurmOptions& options, size_t part) {
  const Submitted job{JobName(runner.folder, part), runner, std::move(cells)};
  const fs::path script = runner.folder.slurm() / (job.name + ".sh");
  PB_TRY(WriteFileAtomic(script, fmt::format("#!/bin/sh\nexec {} sweep --run-cell \"$SLURM_ARRAY_TASK_ID\" "
                                             "--plan {}\n",
                                             ShellQuote(runner.program.string()),
                                             ShellQuote(PlanFile(runner.folder, job.name).string()))));
  // Before Slurm knows of it: whoever is ended in between leaves no task that nobody knows.
  PB_TRY(WritePlan(job));
  auto submitted = Ask(SubmitWords(job, options, script));
  if (submitted.ok()) return {};
  std::error_code ignored;
  fs::remove(PlanFile(runner.folder, job.name), ignored);
  return std::move(submitted).error();
}

std::string StatusLine(const std::map<std::string, Task>& tasks) {
  std::map<std::string, int> states;
  for (const auto& [name, task] : tasks) {
    std::string state = task.state;
    for (char& c : state) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    ++states[state];
  }
  std::string line;
  for (const auto& [state, n] : states) line += fmt::format("{}{} {}", line.empty() ? "" : ", ", n, state);
  return "Slurm: " + (line.empty() ? "nothing queued" : line);
}

class Wait {
 public:
  Wait(const Runner& runner, Queue& queue, std::span<const Cell> cells, const CellDone& done,
       const SlurmStatus& status)
      : runner_(runner), queue_(queue), done_(done), status_(status) {
    for (const Cell& cell : cells) waiting_.push_back(&cell);
  }

  Status Run() {
    constexpr int kTicksAQuery = 5;
    for (int tick = 0; !waiting_.empty(); ++tick) {
      TakeResults();
      if (tick % kTicksAQuery == 0) PB_TRY(LookAtQueue());
      poll(nullptr, 0, kTickMs);
    }
    return {};
  }

 private:
  void TakeResults() {
    std::erase_if(waiting_, [&](const Cell* cell) {
      const auto result = ReadResult(runner_.folder, *cell, 0, 0);
      if (result) done_(*result);
      return result.has_value();
    });
  }

  Status LookAtQueue() {
    if (waiting_.empty()) return {};
    PB_ASSIGN(const auto tasks, queue_.Tasks());
    if (status_) status_(StatusLine(tasks));
    std::erase_if(waiting_, [&](const Cell* cell) {
      const bool gone = !tasks.count(cell->name);
      int& times = times_gone_[cell->name];
      times = gone ? times + 1 : 0;
      if (times < kTimesGone) return false;
      done_(NotRun(*cell, "its task ended without a result; what it said: " +
                              (runner_.folder.slurm() / "*.log").string()));
      return true;
    });
    return {};
  }

  const Runner& runner_;
  Queue& queue_;
  const CellDone& done_;
  const SlurmStatus& status_;
  std::vector<const Cell*> waiting_;
  std::map<std::string, int> times_gone_;
};

}  // namespace

Status RunBySlurm(const Runner& runner, std::span<const Cell> cells, const SlurmOptions& options,
                  const CellDone& done, const SlurmStatus& status) {
  std::error_code error;
  fs::create_directories(runner.folder.slurm(), error);
  if (error) return MakeError(Code::kIo, "{}: {}", runner.folder.slurm().string(), error.message());
  Queue queue(runner.folder);
  PB_ASSIGN(const auto tasks, queue.Tasks());
  std::vector<Cell> missing;
  for (const Cell& cell : cells) {
    const auto task = tasks.find(cell.name);
    if (task == tasks.end())
      missing.push_back(cell);
    else if (task->second.cell.key != cell.key)
      return MakeError(
          Code::kUsage,
          "job {} of Slurm still runs {} with other inputs: wait for it, or end it with `scancel {}`",
          task->second.job, cell.name, task->second.job);
  }
  // A result from before is none of what is submitted now.
  for (const Cell& cell : missing) fs::remove(runner.folder.result(cell.name), error);
  for (size_t begin = 0; begin < missing.size(); begin += kMostTasks) {
    const size_t end = std::min(missing.size(), begin + kMostTasks);
    PB_TRY(Submit(
        runner,
        {missing.begin() + static_cast<ptrdiff_t>(begin), missing.begin() + static_cast<ptrdiff_t>(end)},
        options, begin));
  }
  if (options.wait) return Wait(runner, queue, cells, done, status).Run();
  for (const Cell& cell : cells) done(NotRun(cell, "Slurm has it; the same command collects it"));
  return {};
}

Result<CellResult> RunPlannedCell(const fs::path& plan, int64_t index, const std::string& host) {
  PB_ASSIGN(Submitted job, ReadPlanFile(plan));
  if (index < 0 || static_cast<size_t>(index) >= job.cells.size())
    return MakeError(Code::kUsage, "--run-cell {}: the plan has {} cells, counted from 0", index,
                     job.cells.size());
  const Cell& cell = job.cells[static_cast<size_t>(index)];
  job.runner.host = host;
  const fs::path lock = job.runner.folder.result(cell.name).replace_extension(".lock");
  PB_ASSIGN(const setup::Lock held, setup::Lock::Take(lock, nullptr));
  const CellLimits& limits = job.runner.limits;
  if (auto result = ReadResult(job.runner.folder, cell, limits.timeout, limits.stall))
    return *std::move(result);
  return RunCell(job.runner, cell);
}

}  // namespace pb::sweep
