// An engine that is right but for one defect: the native plugin, wrapped through the ABI, with one
// op of it computed wrongly. Its points are honest: they show what it computes with, so a
// comparison can place the defect (docs/self_check.md).
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <random>

#include "base/random.h"
#include "plugins/mutant/catalogue.h"
#include "plugins/mutant/draw.h"
#include "plugins/support/adapter.h"

namespace pb::mutant {
namespace {

constexpr int32_t kEveryLayer = -2;

// What a defect may depend on.
struct Evaluation {
  int64_t n_tokens, first_position;
  int64_t threads;
  bool fused;
};
// In which evaluations a defect is: mutant.when. Some take a number: "from_batch:32".
struct When {
  std::string_view name;
  bool numbered;
  bool (*holds)(const Evaluation& e, int64_t n);
};
constexpr When kWhen[] = {
    {"always", false, [](const Evaluation&, int64_t) { return true; }},
    {"prefill", false, [](const Evaluation& e, int64_t) { return e.n_tokens > 1; }},
    {"decode", false, [](const Evaluation& e, int64_t) { return e.n_tokens == 1; }},
    {"few_rows", false, [](const Evaluation& e, int64_t) { return e.n_tokens == 2 || e.n_tokens == 3; }},
    {"many_rows", false, [](const Evaluation& e, int64_t) { return e.n_tokens >= 32; }},
    {"odd_rows", false, [](const Evaluation& e, int64_t) { return e.n_tokens > 4 && e.n_tokens % 4 != 0; }},
    {"past_32", false, [](const Evaluation& e, int64_t) { return e.first_position + e.n_tokens > 32; }},
    {"past_512", false, [](const Evaluation& e, int64_t) { return e.first_position + e.n_tokens > 512; }},
    {"two_threads", false, [](const Evaluation& e, int64_t) { return e.threads >= 2; }},
    {"flash", false, [](const Evaluation& e, int64_t) { return e.fused; }},
    {"from_batch", true, [](const Evaluation& e, int64_t n) { return e.n_tokens >= n; }},
    {"up_to_batch", true, [](const Evaluation& e, int64_t n) { return e.n_tokens <= n; }},
    {"odd_batch", true, [](const Evaluation& e, int64_t n) { return e.n_tokens % n != 0; }},
    // In the rows of these positions alone.
    {"from_position", true, [](const Evaluation& e, int64_t n) { return e.first_position + e.n_tokens > n; }},
    // In some rows, others each time.
    {"not_repeatable", false, [](const Evaluation&, int64_t) { return true; }},
};

// What to do wrong and where.
struct Plan {
  const Defect* defect = nullptr;     // none: the wrapped engine as it is
  int32_t stage = PB_STAGE_UNMAPPED;  // of a benign change may be unmapped: all that it applies to
  int32_t layer = kEveryLayer;
  std::optional<Fault> fault;  // in the place of a defect
  const When* when = kWhen;
  int64_t when_number = 1;
  int64_t n_drawn = 0;  // mutant.draw: faults that a model's facts tell
  int64_t threads = 1;
  uint64_t seed = 1;
  bool fused = false;  // attn.flash=on: attention shows as one op
  // mutant.act_quant: how products round, where the engine does not know that of itself and says
  // "ggml".
  std::string act_quant;
  bool f16_sums = false;  // mutant.sums=f16: products of F16 weights keep their sums in f16

