// HTTP by libcurl.
#include "hub/http.h"

#include <curl/curl.h>

#include <cstdlib>
#include <memory>

namespace pb::hub {
namespace {

constexpr size_t kMaxHeaderBytes = 256 << 10;
constexpr long kConnectSeconds = 15, kStallSeconds = 30, kStallBytes = 1;

// A transfer that is under way.
struct Exchange {
  CURL* curl = nullptr;
  const Sink& sink;
  Response response;
  size_t header_bytes = 0;
  bool begun = false, unwanted = false;
  Status failed;
};

std::string Trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == text.npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1));
}

size_t OnHeader(char* data, size_t size, size_t n, void* user) {
  auto& exchange = *static_cast<Exchange*>(user);
  const std::string_view line(data, size * n);
  exchange.header_bytes += line.size();
  if (exchange.header_bytes > kMaxHeaderBytes) {
    exchange.failed = MakeError(Code::kIo, "the answer's headers have more than {} bytes", kMaxHeaderBytes);
    return 0;
  }
  if (line.starts_with("HTTP/")) {  // of a further answer, as behind 100 Continue or a proxy
    exchange.response = {};
    return line.size();
  }
  const size_t colon = line.find(':');
  if (colon == line.npos) return line.size();
  std::string name = Trimmed(line.substr(0, colon));
  for (char& c : name)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  exchange.response.headers[name] = Trimmed(line.substr(colon + 1));
  return line.size();
}

void Begin(Exchange& exchange) {
  if (exchange.begun) return;
  exchange.begun = true;
  long status = 0;
  curl_easy_getinfo(exchange.curl, CURLINFO_RESPONSE_CODE, &status);
  exchange.response.status = static_cast<int>(status);
  curl_off_t wait = 0;
  if (exchange.response.headers.count("retry-after") &&
      curl_easy_getinfo(exchange.curl, CURLINFO_RETRY_AFTER, &wait) == CURLE_OK)
    exchange.response.retry_after = static_cast<double>(wait);
  exchange.unwanted = !exchange.sink.begin || !exchange.sink.begin(exchange.response);
}

size_t OnBody(char* data, size_t size, size_t n, void* user) {
  auto& exchange = *static_cast<Exchange*>(user);
  Begin(exchange);
  if (exchange.unwanted) return 0;
  if (exchange.sink.body) exchange.failed = exchange.sink.body({data, size * n});
  return exchange.failed.ok() ? size * n : 0;
}

// libcurl reads http_proxy in lower case alone; people set either.
const char* ProxyOf(const Url& url) {
  const char* lower = std::getenv("http_proxy");
  const char* upper = std::getenv("HTTP_PROXY");
  return url.scheme == "http" && !lower && upper && *upper ? upper : nullptr;
}

Status StartLibrary() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (code == CURLE_OK) return {};
  return MakeError(Code::kIo, "libcurl: {}", curl_easy_strerror(code));
}

struct Free {
  void operator()(CURL* curl) const { curl_easy_cleanup(curl); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

void SetOptions(const Get& get, Exchange* exchange, curl_slist* headers) {
  CURL* curl = exchange->curl;
  curl_easy_setopt(curl, CURLOPT_URL, get.url.text().c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "paritybit");
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, kStallBytes);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, kStallSeconds);
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(get.seconds * 1000) + 1);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, OnHeader);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, exchange);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, OnBody);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, exchange);
  curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  if (const char* proxy = ProxyOf(get.url)) curl_easy_setopt(curl, CURLOPT_PROXY, proxy);
}

}  // namespace

Result<Response> Perform(const Get& get, const Sink& sink) {
  PB_TRY(StartLibrary());
  const std::unique_ptr<CURL, Free> curl(curl_easy_init());
  if (!curl) return MakeError(Code::kIo, "libcurl: no memory");
  curl_slist* list = nullptr;
  for (const std::string& header : get.headers) list = curl_slist_append(list, header.c_str());
  const std::unique_ptr<curl_slist, Free> headers(list);
  Exchange exchange{curl.get(), sink, {}, 0, false, false, {}};
  SetOptions(get, &exchange, list);
  const CURLcode code = curl_easy_perform(curl.get());
  if (!exchange.failed.ok()) return std::move(exchange.failed).error();
  if (code == CURLE_OK) Begin(exchange);
  if (code == CURLE_OK || exchange.unwanted) return exchange.response;
  const double seconds = get.seconds;
  curl_off_t taken = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_TOTAL_TIME_T, &taken);
  if (code == CURLE_OPERATION_TIMEDOUT && static_cast<double>(taken) >= seconds * 1e6)
    return MakeError(Code::kTimeout, "{}: not done after {:.0f} s", get.url.shown(), seconds);
  return MakeError(Code::kIo, "{}: {}", get.url.shown(), curl_easy_strerror(code));
}

}  // namespace pb::hub
