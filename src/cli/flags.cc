// Declares flags to CLI11, with checks whose words a person understands.
#include "cli/flags.h"

#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <charconv>

#include "cli/output.h"

namespace pb::cli {
namespace {

// The whole of the text as a number; none: it is not one.
std::optional<double> NumberOf(const std::string& text) {
  double value = 0;
  const char* first = text.data() + (text.starts_with('+') ? 1 : 0);
  const auto [end, error] = std::from_chars(first, text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// What is no number at all is told by what the flag's type checks.
void Check(CLI::Option* option, std::function<bool(double)> fits, std::string expected) {
  option->check([fits = std::move(fits), expected = std::move(expected)](const std::string& text) {
    const std::optional<double> value = NumberOf(text);
    if (!value || fits(*value)) return std::string();
    return fmt::format("`{}` is not {}", text, expected);
  });
}

template <typename Number>
Flag AddNumber(CLI::App& app, const char* names, Number& target, const std::string& help, bool whole) {
  CLI::Option* option = app.add_option(names, target, help);
  option->check([whole](const std::string& text) {
    const bool digits =
        text.find_first_not_of("0123456789", text.starts_with('-') ? 1 : 0) == std::string::npos;
    if (NumberOf(text) && (digits || !whole)) return std::string();
    return fmt::format("`{}` is no {}number", text, whole ? "whole " : "");
  });
  return Flag(option);
}

std::string& Refused() {
  static std::string answer;
  return answer;
}

}  // namespace

Flag& Flag::Group(const char* heading) { return option_->group(heading), *this; }
Flag& Flag::ShowDefault() { return option_->capture_default_str(), *this; }
Flag& Flag::Required() { return option_->required(), *this; }
Flag& Flag::OneValue() { return option_->allow_extra_args(false), *this; }
Flag& Flag::Excludes(const Flag& other) { return option_->excludes(other.option_), *this; }
Flag& Flag::Range(int low, int high) {
  Check(
      option_, [low, high](double value) { return value >= low && value <= high; },
      fmt::format("from {} to {}", low, high));
  return *this;
}
Flag& Flag::Range(double low, double high) {
  Check(
      option_, [low, high](double value) { return value >= low && value <= high; },
      fmt::format("from {:g} to {:g}", low, high));
  return *this;
}
Flag& Flag::Positive() {
  return Check(
             option_, [](double value) { return value > 0; }, "above 0"),
         *this;
}
Flag& Flag::NonNegative() {
  return Check(
             option_, [](double value) { return value >= 0; }, "0 or above"),
         *this;
}
Flag& Flag::OneOf(const std::vector<std::string>& values, const std::vector<std::string>& silent) {
  option_->type_name(fmt::format("{}", fmt::join(values, "|")));
  option_->check([values, silent](const std::string& text) {
    for (const auto* taken : {&values, &silent})
      if (std::find(taken->begin(), taken->end(), text) != taken->end()) return std::string();
    return fmt::format("`{}` is {}{}", text, values.size() == 1 ? "not " : "none of ",
                       fmt::join(values, ", "));
  });
  return *this;
}

Flag Flags::Option(const char* names, std::string& target, const std::string& help) {
  return Flag(app_.add_option(names, target, help));
}
Flag Flags::Option(const char* names, std::vector<std::string>& target, const std::string& help) {
  return Flag(app_.add_option(names, target, help));
}
Flag Flags::Option(const char* names, int& target, const std::string& help) {
  return AddNumber(app_, names, target, help, true);
}
Flag Flags::Option(const char* names, int64_t& target, const std::string& help) {
  return AddNumber(app_, names, target, help, true);
}
Flag Flags::Option(const char* names, uint64_t& target, const std::string& help) {
  return AddNumber(app_, names, target, help, true);
}
Flag Flags::Option(const char* names, double& target, const std::string& help) {
  return AddNumber(app_, names, target, help, false);
}
Flag Flags::Option(const char* names, std::optional<int>& target, const std::string& help) {
  return AddNumber(app_, names, target, help, true);
}
Flag Flags::Option(const char* names, std::optional<uint64_t>& target, const std::string& help) {
  return AddNumber(app_, names, target, help, true);
}
Flag Flags::Option(const char* names, std::optional<double>& target, const std::string& help) {
  return AddNumber(app_, names, target, help, false);
}
Flag Flags::Switch(const char* names, bool& target, const std::string& help) {
  return Flag(app_.add_flag(names, target, help));
}

void Flags::Refuse(const char* name, const std::string& instead) {
  app_.add_option_function<std::vector<std::string>>(name,
                                                     [name, instead](const std::vector<std::string>&) {
                                                       if (Refused().empty())
                                                         Refused() = fmt::format("{}: {}", name, instead);
                                                     })
      ->expected(0, 1)
      ->group("");
}
void Flags::Moot(const char* name, const std::string& always) {
  app_.add_option_function<std::vector<std::string>>(
          name,
          [name, always](const std::vector<std::string>&) {
            PrintError(fmt::format("note: {}: {}\n", name, always));
          })
      ->expected(0, 1)
      ->group("");
}

const std::string& RefusedFlag() { return Refused(); }

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
