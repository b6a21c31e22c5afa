// The tape on disk (a sealed index beside one file of float32 values), and the engine that records
// and plays it.
#include "drive/tape.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/kept.h"
#include "base/system_error.h"
#include "stages/stages.h"

namespace pb::drive {
namespace {

using Json = nlohmann::json;

constexpr const char* kSchema = "paritybit.tape/1";
constexpr const char *kIndexFile = "tape.json", *kDataFile = "tape.f32";
constexpr uint64_t kMaxIndexBytes = 1 << 30;

Json ToJson(const TapeItem& i) {
  return {static_cast<int>(i.kind),
          i.point.stage,
          i.point.layer,
          i.point.first_position,
          i.point.occurrence,
          i.point.native_name,
          i.point.op,
          i.shape,
          i.offset,
          i.n_values,
          i.hidden ? Json(*i.hidden) : Json()};
}

// Throws on what is not as ToJson writes it; the file's digest was right.
TapeItem ReadItem(const Json& j) {
  TapeItem i;
  i.kind = j.at(0).get<int>() == host::Event::kLogits ? host::Event::kLogits : host::Event::kPoint;
  i.point = {j.at(1), j.at(2), j.at(3), j.at(4), j.at(5), j.at(6)};
  i.shape = j.at(7).get<std::vector<int64_t>>();
  i.offset = j.at(8), i.n_values = j.at(9);
  if (!j.at(10).is_null()) i.hidden = j.at(10).get<uint32_t>();
  return i;
}

// Of an item whose rows lack what is hidden: how many of its last extent a row has.
int64_t WidthOfRow(const TapeItem& i, int64_t row) {
  return std::min(i.shape.back(), i.point.first_position + row + 1);
}

// In how many parts its last extent comes in a row: one for each head.
int64_t PartsOfRow(const TapeItem& i) {
  int64_t n = 1;
  for (size_t d = 1; d + 1 < i.shape.size(); ++d) n *= i.shape[d];
  return n;
}

// Values of an item that its first rows have in the data.
uint64_t StoredValues(const TapeItem& i, int64_t n_rows) {
  if (!i.hidden) return i.n_values / static_cast<uint64_t>(i.shape[0]) * static_cast<uint64_t>(n_rows);
  // Until a row has all of its last extent each has one more than the one before.
  const int64_t first = WidthOfRow(i, 0), n_growing = std::clamp(i.shape.back() - first, int64_t{0}, n_rows),
                n = n_growing * first + n_growing * (n_growing - 1) / 2 +
                    (n_rows - n_growing) * i.shape.back();
  return static_cast<uint64_t>(n * PartsOfRow(i));
}

// The bits that follow every row's own position, where they are the same in all rows of values over
// positions; none: some differ, or there are none.
std::optional<uint32_t> HiddenOf(const TapeItem& i, std::span<const float> values) {
  if (i.shape.size() < 2 || WidthOfRow(i, 0) == i.shape.back()) return std::nullopt;
  const auto width = static_cast<size_t>(i.shape.back());
  const auto n_parts = static_cast<size_t>(PartsOfRow(i));
  const auto bits = std::bit_cast<uint32_t>(values[width - 1]);
  for (int64_t row = 0; row < i.shape[0]; ++row) {
    const auto own = static_cast<size_t>(WidthOfRow(i, row));
    for (size_t part = 0; part < n_parts; ++part) {
      const float* at = values.data() + (static_cast<size_t>(row) * n_parts + part) * width;
      uint32_t others = 0;
      for (size_t k = own; k < width; ++k) others |= std::bit_cast<uint32_t>(at[k]) ^ bits;
      if (others != 0) return std::nullopt;
    }
  }
  return bits;
}

// Gives back the whole pages among bytes of a mapped file.
void GiveBack(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size()) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::string Blake3OfMapped(std::span<const std::byte> bytes) {
  constexpr size_t kPiece = 16 << 20;
  Blake3 digest;
  for (size_t at = 0; at < bytes.size(); at += kPiece) {
    const auto piece = bytes.subspan(at, std::min(kPiece, bytes.size() - at));
    digest.Update(piece);
    GiveBack(piece);
  }
  return ToHex(digest.Finish());
}

// Outputs of some stages in all layers, or none, with the logits of every token.
bool IsOfAKindThatIsRecorded(const host::EvalRequest& request) {
  const host::TapFilter& tap = request.tap;
  return !tap.inputs && !tap.unmapped && tap.layers.empty() && request.logits_from == 0 &&
         !(tap.outputs && tap.stages.empty());
}

bool Holds(const std::vector<int32_t>& all, const std::vector<int32_t>& some) {
  return std::ranges::all_of(some, [&](int32_t s) { return std::ranges::find(all, s) != all.end(); });
}

}  // namespace

Result<std::shared_ptr<const Tape>> Tape::Open(const std::filesystem::path& folder, const Json& provenance,
                                               const std::string& written) {
  PB_ASSIGN(const Json index, ReadSealed(folder / kIndexFile, kMaxIndexBytes));
  if (index.value("schema", Json()) != kSchema || index.value("provenance", Json()) != provenance)
    return MakeError(Code::kMalformed, "{}: is of something else", folder.string());
  PB_ASSIGN(MappedFile data, MappedFile::Open(folder / kDataFile));
  std::shared_ptr<Tape> tape(new Tape(std::move(data)));
  tape->data_blake3_ = written.empty() ? Blake3OfMapped(tape->data_.bytes()) : written;
  if (index.value("data_blake3", Json()) != tape->data_blake3_)
    return MakeError(Code::kMalformed, "{}: does not have its digest", (folder / kDataFile).string());
  tape->note_ = index.value("note", Json::object());
  if (!tape->note_.is_object()) return MakeError(Code::kMalformed, "{}: no note", folder.string());
  PB_TRY(tape->ReadPasses(index));
  return std::shared_ptr<const Tape>(std::move(tape));
}

Status Tape::ReadPasses(const Json& index) {
  try {
    n_prefill_ = index.at("n_prefill");
    for (const Json& j : index.at("passes")) {
      TapePass pass{j.at("first_position"), j.at("tokens"), j.at("stages"), {}};
      for (const Json& item : j.at("items")) {
        pass.items.push_back(ReadItem(item));
        const TapeItem& i = pass.items.back();
        uint64_t n = 1;
        for (const int64_t extent : i.shape) n *= static_cast<uint64_t>(extent);
        if (i.shape.empty() || n == 0 || n != i.n_values || (i.hidden && i.shape.size() < 2) ||
            i.offset + StoredValues(i, i.shape[0]) > data_.bytes().size() / sizeof(float))
          return MakeError(Code::kMalformed, "a tape whose items lie beyond its data");
      }
      passes_.push_back(std::move(pass));
    }
  } catch (const Json::exception& e) {
    return MakeError(Code::kMalformed, "a tape's index: {}", e.what());
  }
  return {};
}

void Tape::Remove(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (it->path().filename().string().starts_with("tape.")) files.push_back(it->path());
  for (const std::filesystem::path& file : files) std::filesystem::remove(file, error);
}

std::span<const float> Tape::Stored(const TapeItem& item, int64_t first_row, int64_t n_rows) const {
  const uint64_t begin = StoredValues(item, first_row), end = StoredValues(item, first_row + n_rows);
  return {reinterpret_cast<const float*>(data_.bytes().data()) + item.offset + begin, end - begin};
}

void Tape::Expand(const TapeItem& item, int64_t first_row, int64_t n_rows, int64_t width,
                  std::vector<float>* values) const {
  const int64_t n_parts = PartsOfRow(item);
  const float* from = Stored(item, first_row, n_rows).data();
  values->resize(static_cast<size_t>(n_rows * n_parts * width));
  float* to = values->data();
  const float hidden = std::bit_cast<float>(item.hidden.value_or(0));
  for (int64_t row = first_row; row < first_row + n_rows; ++row) {
    const int64_t own = item.hidden ? WidthOfRow(item, row) : item.shape.back(), kept = std::min(own, width);
    for (int64_t part = 0; part < n_parts; ++part, from += own, to += width)
      std::fill(std::copy_n(from, kept, to), to + width, hidden);
  }
}

void Tape::Prepare(std::span<const float> values) const {
#ifdef MADV_POPULATE_READ
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(values.data()) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(values.data() + values.size());
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ);
#endif
}

