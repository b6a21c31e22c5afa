// The engine as a whole: settings, the CPU library, errors, the log, and the table of the ABI.
#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>

#include "ggml-backend.h"
#include "llama_cpp/adapter.h"

namespace pb::llama_cpp {
namespace {

namespace fs = std::filesystem;

// As the library says, else as set-up knows it, which built the library from there.
std::string Commit() {
  if (const char* commit = ggml_commit(); *commit) return commit;
#ifdef PB_REFERENCE_COMMIT
  return PB_REFERENCE_COMMIT;
#else
  return "unknown";
#endif
}

// The release as set-up knows it, else as the library says.
std::string Version() {
#ifdef PB_REFERENCE_VERSION
  return PB_REFERENCE_VERSION;
#else
  if (const char* version = llama_version()) return version;
  return "commit " + Commit().substr(0, 12);
#endif
}

constexpr char kCpuPrefix[] = "libggml-cpu-";
// The name of a CPU backend that libllama is linked with: there is no other to choose.
constexpr char kLinked[] = "linked";

bool ParseInt(const char* text, int64_t low, int64_t high, int64_t* value) {
  const char* end = text + std::strlen(text);
  auto [stop, error] = std::from_chars(text, end, *value);
  return error == std::errc() && stop == end && *value >= low && *value <= high;
}

pb_error* BadValue(const pb_setting& s, const char* allowed) {
  return NewError(PB_INVALID_ARGUMENT,
                  std::string(s.key) + "=" + s.value + ": not understood; allowed: " + allowed);
}

pb_error* SetInt(const pb_setting& s, int64_t low, int64_t high, int* out) {
  int64_t value = 0;
  if (!ParseInt(s.value, low, high, &value)) {
    return BadValue(s, (std::to_string(low) + " to " + std::to_string(high)).c_str());
  }
  *out = static_cast<int>(value);
  return nullptr;
}

pb_error* ReadFlash(const pb_setting& s, Flash* out) {
  const std::string_view value = s.value;
  if (value == "off") return *out = Flash::kOff, nullptr;
  if (value == "on") return *out = Flash::kOn, nullptr;
  if (value == "auto") return *out = Flash::kAuto, nullptr;
  return BadValue(s, "off on auto");
}

// Types that the reference's own tools offer for its cache. Both keys and values have it.
constexpr ggml_type kKvTypes[] = {GGML_TYPE_F16,  GGML_TYPE_F32,  GGML_TYPE_BF16, GGML_TYPE_Q8_0,
                                  GGML_TYPE_Q5_1, GGML_TYPE_Q5_0, GGML_TYPE_Q4_1, GGML_TYPE_Q4_0};

pb_error* SetKvType(const pb_setting& s, ggml_type* out) {
  std::string known;
  for (const ggml_type type : kKvTypes) {
    if (s.value == std::string_view(ggml_type_name(type))) return *out = type, nullptr;
    known += (known.empty() ? "" : " ") + std::string(ggml_type_name(type));
  }
  return BadValue(s, known.c_str());
}

pb_error* SetNoise(const pb_setting& s, std::optional<uint64_t>* out) {
  if (std::string_view(s.value) == "none") return out->reset(), nullptr;
  int64_t value = 0;
  if (!ParseInt(s.value, 0, INT64_MAX, &value)) return BadValue(s, "none, or a whole number from 0");
  *out = static_cast<uint64_t>(value);
  return nullptr;
}

pb_error* SetDeclared(const pb_setting& s, const char* metadata_key, float least, Settings* to) {
  const char* end = s.value + std::strlen(s.value);
  float value = 0;
  const auto [stop, error] = std::from_chars(s.value, end, value);
  if (error != std::errc() || stop != end || !(value >= least) || value > 1e30f)
    return BadValue(s, "a number; from 1 for rope.base, above 0 for rope.scale, from 0 for norm.eps");
  to->declared[metadata_key] = value;
  return nullptr;
}

pb_error* ApplyOne(const pb_setting& s, Settings* to) {
  const std::string_view key = s.key, value = s.value;
  if (key == "cpu.library") return to->cpu_library = value, nullptr;
  if (key == "threads") return SetInt(s, 1, 1024, &to->threads);
  if (key == "ubatch") return SetInt(s, 1, 65536, &to->ubatch);
  if (key == "n_ctx") return SetInt(s, 0, 1 << 24, &to->n_ctx);
  if (key == "kv.type") return SetKvType(s, &to->kv_type);
  if (key == "attn.flash") return ReadFlash(s, &to->flash);
  if (key == "noise.seed") return SetNoise(s, &to->noise_seed);
  if (key == "norm.eps") return SetDeclared(s, "attention.layer_norm_rms_epsilon", 0, to);
  if (key == "rope.base") return SetDeclared(s, "rope.freq_base", 1, to);
  if (key == "rope.scale") return SetDeclared(s, "rope.scaling.factor", 1e-6f, to);
  if (key == "hf.config" && value == "none") return nullptr;  // it reads none
  if (key == "act.quant") {
    if (value == "ggml") return nullptr;
    return NewError(PB_UNSUPPORTED,
                    "act.quant=" + std::string(value) +
                        ": llama.cpp quantises activations as each weight's type asks (ggml) and cannot be "
                        "told otherwise");
  }
  if (key == "ffn.activation" || key == "hf.config") {
    return NewError(PB_UNSUPPORTED, std::string(key) +
                                        ": llama.cpp takes the activation from the architecture's graph and "
                                        "cannot be told otherwise");
  }
  return NewError(PB_INVALID_ARGUMENT, "unknown setting " + std::string(key));
}

// Directory of libllama as it was loaded.
fs::path LibraryDir() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&llama_backend_init), &info) == 0 || !info.dli_fname) return {};
  std::error_code ignored;
  return fs::weakly_canonical(info.dli_fname, ignored).parent_path();
}

