// Sorts records by point and position, and finds the rows that both traces have.
#include "compare/trace_pairing.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "stages/stages.h"

namespace pb::compare {
namespace {

using trace::Record;

auto Rank(const Record& r) { return std::tuple(stages::Order(r.stage_id, r.layer), r.stage_id); }

// What makes two records the same point. Those without positions have their step instead.
using Key = std::tuple<std::string, int32_t, int32_t>;  // stage, layer, step or -1

struct Piece {
  const Record* record;
  int side;
  int64_t begin, end;
};

class Pairing {
 public:
  Pairing(const trace::Trace& candidate, const trace::Trace& reference, const trace::PointFilter& filter,
          int64_t n_positions)
      : traces_{&candidate, &reference}, filter_(filter), n_positions_(n_positions) {
    known_positions_ = !candidate.documented() && !reference.documented();
  }

  TracePairing Run() {
    for (int side : {0, 1})
      for (const Record& r : traces_[side]->records()) Sort(r, side);
    for (auto& [key, pieces] : placed_) Place(&pieces);
    for (auto& [key, pieces] : unplaced_) PairWhole(pieces);
    std::stable_sort(out_.spans.begin(), out_.spans.end(), [](const TraceSpan& a, const TraceSpan& b) {
      return StageComesBefore(*a.first, *b.first);
    });
    std::stable_sort(out_.gaps.begin(), out_.gaps.end(), [](const TraceGap& a, const TraceGap& b) {
      return StageComesBefore(*a.record, *b.record);
    });
    return std::move(out_);
  }

 private:
  void Sort(const Record& r, int side) {
    if (!Wanted(r)) return;
    if (r.first_position >= 0 && r.first_position + std::max<int64_t>(r.n_rows(), 1) > n_positions_) return;
    // Rows of an op outside the vocabulary need not be tokens.
    if (!known_positions_ || r.stage_id == PB_STAGE_UNMAPPED) {
      unplaced_[{r.stage, r.layer, r.seq}].push_back({&r, side, 0, 0});
      return;
    }
    const auto n_tokens = static_cast<int64_t>(traces_[side]->manifest().tokens.size());
    if (r.first_position < 0 || r.n_rows() > n_tokens - r.first_position || r.n_rows() <= 0) {
      out_.outside.push_back(fmt::format("{} ({})", r.name, side ? "reference" : "candidate"));
      return;
    }
    placed_[{r.stage, r.layer, -1}].push_back({&r, side, r.first_position, r.first_position + r.n_rows()});
  }

  bool Wanted(const Record& r) const {
    if (filter_.empty() || r.stage_id == PB_STAGE_UNMAPPED || r.first_position < 0)
      return filter_.Wants(r.stage, r.layer, r.seq, r.first_position);
    const int64_t n =
        std::min<int64_t>(r.n_rows(), static_cast<int64_t>(std::max(traces_[0]->manifest().tokens.size(),
                                                                    traces_[1]->manifest().tokens.size())));
    for (int64_t i = 0; i < n; ++i)
      if (filter_.Wants(r.stage, r.layer, r.seq, static_cast<int32_t>(r.first_position + i))) return true;
    return false;
  }

  // Cuts the pieces of one point into runs that overlap.
  void Place(std::vector<Piece>* pieces) {
    std::stable_sort(pieces->begin(), pieces->end(),
                     [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
    int64_t ends[2] = {0, 0};
    for (const Piece& p : *pieces) {
      if (p.begin < ends[p.side])
        out_.repeated.push_back(fmt::format("{} ({})", p.record->name, p.side ? "reference" : "candidate"));
      ends[p.side] = std::max(ends[p.side], p.end);
    }
    for (size_t i = 0; i < pieces->size();) {
      size_t j = i + 1;
      int64_t end = (*pieces)[i].end;
      while (j < pieces->size() && (*pieces)[j].begin < end) end = std::max(end, (*pieces)[j++].end);
      Span(std::span(*pieces).subspan(i, j - i), end);
      i = j;
    }
  }

  // One run: what both cover is compared.
  void Span(std::span<const Piece> pieces, int64_t end) {
    TraceSpan span;
    for (const Piece& p : pieces) span.records[p.side].push_back(p.record);
    if (span.records[0].empty() || span.records[1].empty()) {
      for (const Piece& p : pieces) out_.gaps.push_back({1 - p.side, p.record});
      return;
    }
    int64_t covered[2][2];  // by side: first row, end
    for (int side : {0, 1}) {
      covered[side][0] = span.records[side].front()->first_position;
      covered[side][1] = span.records[side].back()->first_position + span.records[side].back()->n_rows();
      // A hole within one side would leave rows that only the other has.
      int64_t at = covered[side][0];
      for (const Record* r : span.records[side]) {
        if (r->first_position != at) {
          for (const Piece& p : pieces) out_.gaps.push_back({1 - p.side, p.record});
          return;
        }
        at += r->n_rows();
      }
    }
    const int64_t begin = std::max(covered[0][0], covered[1][0]),
                  last = std::min(covered[0][1], covered[1][1]);
    span.first = span.records[1].front();
    span.first_position = static_cast<int32_t>(begin);
    span.n_rows = last - begin;
    span.whole = pieces.front().begin == begin && end == last;
    out_.spans.push_back(std::move(span));
  }

  void PairWhole(const std::vector<Piece>& pieces) {
    const Record* sides[2] = {nullptr, nullptr};
    for (const Piece& p : pieces) {
      if (sides[p.side])
        out_.repeated.push_back(fmt::format("{} ({})", p.record->name, p.side ? "reference" : "candidate"));
      sides[p.side] = p.record;
    }
    if (!sides[0] || !sides[1]) {
      out_.gaps.push_back({sides[0] ? 1 : 0, sides[0] ? sides[0] : sides[1]});
      return;
    }
    TraceSpan span;
    span.first = sides[1];
    span.first_position = std::max(sides[1]->first_position, 0);
    span.n_rows = sides[1]->n_rows();
    span.placed = false;
    for (int side : {0, 1}) span.records[side].push_back(sides[side]);
    out_.spans.push_back(std::move(span));
  }

  const trace::Trace* traces_[2];
  const trace::PointFilter& filter_;
  int64_t n_positions_;
  bool known_positions_;
  std::map<Key, std::vector<Piece>> placed_, unplaced_;
  TracePairing out_;
};

}  // namespace

bool StageComesBefore(const Record& a, const Record& b) { return Rank(a) < Rank(b); }

TracePairing PairTraces(const trace::Trace& candidate, const trace::Trace& reference,
                        const trace::PointFilter& filter, int64_t n_positions) {
  return Pairing(candidate, reference, filter, n_positions).Run();
}

}  // namespace pb::compare
