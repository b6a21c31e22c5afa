// tokenizer.json files of Hugging Face's `tokenizers` library behind the Tokenizer interface: the same
// ids and text as that package, for everything that is not refused by name.
#ifndef PARITYBIT_TOKENIZER_JSON_TOKENIZER_H_
#define PARITYBIT_TOKENIZER_JSON_TOKENIZER_H_

#include <filesystem>
#include <memory>
#include <string_view>

#include "tokenizer/tokenizer.h"

namespace pb {

// kUnsupported: a component that is not offered, with its path in the file; kMalformed: what cannot be
// read, with its path or byte.
//
// Text has to be UTF-8: another byte is an error that names it. Without add_special the
// post-processor's tokens are left out; without parse_special the texts of special tokens are text.
// Truncation and padding that the file asks for are not applied, and a finding says so.
Result<std::unique_ptr<const Tokenizer>> CreateJsonTokenizer(std::string_view json);
Result<std::unique_ptr<const Tokenizer>> LoadJsonTokenizer(const std::filesystem::path& path);

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_JSON_TOKENIZER_H_