// The libraries of llama.cpp that are loaded in this process, as the loader found them.
std::vector<fs::path> LoadedLibraries() {
  std::vector<fs::path> found;
  const auto visit = [](dl_phdr_info* info, size_t, void* to) {
    const fs::path path = info->dlpi_name ? info->dlpi_name : "";
    const std::string name = path.filename().string();
    if (name.rfind("libllama", 0) == 0 || name.rfind("libggml", 0) == 0)
      static_cast<std::vector<fs::path>*>(to)->push_back(path);
    return 0;
  };
  dl_iterate_phdr(visit, &found);
  for (fs::path& path : found) {
    std::error_code error;
    const fs::path real = fs::weakly_canonical(path.parent_path(), error);
    if (!error) path = real / path.filename();
  }
  std::sort(found.begin(), found.end());
  return found;
}

// The library whose CPU backend is there without being chosen; empty where one has to be loaded.
fs::path LinkedCpuLibrary() {
  for (const fs::path& path : LoadedLibraries()) {
    const std::unique_ptr<void, int (*)(void*)> library(dlopen(path.c_str(), RTLD_NOW | RTLD_NOLOAD),
                                                        dlclose);
    void* init = library ? dlsym(library.get(), "ggml_backend_cpu_init") : nullptr;
    Dl_info info{};
    std::error_code ignored;
    if (init && dladdr(init, &info) && info.dli_fname && fs::equivalent(info.dli_fname, path, ignored))
      return path;
  }
  return {};
}

// How well a CPU library suits this processor; 0: not at all. -1: it cannot be loaded.
int Score(const fs::path& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return -1;
  auto score = reinterpret_cast<int (*)()>(dlsym(library, "ggml_backend_score"));
  const int value = score ? score() : 1;
  dlclose(library);
  return value;
}

std::vector<fs::path> CpuLibraries(const fs::path& dir) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(dir, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(kCpuPrefix, 0) == 0 && entry.path().extension() == ".so") found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

// Where the CPU libraries stand: beside the libraries of llama.cpp that are loaded, or where
// distributions put them, in a folder `ggml` there or one below it.
fs::path CpuLibraryDir() {
  for (const fs::path& library : LoadedLibraries()) {
    const fs::path own = library.parent_path() / "ggml";
    std::vector<fs::path> dirs = {library.parent_path(), own};
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(own, ignored)) dirs.push_back(entry.path());
    for (const fs::path& dir : dirs)
      if (!CpuLibraries(dir).empty()) return dir;
  }
  return LibraryDir();
}

fs::path BestCpuLibrary(const std::vector<fs::path>& libraries) {
  fs::path best;
  int best_score = 0;
  for (const fs::path& path : libraries) {
    if (const int score = Score(path); score > best_score) best = path, best_score = score;
  }
  return best;
}

// The names of those that this processor can run: "haswell sse42 x64".
std::string UsableCpuLibraries(const fs::path& dir) {
  std::string names;
  for (const fs::path& path : CpuLibraries(dir))
    if (Score(path) > 0) names += (names.empty() ? "" : " ") + CpuLibraryName(path.string());
  return names;
}

