// Finds and writes baselines by date and name.
#include "cli/baselines.h"

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "cli/receipts.h"
#include "receipt/schema.h"
#include "receipt/sealed.h"

namespace pb::cli {
namespace {

namespace fs = std::filesystem;

bool IsDate(const std::string& name) {
  constexpr std::string_view kForm = "dddd-dd-dd";
  return name.size() == kForm.size() &&
         std::equal(name.begin(), name.end(), kForm.begin(),
                    [](char c, char f) { return f == 'd' ? c >= '0' && c <= '9' : c == f; });
}

}  // namespace

Result<std::optional<Baseline>> NewestBaseline(const std::string& folder, const std::string& name) {
  std::error_code error;
  std::string newest;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string date = it->path().filename().string();
    std::error_code ignored;
    if (IsDate(date) && date > newest && fs::exists(it->path() / (name + ".json"), ignored)) newest = date;
  }
  if (newest.empty()) return std::optional<Baseline>();
  Baseline baseline;
  baseline.path = (fs::path(folder) / newest / (name + ".json")).string();
  PB_ASSIGN(const std::string text, ReadFile(baseline.path, kMaxReceiptBytes));
  receipt::Opened opened = receipt::Open(text);
  std::vector<std::string> violations;
  if (opened.object.is_object()) violations = receipt::ReceiptViolations(opened.object);
  if (opened.problem.empty() && !violations.empty()) opened.problem = "the schema: " + violations[0];
  if (!opened.problem.empty()) return MakeError(Code::kMalformed, "{}: {}", baseline.path, opened.problem);
  baseline.receipt = std::move(opened.object);
  return std::optional(std::move(baseline));
}

Result<std::string> WriteBaseline(const std::string& folder, const std::string& name,
                                  const nlohmann::json& receipt, const std::string& behind,
                                  const std::string& reason) {
  const std::string now = TimeText(NowSeconds());
  const fs::path path = fs::path(folder) / now.substr(0, 10) / (name + ".json");
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (error) return MakeError(Code::kIo, "{}: {}", path.parent_path().string(), error.message());
  if (!behind.empty())
    PB_TRY(WriteFileAtomic(fs::path(path).replace_extension(".reason.txt"),
                           fmt::format("{}\nbehind the one before: {}\nreason: {}\n", now, behind, reason)));
  PB_ASSIGN(const std::string text, receipt::Seal(receipt));
  PB_TRY(WriteFileAtomic(path, text));
  return path.string();
}

}  // namespace pb::cli
