// Which tensors of a file nothing reads.
#ifndef PARITYBIT_MODEL_UNMAPPED_H_
#define PARITYBIT_MODEL_UNMAPPED_H_

#include <string>
#include <vector>

#include "formats/gguf.h"

namespace pb {

// The tensors of a file whose names no op reads: of its architecture, or of any where that is not
// known; in the order of the file.
std::vector<std::string> UnmappedTensors(const GgufFile& file);

}  // namespace pb

#endif  // PARITYBIT_MODEL_UNMAPPED_H_
