// Follows redirects by itself, so that it knows to whom the token goes; resumes, waits and tries
// again, and believes nothing that does not fit its digest and length.
#include "hub/download.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/kept.h"
#include "base/sha256.h"
#include "hub/http.h"
#include "hub/partial.h"

namespace pb::hub {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int kMaxRedirects = 10;
constexpr double kMaxRetryAfter = 3600, kRetryAfterThrottled = 5;
constexpr uint64_t kMaxSourceBytes = 64 << 10;
// Sizes beyond this are no file's.
constexpr uint64_t kMaxTotal = uint64_t{1} << 50;

bool IsHex64(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == text.npos;
}

std::string Unquoted(std::string_view etag) {
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  return std::string(etag);
}

std::optional<uint64_t> Number(std::string_view text) {
  uint64_t v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return v;
}

// "bytes 100-199/200": the first byte, and the length of the whole (0: not said).
struct ContentRange {
  uint64_t first = 0, total = 0;
};
std::optional<ContentRange> ParseContentRange(std::string_view text) {
  if (!text.starts_with("bytes ")) return std::nullopt;
  text.remove_prefix(6);
  const size_t slash = text.find('/'), dash = text.find('-');
  if (slash == text.npos) return std::nullopt;
  ContentRange range;
  const auto total = Number(text.substr(slash + 1));
  if (total) range.total = *total;
  if (text.substr(0, slash) == "*") return range;
  const auto first = dash < slash ? Number(text.substr(0, dash)) : std::nullopt;
  if (!first) return std::nullopt;
  range.first = *first;
  return range;
}

// What the first answer of a chain says of the file behind it.
struct Linked {
  std::string etag;    // a file's sha256, where the hub keeps it apart from small ones
  uint64_t bytes = 0;  // 0: not said
};

struct Answer {
  Response response;
  Url url;  // whose it is, behind all redirects
  Linked linked;
};

// What kind of failure an answer is.
enum class Verdict { kGood, kAgain, kFinal };

Verdict VerdictOf(int status) {
  if (status == 200 || status == 206 || status == 304 || status == 416) return Verdict::kGood;
  constexpr int kAgain[] = {408, 425, 429, 500, 502, 503, 504};
  return std::find(std::begin(kAgain), std::end(kAgain), status) != std::end(kAgain) ? Verdict::kAgain
                                                                                     : Verdict::kFinal;
}

std::string Said(const Response& response) {
  std::string said;
  for (const char* name : {"x-error-code", "x-error-message"})
    if (const std::string_view value = response.Header(name); !value.empty())
      said += fmt::format("{}{:.200}", said.empty() ? "; the hub says: " : ", ", value);
  return said;
}

Error Refusal(const Response& response, const Url& url, bool has_token) {
  const std::string where = fmt::format("{}: HTTP {}{}", url.shown(), response.status, Said(response));
  if (response.status == 401 || response.status == 403)
    return MakeError(
        Code::kIo, "{}\n       {}", where,
        has_token ? "HF_TOKEN was sent: see that it is valid, and that its owner has accepted the "
                    "model's terms on the hub's page"
                  : "set HF_TOKEN to a token of the hub; a gated model's terms are accepted on its page");
  if (response.status == 404 || response.status == 410)
    return MakeError(Code::kNotFound, "{}\n       see that --id, --file and --rev are spelled as on the hub",
                     where);
  return MakeError(Code::kIo, "{}", where);
}

class Download {
 public:
  Download(const FileRequest& request, const Observer& observer) : request_(request), observer_(observer) {}
  Result<Fetched> Run();

 private:
  // What one attempt came to.
  enum class Outcome { kWhole, kAgain, kUnchanged };
  struct Attempt {
    Outcome outcome = Outcome::kAgain;
    std::string why;
    std::optional<double> wait;
  };

  void Log(const std::string& line) const {
    if (observer_.log) observer_.log(line);
  }
  void Tell(const Event& event) const {
    if (observer_.event) observer_.event(event);
  }
  double SecondsLeft() const { return request_.seconds - Seconds(); }
  double Seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  Error TimeIsUp() const {
    return MakeError(Code::kIo,
                     "{}: not done after {:.0f} s (--timeout); the same command goes on where it was",
                     request_.url.shown(), request_.seconds);
  }

