// Reads hyper-parameters from GGUF metadata: the architecture table, defaults, and what is refused by name.
#ifndef PARITYBIT_MODEL_HYPER_H_
#define PARITYBIT_MODEL_HYPER_H_

#include <string>
#include <vector>

#include "model/model.h"

namespace pb {

// Everything but n_vocab and output_tied, which the tensors decide. The activation is set where the
// architecture fixes it. Keys of the architecture that nothing here reads are added to `findings`.
Result<HyperParameters> ReadHyperParameters(const GgufFile& file, std::vector<std::string>& findings);

}  // namespace pb

#endif  // PARITYBIT_MODEL_HYPER_H_