  // Whether it changes an op at all.
  bool Changes() const { return fused || f16_sums || fault || (defect && !defect->at.empty()); }
  bool IsBenign() const { return defect && std::string_view(defect->kind).starts_with("benign"); }
  std::string WhenText() const {
    return when->numbered ? fmt::format("{}:{}", when->name, when_number) : std::string(when->name);
  }
  bool Hits(int32_t at_stage, int32_t at_layer, int64_t n_tokens, int64_t first_position) const {
    if (at_stage < 0 || !when->holds({n_tokens, first_position, threads, fused}, when_number)) return false;
    const auto s = static_cast<pb_stage>(at_stage);
    if (f16_sums)
      return stages::kProducts.Contains(s) && (stage < 0 || at_stage == stage) &&
             (layer == kEveryLayer || at_layer == layer);
    if (fault)
      return at_stage == stage && (layer == kEveryLayer || at_layer == layer || !pb_vocabulary[s].per_layer);
    if (!defect || defect->at.empty()) return false;
    const bool here = layer == kEveryLayer || at_layer == layer || !pb_vocabulary[s].per_layer;
    if (!here) return false;
    if (stage < 0) return defect->at.Contains(s);
    return at_stage == stage || Carries(*defect, s);
  }
};

const pb_engine_api* OpenNative(std::string* error) {
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void*>(&pb_engine_get), &info) || !info.dli_fname)
    return *error = "the mutant does not know where it lies", nullptr;
  const std::filesystem::path path = std::filesystem::path(info.dli_fname).parent_path() / "native.so";
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return *error = dlerror(), nullptr;
  auto get = reinterpret_cast<const pb_engine_api* (*)()>(dlsym(library, "pb_engine_get"));
  return get ? get() : (*error = path.string() + ": exports no pb_engine_get", nullptr);
}

Code CodeOf(int32_t abi) {
  switch (abi) {
    case PB_INVALID_ARGUMENT:
      return Code::kUsage;
    case PB_UNSUPPORTED:
      return Code::kUnsupported;
    case PB_MALFORMED:
      return Code::kMalformed;
    case PB_UNDECLARED:
      return Code::kUndeclared;
    case PB_IO:
      return Code::kIo;
    case PB_CANCELLED:
      return Code::kInterrupted;
    default:
      return Code::kInternal;
  }
}

Status FromAbi(const pb_engine_api& api, pb_error* error) {
  if (!error) return {};
  Error ours{CodeOf(api.error_code(error)), api.error_message(error)};
  api.error_destroy(error);
  return ours;
}

// Facts of the wrapped engine, kept.
struct KeptFacts {
  struct Fact {
    std::string key, value, origin;
  };
  std::vector<Fact> facts;
  static void Take(void* self, const pb_fact* f) {
    static_cast<KeptFacts*>(self)->facts.push_back({f->key, f->value, f->origin});
  }
  std::string Text(std::string_view key) const {
    for (const Fact& f : facts)
      if (f.key == key) return f.value;
    return "";
  }
};

Result<int64_t> Number(std::string_view key, std::string_view text) {
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > 1 << 30)
    return MakeError(Code::kUsage, "{}={}: a whole number is expected", key, text);
  return value;
}

Status ReadWhen(std::string_view text, Plan* plan) {
  const size_t mark = text.find(':');
  plan->when = std::ranges::find(kWhen, text.substr(0, mark), &When::name);
  const bool numbered = mark != std::string_view::npos;
  if (plan->when == std::end(kWhen) || plan->when->numbered != numbered) {
    std::vector<std::string> names;
    for (const When& when : kWhen) names.push_back(fmt::format("{}{}", when.name, when.numbered ? ":N" : ""));
    return MakeError(Code::kUsage, "mutant.when={}: offered are {}", text, fmt::join(names, ", "));
  }
  if (!numbered) return {};
  PB_ASSIGN(plan->when_number, Number("mutant.when", text.substr(mark + 1)));
  if (plan->when_number < 1) return MakeError(Code::kUsage, "mutant.when={}: its number is 1 or more", text);
  return {};
}

