// Which defects are committed where, and which harmless changes are made.
#include <algorithm>
#include <set>

#include "base/random.h"
#include "selfcheck/cases.h"

namespace pb::selfcheck {

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    if (end > at) parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

drive::EngineSpec With(drive::EngineSpec spec, const host::Settings& settings) {
  for (const auto& [key, value] : settings) {
    drive::PutSetting(spec.settings, key, value);
    spec.text += fmt::format(",{}={}", key, value);
  }
  return spec;
}

int32_t StageOf(std::string_view name) {
  for (const pb_stage_info& info : pb_vocabulary)
    if (name == info.name) return info.stage;
  return PB_STAGE_UNMAPPED;
}

namespace {

// What the mutant says that it can do wrong on a model.
struct Entry {
  std::string name, kind;
  std::vector<std::string> stages, truths;
};

Result<std::vector<Entry>> AskCatalogue(const SelfCheckRequest& request, const std::filesystem::path& model,
                                        int64_t* n_layers) {
  PB_ASSIGN(auto engine, host::Engine::Start(request.mutant.plugin, request.mutant.settings, request.limits));
  PB_ASSIGN(host::Facts facts, engine->OpenModel(model));
  *n_layers = trace::ReadModelFacts(facts).n_layers;
  constexpr std::string_view kPrefix = "defect.";
  std::vector<Entry> entries;
  for (const host::Fact& fact : facts) {
    if (!fact.key.starts_with(kPrefix)) continue;
    const size_t first = fact.value.find('|'), second = fact.value.find('|', first + 1);
    if (second == std::string::npos)
      return MakeError(Code::kEngine, "{}: \"{}\" is no entry of a catalogue", fact.key, fact.value);
    entries.push_back({fact.key.substr(kPrefix.size()), fact.value.substr(0, first),
                       Split(fact.value.substr(first + 1, second - first - 1), ' '),
                       Split(fact.value.substr(second + 1), ' ')});
  }
  if (entries.empty())
    return MakeError(Code::kEngine, "{}: the engine tells no catalogue of defects", request.mutant.text);
  return entries;
}

class Planner {
 public:
  explicit Planner(const SelfCheckRequest& request) : request_(request) {}

  Result<std::vector<SelfCase>> Plan() {
    for (const auto& [model, foreign, rest] : request_.models) {
      name_ = model.stem().string(), model_ = model, foreign_ = foreign && request_.reference;
      rest_ = rest;
      int64_t n_layers = 0;
      PB_ASSIGN(std::vector<Entry> entries, AskCatalogue(request_, model, &n_layers));
      const std::set<int32_t> layers{0, static_cast<int32_t>(n_layers / 2),
                                     static_cast<int32_t>(n_layers - 1)};
      for (const Entry& entry : entries) {
        const bool harmless = entry.kind.starts_with("benign"), of_these = entry.kind == "benign";
        // The arithmetic of compilers and libraries is beside what is generated, op by op.
        if (request_.generated.n_cases > 0 && harmless) Harmless(entry, !of_these);
        if (request_.generated.n_cases > 0 || (harmless && !of_these)) continue;
        harmless ? Harmless(entry, true) : Defects(entry, layers);
      }
      if (request_.generated.n_cases > 0) continue;
      Disturbed();
      if (foreign_) Foreign();
    }
    return std::move(cases_);
  }

 private:
  void Push(SelfCase c) {
    c.model = model_;
    c.key = name_ + " " + c.key;
    if (!request_.filter.empty() && c.key.find(request_.filter) == std::string::npos) return;
    cases_.push_back(std::move(c));
  }

  void Defects(const Entry& entry, const std::set<int32_t>& layers) {
    SelfCase c;
    c.kind = entry.kind, c.defect = entry.name, c.truths = entry.truths, c.reference = request_.native;
    host::Settings settings{{"mutant.defect", entry.name}};
    if (entry.kind == "tokens" && rest_) return;
    if (entry.kind == "tokens") {
      c.key = entry.name, c.candidate = With(request_.mutant, settings);
      return Push(std::move(c));
    }
    for (const std::string& told : entry.stages) {
      // "attn_scores" of all layers, "attn_scores@0,2" of these.
      const size_t at = std::min(told.find('@'), told.size());
      const std::string stage = told.substr(0, at);
      const std::vector<std::string> own = Split(told.substr(std::min(at + 1, told.size())), ',');
      if (!planned_.insert({entry.name, stage}).second && rest_) continue;
      c.stage = StageOf(stage);
      const bool per_layer = c.stage >= 0 && pb_vocabulary[c.stage].per_layer;
      for (int32_t layer : per_layer ? layers : std::set<int32_t>{-1}) {
        const bool exists =
            own.empty() || std::find(own.begin(), own.end(), std::to_string(layer)) != own.end();
        if (!exists) continue;
        c.layer = layer;
        settings = {{"mutant.defect", entry.name}, {"mutant.stage", stage}};
        if (per_layer) settings.emplace_back("mutant.layer", std::to_string(layer));
        c.candidate = With(request_.mutant, settings);
        c.key = per_layer ? fmt::format("layer {} {} {}", layer, stage, entry.name)
                          : fmt::format("{} {}", stage, entry.name);
        Push(c);
      }
    }
  }