void Tape::Release(std::span<const float> values) const {
  const auto bytes = std::as_bytes(values), all = data_.bytes();
  // Other memory would lose what it holds.
  if (bytes.data() >= all.data() && bytes.data() + bytes.size() <= all.data() + all.size()) GiveBack(bytes);
}

bool Tape::Serves(const host::EvalRequest& request) const {
  const host::TapFilter& tap = request.tap;
  if (!IsOfAKindThatIsRecorded(request)) return false;
  const auto is_pass = [&](const TapePass& pass) {
    return pass.first_position == request.first_position && pass.tokens == request.tokens &&
           (!tap.outputs || Holds(pass.stages, tap.stages));
  };
  if (tap.outputs || request.first_position >= n_prefill_) return std::ranges::any_of(passes_, is_pass);
  // Unwatched, a prefill is evaluated whole: bits may depend on where it is cut.
  std::vector<int32_t> prefill;
  for (const TapePass& pass : passes_)
    if (pass.first_position < n_prefill_)
      prefill.insert(prefill.end(), pass.tokens.begin(), pass.tokens.end());
  return request.first_position == 0 && request.tokens == prefill;
}

bool Tape::ServesPart(const host::EvalRequest& request) const {
  const host::TapFilter& tap = request.tap;
  if (!tap.outputs || !IsOfAKindThatIsRecorded(request)) return false;
  return std::ranges::any_of(passes_, [&](const TapePass& pass) {
    const int64_t skip = int64_t{request.first_position} - pass.first_position;
    const auto n = static_cast<int64_t>(pass.tokens.size()),
               n_asked = static_cast<int64_t>(request.tokens.size());
    return skip >= 0 && skip + n_asked <= n && Holds(pass.stages, tap.stages) &&
           std::equal(request.tokens.begin(), request.tokens.end(), pass.tokens.begin() + skip);
  });
}

