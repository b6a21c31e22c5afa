// Results of a self-check on disk, a JSON line each, so that a run that was interrupted goes on.
#ifndef PARITYBIT_SELFCHECK_STORE_H_
#define PARITYBIT_SELFCHECK_STORE_H_

#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <string>

#include "selfcheck/self_check.h"

namespace pb::selfcheck {

// For use from several threads.
class SelfCheckStore {
 public:
  // `identity`: of the engines and of this program; results of another one are not taken over. An
  // empty path keeps nothing.
  static Result<std::unique_ptr<SelfCheckStore>> Open(const std::filesystem::path& path,
                                                      const std::string& identity, bool resume);

  // nullptr: it was not run yet.
  const SelfResult* Find(const std::string& key) const;
  // Written and flushed before it returns.
  Status Add(const SelfResult& result);

 private:
  SelfCheckStore() = default;
  std::mutex mutex_;
  std::filesystem::path path_;
  std::ofstream out_;
  std::map<std::string, SelfResult> known_;
};

}  // namespace pb::selfcheck

#endif  // PARITYBIT_SELFCHECK_STORE_H_
