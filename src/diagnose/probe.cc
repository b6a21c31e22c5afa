// Runs an engine over chosen passes, watches one op and its inputs, and lets the arbiter judge it.
#include "diagnose/probe.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "diagnose/op_weights.h"
#include "diagnose/wrong_part.h"
#include "drive/participant.h"
#include "drive/passes.h"

namespace pb::diagnose {
namespace {

// Tokens at once, sequence by sequence: below, at and above the sizes at which engines change their
// code; a single token at position 0 shows little, and goes before others. Some mistakes of few tokens
// show behind others only.
const std::vector<std::vector<int64_t>> kSequences = {{1, 1, 1}, {2, 1}, {3},     {4},    {5, 1}, {6},
                                                      {7, 2, 1}, {8, 3}, {12, 4}, {15},   {16},   {17},
                                                      {24},      {31},   {32},    {33, 1}};
constexpr int64_t kMostBeside = 640;         // of a pass that a position or a size asks for
constexpr int64_t kBefore = 8;               // tokens before a pass of such a size
constexpr int kMostSizes = 12;               // that are looked for between those of the sequences
constexpr int kOtherTexts = 4;               // at the length of a pass of the run
constexpr int64_t kMostRows = 16;            // of wrong passes that are kept
constexpr uint64_t kCheapBytes = 256 << 20;  // of a model file
constexpr double kCheapWork = 2e7;           // multiply-adds of a product's row
constexpr double kLongWork = 2e8;            // of a pass that is made at the run's length

// Multiply-adds of a product's row; 0 where the op is none.
double WorkOfRow(const Probe& probe) {
  const int32_t stage = probe.culprit->place.stage;
  const OpWeights w = stage == PB_STAGE_EMBEDDINGS
                          ? OpWeights{}
                          : WeightsOf(probe.arbiter->model(), stage, probe.culprit->place.layer);
  return w.matrix ? double(w.matrix->n_rows) * double(w.matrix->n_columns) : 0;
}

class Prober {
 public:
  explicit Prober(const Probe& probe) : probe_(probe), engine_(record_, probe.limits) {
    for (size_t k = 0; k < probe.rivals.size(); k++)
      probed.explains.push_back(k == 0 || probe.rivals[k]->replay);
    const size_t n = probe.tokens.size();
    for (size_t i = 0; i < kMostBeside; i++) {
      tokens_.push_back(probe.tokens[i % n]);
      other_tokens_.push_back(probe.tokens[(i + 1 + n / 2) % n]);
    }
  }

  Status Run() {
    const drive::EngineRecord& side = *probe_.engine;
    // Passes have the sizes that are asked for, whatever the run cut its own into.
    host::Settings settings = side.settings;
    std::erase_if(settings, [](const auto& setting) { return setting.first == "ubatch"; });
    PB_TRY(engine_.Start({side.spec, side.plugin, settings}));
    PB_TRY(engine_.OpenModel(side.model_path));
    // No more than the run needed, as some models compute otherwise with more.
    room_ = std::clamp(static_cast<int64_t>(probe_.tokens.size()) + 1, kProbedTokens, kMostBeside);
    PB_TRY(engine_.OpenSessionWishing(drive::SessionWishes(settings, static_cast<size_t>(room_))));
    const Place& place = probe_.culprit->place;
    watched_ = {place.stage};
    for (const stages::Input& input : probe_.arbiter->ReplayInputs(static_cast<pb_stage>(place.stage)))
      AddWatched(input.stage);
    // Keys as they were before their rotation.
    for (const pb_stage stage : {PB_STAGE_K_PROJ, PB_STAGE_K_NORM})
      if (place.stage == PB_STAGE_ATTN_SCORES && probe_.arbiter->model().params().ops.Contains(stage))
        watched_.push_back(stage);
    if (std::ranges::count(watched_, PB_STAGE_LAYER_OUT)) watched_.push_back(PB_STAGE_EMBEDDINGS);
    const int64_t most = drive::PassRows({&record_});
    room_ = std::min(room_, most);
    for (const std::vector<int64_t>& sequence : kSequences) {
      if (*std::ranges::max_element(sequence) > most) continue;
      PB_TRY(RunSequence(sequence));
    }
    PB_TRY(RunAgainAtLength());
    PB_TRY(TryPosition());
    for (int i = 0; i < kMostSizes; i++) {
      const std::optional<int64_t> size = NextSize(AllPasses());
      if (!size || *size >= room_) break;
      if (kBefore + *size < room_) {
        PB_TRY(RunSequence({kBefore, *size, 1}));
      } else {
        PB_TRY(RunSequence({*size, 1}));
      }
    }
    KeepRows();
    return TryAgain();
  }

