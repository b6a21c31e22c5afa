// paritybit repro: the smallest bundle that shows a wrong op, for a bug report.
#include "repro/repro.h"

#include <fmt/core.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/crossval_common.h"
#include "cli/last_run.h"
#include "cli/next.h"
#include "report/escape.h"
#include "report/json.h"
#include "report/repro_bundle.h"
#include "setup/work_dir.h"

namespace pb::cli {
namespace {

namespace fs = std::filesystem;
// The bundle's files, and what its README has the user compile there.
constexpr const char *kReadme = "README.md", *kProgram = "repro.cc", *kData = "data.txt",
                     *kCompiled = "repro";
constexpr size_t kLabel = 11;  // columns before the text of a line

struct ReproArguments {
  CrossvalArguments compared;
  PlaceArguments place;
  std::string out;
  bool force = false;
};

// The folder's absolute path, if a bundle may be put there: it does not exist, is empty, or holds a
// bundle alone that may be replaced.
Result<fs::path> CheckFolder(const std::string& out, bool force) {
  std::error_code error;
  fs::path folder = fs::absolute(out, error).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();  // "bundle/"
  if (error || folder.filename().empty()) return MakeError(Code::kUsage, "--out {}: no folder", out);
  const fs::file_status status = fs::symlink_status(folder, error);
  if (status.type() == fs::file_type::not_found) return folder;
  if (status.type() != fs::file_type::directory)
    return MakeError(Code::kUsage, "--out {}: is there and no folder", out);
  bool empty = true, bundle = fs::exists(folder / kData, error);
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    empty = false;
    bundle = bundle && entry.is_regular_file() &&
             (name == kReadme || name == kProgram || name == kData || name == kCompiled);
  }
  if (error) return MakeError(Code::kIo, "--out {}: {}", out, error.message());
  if (empty || (bundle && force)) return folder;
  return bundle ? MakeError(Code::kUsage, "--out {}: holds a bundle already; --force replaces it", out)
                : MakeError(Code::kUsage,
                            "--out {}: is not empty; name another folder, or one that does not exist", out);
}

// Writes all files beside the folder and puts them in place at once.
Status WriteBundle(const fs::path& folder, const std::vector<std::pair<std::string, std::string>>& files) {
  HoldInterrupts hold;
  std::error_code error;
  fs::create_directories(folder.parent_path(), error);
  if (error) return MakeError(Code::kIo, "{}: {}", folder.parent_path().string(), error.message());
  std::string work = folder.parent_path() / fmt::format(".{}-XXXXXX", folder.filename().string());
  if (!mkdtemp(work.data())) return MakeError(Code::kIo, "{}: {}", work, std::strerror(errno));
  Status status;
  for (const auto& [name, content] : files)
    if (status.ok()) status = WriteFileAtomic(fs::path(work) / name, content);
  fs::permissions(work, fs::perms(0755), error);  // mkdtemp's is 0700
  if (status.ok()) status = setup::Replace(work, folder);
  if (!status.ok()) fs::remove_all(work, error);
  return status;
}

void Print(const ReproArguments& args, const diagnose::Diagnosis& diagnosis, const repro::Repro& repro,
           const std::vector<std::pair<std::string, std::string>>& files, const report::Context& context,
           const compare::Verdict& verdict) {
  size_t n_bytes = 0;
  for (const auto& [name, content] : files) n_bytes += content.size();
  const std::string see =
      fmt::format("cd {} && g++ -std=c++17 -O2 repro.cc -o repro && ./repro", ShellQuote(args.out));
  if (args.compared.output.json()) {
    auto object = Envelope("paritybit.repro/0", compare::OutcomeName(verdict.outcome),
                           compare::ExitCode(verdict.outcome));
    object["scope"] = compare::ScopeName(verdict.scope);
    for (const compare::Reason& reason : verdict.reasons)
      object["reasons"].push_back({{"code", compare::ReasonName(reason.code)}, {"text", reason.text}});
    report::PutNext({{see, "compiles the bundle's program and shows it"}}, &object);
    object["blame"] = compare::BlameName(diagnosis.blame);
    object["sentence"] = diagnosis.sentence;
    object["folder"] = args.out;
    object["files"] = nlohmann::json::array();
    for (const auto& [name, content] : files)
      object["files"].push_back({{"name", name}, {"n_bytes", content.size()}});
    object["stage"] = pb_vocabulary[diagnosis.place.stage].name;
    object["layer"] = diagnosis.place.layer;
    object["position"] = repro.position;
    object["features"] = repro.features;
    object["explains"] = context.explains.empty() ? nlohmann::json() : nlohmann::json(context.explains);
    object["notes"] = context.notes;
    PrintJson(object);
    return;
  }
  const auto width = static_cast<size_t>(TerminalWidth(STDOUT_FILENO));
  std::string text = report::Wrap(report::Escape(diagnosis.sentence), width, 0) + "\n\n";
  auto line = [&](std::string_view label, const std::string& words) {
    text += fmt::format("{:<{}}{}\n", label, kLabel, report::Wrap(words, width, kLabel));
  };
  line("bundle", fmt::format("{}: README.md, repro.cc, data.txt, {:.1f} KB", args.out,
                             static_cast<double>(n_bytes) / 1000));
  line("shows", fmt::format("position {}, {} of {} features", repro.position, repro.features.size(),
                            repro.n_features));
  for (const std::string& note : context.notes) line("note", report::Escape(note));
  line("blame", compare::BlameName(diagnosis.blame));
  PrintText(text + fmt::format("{:<{}}{}\n", "next", kLabel, see));  // whole, to be pasted
}

// No bundle, and why. Where the engines agree that is no failure; else what was asked for is not
// there.
int PrintNone(const CrossvalArguments& args, const diagnose::ExplainedRun& judged) {
  const OutputArguments& output = args.output;
  const compare::Verdict& verdict = judged.comparison.verdict;
  const int exit_code = compare::ExitCode(verdict.outcome);
  const std::string why =
      "no bundle was written: " + (judged.diagnosis ? judged.diagnosis->sentence : WhyNone(judged));
  if (exit_code != kExitOk)
    return FailWith(
        output, std::max(exit_code, kExitIncomplete), compare::OutcomeName(verdict.outcome),
        compare::ReasonName(verdict.Has(compare::ReasonCode::kUnsupported) ? compare::ReasonCode::kUnsupported
                                                                           : compare::ReasonCode::kNoBundle),
        why,
        diagnose::IsDivergence(verdict) ? std::vector<run::NextCommand>()
                                        : NextCommands(args, "crossval", judged));
  auto object = Envelope("paritybit.repro/0", compare::OutcomeName(verdict.outcome), exit_code);
  object["notes"] = {why};
  if (output.json())
    PrintJson(object);
  else
    PrintText(fmt::format("{}\n{:<{}}{}\n", why, "verdict", kLabel, compare::OutcomeName(verdict.outcome)));
  return exit_code;
}

int Run(ReproArguments args) {
  const OutputArguments& output = args.compared.output;
  report::Context context = MakeContext("repro");
  auto folder = CheckFolder(args.out, args.force);
  if (!folder) return Fail(output, folder.error());
  auto asked = RunAsked(&args.compared, &args.place, "repro", &context.explains);
  if (!asked) return Fail(output, asked.error());
  auto& [request, judged] = *asked;
  const compare::Verdict& verdict = judged.comparison.verdict;
  if (!judged.culprit || !repro::HasRepro(*judged.diagnosis)) return PrintNone(args.compared, judged);
  auto arbiter = ResolveEngine("oracle", {});
  if (!arbiter) return Fail(output, arbiter.error());
  auto repro =
      repro::BuildRepro(*judged.culprit, judged.comparison, *judged.diagnosis, *arbiter, request.limits);
  if (!repro)
    return FailWith(output, kExitIncomplete, "incomplete",
                    compare::ReasonName(compare::ReasonCode::kNoBundle), repro.error().message);
  auto program = ReadFile(ExecutableDir().parent_path() / "share" / "paritybit" / "repro.cc", 1 << 20);
  if (!program) return Fail(output, program.error());
  const std::vector<std::pair<std::string, std::string>> files{
      {kReadme, report::RenderReproReadme(judged.comparison, *judged.diagnosis, *repro, context)},
      {kProgram, report::CutReproProgram(*program, *repro)},
      {kData, report::RenderReproData(*repro)}};
  folder = CheckFolder(args.out, args.force);  // minutes may have gone by
  if (!folder) return Fail(output, folder.error());
  if (Status written = WriteBundle(*folder, files); !written.ok()) return Fail(output, written.error());
  Print(args, *judged.diagnosis, *repro, files, context, verdict);
  return compare::ExitCode(verdict.outcome);
}

}  // namespace

Action DeclareRepro(Flags& flags) {
  auto args = std::make_shared<ReproArguments>();
  AddComparisonArguments(flags, args->compared);
  AddPlaceArguments(flags, args->place);
  flags.Option("-o,--out", args->out, "folder of the bundle: new, or empty").Required().Group("Output");
  flags.Switch("--force", args->force, "replace a bundle that is there").Group("Output");
  return [args] { return Run(*args); };
}

}  // namespace pb::cli
