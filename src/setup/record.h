// What is remembered of a reference: CacheDir()/references/NAME/reference.json says which build it
// is, and each adapter compiled for it keeps the proof beside itself.
#ifndef PARITYBIT_SETUP_RECORD_H_
#define PARITYBIT_SETUP_RECORD_H_

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "setup/build.h"

namespace pb::setup {

// Of all references. Names that begin with a point are set-up's own.
std::filesystem::path ReferencesDir();

struct Record {
  std::string name;
  Build build;  // version as the package or the engine tells it
  std::string commit;
  std::string release;  // the version that it was fetched by; empty: it is no package
  bool chosen = false;  // somebody named it, so no other one takes its place
  std::vector<Fingerprint> libraries;
  std::string digest;  // BuildDigest
};
// Paths below ReferencesDir() are kept relative to it, so that the cache may be moved.
Status WriteRecord(const Record& record);
// kNotFound: there is none; kMalformed: it is damaged.
Result<Record> ReadRecord(std::string_view name);
// Names that have a record.
std::vector<std::string> RecordedNames();

// An adapter's folder: each state of its sources has one, so that several versions of paritybit
// share a cache.
std::filesystem::path AdapterDir(std::string_view name, const std::string& adapter_digest);
// What its golden forward pass said.
Status WriteProof(std::string_view name, const std::string& adapter_digest, const std::string& proof);
// kNotFound: the adapter has not been proved.
Result<std::string> ReadProof(std::string_view name, const std::string& adapter_digest);

// A string of the object; empty when it is absent or something else.
std::string Text(const nlohmann::json& object, const char* key);

}  // namespace pb::setup

#endif  // PARITYBIT_SETUP_RECORD_H_
