// paritybit convert: a model file's weights in another type.
#include <fmt/core.h>

#include <cctype>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/model_files.h"
#include "cli/next.h"
#include "cli/progress.h"
#include "model/generate.h"
#include "report/json.h"

namespace pb::cli {

Result<BlockType> ParseWeights(std::string name, const char* flag) {
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  constexpr uint32_t kMaxTypeId = 63;
  for (uint32_t id = 0; id <= kMaxTypeId; ++id)
    if (const BlockFormat* format = FindBlockFormat(id); format && format->name == name) return format->type;
  return MakeError(Code::kUnsupported,
                   "{} {}: unsupported; `paritybit check-features` lists the weight types", flag, name);
}

Status MakeFolder(const std::filesystem::path& folder) {
  std::error_code error;
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) return MakeError(Code::kIo, "{}: {}", folder.string(), error.message());
  return {};
}

Result<int> ConvertModel(const ConvertArguments& args) {
  PB_ASSIGN(const BlockType weights, ParseWeights(args.weights, "--weights"));
  std::optional<BlockType> embedding;
  if (!args.embedding.empty()) {
    PB_ASSIGN(embedding, ParseWeights(args.embedding, "--embedding"));
  }
  PB_ASSIGN(const std::string in, FindModelFile(args.model));
  std::error_code error;
  if (std::filesystem::equivalent(in, args.out, error))
    return MakeError(Code::kUsage, "--out {} is the model itself: give another name", args.out);
  PB_TRY(MakeFolder(std::filesystem::path(args.out).parent_path()));
  Progress progress(args.output, "converting");
  PB_ASSIGN(const ConvertReport report, Convert(in, weights, embedding, args.out));
  progress.End();
  auto object = Envelope("paritybit.convert/0", "ok", kExitOk);
  object["files"] = {args.out};
  object["converted"] = {
      {"tensors", report.n_converted}, {"inexact", report.n_inexact}, {"max_change", report.max_change}};
  const run::NextCommand next{Call(std::vector<std::string>{"verify", args.out}),
                              "what shows of the new file"};
  report::PutNext({next}, &object);
  if (args.output.json())
    PrintJson(object);
  else
    PrintText(
        fmt::format("{} is written\n{} tensors converted, {} of them changed a value (by {:.1e} at most)\n"
                    "next       {}\n",
                    args.out, report.n_converted, report.n_inexact, report.max_change, next.command));
  return kExitOk;
}

Action DeclareConvert(Flags& flags) {
  auto args = std::make_shared<ConvertArguments>();
  auto position = std::make_shared<std::string>();
  const Flag given =
      flags.Option("MODEL", *position, "model file (GGUF), or the name of one that is set up").Group("Input");
  flags.Option("-m,--model", args->model, "the same").Excludes(given).Group("Input");
  flags.Option("--weights", args->weights, "type of the linear weights (check-features lists them)")
      .Required()
      .Group("Output file");
  flags.Option("--embedding", args->embedding, "type of embedding and output matrix (default: kept)")
      .Group("Output file");
  flags.Option("-o,--out", args->out, "the file to write").Required().Group("Output file");
  AddOutputArguments(flags, args->output, nullptr);
  return [args, position] {
    if (args->model.empty()) args->model = *position;
    if (args->model.empty())
      return Fail(args->output, MakeError(Code::kUsage,
                                          "no model: name one, as in `convert MODEL --weights TQ2_0 "
                                          "--out OUT.gguf`"));
    auto exit_code = ConvertModel(*args);
    return exit_code ? *exit_code : Fail(args->output, exit_code.error());
  };
}

}  // namespace pb::cli
