/* The smallest engine: a bigram model of the bytes of any file, behind the engine ABI (docs/plugin_abi.md). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "abi/engine.h"

enum { kVocab = 256, kContext = 1 << 20 };

struct pb_error {
  pb_code code;
  char message[256];
};
struct pb_engine {
  int nothing;
};
struct pb_model {
  float logits[kVocab][kVocab]; /* row: this byte; column: the next */
};
struct pb_session {
  const pb_model* model;
  int32_t n_positions;
};

static pb_error* Fail(pb_code code, const char* what, const char* name) {
  pb_error* error = malloc(sizeof *error);
  error->code = code;
  snprintf(error->message, sizeof error->message, "%s%s", what, name);
  return error;
}
static int32_t ErrorCode(const pb_error* error) { return error->code; }
static const char* ErrorMessage(const pb_error* error) { return error->message; }
static void ErrorDestroy(pb_error* error) { free(error); }

static void State(pb_fact_fn fact, void* ctx, const char* key, const char* value) {
  pb_fact stated = {sizeof stated, key, value, "observed"};
  fact(ctx, &stated);
}

static pb_error* Create(const pb_setting* settings, size_t n_settings, pb_engine** engine) {
  if (n_settings > 0) return Fail(PB_INVALID_ARGUMENT, "unknown setting ", settings[0].key);
  *engine = calloc(1, sizeof **engine);
  return *engine ? NULL : Fail(PB_OUT_OF_MEMORY, "engine", "");
}
static void Destroy(pb_engine* engine) { free(engine); }
static pb_error* Describe(pb_engine* engine, pb_fact_fn fact, void* ctx) {
  (void)engine;
  State(fact, ctx, "name", "minimal");
  State(fact, ctx, "version", "1");
  State(fact, ctx, "threads", "1");
  return NULL;
}

static pb_error* ModelOpen(pb_engine* engine, const char* path, pb_model** model) {
  (void)engine;
  FILE* file = fopen(path, "rb");
  if (!file) return Fail(PB_IO, path, ": cannot be opened");
  pb_model* made = calloc(1, sizeof *made);
  if (!made) return fclose(file), Fail(PB_OUT_OF_MEMORY, "model", "");
  for (int last = getc(file), next; last != EOF && (next = getc(file)) != EOF; last = next)
    ++made->logits[last][next];
  int failed = ferror(file);
  fclose(file);
  if (failed) return free(made), Fail(PB_IO, path, ": cannot be read");
  for (int last = 0; last < kVocab; ++last) {
    for (int next = 0; next < kVocab; ++next) made->logits[last][next] = logf(made->logits[last][next] + 1);
  }
  *model = made;
  return NULL;
}
static void ModelClose(pb_model* model) { free(model); }
static pb_error* ModelFacts(pb_model* model, pb_fact_fn fact, void* ctx) {
  (void)model;
  State(fact, ctx, "architecture", "bigram");
  State(fact, ctx, "n_layers", "0");
  State(fact, ctx, "d_model", "256");
  State(fact, ctx, "n_vocab", "256");
  return NULL;
}

static pb_error* Tokenize(pb_model* model, const char* text, size_t n_bytes, uint32_t flags, int32_t* ids,
                          size_t capacity, size_t* n_ids) {
  (void)model, (void)flags;
  for (size_t i = 0; i < n_bytes && i < capacity; ++i) ids[i] = (unsigned char)text[i];
  *n_ids = n_bytes;
  return NULL;
}
static pb_error* Detokenize(pb_model* model, const int32_t* ids, size_t n_ids, char* text, size_t capacity,
                            size_t* n_bytes) {
  (void)model;
  for (size_t i = 0; i < n_ids; ++i) {
    if (ids[i] < 0 || ids[i] >= kVocab) return Fail(PB_INVALID_ARGUMENT, "no such token", "");
    if (i < capacity) text[i] = (char)ids[i];
  }
  *n_bytes = n_ids;
  return NULL;
}

static pb_error* SessionOpen(pb_model* model, const pb_setting* settings, size_t n_settings,
                             pb_session** session) {
  if (n_settings > 0) return Fail(PB_INVALID_ARGUMENT, "unknown setting ", settings[0].key);
  *session = calloc(1, sizeof **session);
  if (!*session) return Fail(PB_OUT_OF_MEMORY, "session", "");
  (*session)->model = model;
  return NULL;
}
static void SessionClose(pb_session* session) { free(session); }
static pb_error* SessionFacts(pb_session* session, pb_fact_fn fact, void* ctx) {
  (void)session, (void)fact, (void)ctx;
  return NULL;
}
static pb_error* SessionStages(pb_session* session, pb_stage_fn stage, void* ctx) {
  (void)session;
  for (int32_t i = 0; i < PB_STAGE_COUNT; ++i) {
    stage(ctx, i, i == PB_STAGE_LOGITS ? PB_UNOBSERVABLE : PB_ABSENT, "this engine has no taps");
  }
  return NULL;
}

static pb_error* Eval(pb_session* session, const pb_eval* eval) {
  if (eval->first_position != session->n_positions || eval->n_tokens > kContext - session->n_positions) {
    return Fail(PB_INVALID_ARGUMENT, "positions that do not follow, or beyond the context", "");
  }
  for (int32_t i = 0; i < eval->n_tokens; ++i) {
    if (eval->tokens[i] < 0 || eval->tokens[i] >= kVocab)
      return Fail(PB_INVALID_ARGUMENT, "no such token", "");
  }
  for (int32_t i = eval->logits_from; i < eval->n_tokens; ++i) {
    const float* row = session->model->logits[eval->tokens[i]];
    if (eval->logits(eval->logits_ctx, eval->first_position + i, row, 1, kVocab))
      return Fail(PB_CANCELLED, "stopped", "");
  }
  session->n_positions += eval->n_tokens;
  return NULL;
}
static pb_error* Reset(pb_session* session, int32_t n_keep) {
  session->n_positions = n_keep;
  return NULL;
}

PB_EXPORT const pb_engine_api* pb_engine_get(void) {
  static const pb_engine_api api = {sizeof api,   PB_ABI_MAJOR, PB_ABI_MINOR, PB_CAP_TOKENIZE, ErrorCode,
                                    ErrorMessage, ErrorDestroy, Create,       Destroy,         Describe,
                                    ModelOpen,    ModelClose,   ModelFacts,   Tokenize,        Detokenize,
                                    SessionOpen,  SessionClose, SessionFacts, SessionStages,   Eval,
                                    Reset,        NULL /* replay */,  NULL /* decode */,  NULL /* session_layers */};
  return &api;
}