pb_error* FindCpuLibrary(const std::string& name, fs::path* path) {
  static const fs::path linked = LinkedCpuLibrary();  // before any is loaded
  if (!linked.empty()) {
    *path = linked;
    if (name.empty() || name == kLinked) return nullptr;
    return NewError(PB_UNSUPPORTED, "cpu.library=" + name +
                                        ": this build of llama.cpp is linked with its one CPU library, " +
                                        linked.string());
  }
  const fs::path dir = CpuLibraryDir();
  const std::vector<fs::path> libraries = CpuLibraries(dir);
  if (name.empty()) {
    *path = BestCpuLibrary(libraries);
    if (path->empty())
      return NewError(PB_IO, dir.string() + ": no libggml-cpu-*.so that this processor can run");
    return nullptr;
  }
  *path = name.find('/') == std::string::npos ? dir / (kCpuPrefix + name + ".so") : fs::path(name);
  std::error_code ignored;
  if (!fs::exists(*path, ignored)) {
    std::string names;
    for (const fs::path& p : libraries) names += " " + CpuLibraryName(p.string());
    return NewError(PB_INVALID_ARGUMENT,
                    "cpu.library=" + name + ": no " + path->string() + "; there are:" + names);
  }
  if (Score(*path) <= 0) {
    return NewError(PB_UNSUPPORTED,
                    "cpu.library=" + name + ": this processor lacks instructions that it needs");
  }
  return nullptr;
}

std::mutex log_mutex;
std::string log_line;  // the first error since the last TakeLogLine: later ones only follow from it

void Log(ggml_log_level level, const char* text, void*) {
  static bool keep = false;  // a continued line has the level of its beginning
  if (level != GGML_LOG_LEVEL_CONT) keep = level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR;
  if (!keep) return;
  std::fputs(text, stderr);
  std::lock_guard lock(log_mutex);
  if (level != GGML_LOG_LEVEL_ERROR || !log_line.empty()) return;
  log_line = text;
  while (!log_line.empty() && log_line.back() == '\n') log_line.pop_back();
}

pb_error* Create(const pb_setting* settings, size_t n_settings, pb_engine** engine) {
  return Guarded([&]() -> pb_error* {
    *engine = nullptr;
    llama_log_set(Log, nullptr);
    setenv("GGML_NO_BACKTRACE", "1", 1);  // an abort would start a debugger on itself before it ends
    auto made = std::make_unique<pb_engine>();
    if (pb_error* error = made->settings.Apply(settings, n_settings)) return error;
    if (pb_error* error = LoadCpuLibrary(made->settings.cpu_library, &made->cpu_path)) return error;
    llama_backend_init();
    *engine = made.release();
    return nullptr;
  });
}

void Destroy(pb_engine* engine) { delete engine; }

pb_error* Describe(pb_engine* engine, pb_fact_fn fact, void* ctx) {
  return Guarded([&]() -> pb_error* {
    const fs::path dir = LibraryDir();
    const std::string cpu = CpuLibraryName(engine->cpu_path);
    std::vector<Fact> facts = {
        {"name", "llama.cpp", "observed"},
        {"version", Version(), "observed"},
        {"commit", Commit(), "observed"},
        {"build", llama_print_system_info(), "observed"},
        {"isa", cpu, engine->settings.cpu_library.empty() ? "default" : "set"},
        {"threads", std::to_string(engine->settings.threads), engine->settings.OriginOf("threads")},
        {"path.cpu", engine->cpu_path, "observed"},
        {"cpu.libraries", UsableCpuLibraries(CpuLibraryDir()), "observed"},
    };
    for (const fs::path& path : LoadedLibraries()) {
      const std::string name = path.filename().string();
      std::error_code ignored;
      if (fs::equivalent(path, engine->cpu_path, ignored)) continue;
      facts.push_back({"path." + name.substr(0, name.find('.')), path.string(), "observed"});
    }
    SendFacts(facts, fact, ctx);
    return nullptr;
  });
}