// Takes what is the mutant's own; the rest goes to the wrapped engine.
Status Apply(const plugin::Settings& settings, Plan* plan, plugin::Settings* rest) {
  for (const auto& [key, value] : settings) {
    if (key == "mutant.act_quant") {
      plan->act_quant = value;
      rest->emplace_back("act.quant", value);
      continue;
    }
    if (key == "mutant.sums") {
      if (value != "f16" && value != "f32")
        return MakeError(Code::kUsage, "mutant.sums={}: f16 and f32 are offered", value);
      plan->f16_sums = value == "f16";
    } else if (key == "mutant.defect") {
      plan->defect = FindDefect(value);
      if (!plan->defect && value != "none")
        return MakeError(
            Code::kUsage,
            "mutant.defect={}: there is none of this name; the facts defect.NAME of a model opened "
            "without one list them",
            value);
    } else if (key == "mutant.stage") {
      plan->stage = stages::Find(value);
      if (plan->stage == PB_STAGE_UNMAPPED)
        return MakeError(Code::kUsage, "mutant.stage={}: no such stage", value);
    } else if (key == "mutant.layer") {
      PB_ASSIGN(int64_t layer, Number(key, value));
      plan->layer = static_cast<int32_t>(layer);
    } else if (key == "mutant.when") {
      PB_TRY(ReadWhen(value, plan));
    } else if (key == "mutant.fault") {
      PB_ASSIGN(plan->fault, ParseFault(value));
    } else if (key == "mutant.draw") {
      constexpr int64_t kMost = 100000;
      PB_ASSIGN(plan->n_drawn, Number(key, value));
      if (plan->n_drawn > kMost)
        return MakeError(Code::kUsage, "mutant.draw={}: at most {} faults are drawn", value, kMost);
    } else if (key == "mutant.seed") {
      PB_ASSIGN(int64_t seed, Number(key, value));
      plan->seed = static_cast<uint64_t>(seed);
    } else if (key == "attn.flash") {
      if (value != "on" && value != "off")
        return MakeError(Code::kUsage, "attn.flash={}: on and off are offered", value);
      plan->fused = value == "on";
    } else {
      if (key == "threads") {
        PB_ASSIGN(plan->threads, Number(key, value));
      }
      rest->emplace_back(key, value);
    }
  }
  return {};
}

std::vector<pb_setting> ToAbi(const plugin::Settings& settings) {
  std::vector<pb_setting> out;
  for (const auto& [key, value] : settings) out.push_back({key.c_str(), value.c_str()});
  return out;
}

// A tensor as the ABI hands it over, copied.
Tensor Copy(const pb_tensor& t) {
  Tensor copy;
  int64_t n = 1;
  for (int i = 0; i < std::max(t.n_dims, 1); i++) copy.shape.push_back(t.shape[i]), n *= t.shape[i];
  const float* from = static_cast<const float*>(t.data);
  copy.values.assign(from, from + n);
  return copy;
}

class MutantSession : public plugin::Session {
 public:
  MutantSession(const pb_engine_api& api, pb_session* session, std::shared_ptr<const pb::Model> model,
                const Plan& plan)
      : api_(api), session_(session), model_(std::move(model)), plan_(plan) {
    KeptFacts facts;
    if (pb_error* error = api_.session_facts(session_, KeptFacts::Take, &facts)) api_.error_destroy(error);
    op_.model = model_.get(), op_.seed = plan.seed;
    if (auto quant = ActQuant::Parse(facts.Text("act.quant")); quant.ok()) op_.act_quant = *quant;
    op_.kv_f16 = facts.Text("kv.type") == "f16";
    op_.long_rope = facts.Text("rope.factors") == "long";
    if (const std::string seed = facts.Text("noise.seed"); seed != "none" && !seed.empty())
      noise_seed_ = std::strtoull(seed.c_str(), nullptr, 10);
  }
  ~MutantSession() override { api_.session_close(session_); }

