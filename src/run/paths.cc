// Tells from the record of a comparison which code paths its evaluations went through.
#include "run/paths.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "drive/passes.h"
#include "run/record.h"

namespace pb::run {
namespace {

constexpr std::string_view kTexts[kPathCount] = {
    "decode",
    "2 to 3 tokens at once",
    "32 or more at once",
    "a number of tokens at once that is no multiple of 4",
    "two threads",
    "positions from 32 on",
    "positions from 512 on",
    "flash attention",
    "text with digits",
    "text with contractions",
    "text with blank lines",
    "text with code",
    "text in other scripts",
    "a second sequence beside the first",
};

bool IsLetter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }
bool IsDigit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

// The paths of an evaluation of so many tokens.
void AddRows(int64_t n_rows, std::set<Path>* taken) {
  if (n_rows == 2 || n_rows == 3) taken->insert(Path::kFewRows);
  if (n_rows >= 32) taken->insert(Path::kManyRows);
  if (n_rows > 4 && n_rows % 4 != 0) taken->insert(Path::kOddRows);
}

int64_t Threads(const drive::EngineRecord& engine) {
  const std::string threads = engine.session_facts().threads;
  int64_t n = 1;
  std::from_chars(threads.data(), threads.data() + threads.size(), n);
  return n;
}

}  // namespace

std::string_view PathText(Path path) { return kTexts[static_cast<int>(path)]; }

std::set<Path> PathsOfText(std::string_view text) {
  std::set<Path> paths;
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    const char c = text[i], next = text[i + 1];
    if (IsDigit(c) && IsDigit(next)) paths.insert(Path::kDigits);
    if (c == '\n' && next == '\n') paths.insert(Path::kBlankLines);
    if (i > 0 && c == '\'' && IsLetter(text[i - 1]) && IsLetter(next)) paths.insert(Path::kContractions);
    const bool call = c == '(' && next == ')', block = c == '{' || (c == ';' && next == '\n');
    if (call || block || (c == '\n' && next == '\t')) paths.insert(Path::kCode);
    // UTF-8 of code points from U+0370 on, where Greek begins, begins with 0xCD 0xB0 or more.
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0xCE && byte <= 0xF4) paths.insert(Path::kScripts);
  }
  return paths;
}

std::string_view TextOfAllPaths() {
  return "I'm sure that 1234 + 567 = 1801, don't you?\n\n"
         "int main() {\n\treturn f(x[2], \"a_b\") != 0;\n}\n\n"
         "\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82, \xCE\xBA\xCF\x8C\xCF\x83\xCE\xBC\xCE\xB5, "
         "\xE4\xBD\xA0\xE5\xA5\xBD, \xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D, \xF0\x9F\x99\x82.";
}

namespace {

// Of these prompts' evaluations, in all of these engines.
std::set<Path> TakenBy(std::initializer_list<const drive::EngineRecord*> engines,
                       const std::vector<const PromptRecord*>& prompts) {
  std::set<Path> taken;
  const int64_t rows = drive::PassRows(engines);
  int64_t n_compared = 0;
  for (const PromptRecord* prompt : prompts) {
    const auto n = static_cast<int64_t>(prompt->tokens.size());
    const auto n_all = n + static_cast<int64_t>(prompt->decoded.size());
    n_compared += n_all;
    if (!prompt->decoded.empty()) taken.insert(Path::kDecode);
    if (n >= rows) AddRows(rows, &taken);
    AddRows(n % rows, &taken);
    if (n_all > 32) taken.insert(Path::kPast32);
    if (n_all > 512) taken.insert(Path::kPast512);
    taken.merge(PathsOfText(prompt->text));
  }
  if (n_compared == 0) return {};
  const auto all = [&](auto has) {
    return std::ranges::all_of(engines, [&](const drive::EngineRecord* e) { return has(*e); });
  };
  if (all([](const drive::EngineRecord& e) { return Threads(e) >= 2; })) taken.insert(Path::kThreads);
  if (all([](const drive::EngineRecord& e) { return e.session_facts().flash.value == "on"; }))
    taken.insert(Path::kFlash);
  return taken;
}

std::vector<Path> Without(const std::set<Path>& taken) {
  std::vector<Path> left;
  for (int i = 0; i < kPathCount; ++i)
    if (!taken.contains(static_cast<Path>(i))) left.push_back(static_cast<Path>(i));
  return left;
}

}  // namespace

std::set<Path> PathsTaken(const Comparison& c) {
  std::vector<const PromptRecord*> compared;
  for (const PromptRecord& prompt : c.prompts)
    if (std::ranges::any_of(
            c.rows, [&](const compare::LogitsRow& row) { return &prompt - c.prompts.data() == row.prompt; }))
      compared.push_back(&prompt);
  return TakenBy({&c.candidate, &c.reference}, compared);
}

std::vector<Path> PathsNotTaken(const Comparison& comparison) {
  std::set<Path> taken = PathsTaken(comparison);
  taken.insert(comparison.paths_beside.begin(), comparison.paths_beside.end());
  return Without(taken);
}

std::vector<Path> PathsNotTakenAlone(const Comparison& comparison) {
  std::vector<const PromptRecord*> all;
  for (const PromptRecord& prompt : comparison.prompts) all.push_back(&prompt);
  return Without(TakenBy({&comparison.candidate}, all));
}

}  // namespace pb::run