  void PushHarmless(const std::string& what, const drive::EngineSpec& candidate,
                    const drive::EngineSpec& reference) {
    SelfCase c;
    c.kind = "benign", c.benign = true, c.defect = c.key = what, c.candidate = candidate,
    c.reference = reference;
    Push(std::move(c));
  }

  // The mutant's own, op by op in all layers where these are asked for (they exist in all layers),
  // and everywhere at once.
  void Harmless(const Entry& entry, bool op_by_op) {
    constexpr int kSeeds = 6;
    for (const std::string& stage : op_by_op ? entry.stages : std::vector<std::string>())
      if (planned_.insert({entry.name, stage}).second || !rest_)
        PushHarmless(fmt::format("{} {}", stage, entry.name),
                     With(request_.mutant, {{"mutant.defect", entry.name}, {"mutant.stage", stage}}),
                     request_.native);
    for (int seed = 1; seed <= (entry.name == "benign_ulp" ? kSeeds : 1); seed++) {
      const drive::EngineSpec everywhere =
          With(request_.mutant, {{"mutant.defect", entry.name}, {"mutant.seed", std::to_string(seed)}});
      PushHarmless(fmt::format("everywhere {}, seed {}", entry.name, seed), everywhere, request_.native);
      if (foreign_)
        PushHarmless(
            fmt::format("everywhere {}, seed {}, against {}", entry.name, seed, request_.reference->text),
            everywhere, *request_.reference);
    }
  }

  void Disturbed() {
    constexpr int kSeeds = 10;
    for (int seed = 1; seed <= kSeeds; seed++)
      PushHarmless(fmt::format("native noise.seed={}", seed),
                   With(request_.native, {{"noise.seed", std::to_string(seed)}}), request_.native);
  }

  // A foreign engine against itself under other libraries, batches and random rounding, and the
  // native one against it.
  void Foreign() {
    const drive::EngineSpec& engine = *request_.reference;
    PushHarmless("native against " + engine.text, request_.native, engine);
    for (const char* library : {"x64", "sse42", "haswell"}) {
      const drive::EngineSpec other = With(engine, {{"cpu.library", library}});
      PushHarmless(other.text + " against itself", other, engine);
      PushHarmless("native against " + other.text, request_.native, other);
    }
    for (const char* rows : {"1", "3"}) {
      const drive::EngineSpec other = With(engine, {{"ubatch", rows}});
      PushHarmless(other.text + " against itself", other, engine);
    }
    for (int seed = 11; seed <= 18; seed++) {
      const host::Settings noise{{"noise.seed", std::to_string(seed)}};
      const drive::EngineSpec other = With(engine, noise);
      PushHarmless(other.text + " against itself", other, engine);
      PushHarmless(fmt::format("native noise.seed={} against {}", seed, engine.text),
                   With(request_.native, noise), engine);
    }
  }

  const SelfCheckRequest& request_;
  std::string name_;
  std::filesystem::path model_;
  bool foreign_ = false, rest_ = false;
  std::set<std::pair<std::string, std::string>> planned_;  // defects at stages
  std::vector<SelfCase> cases_;
};

// Of each kind a share, chosen by the seed; at least one.
std::vector<SelfCase> Sample(std::vector<SelfCase> cases, double share, uint64_t seed) {
  if (share >= 1) return cases;
  std::map<std::string, std::vector<std::pair<uint64_t, size_t>>> by_kind;
  for (size_t i = 0; i < cases.size(); i++) {
    uint64_t order = seed;
    for (char c : cases[i].key) order = Random(order ^ static_cast<unsigned char>(c)).Next();
    by_kind[cases[i].kind].emplace_back(order, i);
  }
  std::set<size_t> chosen;
  for (auto& [kind, members] : by_kind) {
    std::sort(members.begin(), members.end());
    const auto n = static_cast<size_t>(std::max(1.0, share * static_cast<double>(members.size()) + 0.5));
    for (size_t i = 0; i < std::min(n, members.size()); i++) chosen.insert(members[i].second);
  }
  std::vector<SelfCase> sampled;
  for (size_t i : chosen) sampled.push_back(std::move(cases[i]));
  return sampled;
}

}  // namespace

Result<std::vector<SelfCase>> PlanSelfCheck(const SelfCheckRequest& request) {
  PB_ASSIGN(std::vector<SelfCase> cases, Planner(request).Plan());
  if (request.generated.n_cases > 0) {
    PB_ASSIGN(std::vector<SelfCase> generated, PlanGenerated(request));
    cases.insert(cases.begin(), std::make_move_iterator(generated.begin()),
                 std::make_move_iterator(generated.end()));
  }
  return Sample(std::move(cases), request.share, request.seed);
}

}  // namespace pb::selfcheck
