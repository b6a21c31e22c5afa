// Turns C++ classes into the engine ABI: errors become error objects, exceptions stop at the
// border. A plugin derives Engine, Model and Session, and defines pb_engine_get with MakeApi.
#ifndef PARITYBIT_PLUGINS_SUPPORT_ADAPTER_H_
#define PARITYBIT_PLUGINS_SUPPORT_ADAPTER_H_

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "abi/engine.h"
#include "base/result.h"
#include "tokenizer/gguf_keys.h"
#include "tokenizer/tokenizer.h"

namespace pb::plugin {

using Settings = std::vector<std::pair<std::string, std::string>>;

// Hands facts to the caller one by one.
class FactSink {
 public:
  FactSink(pb_fact_fn fn, void* ctx) : fn_(fn), ctx_(ctx) {}
  void Add(std::string_view key, std::string_view value, std::string_view origin) const;

 private:
  pb_fact_fn fn_;
  void* ctx_;
};

class Session {
 public:
  virtual ~Session() = default;
  virtual void Facts(const FactSink& facts) const = 0;
  virtual void Stages(pb_stage_fn fn, void* ctx) const = 0;
  virtual void Layers(pb_layer_fn, void*) const {}  // every layer shows what is shown
  virtual Status Eval(const pb_eval& eval) = 0;
  virtual Status Reset(int32_t n_keep) = 0;
  // All fields are there, those that the caller does not know as null.
  virtual Status Replay(const pb_replay& replay) = 0;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual void Facts(const FactSink& facts) const = 0;
  virtual Result<std::vector<int32_t>> Tokenize(std::string_view text,
                                                const TokenizeOptions& options) const = 0;
  virtual Result<std::string> Detokenize(std::span<const int32_t> ids) const = 0;
  // `settings` override those of the engine.
  virtual Result<std::unique_ptr<Session>> OpenSession(const Settings& settings) = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual void Describe(const FactSink& facts) const = 0;
  virtual Result<std::unique_ptr<Model>> OpenModel(const std::string& path) = 0;
};

using CreateFn = Result<std::unique_ptr<Engine>> (*)(const Settings& settings);

// The facts of a model's vocabulary: bos eos eog add_bos chat_template; and `findings`, what the
// tokenizer's tables leave open or contradict, a sentence a line.
void AddVocabularyFacts(const FactSink& facts, const Tokenizer& tokenizer);

// The tokeniser of a model file. One that is not offered keeps no model from being opened: it is
// refused where a text is to be read, and other engines' ids may serve.
class FileTokenizer {
 public:
  template <typename File>
  static Result<FileTokenizer> Open(const File& file) {
    auto open = [&]() -> Result<std::unique_ptr<const Tokenizer>> {
      PB_ASSIGN(TokenizerData data, ReadTokenizerData(file));
      return Tokenizer::Create(std::move(data));
    };
    FileTokenizer tokenizer;
    auto opened = open();
    if (!opened.ok() && opened.error().code != Code::kUnsupported) return std::move(opened).error();
    if (opened.ok())
      tokenizer.tokenizer_ = std::move(opened).value();
    else
      tokenizer.why_none_ = std::move(opened).error().message;
    return tokenizer;
  }

  void AddFacts(const FactSink& facts) const;
  Result<std::vector<int32_t>> Encode(std::string_view text, const TokenizeOptions& options) const;
  Result<std::string> Decode(std::span<const int32_t> ids) const;

 private:
  Error Refusal() const { return MakeError(Code::kUnsupported, "{}", why_none_); }

  std::unique_ptr<const Tokenizer> tokenizer_;  // null: why_none_
  std::string why_none_;
};

// Evaluation was stopped by a callback.
Error Cancelled();

// The table of a plugin; one a library.
const pb_engine_api* MakeApi(uint64_t capabilities, CreateFn create);

}  // namespace pb::plugin

#endif  // PARITYBIT_PLUGINS_SUPPORT_ADAPTER_H_
