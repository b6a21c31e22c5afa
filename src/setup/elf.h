// What a shared library says of itself: its name, what it needs, which functions it offers. Read
// from the file, so that nothing of it runs.
#ifndef PARITYBIT_SETUP_ELF_H_
#define PARITYBIT_SETUP_ELF_H_

#include <cstddef>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace pb::setup {

struct ElfLibrary {
  std::string soname;  // the name that programs linked with it look for; empty: the file's own
  std::vector<std::string> needed;
  std::string search;             // its own folders, as "$ORIGIN/../lib:/opt/lib"; may be empty
  std::set<std::string> exports;  // defined dynamic symbols
};

// kMalformed names the byte: no ELF file, or a damaged one. kUnsupported: a library for another
// kind of machine than x86-64.
Result<ElfLibrary> ParseElf(std::span<const std::byte> bytes);
// The same of a file, which is named in front of the message.
Result<ElfLibrary> ReadElf(const std::filesystem::path& path);

}  // namespace pb::setup

#endif  // PARITYBIT_SETUP_ELF_H_
