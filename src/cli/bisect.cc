// paritybit bisect: which of several releases of an engine is the first that a comparison fails on.
#include "cli/bisect.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/text.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "report/headline.h"
#include "report/text_blocks.h"
#include "setup/process.h"

namespace pb::cli {
namespace {

constexpr const char* kPlaceholder = "{}";

struct BisectArguments {
  std::vector<std::string> releases, words;
  OutputArguments output;
};

struct Tried {
  int code = -1;  // kBisectGood, kBisectBad, kBisectSkip; -1: not tried
  std::string verdict, reason;
};

class Bisection {
 public:
  explicit Bisection(const BisectArguments& args) : args_(args), tried_(args.releases.size()) {}

  // Tries the first, the last, and halves what lies between.
  Status Run();

  const std::vector<Tried>& tried() const { return tried_; }
  int64_t last_good() const { return good_; }
  int64_t first_bad() const { return bad_; }
  // Whether all between the last good and the first bad one had to be skipped, and there are some.
  bool between_skipped() const { return bad_ >= 0 && good_ >= 0 && bad_ - good_ > 1; }

 private:
  Result<int> Try(int64_t index);

  const BisectArguments& args_;
  std::vector<Tried> tried_;
  int64_t good_ = -1, bad_ = -1;
};

Result<int> Bisection::Try(int64_t index) {
  const std::string& name = args_.releases[static_cast<size_t>(index)];
  Tried& tried = tried_[static_cast<size_t>(index)];
  if (tried.code >= 0) return tried.code;
  std::error_code error;
  std::vector<std::string> argv{std::filesystem::read_symlink("/proc/self/exe", error).string()};
  for (std::string word : args_.words) {
    for (size_t at = word.find(kPlaceholder); at != std::string::npos;
         at = word.find(kPlaceholder, at + name.size()))
      word.replace(at, 2, name);
    argv.push_back(std::move(word));
  }
  argv.insert(argv.end(), {"--git-bisect", "--format", "json"});
  Log(args_.output, "trying " + name);
  constexpr double kForever = 1e9;  // engines that hang are ended by their own limit
  PB_ASSIGN(const setup::Output output, setup::RunProgram(argv, kForever));
  const auto json = nlohmann::json::parse(
      output.out.substr(std::min(output.out.find('{'), output.out.size())), nullptr, false);
  if (json.is_object()) {
    tried.verdict = json.value("verdict", "");
    if (json.contains("reasons") && json["reasons"].is_array() && !json["reasons"].empty())
      tried.reason = json["reasons"][0].value("text", "");
  }
  if (output.exit_code >= kBisectAbort)
    return MakeError(Code::kUsage, "with {} in its place: {}", name,
                     tried.reason.empty() ? output.err : tried.reason);
  return tried.code = output.exit_code;
}

Status Bisection::Run() {
  const auto n = static_cast<int64_t>(tried_.size());
  // The outermost ones that say anything.
  int64_t low = 0, high = n - 1;
  for (; low < n; ++low) {
    PB_ASSIGN(const int code, Try(low));
    if (code == kBisectBad) bad_ = low;
    if (code == kBisectGood) good_ = low;
    if (code != kBisectSkip) break;
  }
  if (good_ < 0) return {};
  for (; high > low; --high) {
    PB_ASSIGN(const int code, Try(high));
    if (code == kBisectBad) bad_ = high;
    if (code == kBisectGood) good_ = high;
    if (code != kBisectSkip) break;
  }
  if (bad_ < 0) return {};
  while (bad_ - good_ > 1) {
    // The nearest to the middle that was not skipped.
    const int64_t middle = (good_ + bad_) / 2;
    std::optional<int64_t> next;
    for (int64_t i = good_ + 1; i < bad_; ++i)
      if (tried_[static_cast<size_t>(i)].code != kBisectSkip &&
          (!next || std::abs(i - middle) < std::abs(*next - middle)))
        next = i;
    if (!next) return {};
    PB_ASSIGN(const int code, Try(*next));
    if (code == kBisectGood) good_ = *next;
    if (code == kBisectBad) bad_ = *next;
  }
  return {};
}

// Word for the outcome and one sentence.
std::pair<compare::Outcome, report::Headline> HeadlineOf(const BisectArguments& args, const Bisection& b) {
  const auto name = [&](int64_t i) { return EscapeUnsafe(args.releases[static_cast<size_t>(i)]); };
  if (b.last_good() < 0 && b.first_bad() < 0)
    return {compare::Outcome::kIncomplete, {"none of the releases could be compared", ""}};
  if (b.last_good() < 0)
    return {compare::Outcome::kDiverged,
            {fmt::format("{} fails already; name an earlier release that passes", name(b.first_bad())), ""}};
  if (b.first_bad() < 0)
    return {compare::Outcome::kMatch,
            {fmt::format("the first and the last release that could be compared pass: {} and {}", name(0),
                         name(b.last_good())),
             ""}};
  if (b.between_skipped())
    return {compare::Outcome::kIncomplete,
            {fmt::format("the first that fails is one of {} to {}: those between could not be compared",
                         name(b.last_good() + 1), name(b.first_bad())),
             fmt::format("{} passes", name(b.last_good()))}};
  return {compare::Outcome::kDiverged,
          {fmt::format("{} is the first release that fails", name(b.first_bad())),
           fmt::format("{}, the one before it, passes", name(b.last_good()))}};
}

const char* CodeName(int code) {
  return code == kBisectGood   ? "good"
         : code == kBisectBad  ? "bad"
         : code == kBisectSkip ? "skipped"
                               : "not tried";
}

void Print(const BisectArguments& args, const Bisection& b) {
  const auto [outcome, headline] = HeadlineOf(args, b);
  if (args.output.json()) {
    auto out = Envelope("paritybit.bisect/0", compare::OutcomeName(outcome), compare::ExitCode(outcome));
    out["sentence"] = headline.sentence;
    const auto named = [&](int64_t i) {
      return i < 0 ? nlohmann::ordered_json(nullptr)
                   : nlohmann::ordered_json(args.releases[static_cast<size_t>(i)]);
    };
    out["last_good"] = named(b.last_good());
    out["first_bad"] = b.between_skipped() ? nlohmann::ordered_json(nullptr) : named(b.first_bad());
    out["releases"] = nlohmann::ordered_json::array();
    for (size_t i = 0; i < args.releases.size(); ++i) {
      const Tried& t = b.tried()[i];
      out["releases"].push_back({{"name", args.releases[i]},
                                 {"state", CodeName(t.code)},
                                 {"verdict", t.verdict},
                                 {"reason", t.reason}});
    }
    PrintJson(out);
    return;
  }
  report::TextOptions options;
  options.width = TerminalWidth(1);
  std::string text;
  for (size_t i = 0; i < args.releases.size(); ++i) {
    const Tried& t = b.tried()[i];
    text += report::LabelledLine(
        CodeName(t.code),
        fmt::format("{}{}{}", EscapeUnsafe(args.releases[i]), t.verdict.empty() ? "" : ": " + t.verdict,
                    t.code == kBisectGood || t.reason.empty() ? "" : ", " + EscapeUnsafe(t.reason)),
        options.width);
  }
  PrintText(text + "\n" + report::HeadlineBlock(outcome, headline, options));
}

Result<int> RunBisect(const BisectArguments& args) {
  if (args.releases.size() < 2)
    return MakeError(Code::kUsage, "two releases are needed at least: --release OLDEST ... --release NEWEST");
  const bool placed = std::ranges::any_of(
      args.words, [](const std::string& word) { return word.find(kPlaceholder) != std::string::npos; });
  if (!placed)
    return MakeError(Code::kUsage,
                     "the command behind -- has no {}, which stands for the release: "
                     "-- crossval --reference {} --model MODEL --prompt TEXT",
                     kPlaceholder, kPlaceholder);
  Bisection bisection(args);
  PB_TRY(bisection.Run());
  Print(args, bisection);
  return compare::ExitCode(HeadlineOf(args, bisection).first);
}

}  // namespace

Action DeclareBisect(Flags& flags) {
  auto args = std::make_shared<BisectArguments>();
  flags
      .Option("--release", args->releases,
              "a release, by the name that `setup-cpp-auto --name` gave it or as any engine; the oldest "
              "first")
      .OneValue()
      .Group("Releases");
  flags
      .Option("command", args->words,
              "behind --: the comparison as one would type it, with {} in place of the release")
      .Group("Releases");
  AddOutputArguments(flags, args->output);
  return [args] {
    auto exit_code = RunBisect(*args);
    return exit_code ? *exit_code : Fail(args->output, exit_code.error());
  };
}

}  // namespace pb::cli
