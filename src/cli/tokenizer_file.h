// --tokenizer: a tokeniser that reads prompts in the engines' place, or confirms the model file's own.
#ifndef PARITYBIT_CLI_TOKENIZER_FILE_H_
#define PARITYBIT_CLI_TOKENIZER_FILE_H_

#include <memory>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "drive/participant.h"
#include "tokenizer/tokenizer.h"

namespace pb::cli {

void AddTokenizerArgument(Flags& flags, ModelArguments& args);

struct ChosenTokenizer {
  std::shared_ptr<const Tokenizer> file;  // null: engines read with the model file's own
  std::vector<std::string> notes;         // whose ids they are, where it is not plain
};

// A tokenizer.json is loaded. A GGUF file has to have the model's own tokeniser: kUnsupported where it
// has another.
Result<ChosenTokenizer> ChooseTokenizer(const ModelArguments& args, const std::string& model);

// A text's ids by the file, else by the engine; kUsage where the file has ids that the engine's model
// has not.
Result<std::vector<int32_t>> ReadText(const ChosenTokenizer& tokenizer, drive::Participant& engine,
                                      const std::string& text);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_TOKENIZER_FILE_H_