  Probed probed;

 private:
  // What is no point of its own is computed from what it reads: an activation, attention in one op.
  void AddWatched(pb_stage stage) {
    watched_.push_back(stage);
    const bool fused = stage == PB_STAGE_ATTN_SCORES || stage == PB_STAGE_ATTN_SCORES_SOFTMAX;
    const bool shown = probe_.culprit->inputs.Output(stage, probe_.culprit->place.layer);
    if (!stages::kActivations.Contains(stage) && !(fused && !shown)) return;
    for (const stages::Input& input : probe_.arbiter->ReplayInputs(stage)) AddWatched(input.stage);
  }

  Status RunSequence(const std::vector<int64_t>& sequence) {
    PB_TRY(engine_.Reset());
    inputs_.Clear();
    int64_t at = 0;
    for (const int64_t n : sequence) {
      PB_TRY(RunPass(at, n));
      at += n;
    }
    return {};
  }

  std::vector<SeenPass> AllPasses() const {
    std::vector<SeenPass> passes(probe_.passes.begin(), probe_.passes.end());
    passes.insert(passes.end(), probed.passes.begin(), probed.passes.end());
    return passes;
  }

  // A pass of the run that is longer, or further on, where none of these is wrong; and its tokens as one
  // pass, with others: where the mistake does not show in all rows one text may leave open where it
  // begins.
  Status RunAgainAtLength() {
    if (std::ranges::any_of(probed.passes, &SeenPass::wrong)) return {};
    const SeenPass* run = nullptr;  // the longest
    for (const SeenPass& p : probe_.passes) {
      const bool further = p.wrong && p.end() > kProbedTokens && p.end() <= room_;
      if (further && (!run || p.n_tokens > run->n_tokens)) run = &p;
    }
    if (!run || WorkOfRow(probe_) * static_cast<double>(run->end()) > kLongWork) return {};
    if (run->first_position > 0) {
      PB_TRY(RunSequence({run->first_position, run->n_tokens}));
    } else {
      PB_TRY(RunSequence({run->n_tokens}));
    }
    for (int text = 0; text < kOtherTexts; text++) {
      PB_TRY(RunWithOthers(run->end()));
      std::ranges::rotate(other_tokens_, other_tokens_.begin() + 7);
    }
    return {};
  }

  // Whether rows are wrong from the same position on where other tokens stand.
  Status TryPosition() {
    const int64_t from = FirstWrongPosition(AllPasses()), n = std::min(from + 8, room_);
    if (from < 0 || from >= n || probe_.tokens.size() < 3) return {};
    return RunWithOthers(n);
  }
  Status RunWithOthers(int64_t n) {
    std::swap(tokens_, other_tokens_), other_ = true;
    Status status = RunSequence({n});
    std::swap(tokens_, other_tokens_), other_ = false;
    return status;
  }

  // Wrong passes of two sizes, each twice: whether the op gives the same of equal inputs.
  Status TryAgain() {
    std::vector<int64_t> sizes;
    // The largest: of few rows the same may be hit twice.
    for (size_t i = probed.passes.size(); i-- > 0;) {
      const SeenPass& p = probed.passes[i];
      const bool first = p.first_position == 0 && p.n_tokens > 1;
      if (p.wrong && first && sizes.size() < 2 && std::ranges::find(sizes, p.n_tokens) == sizes.end())
        sizes.push_back(p.n_tokens);
    }
    for (const int64_t n : sizes) {
      first_.reset(), again_ = true;
      PB_TRY(RunSequence({n}));
      PB_TRY(RunSequence({n}));
      again_ = false;
    }
    return {};
  }