  void Facts(const plugin::FactSink& f) const override {
    KeptFacts kept;
    if (pb_error* error = api_.session_facts(session_, KeptFacts::Take, &kept)) api_.error_destroy(error);
    for (const auto& fact : kept.facts) {
      if (fact.key == "act.quant" && !plan_.act_quant.empty())
        f.Add(fact.key, "ggml", "default");
      else if (fact.key == "attn.flash" && plan_.fused)
        f.Add(fact.key, "on", "set");
      else
        f.Add(fact.key, fact.value, fact.origin);
    }
    if (plan_.fault) {
      f.Add("mutant.fault", FaultText(*plan_.fault), "set");
      f.Add("mutant.when", plan_.WhenText(), "set");
    }
    if (!plan_.defect) return;
    f.Add("mutant.defect", plan_.defect->name, "set");
    if (plan_.stage < 0) return;
    Op op = op_;
    op.stage = static_cast<pb_stage>(plan_.stage);
    op.layer = pb_vocabulary[op.stage].per_layer ? plan_.layer : -1;
    op.width = stages::RowWidth(op.stage, op.params().shape(), 1);
    if (plan_.defect->spot == Spot::kFeature) {
      std::string rows = std::to_string(SpotFeature(op));
      if (plan_.defect->commit == ExchangedRows) rows = fmt::format("{} {}", rows, SecondRow(op));
      f.Add("mutant.feature", rows, "observed");
    }
    if (plan_.defect->spot == Spot::kHead) f.Add("mutant.head", std::to_string(SpotHead(op)), "observed");
  }
  void Stages(pb_stage_fn fn, void* ctx) const override {
    struct Told {
      const MutantSession* self;
      pb_stage_fn fn;
      void* ctx;
    } told{this, fn, ctx};
    auto tell = [](void* at, int32_t stage, int32_t visibility, const char* reason) {
      const auto* t = static_cast<Told*>(at);
      if (t->self->IsHidden(stage))
        visibility = PB_UNOBSERVABLE, reason = "computed in one op with the context";
      t->fn(t->ctx, stage, visibility, reason);
    };
    if (pb_error* error = api_.session_stages(session_, tell, &told)) api_.error_destroy(error);
  }
  Status Reset(int32_t n_keep) override { return FromAbi(api_, api_.reset(session_, n_keep)); }

  Status Eval(const pb_eval& eval) override {
    if (!plan_.Changes()) return FromAbi(api_, api_.eval(session_, &eval));
    pb_eval inner{};
    std::memcpy(&inner, &eval, std::min(eval.struct_size, sizeof inner));
    inner.struct_size = sizeof inner;
    const pb_tap tap{sizeof(pb_tap), this, Want, Inputs, Output};
    outer_ = eval.tap, inner.tap = &tap, eval_ = &inner;
    Status status = FromAbi(api_, api_.eval(session_, &inner));
    outer_ = nullptr, eval_ = nullptr;
    return status;
  }

  Status Replay(const pb_replay& replay) override {
    if (replay.variation && *replay.variation)
      return MakeError(Code::kUnsupported, "variation {}: the mutant offers none", replay.variation);
    const int64_t n = replay.n_inputs > 0 ? replay.inputs[0].shape[0] : 0;
    if (!plan_.Hits(replay.stage, replay.layer, n, replay.first_position))
      return FromAbi(api_, api_.replay(session_, &replay));
    op_.inputs.clear();
    for (size_t i = 0; i < replay.n_inputs; i++) op_.inputs.push_back(Copy(replay.inputs[i]));
    struct Sink {
      MutantSession* self;
      const pb_replay* asked;
    } sink{this, &replay};
    pb_replay inner = replay;
    inner.ctx = &sink, inner.units = nullptr;
    bool own_codes = false;
    if (replay.codes) {
      op_.stage = static_cast<pb_stage>(replay.stage), op_.layer = replay.layer;
      own_codes = RoundsOtherwise();
      if (own_codes && !IsIntegerScheme(SchemeHere()))
        return MakeError(Code::kUnsupported, "{}: under {} its input is not quantised",
                         pb_vocabulary[op_.stage].name,
                         plan_.defect ? plan_.defect->name : FaultText(*plan_.fault));
      inner.codes = own_codes ? nullptr : +[](void* ctx, const pb_codes* codes) {
        auto* s = static_cast<Sink*>(ctx);
        s->asked->codes(s->asked->ctx, codes);
      };
    }
    inner.output = [](void* ctx, const pb_tensor* output) {
      auto* s = static_cast<Sink*>(ctx);
      Tensor copy = Copy(*output);
      pb_tensor changed = *output;
      changed.data = copy.values.data();
      s->self->Commit(
          {sizeof(pb_point), s->asked->stage, s->asked->layer, s->asked->first_position, 0, "", ""}, changed,
          false);
      s->asked->output(s->asked->ctx, &changed);
    };
    PB_TRY(FromAbi(api_, api_.replay(session_, &inner)));
    if (own_codes) GiveCodes(replay);
    return {};
  }

 private:
  bool Hits(const pb_point& point) const {
    return plan_.Hits(point.stage, point.layer, eval_->n_tokens, eval_->first_position);
  }
  bool IsHidden(int32_t stage) const {
    return plan_.fused && (stage == PB_STAGE_ATTN_SCORES || stage == PB_STAGE_ATTN_SCORES_SOFTMAX);
  }

