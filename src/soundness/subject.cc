// Opens a model's file or shards, and tells what is wrong with headers, extents and the set.
#include "soundness/subject.h"

#include <algorithm>
#include <map>

#include "base/shards.h"

namespace pb::soundness {
namespace {

namespace fs = std::filesystem;

void TellFaults(const std::string& file, const std::vector<GgufFault>& faults, Findings* findings) {
  for (const GgufFault& fault : faults) {
    const char* code = "tensor-type";
    switch (fault.kind) {
      case GgufFault::Kind::kType:
        if (fault.error.code == Code::kUnsupported) code = "tensor-foreign";
        break;
      case GgufFault::Kind::kAlignment:
        code = "tensor-misaligned";
        break;
      case GgufFault::Kind::kExtent:
        code = "tensor-beyond-file";
        break;
      case GgufFault::Kind::kOverlap:
        code = "tensor-overlap";
        break;
      case GgufFault::Kind::kSpace:
        code = "tensor-foreign";
        break;
    }
    findings->Add(code, fault.tensor, fmt::format("{}: {}", file, fault.error.message));
  }
}

// Bytes between and behind the tensors, beyond what the alignment needs.
void TellGaps(const GgufFile& file, Findings* findings) {
  std::vector<std::pair<uint64_t, uint64_t>> extents;  // begin, end
  for (const GgufTensor& t : file.tensors()) {
    if (t.data.empty()) return;  // told as a fault already
    extents.emplace_back(t.offset, t.offset + t.data.size());
  }
  std::sort(extents.begin(), extents.end());
  extents.emplace_back(file.file_bytes(), file.file_bytes());
  uint64_t end = std::min(file.data_start(), file.file_bytes()), gaps = 0, n = 0, first = 0;
  for (const auto& [begin, next] : extents) {
    if (begin > end && begin - end >= file.alignment()) {
      if (n++ == 0) first = end;
      gaps += begin - end;
    }
    end = std::max(end, next);
  }
  if (n > 0)
    findings->Add("file-gap", file.path().filename().string(),
                  fmt::format("{} bytes in {} place{} belong to no tensor, the first at byte {}", gaps, n,
                              n == 1 ? "" : "s", first));
}

}  // namespace

Status Subject::OpenOne(const fs::path& path, Findings* findings) {
  std::vector<GgufFault> faults;
  auto file = GgufFile::Survey(path, &faults);
  if (!file.ok()) {
    if (file.error().code != Code::kMalformed && file.error().code != Code::kUnsupported)
      return std::move(file).error();
    findings->Add("file-unreadable", path.filename().string(), file.error().message,
                  file.error().code == Code::kUnsupported
                      ? "Convert the model again: the message says into what."
                      : "");
    return {};
  }
  TellFaults(path.filename().string(), faults, findings);
  TellGaps(*file, findings);
  files_.push_back(std::move(file).value());
  return {};
}

void Subject::CheckShards(size_t n_expected, Findings* findings) const {
  std::map<std::string_view, size_t> where;
  for (size_t i = 0; i < files_.size(); ++i) {
    const GgufFile& file = files_[i];
    const std::string name = file.path().filename().string();
    const size_t no = ParseShardName(name).no;
    const auto said_no = file.Uint("split.no"), said_count = file.Uint("split.count");
    if (said_no.ok() && *said_no + 1 != no)
      findings->Add("shard-mismatch", name, fmt::format("split.no is {}, the name says {}", *said_no, no));
    if (!said_count.ok() || *said_count != n_expected)
      findings->Add("shard-mismatch", name,
                    said_count.ok()
                        ? fmt::format("split.count is {}, the name says {}", *said_count, n_expected)
                        : "split.count is missing: the file was cut by hand");
    for (const GgufTensor& t : file.tensors())
      if (!where.emplace(t.name, i).second)
        findings->Add("shard-mismatch", t.name, fmt::format("{}: the tensor stands in two files", name));
  }
  const auto total = main().Uint("split.tensors.count");
  if (files_.size() == n_expected && total.ok() && *total != n_tensors())
    findings->Add("shard-mismatch", main().path().filename().string(),
                  fmt::format("split.tensors.count is {}, the files have {} tensors", *total, n_tensors()));
}

Result<Subject> Subject::Open(const fs::path& path, Findings* findings) {
  Subject subject;
  const ShardName shard = ParseShardName(path.filename().string());
  if (shard.count <= 1) {
    PB_TRY(subject.OpenOne(path, findings));
    if (subject.empty()) return subject;
    const auto count = subject.main().Uint("split.count");
    if (count.ok() && *count > 1)
      findings->Add("shard-missing", path.filename().string(),
                    fmt::format("split.count is {}, and the name is not that of a shard "
                                "(NAME-00001-of-{:05}.gguf)",
                                *count, *count));
    return subject;
  }
  subject.sharded_ = true;
  std::vector<std::string> missing;
  for (size_t no = 1; no <= shard.count; ++no) {
    const fs::path file = path.parent_path() / shard.File(no);
    std::error_code error;
    if (fs::exists(file, error) || no == shard.no)
      PB_TRY(subject.OpenOne(file, findings));
    else
      missing.push_back(file.filename().string());
  }
  if (!missing.empty())
    findings->Add("shard-missing", path.filename().string(), FirstOf(missing) + " of the set is not there");
  else
    findings->Add("shards", path.filename().string(), fmt::format("the model lies in {} files", shard.count));
  if (!subject.empty()) subject.CheckShards(shard.count, findings);
  return subject;
}

const GgufTensor* Subject::FindTensor(std::string_view name) const {
  for (const GgufFile& file : files_)
    if (const GgufTensor* found = file.FindTensor(name)) return found;
  return nullptr;
}

size_t Subject::n_tensors() const {
  size_t n = 0;
  for (const GgufFile& file : files_) n += file.tensors().size();
  return n;
}

uint64_t Subject::bytes() const {
  uint64_t n = 0;
  for (const GgufFile& file : files_) n += file.file_bytes();
  return n;
}

}  // namespace pb::soundness
