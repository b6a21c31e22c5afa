// Part of the build: writes the manual pages into a folder. paritybit-man-pages FOLDER DATE
#include <fmt/core.h>

#include "base/file.h"
#include "cli/man.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  for (const auto& [name, text] : pb::cli::ManualPages(argv[2])) {
    const pb::Status written = pb::WriteFileAtomic(std::filesystem::path(argv[1]) / (name + ".1"), text);
    if (!written.ok()) {
      fmt::print(stderr, "{}\n", written.error().message);
      return 5;
    }
  }
  return 0;
}
