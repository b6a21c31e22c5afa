// Addresses of hubs: what of them decides to whom a token may be sent.
#ifndef PARITYBIT_HUB_URL_H_
#define PARITYBIT_HUB_URL_H_

#include <string>
#include <string_view>

#include "base/result.h"

namespace pb::hub {

struct Url {
  std::string scheme, host;  // lower case; "http" or "https"; an IPv6 host keeps its brackets
  int port = 0;
  std::string path = "/";  // begins with a slash
  std::string query;       // with its question mark; empty: none

  // kUsage: no address, another scheme, or one with a name and password in it.
  static Result<Url> Parse(std::string_view text);
  // What a Location header in an answer from here leads to.
  Result<Url> Join(std::string_view location) const;

  bool SameOrigin(const Url& other) const {
    return scheme == other.scheme && host == other.host && port == other.port;
  }
  bool loopback() const;
  std::string text() const;  // whole, for the request
  // Without the query, which may hold a signature that lets anyone in.
  std::string shown() const;
};

// One segment of a path, or several with slashes between, with everything escaped that is not plain.
std::string EscapePath(std::string_view path);

}  // namespace pb::hub

#endif  // PARITYBIT_HUB_URL_H_
