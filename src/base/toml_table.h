// One table of a TOML file that people write: a reader asks for its keys by type, and a key that
// nobody asked for is an error.
#ifndef PARITYBIT_BASE_TOML_TABLE_H_
#define PARITYBIT_BASE_TOML_TABLE_H_

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pb {

// Keys that the table does not have leave their targets as they are. The first thing that is wrong
// is what End returns.
class TomlTable {
 public:
  // `table` is an object and outlives this; `where` is how errors name it, as "gate 2 (tiny)".
  TomlTable(const nlohmann::json& table, std::string where);

  void Text(const char* key, std::string* target);
  void Truth(const char* key, bool* target);
  // Not below 0.
  void Number(const char* key, std::optional<double>* target);
  void Whole(const char* key, int64_t least, int64_t most, int64_t* target);
  // A list of texts that is not empty; `example` is one, for the error.
  void Words(const char* key, const char* example, std::vector<std::string>* target);
  void Numbers(const char* key, std::map<std::string, double>* target);
  // Known, and read by somebody else.
  void Skip(const char* key);

  // kMalformed: a value of another type or out of its range, or a key that is not known.
  Status End();

 private:
  // The value where there is one to look at.
  const nlohmann::json* Find(const char* key);
  void Fail(const char* key, const std::string& what);

  const nlohmann::json& table_;
  std::string where_;
  std::vector<std::string> known_;
  std::optional<Error> error_;
};

// Whether a name that people give to a part of such a file can be a file's: letters, digits, - _ and
// ., of which the last may not begin it.
bool IsFileName(std::string_view name);

}  // namespace pb

#endif  // PARITYBIT_BASE_TOML_TABLE_H_
