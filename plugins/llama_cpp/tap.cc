// The evaluation callback: which point a node is, canonical tensors out, overwrites in, random rounding, and
// the inputs of an op as it will see them.
#include <algorithm>
#include <utility>

#include "ggml-backend.h"
#include "llama_cpp/adapter.h"
#include "llama_cpp/canonical.h"

namespace pb::llama_cpp {
namespace {

uint64_t SplitMix(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

// FNV-1a: of a node's key, so that each has a stream of its own that is the same in every run.
uint64_t HashOf(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

// Random rounding: each value times 1 + r * 2^-24, r in {-1, 0, 1}, rounded to float. The stream depends on
// seed, point and position alone, so that a run can be repeated whatever came before it.
void Disturb(std::span<float> values, uint64_t seed, const pb_point& point) {
  uint64_t state = seed;
  for (const int64_t part : {point.stage, point.layer, point.first_position}) {
    state ^= static_cast<uint64_t>(part) + 1;
    state = SplitMix(&state);
  }
  constexpr double kFactors[] = {1.0 - 0x1p-24, 1.0, 1.0 + 0x1p-24};
  for (float& v : values) v = static_cast<float>(static_cast<double>(v) * kFactors[SplitMix(&state) % 3]);
}

// Whether a stage's values are rounded: logits are delivered as they are, and ids are exact.
bool IsRounded(int stage) { return stage != PB_STAGE_LOGITS && stage != PB_STAGE_EXPERT_IDS; }

// Whether a node rounds that no point shows, in a graph with such: it is disturbed too, lest its rounding be missing from the noise.
bool IsRoundedUnseen(const pb_session& s, const ggml_tensor* t) {
  return s.map.has_holes && !s.pass.rules && !MovesAlone(t->op) && t->type == GGML_TYPE_F32 && ggml_is_contiguous(t) &&
         !s.map.parts.count(s.pass.key);
}

// Ends the evaluation with an error of ours.
void Fail(Pass* pass, std::string why) {
  pass->stopped = true;
  pass->failure = std::move(why);
}

// Copies the inputs of points from the node that is about to read them.
void CaptureInputs(pb_session* s, const ggml_tensor* reader) {
  Pass& pass = s->pass;
  const auto entries = s->map.entries.find(pass.key);
  if (entries == s->map.entries.end()) return;
  for (const auto& [rule, index] : entries->second) {
    const InputRule& input = rule->inputs[index];
    const ggml_tensor* source = reader->src[input.src];
    Canonical& c = pass.inputs[{rule, index}];
    std::vector<float>& native = s->native;
    const bool ok =
        input.from_cache
            ? CacheToCanonical(source, input.cache_transposed, pass.first_position + pass.n_rows, &c)
            : ReadTensor(SkipViews(source), &native) &&
                  ToCanonical(SkipViews(source), native, pass.first_position, input.shape, &c,
                              reader->op == GGML_OP_SOFT_MAX ? reader->src[1] : nullptr);
    if (!ok) return Fail(&pass, pass.key + ": an input cannot be read");
  }
}

void DeliverInputs(Pass* pass, const PointRule& rule) {
  std::vector<pb_tensor> tensors;
  for (size_t i = 0; i < rule.inputs.size(); ++i) {
    Canonical& c = pass->inputs[{&rule, i}];
    tensors.push_back(TensorOf(&c, pb_vocabulary[rule.inputs[i].stage].name));
  }
  pass->tap->inputs(pass->tap->ctx, &pass->point, tensors.data(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) pass->inputs.erase({&rule, i});
}

// Makes the pass's point that of one of the node's rules.
void PointAt(Pass* pass, const PointRule& rule) {
  pass->point.stage = rule.stage;
  pass->point.layer = rule.layer;
  pass->point.first_position = pass->first_position;
}

// Notes which node the graph is at, and which points it is.
void Identify(pb_session* s, const ggml_tensor* t) {
  Pass& pass = s->pass;
  pass.native_name = t->name;
  pass.op = ggml_op_desc(t);
  const std::string name = KeyName(t);
  const int occurrence = pass.occurrences[name + "|" + pass.op]++;
  pass.key = NodeKey(name, pass.op, occurrence);
  const auto found = s->map.rules.find(pass.key);
  pass.rules = found == s->map.rules.end() ? nullptr : &found->second;
  pass.want.assign(pass.rules ? pass.rules->size() : 1, 0);
  pass.point = {sizeof(pb_point),         PB_STAGE_UNMAPPED, -1, pass.first_position, occurrence,
                pass.native_name.c_str(), pass.op.c_str()};
  if (pass.rules) {
    PointAt(&pass, pass.rules->front());
  } else {
    std::string base;
    SplitName(pass.native_name, &base, &pass.point.layer);
  }
}

// Asks the tap what it wants of a point, and hands over its inputs.
void AskForPoint(Pass* pass, const PointRule& rule, uint32_t* want) {
  PointAt(pass, rule);
  *want = pass->tap->want(pass->tap->ctx, &pass->point);
  if ((*want & PB_WANT_INPUTS) && !rule.inputs.empty() && pass->need_all) DeliverInputs(pass, rule);
}

bool WantsOutput(const Pass& pass) {
  return std::any_of(pass.want.begin(), pass.want.end(),
                     [](uint32_t want) { return (want & PB_WANT_OUTPUT) != 0; });
}

// Hands a point of the node to the tap and takes an overwrite back into `native`. Returns what the tap answered.
int Offer(pb_session* s, const ggml_tensor* t, const Shape& shape, std::span<float> native) {
  Pass& pass = s->pass;
  Canonical& c = s->canonical;
  // Values that are canonical as they stand are shown, and overwritten, where they are.
  const bool as_it_stands = IsAsItStands(shape);
  if (as_it_stands ? !CanonicalShape(t, native.size(), pass.first_position, shape, &c.shape)
                   : !ToCanonical(t, native, pass.first_position, shape, &c, pass.mask)) {
    Fail(&pass, pass.key + ": has another shape than the warm-up showed");
    return PB_STOP;
  }
  if (pass.rules)
    pass.point.first_position = pass.first_position + pass.n_rows - static_cast<int32_t>(c.shape[0]);
  pb_tensor tensor = TensorOf(&c, pass.native_name.c_str());
  if (as_it_stands) tensor.data = native.data();
  const int action = pass.tap->output(pass.tap->ctx, &pass.point, &tensor);
  if (action == PB_OVERWRITTEN && !as_it_stands) ToNative(t, c, pass.first_position, shape, native);
  return action;
}

// Random rounding of one point of a node, in the order of its memory.
void DisturbPoint(Pass* pass, const ggml_tensor* t, const PointRule& rule, uint64_t seed,
                  std::span<float> native) {
  if (rule.shape.columns.n == 0) return Disturb(native, seed, pass->point);
  Canonical part;
  if (!ToCanonical(t, native, pass->first_position, rule.shape, &part))
    return Fail(pass, pass->key + ": has another shape than the warm-up showed");
  Disturb(part.values, seed, pass->point);
  ToNative(t, part, pass->first_position, rule.shape, native);
}

// The points of a node that has run, one after the other, on its values. Returns whether they are to be written back.
bool HandOverPoints(pb_session* s, const ggml_tensor* t, std::span<float> native) {
  Pass& pass = s->pass;
  bool changed = false;
  for (size_t i = 0; i < pass.want.size() && !pass.stopped; ++i) {
    const PointRule* rule = pass.rules ? &(*pass.rules)[i] : nullptr;
    if (rule) PointAt(&pass, *rule);
    if (s->settings.noise_seed && rule && IsRounded(rule->stage)) {
      DisturbPoint(&pass, t, *rule, *s->settings.noise_seed, native);
      changed = true;
    } else if (s->settings.noise_seed && IsRoundedUnseen(*s, t)) {
      Disturb(native, *s->settings.noise_seed ^ HashOf(pass.key), pass.point);
      changed = true;
    }
    if (!(pass.want[i] & PB_WANT_OUTPUT) || pass.stopped) continue;
    const int action = Offer(s, t, rule ? rule->shape : Shape{}, native);
    if (action == PB_STOP) pass.stopped = true;
    changed |= action == PB_OVERWRITTEN;
  }
  return changed;
}

// Returns whether to go on.
bool HandOverNow(pb_session* s, ggml_tensor* t) {
  Pass& pass = s->pass;
  const bool noisy = s->settings.noise_seed &&
                     (pass.rules ? IsRounded(pass.rules->front().stage) : IsRoundedUnseen(*s, t));
  if (!noisy && !WantsOutput(pass)) return true;
  const std::span<float> in_place = InPlace(t);
  if (in_place.empty() && !ReadTensor(t, &s->native)) {
    Fail(&pass, pass.key + ": cannot be read");
    return false;
  }
  const bool changed = HandOverPoints(s, t, in_place.empty() ? std::span(s->native) : in_place);
  if (pass.stopped) return false;
  if (!changed || !in_place.empty()) return true;
  if (!ggml_is_contiguous(t)) {
    Fail(&pass, pass.key + ": is not contiguous, so it cannot be overwritten");
    return false;
  }
  WriteTensor(t, s->native);
  return true;
}

// The node has run. Returns whether to go on.
bool HandOver(pb_session* s, ggml_tensor* t) {
  Pass& pass = s->pass;
  if (pass.stopped) return false;
  const bool scores = pass.rules && pass.rules->front().shape.form == Form::kScores;
  if (!scores) return HandOverNow(s, t);
  pass.scores = {t, pass.rules, pass.native_name, pass.op, pass.key, pass.want, pass.point.occurrence};
  return true;
}

// Scores have run, and their softmax is about to: now their mask can be read too.
void HandOverScores(pb_session* s, const ggml_tensor* mask) {
  Pass& pass = s->pass;
  const Pass::Scores scores = std::exchange(pass.scores, {});
  pass.rules = scores.rules, pass.want = scores.want, pass.key = scores.key;
  pass.native_name = scores.native_name, pass.op = scores.op;
  pass.point.native_name = pass.native_name.c_str(), pass.point.op = pass.op.c_str();
  pass.point.occurrence = scores.occurrence;
  pass.mask = mask;
  HandOverNow(s, scores.tensor);
  pass.mask = nullptr;
}

// The callback's question. Returns whether the graph must stop behind this node.
bool Ask(pb_session* s, const ggml_tensor* t) {
  Pass& pass = s->pass;
  if (!pass.tap && !s->settings.noise_seed) return false;
  if (pass.stopped) return true;
  if (pass.scores.tensor && t->op == GGML_OP_SOFT_MAX && SkipViews(t->src[0]) == pass.scores.tensor)
    HandOverScores(s, t->src[1]);
  if (pass.stopped) return true;
  Identify(s, t);
  if (pass.tap && s->map.caches.count(t->view_src) && !CellsInOrder(t, pass.first_position, pass.n_rows)) {
    Fail(&pass, "the KV cache's cells are not in the order of positions");
    return true;
  }
  if (pass.need_all) CaptureInputs(s, t);
  if (pass.stopped) return true;
  const bool own =
      !IsView(t) && t->type == GGML_TYPE_F32 && ggml_nelements(t) > 0 && ggml_is_contiguous(t) && !s->map.parts.count(pass.key);
  if (pass.tap && pass.rules) {
    for (size_t i = 0; i < pass.rules->size(); ++i) AskForPoint(&pass, (*pass.rules)[i], &pass.want[i]);
  } else if (pass.tap && own) {
    pass.want[0] = pass.tap->want(pass.tap->ctx, &pass.point);
  }
  // What stands between scores and their softmax may compute its mask, which must have run when the softmax is asked about.
  return pass.need_all || WantsOutput(pass) || (s->settings.noise_seed && (pass.rules || IsRoundedUnseen(*s, t))) || pass.scores.tensor;
}

}  // namespace

pb_tensor TensorOf(Canonical* c, const char* name) {
  pb_tensor out = {};
  out.struct_size = sizeof out;
  out.dtype = PB_F32;
  out.n_dims = static_cast<int32_t>(c->shape.size());
  for (size_t i = 0; i < 4; ++i) out.shape[i] = i < c->shape.size() ? c->shape[i] : 1;
  out.data = c->values.data();
  out.name = name;
  return out;
}

bool EvalCallback(ggml_tensor* tensor, bool ask, void* user) {
  auto* session = static_cast<pb_session*>(user);
  if (session->recorder) {
    if (ask) session->recorder->Add(tensor);
    return !ask;
  }
  return ask ? Ask(session, tensor) : HandOver(session, tensor);
}

}  // namespace pb::llama_cpp
