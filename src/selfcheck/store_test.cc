// Kept results that are damaged: what is whole is taken over, the rest is run again, nothing ends
// the program.
#include "selfcheck/store.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/kept.h"

namespace pb::selfcheck {
namespace {

TEST(SelfCheckStore, DamagedLinesAreRunAgain) {
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) / "paritybit-self-check-store";
  SelfResult result;
  result.key = "one", result.detected = true;
  {
    auto store = SelfCheckStore::Open(path, "me", false);
    ASSERT_TRUE(store.ok());
    ASSERT_TRUE((*store)->Add(result).ok());
  }
  const std::string begin = Sealed({{"identity", "me"}, {"schema", "paritybit.self-check.results/1"}});
  const std::string good = [&] {
    std::ifstream file(path);
    std::string first, second;
    std::getline(file, first), std::getline(file, second);
    EXPECT_EQ(first, begin);
    return second;
  }();
  auto found = [&](const std::string& text) {
    std::ofstream(path) << text;
    auto store = SelfCheckStore::Open(path, "me", true);
    return store.ok() && (*store)->Find("one") != nullptr;
  };
  EXPECT_TRUE(found(begin + "\n" + good + "\n"));
  const std::string deep(100000, '[');
  for (const char* damaged :
       {"{}", "[]", "3", "{\"named_as\": 3}", "{\"key\": 1, \"named_as\": \"\"}", "x", deep.c_str()}) {
    EXPECT_TRUE(found(begin + "\n" + damaged + "\n" + good + "\n")) << damaged;
    EXPECT_FALSE(found(std::string(damaged) + "\n" + good + "\n")) << damaged;
  }
  // Another value of the right kind: the digest of the line is that of what was written.
  for (const auto& [from, to] : {std::pair("true", "null"), {"\"one\"", "\"onf\""}}) {
    std::string flipped = good;
    flipped.replace(flipped.find(from), std::string_view(from).size(), to);
    EXPECT_FALSE(found(begin + "\n" + flipped + "\n")) << flipped;
  }
  for (const char* other :
       {R"({"schema":3,"identity":"me"})", R"({"schema":"paritybit.self-check.results/1"})",
        R"({"schema":"paritybit.self-check.results/1","identity":[1]})",
        R"({"schema":"paritybit.self-check.results/0","identity":"me"})"}) {
    EXPECT_FALSE(found(std::string(other) + "\n" + good + "\n")) << other;
    EXPECT_FALSE(found(Sealed(nlohmann::json::parse(other)) + "\n" + good + "\n")) << other;
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace pb::selfcheck
