// Of a sealed receipt no edit is taken for what was written.
#include "receipt/sealed.h"

#include <gtest/gtest.h>

namespace pb::receipt {
namespace {

using Json = nlohmann::json;

std::string Small() {
  return Seal(Json{{"a", 0.1}, {"b", {1, 2.5e-9}}, {"s", "x\n\xc3\xb6"}, {"t", true}, {"n", nullptr}})
      .value();
}

TEST(Sealed, OpensAsItWasWritten) {
  const Opened opened = Open(Small());
  EXPECT_EQ(opened.problem, "");
  EXPECT_EQ(opened.object["a"], 0.1);
  // printf '{"a":0.1,"b":[1,2.5e-9],"n":null,"s":"x\\n\303\266","t":true}' | sha256sum
  EXPECT_EQ(opened.digest, "d9cbe60fecf2769fd23c248aa402a2b6a0f53e20fdc53296e5f79cef83a3e97f");
}

// Every byte, every other value; every byte left out; every byte doubled.
TEST(Sealed, NoEditOfOneByteOpens) {
  const std::string text = Small();
  for (size_t at = 0; at < text.size(); ++at) {
    std::string edited = text;
    for (int value = 0; value < 256; ++value) {
      if (static_cast<char>(value) == text[at]) continue;
      edited[at] = static_cast<char>(value);
      ASSERT_NE(Open(edited).problem, "") << "byte " << at << " = " << value;
    }
    ASSERT_NE(Open(std::string(text).erase(at, 1)).problem, "") << "byte " << at << " left out";
    ASSERT_NE(Open(std::string(text).insert(at, 1, text[at])).problem, "") << "byte " << at << " doubled";
  }
  for (size_t n = 0; n < text.size(); ++n) ASSERT_NE(Open(text.substr(0, n)).problem, "") << n << " bytes";
}

// The same values in another text: what is not canonical is not what was written.
TEST(Sealed, NorDoesAnotherTextOfTheSameValues) {
  const Json object = Json::parse(Small());
  EXPECT_NE(Open(object.dump(1)).problem.find("canonical"), std::string::npos);
  EXPECT_NE(Open(Small() + " ").problem, "");
  EXPECT_NE(Open(Small() + "\n").problem, "");
}

TEST(Sealed, WhatIsNoReceiptSaysSo) {
  EXPECT_NE(Open("").problem, "");
  EXPECT_NE(Open("[]\n").problem.find("no JSON object"), std::string::npos);
  EXPECT_NE(Open("{}\n").problem.find("receipt_sha256"), std::string::npos);
  EXPECT_NE(Open(R"({"a":1,"a":1})").problem.find("occurs twice"), std::string::npos);
  EXPECT_NE(Open(std::string(100000, '[')).problem.find("nested"), std::string::npos);
}

}  // namespace
}  // namespace pb::receipt