  std::vector<std::string> HeadersFor(const Url& url, const std::vector<std::string>& more) const;
  // `enough`: a redirect that tells what is asked for is not followed; may be null.
  Result<Answer> Follow(const std::vector<std::string>& headers,
                        const std::function<bool(const Answer&)>& begin,
                        const std::function<Status(std::string_view)>& body,
                        const std::function<bool(const Answer&)>& enough = nullptr);
  Result<std::optional<Fetched>> LookAtTarget();
  Result<bool> IsUnchanged(const nlohmann::json& source);
  Result<Attempt> Try(Partial& partial);
  Status Receive(Partial& partial);
  Status Begin(const Answer& answer, Partial& partial);
  Result<Fetched> Complete(Partial& partial);
  std::string Expected(const Partial& partial) const;
  void WriteSource(const Partial& partial, const std::string& sha256) const;
  fs::path SourcePath() const { return request_.target.string() + ".source.json"; }

  const FileRequest& request_;
  const Observer& observer_;
  const Clock::time_point start_ = Clock::now();
};

std::vector<std::string> Download::HeadersFor(const Url& url, const std::vector<std::string>& more) const {
  std::vector<std::string> headers = more;
  headers.push_back("Accept-Encoding: identity");
  // Never in clear over a network, and never to whom a redirect leads.
  if (!request_.token.empty() && url.SameOrigin(request_.url) && (url.scheme == "https" || url.loopback()))
    headers.push_back("Authorization: Bearer " + request_.token);
  return headers;
}

Result<Answer> Download::Follow(const std::vector<std::string>& headers,
                                const std::function<bool(const Answer&)>& begin,
                                const std::function<Status(std::string_view)>& body,
                                const std::function<bool(const Answer&)>& enough) {
  Answer answer;
  answer.url = request_.url;
  for (int hop = 0; hop <= kMaxRedirects; ++hop) {
    const double left = SecondsLeft();
    if (left <= 0) return Error{Code::kTimeout, ""};
    const auto is_redirect = [](int status) {
      return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
    };
    Sink sink;
    sink.begin = [&](const Response& response) {
      answer.response = response;
      if (answer.linked.etag.empty()) answer.linked.etag = Unquoted(response.Header("x-linked-etag"));
      if (const auto bytes = Number(response.Header("x-linked-size")); bytes && answer.linked.bytes == 0)
        answer.linked.bytes = *bytes;
      return !is_redirect(response.status) && begin(answer);
    };
    sink.body = body;
    Log(fmt::format("GET {}", answer.url.shown()));
    PB_ASSIGN(answer.response, Perform({answer.url, HeadersFor(answer.url, headers), left}, sink));
    Log(fmt::format("  HTTP {}{}", answer.response.status, Said(answer.response)));
    if (!is_redirect(answer.response.status) || (enough && enough(answer))) return answer;
    const std::string_view location = answer.response.Header("location");
    if (location.empty())
      return MakeError(Code::kIo, "{}: a redirect without a Location", answer.url.shown());
    auto next = answer.url.Join(location);
    if (!next.ok()) return MakeError(Code::kIo, "{}: redirects to no address of a file", answer.url.shown());
    if (next->scheme == "http" && !next->loopback() && !next->SameOrigin(request_.url))
      return MakeError(Code::kIo, "{}: redirects to {}, in clear, which is not followed", answer.url.shown(),
                       next->shown());
    answer.url = std::move(next).value();
  }
  return MakeError(Code::kIo, "{}: more than {} redirects", request_.url.shown(), kMaxRedirects);
}

// Whether the hub still has what stands here.
Result<bool> Download::IsUnchanged(const nlohmann::json& source) {
  const auto text = [&](const char* key) {
    const auto it = source.find(key);
    return it != source.end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  const std::string identity = text("identity"), validator = text("validator");
  if (text("url") != request_.url.shown() || (identity.empty() && validator.empty())) return false;
  std::vector<std::string> headers;
  if (!validator.empty())
    headers.push_back((validator.starts_with('"') ? "If-None-Match: " : "If-Modified-Since: ") + validator);
  const auto same = [&](const Answer& answer) { return !identity.empty() && answer.linked.etag == identity; };
  PB_ASSIGN(const Answer answer, Follow(
                                     headers, [](const Answer&) { return false; }, nullptr, same));
  if (same(answer)) return true;
  if (VerdictOf(answer.response.status) != Verdict::kGood)
    return MakeError(Code::kIo, "{}", Refusal(answer.response, answer.url, !request_.token.empty()).message);
  return answer.response.status == 304;
}

// None: it has to be fetched.
Result<std::optional<Fetched>> Download::LookAtTarget() {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(request_.target, error))) return std::optional<Fetched>();
  if (!fs::is_regular_file(request_.target, error))
    return MakeError(Code::kIo, "{}: something else than a file has this name", request_.target.string());
  if (request_.force) return std::optional<Fetched>();
  Fetched there{Fetched::How::kThere, fs::file_size(request_.target, error), ""};
  if (!request_.sha256.empty()) {
    PB_ASSIGN(there.sha256, Sha256File(request_.target));
    if (there.sha256 == request_.sha256) return std::optional(there);
    return MakeError(Code::kMalformed,
                     "{} is there, with sha256 {} instead of {}\n       fetch it again with --force",
                     request_.target.string(), there.sha256, request_.sha256);
  }
  there.how = Fetched::How::kThereUnasked;
  auto source = ReadSealed(SourcePath(), kMaxSourceBytes);
  if (request_.offline || !source.ok()) return std::optional(there);
  auto unchanged = IsUnchanged(*source);
  if (!unchanged.ok()) {
    Log("cannot ask whether the hub has another by now: " + unchanged.error().message);
    return std::optional(there);
  }
  there.how = Fetched::How::kUnchanged;
  if (*unchanged) return std::optional(there);
  Log("the hub has another file under this name by now");
  return std::optional<Fetched>();
}

