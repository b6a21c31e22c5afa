// One file from a hub onto the disk: resumed where it was cut, checked, and put under its name only
// when it is whole.
#ifndef PARITYBIT_HUB_DOWNLOAD_H_
#define PARITYBIT_HUB_DOWNLOAD_H_

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "hub/url.h"

namespace pb::hub {

// What happens, for logs and for programs.
struct Event {
  std::string phase;     // "start" "retry" "done"
  std::string url;       // without its query
  bool resume = false;   // of start: it goes on behind what is there
  uint64_t start = 0;    // of start: at this byte
  double wait_secs = 0;  // of retry: before the next attempt
  std::string msg;       // of retry: what went wrong; of done: how it ended
  uint64_t bytes = 0;    // of done: of the file
  int64_t ms = 0;        // of done: since the first start
};

struct Observer {
  std::function<void(const Event&)> event;
  std::function<void(uint64_t done, uint64_t total)> progress;  // total 0: not known
  std::function<void(std::string_view line)> log;               // for -v
};

struct FileRequest {
  Url url;
  std::filesystem::path target;
  std::string token;     // sent to the origin of `url` and to no other; empty: none
  std::string sha256;    // of the file, lower case; empty: what the hub says of it counts
  bool force = false;    // fetched again although it is there
  bool offline = false;  // what is not there is an error
  int retries = 3;       // in a row without a byte more than before
  double seconds = 1800;
  // Of all that has arrived, before it gets its name; may be empty.
  std::function<Status(const std::filesystem::path&)> check;
};

struct Fetched {
  enum class How { kFetched, kThere, kUnchanged, kThereUnasked };
  How how = How::kFetched;
  uint64_t bytes = 0;
  std::string sha256;  // of a file that was fetched or compared; else empty
};

// Beside the target lie TARGET.part and TARGET.part.json while it is not whole, and
// TARGET.source.json afterwards (where it is from). One process at a time fetches a target; another
// waits. kNotFound: the hub has no such file, or offline; kIo: the network, the disk, a refusal, the
// time; kMalformed: what arrived is not what it should be.
Result<Fetched> FetchFile(const FileRequest& request, const Observer& observer);

// Seconds before attempt n + 1 (n from 0): 0.2 * 2^n, at most 10, and a little more for each.
double BackOff(int n);

}  // namespace pb::hub

#endif  // PARITYBIT_HUB_DOWNLOAD_H_
