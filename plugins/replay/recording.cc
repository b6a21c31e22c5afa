// Indexes the records of a trace by stage, layer and position, and gathers rows from as many
// records as hold them.
#include "plugins/replay/recording.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <set>

#include "base/blake3.h"
#include "base/file.h"
#include "base/sha256.h"
#include "stages/stages.h"

namespace pb::replay {
namespace {

// Sizes of a row beyond the token axis that must not change: all, but for the visible positions.
std::vector<int64_t> RowShape(const trace::Record& r) {
  std::vector<int64_t> shape(r.shape.begin() + 1, r.shape.end());
  if (stages::kOverPositions.Contains(r.stage_id)) shape.pop_back();
  return shape;
}

Result<std::string> DigestOf(const std::filesystem::path& folder) {
  Sha256 digest;
  for (std::string_view name : {trace::kManifestFile, trace::kRecordsFile}) {
    PB_ASSIGN(MappedFile file, MappedFile::Open(folder / name));
    digest.Update(file.bytes());
  }
  return digest.Hex();
}

}  // namespace

Result<std::shared_ptr<Recording>> Recording::Open(const std::filesystem::path& folder) {
  PB_ASSIGN(trace::Trace trace, trace::Trace::Open(folder));
  std::shared_ptr<Recording> r(new Recording(std::move(trace)));
  auto check = [&]() -> Status {
    PB_TRY(r->CheckWhole());
    PB_TRY(r->CheckSteps());
    PB_TRY(r->Index());
    PB_TRY(r->CheckFacts());
    return r->CheckLogits();
  };
  if (Status status = check(); !status.ok()) return std::move(status).error().In(folder.string());
  PB_ASSIGN(r->digest_, DigestOf(folder));
  return r;
}

// Whether it can stand for an engine at all.
Status Recording::CheckWhole() const {
  const trace::Manifest& m = manifest();
  if (trace_.documented() && trace_.records().empty()) {
    return MakeError(Code::kUnsupported,
                     "the folder holds no record of a trace, so there is nothing to replay");
  }
  if (trace_.documented()) {
    return MakeError(Code::kUnsupported,
                     "a trace of the documented system has digests and no values, so it cannot be replayed");
  }
  if (!m.complete) {
    return MakeError(Code::kUnsupported, "the trace is incomplete ({}), so it cannot be replayed",
                     m.reason.empty() ? "its writer was cut off" : m.reason);
  }
  if (m.level != trace::Level::kFull) {
    return MakeError(
        Code::kUnsupported,
        "the trace has level {} and no values, so it cannot be replayed; record it at level full",
        trace::LevelName(m.level));
  }
  if (m.tokens.empty() || m.n_prompt <= 0) return MakeError(Code::kUnsupported, "the trace has no tokens");
  if (!m.logits_blake3.empty() && !m.logits_blake3_untapped.empty() &&
      m.logits_blake3 != m.logits_blake3_untapped) {
    return MakeError(
        Code::kUnsupported,
        "the recorded engine's logits changed when it was watched, so the trace does not show what it "
        "computes unwatched");
  }
  return {};
}

// The steps together are the tokens, in order.
Status Recording::CheckSteps() const {
  std::vector<int32_t> all;
  for (const trace::Step& step : trace_.steps()) {
    if (step.first_position < 0 || static_cast<size_t>(step.first_position) != all.size()) {
      return MakeError(Code::kMalformed, "step {} begins at position {}, after {} tokens", step.seq,
                       step.first_position, all.size());
    }
    all.insert(all.end(), step.tokens.begin(), step.tokens.end());
  }
  if (all != manifest().tokens || manifest().n_prompt > static_cast<int64_t>(all.size()))
    return MakeError(Code::kMalformed, "the steps hold other tokens than the manifest");
  return {};
}

Status Recording::AddRecord(size_t index) {
  const trace::Record& r = trace_.records()[index];
  if (r.stage_id == PB_STAGE_UNMAPPED) return {};
  const bool per_layer = pb_vocabulary[r.stage_id].per_layer != 0;
  const auto n_tokens = static_cast<int64_t>(tokens().size());
  auto wrong = [&](const std::string& what) { return MakeError(Code::kMalformed, "{}: {}", r.where, what); };
  if (r.payload_file.empty()) return wrong(fmt::format("{} has no values", r.name));
  if (per_layer ? r.layer < 0 : r.layer != -1) return wrong(fmt::format("{} of layer {}", r.stage, r.layer));
  if (r.shape.size() != 1 + static_cast<size_t>(stages::Of(r.stage_id).row.n_axes) || r.num_elements <= 0) {
    return wrong(fmt::format("{} has shape ({}), canonical is {}", r.name, fmt::join(r.shape, ", "),
                             pb_vocabulary[r.stage_id].shape));
  }
  if (r.first_position < 0 || r.n_rows() > n_tokens || r.first_position > n_tokens - r.n_rows()) {
    return wrong(fmt::format("{} has rows {} to {}, there are {} tokens", r.name, r.first_position,
                             r.first_position + r.n_rows() - 1, n_tokens));
  }
  if (stages::kOverPositions.Contains(r.stage_id) && r.shape.back() < r.first_position + r.n_rows()) {
    return wrong(fmt::format("{} has {} columns, its last row sees {} positions", r.name, r.shape.back(),
                             r.first_position + r.n_rows()));
  }
  n_layers_ = std::max<int64_t>(n_layers_, r.layer + 1);
  pieces_[{r.stage_id, r.layer}].push_back({index, r.first_position, r.n_rows()});
  return {};
}

// Sorts the pieces; they may leave positions out and may not overlap or change their shape.
Status Recording::CheckPieces(const Key& key, std::vector<Piece>& pieces, bool* every_position) const {
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.first < b.first; });
  const auto& records = trace_.records();
  int64_t next = 0, n_rows = 0;
  for (const Piece& piece : pieces) {
    const trace::Record& r = records[piece.record];
    if (piece.first < next)
      return MakeError(Code::kMalformed, "{}: {} holds position {} a second time", r.where, r.name,
                       piece.first);
    if (RowShape(r) != RowShape(records[pieces[0].record]))
      return MakeError(Code::kMalformed, "{}: {} has rows of another shape than before", r.where, r.name);
    next = piece.first + piece.n_rows;
    n_rows += piece.n_rows;
  }
  *every_position = n_rows == static_cast<int64_t>(tokens().size());
  if (key.first == PB_STAGE_LOGITS && !*every_position)
    return MakeError(Code::kUnsupported, "the trace has logits of {} of {} positions", n_rows,
                     tokens().size());
  return {};
}