Result<std::unique_ptr<TapeWriter>> TapeWriter::Create(const std::filesystem::path& folder,
                                                       uint64_t max_bytes) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  // What was there is no longer whole from here on.
  if (!error) std::filesystem::remove(folder / kIndexFile, error);
  if (error) return MakeError(Code::kIo, "{}: {}", folder.string(), error.message());
  // In a file of its own until it is whole: another process may be recording the same.
  const std::filesystem::path data = folder / fmt::format("{}.{}", kDataFile, getpid());
  std::FILE* file = std::fopen(data.c_str(), "wbe");
  if (!file) return SystemError(data.string(), errno);
  return std::unique_ptr<TapeWriter>(new TapeWriter(folder, file, max_bytes));
}

TapeWriter::~TapeWriter() {
  if (!file_) return;
  std::fclose(file_);
  std::error_code ignored;
  std::filesystem::remove(folder_ / fmt::format("{}.{}", kDataFile, getpid()), ignored);
}

void TapeWriter::BeginPass(const host::EvalRequest& request) {
  passes_.push_back({request.first_position,
                     request.tokens,
                     request.tap.outputs ? request.tap.stages : std::vector<int32_t>(),
                     {}});
  if (request.logits_from != 0 || request.tap.inputs || request.tap.unmapped || !request.tap.layers.empty())
    failure_ = "an evaluation of another kind";
}

void TapeWriter::Add(const host::Event& event) {
  if (!failure_.empty() || passes_.empty()) return;
  TapeItem item{event.kind, event.point, event.tensor.shape, n_values_, event.tensor.data.size()};
  // The logits that a point shows are those that are delivered next (PlaceLogitsPoints).
  const bool again = event.kind == host::Event::kPoint && event.point.stage == PB_STAGE_LOGITS;
  const bool over_positions =
      event.kind == host::Event::kPoint && stages::kOverPositions.Contains(event.point.stage);
  if (over_positions) item.hidden = HiddenOf(item, event.tensor.data);
  if (item.hidden)
    WriteWithoutHidden(item, event.tensor.data);
  else if (!again)
    Write(event.tensor.data);
  passes_.back().items.push_back(std::move(item));
}

void TapeWriter::Write(std::span<const float> values) {
  // In pieces that stay in the cache between the two that read them.
  constexpr size_t kPiece = 256 << 10;
  std::span<const std::byte> rest = std::as_bytes(values);
  n_values_ += values.size();
  if (n_values_ * sizeof(float) > max_bytes_) failure_ = "it would take more than it may";
  while (failure_.empty() && !rest.empty()) {
    const auto piece = rest.first(std::min(kPiece, rest.size()));
    digest_.Update(piece);
    if (std::fwrite(piece.data(), 1, piece.size(), file_) != piece.size()) failure_ = ErrnoText(errno);
    rest = rest.subspan(piece.size());
  }
}

void TapeWriter::WriteWithoutHidden(const TapeItem& item, std::span<const float> values) {
  constexpr size_t kPiece = 64 << 10;  // values
  std::vector<float> piece;
  piece.reserve(kPiece + static_cast<size_t>(item.shape.back()));
  const int64_t n_parts = PartsOfRow(item);
  auto from = values.begin();
  for (int64_t row = 0; row < item.shape[0]; ++row) {
    for (int64_t part = 0; part < n_parts; ++part, from += item.shape.back()) {
      piece.insert(piece.end(), from, from + WidthOfRow(item, row));
      if (piece.size() < kPiece) continue;
      Write(piece);
      piece.clear();
    }
  }
  Write(piece);
}

