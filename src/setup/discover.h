// Builds of llama.cpp that this machine has already, where their makers and packages put them.
#ifndef PARITYBIT_SETUP_DISCOVER_H_
#define PARITYBIT_SETUP_DISCOVER_H_

#include <filesystem>
#include <string>
#include <vector>

namespace pb::setup {

// A place that has a libllama; whether it serves is found out by ReadBuild.
struct Place {
  std::string how;  // "pkg-config llama"
  std::filesystem::path root;
};
// In the order in which they are tried: pkg-config, CMake packages, library paths, an installed
// llama-cpp-python, the folder of the documented system's own set-up. Each folder once.
std::vector<Place> DiscoverBuilds();

}  // namespace pb::setup

#endif  // PARITYBIT_SETUP_DISCOVER_H_
