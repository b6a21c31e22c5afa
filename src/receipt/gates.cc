// What each gate asks of a receipt, and in which words it answers.
#include "receipt/gates.h"

#include <algorithm>
#include <map>
#include <set>

#include "receipt/check.h"
#include "receipt/fields.h"
#include "receipt/rejudge.h"
#include "receipt/schema.h"
#include "receipt/self_gates.h"

namespace pb::receipt {
namespace {

using compare::Outcome;
using Json = nlohmann::json;

bool IsComparison(const Json& r) {
  return r["command"].get_ref<const std::string&>().starts_with("crossval");
}
bool IsAudit(const Json& r) { return r["command"] == "audit"; }
bool IsTraceDiff(const Json& r) { return r["command"] == "trace-diff"; }
bool IsBenchmark(const Json& r) { return r["command"] == "benchmark"; }

Gate Integrity(const Opened& opened, const std::vector<std::string>& violations) {
  Check check("integrity");
  if (opened.object.is_object() && !opened.object.contains("schema") &&
      (opened.object.contains("schema_version") || opened.object.contains("compute_path") ||
       opened.object.contains("version")))
    check.Fail(Outcome::kInvalid,
               "it is a receipt of the documented system, whose fields anyone can write: nothing in it is "
               "bound to a run; run the comparison with --receipt");
  if (!opened.problem.empty()) check.FailWith(Outcome::kInvalid, opened.problem);
  for (const std::string& violation : violations)
    check.FailWith(Outcome::kInvalid, "the schema: " + violation);
  return check.End(fmt::format("paritybit.receipt/1, canonical, sha256 {:.16}", opened.digest));
}

// Engines that compute nothing, or something wrong on purpose.
bool IsMock(std::string name) {
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  constexpr const char* kWords[] = {"mock", "fake", "dummy", "stub", "faulty", "mutant"};
  return std::any_of(std::begin(kWords), std::end(kWords),
                     [&](const char* word) { return name.find(word) != std::string::npos; });
}

bool IsOnGpu(const Json& engine) {
  constexpr const char* kKinds[] = {"cuda", "rocm", "hip", "vulkan", "metal", "sycl", "gpu"};
  for (const char* list : {"description", "session_facts"})
    for (const char* key : {"backend", "device", "isa"}) {
      std::string value = FactOf(engine, list, key);
      for (char& c : value) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      for (const char* kind : kKinds)
        if (value.find(kind) != std::string::npos) return true;
    }
  return false;
}

// `recorded`: a trace stands for it. A self-check commits its defects in an engine that is wrong on
// purpose.
void CheckEngine(const Json& engine, bool recorded, bool mutant, Check* check) {
  const std::string& role = engine["role"].get_ref<const std::string&>();
  const std::string name = FactOf(engine, "description", "name");
  if (!engine["error"].is_null())
    return check->Fail(Outcome::kEngineFailed, "the {} failed: {}", role, engine["error"].get<std::string>());
  if (!recorded && engine["plugin_sha256"] == "")
    return check->Fail(Outcome::kIncomplete, "no {} ran: {} was never there", role,
                       engine["spec"].get<std::string>());
  if (name.empty() || engine["identity"] == "")
    return check->Fail(Outcome::kInvalid, "the {} does not say what it is", role);
  if (IsMock(name) && !(mutant && role == "mutant"))
    return check->Fail(Outcome::kInvalid, "the {} is {}, which computes no model", role, name);
  for (const auto& [key, fact] : engine["description"].items()) {
    if (!key.starts_with("path.") || recorded) continue;
    if (FactOf(engine, "description", "digest." + key.substr(5)).size() != 64)
      check->Fail(Outcome::kInvalid, "the {} loaded {}, and its digest is missing", role,
                  fact["value"].get<std::string>());
  }
}

// "llama.cpp v0.5.0 (haswell)".
std::string EngineName(const Json& engine) {
  const std::string version = FactOf(engine, "description", "version"),
                    isa = FactOf(engine, "description", "isa");
  return fmt::format("{}{}{}", FactOf(engine, "description", "name"), version.empty() ? "" : " " + version,
                     isa.empty() ? "" : fmt::format(" ({})", isa));
}

void CheckLogitsDigests(const Json& r, Check* check) {
  for (size_t i = 0; i < r["prompts"].size(); ++i) {
    const Json& digests = r["prompts"][i]["logits_sha256"];
    const bool there =
        digests.is_object() ? digests["candidate"] != "" && digests["reference"] != "" : digests != "";
    if (!there) check->Fail(Outcome::kIncomplete, "prompt {}: an engine gave no logits", i);
  }
}

Gate Computation(const Json& r, const Here& here) {
  Check check("computation");
  const Json& engines = r["engines"];
  for (const Json& engine : engines) CheckEngine(engine, IsTraceDiff(r), IsSelfCheck(r), &check);
  if (IsComparison(r) || IsAudit(r)) CheckLogitsDigests(r, &check);
  if (r["model"]["sha256"] == "" && !IsSelfCheck(r))
    check.Fail(Outcome::kIncomplete, "the digest of the model is missing");
  if (here.require_gpu && std::none_of(engines.begin(), engines.end(), IsOnGpu))
    check.Fail(Outcome::kIncomplete, "no engine computed on a GPU: {}", EngineName(engines[0]));
  if (IsBenchmark(r) || IsNoise(r)) return check.End(fmt::format("{} ran", EngineName(engines[0])));
  if (IsSelfCheck(r))
    return check.End(fmt::format("{} ran, by the digests of their libraries",
                                 Plural(static_cast<int64_t>(engines.size()), "engine")));
  const auto sameness = [&](const char* key) { return engines[0][key] == engines[1][key]; };
  const bool same = sameness("identity") && sameness("settings") && sameness("session_facts") &&
                    engines[0]["model"]["sha256"] == engines[1]["model"]["sha256"];
  if (same && !IsAudit(r) && engines[0]["identity"] != "")
    check.Fail(
        Outcome::kIncomplete,
        "the reference is the candidate itself, of the same libraries, settings and model, so this shows "
        "that it repeats and nothing more");
  return check.End(fmt::format("{} {} {}, by the digests of their libraries", EngineName(engines[0]),
                               IsAudit(r) ? "judged by" : "and", EngineName(engines[1])));
}

// Positions that a prompt was to give.
int64_t Asked(const Json& prompt) {
  return static_cast<int64_t>(prompt["tokens"].size()) + prompt["steps_asked"].get<int64_t>();
}

void CheckRowCounts(const Json& r, Check* check) {
  std::map<int64_t, int64_t> rows;
  for (const Json& row : r["positions"]) ++rows[row["prompt"]];
  for (size_t i = 0; i < r["prompts"].size(); ++i) {
    const int64_t asked = Asked(r["prompts"][i]), there = rows[static_cast<int64_t>(i)];
    if (there != asked)
      check->Fail(there < asked ? Outcome::kIncomplete : Outcome::kInvalid,
                  "prompt {}: {} of {} positions were compared", i, there, asked);
  }
}

// Points of a prefill stand there one by one, of decode steps the worst of each: what is counted as
// compared must be there.
void CheckPointCounts(const Json& r, Check* check) {
  std::map<int64_t, std::set<std::pair<std::string, int64_t>>> prefill, decode;
  for (const Json& p : r["points"])
    (p["step"] == 0 ? prefill : decode)[p["prompt"]].emplace(p["stage"], p["layer"]);
  int64_t there = 0;
  for (size_t i = 0; i < r["prompts"].size(); ++i) {
    const auto prompt = static_cast<int64_t>(i);
    const auto n_steps = static_cast<int64_t>(r["prompts"][i]["decoded"].size());
    there += static_cast<int64_t>(prefill[prompt].size());
    there += n_steps * static_cast<int64_t>(decode[prompt].size());
  }
  const int64_t compared = r["coverage"]["compared"];
  if (compared > there)
    check->Fail(Outcome::kInvalid, "{} ops are counted as compared, and the receipt shows {}", compared,
                there);
}

Gate Coverage(const Json& r) {
  if (IsNoise(r)) return NoiseCoverage(r);
  if (IsSelfCheck(r)) return SelfCheckCoverage(r);
  Check check("coverage");
  const Json& c = r["coverage"];
  const int64_t expected = c["expected"], compared = c["compared"];
  const std::string unit = c["unit"];
  if (r.contains("prompts") && r["prompts"].empty())
    check.Fail(Outcome::kIncomplete, "there is no prompt, so nothing was compared");
  if (r.contains("prompts"))
    for (size_t i = 0; i < r["prompts"].size(); ++i)
      if (r["prompts"][i]["tokens"].empty()) check.Fail(Outcome::kIncomplete, "prompt {} has no tokens", i);
  if (compared == 0 || expected == 0) check.Fail(Outcome::kIncomplete, "no {} were compared", unit);
  if (compared != expected)
    check.Fail(compared < expected ? Outcome::kIncomplete : Outcome::kInvalid, "{} of {} {} were compared",
               compared, expected, unit);
  for (const char* list : {"missing", "unmapped"})
    for (const Json& name : c[list])
      check.Fail(Outcome::kIncomplete, "{}: {}", list, name.get<std::string>());
  if (IsComparison(r)) CheckRowCounts(r, &check);
  if (r["scope"] == "local" && (IsComparison(r) || IsAudit(r))) CheckPointCounts(r, &check);
  std::string saw = fmt::format("{} of {} {}", compared, expected, unit);
  if (const auto n = static_cast<int64_t>(c["unobservable"].size()); n > 0)
    saw += fmt::format(", {} that an engine does not show", Plural(n, "stage"));
  if (const auto n = IsComparison(r) ? static_cast<int64_t>(r["paths"]["not_taken"].size()) : 0; n > 0)
    saw += fmt::format(", {} not gone through", Plural(n, "code path"));
  return check.End(std::move(saw));
}

// Each row is of the token that was fed there, in order; a decode step's is what the reference chose.
void CheckRowTokens(const Json& r, Check* check) {
  std::map<int64_t, int64_t> next;
  std::map<int64_t, int64_t> choice;
  for (const Json& row : r["positions"]) {
    const int64_t prompt = row["prompt"], position = row["position"];
    if (static_cast<size_t>(prompt) >= r["prompts"].size())
      return check->Fail(Outcome::kInvalid, "a position is of prompt {}, which there is not", prompt);
    const Json& p = r["prompts"][static_cast<size_t>(prompt)];
    const auto n_prefill = static_cast<int64_t>(p["tokens"].size());
    const bool decode = position >= n_prefill;
    if (position != next[prompt]++ || (row["phase"] == "decode") != decode)
      return check->Fail(Outcome::kInvalid, "prompt {}: position {} is out of order", prompt, position);
    const Json& fed = decode ? p["decoded"] : p["tokens"];
    const auto at = static_cast<size_t>(decode ? position - n_prefill : position);
    if (at >= fed.size() || fed[at] != row["token"])
      return check->Fail(Outcome::kInvalid, "prompt {}, position {}: the token is not the one that was fed",
                         prompt, position);
    if (decode && choice[prompt] != row["token"])
      return check->Fail(Outcome::kInvalid, "prompt {}, position {}: the token is not the reference's choice",
                         prompt, position);
    choice[prompt] = row["top1"]["reference"];
  }
}

Gate Tokens(const Json& r) {
  if (IsNoise(r)) return NoiseTokens(r);
  if (IsSelfCheck(r)) return SelfCheckTokens(r);
  Check check("tokens");
  int64_t n = 0;
  if (IsTraceDiff(r)) {
    const Json &a = r["traces"][0]["tokens"], &b = r["traces"][1]["tokens"];
    if (a.empty() || b.empty())
      check.Fail(Outcome::kIncomplete, "a trace does not say which tokens it is of");
    if (a != b)
      check.Fail(Outcome::kInvalid, "the traces are of different tokens: {} and {}", a.size(), b.size());
    return check.End(fmt::format("{} in both traces, equal", a.size()));
  }
  if (IsBenchmark(r)) {
    n = static_cast<int64_t>(r["benchmark"]["prompt_tokens"].size());
    if (n == 0) check.Fail(Outcome::kIncomplete, "the prompt has no tokens");
    return check.End(fmt::format("{} of the prompt, {} generated", n, r["benchmark"]["tokens"].size()));
  }
  for (size_t i = 0; i < r["prompts"].size(); ++i) {
    const Json& p = r["prompts"][i];
    n += static_cast<int64_t>(p["tokens"].size() + p["decoded"].size());
    const bool equal = IsAudit(r) ? p["tokens"] == p["tokens_by_the_model"]
                                  : p["tokens"] == p["tokens_candidate"] &&
                                        p["tokens"] == p["tokens_reference"] && p["tokens_equal"].get<bool>();
    if (!equal) check.Fail(Outcome::kInvalid, "prompt {}: the ids are not the same on both sides", i);
    if (p["decoded"].size() != p["steps_asked"].get<size_t>())
      check.Fail(Outcome::kIncomplete, "prompt {}: {} of {} decode steps were run", i, p["decoded"].size(),
                 p["steps_asked"].get<size_t>());
  }
  if (n == 0) check.Fail(Outcome::kIncomplete, "there is no token");
  if (IsComparison(r)) CheckRowTokens(r, &check);
  return check.End(fmt::format("{} ids, equal on both sides", n));
}

void Take(const Judged& judged, Check* check) {
  for (const std::string& text : judged.contradictions) check->FailWith(Outcome::kInvalid, text);
  for (const std::string& text : judged.unjudged) check->FailWith(Outcome::kIncomplete, text);
  for (const std::string& text : judged.beyond) check->FailWith(Outcome::kDiverged, text);
}

// The logits of two traces, where these tell them.
Gate LogitsOfTraces(const Json& r) {
  Check check("logits");
  const Json& l = r["logits"];
  if (l.is_null()) {
    if (r["n_equal"] != r["coverage"]["compared"] || r["points"].empty())
      check.Fail(Outcome::kIncomplete, "the traces do not tell their logits");
    return check.End("every tensor has equal bits, the logits among them");
  }
  const auto worst = Number(l["worst_kl"]);
  if (!worst || l["n_positions"] == 0)
    check.Fail(Outcome::kInvalid, "logits are NaN or infinite, or of no position");
  for (const Json& limit : r["limits"])
    if (limit["name"] == "kl.worst" && worst && !(*worst <= Number(limit["value"]).value_or(-1)))
      check.Fail(Outcome::kDiverged, "the worst KL is {:.1e}, limit {:.1e}", *worst,
                 Number(limit["value"]).value_or(-1));
  return check.End(
      fmt::format("{} positions, worst KL {:.1e}", l["n_positions"].get<int64_t>(), worst.value_or(0)));
}

Gate Logits(const Json& r) {
  if (IsNoise(r)) return NoiseLogits(r);
  if (IsSelfCheck(r)) return SelfCheckLogits(r);
  Check check("logits");
  if (IsBenchmark(r)) {
    if (r["benchmark"]["tokens"].empty()) check.Fail(Outcome::kIncomplete, "nothing was generated");
    return check.End("every token was chosen from finite logits; no engine beside it to compare them with");
  }
  if (IsTraceDiff(r)) return LogitsOfTraces(r);
  if (IsAudit(r)) {
    const bool judged = std::any_of(r["points"].begin(), r["points"].end(), [](const Json& p) {
      return p["stage"] == "logits" && Number(p["bound"]).value_or(1) > 0;
    });
    if (!judged) check.Fail(Outcome::kIncomplete, "the logits were not judged");
    return check.End("judged as the last of the ops");
  }
  const Judged judged = JudgeLogitsAgain(r);
  Take(judged, &check);
  return check.End(judged.saw);
}

Gate Ops(const Json& r) {
  Check check("ops");
  std::string saw = "no op was compared";
  const bool local = r["scope"] == "local";
  if (local && (IsComparison(r) || IsAudit(r))) {
    const Judged judged = JudgeOpsAgain(r);
    Take(judged, &check);
    saw = judged.saw;
  } else if (IsTraceDiff(r)) {
    const auto n = std::count_if(r["points"].begin(), r["points"].end(),
                                 [](const Json& p) { return p["own_error"]["state"] == "above"; });
    if (n > 0) check.Fail(Outcome::kDiverged, "{} beyond what rounding explains", Plural(n, "op"));
    saw =
        fmt::format("{} of {} have equal bits, none is beyond what rounding explains",
                    r["n_equal"].get<int64_t>(), Plural(static_cast<int64_t>(r["points"].size()), "tensor"));
  } else if (IsComparison(r)) {
    saw = "none was compared: the scope is logits-only";
  } else if (IsNoise(r)) {
    for (const std::string& text : NoiseContradictions(r)) check.FailWith(Outcome::kInvalid, text);
    saw = "none was compared: the engine was measured against itself";
  } else if (IsSelfCheck(r)) {
    for (const std::string& text : SelfCheckContradictions(r, &saw)) check.FailWith(Outcome::kInvalid, text);
  }
  for (const std::string& text : VerdictContradictions(r)) check.FailWith(Outcome::kInvalid, text);
  const auto outcome = compare::FindOutcome(r["verdict"].get<std::string>());
  if (outcome && compare::ExitCode(*outcome) != 0)
    check.Fail(*outcome, "the verdict is {}: {}", r["verdict"].get<std::string>(),
               r["reasons"][0]["text"].get<std::string>());
  return check.End(
      fmt::format("{}; the verdict, {}, follows from the figures", saw, r["verdict"].get<std::string>()));
}

// Both runs of an engine gave the same bits: with every point watched and with none, or, where it was
// not watched, the same again. Whether it was watched.
bool CheckRepeat(const Json& prompt, size_t i, const char* role, Check* check) {
  const bool audited = prompt["logits_sha256"].is_string();
  const Json& logits = audited ? prompt["logits_sha256"] : prompt["logits_sha256"][role];
  const Json& tapped = audited ? prompt["logits_sha256_tapped"] : prompt["logits_sha256_tapped"][role];
  const Json& untapped = audited ? logits : prompt["logits_sha256_untapped"][role];
  const bool watched = !tapped.is_null() && tapped != "";
  const Json again = watched ? tapped : audited ? Json() : prompt["logits_sha256_repeated"][role];
  if (again.is_null())
    check->Fail(Outcome::kIncomplete, "prompt {}: the {} ran once, so nothing shows that it repeats", i,
                role);
  else if (again != (watched ? untapped : logits))
    check->Fail(Outcome::kIncomplete, "prompt {}: the {}'s logits were others in the second run", i, role);
  return watched;
}

Gate Determinism(const Json& r) {
  if (IsNoise(r)) return NoiseDeterminism(r);
  if (IsSelfCheck(r)) return SelfCheckDeterminism(r);
  Check check("determinism");
  if (IsBenchmark(r)) {
    const Json& digests = r["benchmark"]["tokens_sha256"];
    if (digests.size() < 2) check.Fail(Outcome::kIncomplete, "one repeat shows no spread");
    for (const Json& digest : digests)
      if (digest != digests[0]) check.Fail(Outcome::kIncomplete, "a repeat generated other tokens");
    return check.End(fmt::format("{} repeats generated the same tokens", digests.size()));
  }
  if (IsTraceDiff(r)) {
    for (const Json& t : r["traces"])
      if (t["logits_blake3"] == "" || t["logits_blake3"] != t["logits_blake3_untapped"])
        check.Fail(Outcome::kIncomplete, "the {}'s logits were not the same with and without taps",
                   t["role"].get<std::string>());
    return check.End("both were recorded beside a run without taps, with the same logits");
  }
  bool watched = true;
  for (size_t i = 0; i < r["prompts"].size(); ++i)
    for (const char* role : {"candidate", "reference"}) {
      const bool audited = IsAudit(r);
      if (audited && role == std::string_view("reference")) continue;
      watched &= CheckRepeat(r["prompts"][i], i, audited ? "engine" : role, &check);
    }
  if (r["prompts"].empty()) check.Fail(Outcome::kIncomplete, "nothing ran");
  return check.End(fmt::format("a second run of each engine{} gave the same bits",
                               watched ? ", every point watched," : ", nothing watched,"));
}

Gate Identity(const Json& r, const Here& here) {
  Check check("identity");
  const auto created = SecondsOf(r["created"].get<std::string>());
  constexpr int64_t kClockSkew = 600, kDay = 86400;
  if (!created)
    return check.Fail(Outcome::kInvalid, "{} is no time", r["created"].get<std::string>()), check.End("");
  if (*created > here.now + kClockSkew)
    check.Fail(Outcome::kInvalid, "it is of {}, which is yet to come", r["created"].get<std::string>());
  const double age_days = static_cast<double>(here.now - *created) / kDay;
  if (here.max_age_days && age_days > *here.max_age_days)
    check.Fail(Outcome::kIncomplete, "it is stale: {:.1f} days old, {:g} are allowed", age_days,
               *here.max_age_days);
  int64_t n_same = 0, n_absent = 0, n_other = 0;
  for (const FileHere& file : here.files) {
    const bool same = file.found == file.recorded;
    n_same += same, n_absent += file.found.empty(), n_other += !same && !file.found.empty();
    if (same || here.as_recorded) continue;
    if (!file.found.empty())
      check.Fail(Outcome::kIncomplete,
                 "it is stale: {} is another one by now ({}: sha256 {:.12}, then {:.12})", file.what,
                 file.path, file.found, file.recorded);
    else if (here.files_must_be_here)
      check.Fail(Outcome::kIncomplete, "{} is not here ({}), so it is not known whether it is still that one",
                 file.what, file.path);
  }
  std::string saw = fmt::format("of {}; {} still what {} then", r["created"].get<std::string>(),
                                n_same == 1 ? "1 file is" : fmt::format("{} files are", n_same),
                                n_same == 1 ? "it was" : "they were");
  if (n_absent > 0) saw += fmt::format(", {} not here", n_absent);
  if (n_other > 0) saw += fmt::format(", {} other by now, which was not to count", n_other);
  return check.End(std::move(saw));
}

}  // namespace

std::vector<FileHere> FilesOf(const Json& r) {
  std::vector<FileHere> files;
  const auto add = [&](std::string what, const std::string& path, const std::string& digest) {
    const bool known = std::any_of(files.begin(), files.end(),
                                   [&](const FileHere& f) { return f.path == path && f.recorded == digest; });
    if (!known && !path.empty() && digest.size() == 64) files.push_back({std::move(what), path, digest, ""});
  };
  if (IsSelfCheck(r))
    for (const Json& model : r["models"])
      add(model["path"].get<std::string>(), model["path"], model["sha256"]);
  for (const Json& engine : r["engines"]) {
    const std::string role = engine["role"];
    add("the model", engine["model"]["path"], engine["model"]["sha256"]);
    add(fmt::format("the {}'s adapter", role), engine["plugin"], engine["plugin_sha256"]);
    for (const auto& [key, fact] : engine["description"].items())
      if (key.starts_with("path.") && key != "path.trace")
        add(fmt::format("the {}'s {}", role, key.substr(5)), fact["value"],
            FactOf(engine, "description", "digest." + key.substr(5)));
  }
  return files;
}

std::vector<Gate> CheckGates(const Opened& opened, const Here& here) {
  constexpr const char* kOthers[] = {"computation", "coverage",    "tokens",  "logits",
                                     "ops",         "determinism", "identity"};
  std::vector<std::string> violations;
  if (opened.object.is_object()) violations = ReceiptViolations(opened.object);
  std::vector<Gate> gates = {Integrity(opened, violations)};
  if (!opened.object.is_object() || !violations.empty()) {
    for (const char* name : kOthers)
      gates.push_back({name, false, Outcome::kInvalid, "not tried, as the receipt cannot be read"});
    return gates;
  }
  const Json& r = opened.object;
  gates.push_back(Computation(r, here));
  gates.push_back(Coverage(r));
  gates.push_back(Tokens(r));
  gates.push_back(Logits(r));
  gates.push_back(Ops(r));
  gates.push_back(Determinism(r));
  gates.push_back(Identity(r, here));
  return gates;
}

Outcome OutcomeOf(const std::vector<Gate>& gates, const Json& receipt) {
  Outcome worst = Outcome::kMatch;
  for (const Gate& gate : gates)
    if (!gate.passed) worst = std::max(worst, gate.outcome);
  if (worst != Outcome::kMatch) return worst;
  return compare::FindOutcome(receipt["verdict"].get<std::string>()).value_or(Outcome::kMatch);
}

}  // namespace pb::receipt
