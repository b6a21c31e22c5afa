// paritybit crossval-per-token: the comparison position by position.
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "cli/command.h"
#include "cli/crossval_common.h"
#include "cli/variables.h"

namespace pb::cli {
namespace {

// What the documented system's command takes besides.
void AddDocumentedFlags(Flags& flags, CrossvalArguments& args, std::string& backend) {
  flags
      .Option("--cpp-backend", backend,
              "the reference by what it is: llama (llama.cpp) or bitnet (bitnet.cpp); else --reference")
      .OneOf({"bitnet", "llama"})
      .Group("Engines");
  flags.Switch("--dump-ids", args.dump_ids[0], "the candidate's token ids, to stderr").Group("Output");
  flags.Switch("--dump-cpp-ids", args.dump_ids[1], "the reference's token ids, to stderr").Group("Output");
  flags.Refuse("--positions", "every position is compared, always; --all shows every one");
  flags.Refuse(
      "--ladder",
      "all its rungs are one command here: tokens first, then every op with its mask, then the logits "
      "of every position; --max-tokens decodes besides");
  flags.Moot("--metrics",
             "KL, rel-L2, cosine, squared error, the largest difference and the top choices are always "
             "measured");
}

Result<int> Run(CrossvalArguments args, const std::string& backend) {
  if (!backend.empty()) {
    if (!args.engines.reference.empty())
      return MakeError(Code::kUsage,
                       "--cpp-backend and --reference both name the reference: give one of them");
    args.engines.reference = backend + ".cpp";
  }
  std::string tokenizer = args.model.tokenizer;
  const std::optional<run::Choice> variable = FirstVariable("tokenizer", kTokenizerVariables);
  if (tokenizer.empty() && variable) tokenizer = variable->value;
  args.model.tokenizer = tokenizer;
  return RunCrossval(args, "crossval-per-token");
}

}  // namespace

Action DeclareCrossvalPerToken(Flags& flags) {
  auto args = std::make_shared<CrossvalArguments>();
  auto backend = std::make_shared<std::string>();
  args->all = true;
  AddCrossvalArguments(flags, *args);
  AddDocumentedFlags(flags, *args, *backend);
  return [args, backend] {
    auto exit_code = Run(*args, *backend);
    return exit_code ? *exit_code : Fail(args->output, exit_code.error());
  };
}

}  // namespace pb::cli
