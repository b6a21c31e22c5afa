/* The engine ABI: what a plugin offers so that paritybit can run, observe, steer and question an inference engine.
 *
 * A plugin is a shared library that exports one symbol, pb_engine_get, and nothing else that matters. It is loaded into a
 * child process of its own (paritybit-host), so it may print, abort or leak without harming the comparison. Rules:
 *   - every struct begins with its size in bytes as the writer compiled it; a reader uses no field beyond that size;
 *   - a host refuses another major version; a plugin may be older or newer in the minor version;
 *   - functions that can fail return NULL for success or an error object that the caller destroys;
 *   - strings are UTF-8 and NUL-terminated unless a length stands beside them; what a call hands to a callback lives until
 *     that callback returns;
 *   - all calls to one engine come from one thread; callbacks run on the thread that called.
 * C11-clean.
 */
#ifndef PARITYBIT_ABI_ENGINE_H_
#define PARITYBIT_ABI_ENGINE_H_

#include "abi/vocabulary.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PB_ABI_MAJOR 3
#define PB_ABI_MINOR 1

typedef struct pb_error pb_error;     /* plugin-owned; see error_* below */
typedef struct pb_engine pb_engine;   /* the engine, configured */
typedef struct pb_model pb_model;     /* a model file, opened and understood */
typedef struct pb_session pb_session; /* a KV cache with its settings */

typedef enum pb_code {
  PB_OK = 0,
  PB_INVALID_ARGUMENT = 1, /* a call or a setting that makes no sense */
  PB_UNSUPPORTED = 2,      /* understood, and not offered by this engine: message names it */
  PB_MALFORMED = 3,        /* the model file is damaged: message has the byte offset */
  PB_UNDECLARED =
      4, /* the model does not declare something that decides the result: message names the setting */
  PB_IO = 5,
  PB_OUT_OF_MEMORY = 6,
  PB_CANCELLED = 7, /* a callback asked to stop */
  PB_INTERNAL = 8
} pb_code;

/* Optional abilities. */
#define PB_CAP_TOKENIZE (1ull << 0)  /* tokenize, detokenize */
#define PB_CAP_OUTPUTS (1ull << 1)   /* taps see outputs */
#define PB_CAP_INPUTS (1ull << 2)    /* taps see inputs before the op runs */
#define PB_CAP_OVERWRITE (1ull << 3) /* taps may overwrite outputs */
#define PB_CAP_NOISE \
  (1ull << 4) /* setting noise.seed: random rounding of every vocabulary point but the logits */
#define PB_CAP_REPLAY (1ull << 5) /* replay of one op on given inputs */
#define PB_CAP_VARY (1ull << 6)   /* replay under a named variation */
#define PB_CAP_UNITS (1ull << 7)  /* replay tells the rounding unit of each output value (since 0.2) */
#define PB_CAP_CODES (1ull << 8)  /* replay of a product tells the codes of its input (since 0.3) */
#define PB_CAP_DECODE (1ull << 9) /* decode: weights as they stand in a model file (since 3.0) */

typedef struct pb_setting {
  const char*
      key; /* ffn.activation act.quant kv.type threads ...: docs/plugin_abi.md has them all */
  const char* value;
} pb_setting;

/* One thing an engine says of itself or of a model as it understood it.
 * origin: "metadata" (the model file), "config.json", "set" (a setting), "default", "observed" (what it executes). */
typedef struct pb_fact {
  size_t struct_size;
  const char* key;
  const char* value;
  const char* origin;
} pb_fact;
typedef void (*pb_fact_fn)(void* ctx, const pb_fact* fact);

typedef enum pb_dtype { PB_F32 = 0, PB_I8 = 1, PB_I32 = 2 } pb_dtype;

/* Row-major, contiguous; shape[0] is the slowest axis (token rows), unused axes are 1. */
typedef struct pb_tensor {
  size_t struct_size;
  int32_t dtype; /* pb_dtype */
  int32_t n_dims;
  int64_t shape[4];
  void* data;
  const char* name; /* of an input: the stage or native tensor it comes from; may be NULL */
} pb_tensor;

/* One op's output, where it stands. */
typedef struct pb_point {
  size_t struct_size;
  int32_t stage;          /* pb_stage; PB_STAGE_UNMAPPED where the adapter's table does not know it */
  int32_t layer;          /* -1 outside the layers */
  int32_t first_position; /* of row 0 of the tensor, in the sequence */
  int32_t occurrence;     /* of this native name and op in one pass, from 0 */
  const char* native_name;
  const char* op;
} pb_point;

