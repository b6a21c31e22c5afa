// How the text that names an engine is split.
#include "drive/engine_spec.h"

#include <gtest/gtest.h>

namespace pb::drive {
namespace {

TEST(EngineName, NameAlone) {
  auto engine = ParseEngineName("llama.cpp");
  ASSERT_TRUE(engine.ok());
  EXPECT_EQ(engine->name, "llama.cpp");
  EXPECT_TRUE(engine->settings.empty());
}

TEST(EngineName, PathWithSettingsTheLastOfAKeyWins) {
  auto engine = ParseEngineName("./lib mine.so,threads=2,kv.type=f32,threads=3");
  ASSERT_TRUE(engine.ok());
  EXPECT_EQ(engine->name, "./lib mine.so");
  EXPECT_EQ(engine->settings, (host::Settings{{"threads", "3"}, {"kv.type", "f32"}}));
}

TEST(EngineName, AValueMayHoldEqualsSigns) {
  auto engine = ParseEngineName("native,a=b=c");
  ASSERT_TRUE(engine.ok());
  EXPECT_EQ(engine->settings, (host::Settings{{"a", "b=c"}}));
}

TEST(EngineName, WhatIsNotKeyEqualsValueIsNamed) {
  for (const char* text : {"", ",a=b", "native,", "native,threads", "native,=2", "native,threads="}) {
    auto engine = ParseEngineName(text);
    ASSERT_FALSE(engine.ok()) << text;
    EXPECT_EQ(engine.error().code, Code::kUsage);
    EXPECT_NE(engine.error().message.find('`'), std::string::npos) << engine.error().message;
  }
}

}  // namespace
}  // namespace pb::drive
