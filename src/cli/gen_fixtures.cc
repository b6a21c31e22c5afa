// paritybit gen-fixtures: small deterministic models of any shape.
#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/model_files.h"
#include "cli/output.h"
#include "model/generate.h"
#include "model/hyper.h"

namespace pb::cli {
namespace {

struct FixtureArguments {
  OutputArguments output;
  std::string out, size, convert, weights = "F16", embedding, distribution = "ternary", activation;
  GenerateSpec spec;
};

// The set that is written to a folder: each architecture in its own formats, and a shape that
// divides by little.
struct Fixture {
  const char* path;
  const char* architecture;
  BlockType weights;
  Distribution distribution;
  int64_t d_model, d_ff, n_heads, n_kv_heads;
};
constexpr Fixture kFixtures[] = {
    {"bitnet-tq2_0/model.gguf", "bitnet", BlockType::kTQ2_0, Distribution::kTernary, 256, 512, 4, 2},
    {"bitnet-tq1_0/model.gguf", "bitnet", BlockType::kTQ1_0, Distribution::kTernary, 256, 512, 4, 2},
    {"bitnet-i2_s/model.gguf", "bitnet-b1.58", BlockType::kI2_S, Distribution::kTernary, 256, 512, 4, 2},
    {"llama-f16/model.gguf", "llama", BlockType::kF16, Distribution::kGaussian, 256, 512, 4, 2},
    {"llama-awkward-q4_1/model.gguf", "llama", BlockType::kQ4_1, Distribution::kGaussian, 768, 1056, 12, 4},
};

Status WriteSet(const FixtureArguments& args, nlohmann::ordered_json& files) {
  for (const Fixture& fixture : kFixtures) {
    GenerateSpec spec = args.spec;
    spec.architecture = fixture.architecture;
    spec.weights = fixture.weights;
    spec.distribution = fixture.distribution;
    spec.d_model = fixture.d_model;
    spec.d_ff = fixture.d_ff;
    spec.n_heads = fixture.n_heads;
    spec.n_kv_heads = fixture.n_kv_heads;
    std::filesystem::path path = std::filesystem::path(args.out) / fixture.path;
    PB_TRY(MakeFolder(path.parent_path()));
    PB_TRY(GenerateFile(spec, path));
    files.push_back(path.string());
  }
  return {};
}

// The documented system's three sizes (vocabulary, width, layers), with its names.
struct Size {
  const char* name;
  int64_t n_vocab, d_model, n_layers;
};
constexpr Size kSizes[] = {{"tiny", 100, 64, 2}, {"small", 1000, 128, 4}, {"medium", 10000, 256, 8}};

// OUT/llama-f16-SIZE/model.gguf. What the documented system leaves open: feed-forward of four
// widths, heads of 16 values, one key head to two.
Status WriteSize(const FixtureArguments& args, nlohmann::ordered_json& files) {
  const Size& size =
      *std::find_if(std::begin(kSizes), std::end(kSizes), [&](const Size& s) { return s.name == args.size; });
  GenerateSpec spec = args.spec;
  spec.architecture = "llama", spec.weights = BlockType::kF16, spec.distribution = Distribution::kGaussian;
  spec.n_vocab = size.n_vocab, spec.d_model = size.d_model, spec.n_layers = size.n_layers;
  spec.d_ff = 4 * size.d_model, spec.n_heads = size.d_model / 16, spec.n_kv_heads = spec.n_heads / 2;
  const std::filesystem::path path =
      std::filesystem::path(args.out) / fmt::format("llama-f16-{}", size.name) / "model.gguf";
  PB_TRY(MakeFolder(path.parent_path()));
  PB_TRY(GenerateFile(spec, path));
  files.push_back(path.string());
  return {};
}

Result<int> GenFixtures(const FixtureArguments& args) {
  if (!args.convert.empty()) {
    if (!args.out.ends_with(".gguf"))
      return MakeError(Code::kUsage, "--convert writes one file: give its name with --out FILE.gguf");
    return ConvertModel({args.output, args.convert, args.weights, args.embedding, args.out});
  }
  auto object = Envelope("paritybit.fixtures/0", "ok", kExitOk);
  object["files"] = nlohmann::ordered_json::array();
  bool one_file = args.out.ends_with(".gguf");
  PB_ASSIGN(BlockType weights, ParseWeights(args.weights, "--weights"));
  std::optional<BlockType> embedding;
  if (!args.embedding.empty()) {
    PB_ASSIGN(embedding, ParseWeights(args.embedding, "--embedding"));
  }
  if (!args.size.empty()) {
    if (one_file) return MakeError(Code::kUsage, "--size writes into a folder: name it with --out");
    PB_TRY(WriteSize(args, object["files"]));
  } else if (one_file) {
    GenerateSpec spec = args.spec;
    spec.weights = weights, spec.embedding = embedding;
    spec.distribution = args.distribution == "gaussian" ? Distribution::kGaussian : Distribution::kTernary;
    if (!args.activation.empty()) {
      PB_ASSIGN(spec.activation, ParseActivation(args.activation));
    }
    PB_TRY(MakeFolder(std::filesystem::path(args.out).parent_path()));
    PB_TRY(GenerateFile(spec, args.out));
    object["files"].push_back(args.out);
  } else {
    PB_TRY(WriteSet(args, object["files"]));
  }
  if (args.output.json()) {
    PrintJson(object);
  } else {
    std::string text;
    for (const auto& file : object["files"]) text += file.get<std::string>() + "\n";
    PrintText(text);
  }
  return kExitOk;
}

}  // namespace

Action DeclareGenFixtures(Flags& flags) {
  auto args = std::make_shared<FixtureArguments>();
  GenerateSpec& spec = args->spec;
  flags.Option("-o,--out,--output", args->out, "a folder for the standard set, or FILE.gguf for one model")
      .Required()
      .Group("What to write");
  flags.Option("--convert", args->convert, "the older spelling of `convert MODEL --weights TYPE --out FILE`")
      .Group("What to write");
  flags
      .Option("--size", args->size,
              "one LLaMA in F16 of 100, 1000 or 10000 tokens instead of the standard set")
      .OneOf({"tiny", "small", "medium"})
      .Group("What to write");
  flags.Option("--weights", args->weights, "type of the linear weights").ShowDefault().Group("What to write");
  flags
      .Option("--embedding", args->embedding,
              "type of embedding and output matrix (default: kept; of one made: F16)")
      .Group("What to write");
  auto shape = [&](const char* flag, int64_t& value, const char* help) {
    flags.Option(flag, value, help).ShowDefault().Group("Shape of one model");
  };
  flags.Option("--architecture", spec.architecture, ArchitectureNames().c_str())
      .ShowDefault()
      .Group("Shape of one model");
  shape("--layers", spec.n_layers, "layers");
  shape("--d-model", spec.d_model, "width");
  shape("--d-ff", spec.d_ff, "width of the feed-forward network");
  shape("--heads", spec.n_heads, "query heads");
  shape("--kv-heads", spec.n_kv_heads, "key and value heads");
  shape("--head-dim", spec.head_dim, "values of a head; 0: width / heads");
  shape("--vocab", spec.n_vocab, "tokens");
  shape("--context", spec.n_ctx, "positions");
  shape("--experts", spec.n_experts, "experts (llama: as Mixtral); 0: as the architecture has");
  shape("--experts-used", spec.n_experts_used, "of them used by a token; 0: 2");
  shape("--rope-dims", spec.rope_dims, "rotated values of a head; 0: as the architecture has");
  flags.Option("--rope-scaling", spec.rope_scaling, "how positions beyond the trained ones are reached")
      .OneOf({"linear", "yarn", "longrope"})
      .Group("Shape of one model");
  flags.Option("--rope-factor", spec.rope_factor, "what positions are scaled by")
      .ShowDefault()
      .Group("Shape of one model");
  shape("--original-context", spec.n_ctx_original, "trained positions; 0: context / factor");
  flags
      .Switch("--input-norms", spec.input_norms,
              "qwen3, gemma3: a norm before each projection, as BitNet's embedding models have")
      .Group("Shape of one model");
  flags.Switch("--parallel", spec.parallel, "stablelm: attention and network read one norm")
      .Group("Shape of one model");
  flags.Option("--distribution", args->distribution, "weights: ternary or gaussian")
      .OneOf({"ternary", "gaussian"})
      .ShowDefault()
      .Group("Shape of one model");
  flags.Switch("--llama3-rope", spec.llama3_rope, "frequencies with factors, as LLaMA 3.1 has them")
      .Group("Shape of one model");
  flags
      .Option(
          "--activation", args->activation,
          "activation declared in config.json: silu relu2 relu gelu gelu_tanh (default: the architecture's)")
      .Group("Shape of one model");
  flags.Option("--seed", spec.seed, "of the random weights").ShowDefault().Group("Shape of one model");
  AddOutputArguments(flags, args->output, nullptr);
  return [args] {
    auto exit_code = GenFixtures(*args);
    return exit_code ? *exit_code : Fail(args->output, exit_code.error());
  };
}

}  // namespace pb::cli