// Of the answer's headers, before its body: whether what is there goes on or begins anew.
Status Download::Begin(const Answer& answer, Partial& partial) {
  const Response& response = answer.response;
  Origin origin{request_.url.shown(), "", answer.linked.etag, answer.linked.bytes};
  const std::string_view etag = response.Header("etag");
  origin.validator =
      etag.starts_with('"') ? std::string(etag) : std::string(response.Header("last-modified"));
  const bool goes_on = response.status == 206;
  const auto length = Number(response.Header("content-length"));
  uint64_t total = 0;
  if (goes_on) {
    const auto range = ParseContentRange(response.Header("content-range"));
    if (!range || range->first != partial.bytes())
      return MakeError(Code::kIo, "{}: other bytes than those that were asked for ({:.80})",
                       answer.url.shown(), response.Header("content-range"));
    total = range->total;
  } else if (length) {
    total = *length;
  }
  if (total > kMaxTotal || origin.total > kMaxTotal)
    return MakeError(Code::kIo, "{}: not enough disk space: a length of {} bytes", answer.url.shown(),
                     std::max(total, origin.total));
  if (origin.total == 0) origin.total = total;
  if (!goes_on) PB_TRY(partial.Begin(origin));
  Tell({"start", request_.url.shown(), goes_on, partial.bytes(), 0, "", 0, 0});
  return partial.CheckRoom(origin.total > partial.bytes() ? origin.total - partial.bytes() : 0);
}

