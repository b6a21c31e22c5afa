// The templates against what their documents say, written out by hand.
#include "chat/prompt_template.h"

#include <gtest/gtest.h>

namespace pb::chat {
namespace {

TEST(PromptTemplateTest, FramesAsDocumented) {
  EXPECT_EQ(FramePrompt("auto", "", "2+2="), "2+2=");
  EXPECT_EQ(FramePrompt("raw", "", "2+2="), "2+2=");
  EXPECT_EQ(FramePrompt("instruct", "", "What is 2+2?"), "Q: What is 2+2?\nA:");
  EXPECT_EQ(FramePrompt("instruct", "Be brief.", "What is 2+2?"), "System: Be brief.\n\nQ: What is 2+2?\nA:");
  EXPECT_EQ(FramePrompt("llama3-chat", "", "Hi"),
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(FramePrompt("llama3-chat", "Be brief.", "Hi"),
            "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

}  // namespace
}  // namespace pb::chat