/* Bits that want() returns. */
#define PB_WANT_OUTPUT 1
#define PB_WANT_INPUTS 2
/* What output() returns. */
#define PB_CONTINUE 0
#define PB_OVERWRITTEN 1 /* the callback changed tensor->data in place, in canonical form */
#define PB_STOP 2        /* give up this evaluation: eval returns PB_CANCELLED */

typedef struct pb_tap {
  size_t struct_size;
  void* ctx;
  uint32_t (*want)(void* ctx, const pb_point* point); /* asked before the op runs; must be cheap */
  void (*inputs)(void* ctx, const pb_point* point, const pb_tensor* inputs, size_t n_inputs);
  int (*output)(void* ctx, const pb_point* point, pb_tensor* output);
} pb_tap;

/* Receives logits rows in rising order of position: n_rows x n_vocab. Nonzero stops the evaluation. */
typedef int (*pb_logits_fn)(void* ctx, int32_t first_position, const float* rows, int64_t n_rows,
                            int64_t n_vocab);

typedef struct pb_eval {
  size_t struct_size;
  const int32_t* tokens;
  int32_t n_tokens;
  int32_t first_position; /* must equal the number of positions the session holds */
  int32_t logits_from;    /* rows before this index (0-based within tokens) need no logits; n_tokens = none */
  pb_logits_fn logits;
  void* logits_ctx;
  const pb_tap* tap; /* NULL: none */
} pb_eval;

/* How a session shows a stage. */
typedef enum pb_visibility {
  PB_ABSENT = 0,      /* the architecture has no such op */
  PB_OBSERVED = 1,    /* taps see it */
  PB_UNOBSERVABLE = 2 /* the engine computes it inside another op: reason says which */
} pb_visibility;
typedef void (*pb_stage_fn)(void* ctx, int32_t stage, int32_t visibility, const char* reason);
/* A layer that shows a stage, -1 of a stage that is of none. apart: nonzero where what it reads passes through ops that no stage
 * shows, so that its own error cannot be told. */
typedef void (*pb_layer_fn)(void* ctx, int32_t stage, int32_t layer, int32_t apart);

/* What a product makes of its input rows before it multiplies (since 0.3): value k of a row is codes[k] * scales[k / block]; the last
 * block of a row may be shorter. n_blocks = n_columns / block, rounded up. */
typedef struct pb_codes {
  size_t struct_size;
  const char* scheme; /* as act.quant names it: q8_0 q8_1 q8_k bitnet */
  const char*
      maker; /* how they were made: "recomputed with the library's own type traits (libggml-cpu-haswell.so)" */
  int64_t n_rows, n_columns, block, n_outputs;
  const int8_t* codes; /* (n_rows, n_columns) */
  const float* scales; /* (n_rows, n_blocks) */
  const float*
      sums; /* (n_rows, n_blocks): what a weight's minimum is multiplied by, where the scheme stores it (q8_1); else NULL */
  const float*
      products; /* (n_rows, n_outputs): the library's scalar product of these codes with each weight row as the file holds it,
                          * without what follows (a scale beside the matrix, a bias); NULL: it cannot be had */
} pb_codes;

/* One op on given inputs, as the engine itself would compute it. Inputs stand in the order of the vocabulary's inputs
 * column; where all earlier positions count, those tensors hold rows 0 .. first_position + n - 1. */
typedef struct pb_replay {
  size_t struct_size;
  int32_t stage;
  int32_t layer;
  int32_t first_position;
  const pb_tensor* inputs;
  size_t n_inputs;
  const char* variation; /* NULL: as declared; else "key=value" (PB_CAP_VARY) */
  void (*output)(void* ctx, const pb_tensor* output);
  void* ctx;
  /* Since 0.2; NULL: not asked for. With PB_CAP_UNITS called once, after output, with a tensor of its shape: for each value what
   * float32 rounding of its terms may move it by, over the unit roundoff: sqrt(sum of squares of its partial sums), every
   * value >= 0 (docs/numerics.md, "Units"). */
  void (*units)(void* ctx, const pb_tensor* units);
  /* Since 0.3; NULL: not asked for. With PB_CAP_CODES called once, after output, for a product that quantises its input. For any other
   * op, and where the codes cannot be had, the call is PB_UNSUPPORTED and the message says why. */
  void (*codes)(void* ctx, const pb_codes* codes);
} pb_replay;

