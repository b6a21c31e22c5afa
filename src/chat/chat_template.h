// Chat templates: the subset of Jinja that model files use.
#ifndef PARITYBIT_CHAT_CHAT_TEMPLATE_H_
#define PARITYBIT_CHAT_CHAT_TEMPLATE_H_

#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pb::chat {

struct ChatMessage {
  std::string role, content;
};

// Renders a Jinja chat template (the subset that model files use; anything else is kUnsupported and
// named with its line). Variables: messages, add_generation_prompt, bos_token, eos_token.
Result<std::string> ApplyChatTemplate(std::string_view chat_template, std::span<const ChatMessage> messages,
                                      bool add_generation_prompt, std::string_view bos_text,
                                      std::string_view eos_text);

}  // namespace pb::chat

#endif  // PARITYBIT_CHAT_CHAT_TEMPLATE_H_