// Points a pass's logits, as the tap showed them, at those that were delivered. False: they do not
// lie in one piece.
bool TapeWriter::PlaceLogitsPoints() {
  for (TapePass& pass : passes_) {
    std::vector<TapeItem> logits;
    for (const TapeItem& item : pass.items)
      if (item.kind == host::Event::kLogits) logits.push_back(item);
    for (size_t i = 1; i < logits.size(); ++i)
      if (logits[i].offset != logits[i - 1].offset + logits[i - 1].n_values) return false;
    for (TapeItem& item : pass.items) {
      if (item.kind != host::Event::kPoint || item.point.stage != PB_STAGE_LOGITS) continue;
      if (logits.empty() || logits[0].shape.size() != 2 || item.shape.empty()) return false;
      const auto row = static_cast<uint64_t>(logits[0].shape[1]);
      const int64_t begin = item.point.first_position - logits[0].point.first_position;
      if (begin < 0 || item.n_values != static_cast<uint64_t>(item.shape[0]) * row) return false;
      item.offset = logits[0].offset + static_cast<uint64_t>(begin) * row;
      if (item.offset + item.n_values > logits.back().offset + logits.back().n_values) return false;
    }
  }
  return true;
}

Result<std::shared_ptr<const Tape>> TapeWriter::Finish(const Json& provenance, const Json& note,
                                                       int32_t n_prefill) {
  if (failure_.empty() && !PlaceLogitsPoints()) failure_ = "the logits are not in one piece";
  if (failure_.empty() && std::fflush(file_) != 0) failure_ = ErrnoText(errno);
  if (!failure_.empty()) return MakeError(Code::kIo, "{}: {}", folder_.string(), failure_);
  Json passes = Json::array();
  for (const TapePass& pass : passes_) {
    Json items = Json::array();
    for (const TapeItem& item : pass.items) items.push_back(ToJson(item));
    passes.push_back({{"first_position", pass.first_position},
                      {"tokens", pass.tokens},
                      {"stages", pass.stages},
                      {"items", std::move(items)}});
  }
  std::fclose(std::exchange(file_, nullptr));
  std::error_code error;
  std::filesystem::rename(folder_ / fmt::format("{}.{}", kDataFile, getpid()), folder_ / kDataFile, error);
  if (error) return MakeError(Code::kIo, "{}: {}", folder_.string(), error.message());
  const std::string data_blake3 = ToHex(digest_.Finish());
  PB_TRY(WriteSealed(folder_ / kIndexFile, {{"schema", kSchema},
                                            {"provenance", provenance},
                                            {"note", note},
                                            {"n_prefill", n_prefill},
                                            {"data_blake3", data_blake3},
                                            {"passes", std::move(passes)}}));
  return Tape::Open(folder_, provenance, data_blake3);
}

TapedEngine::TapedEngine(std::unique_ptr<host::Engine> live)
    : live_(std::move(live)), always_ready_(eventfd(1, EFD_CLOEXEC)) {}

TapedEngine::~TapedEngine() {
  if (always_ready_ >= 0) close(always_ready_);
}

void TapedEngine::Play(std::shared_ptr<const Tape> tape, host::Settings session) {
  tape_ = std::move(tape);
  tape_session_ = std::move(session);
  from_tape_ = playing_ = false;
  queue_.clear(), next_ = 0;
  expanded_.clear();
}

Result<host::Facts> TapedEngine::OpenSession(const host::Settings& overrides) {
  from_tape_ = tape_ && overrides == tape_session_;
  playing_ = false;
  n_positions_ = 0;
  put_off_ = from_tape_ && told_ && told_->first == overrides;
  if (put_off_) return told_->second;
  told_.reset(), used_ = false;
  auto facts = live_->OpenSession(overrides);
  if (facts.ok()) told_.emplace(overrides, *facts);
  return facts;
}

Status TapedEngine::OpenLive() {
  if (!std::exchange(put_off_, false) || !used_) return {};
  used_ = false;
  auto facts = live_->OpenSession(told_->first);
  return facts.ok() ? Status() : Status(std::move(facts).error());
}

Result<std::vector<host::StageVisibility>> TapedEngine::Stages() {
  PB_TRY(OpenLive());
  return live_->Stages();
}

Result<host::TensorRef> TapedEngine::Replay(const host::ReplayRequest& request) {
  PB_TRY(OpenLive());
  used_ = true;
  return live_->Replay(request);
}

Status TapedEngine::Reset(int32_t n_keep) {
  PB_TRY(OpenLive());
  playing_ = false, n_positions_ = n_keep, used_ = true;
  return live_->Reset(n_keep);
}

