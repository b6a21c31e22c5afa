// How a command declares its flags. CLI11 stays behind this interface: its headers cost more to
// compile than a command.
#ifndef PARITYBIT_CLI_FLAGS_H_
#define PARITYBIT_CLI_FLAGS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace pb::cli {

// One declared flag. Each call says more about it and returns it.
class Flag {
 public:
  explicit Flag(CLI::Option* option) : option_(option) {}
  Flag& Group(const char* heading);  // where the help shows it
  Flag& ShowDefault();               // the help shows the value as it is now
  Flag& Required();
  Flag& OneValue();  // takes one value each time it is given, and may be given again
  Flag& Excludes(const Flag& other);
  Flag& Range(int low, int high);
  Flag& Range(double low, double high);
  Flag& Positive();
  Flag& NonNegative();
  // `silent`: what is taken besides and not shown.
  Flag& OneOf(const std::vector<std::string>& values, const std::vector<std::string>& silent = {});

 private:
  CLI::Option* option_;
};

// The flags of one command. Targets keep their address until the command has run; `names` is
// "-m,--model", or a bare word for an argument by position.
class Flags {
 public:
  explicit Flags(CLI::App& app) : app_(app) {}
  Flag Option(const char* names, std::string& target, const std::string& help);
  Flag Option(const char* names, std::vector<std::string>& target, const std::string& help);
  Flag Option(const char* names, int& target, const std::string& help);
  Flag Option(const char* names, int64_t& target, const std::string& help);
  Flag Option(const char* names, uint64_t& target, const std::string& help);
  Flag Option(const char* names, double& target, const std::string& help);
  Flag Option(const char* names, std::optional<int>& target, const std::string& help);
  Flag Option(const char* names, std::optional<uint64_t>& target, const std::string& help);
  Flag Option(const char* names, std::optional<double>& target, const std::string& help);
  // True when given.
  Flag Switch(const char* names, bool& target, const std::string& help);

  // Flags of the documented system that stand in no help, with a value or without. Refused: a usage
  // error that says `instead`. Moot: taken, as what it asks for is always so; told on stderr.
  void Refuse(const char* name, const std::string& instead);
  void Moot(const char* name, const std::string& always);

 private:
  CLI::App& app_;
};

// What the first refused flag of the command line was answered with; empty: none was given.
const std::string& RefusedFlag();

// Reads the words of a command, which is the first of them, as the flags that `declare` declares.
// kUsage: they are not its.
Status ReadWords(const std::vector<std::string>& words, const std::function<void(Flags&)>& declare);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_FLAGS_H_