/* tokenize flags */
#define PB_ADD_SPECIAL 1   /* add BOS/EOS as the model's rules say */
#define PB_PARSE_SPECIAL 2 /* text of special tokens becomes those tokens */

typedef struct pb_engine_api {
  size_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  uint64_t capabilities; /* PB_CAP_* */

  int32_t (*error_code)(const pb_error* error); /* pb_code */
  const char* (*error_message)(const pb_error* error);
  void (*error_destroy)(pb_error* error);

  /* Settings hold for every session unless session_open overrides them. An unknown key or value is PB_INVALID_ARGUMENT or
   * PB_UNSUPPORTED with the key named, never ignored. */
  pb_error* (*create)(const pb_setting* settings, size_t n_settings, pb_engine** engine);
  void (*destroy)(pb_engine* engine);
  /* Facts: name version commit build isa threads digest.LIBRARY (sha256 of the file) path.LIBRARY cpu.libraries promise.equal_bits. */
  pb_error* (*describe)(pb_engine* engine, pb_fact_fn fact, void* ctx);

  pb_error* (*model_open)(pb_engine* engine, const char* path, pb_model** model);
  void (*model_close)(pb_model* model);
  /* Facts, as executed: architecture n_layers d_model d_ff n_heads n_kv_heads head_dim n_vocab n_ctx_train rope.pairing
   * rope.base rope.dims norm.eps ffn.activation output.tied weights (type counts) bos eos; with experts: n_experts
   * n_experts_used d_ff_expert;
   * eog (ids that end a generation: "2,7") add_bos chat_template findings (what the file leaves open or contradicts, a sentence a
   * line) unheard (keys of the model's files that it does not know, with blanks between).
   * A model that does not declare its activation still opens: ffn.activation is then "undeclared", origin "default", and sessions
   * run SiLU so that there are numbers to look at. What comes of them proves nothing, and the caller has to say so. */
  pb_error* (*model_facts)(pb_model* model, pb_fact_fn fact, void* ctx);
  /* Writes up to capacity ids and always the full count; text need not be valid UTF-8. */
  pb_error* (*tokenize)(pb_model* model, const char* text, size_t n_bytes, uint32_t flags, int32_t* ids,
                        size_t capacity, size_t* n_ids);
  /* Writes up to capacity bytes (no NUL) and always the full count. Special tokens are written as their text. */
  pb_error* (*detokenize)(pb_model* model, const int32_t* ids, size_t n_ids, char* text, size_t capacity,
                          size_t* n_bytes);

  pb_error* (*session_open)(pb_model* model, const pb_setting* settings, size_t n_settings,
                            pb_session** session);
  void (*session_close)(pb_session* session);
  /* Facts: the settings as they took effect, with origin. */
  pb_error* (*session_facts)(pb_session* session, pb_fact_fn fact, void* ctx);
  /* Calls back once for every stage of the vocabulary. */
  pb_error* (*session_stages)(pb_session* session, pb_stage_fn stage, void* ctx);
  pb_error* (*eval)(pb_session* session, const pb_eval* eval);
  /* Forgets all positions from n_keep on. */
  pb_error* (*reset)(pb_session* session, int32_t n_keep);
  pb_error* (*replay)(pb_session* session, const pb_replay* replay);
  /* Since 3.0, PB_CAP_DECODE: decodes n_values weights to float32. `blocks`: as a model file has them, whole ones; `type`: the number
   * that GGUF files have for it (ggml_type). PB_UNSUPPORTED: the engine has no decoder of this type. Of this function alone several
   * calls may run at once, on any thread. */
  pb_error* (*decode)(pb_engine* engine, int32_t type, const void* blocks, size_t n_bytes, int64_t n_values,
                      float* values);
  /* Since 3.1, may be null: calls back for each layer that shows a stage, of observed stages that some layers alone show, as in models
   * of which some layers have attention and others none, and of those that are apart in a layer. The reason in session_stages says
   * why other layers do not show it. Of a stage without a call every layer shows it, and none is apart. */
  pb_error* (*session_layers)(pb_session* session, pb_layer_fn layer, void* ctx);
} pb_engine_api;

#if defined(_WIN32)
#define PB_EXPORT __declspec(dllexport)
#else
#define PB_EXPORT __attribute__((visibility("default")))
#endif

/* The one exported symbol: returns a table that lives as long as the library is loaded. */
PB_EXPORT const pb_engine_api* pb_engine_get(void);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* PARITYBIT_ABI_ENGINE_H_ */