  // Whether the op at hand has codes of its own.
  bool RoundsOtherwise() const {
    if (plan_.fault) return ChangesCodes(*plan_.fault);
    if (!plan_.defect || !Obstacle(*plan_.defect, op_).empty()) return false;
    return plan_.defect->commit == OtherRounding || QuantiserOf(*plan_.defect, op_);
  }
  ActScheme SchemeHere() const {
    const auto quantiser = plan_.defect ? QuantiserOf(*plan_.defect, op_) : std::nullopt;
    return quantiser ? quantiser->scheme : OwnScheme(op_);
  }
  // Of one row of its input. Stored sums are told where the scheme has one a block.
  CodedRow CodesHere(const float* x, int64_t width) const {
    const ActScheme scheme = SchemeHere();
    if (plan_.fault) return CodeRow(x, width, scheme, &*plan_.fault);
    if (plan_.defect->commit == OtherRounding)
      return CodeRow(x, width, scheme, static_cast<Harmless>(static_cast<int>(plan_.defect->parameter)));
    const RowCodes row = CodesOf(x, width, scheme, QuantiserOf(*plan_.defect, op_)->fault);
    return {row.block,
            {row.codes.begin(), row.codes.end()},
            row.scales,
            row.sums.empty() ? 0 : row.block,
            {row.sums.begin(), row.sums.end()}};
  }
  // Whether the fault is in row i of the op just committed.
  bool IsHit(int64_t i) const {
    return plan_.when->name == "not_repeatable"  ? hit_[static_cast<size_t>(i)]
           : plan_.when->name == "from_position" ? op_.first + i >= plan_.when_number
                                                 : true;
  }
  // The codes that the op just committed rounds its input to.
  void GiveCodes(const pb_replay& replay) const {
    const char *scheme = ActSchemeName(SchemeHere()), *maker = "by the mutant's own quantiser";
    std::vector<int8_t> codes;
    std::vector<float> scales, sums;
    int64_t block = 0;
    const int64_t width = op_.in_width(0);
    for (int64_t i = 0; i < op_.n; i++) {
      const CodedRow row =
          IsHit(i) ? CodesHere(op_.in(0, i), width) : CodeRow(op_.in(0, i), width, SchemeHere(), nullptr);
      block = row.block;
      for (double code : row.codes) codes.push_back(static_cast<int8_t>(code));
      scales.insert(scales.end(), row.scales.begin(), row.scales.end());
      if (row.sum_group == row.block) sums.insert(sums.end(), row.sums.begin(), row.sums.end());
    }
    const pb_codes out{sizeof(pb_codes),
                       scheme,
                       maker,
                       op_.n,
                       width,
                       block,
                       op_.width,
                       codes.data(),
                       scales.data(),
                       sums.empty() ? nullptr : sums.data(),
                       nullptr};
    replay.codes(replay.ctx, &out);
  }

  static uint32_t Want(void* ctx, const pb_point* point) {
    auto* self = static_cast<MutantSession*>(ctx);
    const bool asks = self->outer_ && !self->IsHidden(point->stage);
    const uint32_t outer = asks ? self->outer_->want(self->outer_->ctx, point) : 0;
    self->wanted_[point->stage] = outer;
    return self->Hits(*point) ? outer | PB_WANT_OUTPUT | PB_WANT_INPUTS : outer;
  }
  static void Inputs(void* ctx, const pb_point* point, const pb_tensor* inputs, size_t n) {
    auto* self = static_cast<MutantSession*>(ctx);
    if (self->Hits(*point)) {
      self->op_.inputs.clear();
      for (size_t i = 0; i < n; i++) self->op_.inputs.push_back(Copy(inputs[i]));
    }
    if (self->wanted_[point->stage] & PB_WANT_INPUTS)
      self->outer_->inputs(self->outer_->ctx, point, inputs, n);
  }
  static int Output(void* ctx, const pb_point* point, pb_tensor* output) {
    auto* self = static_cast<MutantSession*>(ctx);
    int result = PB_CONTINUE;
    if (self->Hits(*point)) self->Commit(*point, *output, true), result = PB_OVERWRITTEN;
    if (!(self->wanted_[point->stage] & PB_WANT_OUTPUT)) return result;
    const int outer = self->outer_->output(self->outer_->ctx, point, output);
    return outer == PB_CONTINUE ? result : outer;
  }

