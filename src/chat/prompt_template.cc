// Frames a prompt by one of the templates that have a name.
#include "chat/prompt_template.h"

#include <array>

namespace pb::chat {
namespace {

constexpr std::array kNames = {"auto", "raw", "instruct", "llama3-chat"};

// A message as LLaMA 3 reads it (its model card, "Llama 3 Instruct").
std::string Turn(std::string_view role, std::string_view content) {
  std::string text = "<|start_header_id|>";
  text.append(role).append("<|end_header_id|>\n\n").append(content);
  return text;
}

}  // namespace

std::span<const char* const> PromptTemplateNames() { return kNames; }

std::string FramePrompt(std::string_view name, std::string_view system, std::string_view prompt) {
  std::string text;
  if (name == "instruct") {
    if (!system.empty()) text.append("System: ").append(system).append("\n\n");
    return text.append("Q: ").append(prompt).append("\nA:");
  }
  if (name == "llama3-chat") {
    if (!system.empty()) text += Turn("system", system) + "<|eot_id|>";
    return text + Turn("user", prompt) + "<|eot_id|>" + Turn("assistant", "");
  }
  return std::string(prompt);
}

}  // namespace pb::chat