Status Recording::Index() {
  for (size_t i = 0; i < trace_.records().size(); ++i) PB_TRY(AddRecord(i));
  if (!pieces_.contains({PB_STAGE_LOGITS, -1}))
    return MakeError(Code::kUnsupported, "the trace has no logits, so it cannot be replayed");
  verified_.assign(trace_.records().size(), false);
  std::map<Key, bool> every_position;
  for (auto& [key, pieces] : pieces_) PB_TRY(CheckPieces(key, pieces, &every_position[key]));
  DecideStages(every_position);
  return {};
}

std::vector<int32_t> Recording::WholeLayers(int32_t stage, const std::map<Key, bool>& every_position) {
  std::vector<int32_t> layers;
  for (const auto& [key, whole] : every_position)
    if (key.first == stage && whole) layers.push_back(key.second);
  return layers;
}

void Recording::DecideStages(const std::map<Key, bool>& every_position) {
  for (int32_t s = 0; s < PB_STAGE_COUNT; ++s) {
    Shown& shown = shown_[static_cast<size_t>(s)];
    int64_t n_whole = 0;
    for (auto it = every_position.lower_bound({s, -1}); it != every_position.end() && it->first.first == s;
         ++it)
      n_whole += it->second;
    const int64_t n_layers = pb_vocabulary[s].per_layer ? n_layers_ : 1;
    const auto& hidden = manifest().unobservable;
    auto named = std::find_if(hidden.begin(), hidden.end(),
                              [&](const auto& stage) { return stage.first == pb_vocabulary[s].name; });
    if (n_whole > 0 && named != hidden.end())
      shown = {PB_OBSERVED, named->second, WholeLayers(s, every_position)};
    else if (n_whole == n_layers && n_whole > 0)
      shown = {PB_OBSERVED, ""};
    else if (n_whole > 0)
      shown.reason = fmt::format("the trace has it whole in {} of {} layers", n_whole, n_layers);
    else if (named != hidden.end())
      shown = {PB_UNOBSERVABLE,
               named->second.empty() ? "the recorded engine does not show it" : named->second};
    else
      shown.reason = "the trace does not have it";
  }
}

