// What an examination of a model file finds: one table of kinds, each with its severity, what
// follows from it and what mends it.
#ifndef PARITYBIT_SOUNDNESS_FINDING_H_
#define PARITYBIT_SOUNDNESS_FINDING_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pb::soundness {

enum class Severity {
  kNote,     // worth knowing; the file is as it should be
  kWarning,  // engines may compute something else than is meant
  kError,    // the file is broken: engines refuse it, or compute garbage
};
const char* SeverityName(Severity severity);  // "note" "warning" "error"

struct FindingKind {
  std::string_view code;  // "tensor-beyond-file"
  Severity severity;
  std::string_view consequence, cure;  // a sentence each
};
// In the order in which things are examined.
std::span<const FindingKind> FindingKinds();

struct Finding {
  const FindingKind* kind = nullptr;
  std::string where;  // a tensor, a key, a file; text of the file, not escaped
  std::string text;   // a sentence with what was found
  std::string cure;   // the kind's, or one with the values at hand
};

class Findings {
 public:
  // `code` is one of the table. `cure`: in place of the kind's.
  void Add(std::string_view code, std::string where, std::string text, std::string cure = {});
  bool Has(std::string_view code) const;
  int Count(Severity severity) const;
  const std::vector<Finding>& items() const { return items_; }

 private:
  std::vector<Finding> items_;
};

// "a, b, c, d and 12 more".
std::string FirstOf(const std::vector<std::string>& names);

}  // namespace pb::soundness

#endif  // PARITYBIT_SOUNDNESS_FINDING_H_