// One exchange: what is missing is asked for, and taken.
Result<Download::Attempt> Download::Try(Partial& partial) {
  std::vector<std::string> headers;
  const Origin known = partial.origin();
  const bool ours =
      known.url == request_.url.shown() && (!known.validator.empty() || !request_.sha256.empty());
  if (partial.bytes() > 0 && ours) {
    headers.push_back(fmt::format("Range: bytes={}-", partial.bytes()));
    if (!known.validator.empty()) headers.push_back("If-Range: " + known.validator);
  } else if (partial.bytes() > 0) {
    PB_TRY(partial.Begin({}));
  }
  Status begun;
  bool changed = false;
  auto answer = Follow(
      headers,
      [&](const Answer& a) {
        if (a.response.status == 206 && !known.identity.empty() && a.linked.etag != known.identity) {
          changed = true;  // the address has another file by now
          return false;
        }
        if (a.response.status != 200 && a.response.status != 206) return false;
        begun = Begin(a, partial);
        return begun.ok();
      },
      [&](std::string_view bytes) -> Status {
        const uint64_t total = partial.origin().total;
        if (total > 0 && partial.bytes() + bytes.size() > total)
          return MakeError(Code::kMalformed, "more bytes arrive than the {} that were announced", total);
        PB_TRY(partial.Append(bytes));
        if (observer_.progress) observer_.progress(partial.bytes(), total);
        return {};
      });
  if (!begun.ok()) return std::move(begun).error();
  if (changed) {
    PB_TRY(partial.Begin({}));
    return Attempt{Outcome::kAgain, "the hub has another file under this name by now", 0.0};
  }
  if (!answer.ok()) {
    // The disk, and a body that is too long, do not get better by waiting.
    if (answer.error().code == Code::kTimeout) return TimeIsUp();
    if (answer.error().code == Code::kMalformed) {
      PB_TRY(partial.Begin({}));
      return Attempt{Outcome::kAgain, answer.error().message, std::nullopt};
    }
    if (answer.error().message.starts_with(partial.path().string())) return std::move(answer).error();
    return Attempt{Outcome::kAgain, answer.error().message, std::nullopt};
  }
  const Response& response = answer->response;
  if (response.status == 416) {
    const auto range = ParseContentRange(response.Header("content-range"));
    if (range && range->total == partial.bytes() && partial.bytes() > 0)
      return Attempt{Outcome::kWhole, "", {}};
    PB_TRY(partial.Begin({}));
    return Attempt{Outcome::kAgain, "what is here is longer than the hub's file", 0.0};
  }
  switch (VerdictOf(response.status)) {
    case Verdict::kFinal:
      return Refusal(response, answer->url, !request_.token.empty());
    case Verdict::kAgain: {
      std::optional<double> wait = response.retry_after;
      if (!wait && response.status == 429) wait = kRetryAfterThrottled;
      return Attempt{Outcome::kAgain,
                     fmt::format("{}: HTTP {}{}", answer->url.shown(), response.status, Said(response)),
                     wait};
    }
    case Verdict::kGood:
      break;
  }
  const uint64_t total = partial.origin().total;
  if (total > 0 && partial.bytes() < total)
    return Attempt{Outcome::kAgain,
                   fmt::format("{}: {} of {} bytes arrived", answer->url.shown(), partial.bytes(), total),
                   std::nullopt};
  return Attempt{Outcome::kWhole, "", {}};
}

// Attempts until the file is whole.
Status Download::Receive(Partial& partial) {
  uint64_t best = partial.bytes();
  int failed = 0;
  const Origin& known = partial.origin();
  if (best > 0 && known.total == best && known.url == request_.url.shown()) return {};  // cut before the end
  for (;;) {
    PB_ASSIGN(const Attempt attempt, Try(partial));
    if (attempt.outcome == Outcome::kWhole) return {};
    const bool more = partial.bytes() > best;
    best = std::max(best, partial.bytes());
    if (more)
      failed = 0;
    else if (failed >= request_.retries)
      return MakeError(Code::kIo, "{} (after {} attempts without a byte more; what has arrived is kept)",
                       attempt.why, failed + 1);
    const double wait = attempt.wait ? std::clamp(*attempt.wait, 0.0, kMaxRetryAfter) : BackOff(failed);
    failed += !more;
    Log(fmt::format("{}; again in {:.1f} s", attempt.why, wait));
    Tell({"retry", request_.url.shown(), false, 0, wait, attempt.why, 0, 0});
    if (wait > SecondsLeft())
      return MakeError(Code::kIo, "{}: the hub wants {:.0f} s of waiting, {:.0f} s are left (--timeout)",
                       attempt.why, wait, std::max(SecondsLeft(), 0.0));
    std::this_thread::sleep_for(std::chrono::duration<double>(wait));
  }
}

