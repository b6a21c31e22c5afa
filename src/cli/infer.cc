// paritybit infer: text from one engine, streamed.
#include <fmt/core.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/processors.h"
#include "base/text.h"
#include "chat/chat_template.h"
#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/refusal.h"
#include "cli/tokenizer_file.h"
#include "cli/variables.h"
#include "drive/context_room.h"
#include "drive/generate.h"
#include "report/escape.h"
#include "run/doubts.h"

namespace pb::cli {
namespace {

struct InferArguments {
  ModelArguments model;
  EngineArguments engines;
  PromptArguments prompts;
  OutputArguments output;
  std::string engine = "native";
  int max_tokens = 128;
  drive::Sampling sampling;
  std::optional<uint64_t> seed;
  bool chat = false, ignore_eos = false;
};

// Text to ids and back: by the engine, or by a file in its place.
class Reader {
 public:
  Reader(drive::Participant& engine, std::shared_ptr<const Tokenizer> file)
      : engine_(engine), file_(std::move(file)) {}

  Result<std::vector<int32_t>> Read(const std::string& text) { return ReadText({file_, {}}, engine_, text); }
  Result<std::string> TextOf(int32_t id) {
    return file_ ? file_->Decode({&id, 1}, true) : engine_.Detokenize({&id, 1});
  }
  // The text that an id adds. What a file's decoder does to it depends on the ids before it.
  Result<std::string> Next(int32_t id) {
    if (!file_) return engine_.Detokenize({&id, 1});
    ids_.push_back(id);
    const std::span<const int32_t> all(ids_);
    PB_ASSIGN(const std::string before, file_->Decode(all.subspan(begin_, read_ - begin_), true));
    PB_ASSIGN(const std::string now, file_->Decode(all.subspan(begin_), true));
    // U+FFFD at the end: a character whose other bytes are to come.
    if (now.size() <= before.size() || now.ends_with("\xEF\xBF\xBD")) return std::string();
    begin_ = read_, read_ = ids_.size();
    return now.substr(before.size());
  }
  void Begin(const std::vector<int32_t>& prompt) {
    ids_ = prompt, begin_ = prompt.size() - 1, read_ = prompt.size();
  }

  bool AddsBos() const { return file_ ? file_->data().add_bos : engine_.record().model_facts().adds_bos; }
  std::vector<int32_t> Ends() const {
    std::vector<int32_t> ends = engine_.record().model_facts().ends;
    if (file_)
      for (int32_t id = 0; id < static_cast<int32_t>(file_->data().tokens.size()); ++id)
        if (file_->IsEndOfGeneration(id)) ends.push_back(id);
    return ends;
  }

 private:
  drive::Participant& engine_;
  std::shared_ptr<const Tokenizer> file_;
  std::vector<int32_t> ids_;
  size_t begin_ = 0, read_ = 0;  // of ids_: the window that is decoded, and what of it was handed out
};

// The prompt as the model's chat template frames it.
Result<std::string> Frame(drive::Participant& engine, Reader& reader, const InferArguments& args,
                          const std::string& prompt) {
  const trace::ModelFacts facts = engine.record().model_facts();
  if (facts.chat_template.empty())
    return MakeError(Code::kUnsupported, "the model has no chat template: leave out --chat");
  std::string special[2];
  const int32_t ids[2] = {facts.bos, facts.eos};
  for (int i = 0; i < 2; ++i) {
    if (ids[i] < 0) continue;
    PB_ASSIGN(special[i], reader.TextOf(ids[i]));
  }
  std::vector<chat::ChatMessage> messages;
  if (!args.prompts.system.empty()) messages.push_back({"system", args.prompts.system});
  messages.push_back({"user", prompt});
  PB_ASSIGN(std::string text,
            chat::ApplyChatTemplate(facts.chat_template, messages, true, special[0], special[1]));
  // The tokeniser adds BOS by itself where the model says so: a template that writes it too would
  // double it.
  if (reader.AddsBos() && !special[0].empty() && text.starts_with(special[0]))
    text.erase(0, special[0].size());
  return text;
}

// Hands out text as soon as its characters are whole.
class Stream {
 public:
  // A terminal must not obey what a model writes; a file or a pipe gets its bytes.
  explicit Stream(bool print) : print_(print), terminal_(isatty(STDOUT_FILENO)) {}
  // False when nobody reads what is printed.
  bool Add(std::string_view bytes) {
    all_ += bytes;
    pending_ += bytes;
    return Flush(drive::CompleteUtf8(pending_));
  }
  void End() { Flush(pending_.size()); }
  const std::string& all() const { return all_; }

