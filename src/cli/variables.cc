// The table of variables, and the look-ups that need more than one of them.
#include "cli/variables.h"

#include <fmt/core.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "base/processors.h"
#include "cli/arguments.h"
#include "cli/output.h"
#include "report/escape.h"

namespace pb::cli {
namespace {

constexpr int kMaxThreads = 1024;

constexpr const char* kProxy = "downloads go through it, as with curl";
constexpr const char* kNoProxy = "hosts that downloads reach without a proxy";
constexpr const char* kCi = "preflight --repair auto mends nothing here";

constexpr Variable kVariables[] = {
    {"PARITYBIT_CACHE", Variable::kWorks,
     "the folder of all that is kept: references, models, noise floors, recordings"},
    {"XDG_CACHE_HOME", Variable::kWorks,
     "all is kept in its folder paritybit, where PARITYBIT_CACHE is not set"},
    {"PARITYBIT_HOST", Variable::kWorks, "the program that engines run in, in place of the installed one"},
    {"BITNET_CPP_DIR", Variable::kWorks, "setup-cpp-auto takes the build in this folder, as with --from"},
    {"BITNET_CPP_PATH", Variable::kWorks, "as BITNET_CPP_DIR, its newer name"},
    {"LLAMA_CPP_DIR", Variable::kWorks, "as BITNET_CPP_DIR"},
    {"BITNET_CROSSVAL_LIBDIR", Variable::kWorks, "as BITNET_CPP_DIR: the folder of the libraries"},
    {"LLAMA_CROSSVAL_LIBDIR", Variable::kWorks, "as BITNET_CROSSVAL_LIBDIR"},
    {"CROSSVAL_RPATH_BITNET", Variable::kWorks, "as BITNET_CROSSVAL_LIBDIR"},
    {"CROSSVAL_RPATH_LLAMA", Variable::kWorks, "as BITNET_CROSSVAL_LIBDIR"},
    {"llama_DIR", Variable::kWorks, "setup-cpp-auto looks for a CMake package there"},
    {"CMAKE_PREFIX_PATH", Variable::kWorks, "setup-cpp-auto looks for a CMake package there"},
    {"LD_LIBRARY_PATH", Variable::kWorks,
     "setup-cpp-auto looks for libraries there; no engine takes any from it"},
    {"BITNET_CPP_REPO", Variable::kWorks, "fetch-cpp --repo"},
    {"BITNET_CPP_REV", Variable::kWorks, "fetch-cpp --rev"},
    {"BITNET_CPP_CACHE", Variable::kIgnored, "use PARITYBIT_CACHE, the folder of all that is kept"},
    {"CROSSVAL_GGUF", Variable::kWorks, "--model"},
    {"BITNET_GGUF", Variable::kWorks, "--model, where CROSSVAL_GGUF is not set"},
    {"CROSSVAL_GGUF_TOKENIZER", Variable::kWorks, "crossval-per-token --tokenizer"},
    {"BITNET_TOKENIZER", Variable::kWorks, "the same, where CROSSVAL_GGUF_TOKENIZER is not set"},
    {"CROSSVAL_TIMEOUT_SECS", Variable::kWorks,
     "--timeout: of an engine without progress; in sweep, of a cell"},
    {"PARITY_TEST_TIMEOUT_SECS", Variable::kIgnored, "use --timeout or CROSSVAL_TIMEOUT_SECS"},
    {"BITNET_DETERMINISTIC", Variable::kWorks, "--threads 1; all that is compared is deterministic"},
    {"GGML_NUM_THREADS", Variable::kWorks, "--threads"},
    {"RAYON_NUM_THREADS", Variable::kWorks, "--threads, where GGML_NUM_THREADS is not set"},
    {"OMP_NUM_THREADS", Variable::kWorks, "--threads, where neither of the two is set"},
    {"MKL_NUM_THREADS", Variable::kQuiet, "ignored: no engine here computes with it; use --threads"},
    {"OPENBLAS_NUM_THREADS", Variable::kQuiet, "ignored: no engine here computes with it; use --threads"},
    {"BITNET_SEED", Variable::kWorks, "infer --seed, greedy-parity --seed"},
    {"PROP_EXAMPLES", Variable::kWorks, "logit-parity --examples"},
    {"TAU_STEPS", Variable::kWorks, "logit-parity --tau-steps"},
    {"LOGIT_TOPK", Variable::kWorks, "logit-parity --topk"},
    {"TAU_MIN", Variable::kWorks, "logit-parity --tau-min"},
    {"TAU_TIE_EPS", Variable::kWorks, "logit-parity --tie-eps"},
    {"BITNET_TRACE_DIR", Variable::kWorks, "trace --out"},
    {"BITNET_TRACE_VERBOSE", Variable::kWorks, "trace --verbose"},
    {"BITNET_OFFLINE", Variable::kWorks, "--offline"},
    {"HF_TOKEN", Variable::kWorks, "download-model shows it to the hub, and to nobody else", true},
    // An address of a proxy may hold a password.
    {"https_proxy", Variable::kWorks, kProxy, true},
    {"HTTPS_PROXY", Variable::kWorks, kProxy, true},
    {"http_proxy", Variable::kWorks, kProxy, true},
    {"HTTP_PROXY", Variable::kWorks, kProxy, true},
    {"all_proxy", Variable::kWorks, kProxy, true},
    {"ALL_PROXY", Variable::kWorks, kProxy, true},
    {"no_proxy", Variable::kWorks, kNoProxy},
    {"NO_PROXY", Variable::kWorks, kNoProxy},
    {"NO_COLOR", Variable::kWorks, "no colours on a terminal"},
    {"COLUMNS", Variable::kWorks, "how wide text is"},
    {"CI", Variable::kWorks, kCi},
    {"GITHUB_ACTIONS", Variable::kWorks, kCi},
    {"JENKINS_HOME", Variable::kWorks, kCi},
    {"GITLAB_CI", Variable::kWorks, kCi},
    {"CIRCLECI", Variable::kWorks, kCi},
    {"CROSSVAL_ALLOW_CPP_FAIL", Variable::kRefused,
     "it changes nothing: a reference that fails is never a pass"},
    {"CROSSVAL_PROMPT_SET", Variable::kIgnored, "use --prompts FILE"},
    {"CROSSVAL_WORKERS", Variable::kIgnored, "use --threads"},
    {"BASELINES_DIR", Variable::kIgnored, "name a baseline's file where a command takes one"},
    {"GIT_COMMIT", Variable::kQuiet, "ignored: a receipt holds digests of what ran"},
    {"BITNET_TRACE_RMS", Variable::kIgnored, "a trace has the RMS of every point: paritybit trace"},
    {"BITNET_TRACE_QUANT", Variable::kIgnored, "crossval compares the codes of quantised products itself"},
    {"BITNET_QUANT_SANITY", Variable::kIgnored, "use paritybit audit, which judges every product"},
    {"DEBUG_ATTN", Variable::kIgnored, "use paritybit trace --filter"},
    {"BITNET_DEBUG_GQA", Variable::kIgnored, "use paritybit trace --filter"},
    {"BITNET_DEBUG_ROPE", Variable::kIgnored, "use paritybit trace --filter"},
    {"BITNET_DEBUG_ATTN_SCALE", Variable::kIgnored, "use paritybit trace --filter"},
    {"BITNET_DEBUG_RMSNORM", Variable::kIgnored, "use paritybit trace --filter"},
    {"BITNET_DEBUG_MLP", Variable::kIgnored, "use paritybit trace --filter"},
    {"BITNET_DEBUG_LOGITS", Variable::kIgnored, "use paritybit trace --filter"},
    {"BITNET_STRICT_MODE", Variable::kIgnored, "every check is strict; --strict-precision is stricter"},
    {"BITNET_CORRECTION_POLICY", Variable::kIgnored, "no engine's values are corrected"},
    {"BITNET_ALLOW_RUNTIME_CORRECTIONS", Variable::kIgnored, "no engine's values are corrected"},
    {"BITNET_DISABLE_MINIMAL_LOADER", Variable::kIgnored, "there is one loader"},
    {"BITNET_GPU_LAYERS", Variable::kIgnored, "the engines compute on the processor"},
};

// A number of threads; OMP_NUM_THREADS may be a list, of which the first counts.
std::optional<int> ThreadsOf(const char* text) {
  int threads = 0;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), threads);
  if (error != std::errc() || (*end != '\0' && *end != ',') || threads < 1 || threads > kMaxThreads)
    return std::nullopt;
  return threads;
}

}  // namespace

