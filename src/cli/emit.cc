// Writes exports for four shells, each with its own rules of quoting.
#include "cli/emit.h"

#include <fmt/core.h>

#include "base/text.h"

namespace pb::cli {
namespace {

std::string Replaced(std::string_view text, std::string_view what, std::string_view with) {
  std::string out;
  for (size_t at = 0;;) {
    const size_t next = text.find(what, at);
    out += text.substr(at, next - at);
    if (next == text.npos) return out;
    out += with;
    at = next + what.size();
  }
}

std::string Sh(const std::string& root, const std::string& libraries) {
  const std::string dir = ShellQuote(libraries);
  return fmt::format(
      "export BITNET_CPP_DIR={0}\n"
      "export BITNET_CROSSVAL_LIBDIR={1}\n"
      "case \":${{LD_LIBRARY_PATH:-}}:\" in *:{1}:*) ;; *) export "
      "LD_LIBRARY_PATH={1}\"${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\" ;; esac\n",
      ShellQuote(root), dir);
}

std::string Fish(const std::string& root, const std::string& libraries) {
  const auto quote = [](const std::string& text) {
    return "'" + Replaced(Replaced(text, "\\", "\\\\"), "'", "\\'") + "'";
  };
  return fmt::format(
      "set -gx BITNET_CPP_DIR {0}\n"
      "set -gx BITNET_CROSSVAL_LIBDIR {1}\n"
      "contains -- {1} $LD_LIBRARY_PATH; or set -gx --path LD_LIBRARY_PATH {1} $LD_LIBRARY_PATH\n",
      quote(root), quote(libraries));
}

std::string Pwsh(const std::string& root, const std::string& libraries) {
  const auto quote = [](const std::string& text) { return "'" + Replaced(text, "'", "''") + "'"; };
  return fmt::format(
      "$env:BITNET_CPP_DIR = {0}\n"
      "$env:BITNET_CROSSVAL_LIBDIR = {1}\n"
      "if (-not (\":$env:LD_LIBRARY_PATH:\").Contains(':' + {1} + ':')) {{ $env:LD_LIBRARY_PATH = {1} + "
      "$(if ($env:LD_LIBRARY_PATH) {{ ':' + $env:LD_LIBRARY_PATH }}) }}\n",
      quote(root), quote(libraries));
}

std::string Cmd(const std::string& root, const std::string& libraries) {
  const auto escape = [](const std::string& text) { return Replaced(text, "%", "%%"); };
  return fmt::format(
      "@set \"BITNET_CPP_DIR={0}\"\r\n"
      "@set \"BITNET_CROSSVAL_LIBDIR={1}\"\r\n"
      "@set \"PATH={1};%PATH%\"\r\n",
      escape(root), escape(libraries));
}

}  // namespace

const std::vector<std::string>& Shells() {
  static const std::vector<std::string> shells = {"sh", "fish", "pwsh", "cmd"};
  return shells;
}

std::string ExportsOf(std::string_view shell, const setup::Reference& reference) {
  const std::string root = reference.root.string(), libraries = reference.library_dir.string();
  if (shell == "fish") return Fish(root, libraries);
  if (shell == "pwsh") return Pwsh(root, libraries);
  if (shell == "cmd") return Cmd(root, libraries);
  return Sh(root, libraries);
}

}  // namespace pb::cli