  void Commit(const pb_point& point, const pb_tensor& output, bool disturbs) {
    op_.stage = static_cast<pb_stage>(point.stage), op_.layer = point.layer;
    op_.first = point.first_position, op_.n = output.shape[0];
    op_.width = 1;
    for (int i = 1; i < output.n_dims; i++) op_.width *= output.shape[i];
    op_.out = static_cast<float*>(output.data);
    op_.tokens = eval_ ? eval_->tokens + (point.first_position - eval_->first_position) : nullptr;
    if (plan_.fault)
      CommitFault();
    else if (plan_.f16_sums)
      SumInF16(op_);
    else if (Obstacle(*plan_.defect, op_).empty() || Carries(*plan_.defect, op_.stage))
      plan_.defect->commit(op_, plan_.defect->parameter);
    const bool rounds = op_.stage != PB_STAGE_LOGITS && op_.stage != PB_STAGE_EXPERT_IDS;
    if (disturbs && noise_seed_ && rounds) Disturb();
  }

  void CommitFault() {
    if (!Obstacle(*plan_.fault, op_).empty()) return;
    const std::vector<float> right(op_.out, op_.out + op_.n * op_.width);
    mutant::Commit(*plan_.fault, op_);
    if (plan_.when->name == "from_position") {
      const int64_t n = std::clamp<int64_t>(plan_.when_number - op_.first, 0, op_.n) * op_.width;
      std::copy_n(right.begin(), n, op_.out);
    }
    if (plan_.when->name != "not_repeatable") return;
    hit_ = OtherRows(op_.n);
    for (int64_t i = 0; i < op_.n; i++)
      if (!hit_[static_cast<size_t>(i)]) std::copy_n(right.begin() + i * op_.width, op_.width, op_.row(i));
  }

  // Which of n rows, at random, and others than the time before.
  static std::vector<bool> OtherRows(int64_t n) {
    static std::vector<bool> last;
    std::vector<bool> rows(static_cast<size_t>(n));
    Random random(std::random_device{}());
    do
      for (size_t i = 0; i < rows.size(); i++) rows[i] = random.Below(2) == 1;
    while (n > 0 && rows == last);
    return last = rows;
  }

  // Random rounding of what was computed here, as the wrapped engine does it with its own.
  void Disturb() {
    ChangeAtRandom(op_, *noise_seed_ ^ 0x6d7574616e74, [](Random& random, float* x) {
      const double r = static_cast<double>(random.Below(3)) - 1;
      *x = static_cast<float>(*x * (1 + r * 0x1p-24));
    });
  }

  const pb_engine_api& api_;
  pb_session* session_;
  std::shared_ptr<const pb::Model> model_;
  Plan plan_;
  std::optional<uint64_t> noise_seed_;
  const pb_tap* outer_ = nullptr;  // of the evaluation at hand
  const pb_eval* eval_ = nullptr;
  std::vector<bool> hit_;               // rows of the last op that is not repeatable
  std::map<int32_t, uint32_t> wanted_;  // what the outer tap wants, by stage
  Op op_;
};

class MutantModel : public plugin::Model {
 public:
  MutantModel(const pb_engine_api& api, pb_model* model, std::shared_ptr<const pb::Model> weights,
              const Plan& plan)
      : api_(api), model_(model), weights_(std::move(weights)), plan_(plan) {}
  ~MutantModel() override { api_.model_close(model_); }