std::span<const Variable> Variables() { return kVariables; }

const char* VariableValue(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? value : nullptr;
}

std::optional<run::Choice> FirstVariable(const std::string& key, std::span<const char* const> names) {
  for (const char* name : names)
    if (const char* value = VariableValue(name))
      return run::Choice{key, value, fmt::format("variable {}", name)};
  return std::nullopt;
}

std::optional<run::Choice> ThreadsVariable() {
  if (VariableValue("BITNET_DETERMINISTIC"))
    return run::Choice{"threads", "1", "variable BITNET_DETERMINISTIC"};
  for (const char* name : {"GGML_NUM_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS"}) {
    const char* value = VariableValue(name);
    const std::optional<int> threads = value ? ThreadsOf(value) : std::nullopt;
    if (!threads) continue;
    // It may be of another machine, or of the one that this container has a part of.
    const int n = ProcessorCount();
    if (*threads > kMostThreadsEach * n)
      return run::Choice{
          "threads", std::to_string(n),
          fmt::format("variable {}, which says {}: as many as there are processors", name, *threads)};
    return run::Choice{"threads", std::to_string(*threads), fmt::format("variable {}", name)};
  }
  return std::nullopt;
}

std::vector<setup::Location> LocationVariables() {
  std::vector<setup::Location> found;
  for (const char* name : {"BITNET_CPP_DIR", "BITNET_CPP_PATH", "LLAMA_CPP_DIR", "BITNET_CROSSVAL_LIBDIR",
                           "LLAMA_CROSSVAL_LIBDIR", "CROSSVAL_RPATH_BITNET", "CROSSVAL_RPATH_LLAMA"})
    if (const char* value = VariableValue(name)) found.push_back({name, value});
  return found;
}

bool StaysOffline(bool flag) {
  const char* variable = VariableValue("BITNET_OFFLINE");
  return flag || (variable && std::strcmp(variable, "0") != 0);
}

void TellOfVariables() {
  for (const Variable& variable : kVariables) {
    const char* value = VariableValue(variable.name);
    if (!value || (variable.effect != Variable::kIgnored && variable.effect != Variable::kRefused)) continue;
    const char* verb = variable.effect == Variable::kRefused ? "is refused" : "is ignored";
    PrintError(
        fmt::format("note: {}={} {}: {}\n", variable.name, report::Escape(value), verb, variable.says));
  }
}

}  // namespace pb::cli
