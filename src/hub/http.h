// One GET over HTTP, as it goes: status and headers first, then the bytes.
#ifndef PARITYBIT_HUB_HTTP_H_
#define PARITYBIT_HUB_HTTP_H_

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hub/url.h"

namespace pb::hub {

struct Response {
  int status = 0;
  std::map<std::string, std::string, std::less<>> headers;  // names in lower case, the last of equals
  // What Retry-After asks for, in seconds; none: there is none, or it makes no sense.
  std::optional<double> retry_after;
  std::string_view Header(std::string_view name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string_view() : std::string_view(found->second);
  }
};

// Who takes the answer. What is null takes nothing.
struct Sink {
  // Before the first byte of a body; false: the body is not wanted, which is no error.
  std::function<bool(const Response&)> begin;
  std::function<Status(std::string_view bytes)> body;
};

struct Get {
  Url url;
  std::vector<std::string> headers;  // "Name: value"
  double seconds = 60;               // for the whole exchange
};

// kIo: no connection, a connection that ended too early or stood still (30 s); the message has the
// reason and no query. kTimeout: `seconds` are over. Redirects are not followed.
Result<Response> Perform(const Get& get, const Sink& sink);

}  // namespace pb::hub

#endif  // PARITYBIT_HUB_HTTP_H_
