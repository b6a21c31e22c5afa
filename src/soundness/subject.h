// The file or files of one model as they lie on disk, opened in spite of what is wrong with them.
#ifndef PARITYBIT_SOUNDNESS_SUBJECT_H_
#define PARITYBIT_SOUNDNESS_SUBJECT_H_

#include <filesystem>
#include <string_view>
#include <vector>

#include "formats/gguf.h"
#include "soundness/finding.h"

namespace pb::soundness {

class Subject {
 public:
  // Opens the file, or all files of the set that it is one of (NAME-00001-of-00003.gguf). What is
  // wrong with their headers, tensors' places and shards goes to `findings`; a file that is not
  // there is an error.
  static Result<Subject> Open(const std::filesystem::path& path, Findings* findings);

  // No header could be read.
  bool empty() const { return files_.empty(); }
  bool sharded() const { return sharded_; }
  const std::vector<GgufFile>& files() const { return files_; }
  // The one with the metadata.
  const GgufFile& main() const { return files_.front(); }
  // Of any file; nullptr: there is none. A tensor without a place has no data.
  const GgufTensor* FindTensor(std::string_view name) const;
  size_t n_tensors() const;
  uint64_t bytes() const;

 private:
  Status OpenOne(const std::filesystem::path& path, Findings* findings);
  void CheckShards(size_t n_expected, Findings* findings) const;

  std::vector<GgufFile> files_;
  bool sharded_ = false;
};

}  // namespace pb::soundness

#endif  // PARITYBIT_SOUNDNESS_SUBJECT_H_
