// Takes addresses apart and puts them together.
#include "hub/url.h"

#include <algorithm>
#include <charconv>

namespace pb::hub {
namespace {

bool IsPlain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

int DefaultPort(std::string_view scheme) { return scheme == "https" ? 443 : 80; }

}  // namespace

Result<Url> Url::Parse(std::string_view text) {
  const auto wrong = [&](const char* what) {
    return MakeError(Code::kUsage, "\"{:.120}\" is no address of a hub: {}", text, what);
  };
  if (std::any_of(text.begin(), text.end(),
                  [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == 0x7f; }))
    return wrong("it holds blanks or control characters");
  Url url;
  const size_t colon = text.find("://");
  if (colon == text.npos) return wrong("it begins with neither https:// nor http://");
  url.scheme = Lower(text.substr(0, colon));
  if (url.scheme != "https" && url.scheme != "http") return wrong("only https and http are spoken");
  text.remove_prefix(colon + 3);
  const size_t end = std::min(text.find_first_of("/?#"), text.size());
  std::string_view authority = text.substr(0, end);
  text.remove_prefix(end);
  if (authority.find('@') != authority.npos) return wrong("a name and password have no place in it");
  const size_t bracket = authority.starts_with('[') ? authority.find(']') : 0;
  if (bracket == authority.npos) return wrong("the bracket of its host is not closed");
  const size_t port = authority.find(':', bracket);
  url.host = Lower(authority.substr(0, port));
  url.port = DefaultPort(url.scheme);
  if (port != authority.npos) {
    const std::string_view digits = authority.substr(port + 1);
    const auto [last, error] = std::from_chars(digits.data(), digits.data() + digits.size(), url.port);
    if (error != std::errc() || last != digits.data() + digits.size() || url.port < 1 || url.port > 65535)
      return wrong("its port is no number from 1 to 65535");
  }
  if (url.host.empty()) return wrong("it has no host");
  text = text.substr(0, text.find('#'));
  const size_t query = std::min(text.find('?'), text.size());
  if (query > 0) url.path = text.substr(0, query);
  url.query = text.substr(query);
  return url;
}

Result<Url> Url::Join(std::string_view location) const {
  if (location.find("://") != location.npos && location.find("://") < location.find_first_of("/?#"))
    return Parse(location);
  if (location.starts_with("//")) return Parse(scheme + ":" + std::string(location));
  std::string path_and_query(location.substr(0, location.find('#')));
  if (!path_and_query.starts_with('/')) path_and_query = path.substr(0, path.rfind('/') + 1) + path_and_query;
  const bool default_port = port == DefaultPort(scheme);
  return Parse(
      fmt::format("{}://{}{}{}", scheme, host, default_port ? "" : fmt::format(":{}", port), path_and_query));
}

bool Url::loopback() const {
  return host == "localhost" || host == "[::1]" ||
         (host.starts_with("127.") && host.find_first_not_of("0123456789.") == host.npos);
}

std::string Url::shown() const {
  return fmt::format("{}://{}{}{}", scheme, host, port == DefaultPort(scheme) ? "" : fmt::format(":{}", port),
                     path);
}

std::string Url::text() const { return shown() + query; }

std::string EscapePath(std::string_view path) {
  std::string out;
  for (char c : path) {
    if (IsPlain(c) || c == '/')
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace pb::hub
