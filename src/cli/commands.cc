// The table of commands: name, one line of help, an example, and what is left when one is
// interrupted.
#include <fmt/core.h>

#include <array>

#include "cli/command.h"

namespace pb::cli {
namespace {

constexpr const char* kNoiseRuns = "finished noise runs are kept, and traces are readable up to here";
constexpr const char* kArrived = "what has arrived is kept: the same command goes on there";
constexpr const char* kNoiseRunsAlone = "finished noise runs are kept";

constexpr std::array kCommands = {
    Command{"crossval", "check that two engines compute the same on a model",
            "paritybit crossval --model model.gguf --reference llama.cpp --prompt \"And God said, Let there "
            "be light\"",
            DeclareCrossval, kNoiseRuns},
    Command{"crossval-per-token", "the same, position by position: where do they part first",
            "paritybit crossval-per-token --model model.gguf --prompt \"2+2=\" --max-tokens 4 "
            "--cos-tolerance 0.999",
            DeclareCrossvalPerToken, kNoiseRuns},
    Command{"trace", "record what an engine computes, point by point",
            "paritybit trace --model model.gguf --engine llama.cpp --prompt \"2+2=\" --out trace",
            DeclareTrace, "the trace is readable up to here"},
    Command{"trace-diff", "where two traces part, from any engines, and whether that is noise",
            "paritybit trace-diff trace-native trace-llama --table", DeclareTraceDiff},
    Command{"diagnose", "why two engines differ, and whose fault it is",
            "paritybit diagnose --model model.gguf --reference llama.cpp --prompt \"And God said\"",
            DeclareDiagnose, kNoiseRuns},
    Command{"repro", "a bundle for a bug report: one wrong op, its data, and a program that shows it",
            "paritybit repro --out activation-bug", DeclareRepro, kNoiseRuns},
    Command{"audit", "check one engine alone, op by op, against what its model declares",
            "paritybit audit --model model.gguf --engine llama.cpp --prompt \"And God said\"", DeclareAudit},
    Command{"noise",
            "how far one engine lies from itself: random rounding, repeats, threads, batches, libraries",
            "paritybit noise --model model.gguf --engine llama.cpp --prompt \"And God said\"", DeclareNoise,
            kNoiseRunsAlone},
    Command{"verify-receipt", "check a receipt by eight gates and, with --recompute, by running it again",
            "paritybit verify-receipt receipt.json --recompute", DeclareVerifyReceipt},
    Command{"gate", "a CI's policy: comparisons to run and receipts to check, a test case each",
            "paritybit gate policy.toml --junit gates.xml", DeclareGate},
    Command{"bisect", "which of several releases of an engine is the first that fails",
            "paritybit bisect --release b6000 --release b6100 --release b6200 -- crossval --model model.gguf "
            "--candidate native --reference {} --prompt \"And God said\"",
            DeclareBisect},
    Command{"history", "what was run here, and when two engines first parted", "paritybit history --last 50",
            DeclareHistory},
    Command{"benchmark", "prompt and decode speed of one engine, with a receipt",
            "paritybit benchmark --model model.gguf --tokens 128 --prompt \"The capital of France is\"",
            DeclareBenchmark},
    Command{"bench-compare", "hold one benchmark against another, by the spread of their repeats",
            "paritybit bench-compare --current ci/inference.json --baseline before.json",
            DeclareBenchCompare},
    Command{"sweep", "many comparisons: scenarios x models x engines x settings, resumed where it stood",
            "paritybit sweep plan.toml results", DeclareSweep,
            "finished cells are kept: the same command goes on"},
    Command{"self-check", "which injected defects paritybit finds, and what raises false alarms",
            "paritybit self-check --share 0.05 --seed 7", DeclareSelfCheck,
            "finished cases are kept: --resume goes on"},
    Command{"verify", "what is wrong with a model file, without running it",
            "paritybit verify model.gguf --strict", DeclareVerify},
    Command{"inspect", "metadata and tensors of a model file",
            "paritybit inspect model.gguf --digests --format json", DeclareInspect},
    Command{"convert", "a model file's weights in another type",
            "paritybit convert model.gguf --weights TQ2_0 --out model-tq2_0.gguf", DeclareConvert},
    Command{"logit-parity", "whether two engines rank the next tokens alike: Kendall's tau over their top k",
            "paritybit logit-parity --model model.gguf --reference llama.cpp --examples 20",
            DeclareLogitParity},
    Command{"nll-parity", "whether two engines predict a text alike: perplexity, and a confidence interval",
            "paritybit nll-parity --model model.gguf --reference llama.cpp --file corpus.txt",
            DeclareNllParity},
    Command{"greedy-parity", "whether two engines choose the same tokens, on prompts made at random",
            "paritybit greedy-parity --model model.gguf --reference llama.cpp --examples 40",
            DeclareGreedyParity, "prompts that were compared are kept: the same command goes on"},
    Command{"tokenizer-parity", "whether two tokenisers read hard, random or any texts as the same tokens",
            "paritybit tokenizer-parity --model model.gguf --reference llama.cpp --file corpus.txt",
            DeclareTokenizerParity},
    Command{"parity-both", "one engine against two references, and which of the three stands alone",
            "paritybit parity-both --model model.gguf --reference llama.cpp --reference-b ./libmine.so",
            DeclareParityBoth, kNoiseRuns},
    Command{"full-crossval", "set up a reference, fetch a model, and compare, in one go",
            "paritybit full-crossval --prompt \"What is 2+2?\"", DeclareFullCrossval, kNoiseRuns},
    Command{"infer", "generate text with one engine",
            "paritybit infer --model model.gguf --prompt \"In the beginning\" --max-tokens 32", DeclareInfer},
    Command{"setup-cpp-auto", "find, fetch or build a reference engine and prove that it works",
            "paritybit setup-cpp-auto", DeclareSetupCppAuto},
    Command{"setup-crossval", "setup-cpp-auto, and a model to compare on", "paritybit setup-crossval",
            DeclareSetupCrossval},
    Command{"fetch-cpp", "build a reference from its sources and prove that it computes",
            "paritybit fetch-cpp --repo https://github.com/ggml-org/llama.cpp --rev b7347 --name old",
            DeclareFetchCpp, "the clone is kept, and a build goes on where it stood"},
    Command{"download-model", "a model file from a hub, resumed where it was cut",
            "paritybit download-model --id microsoft/bitnet-b1.58-2B-4T-gguf --file ggml-model-i2_s.gguf",
            DeclareDownloadModel, kArrived},
    Command{"tokenizer", "LLaMA 3's tokenizer.json from a hub", "paritybit tokenizer --into models",
            DeclareTokenizer, kArrived},
    Command{"preflight", "what is usable here, and the command that mends what is missing",
            "paritybit preflight --require-cpp", DeclarePreflight},
    Command{"gen-fixtures", "write small deterministic models", "paritybit gen-fixtures --out fixtures",
            DeclareGenFixtures},
    Command{"gen-mini-gguf", "write the smallest model that engines load and run",
            "paritybit gen-mini-gguf --output mini.gguf", DeclareGenMiniGguf},
    Command{"check-features", "what this build contains", "paritybit check-features --format json",
            DeclareCheckFeatures},
    Command{"gpu-preflight", "which GPUs are usable here", "paritybit gpu-preflight --require",
            DeclareGpuPreflight},
    Command{"clean-cache", "show what the cache holds, ask, and delete it",
            "paritybit clean-cache --only noise", DeclareCleanCache},
    Command{"completion", "completion of commands and flags for a shell", "paritybit completion bash",
            DeclareCompletion},
};

// Commands of the documented system that did another job, or none, and what does it here.
struct Elsewhere {
  std::string_view name, ours;
};
constexpr Elsewhere kElsewhere[] = {
    {"analyze-library", "`setup-cpp-auto` checks a reference's libraries, by a golden forward pass"},
    {"vendor-ggml", "`setup-cpp-auto` fetches a reference; nothing of it is copied into a tree"},
    {"fetch-models",
     "`download-model` fetches one by its name on a hub, and `setup-crossval` the one to begin with"},
    {"gpu-smoke", "`gpu-preflight` tells of GPUs; nothing here computes on one"},
    {"grid-check", "`check-features` tells what the one build holds; there are no feature gates"},
    {"demo", "`crossval` is the main job, and tools/demo shows it"},
    {"detect-breaking", "no command does this: it is about the Rust crates of another project"},
    {"compare-metrics", "`crossval` compares engines; speed is compared by `bench-compare`"},
};

}  // namespace

std::span<const Command> Commands() { return kCommands; }

std::string WhyUnsupported(std::string_view name) {
  for (const Elsewhere& command : kElsewhere)
    if (command.name == name) return fmt::format("`{}` is not a command here: {}", name, command.ours);
  return {};
}

}  // namespace pb::cli