  // Without a defect also the catalogue: defect.NAME = "kind|ops it exists at|names of hypotheses
  // that are right". With mutant.draw those that are drawn: fault.N = "kind|op|layer|when|its
  // spelling|what is true of it".
  void Facts(const plugin::FactSink& f) const override {
    KeptFacts kept;
    if (pb_error* error = api_.model_facts(model_, KeptFacts::Take, &kept)) api_.error_destroy(error);
    for (const auto& fact : kept.facts) f.Add(fact.key, fact.value, fact.origin);
    if (plan_.n_drawn > 0) return TellDrawn(f);
    if (plan_.defect || plan_.fault) return;
    for (const Defect& d : Catalogue()) {
      // "attn_scores" of all layers, "attn_scores@0,2" of these.
      std::vector<std::string> stages;
      for (pb_stage s : d.at) {
        std::vector<int32_t> layers;
        const auto n = pb_vocabulary[s].per_layer ? static_cast<int32_t>(weights_->params().n_layers) : 1;
        for (int32_t layer = 0; layer < n; layer++)
          if (WhyNot(d, s, layer).empty()) layers.push_back(layer);
        if (layers.empty()) continue;
        const bool all = static_cast<int32_t>(layers.size()) == n;
        stages.push_back(all ? pb_vocabulary[s].name
                             : fmt::format("{}@{}", pb_vocabulary[s].name, fmt::join(layers, ",")));
      }
      f.Add(fmt::format("defect.{}", d.name),
            fmt::format("{}|{}|{}", d.kind, fmt::join(stages, " "), d.truth), "observed");
    }
  }

  Result<std::vector<int32_t>> Tokenize(std::string_view text,
                                        const TokenizeOptions& options) const override {
    const uint32_t flags =
        (options.add_special ? PB_ADD_SPECIAL : 0) | (options.parse_special ? PB_PARSE_SPECIAL : 0);
    size_t n = 0;
    PB_TRY(FromAbi(api_, api_.tokenize(model_, text.data(), text.size(), flags, nullptr, 0, &n)));
    std::vector<int32_t> ids(n);
    PB_TRY(FromAbi(api_, api_.tokenize(model_, text.data(), text.size(), flags, ids.data(), n, &n)));
    if (!plan_.defect || !plan_.defect->at.empty() || ids.empty() || !options.add_special) return ids;
    if (plan_.defect->parameter > 0) {
      ids.insert(ids.begin(), ids.front());
    } else {
      ids.erase(ids.begin());
    }
    return ids;
  }
  Result<std::string> Detokenize(std::span<const int32_t> ids) const override {
    size_t n = 0;
    PB_TRY(FromAbi(api_, api_.detokenize(model_, ids.data(), ids.size(), nullptr, 0, &n)));
    std::string text(n, '\0');
    PB_TRY(FromAbi(api_, api_.detokenize(model_, ids.data(), ids.size(), text.data(), n, &n)));
    return text;
  }

  Result<std::unique_ptr<plugin::Session>> OpenSession(const plugin::Settings& settings) override {
    Plan plan = plan_;
    plugin::Settings rest;
    PB_TRY(Apply(settings, &plan, &rest));
    if (plan.defect && plan.fault)
      return MakeError(Code::kUsage, "mutant.defect and mutant.fault: one of them at a time");
    if (plan.fault) {
      if (plan.stage < 0)
        return MakeError(Code::kUsage, "mutant.fault={}: say at which op: mutant.stage",
                         FaultText(*plan.fault));
      if (const std::string why = WhyNot(*plan.fault, plan.stage, plan.layer); !why.empty())
        return MakeError(Code::kUsage, "mutant.fault={} at {}: {}", FaultText(*plan.fault),
                         pb_vocabulary[plan.stage].name, why);
    }
    if (plan.defect && !plan.defect->at.empty() && plan.stage >= 0) {
      if (const std::string why = WhyNot(*plan.defect, plan.stage, plan.layer); !why.empty())
        return MakeError(Code::kUnsupported, "mutant.defect={} at {}: {}", plan.defect->name,
                         pb_vocabulary[plan.stage].name, why);
    } else if (plan.defect && !plan.defect->at.empty() && !plan.IsBenign() &&
               plan.defect->kind != std::string_view("quantiser")) {
      return MakeError(Code::kUsage, "mutant.defect={}: say at which op: mutant.stage", plan.defect->name);
    }
    const std::vector<pb_setting> abi = ToAbi(rest);
    pb_session* session = nullptr;
    PB_TRY(FromAbi(api_, api_.session_open(model_, abi.data(), abi.size(), &session)));
    return std::unique_ptr<plugin::Session>(std::make_unique<MutantSession>(api_, session, weights_, plan));
  }

