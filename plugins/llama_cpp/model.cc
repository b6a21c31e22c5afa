// A model as llama.cpp understood it: facts from its interface, its file reader and a warm-up evaluation; and
// its tokenizer.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <memory>

#include "llama_cpp/adapter.h"

namespace pb::llama_cpp {
namespace {

std::string Meta(const llama_model* model, const std::string& key) {
  std::string value(1 << 16, '\0');
  const int32_t n = llama_model_meta_val_str(model, key.c_str(), value.data(), value.size());
  value.resize(n < 0 ? 0 : std::min<size_t>(n, value.size() - 1));
  return value;
}

// The shortest text that reads back as the same float.
std::string Number(float value) {
  char text[64];
  const auto format = value >= 1 ? std::chars_format::fixed : std::chars_format::general;
  return {text, std::to_chars(text, text + sizeof text, value, format).ptr};
}


using TypeCounts = std::map<ggml_type, std::pair<size_t, int>>;  // bytes, tensors
void CountTypes(const File& file, TypeCounts* counts) {
  for (ggml_tensor* t = ggml_get_first_tensor(file.tensors.get()); t;
       t = ggml_get_next_tensor(file.tensors.get(), t)) {
    auto& [bytes, tensors] = (*counts)[t->type];
    bytes += ggml_nbytes(t);
    ++tensors;
  }
}

// "TQ2_0 x42, F16 x1": the number of tensors of each type, the type with the most bytes first.
std::string WeightTypes(const TypeCounts& counts) {
  std::vector<std::pair<ggml_type, std::pair<size_t, int>>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second.first > b.second.first; });
  std::string text;
  for (const auto& [type, sums] : sorted) {
    std::string name = ggml_type_name(type);
    for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    text += (text.empty() ? "" : ", ") + name + " x" + std::to_string(sums.second);
  }
  return text;
}

// Whether llama.cpp's own words say what it does not offer: an architecture, a type of tensor, a tokeniser. Anything else that keeps
// it from loading a file stays a failure.
bool NamesWhatIsMissing(const std::string& why) {
  static constexpr const char* kSaid[] = {"unknown model architecture", "unknown tokenizer",
                                          "unknown pre-tokenizer type", "invalid ggml type",
                                          "wrong number of tensors",  // more than the architecture's graph reads
                                          "not a multiple of block size (0)"};  // a type that it has no code for
  return std::any_of(std::begin(kSaid), std::end(kSaid),
                     [&](const char* said) { return why.find(said) != why.npos; });
}

// What the file holds, read by the reference's own reader: number of tensors of each type, and whether there
// is an output matrix of its own.
pb_error* FileFacts(const char* path, pb_model* m) {
  const File file(path);
  if (!file.header) {
    const std::string why = TakeLogLine();
    return NewError(NamesWhatIsMissing(why) ? PB_UNSUPPORTED : PB_MALFORMED,
                    std::string(path) + ": llama.cpp cannot read it: " + why);
  }
  TypeCounts counts;
  bool tied = true;
  for (const std::string& part : ModelFiles(path)) {
    const File of(part);
    if (!of.header) continue;  // who loads the model says why
    CountTypes(of, &counts);
    tied = tied && gguf_find_tensor(of.header.get(), "output.weight") < 0;
    for (int64_t i = 0; i < gguf_get_n_tensors(of.header.get()); ++i) {
      const std::string name = gguf_get_tensor_name(of.header.get(), i);
      if (name.find("norm.weight") != name.npos) m->dims.norms.insert(name);
    }
  }
  m->facts.push_back({"weights", WeightTypes(counts), "metadata"});
  m->has_weights = gguf_get_n_tensors(file.header.get()) > 0;
  const int64_t architecture = gguf_find_key(file.header.get(), "general.architecture");
  if (architecture >= 0 && gguf_get_kv_type(file.header.get(), architecture) == GGUF_TYPE_STRING)
    m->architecture = gguf_get_val_str(file.header.get(), architecture);
  m->facts.push_back({"output.tied", tied ? "yes" : "no", "metadata"});
  return nullptr;
}

// Heads of a layer that attends: llama.cpp tells those of the first layer, which in some models has none; their files list them.
int64_t HeadsOf(const pb_model& m, const std::string& key, int64_t told) {
  if (told > 0) return told;
  const File file(m.path);
  const int64_t at = file.header ? gguf_find_key(file.header.get(), key.c_str()) : -1;
  if (at < 0 || gguf_get_kv_type(file.header.get(), at) != GGUF_TYPE_ARRAY) return told;
  const gguf_type type = gguf_get_arr_type(file.header.get(), at);
  if (type != GGUF_TYPE_INT32 && type != GGUF_TYPE_UINT32) return told;
  const auto* heads = static_cast<const int32_t*>(gguf_get_arr_data(file.header.get(), at));
  const size_t n = gguf_get_arr_n(file.header.get(), at);
  return n > 0 ? *std::max_element(heads, heads + n) : told;
}

