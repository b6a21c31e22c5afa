// paritybit history: what was run here, and when two engines first parted.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/history_log.h"
#include "cli/output.h"
#include "cli/receipts.h"
#include "report/escape.h"
#include "report/table.h"
#include "report/text_blocks.h"

namespace pb::cli {
namespace {

using receipt::HistoryEntry;
using receipt::PairHistory;

struct HistoryArguments {
  int last = 20;
  std::string model, engine;
  OutputArguments output;
};

bool Concerns(const HistoryEntry& entry, const HistoryArguments& args) {
  const bool of_engine =
      args.engine.empty() ||
      std::any_of(std::begin(entry.engines), std::end(entry.engines), [&](const receipt::HistoryEngine& e) {
        return e.spec.find(args.engine) != std::string::npos;
      });
  return of_engine && (args.model.empty() || entry.model.find(args.model) != std::string::npos ||
                       entry.model_sha256.starts_with(args.model));
}

std::string Day(int64_t time) {
  std::string text = TimeText(time);
  text[10] = ' ';
  return text.substr(0, 16);
}

std::string EnginesText(const HistoryEntry& e) {
  return e.engines[1].spec.empty() ? e.engines[0].spec : e.engines[0].spec + " | " + e.engines[1].spec;
}

std::string PartedText(const PairHistory& p) {
  if (!p.first_parted) return fmt::format("never parted in {} run{}", p.n_runs, p.n_runs == 1 ? "" : "s");
  std::string text = fmt::format("first parted {}", Day(p.first_parted->time));
  if (!p.first_parted->place.empty()) text += " at " + p.first_parted->place;
  if (!p.last_agreed) return text + "; no run before it agreed";
  text += fmt::format("; agreed before, last {}", Day(p.last_agreed->time));
  if (p.changed == "neither") return text + ", with the same engines";
  return p.changed.empty() ? text
                           : fmt::format("{}, with another {}", text,
                                         p.changed == "both" ? "candidate and reference" : p.changed);
}

std::string Text(const std::vector<HistoryEntry>& entries, const std::vector<PairHistory>& pairs,
                 const HistoryArguments& args, int width) {
  if (entries.empty()) return "nothing was run here yet: every comparison that comes to a verdict is kept\n";
  report::Table table({{"when (UTC)", true},
                       {"verdict", true},
                       {"command", true, 2},
                       {"engines", true, 0, 60, 20},
                       {"model", true, 1, 40, 12}});
  const size_t first = entries.size() - std::min(entries.size(), static_cast<size_t>(args.last));
  for (size_t i = first; i < entries.size(); ++i) {
    const HistoryEntry& e = entries[i];
    table.Row({Day(e.time), e.verdict, e.command, report::Escape(EnginesText(e)), report::Escape(e.model)});
  }
  std::string out = table.Render(static_cast<size_t>(width));
  if (first > 0) out += fmt::format("{} earlier runs (--last {} shows them)\n", first, entries.size());
  for (const PairHistory& p : pairs)
    out +=
        "\n" +
        report::LabelledLine(
            "pair", report::Escape(fmt::format("{} | {} on {}", p.candidate, p.reference, p.model)), width) +
        report::LabelledLine("", report::Escape(PartedText(p)), width);
  return out;
}

nlohmann::ordered_json Object(const std::vector<HistoryEntry>& entries, const std::vector<PairHistory>& pairs,
                              const HistoryArguments& args, int64_t n_damaged) {
  auto object = Envelope("paritybit.history/0", "ok", kExitOk);
  object["runs"] = nlohmann::ordered_json::array();
  const size_t first = entries.size() - std::min(entries.size(), static_cast<size_t>(args.last));
  for (size_t i = first; i < entries.size(); ++i) {
    nlohmann::ordered_json run = receipt::ToJson(entries[i]);
    run["when"] = TimeText(entries[i].time);
    object["runs"].push_back(std::move(run));
  }
  object["n_runs"] = entries.size();
  object["pairs"] = nlohmann::ordered_json::array();
  const auto when = [](const HistoryEntry* e) {
    return e ? nlohmann::ordered_json(TimeText(e->time)) : nlohmann::ordered_json(nullptr);
  };
  for (const PairHistory& p : pairs)
    object["pairs"].push_back(
        {{"candidate", p.candidate},
         {"reference", p.reference},
         {"model", p.model},
         {"model_sha256", p.model_sha256},
         {"n_runs", p.n_runs},
         {"n_diverged", p.n_diverged},
         {"last_verdict", p.last->verdict},
         {"first_parted", when(p.first_parted)},
         {"first_parted_at",
          p.first_parted ? nlohmann::ordered_json(p.first_parted->place) : nlohmann::ordered_json(nullptr)},
         {"last_agreed_before", when(p.last_agreed)},
         {"changed",
          p.changed.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(p.changed)}});
  object["n_damaged"] = n_damaged;
  return object;
}

Result<int> ShowHistory(const HistoryArguments& args) {
  PB_ASSIGN(History history, ReadHistory());
  std::vector<HistoryEntry>& entries = history.entries;
  std::erase_if(entries, [&](const HistoryEntry& entry) { return !Concerns(entry, args); });
  const std::vector<PairHistory> pairs = receipt::PairsOf(entries);
  if (args.output.json()) {
    PrintJson(Object(entries, pairs, args, history.n_damaged));
    return kExitOk;
  }
  PrintText(Text(entries, pairs, args, TerminalWidth(STDOUT_FILENO)));
  if (history.n_damaged > 0)
    PrintError(fmt::format("note: {} line{} of the log {} not what was written and {} left out\n",
                           history.n_damaged, history.n_damaged == 1 ? "" : "s",
                           history.n_damaged == 1 ? "is" : "are", history.n_damaged == 1 ? "is" : "are"));
  return kExitOk;
}

}  // namespace

Action DeclareHistory(Flags& flags) {
  auto args = std::make_shared<HistoryArguments>();
  flags.Option("--last", args->last, "how many runs to list").Range(1, 1 << 20).ShowDefault().Group("Runs");
  flags.Option("-m,--model", args->model, "only of models whose name has this, or whose digest begins so")
      .Group("Runs");
  flags.Option("-e,--engine", args->engine, "only of engines whose name has this").Group("Runs");
  AddOutputArguments(flags, args->output, nullptr);
  return [args] {
    auto exit_code = ShowHistory(*args);
    return exit_code ? *exit_code : Fail(args->output, exit_code.error());
  };
}

}  // namespace pb::cli
