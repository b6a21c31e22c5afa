// The prompt templates of the documented system, by name: how BitNet.rs frames a prompt where the
// model's own chat template is not asked for.
#ifndef PARITYBIT_CHAT_PROMPT_TEMPLATE_H_
#define PARITYBIT_CHAT_PROMPT_TEMPLATE_H_

#include <span>
#include <string>
#include <string_view>

namespace pb::chat {

// auto raw instruct llama3-chat
std::span<const char* const> PromptTemplateNames();

// `prompt` as the template frames it. auto and raw: as it is (there auto has never meant anything
// else). instruct: a question and the beginning of its answer. llama3-chat: LLaMA 3's turns, without
// the token that begins a text, as tokenisers add it by themselves. Of raw, `system` is not used.
std::string FramePrompt(std::string_view name, std::string_view system, std::string_view prompt);

}  // namespace pb::chat

#endif  // PARITYBIT_CHAT_PROMPT_TEMPLATE_H_