  Status RunPass(int64_t first, int64_t n) {
    const Place& place = probe_.culprit->place;
    host::EvalRequest request;
    request.tokens.assign(tokens_.begin() + first, tokens_.begin() + first + n);
    request.first_position = static_cast<int32_t>(first);
    request.logits_from = static_cast<int32_t>(place.layer < 0 ? 0 : n);
    request.tap.stages = watched_;
    request.tap.outputs = true;
    inputs_.BeginPass(static_cast<int32_t>(first));
    Recorded pieces;  // of the logits
    return engine_.Evaluate(request, [&](const host::Event& event) -> Status {
      // Outside the layers the last of them is read.
      const bool behind = place.layer >= 0 && event.point.layer > place.layer;
      if (event.kind != host::Event::kPoint || behind) return {};
      const auto stage = static_cast<pb_stage>(event.point.stage);
      Recorded tensor{event.tensor.shape, {event.tensor.data.begin(), event.tensor.data.end()}};
      const bool whole = !tensor.shape.empty() && tensor.shape[0] == n;
      if (!whole && stage != PB_STAGE_LOGITS)
        return MakeError(Code::kUnsupported, "its points come in pieces");
      if (!whole) {
        if (pieces.shape.empty()) pieces.shape = tensor.shape, pieces.shape[0] = 0;
        pieces.shape[0] += tensor.shape[0];
        pieces.values.insert(pieces.values.end(), tensor.values.begin(), tensor.values.end());
        if (pieces.shape[0] < n) return {};
        tensor = std::move(pieces);
      }
      const bool here = event.point.stage == place.stage && event.point.layer == place.layer;
      Culprit op;
      if (here) {
        op.place = place, op.bound = probe_.culprit->bound, op.first_position = static_cast<int32_t>(first);
        op.shape = tensor.shape, op.reference = tensor.values;
      }
      inputs_.Add(stage, event.point.layer, std::move(tensor));
      if (!here || first + n <= 1) return {};
      op.inputs = inputs_;
      return again_ ? Compare(op) : Judge(op);
    });
  }

  std::span<const int32_t> TokensAt(const Culprit& op) const {
    return std::span(tokens_).subspan(static_cast<size_t>(op.first_position),
                                      static_cast<size_t>(op.shape[0]));
  }

  Subject SubjectOf(const Culprit& op, std::span<const float> output, const Expectation& expected) const {
    return {"", &op, probe_.arbiter, output, expected.output.values, expected.units, {}};
  }

  Status Judge(const Culprit& op) {
    PB_ASSIGN(const Expectation expected, probe_.arbiter->Expect(op, TokensAt(op), ""));
    const Agreement declared =
        probe_.arbiter->Compare(op, op.reference, expected.output.values, expected.units);
    const WrongPart wrong = FindWrongPart(SubjectOf(op, op.reference, expected));
    const int64_t first = op.first_position, n = op.shape[0];
    SeenPass pass{n, first, !declared.agrees, declared.row.first_row_above, 1};
    pass.other_tokens = other_;
    // Rows in which the mistake would show.
    std::vector<int64_t> shown;
    bool known = false;
    for (size_t k = 0; k < probe_.rivals.size(); k++) {
      if (!probe_.rivals[k]->replay) continue;
      const auto varied = probe_.rivals[k]->replay(op);
      if (!varied.ok() || varied->output.values.size() != op.reference.size()) continue;
      if (k == 0) known = true, shown = FindWrongPart(SubjectOf(op, varied->output.values, expected)).rows;
      if (pass.wrong) probed.explains[k] = probed.explains[k] && Explains(op, expected, *varied, wrong);
    }
    if (!pass.wrong && known && shown.empty()) return {};
    pass.shows = known;
    if (pass.wrong) Keep(op, wrong.rows);
    if (pass.wrong) {
      const auto is_wrong = [&](int64_t row) { return std::ranges::binary_search(wrong.rows, row); };
      if (!wrong.rows.empty()) pass.first_wrong = first + wrong.rows.front();
      for (int64_t row = 0; row < n; row++) {
        if (is_wrong(row) || (known && !std::ranges::binary_search(shown, row))) continue;
        if (first + row < pass.first_wrong) pass.last_right = first + row;
        if (first + row > pass.first_wrong) pass.mixed = true;
      }
    }
    probed.passes.push_back(pass);
    return {};
  }

