// paritybit gen-mini-gguf: the smallest model that engines load and run, in one file.
#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/sha256.h"
#include "cli/command.h"
#include "cli/next.h"
#include "cli/output.h"
#include "model/generate.h"
#include "report/json.h"

namespace pb::cli {
namespace {

struct MiniArguments {
  OutputArguments output;
  std::string path = "tests/models/mini.gguf";
  int version = 3;
  uint64_t seed = 1;
};

// One layer of a llama, and a vocabulary of all bytes.
GenerateSpec MiniSpec(uint64_t seed) {
  GenerateSpec spec;
  spec.n_layers = 1, spec.d_model = 32, spec.d_ff = 64, spec.n_heads = 2, spec.n_kv_heads = 1;
  spec.n_vocab = 288, spec.n_ctx = 128;
  spec.seed = seed;
  return spec;
}

Result<std::string> MiniBytes(const MiniArguments& args) {
  // Version 1 counts in 32 bits, and engines have stopped reading it; 2 and 3 are laid out alike in
  // little-endian files (docs/format_gguf.md).
  if (args.version != 2 && args.version != 3)
    return MakeError(Code::kUsage, "--version {}: engines read versions 2 and 3 of GGUF", args.version);
  PB_ASSIGN(const GeneratedModel model, Generate(MiniSpec(args.seed)));
  const std::vector<std::byte> bytes = model.gguf.Serialise();
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  constexpr size_t kVersionAt = 4;
  text[kVersionAt] = static_cast<char>(args.version);
  return text;
}

Result<int> GenMini(const MiniArguments& args) {
  PB_ASSIGN(const std::string bytes, MiniBytes(args));
  const std::filesystem::path path = args.path;
  std::error_code error;
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), error);
  if (error) return MakeError(Code::kIo, "{}: {}", path.parent_path().string(), error.message());
  PB_TRY(WriteFileAtomic(path, bytes));
  const std::string sha256 = Sha256Hex(bytes);
  const std::vector<std::string> words = {"crossval", "--model", args.path, "--prompt", "Hello"};
  const run::NextCommand next = {Call(words), "two engines on it"};
  if (args.output.json()) {
    auto object = Envelope("paritybit.mini/0", "ok", kExitOk);
    object["file"] = args.path;
    object["version"] = args.version;
    object["bytes"] = bytes.size();
    object["sha256"] = sha256;
    report::PutNext({next}, &object);
    PrintJson(object);
  } else {
    PrintText(fmt::format("{}: a llama of one layer, GGUF version {}, {} bytes, sha256 {}\nnext       {}\n",
                          args.path, args.version, bytes.size(), sha256, next.command));
  }
  return kExitOk;
}

}  // namespace

Action DeclareGenMiniGguf(Flags& flags) {
  auto args = std::make_shared<MiniArguments>();
  flags.Option("-o,--output", args->path, "the file to write").ShowDefault().Group("What to write");
  flags.Option("--version", args->version, "version of the format: 2 or 3")
      .ShowDefault()
      .Group("What to write");
  flags.Option("--seed", args->seed, "of the random weights").ShowDefault().Group("What to write");
  AddOutputArguments(flags, args->output, nullptr);
  return [args] {
    auto exit_code = GenMini(*args);
    return exit_code ? *exit_code : Fail(args->output, exit_code.error());
  };
}

}  // namespace pb::cli