 private:
  // Why the defect does not exist at an op; what a session's settings decide is taken as by
  // default.
  template <typename Wrong>
  std::string WhyNot(const Wrong& wrong, int32_t stage, int32_t layer) const {
    const HyperParameters& p = weights_->params();
    if (!p.ops.Contains(stage)) return "the model has no such op";
    if (pb_vocabulary[stage].per_layer && layer >= p.n_layers)
      return fmt::format("the model has {} layers", p.n_layers);
    Op op;
    op.model = weights_.get();
    op.stage = static_cast<pb_stage>(stage);
    op.layer = pb_vocabulary[stage].per_layer ? std::max(layer, 0) : -1;
    return Obstacle(wrong, op);
  }

  void TellDrawn(const plugin::FactSink& f) const {
    f.Add("generator.version", std::to_string(kGeneratorVersion), "observed");
    const std::vector<Drawn> drawn = Draw(*weights_, plan_.seed, plan_.n_drawn);
    for (size_t i = 0; i < drawn.size(); i++) {
      const Drawn& d = drawn[i];
      f.Add(fmt::format("fault.{}", i),
            fmt::format("{}|{}|{}|{}|{}|{}", d.fault.kind->kind, pb_vocabulary[d.stage].name, d.layer, d.when,
                        FaultText(d.fault), d.truth),
            "observed");
    }
  }

  const pb_engine_api& api_;
  pb_model* model_;
  std::shared_ptr<const pb::Model> weights_;
  Plan plan_;
};

class MutantEngine : public plugin::Engine {
 public:
  MutantEngine(const pb_engine_api& api, pb_engine* engine, const Plan& plan, ModelOptions options)
      : api_(api), engine_(engine), plan_(plan), options_(std::move(options)) {}
  ~MutantEngine() override { api_.destroy(engine_); }

  void Describe(const plugin::FactSink& f) const override {
    KeptFacts kept;
    if (pb_error* error = api_.describe(engine_, KeptFacts::Take, &kept)) api_.error_destroy(error);
    for (const auto& fact : kept.facts)
      f.Add(fact.key, fact.key == "name" ? "mutant of " + fact.value : fact.value, fact.origin);
  }

  Result<std::unique_ptr<plugin::Model>> OpenModel(const std::string& path) override {
    pb_model* model = nullptr;
    PB_TRY(FromAbi(api_, api_.model_open(engine_, path.c_str(), &model)));
    auto weights = pb::Model::Open(path, options_);
    if (!weights.ok()) return api_.model_close(model), std::move(weights).error();
    return std::unique_ptr<plugin::Model>(
        std::make_unique<MutantModel>(api_, model, std::move(*weights), plan_));
  }

 private:
  const pb_engine_api& api_;
  pb_engine* engine_;
  Plan plan_;
  ModelOptions options_;
};

Result<std::unique_ptr<plugin::Engine>> Create(const plugin::Settings& settings) {
  static std::string error;
  static const pb_engine_api* const api = OpenNative(&error);
  if (!api) return MakeError(Code::kIo, "the mutant wraps native.so, which must lie beside it: {}", error);
  Plan plan;
  plugin::Settings rest;
  PB_TRY(Apply(settings, &plan, &rest));
  ModelOptions options;
  for (const auto& [key, value] : rest) PB_TRY(Declare(key, value, &options));
  const std::vector<pb_setting> abi = ToAbi(rest);
  pb_engine* engine = nullptr;
  PB_TRY(FromAbi(*api, api->create(abi.data(), abi.size(), &engine)));
  return std::unique_ptr<plugin::Engine>(
      std::make_unique<MutantEngine>(*api, engine, plan, std::move(options)));
}

}  // namespace
}  // namespace pb::mutant

extern "C" PB_EXPORT const pb_engine_api* pb_engine_get(void) {
  return pb::plugin::MakeApi(PB_CAP_TOKENIZE | PB_CAP_OUTPUTS | PB_CAP_INPUTS | PB_CAP_OVERWRITE |
                                 PB_CAP_NOISE | PB_CAP_REPLAY | PB_CAP_CODES,
                             pb::mutant::Create);
}
