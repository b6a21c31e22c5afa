// Addresses, names and waiting times of hubs.
#include "hub/hub.h"

#include <gtest/gtest.h>

#include "hub/download.h"

namespace pb::hub {
namespace {

TEST(Url, IsTakenApart) {
  auto url = Url::Parse("HTTPS://Hub.Example:8443/a%20b?sig=1#part");
  ASSERT_TRUE(url.ok());
  EXPECT_EQ(url->scheme, "https");
  EXPECT_EQ(url->host, "hub.example");
  EXPECT_EQ(url->port, 8443);
  EXPECT_EQ(url->text(), "https://hub.example:8443/a%20b?sig=1");
  EXPECT_EQ(url->shown(), "https://hub.example:8443/a%20b");
  EXPECT_EQ(Url::Parse("http://x")->text(), "http://x/");
  EXPECT_EQ(Url::Parse("http://[::1]:80")->text(), "http://[::1]/");
}

TEST(Url, WhatIsNoneIsRefused) {
  for (const char* text :
       {"", "x", "ftp://x", "http://", "http://:80", "http://x:0", "http://x:70000", "http://x:8a",
        "http://me@x", "http://x/ y", "http://x/\n", "http://[::1", "//x", "http:/x"})
    EXPECT_FALSE(Url::Parse(text).ok()) << text;
}

// RFC 3986, 5.2, as far as hubs use it.
TEST(Url, ALocationIsReadFromWhereItStands) {
  const Url here = *Url::Parse("https://hub.example:444/a/b?q=1");
  EXPECT_EQ(here.Join("https://cdn.example/x?y")->text(), "https://cdn.example/x?y");
  EXPECT_EQ(here.Join("//cdn.example/x")->text(), "https://cdn.example/x");
  EXPECT_EQ(here.Join("/x")->text(), "https://hub.example:444/x");
  EXPECT_EQ(here.Join("x")->text(), "https://hub.example:444/a/x");
  EXPECT_EQ(here.Join("/x?to=http://elsewhere")->text(), "https://hub.example:444/x?to=http://elsewhere");
  EXPECT_FALSE(here.Join("file:///etc/passwd").ok());
}

TEST(Url, OnlyTheSameOriginIsTheSame) {
  const Url home = *Url::Parse("https://hub.example/x");
  EXPECT_TRUE(home.SameOrigin(*Url::Parse("https://HUB.example:443/y")));
  for (const char* other :
       {"http://hub.example", "https://hub.example:444", "https://hub.example.evil", "https://ub.example"})
    EXPECT_FALSE(home.SameOrigin(*Url::Parse(other))) << other;
}

TEST(Url, LoopbackIsThisMachineAlone) {
  for (const char* text : {"http://localhost", "http://127.0.0.1:1", "http://127.1.2.3", "http://[::1]"})
    EXPECT_TRUE(Url::Parse(text)->loopback()) << text;
  for (const char* text :
       {"http://127.evil.example", "http://localhost.evil", "http://10.0.0.1", "http://128.0.0.1"})
    EXPECT_FALSE(Url::Parse(text)->loopback()) << text;
}

TEST(Hub, FilesHaveAPlace) {
  const auto repository = ParseRepository("https://hub.example/mirror/", "own/re.po_1", "refs/pr/2");
  ASSERT_TRUE(repository.ok());
  EXPECT_EQ(FileUrl(*repository, "q4 k/m#.gguf")->text(),
            "https://hub.example/mirror/own/re.po_1/resolve/refs%2Fpr%2F2/q4%20k/m%23.gguf");
  EXPECT_EQ(TargetOf("models", "own/repo", "q4/m.gguf"), "models/own-repo/m.gguf");
}

TEST(Hub, AllPartsOfASet) {
  EXPECT_EQ(*PartsOf("m.gguf"), std::vector<std::string>{"m.gguf"});
  const std::vector<std::string> three = {"d/m-00001-of-00003.gguf", "d/m-00002-of-00003.gguf",
                                          "d/m-00003-of-00003.gguf"};
  EXPECT_EQ(*PartsOf("d/m-00002-of-00003.gguf"), three);
  EXPECT_FALSE(PartsOf("m-00004-of-00003.gguf").ok());
  EXPECT_FALSE(PartsOf("m-00000-of-00003.gguf").ok());
  EXPECT_FALSE(PartsOf("m-00001-of-99999.gguf").ok());
}

// The documented system's: 200 ms * 2^n, at most 10 s, and 37 n mod 200 ms.
TEST(Download, BackOff) {
  EXPECT_DOUBLE_EQ(BackOff(0), 0.2);
  EXPECT_DOUBLE_EQ(BackOff(1), 0.437);
  EXPECT_DOUBLE_EQ(BackOff(3), 1.6 + 0.111);
  EXPECT_DOUBLE_EQ(BackOff(6), 10 + 0.022);
  EXPECT_DOUBLE_EQ(BackOff(1000), 10 + 0.0);
}

}  // namespace
}  // namespace pb::hub
