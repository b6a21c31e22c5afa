// paritybit parity-both: one candidate against two references, and which of the three stands alone.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/crossval_common.h"
#include "cli/last_run.h"
#include "cli/next.h"
#include "cli/receipts.h"
#include "parity/three_way.h"
#include "report/escape.h"
#include "report/headline.h"
#include "report/json.h"
#include "report/text_blocks.h"

namespace pb::cli {
namespace {

using compare::Outcome;
using Json = nlohmann::ordered_json;

struct BothArguments {
  CrossvalArguments pair;
  std::string reference_b = "bitnet.cpp";  // kDefaultB
  std::string out_dir = ".parity";
  std::vector<std::string> set_reference_b;
};

// One of the three comparisons.
struct Lane {
  const char* name;  // "reference" "reference_b" "references"
  CrossvalArguments args;
  diagnose::ExplainedRun judged;
  std::string receipt;  // its path; empty: none is kept
  const run::Comparison& run() const { return judged.comparison; }
};

CrossvalArguments AgainstB(const BothArguments& args) {
  CrossvalArguments lane = args.pair;
  lane.engines.reference = args.reference_b, lane.engines.set_reference = args.set_reference_b;
  return lane;
}

// The first reference in the candidate's place.
CrossvalArguments BetweenReferences(const BothArguments& args) {
  CrossvalArguments lane = AgainstB(args);
  lane.engines.candidate = args.pair.engines.reference, lane.engines.set = args.pair.engines.set_reference;
  if (!lane.reference_model.empty()) lane.model.model = lane.reference_model, lane.reference_model.clear();
  return lane;
}

// The documented second reference, where nobody asked for it by name and it is not here.
const char* const kDefaultB = "bitnet.cpp";
bool LacksDefaultB(const BothArguments& args) {
  return args.reference_b == kDefaultB && !ResolveEngine(kDefaultB, {}).ok();
}

Status Compare(const BothArguments& args, Lane* lane) {
  const bool lacks = lane->args.engines.reference == kDefaultB && LacksDefaultB(args);
  if (lacks) lane->args.engines.reference.clear();
  PB_ASSIGN(run::Request request, MakeRequest(lane->args));
  if (lacks) {
    lane->args.engines.reference = kDefaultB;
    request.reference = {};
    request.reference.text = kDefaultB;
    request.no_reference = "bitnet.cpp is not set up here; --reference-b names another engine";
  }
  request.default_row = false;
  request.repeat = lane->name != std::string_view("references");  // for its receipt
  PB_ASSIGN(lane->judged, CompareAndDiagnose(lane->args, std::move(request), std::nullopt));
  lane->judged.comparison.next = NextCommands(lane->args, "crossval", lane->judged);
  if (lacks && lane->name != std::string_view("references")) {
    CrossvalArguments both = args.pair;
    lane->judged.comparison.next = {
        {CommandLine(both, "parity-both", "--reference-b llama.cpp,cpu.library=x64"),
         "the same with another CPU library of llama.cpp for the second reference"}};
  }
  return {};
}

Status WriteReceipt(const std::filesystem::path& folder, Lane* lane) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return MakeError(Code::kIo, "{}: {}", folder.string(), error.message());
  const std::filesystem::path path = folder / fmt::format("receipt_{}.json", lane->name);
  // A lane is a comparison like any other: it can be run again as such.
  report::Context context = MakeContext("crossval");
  context.notes.insert(context.notes.end(), lane->run().notes.begin(), lane->run().notes.end());
  if (lane->judged.diagnosis) context.diagnosis = &*lane->judged.diagnosis;
  PB_TRY(WriteFileAtomic(
      path, report::RenderReceipt(lane->run(), context, HeadOf(LastingWords(lane->args, "crossval")))));
  lane->receipt = path.string();
  return {};
}

// The mean of a figure over all rows; null where there are none or one is not finite.
Json Mean(const run::Comparison& run, double compare::LogitsRow::*figure) {
  double sum = 0;
  for (const compare::LogitsRow& row : run.rows) sum += row.*figure;
  if (run.rows.empty() || !std::isfinite(sum)) return nullptr;
  return sum / static_cast<double>(run.rows.size());
}

bool Passes(const run::Comparison& run) { return compare::ExitCode(run.verdict.outcome) == kExitOk; }

Json LaneJson(const Lane& lane) {
  report::JsonWriter writer(lane.run());
  Json out;
  out["backend"] = lane.run().reference.spec;
  out["candidate"] = lane.run().candidate.spec;
  out["status"] = Passes(lane.run()) ? "ok" : "failed";
  out["verdict"] = compare::OutcomeName(lane.run().verdict.outcome);
  out["exit_code"] = compare::ExitCode(lane.run().verdict.outcome);
  out["reasons"] = writer.Reasons();
  out["first_divergence"] = writer.FirstDivergence();
  out["blame"] = compare::BlameName(lane.run().verdict.blame);
  out["mean_kl"] = Mean(lane.run(), &compare::LogitsRow::kl);
  out["mean_mse"] = Mean(lane.run(), &compare::LogitsRow::mse);
  out["mean_cosine_sim"] = Mean(lane.run(), &compare::LogitsRow::cosine);
  out["receipt_path"] = lane.receipt.empty() ? Json() : Json(lane.receipt);
  report::PutNext(lane.run().next, &out);
  return out;
}

std::string AloneText(parity::Alone alone, const BothArguments& args) {
  const std::string &c = args.pair.engines.candidate, &a = args.pair.engines.reference, &b = args.reference_b;
  switch (alone) {
    case parity::Alone::kNobody:
      return "nobody stands alone: all three agree";
    case parity::Alone::kCandidate:
      return fmt::format("the candidate ({}) stands alone: both references agree with each other", c);
    case parity::Alone::kReference:
      return fmt::format("{} stands alone: {} and {} agree", a, c, b);
    case parity::Alone::kReferenceB:
      return fmt::format("{} stands alone: {} and {} agree", b, c, a);
    case parity::Alone::kAllDiffer:
      return "all three differ from each other";
    case parity::Alone::kUndecided:
      return "who stands alone is not decided: not every two of the three could be told equal or different";
  }
  return "";
}

std::string LaneText(const Lane& lane, const report::TextOptions& options) {
  const run::Comparison& run = lane.run();
  std::string out = report::LabelledLine(
      "compared",
      fmt::format("{} against {}", report::Escape(run.candidate.spec), report::Escape(run.reference.spec)),
      options.width);
  const diagnose::Diagnosis* diagnosis = lane.judged.diagnosis ? &*lane.judged.diagnosis : nullptr;
  out += report::HeadlineBlock(run.verdict.outcome, report::HeadlineOf(run, diagnosis), options);
  if (!lane.receipt.empty())
    out += report::LabelledLine("receipt", report::Escape(lane.receipt), options.width);
  return out + "\n";
}

// Both references must be passed.
Outcome Overall(const Lane& a, const Lane& b) {
  return std::max(a.run().verdict.outcome, b.run().verdict.outcome);
}

bool TokensDiffer(const Lane& a, const Lane& b) {
  return a.run().verdict.Has(compare::ReasonCode::kTokensDiffer) ||
         b.run().verdict.Has(compare::ReasonCode::kTokensDiffer);
}

void PrintBoth(const BothArguments& args, const std::vector<Lane>& lanes, parity::Alone alone) {
  const Outcome overall = Overall(lanes[0], lanes[1]);
  const int exit_code = compare::ExitCode(overall);
  std::vector<run::NextCommand> next;
  for (const Lane& lane : lanes)
    if (!lane.run().next.empty() && !Passes(lane.run())) next.push_back(lane.run().next[0]);
  if (args.pair.output.json()) {
    Json out = Envelope("paritybit.parity-both/0", compare::OutcomeName(overall), exit_code);
    for (const Lane& lane : {lanes[0], lanes[1]})
      for (const compare::Reason& reason : lane.run().verdict.reasons)
        if (compare::ExitCode(reason.outcome) != kExitOk || exit_code == kExitOk)
          out["reasons"].push_back({{"code", compare::ReasonName(reason.code)},
                                    {"text", fmt::format("{}: {}", lane.run().reference.spec, reason.text)}});
    report::PutNext(next, &out);
    out["status"] = exit_code == kExitOk ? "ok" : "failed";
    for (const Lane& lane : lanes) out["lanes"][lane.name] = LaneJson(lane);
    out["stands_alone"] = parity::AloneName(alone);
    out["overall"] = {{"both_passed", Passes(lanes[0].run()) && Passes(lanes[1].run())},
                      {"exit_code", exit_code}};
    out["tokenizer"] = {{"status", TokensDiffer(lanes[0], lanes[1]) ? "mismatch" : "ok"}};
    PrintJson(out);
    return;
  }
  const report::TextOptions options{UseColour(STDOUT_FILENO), false, false, TerminalWidth(STDOUT_FILENO)};
  std::string text;
  for (const Lane& lane : lanes) text += LaneText(lane, options);
  const bool both = Passes(lanes[0].run()) && Passes(lanes[1].run());
  report::Headline headline{both ? "both references agree with the candidate"
                                 : "the candidate does not pass against both references",
                            AloneText(alone, args), false};
  text += report::HeadlineBlock(overall, headline, options) + report::NextLines(next, options);
  PrintOut(text);
}

Result<int> Run(BothArguments args) {
  if (args.pair.engines.reference.empty()) args.pair.engines.reference = "llama.cpp";
  if (args.pair.prompts.empty()) args.pair.prompts.prompts = {"What is 2+2?"};
  std::vector<Lane> lanes = {{"reference", args.pair, {}, ""},
                             {"reference_b", AgainstB(args), {}, ""},
                             {"references", BetweenReferences(args), {}, ""}};
  for (Lane& lane : lanes) {
    Log(args.pair.output,
        fmt::format("{} against {}", lane.args.engines.candidate, lane.args.engines.reference));
    PB_TRY(Compare(args, &lane));
    if (&lane != &lanes[2]) PB_TRY(WriteReceipt(args.out_dir, &lane));
  }
  DumpIds(args.pair, lanes[0].run());
  const parity::Alone alone = parity::WhoStandsAlone(
      lanes[0].run().verdict.outcome, lanes[1].run().verdict.outcome, lanes[2].run().verdict.outcome);
  PrintBoth(args, lanes, alone);
  return compare::ExitCode(Overall(lanes[0], lanes[1]));
}

}  // namespace

