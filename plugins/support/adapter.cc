// The table of C functions behind which every plugin of ours stands, and what each does with
// errors and exceptions.
#include "plugins/support/adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>

struct pb_error {
  int32_t code;
  std::string message;
};
struct pb_engine {
  std::unique_ptr<pb::plugin::Engine> impl;
};
struct pb_model {
  std::unique_ptr<pb::plugin::Model> impl;
};
struct pb_session {
  std::unique_ptr<pb::plugin::Session> impl;
};

namespace pb::plugin {
namespace {

CreateFn g_create = nullptr;

int32_t AbiCode(Code code) {
  switch (code) {
    case Code::kUsage:
      return PB_INVALID_ARGUMENT;
    case Code::kNotFound:
    case Code::kIo:
      return PB_IO;
    case Code::kMalformed:
      return PB_MALFORMED;
    case Code::kUnsupported:
      return PB_UNSUPPORTED;
    case Code::kUndeclared:
      return PB_UNDECLARED;
    case Code::kInterrupted:
      return PB_CANCELLED;
    default:
      return PB_INTERNAL;
  }
}

pb_error* ToAbi(Error error) { return new pb_error{AbiCode(error.code), std::move(error.message)}; }

// Runs a call that returns Status; nothing is thrown across the border.
template <typename Call>
pb_error* Guarded(Call call) {
  try {
    Status status = call();
    return status.ok() ? nullptr : ToAbi(std::move(status).error());
  } catch (const std::bad_alloc&) {
    return new pb_error{PB_OUT_OF_MEMORY, "out of memory"};
  } catch (const std::exception& e) {
    return new pb_error{PB_INTERNAL, e.what()};
  }
}

Settings ToSettings(const pb_setting* settings, size_t n) {
  Settings out;
  for (size_t i = 0; i < n; i++) out.emplace_back(settings[i].key, settings[i].value);
  return out;
}

// Copies what fits and tells the full count.
template <typename T>
void CopyOut(const T* from, size_t n, T* to, size_t capacity, size_t* count) {
  *count = n;
  if (to) std::copy_n(from, std::min(n, capacity), to);
}

int32_t ErrorCode(const pb_error* error) { return error->code; }
const char* ErrorMessage(const pb_error* error) { return error->message.c_str(); }
void ErrorDestroy(pb_error* error) { delete error; }

pb_error* Create(const pb_setting* settings, size_t n, pb_engine** engine) {
  return Guarded([&]() -> Status {
    PB_ASSIGN(auto impl, g_create(ToSettings(settings, n)));
    *engine = new pb_engine{std::move(impl)};
    return {};
  });
}
void Destroy(pb_engine* engine) { delete engine; }
pb_error* Describe(pb_engine* engine, pb_fact_fn fact, void* ctx) {
  return Guarded([&]() -> Status { return engine->impl->Describe({fact, ctx}), Status(); });
}
pb_error* ModelOpen(pb_engine* engine, const char* path, pb_model** model) {
  return Guarded([&]() -> Status {
    PB_ASSIGN(auto impl, engine->impl->OpenModel(path));
    *model = new pb_model{std::move(impl)};
    return {};
  });
}
void ModelClose(pb_model* model) { delete model; }
pb_error* ModelFacts(pb_model* model, pb_fact_fn fact, void* ctx) {
  return Guarded([&]() -> Status { return model->impl->Facts({fact, ctx}), Status(); });
}
pb_error* Tokenize(pb_model* model, const char* text, size_t n_bytes, uint32_t flags, int32_t* ids,
                   size_t capacity, size_t* n_ids) {
  return Guarded([&]() -> Status {
    const TokenizeOptions options{(flags & PB_ADD_SPECIAL) != 0, (flags & PB_PARSE_SPECIAL) != 0};
    PB_ASSIGN(std::vector<int32_t> all, model->impl->Tokenize({text, n_bytes}, options));
    CopyOut(all.data(), all.size(), ids, capacity, n_ids);
    return {};
  });
}
pb_error* Detokenize(pb_model* model, const int32_t* ids, size_t n_ids, char* text, size_t capacity,
                     size_t* n_bytes) {
  return Guarded([&]() -> Status {
    PB_ASSIGN(std::string all, model->impl->Detokenize({ids, n_ids}));
    CopyOut(all.data(), all.size(), text, capacity, n_bytes);
    return {};
  });
}
pb_error* SessionOpen(pb_model* model, const pb_setting* settings, size_t n, pb_session** session) {
  return Guarded([&]() -> Status {
    PB_ASSIGN(auto impl, model->impl->OpenSession(ToSettings(settings, n)));
    *session = new pb_session{std::move(impl)};
    return {};
  });
}
void SessionClose(pb_session* session) { delete session; }
pb_error* SessionFacts(pb_session* session, pb_fact_fn fact, void* ctx) {
  return Guarded([&]() -> Status { return session->impl->Facts({fact, ctx}), Status(); });
}
pb_error* SessionStages(pb_session* session, pb_stage_fn stage, void* ctx) {
  return Guarded([&]() -> Status { return session->impl->Stages(stage, ctx), Status(); });
}
pb_error* SessionLayers(pb_session* session, pb_layer_fn layer, void* ctx) {
  return Guarded([&]() -> Status { return session->impl->Layers(layer, ctx), Status(); });
}
pb_error* Eval(pb_session* session, const pb_eval* eval) {
  return Guarded([&]() -> Status { return session->impl->Eval(*eval); });
}
pb_error* Reset(pb_session* session, int32_t n_keep) {
  return Guarded([&]() -> Status { return session->impl->Reset(n_keep); });
}
pb_error* Replay(pb_session* session, const pb_replay* replay) {
  return Guarded([&]() -> Status {
    pb_replay whole{};  // what an older host does not know stays null
    std::memcpy(&whole, replay, std::min(replay->struct_size, sizeof whole));
    whole.struct_size = sizeof whole;
    return session->impl->Replay(whole);
  });
}

}  // namespace

void FactSink::Add(std::string_view key, std::string_view value, std::string_view origin) const {
  const std::string k(key), v(value), o(origin);
  const pb_fact fact{sizeof(pb_fact), k.c_str(), v.c_str(), o.c_str()};
  fn_(ctx_, &fact);
}

void AddVocabularyFacts(const FactSink& facts, const Tokenizer& tokenizer) {
  const TokenizerData& t = tokenizer.data();
  facts.Add("bos", std::to_string(t.bos), "metadata");
  facts.Add("eos", std::to_string(t.eos), "metadata");
  std::vector<int32_t> ends;
  for (int32_t id = 0; id < static_cast<int32_t>(t.tokens.size()); ++id)
    if (tokenizer.IsEndOfGeneration(id)) ends.push_back(id);
  facts.Add("eog", fmt::format("{}", fmt::join(ends, ",")), "metadata");
  facts.Add("add_bos", t.add_bos ? "yes" : "no", "metadata");
  facts.Add("chat_template", t.chat_template, "metadata");
  facts.Add("findings", fmt::format("{}", fmt::join(tokenizer.findings(), "\n")), "observed");
}

void FileTokenizer::AddFacts(const FactSink& facts) const {
  if (tokenizer_) return AddVocabularyFacts(facts, *tokenizer_);
  facts.Add("findings",
            fmt::format("the tokeniser is not read, so token ids were not checked: {}", why_none_),
            "observed");
}

Result<std::vector<int32_t>> FileTokenizer::Encode(std::string_view text,
                                                   const TokenizeOptions& options) const {
  if (!tokenizer_) return Refusal();
  return tokenizer_->Encode(text, options);
}

Result<std::string> FileTokenizer::Decode(std::span<const int32_t> ids) const {
  if (!tokenizer_) return Refusal();
  return tokenizer_->Decode(ids, true);
}

Error Cancelled() { return {Code::kInterrupted, "stopped by the caller"}; }

const pb_engine_api* MakeApi(uint64_t capabilities, CreateFn create) {
  g_create = create;
  static pb_engine_api api = {
      sizeof(pb_engine_api),
      PB_ABI_MAJOR,
      PB_ABI_MINOR,
      0,
      ErrorCode,
      ErrorMessage,
      ErrorDestroy,
      Create,
      Destroy,
      Describe,
      ModelOpen,
      ModelClose,
      ModelFacts,
      Tokenize,
      Detokenize,
      SessionOpen,
      SessionClose,
      SessionFacts,
      SessionStages,
      Eval,
      Reset,
      Replay,
      nullptr,  // decode: none of these engines lends its decoders
      SessionLayers,
  };
  api.capabilities = capabilities;
  return &api;
}

}  // namespace pb::plugin