void AddDims(pb_model* m) {
  const auto add = [&](const char* key, const std::string& value) {
    m->facts.push_back({key, value, "metadata"});
  };
  const std::string arch = Meta(m->model, "general.architecture");
  add("architecture", arch);
  add("n_vocab", std::to_string(m->n_vocab));
  if (!m->has_weights) return;  // llama.cpp aborts when asked for the heads of such a file
  const std::string key_length = Meta(m->model, arch + ".attention.key_length");
  Dims& d = m->dims;
  d.n_layers = llama_model_n_layer(m->model);
  d.d_model = llama_model_n_embd(m->model);
  d.n_heads = HeadsOf(*m, arch + ".attention.head_count", llama_model_n_head(m->model));
  d.n_kv_heads = HeadsOf(*m, arch + ".attention.head_count_kv", llama_model_n_head_kv(m->model));
  d.head_dim = !key_length.empty() ? std::atoll(key_length.c_str())
               : d.n_heads > 0     ? d.d_model / d.n_heads
                                   : 0;
  add("n_layers", std::to_string(d.n_layers));
  add("d_model", std::to_string(d.d_model));
  // Of one width for all layers; 0 stands where a model has none.
  for (const char* key : {".expert_shared_feed_forward_length", ".feed_forward_length"})
    if (const int64_t width = std::atoll(Meta(m->model, arch + key).c_str()); width > 0) {
      add("d_ff", std::to_string(width));
      break;
    }
  add("n_heads", std::to_string(d.n_heads));
  add("n_kv_heads", std::to_string(d.n_kv_heads));
  add("head_dim", std::to_string(d.head_dim));
  add("n_ctx_train", std::to_string(llama_model_n_ctx_train(m->model)));
}

void AddTokens(pb_model* m) {
  const auto id = [](llama_token token) { return token < 0 ? std::string("none") : std::to_string(token); };
  const char* chat = llama_model_chat_template(m->model, nullptr);
  m->facts.push_back({"bos", id(llama_vocab_bos(m->vocab)), "metadata"});
  m->facts.push_back({"eos", id(llama_vocab_eos(m->vocab)), "metadata"});
  std::string ends;  // ids that end a generation
  for (llama_token token = 0; token < m->n_vocab; ++token)
    if (llama_vocab_is_eog(m->vocab, token)) ends += (ends.empty() ? "" : ",") + std::to_string(token);
  m->facts.push_back({"eog", ends, "metadata"});
  m->facts.push_back({"add_bos", llama_vocab_get_add_bos(m->vocab) ? "yes" : "no", "observed"});
  m->facts.push_back({"chat_template", chat ? chat : "", "metadata"});
}

// What one token's graph showed: the values that the ops were really given.
pb_error* AddObserved(pb_model* m) {
  pb_session* session = nullptr;
  const pb_setting small = {"n_ctx", "256"};
  if (pb_error* error = SessionOpen(m, &small, 1, &session)) return error;
  const Observed seen = session->map.observed;
  SessionClose(session);
  const auto add = [&](const char* key, const std::string& value) {
    m->facts.push_back({key, value, "observed"});
  };
  add("ffn.activation", seen.activation.empty() ? "unknown" : seen.activation);
  if (!seen.rope_pairing.empty()) {
    add("rope.pairing", seen.rope_pairing);
    add("rope.base", Number(seen.rope_base));
    add("rope.scale", Number(seen.rope_scale));
    if (seen.local_rope_base != seen.rope_base) add("rope.base.local", Number(seen.local_rope_base));
    add("rope.dims", std::to_string(seen.rope_dims));
  }
  if (seen.norms_rows) add("norms.rows", "yes");
  if (seen.n_experts > 0) {
    add("n_experts", std::to_string(seen.n_experts));
    add("n_experts_used", std::to_string(seen.n_experts_used));
    add("d_ff_expert", std::to_string(seen.d_ff_expert));
  }
  if (seen.norm_eps > 0) add("norm.eps", Number(seen.norm_eps));
  return nullptr;
}

// Values that the user puts in the place of the file's, as llama.cpp takes them; the last one is empty.
std::vector<llama_model_kv_override> Overrides(const Settings& settings, const std::string& architecture) {
  std::vector<llama_model_kv_override> overrides;
  for (const auto& [key, value] : settings.declared) {
    llama_model_kv_override& o = overrides.emplace_back();
    o.tag = LLAMA_KV_OVERRIDE_TYPE_FLOAT;
    std::snprintf(o.key, sizeof o.key, "%s.%s", architecture.c_str(), key.c_str());
    o.val_f64 = value;
  }
  overrides.emplace_back().key[0] = 0;
  return overrides;
}