Action DeclareParityBoth(Flags& flags) {
  auto args = std::make_shared<BothArguments>();
  args->pair.max_tokens = 4;  // as the documented command
  AddComparisonArguments(flags, args->pair);
  flags.Option("--model-gguf", args->pair.model.model, "the same as --model").Group("Model");
  flags
      .Option("--reference-b", args->reference_b, "the second engine to agree with: NAME|PATH[,key=value...]")
      .ShowDefault()
      .Group("Engines");
  flags.Option("--set-reference-b", args->set_reference_b, "a setting of the second reference: key=value")
      .OneValue()
      .Group("Engines");
  flags.Option("--out-dir", args->out_dir, "folder of both receipts").ShowDefault().Group("Output");
  flags.Switch("--dump-ids", args->pair.dump_ids[0], "the candidate's token ids, to stderr").Group("Output");
  flags.Switch("--dump-cpp-ids", args->pair.dump_ids[1], "the reference's token ids, to stderr")
      .Group("Output");
  flags.Moot("--no-repair", "nothing is ever repaired on the way");
  flags.Moot("--metrics",
             "KL, rel-L2, cosine, squared error, the largest difference and the top choices are always "
             "measured");
  return [args] {
    auto exit_code = Run(*args);
    return exit_code ? *exit_code : Fail(args->pair.output, exit_code.error());
  };
}

}  // namespace pb::cli
