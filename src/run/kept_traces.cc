// Opens the folders, feeds both writers, and finishes or abandons both.
#include "run/kept_traces.h"

#include <system_error>

#include "base/file.h"

namespace pb::run {
namespace {

constexpr const char* kNames[] = {"candidate", "reference"};

uint64_t BytesIn(const std::filesystem::path& folder) {
  uint64_t n = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const auto bytes = it->file_size(error);
    n += error ? 0 : bytes;
  }
  return n;
}

}  // namespace

std::filesystem::path KeptFolder(const std::filesystem::path& folder, size_t n_prompts, int32_t prompt,
                                 int side) {
  return (n_prompts > 1 ? folder / fmt::format("prompt-{}", prompt) : folder) / kNames[side];
}

Status CheckKeepFolder(const std::filesystem::path& folder) {
  std::error_code error;
  if (!std::filesystem::exists(folder, error)) return {};
  if (std::filesystem::is_directory(folder, error) && std::filesystem::is_empty(folder, error)) return {};
  return MakeError(Code::kUsage, "{}: is not an empty folder; traces are kept in one of their own",
                   folder.string());
}

Result<std::unique_ptr<KeptPair>> KeptPair::Create(const KeepRequest& keep,
                                                   drive::Participant* const (&sides)[2],
                                                   const PromptRecord& prompt, size_t n_prompts,
                                                   int32_t index) {
  auto pair = std::make_unique<KeptPair>();
  for (int side : {0, 1}) {
    PB_ASSIGN(trace::Manifest manifest, drive::DescribeTrace(*sides[side]));
    manifest.level = keep.level;
    manifest.prompt = prompt.text;
    Side& s = pair->sides_[side];
    s.folder = KeptFolder(keep.folder, n_prompts, index, side);
    PB_ASSIGN(s.writer, trace::Writer::Create(s.folder, std::move(manifest)));
    s.capture = std::make_unique<drive::TraceCapture>(*s.writer, pair->everything_);
  }
  return pair;
}

Status KeptPair::BeginStep(int32_t first_position, std::span<const int32_t> tokens) {
  for (Side& s : sides_) PB_TRY(s.capture->BeginStep(first_position, tokens));
  return {};
}

Status KeptPair::OnEvent(int side, const host::Event& event) {
  // Logits are taken as the engine delivers them; their tap would show the same rows again.
  if (event.kind == host::Event::kPoint && event.point.stage == PB_STAGE_LOGITS) return {};
  return sides_[side].capture->OnEvent(event);
}

Status KeptPair::Finish(PromptRecord* prompt) {
  for (int side : {0, 1}) {
    Side& s = sides_[side];
    PB_TRY(s.writer->Finish(s.capture->LogitsDigest(), prompt->logits_blake3[side]));
    KeptTrace kept;
    kept.folder = s.folder;
    kept.level = trace::LevelName(s.writer->manifest().level);
    kept.n_records = s.writer->manifest().n_records;
    kept.n_bytes = BytesIn(s.folder);
    PB_ASSIGN(MappedFile records, MappedFile::Open(s.folder / trace::kRecordsFile));
    kept.logits_blake3 = s.writer->manifest().logits_blake3;
    kept.records_blake3 = ToHex(Blake3Of(records.bytes()));
    prompt->traces[side] = std::move(kept);
  }
  return {};
}

void KeptPair::Abandon(const std::string& reason) {
  for (Side& s : sides_)
    if (s.writer) (void)s.writer->Abandon(reason).ok();
}

}  // namespace pb::run
