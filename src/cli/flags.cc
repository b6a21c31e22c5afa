// The only file beside cli.cc that compiles CLI11.
#include "cli/flags.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

namespace pb::cli {

Flag& Flag::Group(const char* heading) { return option_->group(heading), *this; }
Flag& Flag::ShowDefault() { return option_->capture_default_str(), *this; }
Flag& Flag::Required() { return option_->required(), *this; }
Flag& Flag::OneValue() { return option_->allow_extra_args(false), *this; }
Flag& Flag::Excludes(const Flag& other) { return option_->excludes(other.option_), *this; }
Flag& Flag::Range(int low, int high) { return option_->check(CLI::Range(low, high)), *this; }
Flag& Flag::Range(double low, double high) { return option_->check(CLI::Range(low, high)), *this; }
Flag& Flag::Positive() { return option_->check(CLI::PositiveNumber), *this; }
Flag& Flag::NonNegative() { return option_->check(CLI::NonNegativeNumber), *this; }
Flag& Flag::OneOf(const std::vector<std::string>& values) {
  return option_->check(CLI::IsMember(values)), *this;
}

Flag Flags::Option(const char* names, std::string& target, const std::string& help) {
  return Flag(app_.add_option(names, target, help));
}
Flag Flags::Option(const char* names, std::vector<std::string>& target, const std::string& help) {
  return Flag(app_.add_option(names, target, help));
}
Flag Flags::Option(const char* names, int& target, const std::string& help) {
  return Flag(app_.add_option(names, target, help));
}
Flag Flags::Option(const char* names, int64_t& target, const std::string& help) {
  return Flag(app_.add_option(names, target, help));
}
Flag Flags::Option(const char* names, uint64_t& target, const std::string& help) {
  return Flag(app_.add_option(names, target, help));
}
Flag Flags::Option(const char* names, double& target, const std::string& help) {
  return Flag(app_.add_option(names, target, help));
}
Flag Flags::Option(const char* names, std::optional<int>& target, const std::string& help) {
  return Flag(app_.add_option(names, target, help));
}
Flag Flags::Option(const char* names, std::optional<uint64_t>& target, const std::string& help) {
  return Flag(app_.add_option(names, target, help));
}
Flag Flags::Option(const char* names, std::optional<double>& target, const std::string& help) {
  return Flag(app_.add_option(names, target, help));
}
Flag Flags::Switch(const char* names, bool& target, const std::string& help) {
  return Flag(app_.add_flag(names, target, help));
}

Status ReadWords(const std::vector<std::string>& words, const std::function<void(Flags&)>& declare) {
  CLI::App app;
  Flags flags(app);
  declare(flags);
  std::vector<const char*> argv;
  for (const std::string& word : words) argv.push_back(word.c_str());
  try {
    app.parse(static_cast<int>(argv.size()), argv.data());
  } catch (const CLI::ParseError& error) {
    return MakeError(Code::kUsage, "{}", error.what());
  }
  return {};
}

}  // namespace pb::cli