// The digest that the file must have: the user's, else the hub's own; empty: nobody says.
std::string Download::Expected(const Partial& partial) const {
  if (!request_.sha256.empty()) return request_.sha256;
  return IsHex64(partial.origin().identity) ? partial.origin().identity : "";
}

void Download::WriteSource(const Partial& partial, const std::string& sha256) const {
  // That it cannot be kept costs another download at most.
  (void)WriteSealed(SourcePath(), {{"url", partial.origin().url},
                                   {"validator", partial.origin().validator},
                                   {"identity", partial.origin().identity},
                                   {"bytes", partial.bytes()},
                                   {"sha256_of_file", sha256}});
}

Result<Fetched> Download::Complete(Partial& partial) {
  const uint64_t total = partial.origin().total;
  if (total > 0 && partial.bytes() != total)
    return MakeError(Code::kMalformed, "{}: {} bytes arrived, the hub announced {}", request_.url.shown(),
                     partial.bytes(), total);
  PB_ASSIGN(const std::string sha256, Sha256File(partial.path()));
  const std::string expected = Expected(partial);
  if (!expected.empty() && sha256 != expected)
    return MakeError(Code::kMalformed, "{}: what arrived has sha256 {}, expected {}: it is not used",
                     request_.url.shown(), sha256, expected);
  if (request_.check) PB_TRY(request_.check(partial.path()));
  PB_TRY(partial.Finish(request_.target));
  WriteSource(partial, sha256);
  Tell({"done", request_.url.shown(), false, 0, 0, "fetched", partial.bytes(),
        static_cast<int64_t>(Seconds() * 1000)});
  return Fetched{Fetched::How::kFetched, partial.bytes(), sha256};
}

Result<Fetched> Download::Run() {
  PB_ASSIGN(std::optional<Fetched> there, LookAtTarget());
  if (!there) {
    if (request_.offline)
      return MakeError(Code::kNotFound, "{} is not here, and fetching is switched off (offline)",
                       request_.target.string());
    PB_ASSIGN(Partial partial,
              Partial::Open(request_.target, [&] { Log("another download of this file is running"); }));
    // It may have come while this one waited.
    if (!request_.force) {
      PB_ASSIGN(there, LookAtTarget());
      if (there && partial.bytes() == 0) partial.Drop();
    }
    for (bool again = true; !there; again = false) {
      PB_TRY(Receive(partial));
      auto fetched = Complete(partial);
      if (fetched.ok()) return fetched;
      if (fetched.error().code != Code::kMalformed) return std::move(fetched).error();
      // What was resumed may have been of two contents: once from the beginning.
      if (!again) {
        partial.Drop();
        return std::move(fetched).error();
      }
      Log(fetched.error().message + "; once more from the beginning");
      Tell({"retry", request_.url.shown(), false, 0, 0, fetched.error().message, 0, 0});
      PB_TRY(partial.Begin({}));
    }
  }
  const char* how = there->how == Fetched::How::kUnchanged ? "unchanged" : "there";
  Tell(
      {"done", request_.url.shown(), false, 0, 0, how, there->bytes, static_cast<int64_t>(Seconds() * 1000)});
  return *there;
}

}  // namespace

double BackOff(int n) {
  return std::min(0.2 * std::ldexp(1.0, std::min(n, 20)), 10.0) + 0.001 * (37 * n % 200);
}

Result<Fetched> FetchFile(const FileRequest& request, const Observer& observer) {
  std::error_code error;
  fs::create_directories(request.target.parent_path(), error);
  if (error && !request.target.parent_path().empty())
    return MakeError(Code::kIo, "{}: cannot be made: {}", request.target.parent_path().string(),
                     error.message());
  return Download(request, observer).Run();
}

}  // namespace pb::hub