int32_t ErrorCode(const pb_error* error) { return error->code; }
// By ggml's own decoder of the type.
pb_error* Decode(pb_engine*, int32_t type, const void* blocks, size_t n_bytes, int64_t n_values, float* values) {
  return Guarded([&]() -> pb_error* {
    const auto known = type >= 0 && type < GGML_TYPE_COUNT ? static_cast<ggml_type>(type) : GGML_TYPE_COUNT;
    const auto* traits = ggml_get_type_traits(known == GGML_TYPE_COUNT ? GGML_TYPE_F32 : known);
    if (known == GGML_TYPE_COUNT) traits = nullptr;
    if (!traits || !traits->to_float || traits->blck_size <= 0) {
      const char* name = traits && traits->type_name ? traits->type_name : "of this number";
      return NewError(PB_UNSUPPORTED, "weights of type " + std::to_string(type) + " (" + name +
                                          "): this build of llama.cpp has no decoder of them");
    }
    if (n_values <= 0 || n_values % traits->blck_size != 0 ||
        n_bytes != static_cast<size_t>(n_values / traits->blck_size) * traits->type_size) {
      return NewError(PB_INVALID_ARGUMENT, std::to_string(n_bytes) + " bytes are no " + std::to_string(n_values) +
                                               " weights of " + traits->type_name);
    }
    traits->to_float(blocks, values, n_values);
    return nullptr;
  });
}

const char* ErrorMessage(const pb_error* error) { return error->message.c_str(); }
void ErrorDestroy(pb_error* error) { delete error; }

constexpr pb_engine_api kApi = {
    .struct_size = sizeof(pb_engine_api),
    .abi_major = PB_ABI_MAJOR,
    .abi_minor = PB_ABI_MINOR,
    .capabilities = PB_CAP_TOKENIZE | PB_CAP_OUTPUTS | PB_CAP_INPUTS | PB_CAP_OVERWRITE | PB_CAP_NOISE |
                    PB_CAP_REPLAY | PB_CAP_CODES | PB_CAP_DECODE,
    .error_code = ErrorCode,
    .error_message = ErrorMessage,
    .error_destroy = ErrorDestroy,
    .create = Create,
    .destroy = Destroy,
    .describe = Describe,
    .model_open = ModelOpen,
    .model_close = ModelClose,
    .model_facts = ModelFacts,
    .tokenize = Tokenize,
    .detokenize = Detokenize,
    .session_open = SessionOpen,
    .session_close = SessionClose,
    .session_facts = SessionFacts,
    .session_stages = SessionStages,
    .eval = Eval,
    .reset = Reset,
    .replay = Replay,
    .decode = Decode,
    .session_layers = SessionLayers,
};

}  // namespace

pb_error* NewError(pb_code code, std::string message) { return new pb_error{code, std::move(message)}; }

pb_error* Settings::Apply(const pb_setting* settings, size_t n_settings) {
  for (size_t i = 0; i < n_settings; ++i) {
    if (pb_error* error = ApplyOne(settings[i], this)) return error;
    given[settings[i].key] = true;
  }
  return nullptr;
}

void SendFacts(const std::vector<Fact>& facts, pb_fact_fn fact, void* ctx) {
  for (const Fact& f : facts) {
    const pb_fact out = {sizeof(pb_fact), f.key.c_str(), f.value.c_str(), f.origin.c_str()};
    fact(ctx, &out);
  }
}

pb_error* LoadCpuLibrary(const std::string& name, std::string* path) {
  static std::string loaded;  // ggml keeps every library it ever loaded, and uses the first
  fs::path wanted;
  if (pb_error* error = FindCpuLibrary(name, &wanted)) return error;
  if (!loaded.empty() && loaded != wanted) {
    return NewError(PB_UNSUPPORTED,
                    "cpu.library: this process has loaded " + loaded + " already; one library a process");
  }
  if (loaded.empty() && LinkedCpuLibrary().empty() && !ggml_backend_load(wanted.c_str())) {
    return NewError(PB_IO, wanted.string() + ": cannot be loaded: " + TakeLogLine());
  }
  *path = loaded = wanted.string();
  return nullptr;
}

std::string CpuLibraryName(const std::string& path) {
  const std::string name = fs::path(path).stem().string();
  if (name.rfind(kCpuPrefix, 0) == 0) return name.substr(sizeof(kCpuPrefix) - 1);
  return name.rfind("libggml", 0) == 0 ? kLinked : name;
}

std::string TakeLogLine() {
  std::lock_guard lock(log_mutex);
  return std::exchange(log_line, "");
}

}  // namespace pb::llama_cpp

extern "C" PB_EXPORT const pb_engine_api* pb_engine_get(void) { return &pb::llama_cpp::kApi; }