 private:
  bool Flush(size_t n) {
    const std::string_view text = std::string_view(pending_).substr(0, n);
    const bool read = !print_ || n == 0 || PrintOut(terminal_ ? EscapeUnsafe(text) : text);
    pending_.erase(0, n);
    return read;
  }
  bool print_, terminal_;
  std::string all_, pending_;
};

Result<int> Infer(const InferArguments& args, drive::EngineRecord& record) {
  std::vector<run::Choice> choices;
  PB_ASSIGN(const OneEngine one, ChooseOneEngine(args.model, args.engines, args.engine, choices));
  PromptArguments typed = args.prompts;
  if (args.chat) {
    if (typed.framed != PromptArguments().framed)
      return MakeError(Code::kUsage, "--chat and --prompt-template both frame the prompt: give one of them");
    typed.system.clear();  // the model's template says it
  }
  PB_ASSIGN(const run::PromptSpec prompt, ReadOnePrompt(typed, "infer"));
  std::string text = prompt.text;
  for (const run::Choice& choice : choices)
    Log(args.output, fmt::format("{}: {} [{}]", choice.key, choice.value, choice.origin));

  PB_ASSIGN(ChosenTokenizer tokenizer, ChooseTokenizer(args.model, one.model.string()));
  std::optional<Progress> progress(std::in_place, args.output);
  record.role = one.spec.text;
  drive::Participant engine(record, one.limits);
  PB_TRY(engine.Start(one.spec));
  PB_TRY(engine.OpenModel(one.model));
  Reader reader(engine, tokenizer.file);
  if (args.chat) {
    PB_ASSIGN(text, Frame(engine, reader, args, text));
  }
  drive::GenerateRequest request;
  PB_ASSIGN(request.tokens, reader.Read(text));
  if (request.tokens.empty()) return MakeError(Code::kUsage, "the prompt has no tokens");
  PB_TRY(drive::CheckRoom(record, request.tokens.size(), prompt.origin));
  request.max_tokens = args.max_tokens;
  request.sampling = args.sampling;
  if (!args.ignore_eos) request.stop = reader.Ends();
  host::Settings wishes = {
      {"n_ctx", std::to_string(request.tokens.size() + static_cast<size_t>(args.max_tokens))}};
  if (!drive::FindSetting(one.spec.settings, "threads")) wishes.emplace_back("threads", one.threads);
  PB_ASSIGN([[maybe_unused]] host::Settings taken, engine.OpenSessionWishing(std::move(wishes)));
  request.progress = progress->Callback();
  Stream stream(!args.output.json());
  reader.Begin(request.tokens);
  std::vector<int32_t> ids;
  bool read = true;
  auto generated = drive::Generate(engine, request, [&](int32_t id) -> Status {
    PB_ASSIGN(std::string piece, reader.Next(id));
    if (args.output.json())
      progress->Update("tokens", static_cast<int64_t>(ids.size()), args.max_tokens);
    else
      progress.reset();  // the text that streams tells the rest
    read = stream.Add(piece);
    ids.push_back(id);
    return read ? Status() : Status(MakeError(Code::kInterrupted, "nobody reads on"));
  });
  progress.reset();
  if (!read) return kExitOk;
  PB_ASSIGN(drive::GenerateSummary summary, std::move(generated));
  stream.End();
  const int64_t n_positions = static_cast<int64_t>(summary.n_prompt) + summary.n_generated;
  std::vector<std::string> notes = drive::FindingsOf(record, n_positions);
  notes.insert(notes.end(), tokenizer.notes.begin(), tokenizer.notes.end());
  for (std::string& note : run::NotesOnModel(one.model, one.spec.settings, n_positions))
    notes.push_back(std::move(note));
  run::NoteTokens(record, request.tokens, args.chat ? "as the chat template frames it" : "as given", &notes);
  double prompt_rate = summary.n_prompt / std::max(summary.prompt_seconds, 1e-9);
  // The first token comes of the prompt's evaluation.
  const bool decoded = summary.n_generated > 1;
  double decode_rate = (summary.n_generated - 1) / std::max(summary.decode_seconds, 1e-9);
  if (args.output.json()) {
    auto object = Envelope("paritybit.infer/0", "ok", kExitOk);
    object["engine"] = one.spec.text;
    object["model"] = {{"path", one.model.string()}, {"sha256", record.model_sha256}};
    object["notes"] = notes;
    object["prompt_tokens"] = request.tokens;
    object["tokens"] = ids;
    object["text"] = stream.all();
    object["stopped"] = summary.stopped;
    object["prompt_tokens_per_second"] = prompt_rate;
    object["decode_tokens_per_second"] = decoded ? nlohmann::json(decode_rate) : nlohmann::json();
    PrintJson(object);
  } else {
    PrintOut("\n");
    // What there is to say of threads stands there since the beginning.
    const std::string told =
        drive::TooManyThreads(host::FactNumber(record.session, "threads", 1), ProcessorCount());
    for (const std::string& note : notes)
      if (told.empty() || !note.ends_with(told)) PrintError(fmt::format("note: {}\n", report::Escape(note)));
    PrintError(fmt::format("{} prompt tokens, {:.1f} tokens/s; {} generated{}\n", summary.n_prompt,
                           prompt_rate, summary.n_generated,
                           decoded ? fmt::format(", {:.1f} tokens/s", decode_rate) : ""));
  }
  return kExitOk;
}

// What says how text is generated, as words of the command.
std::string GenerationWords(const InferArguments& args) {
  const InferArguments unsaid;
  std::string words;
  auto add = [&words](const char* flag, const std::string& value) {
    words +=
        fmt::format("{}{}{}", words.empty() ? "" : " ", flag, value.empty() ? "" : " " + ShellQuote(value));
  };
  if (args.max_tokens != unsaid.max_tokens) add("--max-tokens", std::to_string(args.max_tokens));
  if (args.sampling.temperature != unsaid.sampling.temperature)
    add("--temperature", fmt::format("{}", args.sampling.temperature));
  if (args.sampling.top_k != unsaid.sampling.top_k) add("--top-k", std::to_string(args.sampling.top_k));
  const drive::Sampling &said = args.sampling, &other = unsaid.sampling;
  for (const auto& [flag, value, otherwise] :
       {std::tuple("--top-p", said.top_p, other.top_p), std::tuple("--min-p", said.min_p, other.min_p),
        std::tuple("--typical-p", said.typical_p, other.typical_p),
        std::tuple("--repetition-penalty", said.repetition, other.repetition),
        std::tuple("--frequency-penalty", said.frequency, other.frequency),
        std::tuple("--presence-penalty", said.presence, other.presence)})
    if (value != otherwise) add(flag, fmt::format("{}", value));
  if (said.penalty_window != other.penalty_window)
    add("--repeat-last-n", std::to_string(said.penalty_window));
  if (!args.model.tokenizer.empty()) add("--tokenizer", args.model.tokenizer);
  if (args.seed) add("--seed", std::to_string(*args.seed));
  if (args.chat) add("--chat", "");
  if (args.ignore_eos) add("--ignore-eos", "");
  return words;
}

}  // namespace

Action DeclareInfer(Flags& flags) {
  auto args = std::make_shared<InferArguments>();
  AddModelArguments(flags, args->model);
  AddTokenizerArgument(flags, args->model);
  AddOnePromptArguments(flags, args->prompts);
  flags.Option("-e,--engine", args->engine, "engine that generates: NAME|PATH[,key=value...]")
      .ShowDefault()
      .Group("Engines");
  AddSettingArguments(flags, args->engines);
  flags.Option("-n,--max-tokens,--max-new-tokens", args->max_tokens, "tokens to generate at most")
      .Range(1, 1 << 20)
      .ShowDefault()
      .Group("Generation");
  flags.Option("--temperature", args->sampling.temperature, "0: the most likely token; higher: more varied")
      .NonNegative()
      .ShowDefault()
      .Group("Generation");
  flags.Option("--top-k", args->sampling.top_k, "sample among the k most likely tokens; 0: all")
      .NonNegative()
      .ShowDefault()
      .Group("Generation");
  flags
      .Option("--top-p", args->sampling.top_p,
              "sample among the likeliest tokens that hold this probability together; 1: all")
      .Range(0.0, 1.0)
      .ShowDefault()
      .Group("Generation");
  flags
      .Option("--min-p", args->sampling.min_p,
              "leave out tokens below this share of the likeliest one's probability; 0: none")
      .Range(0.0, 1.0)
      .ShowDefault()
      .Group("Generation");
  flags
      .Option("--typical-p", args->sampling.typical_p,
              "sample among the most typical tokens that hold this probability together; 1: all")
      .Range(0.0, 1.0)
      .ShowDefault()
      .Group("Generation");
  flags
      .Option("--repetition-penalty,--repeat-penalty", args->sampling.repetition,
              "divide the positive logits of tokens seen lately by this, multiply negative ones; 1: do not")
      .Range(0.001, 1000.0)
      .ShowDefault()
      .Group("Generation");
  flags
      .Option("--frequency-penalty", args->sampling.frequency,
              "take this off a token's logit for each time that it was seen lately")
      .Range(-100.0, 100.0)
      .ShowDefault()
      .Group("Generation");
  flags
      .Option("--presence-penalty", args->sampling.presence,
              "take this off a token's logit once where it was seen lately")
      .Range(-100.0, 100.0)
      .ShowDefault()
      .Group("Generation");
  flags
      .Option("--repeat-last-n", args->sampling.penalty_window,
              "how many of the last tokens, the prompt's too, are lately; 0: none, -1: all")
      .Range(-1, 1 << 20)
      .ShowDefault()
      .Group("Generation");
  flags.Option("--seed", args->seed, "seed of the sampling; else $BITNET_SEED, else 0").Group("Generation");
  flags
      .Switch("--chat", args->chat,
              "frame the prompt, and --system-prompt, with the model's own chat template")
      .Group("Generation");
  flags.Switch("--ignore-eos", args->ignore_eos, "go on after a token that ends the text")
      .Group("Generation");
  AddOutputArguments(flags, args->output);
  flags.Refuse("--allow-mock", "no engine here is a mock");
  flags.Refuse("--gpu", "the native engine computes on the processor; name another engine with --engine");
  flags.Refuse("--auto-download", "`paritybit download-model` fetches a model, and nothing else does");
  flags.Moot("--deterministic", "the same seed gives the same text, always");
  return [args] {
    if (args->seed) {
      args->sampling.seed = *args->seed;
    } else if (const char* seed = VariableValue("BITNET_SEED")) {
      char* end = nullptr;
      args->sampling.seed = std::strtoull(seed, &end, 10);
      if (*end) return Fail(args->output, MakeError(Code::kUsage, "BITNET_SEED: `{}` is not a number", seed));
    }
    drive::EngineRecord record;
    auto exit_code = Infer(*args, record);
    if (exit_code) return *exit_code;
    Refusal refusal = OneEngineRefusal("infer", args->model, args->engines, args->engine, args->prompts, 0);
    refusal.more = GenerationWords(*args);
    return FailOfEngine(args->output, exit_code.error(), record, refusal);
  };
}

}  // namespace pb::cli
