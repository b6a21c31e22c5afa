// Runs the engine unwatched and watched, opens the arbiter on the files concerned, and turns
// what was judged into a verdict.
#include "audit/audit.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <tuple>

#include "audit/op_judge.h"
#include "base/sha256.h"
#include "codes/precision.h"
#include "compare/judge_precision.h"
#include "diagnose/blame.h"
#include "drive/context_room.h"
#include "drive/lent_weights.h"
#include "drive/participant.h"
#include "drive/passes.h"
#include "run/doubts.h"
#include "run/local_run.h"
#include "run/repeatability.h"

namespace pb::audit {
namespace {

using compare::Outcome;
using compare::ReasonCode;

// What the engine is expected to show of the ops that the model declares.
struct Plan {
  std::vector<int32_t> watched;  // stages whose points are asked for
  std::vector<int32_t> judged;   // those, and the logits as they are delivered
  int64_t n_points = 0;          // of one pass
  std::vector<std::string> missing, unmapped, unobservable;
};

class AuditRun {
 public:
  explicit AuditRun(const AuditRequest& request)
      : request_(request), engine_(out_.run.candidate, request.limits) {}

  Result<Audit> Run();

 private:
  Status Open();
  // How the engine rounds the inputs of its products, where that is a way that is accepted.
  Status ObserveEngine();
  void NotePrecision();
  Status OpenArbiters();
  Status AskForSchemes();
  Status Tokenize();
  Result<Plan> MakePlan();
  // Unwatched, which also chooses the tokens of decode steps; then watched, and judged.
  Status RunPrompt(size_t index);
  Status RunUnwatched(size_t index);
  Status RunWatched(size_t index);
  void NoteByRows();
  Status EvaluateWatched(const drive::Pass& pass, Sha256* logits);
  Status Passes(const run::PromptRecord& prompt,
                const std::function<Status(const drive::Pass&)>& evaluate) const;
  int32_t NPrefill(const run::PromptRecord& prompt) const;
  // An engine's failure becomes an obstacle; anything else is passed on.
  Status Absorb(Status status);
  void Count();
  void TellOfDoubts();
  void Judge();

