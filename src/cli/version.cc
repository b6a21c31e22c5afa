// Says what this build is: in one line, in all that a bug report needs, or as JSON.
#include "cli/version.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "abi/engine.h"
#include "cli/command.h"
#include "cli/commit.h"
#include "cli/help.h"
#include "cli/next.h"
#include "cli/output.h"
#include "formats/block.h"
#include "kernels/isa.h"
#include "report/escape.h"
#include "setup/setup.h"
#include "trace/record.h"

namespace pb::cli {
namespace {

using Json = nlohmann::ordered_json;

#ifdef __clang__
constexpr const char* kCompiler = "clang " __clang_version__;
#else
constexpr const char* kCompiler = "gcc " __VERSION__;
#endif

constexpr uint32_t kMaxTypeId = 63;

// The values of a list beside each other.
std::string Words(const Json& list) {
  std::string out;
  for (const Json& word : list) out += (out.empty() ? "" : " ") + word.get<std::string>();
  return out;
}

}  // namespace

std::string VersionLine() {
  constexpr size_t kShort = 12;
  const std::string commit = Commit();
  std::string line = "paritybit " PB_VERSION;
  if (!commit.empty())
    line += fmt::format(" ({}{})", commit.substr(0, kShort), commit.ends_with("+changes") ? "+changes" : "");
  return line;
}

Json BuildFacts() {
  Json facts{
      {"version", PB_VERSION}, {"commit", Commit()}, {"compiler", kCompiler}, {"build_type", PB_BUILD_TYPE}};
  Json targets = Json::array();
  for (const Isa isa : kIsas) targets.push_back(IsaName(isa));
  facts["targets"] = {{"machine", PB_MACHINE}, {"compiled", targets}, {"here", IsaName(BestIsa())}};
  facts["reference"] = "llama.cpp " + setup::KnownReleases().front();
  facts["abi"] = fmt::format("{}.{}", PB_ABI_MAJOR, PB_ABI_MINOR);
  facts["formats"] = {{"gguf", {2, 3}}, {"trace", trace::kSchema}, {"receipt", "paritybit.receipt/1"}};
  facts["weight_types"] = Json::array();
  for (uint32_t id = 0; id <= kMaxTypeId; ++id)
    if (FindBlockFormat(id)) facts["weight_types"].push_back(BlockTypeName(id));
  return facts;
}

std::string BuildText(const Json& facts) {
  constexpr size_t kWidth = 80, kColumn = 11;
  std::string out = VersionLine() + "\n";
  const auto row = [&](const char* name, const std::string& text) {
    out += fmt::format("{:<{}}{}\n", name, kColumn, report::Wrap(text, kWidth, kColumn));
  };
  const std::string commit = facts["commit"];
  row("commit", commit.empty() ? "not known: built without git" : commit);
  row("compiler",
      fmt::format("{}, {}", facts["compiler"].get<std::string>(), facts["build_type"].get<std::string>()));
  const Json& targets = facts["targets"];
  row("targets", fmt::format("{}: {}; here {} is used", targets["machine"].get<std::string>(),
                             Words(targets["compiled"]), targets["here"].get<std::string>()));
  row("reference",
      facts["reference"].get<std::string>() + ", which setup-cpp-auto sets up where none is here");
  row("plugin ABI", facts["abi"]);
  row("formats", fmt::format("GGUF 2 and 3; {}; {}", facts["formats"]["trace"].get<std::string>(),
                             facts["formats"]["receipt"].get<std::string>()));
  row("weights", Words(facts["weight_types"]));
  return out;
}

int PrintVersion(int argc, char** argv) {
  OutputArguments output;
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (std::any_of(words.begin(), words.end(), [](auto& word) { return word == "-h" || word == "--help"; })) {
    PrintOut(HelpOfAll(Commands(), HelpWidth()));
    return ReportLostOutput(kExitOk);
  }
  const Status read = ReadWords(words, [&](Flags& flags) {
    AddOutputArguments(flags, output, "commit, compiler, instruction sets and formats too");
  });
  if (!read.ok())
    return FailWith(output, kExitUsage, "error", "usage", read.error().message,
                    {{Call("--help"), "what there is to say"}});
  const Json facts = BuildFacts();
  if (output.json()) {
    Json object = Envelope("paritybit.version/0", "ok", kExitOk);
    object.update(facts);
    PrintJson(object);
  } else {
    PrintText(output.verbose ? BuildText(facts) : VersionLine() + "\n");
  }
  return ReportLostOutput(kExitOk);
}

}  // namespace pb::cli