  // Of a product these rows of a pass.
  void Keep(const Culprit& op, const std::vector<int64_t>& rows) {
    if (!stages::kProducts.Contains(op.place.stage)) return;
    auto inputs = probe_.arbiter->Inputs(op);
    if (!inputs.ok() || inputs->size() != 1) return;
    const Recorded& input = inputs->front();
    const auto add = [&](const std::vector<float>& from, int64_t row, std::vector<float>* to) {
      const auto width = static_cast<ptrdiff_t>(from.size()) / op.shape[0];
      to->insert(to->end(), from.begin() + row * width, from.begin() + (row + 1) * width);
    };
    for (const int64_t row : rows) {
      if (kept_rows_ >= kMostRows) break;
      add(input.values, row, &kept_input_.values), add(op.reference, row, &kept_output_.values);
      ++kept_rows_;
    }
    kept_input_.shape = input.shape, kept_output_.shape = op.shape;
    kept_input_.shape[0] = kept_output_.shape[0] = kept_rows_;
  }
  void KeepRows() {
    if (kept_rows_ == 0) return;
    const Place& place = probe_.culprit->place;
    const stages::Input read = probe_.arbiter->ReplayInputs(static_cast<pb_stage>(place.stage)).front();
    if (read.previous_layer) return;
    Culprit& rows = probed.rows.emplace();
    rows.place = place, rows.bound = probe_.culprit->bound;
    rows.shape = kept_output_.shape, rows.reference = std::move(kept_output_.values);
    rows.inputs.BeginPass(0);
    rows.inputs.Add(read.stage, place.layer, std::move(kept_input_));
  }

  // The pass with a hypothesis, or the rows that are wrong.
  bool Explains(const Culprit& op, const Expectation& declared, const Expectation& varied,
                const WrongPart& wrong) const {
    const auto agrees = [&](const std::vector<float>& expected, const std::vector<float>& units) {
      return probe_.arbiter->Compare(op, op.reference, expected, units).agrees;
    };
    const bool own = !varied.units.empty() && !declared.units.empty();
    const std::vector<float>& units = own ? varied.units : declared.units;
    if (agrees(varied.output.values, units)) return true;
    const Subject s = SubjectOf(op, op.reference, declared);
    return agrees(InRows(s, wrong, varied.output.values), declared.units);
  }

  Status Compare(const Culprit& op) {
    if (!first_) return first_ = op, Status();
    const auto before = probe_.arbiter->Inputs(*first_), now = probe_.arbiter->Inputs(op);
    if (!before.ok() || !now.ok() || before->size() != now->size()) return {};
    for (size_t i = 0; i < now->size(); i++)
      if ((*before)[i].values != (*now)[i].values) return {};
    PB_ASSIGN(const Expectation expected, probe_.arbiter->Expect(op, TokensAt(op), ""));
    if (probe_.arbiter->Compare(op, op.reference, first_->reference, expected.units).agrees) return {};
    SeenPass pass{op.shape[0], op.first_position, true, -1, 1};
    pass.differs = true;
    probed.passes.push_back(pass);
    return {};
  }

  const Probe& probe_;
  drive::EngineRecord record_;
  drive::Participant engine_;
  std::vector<int32_t> tokens_, other_tokens_, watched_;
  PassTensors inputs_;
  int64_t room_ = kProbedTokens;
  bool other_ = false, again_ = false;
  Recorded kept_input_, kept_output_;
  int64_t kept_rows_ = 0;
  std::optional<Culprit> first_;  // of two equal evaluations
};

}  // namespace

bool IsCheap(const Probe& probe) {
  std::error_code error;
  const auto size = std::filesystem::file_size(probe.engine->model_path, error);
  return !error && size <= kCheapBytes && WorkOfRow(probe) <= kCheapWork && !probe.tokens.empty();
}

Probed ProbePasses(const Probe& probe) {
  Prober prober(probe);
  return prober.Run().ok() ? std::move(prober.probed) : Probed{};
}

}  // namespace pb::diagnose