  const AuditRequest& request_;
  Audit out_;
  drive::Participant engine_;
  host::Settings session_;
  std::unique_ptr<diagnose::FileArbiter> arbiter_,
      own_;  // of the file that declares; of the engine's where that is another
  std::unique_ptr<OpJudge> judge_;
  Plan plan_;
  std::vector<codes::ClassPrecision> precision_;
  std::string act_quant_;  // as declared, and as observed where that is accepted
  std::shared_ptr<const Model> model_;
  compare::Evidence evidence_;
  compare::LocalEvidence local_;
  bool stopped_ = false;
};

Status AuditRun::Absorb(Status status) {
  if (status.ok()) return status;
  const std::optional<compare::Obstacle> obstacle = engine_.ObstacleOf(status.error());
  if (!obstacle) return status;
  evidence_.obstacles.push_back(*obstacle);
  stopped_ = true;
  return {};
}

Status AuditRun::Open() {
  // What the engine cannot be told the arbiter is (hf.config).
  host::Settings told = request_.engine.settings;
  for (const auto& [key, value] : request_.arbiter.settings) drive::PutSetting(told, key, value);
  PB_TRY(run::CheckModelFile(request_.model, told, &out_.run.doubts));
  if (!request_.good_model.empty()) PB_TRY(run::CheckModelFile(request_.good_model, told, &out_.run.doubts));
  out_.run.candidate.role = "engine", out_.run.reference.role = "arbiter";
  PB_TRY(Absorb(engine_.Start(request_.engine)));
  if (!stopped_) PB_TRY(Absorb(engine_.OpenModel(request_.model)));
  if (!stopped_ && !(engine_.engine().capabilities() & PB_CAP_OUTPUTS)) {
    evidence_.obstacles.push_back(
        {ReasonCode::kNoTracepoints, "the engine shows no tracepoints, so no op can be judged"});
    stopped_ = true;
  }
  return {};
}

Status AuditRun::ObserveEngine() {
  const std::filesystem::path lenders[] = {request_.engine.plugin};
  auto model =
      drive::OpenModel(request_.model, run::DeclaredBy(request_.engine.settings), lenders, request_.limits);
  auto prompt =
      std::ranges::find_if(out_.run.prompts, [](const run::PromptRecord& p) { return !p.tokens.empty(); });
  if (!model.ok() || prompt == out_.run.prompts.end()) return {};
  model_ = *model;
  std::vector<int32_t> tokens = prompt->tokens;
  tokens.insert(tokens.end(), prompt->decoded.begin(), prompt->decoded.end());
  auto observed = codes::ObservePrecision(engine_, session_, model_, tokens);
  if (!observed.ok()) return Absorb(std::move(observed).error());
  precision_ = std::move(observed).value();
  auto declared = ActQuant::Parse(out_.run.candidate.session_facts().act_quant.value);
  if (!declared.ok() || request_.precision.strict) return {};
  std::vector<codes::ClassPrecision> accepted = precision_;
  std::erase_if(accepted, [&](const codes::ClassPrecision& c) {
    return !c.scheme || !compare::IsAccepted(c.of.weight, *c.scheme, request_.precision);
  });
  const ActQuant adopted = codes::Observed(*declared, accepted);
  act_quant_ = adopted.Text();
  static constexpr float kOne[] = {1};
  for (const codes::Departure& d : codes::Departures(*declared, accepted)) {
    const codes::ClassPrecision& c = d.of;
    compare::PrecisionRow row{
        c.of.weight, codes::ClassName(precision_, c.of), {*c.scheme, d.said}, c.n_matrices, 0, "", ""};
    if (*c.scheme == ActScheme::kF16Sums) row.bound = compare::F16SumsFromUnits(kOne).Origin();
    evidence_.precision.push_back(std::move(row));
  }
  return {};
}

// A class that goes by the rows of a pass: the points that were judged by what was seen of it.
void AuditRun::NoteByRows() {
  const auto declared = ActQuant::Parse(out_.run.candidate.session_facts().act_quant.value);
  for (const codes::ClassPrecision& c : precision_) {
    if (c.scheme || !declared.ok()) continue;
    const ActScheme said = declared->SchemeFor(c.of.weight, c.of.rows_32 ? 32 : 1, c.of.place);
    for (const bool one : {false, true}) {
      if (!c.of_rows[one] || *c.of_rows[one] == said) continue;
      compare::PrecisionRow row{
          c.of.weight, codes::ClassName(precision_, c.of), {*c.of_rows[one], said}, c.n_matrices, 0, "", ""};
      for (const compare::PointRow& point : local_.points) {
        row.n_products += point.explained_by_precision && (point.n_rows == 1) == one &&
                          codes::ClassAt(*model_, point.stage, point.layer) == c.of;
      }
      if (row.n_products > 0) evidence_.precision.push_back(std::move(row));
    }
  }
}

// What was observed becomes a fact of the engine, and the products that were judged by it are
// counted.
void AuditRun::NotePrecision() {
  for (host::Fact& fact : out_.run.candidate.session)
    if (fact.key == "act.quant" && !act_quant_.empty() && fact.value != act_quant_)
      fact = {fact.key, act_quant_, "observed"};
  NoteByRows();
  if (!precision_.empty())
    out_.run.candidate.session.push_back({"act.products", codes::PrecisionText(precision_), "observed"});
  for (compare::PrecisionRow& row : evidence_.precision) {
    if (row.n_products > 0) continue;
    for (const compare::PointRow& point : local_.points) {
      const auto of = codes::ClassAt(*model_, point.stage, point.layer);
      row.n_products += of && of->weight == row.weight && codes::ClassName(precision_, *of) == row.weights;
    }
  }
}

Status AuditRun::OpenArbiters() {
  drive::EngineRecord side = out_.run.candidate, &arbiter = out_.run.reference;
  for (host::Fact& fact : side.session)
    if (fact.key == "act.quant" && !act_quant_.empty()) fact.value = act_quant_;
  const std::filesystem::path lenders[] = {request_.engine.plugin};
  auto open = [&](std::unique_ptr<diagnose::FileArbiter>* to) -> Status {
    auto opened = diagnose::FileArbiter::Open(request_.arbiter, side, lenders, request_.limits);
    if (opened.ok()) {
      *to = std::move(opened).value();
      std::string lent = drive::LentText((*to)->model());
      if (!lent.empty() && std::ranges::find(out_.run.notes, lent) == out_.run.notes.end())
        out_.run.notes.push_back(std::move(lent));
      return {};
    }
    if (opened.error().code != Code::kUnsupported && opened.error().code != Code::kUsage)
      return std::move(opened).error();
    evidence_.obstacles.push_back(
        {ReasonCode::kUnsupported, "the arbiter cannot do what was asked: " + opened.error().message});
    stopped_ = true;
    return {};
  };
  if (!request_.good_model.empty()) {
    PB_TRY(open(&own_));
    side.model_path = request_.good_model;
  }
  if (!stopped_) PB_TRY(open(&arbiter_));
  if (stopped_) return {};
  arbiter.spec = request_.arbiter.text, arbiter.plugin = request_.arbiter.plugin;
  PB_ASSIGN(arbiter.plugin_sha256, drive::CachedFileSha256(arbiter.plugin));
  arbiter.model_path = side.model_path;
  PB_ASSIGN(arbiter.model_sha256, drive::CachedFileSha256(side.model_path));
  arbiter.description = arbiter_->description();
  arbiter.identity = drive::EngineIdentity(arbiter);
  arbiter.model = arbiter_->facts(), arbiter.session = arbiter_->session();
  const std::string flash = side.session_facts().flash.value;
  if (!flash.empty() && flash != "off")
    evidence_.obstacles.push_back(
        {ReasonCode::kUnsupported,
         "the engine runs flash attention, whose rounding the arbiter does not know; run it with "
         "--set attn.flash=off"});
  judge_ = std::make_unique<OpJudge>(*arbiter_, own_.get(), request_.precision.strict, precision_, &out_);
  return {};
}

// The engine's ids, beside those that the model's own rules give.
Status AuditRun::Tokenize() {
  for (size_t i = 0; i < request_.prompts.size() && !stopped_; i++) {
    run::PromptRecord prompt;
    prompt.text = request_.prompts[i].text, prompt.origin = request_.prompts[i].origin;
    prompt.steps_asked = request_.max_tokens;
    compare::PromptEvidence evidence;
    evidence.prompt = static_cast<int32_t>(i);
    if (!request_.tokens.empty()) {
      const auto n = std::min(request_.tokens.size(), static_cast<size_t>(request_.n_prefill));
      prompt.tokens.assign(request_.tokens.begin(), request_.tokens.begin() + static_cast<ptrdiff_t>(n));
      prompt.decoded.assign(request_.tokens.begin() + static_cast<ptrdiff_t>(n), request_.tokens.end());
      prompt.steps_asked = static_cast<int32_t>(prompt.decoded.size());
    } else if (!prompt.text.empty()) {
      auto ids = engine_.Tokenize(prompt.text);
      if (!ids.ok()) return Absorb(std::move(ids).error());
      PB_TRY(drive::CheckRoom(engine_.record(), ids->size(), prompt.origin));
      prompt.tokens = std::move(ids).value();
    }
    prompt.tokens_of[0] = prompt.tokens;
    evidence.n_decode_asked = prompt.steps_asked;
    evidence.tokens[0] = evidence.tokens[1] = prompt.tokens;
    out_.run.prompts.push_back(std::move(prompt));
    evidence_.prompts.push_back(std::move(evidence));
  }
  return {};
}

// Tokens that were recorded are what the engine was fed; what its tokeniser makes of a text is
// judged where it was asked.
Status CheckTokens(diagnose::FileArbiter& arbiter, bool were_given, run::PromptRecord* prompt,
                   std::vector<compare::Obstacle>* obstacles) {
  prompt->tokens_of[1] = prompt->tokens_of[0];
  if (were_given || prompt->text.empty()) return {};
  auto expected = arbiter.Tokenize(prompt->text);
  // What is not checked is said with what the arbiter finds in the file.
  if (!expected.ok() && expected.error().code == Code::kUnsupported) return {};
  if (!expected.ok()) return std::move(expected).error();
  prompt->tokens_of[1] = std::move(expected).value();
  if (prompt->tokens_of[0] == prompt->tokens_of[1]) return {};
  std::string name;
  const auto bos = trace::ReadModelFacts(arbiter.facts()).bos;
  obstacles->push_back({Outcome::kDiverged, ReasonCode::kTokensDiffer,
                        "the engine reads other tokens than the model's rules give: it " +
                            diagnose::HowTokensPart(prompt->tokens_of[0], prompt->tokens_of[1], bos, &name)});
  return {};
}

Result<Plan> AuditRun::MakePlan() {
  PB_ASSIGN(const std::vector<host::StageVisibility> shown, engine_.Stages());
  const bool activation_is_shown = shown[PB_STAGE_FFN_ACT].visibility == PB_OBSERVED;
  Plan plan;
  for (int32_t s = 0; s < PB_STAGE_COUNT; s++) {
    const host::StageVisibility& of_engine = shown[static_cast<size_t>(s)];
    const bool declared = arbiter_->stages()[static_cast<size_t>(s)].visibility != PB_ABSENT;
    const bool observed = of_engine.visibility == PB_OBSERVED || s == PB_STAGE_LOGITS;
    const char* name = pb_vocabulary[s].name;
    const int64_t n = pb_vocabulary[s].per_layer ? arbiter_->model().params().n_layers : 1;
    if (!declared && observed) plan.unmapped.push_back(name);
    if (!declared) continue;
    if (!observed && of_engine.visibility == PB_UNOBSERVABLE) {
      plan.unobservable.push_back(fmt::format("{}: {}", name, of_engine.reason));
      continue;
    }
    plan.n_points += n;
    if (!observed) {
      plan.missing.push_back(fmt::format(
          "{}: {}", name, of_engine.reason.empty() ? "the engine has no such op" : of_engine.reason));
      continue;
    }
    if (s != PB_STAGE_LOGITS) plan.watched.push_back(s);
    if (judge_->LeavesOpen(s, activation_is_shown))
      plan.missing.push_back(fmt::format("{}: the model does not declare its activation", name));
    else
      plan.judged.push_back(s);
  }
  if (const trace::ModelFacts facts = trace::ReadModelFacts(arbiter_->facts()); facts.activation_undeclared())
    evidence_.obstacles.push_back(compare::UndeclaredActivation(facts.architecture, "--set"));
  return plan;
}

int32_t AuditRun::NPrefill(const run::PromptRecord& prompt) const {
  return static_cast<int32_t>(prompt.tokens.size());
}

// One more token may come with each pass.
Status AuditRun::Passes(const run::PromptRecord& prompt,
                        const std::function<Status(const drive::Pass&)>& evaluate) const {
  return drive::ForEachPass(prompt.tokens, drive::PassRows({&out_.run.candidate}),
                            drive::StepsOf(prompt.decoded), evaluate);
}

Status AuditRun::RunUnwatched(size_t index) {
  run::PromptRecord& prompt = out_.run.prompts[index];
  compare::PromptEvidence& evidence = evidence_.prompts[index];
  const bool chooses = request_.tokens.empty();
  Sha256 logits;
  int32_t next = -1;
  PB_TRY(engine_.OpenSession(session_));
  auto choose = [&] {
    if (chooses && next >= 0 && static_cast<int32_t>(prompt.decoded.size()) < prompt.steps_asked)
      prompt.decoded.push_back(next);
  };
  PB_TRY(Passes(prompt, [&](const drive::Pass& pass) -> Status {
    PB_TRY(engine_.Evaluate(pass.tokens, pass.position, [&](int32_t, std::span<const float> row) -> Status {
      logits.Update(std::as_bytes(row));
      next = drive::Greedy(row);
      ++(pass.step == 0 ? evidence.n_prefill : evidence.n_decode)[0];
      return {};
    }));
    if (pass.position + static_cast<int32_t>(pass.tokens.size()) >= NPrefill(prompt)) choose();
    return {};
  }));
  prompt.logits_sha256[0] = prompt.untapped_sha256[0] = logits.Hex();
  return {};
}

Status AuditRun::EvaluateWatched(const drive::Pass& pass, Sha256* logits) {
  host::EvalRequest request;
  request.tokens.assign(pass.tokens.begin(), pass.tokens.end());
  request.first_position = pass.position;
  request.tap.stages = plan_.watched;
  request.tap.outputs = !plan_.watched.empty();
  judge_->BeginPass(pass.step, pass.position, pass.tokens);
  auto judged = [&](int32_t stage) {
    return std::find(plan_.judged.begin(), plan_.judged.end(), stage) != plan_.judged.end();
  };
  Status of_arbiter;
  Status evaluated = engine_.engine().Eval(request, [&](const host::Event& event) -> Status {
    if (event.kind == host::Event::kLogits) {
      logits->Update(std::as_bytes(event.tensor.data));
      of_arbiter = judge_->OnLogits(event.point.first_position, event.tensor);
    } else if (event.kind == host::Event::kPoint) {
      const auto stage = static_cast<pb_stage>(event.point.stage);
      of_arbiter = judge_->OnPoint(stage, event.point.layer, event.tensor, judged(stage));
      if (request_.progress)
        request_.progress("ops", static_cast<int64_t>(judge_->rows().size()), local_.n_expected);
    }
    return of_arbiter;
  });
  if (!of_arbiter.ok()) return std::move(of_arbiter).error().In("arbiter");
  return engine_.Noted(std::move(evaluated));
}

Status AuditRun::RunWatched(size_t index) {
  run::PromptRecord& prompt = out_.run.prompts[index];
  Sha256 logits;
  PB_TRY(engine_.OpenSession(session_));
  judge_->BeginPrompt(static_cast<int32_t>(index));
  PB_TRY(Passes(prompt, [&](const drive::Pass& pass) { return EvaluateWatched(pass, &logits); }));
  prompt.tapped_sha256[0] = logits.Hex();
  if (!prompt.observer_effect(0)) return {};
  std::vector<int32_t> tokens = prompt.tokens;
  tokens.insert(tokens.end(), prompt.decoded.begin(), prompt.decoded.end());
  PB_ASSIGN(const auto found, run::FindUnrepeatable(engine_, session_, tokens, NPrefill(prompt)));
  if (found)
    evidence_.obstacles.push_back(
        {Outcome::kIncomplete, ReasonCode::kNotRepeatable,
         "the engine is not repeatable: two equal runs of it differ, " + found->Text()});
  else
    evidence_.obstacles.push_back({ReasonCode::kObserverEffect,
                                   "the engine's logits change when its tracepoints are watched, so they do "
                                   "not show what it computes unwatched"});
  return {};
}

Status AuditRun::RunPrompt(size_t index) {
  if (out_.run.prompts[index].tokens.empty()) return {};
  PB_TRY(Absorb(RunUnwatched(index)));
  if (stopped_) return {};
  return Absorb(RunWatched(index));
}

// A point counts when all its rows were judged, in however many pieces they came.
void AuditRun::Count() {
  local_.points = judge_->rows();
  local_.missing = plan_.missing;
  local_.missing.insert(local_.missing.end(), judge_->missing().begin(), judge_->missing().end());
  local_.unmapped = plan_.unmapped, local_.unobservable = plan_.unobservable;
  std::map<std::tuple<int32_t, int32_t, int32_t, int32_t>, int64_t> rows;
  for (const compare::PointRow& row : local_.points)
    rows[{row.prompt, row.step, row.stage, row.layer}] += row.n_rows;
  for (const auto& [key, n] : rows) {
    const run::PromptRecord& prompt = out_.run.prompts[static_cast<size_t>(std::get<0>(key))];
    local_.n_compared += n == (std::get<1>(key) == 0 ? NPrefill(prompt) : 1);
  }
}

void AuditRun::TellOfDoubts() {
  size_t longest = 0;
  for (const run::PromptRecord& prompt : out_.run.prompts) {
    longest = std::max(longest, prompt.tokens.size() + static_cast<size_t>(prompt.steps_asked));
    run::NoteTokens(out_.run.candidate, prompt.tokens, prompt.origin, &out_.run.notes);
  }
  run::TellDoubts(out_.run.doubts, static_cast<int64_t>(longest), true, &evidence_.obstacles,
                  &out_.run.notes);
}

void AuditRun::Judge() {
  evidence_.n_prompts_asked = static_cast<int64_t>(request_.prompts.size());
  for (const host::Fact& fact : out_.run.candidate.session)
    evidence_.settings[0].push_back({fact.key, fact.value, fact.origin});
  if (judge_) Count();
  TellOfDoubts();
  NotePrecision();
  evidence_.user.precision = request_.precision;
  compare::Verdict& verdict = out_.run.verdict = compare::JudgeAudit(evidence_, local_);
  out_.run.points = run::CondensePoints(local_.points, true);
  std::stable_sort(out_.run.points.begin(), out_.run.points.end(), compare::ComesBefore);
  out_.run.choices = request_.choices;
  if (!verdict.first_divergence || out_.findings.empty()) return;
  const compare::FirstDivergence& first = *verdict.first_divergence;
  auto named = std::ranges::find_if(out_.findings, [&](const AuditFinding& f) {
    return f.diagnosis.place.stage == first.stage && f.diagnosis.place.layer == first.layer &&
           f.diagnosis.place.prompt == first.prompt;
  });
  if (named == out_.findings.end()) return;
  std::rotate(out_.findings.begin(), named, named + 1);
  verdict.blame = out_.findings.front().diagnosis.blame;
}

// Lets the engine tell how it quantises, so that codes explain nothing that it does not do.
Status AuditRun::AskForSchemes() {
  for (diagnose::FileArbiter* arbiter : {arbiter_.get(), own_.get()}) {
    if (!arbiter || stopped_) continue;
    PB_TRY(Absorb(engine_.Noted(arbiter->AskForSchemes(engine_.engine(), "engine"))));
  }
  return {};
}

Result<Audit> AuditRun::Run() {
  const auto start = std::chrono::steady_clock::now();
  if (request_.token_errors) out_.run.token_errors.emplace();
  PB_TRY(Open());
  if (!stopped_) PB_TRY(Tokenize());
  size_t longest = 1;
  for (const run::PromptRecord& p : out_.run.prompts)
    longest = std::max(longest, p.tokens.size() + static_cast<size_t>(p.steps_asked));
  if (!stopped_) {
    auto taken = engine_.OpenSessionWishing(drive::SessionWishes(request_.engine.settings, longest));
    if (taken.ok())
      session_ = std::move(taken).value();
    else
      PB_TRY(Absorb(std::move(taken).error()));
  }
  if (!stopped_) PB_TRY(ObserveEngine());
  if (!stopped_) PB_TRY(OpenArbiters());
  if (!stopped_) PB_TRY(AskForSchemes());
  if (!stopped_) {
    for (run::PromptRecord& prompt : out_.run.prompts)
      PB_TRY(CheckTokens(*arbiter_, !request_.tokens.empty(), &prompt, &evidence_.obstacles));
    auto plan = MakePlan();
    if (!plan.ok())
      PB_TRY(Absorb(std::move(plan).error()));
    else
      plan_ = std::move(plan).value();
  }
  for (const run::PromptRecord& p : out_.run.prompts)
    if (!p.tokens.empty()) local_.n_expected += plan_.n_points * (1 + p.steps_asked);
  for (size_t i = 0; i < out_.run.prompts.size() && !stopped_; i++) PB_TRY(RunPrompt(i));
  if (judge_) judge_->Conclude(stopped_ ? nullptr : &engine_.engine());
  Judge();
  std::set<int32_t> ids;
  for (const run::PromptRecord& p : out_.run.prompts) {
    ids.insert(p.tokens.begin(), p.tokens.end());
    ids.insert(p.decoded.begin(), p.decoded.end());
  }
  for (int32_t id : ids) {
    auto text = arbiter_ ? arbiter_->Detokenize(id) : Result<std::string>(Error{Code::kNotFound, ""});
    if (text.ok()) out_.run.token_text[id] = std::move(text).value();
  }
  out_.run.wall_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return std::move(out_);
}

}  // namespace

Result<Audit> RunAudit(const AuditRequest& request) { return AuditRun(request).Run(); }

}  // namespace pb::audit
