// The llama.cpp adapter: an engine plugin over libllama and libggml, compiled on the user's machine against
// the headers of the reference found there. Depends on abi/, those headers and the standard library alone.
#ifndef PARITYBIT_PLUGINS_LLAMA_CPP_ADAPTER_H_
#define PARITYBIT_PLUGINS_LLAMA_CPP_ADAPTER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "abi/engine.h"
#include "llama_cpp/canonical.h"
#include "llama_cpp/differences.h"
#include "llama_cpp/graph.h"

struct pb_error {
  int32_t code;
  std::string message;
};

namespace pb::llama_cpp {

pb_error* NewError(pb_code code, std::string message);

// Runs a call of the ABI; an exception of the reference becomes an error, because none may cross a C
// interface.
template <typename F>
pb_error* Guarded(F&& call) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return NewError(PB_OUT_OF_MEMORY, "out of memory in llama.cpp");
  } catch (const std::exception& e) {
    return NewError(PB_INTERNAL, std::string("llama.cpp threw: ") + e.what());
  }
}

enum class Flash : int { kAuto = -1, kOff = 0, kOn = 1 };

struct Settings {
  std::string cpu_library;  // empty: the best that this CPU runs
  int threads = 1;
  int ubatch = 512;
  int n_ctx = 0;  // 0: what the model was trained for, at most kDefaultContext
  ggml_type kv_type = GGML_TYPE_F16;
  Flash flash = Flash::kOff;
  std::optional<uint64_t> noise_seed;
  // What counts instead of the model file's metadata: keys without the architecture's name, and values.
  std::map<std::string, float> declared;
  std::map<std::string, bool> given;  // keys that a setting named

  // Takes over settings; an unknown key or value is an error that names it.
  pb_error* Apply(const pb_setting* settings, size_t n_settings);
  const char* OriginOf(const std::string& key) const { return given.count(key) ? "set" : "default"; }
};
inline constexpr int kDefaultContext = 4096;

struct Fact {
  std::string key, value, origin;
};
void SendFacts(const std::vector<Fact>& facts, pb_fact_fn fact, void* ctx);

// Loads one CPU library into this process, or the best one. Sets the path of what was loaded.
pb_error* LoadCpuLibrary(const std::string& name, std::string* path);
// "zen4" of ".../libggml-cpu-zen4.so".
std::string CpuLibraryName(const std::string& path);
// The first error that the reference logged since the last call; empty when none.
std::string TakeLogLine();

// The functions of the ABI, by file.
pb_error* ModelOpen(pb_engine* engine, const char* path, pb_model** model);
void ModelClose(pb_model* model);
pb_error* ModelFacts(pb_model* model, pb_fact_fn fact, void* ctx);
pb_error* Tokenize(pb_model* model, const char* text, size_t n_bytes, uint32_t flags, int32_t* ids,
                   size_t capacity, size_t* n_ids);
pb_error* Detokenize(pb_model* model, const int32_t* ids, size_t n_ids, char* text, size_t capacity,
                     size_t* n_bytes);
pb_error* SessionOpen(pb_model* model, const pb_setting* settings, size_t n_settings, pb_session** session);
void SessionClose(pb_session* session);
pb_error* SessionFacts(pb_session* session, pb_fact_fn fact, void* ctx);
pb_error* SessionStages(pb_session* session, pb_stage_fn stage, void* ctx);
pb_error* SessionLayers(pb_session* session, pb_layer_fn layer, void* ctx);
pb_error* Eval(pb_session* session, const pb_eval* eval);
pb_error* Reset(pb_session* session, int32_t n_keep);
pb_error* Replay(pb_session* session, const pb_replay* replay);

// As pb_codes.
struct ActivationCodes {
  std::string scheme, maker;
  int64_t n_rows = 0, n_columns = 0, block = 0, n_outputs = 0;
  std::vector<int8_t> codes;
  std::vector<float> scales, sums, products;
};
// What the CPU library's type traits make of the input of a point, whose shape has been checked. PB_UNSUPPORTED: the point is no
// product, its input is not quantised, or the library does not tell.
pb_error* CodesOf(const pb_session* session, const PointRule& rule, const pb_tensor& input,
                  ActivationCodes* out);
// A model file as the reference's own reader has it: its keys, and its tensors without their values. Null: it cannot be read.
struct File {
  explicit File(const std::string& path);
  std::unique_ptr<gguf_context, void (*)(gguf_context*)> header{nullptr, gguf_free};
  std::unique_ptr<ggml_context, void (*)(ggml_context*)> tensors{nullptr, ggml_free};
};
// The files of a model, of which the first is named: those of a set that says of how many it is.
std::vector<std::string> ModelFiles(const std::string& path);
// A view of a canonical tensor, as the ABI hands it over.
pb_tensor TensorOf(Canonical* c, const char* name);
bool EvalCallback(ggml_tensor* tensor, bool ask, void* session);

// One chunk (ubatch) of an evaluation on its way through the graph.
struct Pass {
  const pb_tap* tap = nullptr;
  bool need_all = false;       // inputs are wanted: every node must have run before the next is asked about
  int32_t first_position = 0;  // of row 0
  int32_t n_rows = 0;
  std::unordered_map<std::string, int> occurrences;  // of "name|op" so far
  std::map<std::pair<const PointRule*, size_t>, Canonical>
      inputs;  // captured, until their point is asked about

  // The node asked about last; the hand-over that follows is about it.
  const std::vector<PointRule>* rules = nullptr;  // its tracepoints; nullptr: it is none
  pb_point point{};                               // of a rule at hand, or of the node
  std::string native_name, op, key;
  std::vector<uint32_t> want;  // of each rule; of the node where there is none
  // Scores that have run, and what was known of them then; they are handed over when their softmax is asked about, whose
  // mask tells what they hide.
  struct Scores {
    ggml_tensor* tensor = nullptr;
    const std::vector<PointRule>* rules = nullptr;
    std::string native_name, op, key;
    std::vector<uint32_t> want;
    int32_t occurrence = 0;
  };
  Scores scores;
  const ggml_tensor* mask = nullptr;  // while they are

  bool stopped = false;
  std::string failure;  // why; empty: the tap asked for it
};

}  // namespace pb::llama_cpp

struct pb_engine {
  pb::llama_cpp::Settings settings;
  std::string cpu_path;
};

struct pb_model {
  pb_engine* engine = nullptr;
  std::string path;  // of the file
  llama_model* model = nullptr;
  const llama_vocab* vocab = nullptr;
  int32_t n_vocab = 0;
  std::string architecture;
  bool has_weights = false;  // false: a file of a vocabulary alone
  pb::llama_cpp::Dims dims;
  std::vector<pb::llama_cpp::Fact> facts;
};

struct pb_session {
  pb_model* model = nullptr;
  llama_context* ctx = nullptr;
  pb::llama_cpp::Settings settings;
  pb::llama_cpp::GraphMap map;
  pb::llama_cpp::GraphRecorder* recorder = nullptr;  // during the warm-up only
  int32_t n_past = 0;
  pb::llama_cpp::Pass pass;
  // Memory of the tensor at hand, as it lies and as it is shown, used again for the next one.
  std::vector<float> native;
  pb::llama_cpp::Canonical canonical;

  ~pb_session() {
    if (ctx) llama_free(ctx);
  }
};

#endif  // PARITYBIT_PLUGINS_LLAMA_CPP_ADAPTER_H_