// What the model's numbers are by the shapes of the records. A manifest that says otherwise is
// wrong: limits follow from them.
Status Recording::CheckFacts() {
  std::set<std::string> keys;
  for (const trace::Fact& fact : manifest().model_facts)
    if (keys.insert(fact.key).second) model_facts_.push_back(fact);
  auto check = [&](const char* key, int64_t seen) -> Status {
    auto fact = std::find_if(model_facts_.begin(), model_facts_.end(),
                             [&](const trace::Fact& f) { return f.key == key; });
    if (fact == model_facts_.end()) {
      model_facts_.push_back({key, std::to_string(seen), "observed"});
    } else if (std::string_view(key) == "d_ff") {
      // Layers, and experts beside them, may have networks of several widths: the first that is shown.
      *fact = {key, std::to_string(seen), "observed"};
    } else if (fact->value != std::to_string(seen)) {
      return MakeError(Code::kMalformed, "the manifest says {} {}, the records have {}", key, fact->value,
                       seen);
    }
    return {};
  };
  if (n_layers_ > 0) PB_TRY(check("n_layers", n_layers_));
  struct Size {
    const char* key;
    int32_t stage;
    size_t axis;
  };
  constexpr Size kSizes[] = {{"n_vocab", PB_STAGE_LOGITS, 1},  {"d_model", PB_STAGE_LAYER_OUT, 1},
                             {"d_ff", PB_STAGE_FFN_GATED, 1},  {"n_heads", PB_STAGE_Q_PROJ, 1},
                             {"head_dim", PB_STAGE_Q_PROJ, 2}, {"n_kv_heads", PB_STAGE_K_PROJ, 1}};
  for (const Size& size : kSizes) {
    auto found = pieces_.find({size.stage, pb_vocabulary[size.stage].per_layer ? 0 : -1});
    if (found == pieces_.end()) continue;
    PB_TRY(check(size.key, trace_.records()[found->second[0].record].shape[size.axis]));
  }
  return {};
}

// The logits in order of position have the digest that the manifest states.
Status Recording::CheckLogits() {
  if (manifest().logits_blake3.empty()) return {};
  Blake3 digest;
  for (const Piece& piece : pieces_.at({PB_STAGE_LOGITS, -1})) {
    PB_ASSIGN(std::vector<float> rows, RecordRows(piece.record, 0, piece.n_rows));
    digest.Update(std::as_bytes(std::span(rows)));
  }
  if (ToHex(digest.Finish()) != manifest().logits_blake3)
    return MakeError(Code::kMalformed, "the logits do not have the digest in the manifest");
  return {};
}

Result<std::vector<float>> Recording::RecordRows(size_t index, int64_t first_row, int64_t n_rows) {
  const trace::Record& r = trace_.records()[index];
  if (!verified_[index]) {
    PB_ASSIGN(std::vector<float> all, trace_.Payload(r));
    verified_[index] = true;
    if (n_rows == r.n_rows()) return all;
  }
  return trace_.PayloadRows(r, first_row, n_rows);
}

Result<Tensor> Recording::Rows(int32_t stage, int32_t layer, int64_t first, int64_t n) {
  auto found = pieces_.find({stage, layer});
  if (found == pieces_.end())
    return MakeError(Code::kUnsupported, "the trace has no {} of layer {}", pb_vocabulary[stage].name, layer);
  const bool by_position = stages::kOverPositions.Contains(stage);
  const float hidden = stage == PB_STAGE_ATTN_SCORES ? -std::numeric_limits<float>::infinity() : 0.0f;
  const int64_t n_visible = first + n;
  Tensor out;
  int64_t at = first;
  for (const Piece& piece : found->second) {
    const int64_t begin = std::max(piece.first, at), end = std::min(piece.first + piece.n_rows, n_visible);
    if (begin >= end) continue;
    if (begin != at) break;
    const trace::Record& r = trace_.records()[piece.record];
    PB_ASSIGN(std::vector<float> rows, RecordRows(piece.record, begin - piece.first, end - begin));
    at = end;
    out.shape = r.shape;
    if (!by_position) {
      out.values.insert(out.values.end(), rows.begin(), rows.end());
      continue;
    }
    // How many columns a row has follows from how rows were batched. What a row sees of its future
    // is a defect to be shown.
    const auto n_heads = r.shape[1], n_columns = r.shape[2], n_shown = std::min(n_columns, n_visible);
    for (int64_t row = 0; row < (end - begin) * n_heads; ++row) {
      const float* from = rows.data() + row * n_columns;
      if (!std::all_of(from + n_shown, from + n_columns, [&](float v) { return v == hidden; }))
        return MakeError(Code::kUnsupported,
                         "{} of layer {}: position {} sees later ones; it was recorded in a batch up to {}",
                         pb_vocabulary[stage].name, layer, begin + row / n_heads, n_columns - 1);
      out.values.insert(out.values.end(), from, from + n_shown);
      out.values.insert(out.values.end(), static_cast<size_t>(n_visible - n_shown), hidden);
    }
  }
  if (at != n_visible)
    return MakeError(Code::kUnsupported, "the trace has no {} of layer {} at position {}",
                     pb_vocabulary[stage].name, layer, at);
  out.shape[0] = n;
  if (by_position) out.shape[2] = n_visible;
  return out;
}

}  // namespace pb::replay