pb_error* Open(pb_engine* engine, const char* path, std::unique_ptr<pb_model>* out) {
  auto made = std::make_unique<pb_model>();
  made->engine = engine, made->path = path;
  TakeLogLine();
  if (FILE* file = std::fopen(path, "rb")) {
    std::fclose(file);
  } else {
    return NewError(PB_IO, std::string(path) + ": cannot be opened");
  }
  if (pb_error* error = FileFacts(path, made.get())) return error;
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = 0;
  params.vocab_only = !made->has_weights;
  const std::vector<llama_model_kv_override> overrides = Overrides(engine->settings, made->architecture);
  params.kv_overrides = overrides.data();
  made->model = llama_model_load_from_file(path, params);
  if (!made->model) {
    const std::string why = TakeLogLine();
    return NewError(NamesWhatIsMissing(why) ? PB_UNSUPPORTED : PB_INTERNAL,
                    std::string(path) + ": llama.cpp refuses it: " + why);
  }
  made->vocab = llama_model_get_vocab(made->model);
  made->n_vocab = llama_vocab_n_tokens(made->vocab);
  *out = std::move(made);
  AddDims(out->get());
  AddTokens(out->get());
  return params.vocab_only ? nullptr : AddObserved(out->get());
}

}  // namespace

File::File(const std::string& path) {
  ggml_context* described = nullptr;
  header.reset(gguf_init_from_file(path.c_str(), {true, &described}));
  tensors.reset(described);
}

std::vector<std::string> ModelFiles(const std::string& path) {
  const File file(path);
  const gguf_context* first = file.header.get();
  const int64_t key = first ? gguf_find_key(first, "split.count") : -1;
  const int count =
      key >= 0 && gguf_get_kv_type(first, key) == GGUF_TYPE_UINT16 ? gguf_get_val_u16(first, key) : 1;
  std::string prefix(path.size() + 1, '\0');
  const int length = llama_split_prefix(prefix.data(), prefix.size(), path.c_str(), 0, count);
  if (count < 2 || length <= 0) return {path};
  prefix.resize(static_cast<size_t>(length));
  std::vector<std::string> files;
  for (int i = 0; i < count; ++i) {
    std::string name(path.size() + 1, '\0');
    name.resize(static_cast<size_t>(llama_split_path(name.data(), name.size(), prefix.c_str(), i, count)));
    files.push_back(std::move(name));
  }
  return files;
}

pb_error* ModelOpen(pb_engine* engine, const char* path, pb_model** model) {
  return Guarded([&]() -> pb_error* {
    *model = nullptr;
    std::unique_ptr<pb_model> made;
    pb_error* error = Open(engine, path, &made);
    if (error) {
      ModelClose(made.release());
      return error;
    }
    *model = made.release();
    return nullptr;
  });
}

void ModelClose(pb_model* model) {
  if (!model) return;
  if (model->model) llama_model_free(model->model);
  delete model;
}

pb_error* ModelFacts(pb_model* model, pb_fact_fn fact, void* ctx) {
  return Guarded([&]() -> pb_error* {
    SendFacts(model->facts, fact, ctx);
    return nullptr;
  });
}

pb_error* Tokenize(pb_model* model, const char* text, size_t n_bytes, uint32_t flags, int32_t* ids,
                   size_t capacity, size_t* n_ids) {
  return Guarded([&]() -> pb_error* {
    if (n_bytes > INT32_MAX / 2) return NewError(PB_INVALID_ARGUMENT, "text longer than 1 GiB");
    std::vector<llama_token> tokens(n_bytes + 8);
    const auto call = [&] {
      return llama_tokenize(model->vocab, text, static_cast<int32_t>(n_bytes), tokens.data(),
                            static_cast<int32_t>(tokens.size()), (flags & PB_ADD_SPECIAL) != 0,
                            (flags & PB_PARSE_SPECIAL) != 0);
    };
    int32_t n = call();
    if (n == INT32_MIN)
      return NewError(PB_INVALID_ARGUMENT, "the text has more tokens than llama.cpp can count");
    if (n < 0) tokens.resize(-n), n = call();
    if (n < 0) return NewError(PB_INTERNAL, "llama_tokenize contradicts itself");
    *n_ids = static_cast<size_t>(n);
    std::copy_n(tokens.begin(), std::min(capacity, *n_ids), ids);
    return nullptr;
  });
}

pb_error* Detokenize(pb_model* model, const int32_t* ids, size_t n_ids, char* text, size_t capacity,
                     size_t* n_bytes) {
  return Guarded([&]() -> pb_error* {
    std::string out, piece(64, '\0');
    for (size_t i = 0; i < n_ids; ++i) {
      if (ids[i] < 0 || ids[i] >= model->n_vocab) {
        return NewError(PB_INVALID_ARGUMENT, "token " + std::to_string(ids[i]) + " at " + std::to_string(i) +
                                                 " is outside the vocabulary of " +
                                                 std::to_string(model->n_vocab));
      }
      const auto call = [&] {
        return llama_token_to_piece(model->vocab, ids[i], piece.data(), static_cast<int32_t>(piece.size()), 0,
                                    true);
      };
      int32_t n = call();
      if (n < 0) piece.resize(-n), n = call();
      if (n > 0) out.append(piece, 0, n);
    }
    *n_bytes = out.size();
    std::copy_n(out.begin(), std::min(capacity, out.size()), text);
    return nullptr;
  });
}

}  // namespace pb::llama_cpp