// The events of an evaluation, as the engine gave them: of each the rows asked for.
void TapedEngine::Queue(const host::EvalRequest& request) {
  queue_.clear(), next_ = 0;
  const int64_t first = request.first_position, end = first + static_cast<int64_t>(request.tokens.size());
  for (const TapePass& pass : tape_->passes()) {
    const auto n = static_cast<int64_t>(pass.tokens.size());
    if (request.tap.outputs && (first < pass.first_position || first >= pass.first_position + n)) continue;
    for (const TapeItem& item : pass.items) {
      const bool point = item.kind == host::Event::kPoint;
      if (point && (!request.tap.outputs || !Holds(request.tap.stages, {item.point.stage}))) continue;
      const int64_t begin = item.point.first_position;
      const int64_t from = std::max(first, begin), to = std::min(end, begin + item.shape[0]);
      if (from >= to) continue;
      host::Event event{item.kind, item.point, {}, {"", item.shape, {}, {}}};
      event.point.first_position = static_cast<int32_t>(from);
      event.tensor.shape[0] = to - from;
      // Scores are as wide as there are positions.
      const bool wide = point && stages::kOverPositions.Contains(item.point.stage);
      const bool cut = wide && item.shape.back() == pass.first_position + n && end < item.shape.back();
      if (cut) event.tensor.shape.back() = end;
      if (cut || item.hidden) {
        queue_.push_back({std::move(event), &item, from - begin});
        continue;
      }
      event.tensor.data = tape_->Stored(item, from - begin, to - from);
      event.tensor.lasting = tape_;
      queue_.push_back({std::move(event)});
    }
  }
  queue_.emplace_back();
}

std::span<const float> TapedEngine::StoredOf(const Queued& queued) const {
  const host::TensorRef& t = queued.event.tensor;
  return queued.item ? tape_->Stored(*queued.item, queued.first_row, t.shape[0]) : t.data;
}

host::Event TapedEngine::Take(const Queued& queued) {
  tape_->Prepare(StoredOf(queued));
  host::Event event = queued.event;
  if (!queued.item) return event;
  auto free = std::ranges::find_if(expanded_, [](const auto& values) { return values.use_count() == 1; });
  if (free == expanded_.end()) free = expanded_.insert(free, std::make_shared<std::vector<float>>());
  const std::vector<int64_t>& shape = event.tensor.shape;
  tape_->Expand(*queued.item, queued.first_row, shape[0], shape.back(), free->get());
  event.tensor.data = **free;
  event.tensor.lasting = *free;
  return event;
}

Status TapedEngine::BeginEval(const host::EvalRequest& request) {
  for (const Queued& queued : queue_) tape_->Release(StoredOf(queued));
  queue_.clear(), next_ = 0;
  if (from_tape_ && request.first_position == n_positions_ && (playing_ || n_positions_ == 0)) {
    if (Serves(request)) {
      playing_ = true;
      n_positions_ += static_cast<int32_t>(request.tokens.size());
      Queue(request);
      return {};
    }
    // The engine itself stands at position 0.
    if (playing_)
      return MakeError(Code::kInternal, "a tape holds the first {} positions of a sequence alone",
                       n_positions_);
  }
  from_tape_ = false;
  PB_TRY(OpenLive());
  used_ = true;
  if (writer_) writer_->BeginPass(request);
  return live_->BeginEval(request);
}

Result<host::Event> TapedEngine::Wait() {
  if (playing_) {
    return Take(queue_[std::min(next_++, queue_.size() - 1)]);
  }
  auto event = live_->Wait();
  if (writer_ && event.ok() && event->kind != host::Event::kDone) writer_->Add(*event);
  return event;
}

Status TapedEngine::Continue() {
  if (!playing_) return live_->Continue();
  // Logits are used up at once, and values that were shown before these; one that is still waited for
  // is read again.
  constexpr size_t kInUse = 8;
  if (next_ > 0 && next_ <= queue_.size() && queue_[next_ - 1].event.kind == host::Event::kLogits)
    tape_->Release(StoredOf(queue_[next_ - 1]));
  if (next_ > kInUse && next_ <= queue_.size()) tape_->Release(StoredOf(queue_[next_ - 1 - kInUse]));
  return {};
}

Status TapedEngine::Overwrite(std::span<const float> values) {
  if (playing_) return MakeError(Code::kUnsupported, "a tape cannot be overwritten");
  return live_->Overwrite(values);
}

Status TapedEngine::Stop() { return playing_ ? Status() : live_->Stop(); }

}  // namespace pb::drive
